"""Whole runs with everything on gs://, each as its user calls it, against Google Storage on loopback."""
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

import main
from models.run import metrics_file
from tests.helpers.fake_gcs import RESET, SLOW, FakeGCS
from tests.helpers.runs import ROOT, weights_of
from tests.helpers.waiting import wait_until
from tests.helpers.weight_files import write_hf

IMPATIENT = {"GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "0"}  # the ten further attempts follow at once
GIVING_UP = {"GCS_RETRY_CONFIG_MAX_RETRIES": "2"}  # sooner, where nothing helps
CONFIG = "gs://bucket/config.json"


@pytest.fixture
def gcs(text_corpus):
    with FakeGCS() as server:
        server.put_folder(str(text_corpus), "gs://bucket/data")
        yield server


@pytest.fixture
def start(gcs, run_config):
    """Function (*arguments, environment, **changes to the config) -> main.py as Popen; all paths are on gs://."""
    started = []

    def run(*arguments, environment=IMPATIENT, **changes):
        remote = {"data_path": "gs://bucket/data", "encoder_path": "gs://bucket/data/encoder",
                  "model_dir": "gs://bucket/run", "predict_path": "gs://bucket/samples/out.txt"}
        with open(run_config(**{**remote, **changes}), "rb") as f:
            gcs.put(CONFIG, f.read())
        started.append(subprocess.Popen(
            [sys.executable, "main.py", "--model", CONFIG, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, **gcs.environment(), **IMPATIENT, **environment}))
        return started[-1]
    yield run
    for process in started:
        process.kill()


@pytest.fixture
def call(start):
    """Function (*arguments, **changes to the config) -> the finished process of main.py; all paths are on gs://."""
    def run(*arguments, **changes):
        return finish(start(*arguments, **changes))
    return run


def finish(process, seconds=120):
    return subprocess.CompletedProcess(process.args, process.wait(seconds), *process.communicate())


def wait_for_checkpoint(gcs, process, step):
    """Until the running process has saved this step, and has begun the next ones."""
    def saved():
        assert process.poll() is None, process.communicate()
        return b'model_checkpoint_path: "model.ckpt-%d"' % step in gcs.objects.get("gs://bucket/run/checkpoint", b"")
    wait_until(saved, 120)


def output_of(process):
    assert process.returncode == 0 and process.stderr == "", process
    return process.stdout


def error_of(process):
    """The one line that a mistake prints."""
    assert process.returncode == 2 and process.stdout == "", process
    assert process.stderr.startswith("error: ") and process.stderr.count("\n") == 1, process.stderr
    return process.stderr


@pytest.mark.slow
def test_killed_run_under_faults_ends_with_the_weights_figures_and_texts_of_a_local_one(
        gcs, start, call, run_config, tmp_path, capsys):
    """Every kind of fault strikes many times, one run is killed (kill -9), and nothing shows."""
    faults = [gcs.fail("", kind, every) for kind, every in ((503, 10), (429, 13), (RESET, 11), (SLOW, 17))]
    changes = {"max_steps": 14, "train_steps": 14, "save_checkpoints_steps": 2, "res_dropout": 0.1,
               "sample_prompts": ["def"], "sample_length": 3}
    killed = start(**changes)
    wait_for_checkpoint(gcs, killed, 4)
    killed.kill()
    assert finish(killed).returncode == -signal.SIGKILL and "gs://bucket/run/model.ckpt-14.index" not in gcs.objects
    out = output_of(call(**changes))
    step, = map(int, re.findall(r"continuing gs://bucket/run at step (\d+) of 14", out))
    assert 4 <= step < 14
    assert {"checkpoint", "config.json", "data.json", "model.ckpt-14.index"} <= set(gcs.names("gs://bucket/run"))
    local = str(tmp_path / "local.json")
    shutil.copy(run_config(**changes), local)
    assert main.main(["--model", local]) == 0
    gcs.get_folder("gs://bucket/run", tmp_path / "copied")
    there, here = weights_of(tmp_path / "copied", 14), weights_of(tmp_path / "run", 14)
    assert set(there) == set(here) and len(here) > 50
    for name, value in here.items():
        np.testing.assert_array_equal(there[name], value, err_msg=name)
    there, here = (metrics_file.read(str(tmp_path / name)) for name in ("copied", "run"))
    assert there[-1]["step"] == 14 and there[-1]["eval_loss"] == here[-1]["eval_loss"]
    assert (tmp_path / "copied" / "loss.png").exists()
    assert (tmp_path / "copied" / "samples.txt").read_text() == (tmp_path / "run" / "samples.txt").read_text() != ""
    for arguments in (["--eval", "--set", "eval_batch_size=100"],
                      ["--predict_text", "def \u00e9", "--length", "9", "--num_samples", "2", "--seed", "3"]):
        gcs.put("gs://bucket/samples/out.txt", b"before\n")
        capsys.readouterr()
        assert main.main(["--model", local, *arguments]) == 0
        here, there = (re.sub(r" in [\d:]+$", "", said, flags=re.MULTILINE)  # the time
                       for said in (capsys.readouterr().out, output_of(call(*arguments, **changes))))
        assert here == there and here
    assert gcs.objects["gs://bucket/samples/out.txt"].decode() == "before\n" + there
    assert all(fault.done > 9 for fault in faults), [fault.done for fault in faults]


@pytest.mark.slow
def test_another_checkpoint_than_the_newest_is_chosen_there(gcs, call, finished, tmp_path):
    gcs.put_folder(str(tmp_path / "run"), "gs://bucket/old")
    new = {"model_dir": "gs://bucket/new", "eval_batch_size": 100}
    out = output_of(call("--eval", "--checkpoint", "gs://bucket/old/model.ckpt-0", **new))
    assert out.startswith("evaluation at step 0: loss ")
    assert error_of(call("--eval", "--checkpoint", "gs://bucket/old/model.ckpt-3", **new)) == (
        "error: --checkpoint gs://bucket/old/model.ckpt-3: no such checkpoint or folder; there are"
        " gs://bucket/old/model.ckpt-0, gs://bucket/old/model.ckpt-4\n")
    said = output_of(call("--predict_text", "def", "--length", "2", "--checkpoint", "gs://bucket/old", **new))
    assert "SAMPLE 0" in said


@pytest.mark.parametrize("requests, kind, words", [
    ("^(POST|PUT)", 503, "model.ckpt-[0-9_temp/]+: Google Storage answers 503, again and again; check the path"),
    pytest.param("", RESET, "gs://bucket/.*: Google Storage cannot be reached, .*", marks=pytest.mark.slow),
    pytest.param("^(POST|PUT)", 403, "model.ckpt-.*: Google Storage answers 403, no permission",
                 marks=pytest.mark.slow)])
def test_storage_that_fails_for_good_in_a_training_ends_it_in_one_line_and_nothing_is_lost(gcs, start, requests, kind,
                                                                                         words):
    changes = {"max_steps": 10**6, "train_steps": 10**6, "save_checkpoints_steps": 10, "eval_steps": 0}
    process = start(environment=GIVING_UP, **changes)
    wait_for_checkpoint(gcs, process, 20)
    before = dict(gcs.objects)
    gcs.fail(requests, kind)
    process = finish(process, 60)
    assert process.returncode == 2 and process.stderr.count("\n") == 1, process
    assert re.search(words, process.stderr), process.stderr
    gcs.heal()
    assert all(gcs.objects[name] == content for name, content in before.items() if "/model.ckpt-" in name)
    process = start(**changes)
    for line in process.stdout:
        if line.startswith("continuing"):
            break
    assert re.search(r"at step (\d+) of", line) and int(re.search(r"at step (\d+) of", line).group(1)) >= 20


@pytest.mark.slow
def test_run_that_is_killed_goes_on_from_the_last_minute(gcs, start, call):
    changes = {"train_steps": 10**6, "save_checkpoints_steps": 10**6, "save_checkpoints_minutes": 0.01, "eval_steps": 0}
    killed, state = start(max_steps=10**6, **changes), "gs://bucket/run/checkpoint"

    def saved():
        assert killed.poll() is None, killed.communicate()
        return re.match(rb'model_checkpoint_path: "model.ckpt-[1-9]', gcs.objects.get(state, b""))
    wait_until(saved, 120)
    killed.kill()
    finish(killed)
    step = int(re.search(rb"ckpt-(\d+)", gcs.objects[state]).group(1))
    out = output_of(call(max_steps=step + 3, **changes))
    assert f"continuing gs://bucket/run at step {step} of {step + 3}" in out
    names = gcs.names("gs://bucket/run")
    assert f"model.ckpt-{step + 3}.index" in names and f"model.ckpt-{step}.index" not in names


MODES = [[], ["--eval"], ["--predict_text", "def"], ["--plan"]]


@pytest.mark.parametrize("arguments", [MODES[0], *(pytest.param(mode, marks=pytest.mark.slow) for mode in MODES[1:])])
def test_bucket_that_does_not_exist_for_model_dir_is_an_error_at_once(call, arguments):
    assert "gs://wrong/run: Google Storage answers 404, no such bucket" in error_of(call(*arguments,
                                                                                         model_dir="gs://wrong/run"))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", MODES)
def test_model_dir_without_permission_is_one_line(gcs, call, arguments):
    gcs.fail("run", 403)
    assert re.search("gs://bucket/run.*: Google Storage answers 403, no permission", error_of(call(*arguments)))


@pytest.mark.slow
def test_finished_run_says_so_and_is_evaluated_and_planned(gcs, call):
    output_of(call(warmup_steps=1))
    before = gcs.names("gs://bucket/run")
    assert "gs://bucket/run is done: step 8 of 8" in output_of(call(warmup_steps=1))
    assert gcs.names("gs://bucket/run") == before
    assert re.search(r"[\d.]+ bits per byte,(?s:.*) targets, [\d.]+ bits per token",
                     output_of(call("--eval", warmup_steps=1)))
    before = dict(gcs.objects)
    assert "no problems found" in output_of(call("--plan", warmup_steps=1))
    assert gcs.objects == before


@pytest.mark.slow
def test_shards_without_manifest_are_read_once(gcs, call):
    def plan_of(text):
        return re.sub(r"(memory here|time) +.*", "", text)  # what the machine is doing just now
    planned = plan_of(output_of(call("--plan")))
    del gcs.objects["gs://bucket/data/text.manifest.json"]
    for times_read in (1, 0):
        gcs.requests.clear()
        process = call("--plan", model_dir="gs://bucket/other")
        assert process.returncode == 0 and plan_of(process.stdout) == planned, process
        assert gcs.requests.count("GET /bucket/data%2Ftext_0.tfrecords") == times_read
        assert ("text_0.scan.json" in gcs.names("gs://bucket/data")) == (times_read == 0)  # a plan leaves nothing
        assert "starting" in call().stdout or not times_read


@pytest.mark.slow
def test_init_checkpoint_may_be_remote(gcs, call):
    output_of(call(eval_steps=0))
    start = "gs://bucket/run/model.ckpt-8"
    assert "starting gs://bucket/new at step 0" in output_of(call(eval_steps=0, model_dir="gs://bucket/new",
                                                                  init_checkpoint=start))
    loss = {run: re.search(r"evaluation at step 8: loss ([\d.]+)", output_of(call("--eval", model_dir=run))).group(1)
            for run in ("gs://bucket/run", "gs://bucket/new")}
    assert float(loss["gs://bucket/new"]) < float(loss["gs://bucket/run"])


@pytest.mark.slow
def test_weights_are_imported_used_and_exported_on_google_storage(gcs, call, tmp_path, text_corpus):
    write_hf(tmp_path / "hf", vocabulary=text_corpus / "encoder")
    gcs.put_folder(str(tmp_path / "hf"), "gs://bucket/hf")

    def convert(*arguments):
        return subprocess.run([sys.executable, "-m", "models.checkpoints", *arguments], cwd=ROOT, capture_output=True,
                              text=True, timeout=120, env={**os.environ, **gcs.environment(), **IMPATIENT})
    assert "equal to the bit" in output_of(convert("import-hf", "gs://bucket/hf", "gs://bucket/ours"))
    assert "gs://bucket/ours is not empty" in error_of(convert("import-hf", "gs://bucket/hf", "gs://bucket/ours"))
    for kind in ("hf", "openai"):
        assert "equal to the bit" in output_of(convert(f"export-{kind}", "gs://bucket/ours/model.json",
                                                       f"gs://bucket/{kind}-again"))
    before, after = (safetensors.numpy.load(gcs.objects[f"gs://bucket/{name}/model.safetensors"])
                     for name in ("hf", "hf-again"))
    assert set(before) == set(after) and all((before[name] == after[name]).all() for name in before)
    sizes = {"n_ctx": 13, "n_embd": 12, "n_layer": 2, "n_head": 3, "eval_steps": 0, "max_steps": 2, "train_steps": 2}
    for number, start in enumerate(("gs://bucket/hf", "gs://bucket/openai-again", "gs://bucket/ours/weights.ckpt")):
        assert "at step 0 of 2" in output_of(call(**sizes, init_checkpoint=start, model_dir=f"gs://bucket/new{number}"))


@pytest.mark.slow
@pytest.mark.parametrize("changes, words", [
    ({"data_path": "gs://wrong/data"}, "gs://wrong/data: Google Storage answers 404, no such bucket or object"),
    ({"data_path": "gs://bucket/nowhere"}, '"train_files": no file matches gs://bucket/nowhere/text_*.tfrecords'),
    ({"encoder_path": "gs://bucket/nowhere"}, "no vocabulary file gs://bucket/nowhere/encoder.json"),
    ({"init_checkpoint": "gs://bucket/nowhere"}, "gs://bucket/nowhere: no such file or folder; give a folder with"),
    ({"init_checkpoint": "gs://wrong/model.ckpt-1"}, "gs://wrong/model.ckpt-1: no such file or folder; give a folder")])
def test_wrong_path_is_named(call, changes, words):
    assert words in error_of(call(**changes))


@pytest.mark.slow
@pytest.mark.parametrize("requests, status, words", [
    ("config.json", 403, "gs://bucket/config.json: cannot be read"),
    ("config.json", 503, "gs://bucket/config.json: cannot be read"),
    ("", 401, "gs://bucket/config.json: cannot be read"),
    ("GET .*manifest", 403, "gs://bucket/data/text.manifest.json: Google Storage answers 403, no permission"),
    ("GET .*/o\\?", 403, "gs://bucket/data/encoder/tokenizer.json/: Google Storage answers 403, no permission"),
    ("POST", 403, '"model_dir" gs://bucket/run cannot be written')])
def test_refusal_of_google_storage_is_one_line(gcs, call, requests, status, words):
    gcs.fail(requests, status)
    assert words in error_of(call())


@pytest.mark.slow
@pytest.mark.parametrize("arguments, words", [
    (["--predict_file", "gs://bucket/nowhere.txt"], "gs://bucket/nowhere.txt: cannot be read"),
    (["--eval"], '"model_dir" gs://bucket/run holds no checkpoint'),
    (["--plan", "--set", "data_path=gs://wrong/data"], "gs://wrong/data: Google Storage answers 404")])
def test_missing_object_in_every_mode_is_one_line(call, arguments, words):
    assert words in error_of(call(*arguments))


@pytest.mark.slow
def test_checkpoint_that_cannot_be_read_is_never_taken_for_a_new_run(gcs, call):
    output_of(call(eval_steps=0))
    fault = gcs.fail("GET .*run%2Fcheckpoint", 403)
    before = dict(gcs.objects)
    for arguments in ([], ["--eval"], ["--predict_text", "a"]):
        assert "gs://bucket/run/checkpoint: Google Storage answers 403" in error_of(call(*arguments, max_steps=10))
    assert fault.done and {**gcs.objects, CONFIG: b""} == {**before, CONFIG: b""}
