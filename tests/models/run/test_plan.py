"""The plan: what it says of data, schedule and machine, and which problems stop a run."""
import dataclasses
import math
import os
import subprocess
import sys

import numpy as np
import pytest

import main
from configs import schema
from configs.schedule import learning_rate
from datasets import shard_sets
from datasets.tfrecords import Shard
from models.run import plan, room
from tests.helpers import weight_files
from tests.helpers.runs import ROOT


def found(shards, documents, tokens, path="x_0.tfrecords"):
    """A corpus of so many equal shards."""
    shard = Shard(path, documents // shards, tokens // shards, None, 0, None, 1, 5)
    return shard_sets.ShardSet((shard_sets.Part((shard,) * shards, 1.0),), None, None)


ENOUGH = plan.Data(found(8, 1000, 50_000_000), found(1, 10, 900_000, "x-eval_0.tfrecords"))
ROOMY = room.Machine(on_cpu=True, memory=10**14, free=10**13, disk=10**15)


def config_with(**values):
    return schema.from_dict({"model_dir": "runs/a", "n_vocab": 50257, **values}, "x")


def report_of(config, data=ENOUGH, machine=ROOMY):
    return plan.report(config, data, machine, plan.problems(config, data, machine))


def test_report_counts_what_all_steps_read_and_what_no_window_holds(tmp_path):
    # 8 files of 6 tokens and 2 documents are one block: 64 targets but the first, in windows of 10
    config = config_with(train_batch_size=4, n_ctx=10, max_steps=300, model_dir=str(tmp_path))
    text = report_of(config, plan.Data(found(8, 16, 48), "none"))
    assert "read in all             200.00 epochs, 3,200 documents, 12,000 tokens" in text
    assert "dropped                 6.2500% of each epoch" in text
    assert any("reads the training data 200.0 times" in line for line in problems_of(
        tmp_path, plan.Data(found(8, 16, 48), "none"), train_batch_size=4, n_ctx=10, max_steps=300).spoil)


def test_learning_rate_rises_evenly_and_reaches_lr_right_after_the_warmup():
    config = config_with(lr=0.5, warmup_steps=4, max_steps=20)
    assert [learning_rate(float(step), config, np) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize("schedule, quarter, half", [
    ("cosine", 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 0.55), ("linear", 0.775, 0.55), ("constant", 1, 1)])
def test_learning_rate_falls_along_its_schedule(schedule, quarter, half):
    config = config_with(lr=2.0, warmup_steps=100, max_steps=500, lr_min=0.1, lr_schedule=schedule)
    end = 1 if schedule == "constant" else 0.1
    assert [learning_rate(float(step), config, np) / 2 for step in (100, 200, 300, 500, 501, 10**6)] == pytest.approx(
        [1, quarter, half, end, end, end])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_learning_rate_exists_at_every_step_when_all_is_warmup_or_nothing_is(schedule):
    all_warmup = config_with(lr=1.0, warmup_steps=5, max_steps=5, lr_schedule=schedule)
    assert learning_rate(4.0, all_warmup, np) == pytest.approx(5 / 6)
    assert learning_rate(5.0, all_warmup, np) == 1  # behind the last step, as the graph always had it
    assert learning_rate(0.0, config_with(lr=1.0, lr_schedule=schedule), np) == 1


def test_report_says_where_a_decay_begins(tmp_path):
    values = {"lr": 2.0, "lr_min": 0.1, "max_steps": 5000, "model_dir": str(tmp_path)}
    text = report_of(config_with(lr_schedule="wsd", decay_steps=1200, **values))
    assert "lr, 75 %                2 at step 3,750\n" in text and "lr, end                 0.2 at step 5,000\n" in text
    assert "lr, decay begins        2 at step 3,800\n" in text
    assert "decay begins" not in report_of(config_with(**values))


def test_report_without_problems_says_everything(tmp_path):
    config = config_with(model_dir=str(tmp_path / "not" / "yet"), train_batch_size=12, micro_batch_size=4,
                         max_steps=2000, warmup_steps=100)
    text = report_of(config)
    for words in ("12 layers, 12 heads of 64, width 768, context 1,024, vocabulary 50,257", "124,439,808",
                  "12,288 = 12 x 1,024 in 3 micro-batches of 4", "24,576,000",
                  "8 shards, 1,000 documents, 50,000,000 tokens", "1 shards, 10 documents, 900,000 tokens",
                  "read in all             0.49 epochs, 491 documents, 24,576,000 tokens",
                  "5 x 1.5 GB = 7.5 GB", "memory here             100.0 TB, of which 10.0 TB are free",
                  "disk                    1000.0 TB are free for", "0.00025 at step 100", "0 at step 2,000"):
        assert words in text
    assert text.splitlines()[-1] == "no problems found"
    assert not (tmp_path / "not").exists()


def problems_of(tmp_path, data=ENOUGH, machine=ROOMY, **values):
    return plan.problems(config_with(**{"model_dir": str(tmp_path), **values}), data, machine)


@pytest.mark.parametrize("values, words", [
    ({"max_steps": 30_000}, '"max_steps" 30,000 reads the training data 4.9 times; beyond 4 epochs'),
    ({"warmup_steps": 300, "max_steps": 1000}, '"warmup_steps" 300 is 30% of "max_steps" 1,000'),
    ({"max_steps": 9, "eval_steps": 200}, '"eval_steps" 200 x "eval_batch_size" 8 is more than the 879 windows'),
    ({"max_steps": 9, "train_batch_size": 60_000}, 'its 48,828 windows of "n_ctx" do not fill one batch'),
])
def test_setting_that_spoils_the_run_does_not_stop_it(values, words, tmp_path):
    stop, spoil = problems_of(tmp_path, **values)
    assert not stop and len([line for line in spoil if words in line]) == 1


@pytest.mark.parametrize("train, held_out, words", [
    ("no shard matches x_*.tfrecords", ENOUGH.eval, "training data: no shard matches x_*.tfrecords"),
    (found(1, 3, 1020), ENOUGH.eval, "training data: the 1020 tokens in x_0.tfrecords do not fill one window of"),
    (ENOUGH.train, "no shard matches y", "eval data: no shard matches y"),
    ("both have other ids", "both have other ids", "training data: both have other ids"),
    (ENOUGH.train, found(1, 0, 0, "y_0.tfrecords"), "holds no text (0 records of 0 tokens); give another"),
])
def test_missing_or_empty_data_stops_the_run_and_the_report_survives_it(train, held_out, words, tmp_path):
    data = plan.Data(train, held_out)
    (problem,), spoil = problems_of(tmp_path, data, max_steps=10)
    assert words in problem and not spoil
    text = report_of(config_with(model_dir=str(tmp_path), max_steps=10), data)
    assert text.splitlines()[-2:] == ["problems that stop the run:", "  - " + problem]


def test_evaluation_on_what_is_trained_on_is_told_by_path_or_contents(tmp_path):
    for held_out in ("x_0.tfrecords", "./x_0.tfrecords"):
        _, (line,) = problems_of(tmp_path, plan.Data(ENOUGH.train, found(1, 10, 900_000, held_out)), max_steps=10)
        assert line == f"{held_out} is trained on and evaluated on; the evaluation will look too good"
    one, other = (found(1, 1000, 50_000_000, path) for path in ("a/x_0.tfrecords", "b/y_0.tfrecords"))
    one, other = (data._replace(parts=(shard_sets.Part((data.parts[0].shards[0]._replace(sha256="0a"),) * 2, 1.0),))
                  for data in (one, other))
    assert "b/y_0.tfrecords is trained on" in problems_of(tmp_path, plan.Data(one, other), max_steps=10).spoil[0]


def test_missing_eval_data_is_no_problem_when_nothing_is_evaluated(tmp_path):
    assert not any(problems_of(tmp_path, plan.Data(ENOUGH.train, "none"), max_steps=10, eval_steps=0))


def test_model_dir_that_cannot_be_made_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    found = problems_of(tmp_path, max_steps=10, model_dir=str(tmp_path / "file" / "run"))
    assert found == ([f'"model_dir" {tmp_path}/file/run cannot be written: {tmp_path}/file: Not a directory; choose a'
                      " path in a folder"], [])
    monkeypatch.setattr(plan.state_file, "newest", lambda folder: None)  # of Google Storage
    assert not any(problems_of(tmp_path, max_steps=10, model_dir="gs://bucket/run", machine=ROOMY._replace(disk=None)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_model_dir_without_permission_is_a_problem(tmp_path):
    tmp_path.chmod(0o500)
    assert f"cannot be written: {tmp_path}: Permission denied" in problems_of(tmp_path, max_steps=10).stop[0]


def test_plan_of_a_run_that_could_not_start_has_status_2_and_tells_apart_what_only_spoils_it(
        run_config, tmp_path, capsys):
    change = ["--set", "warmup_steps=7"]
    assert main.main(["--model", run_config(), "--plan", *change]) == 0
    spoilt = capsys.readouterr().out
    assert "problems that spoil the run:\n" in spoilt and "problems that stop" not in spoilt
    assert main.main(["--model", run_config(train_files="no_*.tfrecords"), "--plan", *change]) == 2
    stop, spoil = capsys.readouterr().out.split("problems that stop the run:\n")[1].split(
        "problems that spoil the run:\n")
    weights = weight_files.write_openai(tmp_path / "a[1]")
    assert "training data: " in stop and stop.count("\n") == 1 and '"warmup_steps" 7 is 88%' in spoil
    for changes, words in (({"data_path": "/nowhere"}, 'or set "eval_steps" to 0 to train without'),
                           ({"n_vocab": 299}, "has 300 ids"),
                           ({"model_dir": "/dev/null/run"}, "/dev/null: Not a directory"),
                           ({"init_checkpoint": weights}, f"the checkpoint {weights}/model.ckpt holds [, and Tenso"),
                           ({"init_checkpoint": "/nowhere"}, "/nowhere: no such file or folder")):
        assert main.main(["--model", run_config(**changes), "--plan"]) == 2
        assert words in capsys.readouterr().out.split("problems that stop the run:\n")[1]


@pytest.mark.parametrize("text, words", [("{{{", "TF_CONFIG is {{{ (Expecting property name"), (
    '{"cluster": {"chief": ["h:9", "h:9"]}, "task": {"type": "chief", "index": 1}}', "(two hosts have one address)")])
def test_plan_tells_what_is_wrong_with_the_hosts(run_config, monkeypatch, capsys, text, words):
    monkeypatch.setenv("TF_CONFIG", text)
    assert main.main(["--model", run_config(), "--plan"]) == 2
    assert words in capsys.readouterr().out.split("problems that stop the run:\n")[1]


def test_plan_of_a_run_that_goes_on_tells_apart_what_fits_it_and_what_does_not(finished, capsys):
    for change, status, title, words in (("lr=0.5", 0, "spoil", '"lr" was 0.01'),
                                         ("n_layer=3", 2, "stop", '"n_layer" was 2')):
        assert main.main(["--model", finished, "--plan", "--set", change]) == status
        assert words in capsys.readouterr().out.split(f"problems that {title} the run:")[1]


def test_time_on_a_cpu_is_an_estimate_and_on_a_gpu_it_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "seconds_a_step", lambda config: 2.5)
    config = config_with(max_steps=2000, model_dir=str(tmp_path))
    text = report_of(config)
    assert "time                    about 83 minutes, 2.5 seconds a step: an estimate from products" in text
    # 6 x 124.4 M parameters + 12 x 12 x 768 x 1024 for each of 8 x 1024 tokens
    on_gpu = ROOMY._replace(on_cpu=False, free=None)
    assert "time                    1.4e+16 operations, 1.9 minutes of an A100 at 40 %" in report_of(
        config, machine=on_gpu)
    assert "memory here             100.0 TB on each GPU\n" in report_of(config, machine=on_gpu)
    # and for each of 12 layers, 5 times 56 x 768^3 of Muon's products
    of_muon = dataclasses.replace(config, opt_name="muon", train_batch_size=1)
    assert "time                    4.8e+15 operations" in report_of(of_muon, machine=on_gpu)


def test_plan_and_configs_import_no_tensorflow():
    code = "import sys, models.run.plan, configs.resume, configs.schema; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
