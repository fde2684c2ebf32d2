"""Two hosts, played by two processes on loopback: the weights of one, one end for both, and a death in between."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import main
from configs import cluster
from configs.errors import UserError
from tests.helpers.runs import ROOT, mistake, weights_of
from tests.models.run.test_devices import DROPOUT, assert_close, trained

TIMEOUT = 400


@pytest.fixture
def hosts(run_config):
    """Function (number, **changes) -> that host's process, which trains."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = ["127.0.0.1:%d" % server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    started = []

    def start(number, **changes):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", os.path.join(ROOT, "main.py"), "--model", run_config(**changes)],
            env={**os.environ, "TF_CONFIG": json.dumps(cluster)}, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        started.append(process)
        return process
    yield start
    for process in started:
        process.kill()
        process.wait()


def ended(*processes):
    """[(exit status, output)]"""
    return [(process.wait(), out) for process, out in
            ((process, process.communicate(timeout=TIMEOUT)[0]) for process in processes)]


def wait_for(process, words):
    """The output up to the first line with these words."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError("".join(lines))


@pytest.mark.slow
def test_two_hosts_reach_the_weights_of_one(hosts, run_config, tmp_path):
    changes = {"micro_batch_size": 2, "sample_prompts": ["def"], "sample_length": 3, **DROPOUT}
    one = trained(run_config(model_dir=str(tmp_path / "one"), **changes))
    results = ended(*(hosts(number, **changes) for number in range(2)))
    assert [status for status, _ in results] == [0, 0], results
    assert_close(one, weights_of(tmp_path / "run", 8))
    assert results[0][1].count("evaluation at step") == 2 and "evaluation" not in results[1][1]
    for text in (results[0][1], (tmp_path / "run" / "samples.txt").read_text()):
        assert re.findall("SAMPLE (.*?) =", text) == ["0 AT STEP 4", "0 AT STEP 8"]
    assert "SAMPLE" not in results[1][1] and (tmp_path / "run" / "loss.png").exists()


@pytest.mark.slow
def test_a_signal_to_one_host_ends_both_after_the_same_step(hosts, tmp_path):
    changes = {"max_steps": 10**6, "train_steps": 10**6, "eval_steps": 0, "lr_schedule": "constant"}
    both = [hosts(number, **changes) for number in range(2)]
    wait_for(both[0], "left")
    both[1].send_signal(signal.SIGTERM)
    results = ended(*both)
    assert [status for status, _ in results] == [143, 143], results
    steps = [re.search(r"stopped by SIGTERM at step (\d+), saved", out).group(1) for _, out in results]
    assert steps[0] == steps[1] and weights_of(tmp_path / "run", int(steps[0]))["global_step"] == int(steps[0])


@pytest.mark.slow
def test_a_signal_while_the_other_host_is_awaited_ends_this_one_at_once(hosts):
    process = hosts(0)
    wait_for(process, "starting")
    time.sleep(5)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (143, "signal 15: stopped before the first step, with nothing to save\n")


@pytest.mark.slow
def test_evaluations_that_get_no_better_end_both_after_the_same_step(hosts, tmp_path):
    changes = {"max_steps": 400, "train_steps": 2, "lr": 3.0, "lr_schedule": "constant", "early_stopping": 2}
    results = ended(*(hosts(number, **changes) for number in range(2)))
    assert [status for status, _ in results] == [0, 0], results
    one, other = (re.findall(r"done: .* is trained to step (\d+); .*; stopped early: ", out) for _, out in results)
    assert one == other and len(one) == 1 and int(one[0]) < 400
    assert not [out for _, out in results if "starting again" in out], results


@pytest.mark.slow
def test_a_host_that_was_killed_comes_back_and_all_goes_on_to_the_bit(hosts, tmp_path):
    changes = {"max_steps": 2000, "train_steps": 2000, "eval_steps": 0, "save_checkpoints_steps": 2000,
               "save_checkpoints_minutes": 0.01}
    whole = ended(*(hosts(number, model_dir=str(tmp_path / "whole"), **changes) for number in range(2)))
    assert [status for status, _ in whole] == [0, 0], whole
    both = [hosts(number, **changes) for number in range(2)]
    wait_for(both[0], "left")  # some steps further
    both[1].kill()
    both[1].wait()
    wait_for(both[0], ": starting again from the last checkpoint")  # whoever sees it first, the watch or the step
    (status, out), (other, _) = ended(both[0], hosts(1, **changes))
    assert status == other == 0, out
    assert int(re.search(r"continuing .* at step (\d+) of 2000", out).group(1)) > 0
    resumed = weights_of(tmp_path / "run", 2000)
    for name, value in weights_of(tmp_path / "whole", 2000).items():
        np.testing.assert_array_equal(value, resumed[name], err_msg=name)


def test_a_batch_that_the_hosts_cannot_share_and_a_bad_cluster_are_one_line(run_config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps(
        {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 0}}))
    assert '"train_batch_size" 5 cannot be shared by 2 replicas' in mistake("--model", run_config(train_batch_size=5))
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"chief": ["a:1"], "worker": ["b:2"]}, '
                       '"task": {"type": "worker", "index": 0}}')
    assert cluster.hosts() == (["a:1", "b:2"], 1)
    monkeypatch.setenv("TF_CONFIG", '{"cluster": []}')
    assert "TF_CONFIG is {" in mistake("--model", run_config())
    there = mistake("--model", run_config(train_files="none"), "--strategy", "multi_worker")
    assert "TF_CONFIG is {" in there  # before the data are looked at
    monkeypatch.delenv("TF_CONFIG")
    assert "needs the environment variable TF_CONFIG" in mistake("--model", run_config(), "--strategy", "multi_worker")
    assert "--strategy is for training" in mistake("--model", run_config(), "--strategy", "mirrored", "--eval")


@pytest.mark.parametrize("text", ["]", json.dumps({"cluster": {"worker": ["h:3", "h:4"]},
                                                   "task": {"type": "worker", "index": 1}})])
def test_an_evaluation_does_not_read_the_cluster(run_config, trained_folder, monkeypatch, capsys, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert main.main(["--model", run_config(model_dir=str(trained_folder)), "--eval"]) == 0
    assert "evaluation at step 4" in capsys.readouterr().out


def test_a_cluster_of_one_host_trains_as_without_one(run_config, monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["h:3"]}, "task": TASK}))
    assert main.main(["--model", run_config(max_steps=1, warmup_steps=0, eval_steps=0)]) == 0
    assert "is trained to step 1" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{}", '{"cluster": {}}', '{"cluster": {}, "task": {}, "environment": "cloud"}'])
def test_a_cluster_without_hosts_is_none_as_tensorflow_reads_it(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert cluster.hosts() == ([], 0)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert resolver.cluster_spec().as_dict() == {}


WORKERS = {"worker": ["127.0.0.1:1", "[::1]:65535"]}
TASK = {"type": "worker", "index": 0}


@pytest.mark.parametrize("more", ["gpu-1.example.org:22", "trainer_2:80", "7ab:1", "[fe80::1%eth0]:5", "123:4"])
def test_a_cluster_of_all_kinds_of_addresses_is_read(monkeypatch, more):
    workers = [*WORKERS["worker"], more]
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": workers}, "task": {**TASK, "index": "1"}}))
    assert cluster.hosts() == (workers, 1)


@pytest.mark.parametrize("content, words", [
    ("x", "Expecting value"), ("[]", "[] is no object"), ("null", "null is no object"), ("[" * 10**5, "is nested more"),
    ({"cluster": WORKERS}, '"task" is missing'), ({"cluster": [], "task": TASK}, '"cluster" is []'),
    ({"cluster": {"worker": "x"}, "task": TASK}, '"worker" is "x"'),
    ({"cluster": {"worker": {"0": "a:1"}}, "task": TASK}, '"worker" is {"0": "a:1"}'),
    ({"cluster": {"worker": ["a:1", "b:99999"]}, "task": TASK}, '"b:99999" is no HOST:PORT with a port from 1 to 655'),
    ({"cluster": {"worker": ["a:0"]}, "task": TASK}, '"a:0" is no HOST:PORT'),
    ({"cluster": {"worker": ["a", "b"]}, "task": TASK}, '"a" is no HOST:PORT'),
    *(({"cluster": {"worker": ["ok:1", address]}, "task": TASK}, words) for address, words in (
        ("ü:7", '"ü:7" is no HOST:PORT'), ("a..b:5", "is no HOST:PORT"), ("a-.b:5", "is no HOST:PORT"),
        ("a.:5", "is no HOST:PORT"), (f"{'a' * 64}:5", "is no HOST:PORT"), ("a%20b:5", "is no HOST:PORT"),
        ("a\\udc80:5", "is no HOST:PORT"), ("a:٣", "is no HOST:PORT"), ("[fe80]:5", "'fe80' does not appear to be"),
        ("1.2.3:5", "'1.2.3' does not appear to be"), ("10.0.0.256:5", "'10.0.0.256' does not appear to be"))),
    ({"cluster": {"worker": [["a:1"]]}, "task": TASK}, '["a:1"] is no HOST:PORT'),
    ({"cluster": {"worker": ["grpc://a:1"]}, "task": TASK}, "is no HOST:PORT"),
    ({"cluster": {**WORKERS, "ps": ["a:1"]}, "task": TASK}, '"ps" is no kind of host'),
    ({"cluster": WORKERS, "task": {"type": "worker", "index": 2}}, "which \"cluster\" does not hold"),
    ({"cluster": WORKERS, "task": {"type": "worker", "index": -1}}, "does not hold"),
    ({"cluster": WORKERS, "task": {"type": "worker", "index": True}}, '"index" is true'),
    ({"cluster": WORKERS, "task": {"type": ["worker"], "index": 0}}, '"type" is ["worker"]'),
    ({"cluster": WORKERS, "task": {"type": "chief", "index": 0}}, "does not hold"),
    ('{"cluster": {}, "task": {"type": "worker", "index": NaN}}', '"index" is NaN')])
def test_what_is_wrong_with_a_cluster_is_named(monkeypatch, content, words):
    monkeypatch.setenv("TF_CONFIG", content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError) as caught:
        cluster.hosts()
    assert str(caught.value).startswith("the environment variable TF_CONFIG is ") and words in str(caught.value)
