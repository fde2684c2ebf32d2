"""A run on a TPU whose node goes: the fake API knows the node, a TensorFlow server in a process of its own plays it."""
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import tensorflow.compat.v1 as tf

from configs import tpu_names
from models.run import preemption, workarounds
from tests.helpers.fake_tpu_api import ZONE, FakeTpuApi
from tests.helpers.runs import ROOT

NODE = """
import sys
import tensorflow as tf
server = tf.distribute.Server({"node": [sys.argv[1]]}, job_name="node", task_index=0)
print("ready", flush=True)
server.join()
"""
# The emulated core reads the files of this machine.
RUN = """
import sys
from unittest import mock
import main
from configs import arguments, commands
from models.run import preemption, workarounds
from tests.helpers.tpu_emulator import emulated
preemption.SECONDS = 0.5
sys.argv[0] = main.__file__
with emulated(), mock.patch.object(arguments, "check_tpu_paths", lambda *_, **__: None):
    commands.run(main.main)
"""


@pytest.fixture
def node():
    """(process, host, port) of a TensorFlow server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host, port = free.getsockname()
    process = subprocess.Popen([sys.executable, "-c", NODE, f"{host}:{port}"], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process, host, port
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_run_on_a_node_that_is_preempted_ends_with_one_line_and_status_75(number, node, run_config, tmp_path):
    """The connection breaks, or nothing comes any more; Google says a second later why."""
    process, host, port = node
    config = run_config(max_steps=10**6, train_steps=10**6, eval_steps=0, iterations=5)
    with FakeTpuApi(endpoint=(host, port)) as api:
        api.put("mine")
        run = subprocess.Popen([sys.executable, "-c", RUN, "--model", config, "--tpu", "mine"], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, **api.environment(tmp_path), "PYTHONWARNINGS": "ignore"})
        try:
            for line in run.stdout:
                if line.startswith("step"):
                    break
            process.send_signal(number)
            time.sleep(1)
            assert run.poll() is None
            api.preempt(ZONE, "mine")
            _, err = run.communicate(timeout=30)
        finally:
            run.kill()
    assert run.returncode == 75, err
    assert err.startswith("error: --tpu mine: is PREEMPTED, not READY; run `gcloud compute tpus delete mine")
    assert err.count("\n") == 1


@pytest.fixture
def api(monkeypatch, tmp_path):
    with FakeTpuApi() as server:
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("google.auth.compute_engine._metadata._GCE_METADATA_HOST", server.address)
        monkeypatch.setattr(tpu_names, "_reach", lambda tpu: None)
        monkeypatch.setattr(preemption, "SECONDS", 0.2)
        monkeypatch.setattr(tpu_names, "ANSWER_SECONDS", 1.0)
        server.put("mine", tensorflowVersion=tf.__version__)
        yield server


@pytest.fixture
def watch(api, monkeypatch):
    """(the Watch of a node, the exit statuses that it ended the process with)."""
    ends = []
    monkeypatch.setattr(os, "_exit", ends.append)  # ends the thread alone
    thread = preemption.NodeWatch(tpu_names.find("mine"))
    thread.start()
    yield thread, ends
    api.nodes.clear()
    thread.join(5)
    assert not thread.is_alive()


def test_watch_goes_on_when_sessions_end_and_answers_fail(api, watch):
    thread, ends = watch
    api.fail("GET", 503, times=2)
    asked = api.requests["GET"]
    thread.stop()
    thread.start()
    while api.requests["GET"] < asked + 4:
        assert thread.is_alive()
        time.sleep(0.01)
    assert not ends


def test_broken_connection_is_told_only_when_the_node_is_there(api, watch):
    _, ends = watch
    begun = time.monotonic()
    with pytest.raises(tf.errors.UnavailableError), preemption.known_first():
        raise tf.errors.UnavailableError(None, None, "Socket closed")
    assert 1 <= time.monotonic() - begun < 5 and not ends
    threading.Timer(0.3, lambda: api.preempt(ZONE, "mine")).start()
    with pytest.raises(tf.errors.AbortedError), preemption.known_first():
        raise tf.errors.AbortedError(None, None, "Session handle is not found")
    assert ends == [75]


@pytest.mark.parametrize("error", [tf.errors.InvalidArgumentError(None, None, "x"), KeyError("x")])
def test_other_errors_do_not_wait_for_the_node(watch, error):
    begun = time.monotonic()
    with pytest.raises(type(error)), preemption.known_first():
        raise error
    assert time.monotonic() - begun < 0.5


def test_addresses_are_not_watched(monkeypatch):
    before = threading.active_count()
    monkeypatch.setattr(tpu_names, "resolver", lambda tpu: None)
    workarounds.resolver(tpu_names.Tpu("grpc://host:1", None, None, ("host:1",), None))
    assert threading.active_count() == before
