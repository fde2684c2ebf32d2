"""Runs: trained, evaluated, stopped, resumed, and stopped by what is wrong with their data or their loss."""
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import main
from configs import schema
from models.checkpoints import run_checkpoints
from models.run import hooks, loss_watch, metrics_file
from tests.helpers import graphs, records, reference
from tests.helpers.runs import ROOT, command, in_terminal, mistake, scalars_of, stop_after, weights_of


def test_training_evaluates_after_each_chunk_and_stops_exactly_at_max_steps(run_config, tmp_path, capsys):
    assert main.main(["--model", run_config(max_steps=10)]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"evaluation at step (\d+): loss [\d.]+, perplexity [\d.]+, [\d.]+ bits per byte, 2 batches in ",
                      out) == ["4", "8", "10"]
    assert re.search(r"step +1/10 +loss \d+\.\d{4} +lr \d\.\d\de-\d\d", out)
    assert re.search(r"step +10/10 +loss .* tokens/s +0:00 left", out)
    assert weights_of(tmp_path / "run", 10)["global_step"] == 10
    assert json.loads((tmp_path / "run" / "config.json").read_text())["n_embd"] == 32


@pytest.mark.slow
def test_every_checkpoint_and_the_graph_are_written_once(run_config, tmp_path):
    config = run_config(max_steps=10)
    for _ in range(2):  # the second call finds the run finished
        assert main.main(["--model", config]) == 0
    assert main.main(["--model", config, "--set", "max_steps=13"]) == 0
    events = [event for path in sorted((tmp_path / "run").glob("*tfevents*"))
              for event in tf.train.summary_iterator(str(path))]
    assert [event.step for event in events
            if event.session_log.status == tf.SessionLog.CHECKPOINT] == [0, 4, 8, 10, 12, 13]
    assert sum(bool(event.graph_def) for event in events) == 1


def test_resumed_run_whose_next_checkpoint_would_not_fit_the_disk_ends_before_a_step(finished, monkeypatch):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    said = mistake("--model", finished, "--set", "max_steps=1000")
    assert "1.0 kB are left on its disk" in said and "make room" in said


def test_training_learns(run_config, tmp_path):
    assert main.main(["--model", run_config(max_steps=60, train_steps=60)]) == 0
    evaluation = scalars_of(tmp_path / "run" / "eval")
    assert evaluation["token_loss"][-1][1] < 4.6  # log(300) = 5.7 before the first step


@pytest.mark.parametrize("opt_name, slot", [
    ("adam", "/adam_m"), pytest.param("muon", "/muon_m", marks=pytest.mark.slow)])
def test_resumed_run_equals_the_uninterrupted_one_to_the_bit(run_config, tmp_path, opt_name, slot):
    changes = {"res_dropout": 0.1, "attn_dropout": 0.1, "max_steps": 9, "eval_steps": 0, "opt_name": opt_name}
    main.main(["--model", run_config(train_steps=9, model_dir=str(tmp_path / "whole"), **changes)])
    parts = run_config(train_steps=3, model_dir=str(tmp_path / "parts"), **changes)
    stop_after(parts, 5)
    assert weights_of(tmp_path / "parts", 5)["global_step"] == 5
    main.main(["--model", parts])
    whole, resumed = weights_of(tmp_path / "whole", 9), weights_of(tmp_path / "parts", 9)
    assert set(whole) == set(resumed) and any(name.endswith(slot) for name in whole)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, resumed[name], err_msg=name)


def test_a_finished_run_says_so_and_trains_no_further(run_config, tmp_path, capsys):
    config = run_config(max_steps=4)
    main.main(["--model", config])
    before = sorted(os.listdir(tmp_path / "run"))
    next_command = f"generate: python3 main.py --model {config} --interactive\n"
    assert re.search(rf'\ndone: {tmp_path}/run is trained to step 4; read .* tokens; raise "max_steps" to go on\n'
                     + next_command + "$", capsys.readouterr().out)
    assert main.main(["--model", config]) == 0
    assert capsys.readouterr().out.endswith(
        f'{tmp_path}/run is done: step 4 of 4; raise "max_steps" to go on\n' + next_command)
    assert sorted(os.listdir(tmp_path / "run")) == before


def test_tensorboard_gets_training_and_evaluation_scalars(run_config, tmp_path):
    main.main(["--model", run_config(max_steps=20, train_steps=20)])
    training, evaluation = scalars_of(tmp_path / "run"), scalars_of(tmp_path / "run" / "eval")
    for tag in ("loss", "progress/learning_rate", "progress/gradient_norm", "speed/tokens_per_second",
                "speed/teraflops_per_second", "progress/epoch"):
        assert [step for step, _ in training[tag]] == [10, 20], tag
        assert all(np.isfinite(value) and value > 0 for _, value in training[tag])
    assert training["progress/tokens_seen"] == [(10, 640), (20, 1280)]
    assert training["progress/documents_seen"] == [(10, 0), (20, 0)]  # of two documents a third was read
    assert all(0 < value < 0.01 for _, value in training["progress/dropped"])
    assert len(training["progress/dropped"]) == 2
    assert sorted(training)[0] == "loss"  # TensorBoard's order, and behind it two groups
    assert {tag.partition("/")[0] for tag in training} == {"loss", "progress", "speed"}
    assert evaluation["perplexity"][0][1] == pytest.approx(np.exp(evaluation["token_loss"][0][1]), rel=1e-5)


def test_metrics_file_holds_the_figures_of_training_and_evaluations(run_config, tmp_path, capsys):
    main.main(["--model", run_config(max_steps=20, train_steps=20)])
    shown = scalars_of(tmp_path / "run")
    first, second, evaluation = metrics_file.read(str(tmp_path / "run"))
    for line, step in ((first, 10), (second, 20)):
        assert list(line) == ["step", "time", "loss", "learning_rate", "gradient_norm", "tokens_per_second",
                              "teraflops_per_second", "tokens", "epoch"]
        assert line["step"] == step and line["tokens"] == 64 * step and abs(time.time() - line["time"]) < 600
        assert line["loss"] == pytest.approx(dict(shown["loss"])[step], rel=1e-5)
        assert line["learning_rate"] == pytest.approx(dict(shown["progress/learning_rate"])[step], rel=1e-5)
        assert line["epoch"] == pytest.approx(dict(shown["progress/epoch"])[step], rel=1e-5)
    found = re.search(r"at step 20: loss (.*), perplexity (.*), (.*) bits per byte", capsys.readouterr().out)
    names = ["eval_loss", "perplexity", "bits_per_byte"]
    assert list(evaluation) == ["step", "time", *names] and evaluation["step"] == 20
    assert [evaluation[name] for name in names] == pytest.approx([float(text) for text in found.groups()], rel=1e-3)
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_goes_on_drops_what_metrics_and_picture_show_of_later_steps(finished, tmp_path):
    metrics = tmp_path / "run" / "metrics.jsonl"
    evaluation = metrics.read_text()
    metrics.write_text(evaluation + '{"step": 10, "loss": 1.0, "tokens": 640}\n{"step": 11, "l')  # a kill at step 11
    main.main(["--model", finished, "--set", "max_steps=12", "--set", "eval_steps=0"])
    kept, resumed = metrics_file.read(str(tmp_path / "run"))
    assert kept == json.loads(evaluation) and resumed["step"] == 10 and resumed["loss"] > 2
    assert len(metrics.read_text().splitlines()) == 2


def test_totals_count_what_was_read_with_other_batches_before(finished, tmp_path, capsys):
    more = ["--set", "train_batch_size=1", "--set", "max_steps=10", "--set", "eval_steps=0"]
    assert main.main(["--model", finished, *more, "--plan"]) == 0
    for _ in range(2):  # the run itself notes the same
        assert f"{(4 * 4 + 6) * 16:,} tokens" in capsys.readouterr().out.replace("tokens in all", "")
        main.main(["--model", finished, *more])
    noted = json.loads((tmp_path / "run" / "data.json").read_text())
    assert noted["batch_sizes"] == [[0, 4], [4, 1]]
    assert [entry["tokens"] for entry in metrics_file.read(str(tmp_path / "run")) if "tokens" in entry] == [22 * 16]


def test_the_picture_is_also_drawn_where_no_evaluation_follows(run_config, tmp_path):
    stop_after(run_config(train_steps=100, max_steps=100), 12)
    picture = tmp_path / "run" / "loss.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    os.unlink(picture)
    main.main(["--model", run_config(train_steps=100, max_steps=13, eval_steps=0)])
    assert picture.exists()


@pytest.mark.slow
def test_a_run_goes_on_where_its_figures_cannot_be_written(run_config, tmp_path, capsys):
    for name in ("metrics.jsonl", "loss.png", "samples.txt"):
        os.makedirs(tmp_path / "run" / name / "in the way")
    assert main.main(["--model", run_config(max_steps=20, train_steps=10, sample_prompts=["a"], sample_length=2)]) == 0
    out = capsys.readouterr().out
    for name in ("metrics.jsonl", "loss.png", "samples.txt"):
        assert out.count(f"{name} was not written (Is a directory); the training goes on") == 1
    assert weights_of(tmp_path / "run", 20)["global_step"] == 20


def test_a_disk_with_no_room_for_tensorboard_s_file_ends_a_run_in_one_line(run_config):
    """Of a run so small, that file is the largest: it holds the graph."""
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (550_000, 550_000))
    result = command("--model", run_config(max_steps=4), preexec_fn=limit)
    assert result.returncode == 2 and "step 4/4" in result.stdout, result
    assert re.match(r"error: \S+tfevents\S+: File too large; allow larger files.*\n$", result.stderr), result


@pytest.mark.slow
def test_the_picture_shows_a_run_that_a_loss_that_is_not_finite_has_ended(run_config, tmp_path):
    main.main(["--model", run_config(max_steps=20, train_steps=20, eval_steps=0)])
    os.unlink(tmp_path / "run" / "loss.png")
    assert "not finite" in mistake("--model", run_config(max_steps=40, train_steps=40, eval_steps=0, weight_decay=1e30))
    assert (tmp_path / "run" / "loss.png").exists()


def test_an_evaluation_loss_that_is_not_finite_is_one_line(run_config):
    config = run_config()
    graphs.save_checkpoint(schema.load(config), scale=np.nan)
    assert re.fullmatch(r'the evaluation loss at step \d is not finite \(nan\) with the weights in \S+/model.ckpt-1;'
                        ' lower "lr" and go back to an older checkpoint', mistake("--model", config, "--eval"))


def test_a_signal_in_an_evaluation_ends_the_run_saved(run_config, tmp_path, capsys, monkeypatch):
    class Stop(hooks.GiveUpOnSignal):
        def before_run(self, run_context):
            self._stop.signal_number = signal.SIGINT
    monkeypatch.setattr(hooks, "GiveUpOnSignal", Stop)
    assert main.main(["--model", run_config(max_steps=4)]) == 130
    assert capsys.readouterr().out.endswith("stopped by Ctrl-C at step 4, saved; the same command goes on\n")


def test_a_run_says_where_it_starts_from_and_what_it_is(run_config, tmp_path, capsys):
    parameters = 300 * 32 + 16 * 32 + 2 * (12 * 32 * 32 + 13 * 32) + 2 * 32

    def said(beginning):
        return re.search(rf"{re.escape(beginning)}, on [^;]+; {parameters:,} parameters, 64 tokens a step; 0\.",
                         capsys.readouterr().out)
    main.main(["--model", run_config(max_steps=1, warmup_steps=0)])
    assert said(f"starting {tmp_path}/run at step 0 of 1 from scratch")
    main.main(["--model", run_config(max_steps=2, warmup_steps=0)])
    assert said(f"continuing {tmp_path}/run at step 1 of 2 from model.ckpt-1")
    start = f"{tmp_path}/run/model.ckpt-2"
    main.main(["--model", run_config(max_steps=1, warmup_steps=0, model_dir=f"{tmp_path}/new", init_checkpoint=start)])
    assert said(f"starting {tmp_path}/new at step 0 of 1 from {start}")


def test_a_loss_that_jumps_is_named_with_its_step(run_config, capsys, monkeypatch):
    monkeypatch.setattr(loss_watch, "SPIKE_STEPS", 3)
    monkeypatch.setattr(loss_watch, "SPIKE_CHANGES", -1)  # a loss that does not even fall is a jump
    main.main(["--model", run_config(max_steps=20, train_steps=20, lr=1e-9, eval_steps=0)])
    steps = re.findall(r"warning: the loss jumped to [\d.]+ at step (\d+), from about [\d.]+; --which_data \1 ",
                       capsys.readouterr().out)
    assert steps and 3 <= int(steps[0]) <= 20


@pytest.mark.slow
def test_best_checkpoint_is_kept_and_is_a_model_dir_by_itself(run_config, tmp_path, capsys):
    # A rate that spoils the network after the second evaluation.
    changes = {"train_steps": 4, "lr_schedule": "constant", "keep_checkpoint_max": 1, "eval_steps": -1}
    main.main(["--model", run_config(max_steps=8, **changes)])
    main.main(["--model", run_config(max_steps=12, lr=3.0, **changes)])
    out = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"evaluation at step \d+: loss ([\d.]+)", out)]
    assert losses[2] > losses[1] < losses[0]
    assert out.count("the best so far") == 2
    best = tmp_path / "run" / "best"
    assert json.loads((best / "evaluation.json").read_text())["loss"] == pytest.approx(losses[1], abs=1e-4)
    assert sorted(path.name for path in best.glob("model.ckpt*")) \
        == ["model.ckpt-8.data-00000-of-00001", "model.ckpt-8.index"]
    assert not (tmp_path / "run" / "model.ckpt-8.index").exists()
    assert main.main(["--model", run_config(max_steps=8, model_dir=str(best), **changes), "--eval"]) == 0
    assert f"loss {losses[1]:.4f}" in capsys.readouterr().out


def test_two_evaluations_of_a_checkpoint_are_equal_to_the_bit_and_write_nothing(finished, tmp_path, monkeypatch):
    evaluate, losses = main.evaluate, []
    monkeypatch.setattr(main, "evaluate", lambda *given: losses.append(evaluate(*given)) or losses[-1])
    shutil.rmtree(tmp_path / "run" / "eval")
    before = {path: path.stat().st_mtime_ns for path in [tmp_path / "run", *(tmp_path / "run").rglob("*")]}
    for _ in range(2):
        assert main.main(["--model", finished, "--eval"]) == 0
    assert losses[0] == losses[1] != round(losses[0], 4)
    assert before == {path: path.stat().st_mtime_ns for path in [tmp_path / "run", *(tmp_path / "run").rglob("*")]}


@pytest.mark.parametrize("name", ["eval", "best"])
def test_a_file_in_the_place_of_a_folder_of_the_run_is_named_before_the_first_step(run_config, tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).touch()
    said = mistake("--model", run_config())
    assert f"{tmp_path}/run/{name} cannot be written: Not a directory; " in said
    assert os.listdir(tmp_path / "run") == [name]


def test_eval_equals_numpy_over_the_same_windows(run_config, text_corpus, capsys):
    config = schema.load(run_config(max_steps=40, train_steps=40, n_ctx=13))
    main.main(["--model", run_config(max_steps=40, train_steps=40, n_ctx=13)])
    capsys.readouterr()
    main.main(["--model", run_config(max_steps=40, train_steps=40, n_ctx=13), "--eval"])
    out = capsys.readouterr().out
    loss, perplexity = map(float, re.search(r"loss ([\d.]+), perplexity ([\d.]+)", out).groups())
    bits_per_byte, bits = map(float, re.search(r"([\d.]+) bits per byte(?s:.*) ([\d.]+) bits per token", out).groups())
    text = []
    for path in sorted(text_corpus.glob("text-eval_*.tfrecords")):
        for _, ids in records.read(path):
            text += [*ids, 299]
    weights = {name[len("model/"):]: value for name, value in weights_of(config.model_dir, 40).items()
               if name.startswith("model/") and "adam" not in name}
    losses = []
    for start in range(0, len(text) - 1, 13):
        window = text[start:start + 14]
        logits = reference.logits(weights, np.array([window[:-1]]), layers=config.n_layer, heads=config.n_head)
        losses += (-np.log(reference.softmax(logits)[0][range(len(window) - 1), window[1:]])).tolist()
    assert len(losses) == len(text) - 1
    assert loss == pytest.approx(np.mean(losses), abs=1e-4)  # four digits are printed
    assert perplexity == pytest.approx(np.exp(np.mean(losses)), rel=1e-3)
    assert bits == pytest.approx(np.mean(losses) / np.log(2), abs=2e-4)
    with open(config.data_path + "/text.manifest.json") as f:
        size = sum(shard["text_bytes"] for shard in json.load(f)["shards"] if shard["split"] == "eval")
    assert bits_per_byte == pytest.approx(np.sum(losses) / np.log(2) / size, rel=1e-3)


def test_init_checkpoint_starts_from_its_weights_at_step_0(finished, run_config, tmp_path):
    start = str(tmp_path / "run" / "model.ckpt-4")
    main.main(["--model", run_config(max_steps=2, model_dir=str(tmp_path / "new"), init_checkpoint=start)])
    old, new = weights_of(tmp_path / "run", 4), weights_of(tmp_path / "new", 0)
    np.testing.assert_array_equal(old["model/h1/mlp/c_fc/w"], new["model/h1/mlp/c_fc/w"])
    assert np.all(new["model/wte/adam_m"] == 0) and np.any(old["model/wte/adam_m"] != 0)


@pytest.mark.parametrize("changes", [{"precision": "bfloat16", "recompute": True}, {"opt_name": "adafactor"},
                                     {"opt_name": "muon"}, {"micro_batch_size": 2, "embed_dropout": 0.1}])
def test_every_lever_trains(run_config, tmp_path, changes):
    assert main.main(["--model", run_config(max_steps=30, train_steps=30, eval_steps=0, **changes)]) == 0
    losses = [value for _, value in scalars_of(tmp_path / "run")["loss"]]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("opt_name", ["adam", pytest.param("muon", marks=pytest.mark.slow)])
def test_micro_batches_change_a_run_only_by_rounding(run_config, tmp_path, opt_name):
    for size in (None, 1, 2):
        main.main(["--model", run_config(max_steps=5, eval_steps=0, train_steps=5, micro_batch_size=size, grad_clip=0.1,
                                         opt_name=opt_name, model_dir=str(tmp_path / str(size)))])
    whole = weights_of(tmp_path / "None", 5)
    for size in (1, 2):
        for name, value in weights_of(tmp_path / str(size), 5).items():
            np.testing.assert_allclose(value, whole[name], rtol=1e-3, atol=2e-5, err_msg=name)


def test_sigterm_saves_the_step_and_exits_143_and_a_restart_goes_on(run_config, tmp_path):
    config = run_config(max_steps=100000, train_steps=100000, eval_steps=0)
    process = subprocess.Popen([sys.executable, os.path.join(ROOT, "main.py"), "--model", config], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in process.stdout:
        if line.startswith("step"):
            break
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    step = int(re.search(r"^stopped by SIGTERM at step (\d+), saved; the same command goes on$", out, re.M).group(1))
    assert step > 0 and weights_of(tmp_path / "run", step)["global_step"] == step
    again = command("--model", config, "--set", "max_steps=%d" % (step + 2))
    assert again.returncode == 0 and "continuing" in again.stdout and "at step %d of" % step in again.stdout


@pytest.mark.slow
def test_closing_the_terminal_saves_the_step_and_a_restart_goes_on(run_config, tmp_path):
    config = run_config(max_steps=100000, train_steps=100000, eval_steps=0)
    process, terminal = in_terminal([sys.executable, "main.py", "--model", config])
    said = b""
    while b"tokens/s" not in said:
        said += os.read(terminal, 1000)
    os.close(terminal)
    assert process.wait(timeout=120) == 129
    step = run_checkpoints.step_of(run_checkpoints.latest(str(tmp_path / "run")))
    assert step > 0
    again = command("--model", config, "--set", f"max_steps={step + 2}")
    assert again.returncode == 0 and f"at step {step} of" in again.stdout


@pytest.mark.slow
def test_a_training_whose_lines_nobody_reads_any_more_ends_saved(run_config, tmp_path):
    config = run_config(max_steps=100000, train_steps=100000, save_checkpoints_steps=100000, eval_steps=0)
    process = subprocess.Popen([sys.executable, "main.py", "--model", config], cwd=ROOT, stdout=subprocess.PIPE)
    while b"step" not in (line := process.stdout.readline()) or b"loss" not in line:
        pass
    process.stdout.close()  # as by `| head`
    assert process.wait(timeout=120) == 128 + signal.SIGPIPE
    assert run_checkpoints.step_of(run_checkpoints.latest(str(tmp_path / "run"))) > 1


def test_file_that_is_no_tfrecord_is_named_with_its_offset(run_config, tmp_path):
    (tmp_path / "bad_0.tfrecords").write_text("this is plain text, and long enough for a header")
    message = mistake("--model", run_config(train_files=str(tmp_path / "bad_*.tfrecords")))
    assert "bad_0.tfrecords" in message and "0" in message and "TFRecord" in message
    assert not (tmp_path / "run").exists()


def copy_shard(text_corpus, tmp_path, change):
    """A changed copy of a shard, without manifest."""
    data = (text_corpus / "text_0.tfrecords").read_bytes()
    (tmp_path / "copy_0.tfrecords").write_bytes(change(data))
    return str(tmp_path / "copy_*.tfrecords")


def test_shard_that_is_cut_off_is_named_with_its_offset(run_config, text_corpus, tmp_path):
    message = mistake("--model", run_config(train_files=copy_shard(text_corpus, tmp_path, lambda data: data[:-7])))
    assert "copy_0.tfrecords" in message and re.search(r"(byte|offset) \d+", message)


def test_record_damaged_after_its_manifest_was_written_stops_with_its_offset(run_config, text_corpus, tmp_path):
    for path in text_corpus.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    data = bytearray((tmp_path / "text_0.tfrecords").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "text_0.tfrecords").write_bytes(data)
    message = mistake("--model", run_config(data_path=str(tmp_path)))
    assert "text_0.tfrecords" in message and re.search(r"(byte|offset) \d+", message)


def test_shard_shorter_than_its_manifest_says_is_an_error(run_config, text_corpus, tmp_path):
    for path in text_corpus.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    data = (tmp_path / "text_0.tfrecords").read_bytes()
    (tmp_path / "text_0.tfrecords").write_bytes(data[:-5])
    message = mistake("--model", run_config(data_path=str(tmp_path)))
    assert "text_0.tfrecords" in message and re.search(r"(byte|offset) \d+", message)


@pytest.mark.parametrize("beyond, words", [
    (500, r"text_0.tfrecords holds (\d+) records of (\d+) tokens, undamaged, and was counted as (?!\1 of \2;)\d+ of "),
    (0, r"no step was made after step \d+, and why is not known: all shards are undamaged and hold as much as was")])
def test_training_that_ends_without_a_step_says_what_is_excluded(run_config, text_corpus, tmp_path, monkeypatch,
                                                                 beyond, words):
    shutil.copytree(text_corpus, tmp_path / "data")
    path = tmp_path / "data" / "text.manifest.json"
    content = json.loads(path.read_text())
    content["shards"][0]["tokens"] += beyond
    path.write_text(json.dumps(content))
    if not beyond:  # nothing that this program knows of does that
        monkeypatch.setattr(main, "train_steps", lambda *arguments: None)
    more = ["--set", "max_steps=100000", "--set", "train_steps=100000", "--set", "eval_steps=0"]
    message = mistake("--model", run_config(data_path=str(tmp_path / "data"), train_files="text_0*"), *more)
    assert re.search(words, message) and "delete" not in message


def test_empty_eval_set_is_an_error_before_training(run_config, tmp_path):
    (tmp_path / "empty_0.tfrecords").write_bytes(b"")
    message = mistake("--model", run_config(eval_files=str(tmp_path / "empty_*.tfrecords")))
    assert "empty_0.tfrecords holds no text (0 records of 0 tokens)" in message and not (tmp_path / "run").exists()


def test_signal_during_an_evaluation_gives_no_result(finished, capsys):

    class Stop(hooks.StopOnSignal):
        def before_run(self, run_context):
            self.signal_number = signal.SIGINT
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hooks, "StopOnSignal", Stop)
        assert main.main(["--model", finished, "--eval"]) == 130
    assert capsys.readouterr().out == "stopped by Ctrl-C without a result; the same command evaluates anew\n"


def test_loss_that_is_not_finite_names_step_and_documents_and_keeps_the_checkpoint(run_config, tmp_path, capsys):
    config = run_config(max_steps=3, train_steps=3, warmup_steps=0, lr_schedule="constant", eval_steps=0)
    main.main(["--model", config])
    assert '"lr" is 1e+30' in mistake("--model", config, "--set", "lr=1e30")
    message = mistake("--model", config, "--set", "max_steps=30", "--set", "train_steps=30", "--set",
                      "weight_decay=1e30")
    assert re.search(r"not finite at step 5, .*; the last checkpoint is .*model.ckpt-3", message), message
    capsys.readouterr()
    assert main.main(["--model", config, "--set", "max_steps=30", "--which_data", "5"]) == 0
    names = capsys.readouterr().out.split()
    assert names and f"holds the documents {', '.join(names[:5])}" in message
    assert all(np.all(np.isfinite(value)) for value in weights_of(tmp_path / "run", 3).values())


@pytest.mark.slow
def test_graphs_of_trainings_and_evaluations_that_are_over_are_let_go(run_config, monkeypatch):
    made, initialise = [], tf.Graph.__init__

    def remember(graph, *args, **keywords):
        initialise(graph, *args, **keywords)
        if type(graph) is tf.Graph:
            made.append(weakref.ref(graph))
    monkeypatch.setattr(tf.Graph, "__init__", remember)
    assert main.main(["--model", run_config(max_steps=8)]) == 0
    assert len(made) >= 4 and not [graph for graph in made[:-2] if graph() is not None]  # the last may be in use
