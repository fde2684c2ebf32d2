"""What is told between the steps, and how a signal ends them."""
import os
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
from models.run import cost, hooks, metrics_file
from tests.helpers.runs import ROOT, in_terminal, scalars_of


def test_runs_of_many_steps_as_a_tpu_makes_them_are_counted_by_their_steps(tmp_path, monkeypatch):
    clock = types.SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(hooks, "time", clock)
    said = []
    order = WindowOrder([shard_sets.Part((Shard("a", 3, 700, None, 0, None, 1, 1),), 1.0)], n_ctx=7, batch=1, seed=1)
    config = schema.from_dict({"model_dir": str(tmp_path), "n_vocab": 50257, "max_steps": 125}, "here")
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
    assert cost.token_operations(config) == operations
    assert first["teraflops_per_second"] == pytest.approx(140 * operations / 1e12, rel=1e-6)
    # The host does not see a TPU's.
    assert (first["loss"], first["learning_rate"], first["gradient_norm"]) == (None, None, None)


def test_on_google_storage_figures_are_written_as_often_as_a_checkpoint_and_at_the_end(tmp_path, monkeypatch):
    # TensorFlow's way to files knows local ones, too.
    monkeypatch.setattr(storage, "is_remote", lambda path: path.startswith(str(tmp_path)))
    written, append = [], metrics_file.append
    monkeypatch.setattr(metrics_file, "append", lambda *given: written.append(len(given[1])) or append(*given))
    order = WindowOrder([shard_sets.Part((Shard("a", 3, 700, None, 0, None, 1, 1),), 1.0)], n_ctx=7, batch=1, seed=1)
    config = schema.from_dict({"model_dir": str(tmp_path), "n_vocab": 50257, "save_checkpoints_steps": 30}, "here")
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


def hearing_sighup():
    """For a new process: SIGHUP as it is by itself, whoever started the tests (`nohup` has it ignored)."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM),
                                     pytest.param((signal.SIGHUP, signal.SIGINT), marks=pytest.mark.slow)])
def test_signals_in_a_long_step_are_heard_at_once_and_the_second_kills(numbers):
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", LONG_STEP], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=hearing_sighup)
    assert process.stdout.readline() == "step\n"
    time.sleep(0.2)
    process.send_signal(numbers[0])
    words = f"signal {numbers[0]:d}: stopping after this step; SIGINT or SIGTERM now stop at once\n"
    assert process.stderr.readline() == words
    time.sleep(hooks.ECHO_SECONDS * 2)
    process.send_signal(numbers[1])
    assert process.wait(timeout=10) == 128 + numbers[1]
    assert process.stdout.read() == "" and process.stderr.read() == ""


def test_a_signal_while_hosts_are_awaited_kills_at_once():
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", LONG_STEP.replace("StopOnSignal()", "StopOnSignal(waits=True)")],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "step\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    assert process.stderr.read() == "signal 2: stopped before the first step, with nothing to save\n"


@pytest.fixture
def handlers():
    """After the test, signals are handled as before it."""
    kept = {number: signal.getsignal(number) for number in hooks.StopOnSignal.SIGNALS}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_signal_between_two_steps_is_known_before_the_next_instruction_and_its_echo_is_no_second_one(
        handlers, monkeypatch):
    monkeypatch.setattr(hooks, "ECHO_SECONDS", 1000)  # however busy the machine is
    stop = hooks.StopOnSignal()
    signal.raise_signal(signal.SIGTERM)
    assert stop.signal_number == signal.SIGTERM
    signal.raise_signal(signal.SIGTERM)  # `timeout` sends one to the process and one to its group


def test_a_sighup_never_kills_for_terminals_and_shells_send_several(handlers, monkeypatch):
    hearing_sighup()
    exits = []
    monkeypatch.setattr(hooks, "ECHO_SECONDS", 0)
    monkeypatch.setattr(hooks.os, "_exit", exits.append)
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, getattr(sys, stream))  # which a SIGHUP replaces
    for first, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C"), (signal.SIGHUP, "SIGHUP")):
        stop = hooks.StopOnSignal()
        for number in (first, signal.SIGHUP, signal.SIGHUP):
            signal.raise_signal(number)
        assert stop.signal_number == first and stop.name == name and not exits


@pytest.mark.parametrize("number", hooks.StopOnSignal.SIGNALS)
def test_a_signal_that_is_ignored_stays_so(handlers, number):
    """`nohup` has SIGHUP ignored, the `&` of a script SIGINT."""
    signal.signal(number, signal.SIG_IGN)
    stop = hooks.StopOnSignal()
    stop.before_run(None)
    signal.raise_signal(number)
    assert stop.signal_number is None and signal.getsignal(number) == signal.SIG_IGN


GONE = """
import sys, time
from models.run import hooks
stop = hooks.StopOnSignal()
print("step", flush=True)
while stop.signal_number is None:
    time.sleep(0.01)
for _ in range(100):
    print("step", flush=True)
    print("step", file=sys.stderr, flush=True)
with open(sys.argv[1], "w") as f:  # the checkpoint
    f.write(stop.name)
sys.exit(128 + stop.signal_number)
"""


@pytest.mark.parametrize("piped, number", [(False, signal.SIGHUP),
                                           pytest.param(True, signal.SIGHUP, marks=pytest.mark.slow),
                                           pytest.param(True, signal.SIGINT, marks=pytest.mark.slow)])
def test_when_terminal_or_pipe_are_gone_the_step_is_saved_all_the_same(piped, number, tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", GONE, str(tmp_path / "saved")]
    if piped:  # main.py | tee, and a closed terminal or Ctrl-C ends both
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   preexec_fn=hearing_sighup)
        assert process.stdout.readline() == b"step\n"
        process.stdout.close()
        process.send_signal(number)
    else:
        process, terminal = in_terminal(command)
        said = b""
        while said != b"step\r\n":
            said += os.read(terminal, 100)
        os.close(terminal)
    assert process.wait(timeout=60) == 128 + number
    assert (tmp_path / "saved").read_text() == ("SIGHUP" if number == signal.SIGHUP else "Ctrl-C")
