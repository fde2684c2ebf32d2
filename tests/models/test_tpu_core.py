"""Runs with `--tpu local` on an emulated core (tests/helpers/tpu_emulator.py), beside the same runs without a TPU."""
import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import main
from models.cpu import packed
from models.run import hooks, metrics_file, saving
from tests.helpers.runs import ROOT, mistake, scalars_of, stop_after, weights_of
from tests.helpers.tpu_emulator import emulated

NOISY = {"embed_dropout": 0.1, "attn_dropout": 0.1, "res_dropout": 0.1}
CHANGES = [dict(NOISY, weight_decay=0.1),
           dict(NOISY, precision="bfloat16", micro_batch_size=2, recompute=True, opt_name="adafactor", beta1=0.5)]


def on_both(config, capsys, *arguments):
    """What main.py says with these arguments on the emulated core, and without a TPU."""
    said = []
    for tpu in (["--tpu", "local"], []):
        with emulated() if tpu else contextlib.nullcontext():
            assert main.main(["--model", config, *tpu, *arguments]) == 0
        said.append(capsys.readouterr().out)
    return said


def assert_same_weights(tmp_path, step, *, rounding=0.0):
    """The checkpoints of both runs hold the same: weights, what the optimizer keeps, the step."""
    one, other = (weights_of(tmp_path / name, step) for name in ("core", "cpu"))
    assert set(one) == set(other) and one["global_step"] == step and len(one) > 50
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=0, atol=rounding * np.abs(value).max(), err_msg=name)


def figures(said):
    """What the evaluations said, but for their time."""
    return re.findall(r"evaluation at .* batches|.* targets, .*", said)


@pytest.mark.slow
@pytest.mark.parametrize("changes", CHANGES)
def test_core_trains_to_the_same_weights_and_tells_the_same(changes, run_config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hooks, "SCALARS_STEPS", 1)
    # 3 steps a visit of the host: the last visit before an evaluation, and before the end, is shorter.
    changes = {"max_steps": 11, "train_steps": 7, "iterations": 3, "eval_batch_size": 50, "eval_steps": 5,
               "sample_prompts": ["def"], "sample_length": 3, **changes}
    with emulated():
        assert main.main(["--model", run_config(model_dir=str(tmp_path / "core"), **changes), "--tpu", "local"]) == 0
    one = capsys.readouterr().out
    assert main.main(["--model", run_config(model_dir=str(tmp_path / "cpu"), **changes)]) == 0
    assert_same_weights(tmp_path, 11)
    assert figures(one) == figures(capsys.readouterr().out) and len(figures(one)) == 2
    assert re.findall(r"step +(\d+)/11 +loss \d", one) == ["3", "10", "11"]
    points, others = scalars_of(tmp_path / "core"), scalars_of(tmp_path / "cpu")
    assert set(points) == set(others)
    for name in ("loss", "progress/learning_rate", "progress/gradient_norm"):
        found = dict(points[name])
        assert sorted(found) == list(range(1, 12)) and len(points[name]) == 11
        # The first step of each chunk is no point where the scalars go through a hook.
        assert [step for step, _ in others[name]] == [2, 3, 4, 5, 6, 7, 9, 10, 11]
        for step, value in others[name]:
            assert found[step] == pytest.approx(value, rel=1e-6), (name, step)
    noted, other = (metrics_file.read(str(tmp_path / name)) for name in ("core", "cpu"))
    evaluations = [[line["eval_loss"] for line in lines if "eval_loss" in line] for lines in (noted, other)]
    assert evaluations[0] == pytest.approx(evaluations[1], rel=1e-5) and len(evaluations[0]) == 2
    losses = [(line["step"], line["loss"]) for line in noted if "loss" in line]  # of the last step of a visit
    assert losses == [(step, pytest.approx(dict(others["loss"])[step], rel=1e-6)) for step in (6, 7, 11)]
    assert {(line["learning_rate"], line["gradient_norm"]) for line in noted if "loss" in line} == {(None, None)}
    samples = (tmp_path / "core" / "samples.txt").read_text()
    assert re.findall("SAMPLE (.*?) =", samples) == ["0 AT STEP 7", "0 AT STEP 11"]
    assert points["progress/tokens_seen"][-1] == others["progress/tokens_seen"][-1] == (11, 11 * 64)


def test_core_finds_the_loss_of_the_whole_eval_set(finished, capsys):
    one, other = on_both(finished, capsys, "--eval", "--set", "eval_batch_size=50")
    assert figures(one) == figures(other) and len(figures(one)) == 2


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_core_generates_the_same_texts(precision, random_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(packed, "supported", lambda dtype: False)  # joined products round at other places
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps(prompt) for prompt in (
        {"prompt": "def", "temperature": 0, "length": 30}, {"prompt": "import json", "temperature": 0, "stop": ["e"]},
        {"prompt": "", "seed": 3, "num_samples": 3, "top_k": 50, "length": 9})))  # 5 rows in batches of 3
    one, other = on_both(random_run, capsys, "--predict_file", str(prompts), "--json", "--set",
                         f"precision={precision}")
    one, other = ([json.loads(line) for line in said.splitlines()] for said in (one, other))
    assert [sample.pop("logprobs") for sample in one] == [pytest.approx(sample.pop("logprobs"), abs=1e-5)
                                                          for sample in other]
    assert one == other and len(one) == 5 and len(set(one[0]["tokens"])) > 9


def test_run_on_a_core_that_was_stopped_goes_on_to_the_bit(run_config, tmp_path, capsys, monkeypatch):
    for bound in ("SHARE", "LEAST_SECONDS"):  # all that is saved is told
        monkeypatch.setattr(saving, bound, 0)
    changes = {"max_steps": 11, "train_steps": 11, "eval_steps": 0, "iterations": 3, "save_checkpoints_minutes": 1e-9,
               **NOISY}
    with emulated():
        main.main(["--model", run_config(model_dir=str(tmp_path / "cpu"), **changes), "--tpu", "local"])
        parts = run_config(model_dir=str(tmp_path / "core"), **changes)
        stop_after(parts, 6, "--tpu", "local")
        out = capsys.readouterr().out.partition("starting " + str(tmp_path / "core"))[2]
        assert re.findall(r"saving step (\d+) took", out) == ["3", "6", "6"]  # by minutes, and at the end
        assert "stopped by SIGTERM at step 6, saved; the same command goes on" in out
        main.main(["--model", parts, "--tpu", "local"])
    assert_same_weights(tmp_path, 11)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_signal_to_a_run_on_a_core_ends_it_saved(number, run_config, tmp_path):
    config = run_config(max_steps=10**6, train_steps=10**6, eval_steps=0, iterations=7, save_checkpoints_steps=10**6)
    command = [sys.executable, "-m", "tests.helpers.tpu_emulator", "--model", config, "--tpu", "local"]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        for line in process.stdout:
            if line.startswith("step"):
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number, err
    step, = re.findall(r"stopped by (?:Ctrl-C|SIGTERM) at step (\d+), saved", out)
    assert int(step) % 7 == 0 and weights_of(tmp_path / "run", int(step))["global_step"] == int(step)


def test_loss_that_is_not_finite_ends_the_run_on_a_core_and_names_the_steps(run_config):
    config = run_config(max_steps=30, train_steps=30, warmup_steps=0, lr_schedule="constant", eval_steps=0,
                        weight_decay=1e30, iterations=4)
    with emulated():
        message = mistake("--model", config, "--tpu", "local")
    assert "a weight is not finite after one of the steps 1 to 4, which a TPU makes at once; the last" in message
