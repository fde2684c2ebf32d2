"""A run that is killed at any moment ends with the weights of one that was not, to the bit."""
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import inputs
from configs import schema
from configs.errors import UserError
from datasets import window_order
from tests import test_inputs
from tests.helpers.runs import ROOT
from tools import verify_resume

STEPS = 18
DROPOUT = {"res_dropout": 0.1, "attn_dropout": 0.1, "embed_dropout": 0.1}


def command(*arguments):
    return subprocess.run([sys.executable, os.path.join(ROOT, "tools", "verify_resume.py"), *arguments],
                          capture_output=True, text=True, timeout=550)


def differing(model_dir, other, step=STEPS):
    """The first difference of the checkpoints of a step, as verify_resume finds it, or None."""
    one, two = weights_of(model_dir, step), weights_of(other, step)
    assert any(name.endswith("/adam_m") for name in one) and one["global_step"] == step
    return verify_resume._different_tensor(one, two)


def weights_of(model_dir, step=STEPS):
    reader = tf.train.load_checkpoint(os.path.join(str(model_dir), f"model.ckpt-{step}"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


# The comparison itself

def tensors(**changes):
    return {"b": np.float32([1, 2, np.nan]), "a": np.zeros([2, 3], np.float32), **changes}


def test_equal_tensors_differ_in_nothing_not_even_where_they_are_not_numbers():
    assert verify_resume._different_tensor(tensors(), tensors()) is None


@pytest.mark.parametrize("changes, words", [
    ({"a": np.float32([[0, 0, 0], [0, 1e-45, 0]])}, "a: 1 of 6 values differ"),
    ({"a": np.zeros([3, 2], np.float32)}, r"a is float32 \(3, 2\), not float32 \(2, 3\)"),
    ({"a": np.zeros([2, 3])}, r"a is float64 \(2, 3\), not float32"),
    ({"c": np.zeros(1)}, "other tensors: c")])
def test_smallest_difference_of_tensors_is_named(changes, words):
    found = verify_resume._different_tensor(tensors(), tensors(**changes))
    assert re.search(words, found)


class Noted:
    """A run with these notes and tensors."""

    def __init__(self, notes, values=None, starts=(0,)):
        self._notes, self._values = [verify_resume.Note(*note) for note in notes], values or tensors()
        self.starts = starts

    def notes(self):
        return self._notes

    def tensors(self, step):
        return self._values


WHOLE = [(1, "0x1p+1", "x"), (2, "0x1p+0", "y")]


@pytest.mark.parametrize("notes, words", [
    (WHOLE, None), ([WHOLE[0], WHOLE[0], WHOLE[1]], None),
    ([WHOLE[0]], "step 2 was not made by both runs"),
    ([WHOLE[0], (1, "0x1p+1", "z"), WHOLE[1]], "the batch of step 1 holds other tokens"),
    ([WHOLE[0], (2, "0x1.8p+0", "y")], "the loss of step 2 is 1.5, without a kill 1.0")])
def test_notes_of_every_step_must_agree_each_time_it_was_made(notes, words):
    assert verify_resume._difference(Noted(WHOLE), Noted(notes), 2) == words


def test_step_that_was_saved_and_then_killed_before_its_note_is_no_difference():
    assert verify_resume._difference(Noted(WHOLE), Noted([WHOLE[1]], starts=[0, 1]), 2) is None
    assert verify_resume._difference(Noted(WHOLE), Noted([WHOLE[0]], starts=[0, 1]), 2) is not None


def test_runs_with_equal_steps_and_other_weights_differ():
    found = verify_resume._difference(Noted(WHOLE), Noted(WHOLE, tensors(b=np.float32([1, 3, np.nan]))), 2)
    assert found.startswith("b: ")


@pytest.mark.parametrize("arguments, words", [(["--steps", "2"], "--steps: 2 is out of range: give at least 3"),
                                              (["--kills", "0"], "--kills: 0 is out of range: give at least 1"),
                                              (["--set", "n_embed=3"], 'did you mean "n_embd"?')])
def test_mistakes_of_the_command_are_named(run_config, arguments, words):
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        verify_resume.main(["--model", run_config(), *arguments])


# The data of simulated hosts

class Deployment:
    """What the input_fn of one of several TPU hosts is given."""

    def __init__(self, host, hosts):
        self._facts = None, host, hosts, None

    def current_input_fn_deployment(self):
        return self._facts


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_read_disjoint_parts_whose_union_is_the_sequence_of_one_process(tmp_path, monkeypatch, hosts):
    monkeypatch.setattr(window_order, "BLOCK_TOKENS", 150)
    test_inputs.write_shards(tmp_path, "a", [7, 4, 9, 8, 3])
    config = test_inputs.config_for(tmp_path, train_batch_size=8)
    first, last = 2, 9  # over the end of an epoch
    assert first * 8 < test_inputs.windows_an_epoch(config) < last * 8
    whole = np.reshape(test_inputs.flat(test_inputs.batches(config, first, last)), [last - first, 8, -1])
    input_fn = inputs.train_input_fn(test_inputs.order_of(config), test_inputs.EOT, start_step=first, stop_step=last)
    for host in range(hosts):
        def on_host(params, host=host):
            return input_fn({**params, "context": Deployment(host, hosts)})
        rows = 8 // hosts
        found = np.reshape(test_inputs.flat(test_inputs.run(on_host, rows, last - first)), [last - first, rows, -1])
        np.testing.assert_array_equal(found, whole[:, host * rows:][:, :rows])


# Killed runs

def start(config, **options):
    return subprocess.Popen([sys.executable, "-u", os.path.join(ROOT, "main.py"), "--model", config], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)


def finish(config):
    """Goes on to the end; returns what was printed."""
    process = start(config)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def uninterrupted(text_corpus, tmp_path_factory):
    """(Function (folder) -> path of the config of a run with dropout, model_dir of that run without a kill)."""
    base = tmp_path_factory.mktemp("resume")
    values = {"n_ctx": 16, "n_vocab": 300, "n_embd": 32, "n_layer": 2, "n_head": 2, "lr": 1e-2, "warmup_steps": 2,
              "train_batch_size": 4, "eval_batch_size": 3, "train_steps": 6, "eval_steps": 4, "max_steps": STEPS,
              "save_checkpoints_steps": 2, "keep_checkpoint_max": 3, "input": "tfrecords",
              "data_path": str(text_corpus), "train_files": "text_*.tfrecords", "eval_files": "text-eval_*.tfrecords",
              "encoder_path": str(text_corpus / "encoder"), **DROPOUT}

    def write(folder, **changes):
        path = folder / "config.json"
        path.write_text(json.dumps({**values, "model_dir": str(folder / "run"), **changes}))
        return str(path)
    config = write(base)
    finish(config)
    return write, base / "run"


def kill_when(config, happened):
    """Starts the run and kills it as soon as happened(), or False if it ended before."""
    process = start(config)
    try:
        while process.poll() is None:
            if happened():
                process.send_signal(signal.SIGKILL)
                return process.wait() == -signal.SIGKILL
            time.sleep(0.0005)
        return False
    finally:
        process.kill()
        process.communicate()


def names(folder, ending):
    """Checkpoint files with that ending."""
    found = os.listdir(folder) if os.path.isdir(folder) else []
    return [name for name in found if name.startswith("model.ckpt") and ending in name]


@pytest.mark.slow
def test_killed_while_a_checkpoint_is_written(uninterrupted, tmp_path):
    write, whole = uninterrupted
    config, folder = write(tmp_path), tmp_path / "run"
    # The first temporary file of a step beyond the first: TensorFlow renames it when it is complete.
    for _ in range(6):  # a checkpoint of this size is soon written, and the kill may come too late
        if kill_when(config, lambda: [name for name in names(folder, "_temp") if "ckpt-0" not in name]) \
                and names(folder, "_temp"):
            break
    assert names(folder, "_temp")
    assert "continuing" in finish(config)
    assert differing(whole, folder) is None
    assert not names(folder, "_temp")


@pytest.mark.slow
def test_killed_between_the_files_of_a_checkpoint(uninterrupted, tmp_path):
    """The data of step 6 are there, but neither the index nor the note that it is the newest: what a kill leaves."""
    write, whole = uninterrupted
    config, folder = write(tmp_path), tmp_path / "run"
    assert kill_when(config, lambda: bool(names(folder, "ckpt-6.data")))
    state = (folder / "checkpoint").read_text()
    if "ckpt-6\"" in state.splitlines()[0]:  # the kill came late: take back what came after the data
        (folder / "checkpoint").write_text(state.replace("ckpt-6", "ckpt-4"))
    for name in names(folder, "ckpt-6.index"):
        os.unlink(folder / name)
    out = finish(config)
    assert "continuing" in out and "at step 4 of" in out
    assert differing(whole, folder) is None


@pytest.mark.slow
def test_killed_during_an_evaluation(uninterrupted, tmp_path):
    write, whole = uninterrupted
    config, folder = write(tmp_path), tmp_path / "run"
    code = """if True:
        import os, signal, sys
        import main
        from models.run import hooks
        def kill(self, run_context, run_values):
            os.kill(os.getpid(), signal.SIGKILL)
        hooks.GiveUpOnSignal.after_run = kill  # after the first batch of the first evaluation
        main.main(["--model", sys.argv[1]])"""
    process = subprocess.run([sys.executable, "-c", code, config], cwd=ROOT, timeout=300, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    out = finish(config)
    assert "continuing" in out and "at step 6 of" in out
    assert differing(whole, folder) is None


@pytest.mark.slow
def test_killed_at_the_boundary_of_an_epoch(uninterrupted, tmp_path):
    write, _ = uninterrupted
    folder = tmp_path / "parts"
    folder.mkdir()
    # A corpus of few windows: an epoch ends within a batch of the first steps.
    (tmp_path / "data").mkdir()
    test_inputs.write_shards(tmp_path / "data", "a", [6, 5], length=13)
    changes = {"data_path": str(tmp_path / "data"), "train_files": "a_*.tfrecords", "eval_steps": 0, "n_vocab": 1000,
               "encoder_path": schema.load(write(folder)).encoder_path, "save_checkpoints_steps": 1, "train_steps": 50}
    (tmp_path / "whole").mkdir()
    config_of_whole = write(tmp_path / "whole", **changes)
    config = write(folder, **changes)
    windows = test_inputs.windows_an_epoch(schema.load(config))
    step = -(-windows // 4)  # the batch of this step takes from two epochs
    assert windows % 4 and 1 < step < STEPS - 1
    finish(config_of_whole)
    for boundary in (step - 1, step):
        assert kill_when(config, lambda boundary=boundary: bool(names(folder / "run", f"ckpt-{boundary}.index")))
    assert "continuing" in finish(config)
    assert differing(tmp_path / "whole" / "run", folder / "run") is None


@pytest.mark.slow
def test_killed_at_ten_random_moments(uninterrupted, tmp_path):
    write, whole = uninterrupted
    config, folder = write(tmp_path), tmp_path / "run"
    seed = random.randrange(10**6)
    chance, kills = random.Random(seed), 0
    begun = time.monotonic()
    finish(write(tmp_path, model_dir=str(whole)))  # a start that has nothing to do
    seconds = time.monotonic() - begun
    write(tmp_path)
    for _ in range(30):
        process = start(config)
        try:
            process.communicate(timeout=chance.uniform(0.5, 4) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            if kills == 10:
                break
        else:
            assert process.returncode == 0 and differing(whole, folder) is None, f"seed {seed}"
            shutil.rmtree(folder)  # once more from the start
            seconds *= 0.7  # the machine was busier when this was measured
    finish(config)
    assert kills == 10 and differing(whole, folder) is None, f"seed {seed}"


@pytest.mark.slow
def test_restart_with_another_micro_batch_size_goes_on_with_the_same_examples(uninterrupted, tmp_path):
    write, whole = uninterrupted
    config, folder = write(tmp_path, max_steps=STEPS), tmp_path / "run"
    assert kill_when(config, lambda: bool(names(folder, "ckpt-8.index")))
    assert "continuing" in finish(write(tmp_path, micro_batch_size=1))
    one, other = weights_of(whole), weights_of(folder)
    assert set(one) == set(other)
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-3, atol=2e-5, err_msg=name)


@pytest.mark.slow
def test_command_kills_resumes_and_says_that_all_is_equal(uninterrupted, tmp_path):
    write, _ = uninterrupted
    config = write(tmp_path)
    result = command("--model", config, "--steps", "40", "--kills", "2", "--seed", "5")
    assert result.returncode == 0 and result.stderr == "", result.stdout + result.stderr
    assert result.stdout.count("killed after step") >= 1 and "EQUAL to the bit" in result.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_command_takes_the_config_of_a_longer_run_that_decays_late_and_would_stop_early(uninterrupted, tmp_path):
    write, _ = uninterrupted
    config = write(tmp_path, max_steps=1000, lr_schedule="wsd", early_stopping=1, lr=0.3, train_steps=2, eval_steps=1)
    result = command("--model", config, "--steps", "12", "--seed", "5")
    assert result.returncode == 0 and "EQUAL to the bit" in result.stdout, result.stdout + result.stderr


@pytest.mark.slow
def test_command_finds_a_run_that_is_not_resumed_exactly(uninterrupted, tmp_path, monkeypatch, capsys):
    """The same with training data that change between the kill and the resume."""
    write, _ = uninterrupted
    config = write(tmp_path)
    attempt = verify_resume._Run.attempt

    def changed(self, chance):
        if self.starts and "parts" in self._path:
            schema.save(dataclasses.replace(schema.load(self._path), seed=2), self._path)
        return attempt(self, chance)
    monkeypatch.setattr(verify_resume._Run, "attempt", changed)
    assert verify_resume.main(["--model", config, "--steps", "40", "--seed", "5"]) == 1
    assert "DIFFERENT: the batch of step" in capsys.readouterr().out


