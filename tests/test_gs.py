"""Whole runs with everything on gs://, each as its user calls it, against Google Storage on loopback."""
import os
import re
import subprocess
import sys

import pytest
import safetensors.numpy

from tests.fake_gcs import FakeGCS
from tests.weight_files import write_hf

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
IMPATIENT = {"GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "0"}  # the ten further attempts follow at once
CONFIG = "gs://bucket/config.json"


@pytest.fixture
def gcs(text_corpus):
    with FakeGCS() as server:
        server.put_folder(str(text_corpus), "gs://bucket/data")
        yield server


@pytest.fixture
def call(gcs, run_config):
    """Function (*arguments, **changes to the config) -> the finished process of main.py; all paths are on gs://."""
    def run(*arguments, **changes):
        remote = {"data_path": "gs://bucket/data", "encoder_path": "gs://bucket/data/encoder",
                  "model_dir": "gs://bucket/run", "predict_path": "gs://bucket/samples/out.txt"}
        with open(run_config(**{**remote, **changes}), "rb") as f:
            gcs.put(CONFIG, f.read())
        return subprocess.run([sys.executable, "main.py", "--model", CONFIG, *arguments], cwd=ROOT, capture_output=True,
                              text=True, timeout=120, env={**os.environ, **gcs.environment(), **IMPATIENT})
    return run


def output_of(process):
    assert process.returncode == 0 and process.stderr == "", process
    return process.stdout


def error_of(process):
    """The one line that a mistake prints."""
    assert process.returncode == 2 and process.stdout == "", process
    assert process.stderr.startswith("error: ") and process.stderr.count("\n") == 1, process.stderr
    return process.stderr


def test_run_trains_resumes_and_generates_through_failing_requests(gcs, call):
    fault = gcs.fail("", 503, every=10)
    out = output_of(call(train_steps=8))
    assert "starting gs://bucket/run at step 0 of 8" in out and "evaluation at step 8" in out
    out = output_of(call(max_steps=10, train_steps=8))
    assert "continuing gs://bucket/run at step 8 of 10" in out and "evaluation at step 10" in out
    assert {"checkpoint", "config.json", "data.json", "model.ckpt-10.index"} <= set(gcs.names("gs://bucket/run"))
    gcs.put("gs://bucket/samples/out.txt", b"before\n")
    out = output_of(call("--predict_text", "def \u00e9", "--length", "3", "--num_samples", "2", max_steps=10))
    assert out.count("def \u00e9") == 2
    assert gcs.objects["gs://bucket/samples/out.txt"].decode() == "before\n" + out
    assert fault.done > 20


def test_bucket_that_does_not_exist_for_model_dir_is_an_error_at_once(call):
    assert 'gs://wrong/run: Google Storage answers 404, no such bucket' in error_of(call(model_dir="gs://wrong/run"))


@pytest.mark.slow
def test_finished_run_says_so_and_is_evaluated_and_planned(gcs, call):
    output_of(call(eval_steps=0, warmup_steps=1))
    before = gcs.names("gs://bucket/run")
    assert "gs://bucket/run is done: step 8 of 8" in output_of(call(warmup_steps=1))
    assert gcs.names("gs://bucket/run") == before
    assert re.search(r"targets, [\d.]+ bits per token, [\d.]+ bits per byte", output_of(call("--eval", warmup_steps=1)))
    before = dict(gcs.objects)
    assert "no problems found" in output_of(call("--plan", warmup_steps=1))
    assert gcs.objects == before


@pytest.mark.slow
def test_shards_without_manifest_are_read_once(gcs, call):
    planned = output_of(call("--plan"))
    del gcs.objects["gs://bucket/data/text.manifest.json"]
    for times_read in (1, 0):
        gcs.requests.clear()
        process = call("--plan", model_dir="gs://bucket/other")
        assert process.returncode == 0 and process.stdout == planned, process
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
    ("GET .*/o\\?", 403, "gs://bucket/data: Google Storage answers 403, no permission"),
    ("POST", 403, '"model_dir" gs://bucket/run cannot be written')])
def test_refusal_of_google_storage_is_one_line(gcs, call, requests, status, words):
    gcs.fail(requests, status)
    assert words in error_of(call())


@pytest.mark.slow
@pytest.mark.parametrize("arguments, words", [
    (["--predict_file", "gs://bucket/nowhere.txt"], "gs://bucket/nowhere.txt: no such file"),
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
