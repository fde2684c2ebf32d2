"""What is told between the steps, and how a signal ends them."""
import signal
import subprocess
import sys
import time
import types

import pytest
import tensorflow.compat.v1 as tf

from configs import schema, storage
from datasets import shard_sets
from datasets.tfrecords import Shard
from datasets.window_order import WindowOrder
from models.run import hooks, metrics_file, plan
from tests.helpers.runs import ROOT, scalars_of


def test_runs_of_many_steps_as_a_tpu_makes_them_are_counted_by_their_steps(tmp_path, monkeypatch):
    clock = types.SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(hooks, "time", clock)
    said = []
    order = WindowOrder([shard_sets.Part((Shard("a", 3, 700, None, 0, None, 1, 1),), 1.0)], n_ctx=7, batch=1, seed=1)
    config = schema.from_dict({"model_dir": str(tmp_path), "max_steps": 125}, "here")
    progress = hooks.Progress(config, order, None, say=said.append)
    with tf.Graph().as_default():
        step = tf.train.get_or_create_global_step()
        runs = [tf.assign_add(step, count) for count in (40, 40, 5, 40)]
        with tf.train.MonitoredSession(hooks=[progress]) as session:
            for clock.now, run in zip((0.0, 2.0, 3.0, 4.0), runs):
                session.run(run)
    assert [line.split()[:2] for line in said] == [["step", "40/125"], ["step", "125/125"]]
    assert "149 tokens/s" in said[1]  # 85 steps of 7 tokens in 4 seconds
    # A point where a multiple of 10 was passed, with the steps that were made since the last one.
    assert scalars_of(tmp_path)["speed/tokens_per_second"] == [(80, 40 * 7 / 2), (125, 45 * 7 / 2)]
    first, last = metrics_file.read(str(tmp_path))
    assert (first["step"], first["tokens"], first["tokens_per_second"]) == (80, 560, 140)
    assert (last["step"], last["tokens"], last["epoch"]) == (125, 875, 875 / 700)
    # 117M, see tests/configs/test_presets.py: 6 for each weight, and the products of attention.
    operations = 6 * 124439808 + 12 * 12 * 768 * 1024
    assert plan.token_operations(config) == operations
    assert first["teraflops_per_second"] == pytest.approx(140 * operations / 1e12, rel=1e-6)
    # The host does not see a TPU's.
    assert (first["loss"], first["learning_rate"], first["gradient_norm"]) == (None, None, None)


def test_on_google_storage_figures_are_written_as_often_as_a_checkpoint_and_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "is_remote", lambda path: True)  # TensorFlow's way to files knows local ones, too
    written, append = [], metrics_file.append
    monkeypatch.setattr(metrics_file, "append", lambda *given: written.append(len(given[1])) or append(*given))
    order = WindowOrder([shard_sets.Part((Shard("a", 3, 700, None, 0, None, 1, 1),), 1.0)], n_ctx=7, batch=1, seed=1)
    config = schema.from_dict({"model_dir": str(tmp_path), "save_checkpoints_steps": 30}, "here")
    with tf.Graph().as_default():
        run = tf.assign_add(tf.train.get_or_create_global_step(), 10)
        with tf.train.MonitoredSession(hooks=[hooks.Progress(config, order, None, lambda line: None)]) as session:
            for _ in range(8):  # the first is no point
                session.run(run)
    assert written == [2, 3, 2]
    assert [entry["step"] for entry in metrics_file.read(str(tmp_path))] == list(range(20, 90, 10))


LONG_STEP = """
import hashlib
from models.run import hooks
stop = hooks.StopOnSignal()
print("step", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000_000)  # C code, as a step is: minutes in which no Python runs
print("end", flush=True)
"""


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_signals_in_a_long_step_are_heard_at_once_and_the_second_kills(numbers):
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", LONG_STEP], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "step\n"
    time.sleep(0.2)
    process.send_signal(numbers[0])
    words = f"signal {numbers[0]:d}: stopping after this step; once more stops at once\n"
    assert process.stderr.readline() == words
    time.sleep(hooks.ECHO_SECONDS * 2)
    process.send_signal(numbers[1])
    assert process.wait(timeout=10) == 128 + numbers[1]
    assert process.stdout.read() == "" and process.stderr.read() == ""


def test_signal_between_two_steps_is_known_before_the_next_instruction_and_its_echo_is_no_second_one(monkeypatch):
    monkeypatch.setattr(hooks, "ECHO_SECONDS", 1000)  # however busy the machine is
    kept = [signal.getsignal(number) for number in hooks.StopOnSignal.SIGNALS]
    try:
        stop = hooks.StopOnSignal()
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)  # `timeout` sends one to the process and one to its group
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in zip(hooks.StopOnSignal.SIGNALS, kept):
            signal.signal(number, handler)
