"""tpu_names.py against Google's API on loopback: what is found, and one line in seconds for what is not."""
import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
import tensorflow.compat.v1 as tf

import main as program
from configs import arguments, cloud_tpu, schema, tpu_names
from configs.errors import UserError
from tests.helpers.fake_tpu_api import PROJECT, ZONE, FakeTpuApi
from tests.helpers.runs import ROOT


@pytest.fixture
def listener():
    """(host, port) of something that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        yield s.getsockname()


@pytest.fixture
def api(listener, monkeypatch, tmp_path):
    with FakeTpuApi(endpoint=listener) as server:
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(cloud_tpu, "METADATA_SECONDS", 0.3)
        monkeypatch.setattr(cloud_tpu, "CREDENTIALS_SECONDS", 2.0)
        monkeypatch.setattr(tpu_names, "ANSWER_SECONDS", 2.0)
        monkeypatch.setattr(tpu_names, "CONNECT_SECONDS", 1.0)
        # Read from the environment when it was imported, perhaps by an earlier test.
        monkeypatch.setattr("google.auth.compute_engine._metadata._GCE_METADATA_HOST", server.address)
        yield server


def problem(name, *place):
    """The message of the one line for the user."""
    with pytest.raises(UserError) as caught:
        tpu_names.find(name, *place)
    message = str(caught.value)
    assert message.startswith(f"--tpu {name}") and "\n" not in message
    return message


def test_a_name_is_found_in_the_project_and_zone_of_the_machine(api, listener):
    api.put("mine", tensorflowVersion="2.15.1")
    assert tpu_names.find("mine")[:5] == ("mine", PROJECT, ZONE, ("%s:%d" % listener,), "2.15.1")


def test_flags_come_before_the_environment_and_that_before_the_machine(api, monkeypatch):
    api.put("mine", zone="a")
    api.put("mine", zone="b")
    monkeypatch.setenv("CLOUDSDK_COMPUTE_ZONE", "a")
    assert tpu_names.find("mine").zone == "a"
    assert tpu_names.find("mine", None, "b").zone == "b"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "other")
    assert tpu_names.find("mine").project == "other"
    api.silent = True  # who gives both needs no metadata server for them
    assert cloud_tpu.place("p", "z") == ("p", "z")


def test_all_workers_of_a_pod_are_known_and_a_dead_one_is_named(api, listener):
    host, port = listener
    api.put("pod", networkEndpoints=[{"ipAddress": host, "port": port}] * 3)
    assert len(tpu_names.find("pod").workers) == 3
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    api.nodes[ZONE, "pod"]["networkEndpoints"].append({"ipAddress": host, "port": closed})
    assert f"its worker {host}:{closed} does not answer (Connection refused)" in problem("pod")


@pytest.mark.parametrize("node, words", [
    ({"state": "CREATING"}, f"is CREATING, not READY; wait until `gcloud compute tpus describe mine --zone {ZONE}"),
    ({"state": "STOPPED"}, "run `gcloud compute tpus start mine"),
    ({"state": "PREEMPTED"}, "run `gcloud compute tpus delete mine"),
    ({"state": "NEW"}, "is NEW, not READY, and what that means is not known here; see `gcloud compute tpus describe"),
    ({"health": "UNHEALTHY_MAINTENANCE", "healthDescription": "moved"}, "is UNHEALTHY_MAINTENANCE (moved)"),
    ({"networkEndpoints": []}, "has no address"), ({"networkEndpoints": [{}]}, "has no address"),
    ({"networkEndpoints": [{"ipAddress": "127.0.0.1", "port": "x"}]}, "has no address"),
    ({"networkEndpoints": [5]}, "has no address"), ({"health": 5}, 'of the node, "health" is 5'),
    ({"networkEndpoints": "ab"}, 'of the node, "networkEndpoints" is "ab"'), ({"state": []}, '"state" is []'),
])
def test_a_node_that_cannot_be_used_is_one_line_with_the_command_to_run(api, node, words):
    api.put("mine", **node)
    assert words in problem("mine")


def test_a_wrong_name_names_project_and_zone_and_the_command_that_lists_others(api):
    message = problem("mine")
    assert f"project {PROJECT} has no TPU node of this name in zone {ZONE}" in message
    assert "gcloud compute tpus list" in message
    api.requests.clear()
    assert "is no name of a TPU" in problem("My_TPU")
    assert not api.requests


@pytest.mark.parametrize("kind, words", [
    (401, "gcloud auth application-default login"), (403, "roles/tpu.viewer"), (503, "does not answer (injected)"),
    ("hang", "does not answer"), ("reset", "does not answer"), ("garbage", "does not answer"),
    ("cut", "does not answer")])
def test_what_the_api_refuses_is_one_line(api, kind, words):
    api.put("mine")
    api.fail("GET", kind)
    begun = time.monotonic()
    assert words in problem("mine")
    assert time.monotonic() - begun < 5


def test_a_token_that_google_no_longer_takes_is_one_line(api, monkeypatch):
    from google.oauth2 import credentials
    api.put("mine")
    monkeypatch.setattr("google.auth.default", lambda scopes: (credentials.Credentials("stale"), None))
    assert "refused" in problem("mine") or "401" in problem("mine") or "credentials" in problem("mine")


def test_a_workload_identity_that_oauth2client_cannot_read_finds_the_tpu_and_its_preemption(api, monkeypatch, tmp_path):
    from oauth2client.client import ApplicationDefaultCredentialsError, GoogleCredentials
    (tmp_path / "subject").write_text("a token of another cloud")
    (tmp_path / "identity.json").write_text(json.dumps({
        "type": "external_account", "audience": "//iam.googleapis.com/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "credential_source": {
            "file": str(tmp_path / "subject")}, "token_url": f"http://{api.address}/computeMetadata/v1/token"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "identity.json"))
    with pytest.raises(ApplicationDefaultCredentialsError):
        GoogleCredentials.get_application_default()
    api.put("mine")
    monkeypatch.setattr(tpu_names, "_count_cores", lambda tf, tpu, resolver: len(resolver.cluster_spec().jobs))
    tpu = tpu_names.find("mine")
    resolver = tpu_names.resolver(tpu)
    assert resolver._tpu == "mine" and resolver.master() == "grpc://" + tpu.workers[0]
    assert tpu_names.preemption(tpu) is None
    api.preempt(ZONE, "mine")
    assert "is PREEMPTED" in tpu_names.preemption(tpu)


@pytest.mark.parametrize("state, gone", [
    ("READY", False), ("REPAIRING", False), ("UNKNOWN", False), ("PREEMPTED", True), ("TERMINATED", True),
    ("STOPPED", True), ("DELETING", True), (None, True)])
def test_a_node_is_gone_when_it_will_not_come_back_by_itself(api, state, gone):
    api.put("mine")
    tpu = tpu_names.find("mine")
    if state:
        api.nodes[ZONE, "mine"]["state"] = state
    else:
        api.nodes.clear()
    line = tpu_names.preemption(tpu)
    assert bool(line) == gone and "\n" not in (line or "")
    assert not gone or line.startswith("--tpu mine: ") and line.endswith("it goes on from the last checkpoint")


@pytest.mark.parametrize("kind", [401, 403, 503, "hang", "reset", "garbage", "cut"])
def test_an_api_that_does_not_answer_is_no_preemption(api, kind):
    api.put("mine")
    tpu = tpu_names.find("mine")
    api.preempt(ZONE, "mine")
    api.fail("GET", kind)
    assert tpu_names.preemption(tpu) is None
    api.heal()
    assert tpu_names.preemption(tpu)


@pytest.mark.parametrize("kind", [503, "hang"])
def test_an_api_that_fails_behind_the_checks_is_one_line(api, kind):
    api.put("mine")
    tpu = tpu_names.find("mine")
    api.fail("GET", kind)
    with pytest.raises(UserError, match="--tpu mine: .*; run again") as caught:
        tpu_names.resolver(tpu)
    assert "\n" not in str(caught.value)


def test_a_silent_metadata_server_does_not_hang(api):
    api.silent = True
    begun = time.monotonic()
    assert "give --tpu_project, or set GOOGLE_CLOUD_PROJECT" in problem("mine")
    assert "gcloud auth application-default login" in problem("mine", "project", "zone")
    assert time.monotonic() - begun < 5


def test_addresses_need_no_google(monkeypatch, listener):
    host, port = listener
    monkeypatch.setattr(cloud_tpu, "connect", None)
    assert tpu_names.find(f"grpc://{host}:{port}").workers == (f"{host}:{port}",)
    assert tpu_names.find(f"grpc://{host}:{port},{host}:{port}").workers == (f"{host}:{port}",) * 2
    assert "is no address" in problem("grpc://host:port")
    assert "does not answer" in problem("grpc://127.0.0.1:1")
    assert tpu_names.find("local").workers == ()


@pytest.mark.parametrize("version, good", [
    (tf.__version__, True), ("2.15.0", True), (None, True), ("2.14.1", False), ("2.1", False), ("pytorch-2.1", False)])
def test_a_node_of_another_release_is_refused(api, version, good):
    api.put("mine", **({"tensorflowVersion": version} if version else {}))
    if good:
        assert tpu_names.find("mine").version == version
    else:
        message = problem("mine")
        assert message.startswith(f"--tpu mine runs the software {version}, but TensorFlow here is {tf.__version__};")
        assert f"gcloud compute tpus delete mine --zone {ZONE}" in message


def test_a_server_that_is_no_tpu_is_one_line(api):
    server = tf.distribute.Server.create_local_server()
    host, port = server.target[len("grpc://"):].split(":")
    api.put("mine", networkEndpoints=[{"ipAddress": "127.0.0.1", "port": int(port)}])
    for name in ("mine", f"grpc://127.0.0.1:{port}"):
        with pytest.raises(UserError, match=f"--tpu {name}: grpc://127.0.0.1:{port} is a TensorFlow server without"):
            tpu_names.resolver(tpu_names.find(name))


def test_something_that_is_no_tensorflow_is_one_line(listener, monkeypatch):
    monkeypatch.setattr(tpu_names, "DEVICES_SECONDS", 1.5)
    with pytest.raises(UserError, match="does not answer as a TPU"):
        tpu_names.resolver(tpu_names.find("grpc://%s:%d" % listener))


def test_this_machine_without_a_tpu_is_no_tpu_vm():
    with pytest.raises(UserError, match="--tpu local: this machine has no TPU"):
        tpu_names.resolver(tpu_names.find("local"))


def remote_config(**changes):
    return schema.from_dict({"model_dir": "gs://b/run", "input": "tfrecords", "data_path": "gs://b/data",
                             "train_files": "a_*.tfrecords", "eval_files": "e_*.tfrecords", **changes}, "test")


@pytest.mark.parametrize("changes, key, path", [
    ({"model_dir": "runs/a"}, "model_dir", "runs/a"),
    ({"data_path": "data"}, "data_path", "data/a_*.tfrecords"),
    ({"train_files": [["gs://b/x*", 1], ["/disk/x*", 2]]}, "train_files", "/disk/x*"),
    ({"eval_files": ["gs://b/x*", "/disk/x*"]}, "eval_files", "/disk/x*"),
    ({"input": "openwebtext", "train_files": None, "eval_files": None, "data_path": "data"}, "data_path", "data"),
    ({"train_files": None, "eval_files": None, "data_path": "data"}, "data_path", "data"),
])
def test_a_tpu_node_needs_data_and_checkpoints_on_google_storage(changes, key, path):
    def check(config, name, mode=arguments.TRAIN):
        arguments.check_tpu_paths(argparse.Namespace(tpu=name, mode=mode, checkpoint=None), config)
    check(remote_config(), "mine")
    config = remote_config(**changes)
    with pytest.raises(UserError) as caught:
        check(config, "grpc://10.0.0.1:8470")
    assert f'cannot read "{key}" {path} here' in str(caught.value)
    check(config, "local")
    if key != "model_dir":
        check(config, "mine", arguments.PREDICT)


@pytest.mark.parametrize("mode, changes, refused", [
    ([], {}, "model_dir"), ([], {"model_dir": "gs://b/run"}, "data_path"), (["--eval"], {}, "model_dir"),
    (["--predict_text", "a"], {}, "model_dir"), (["--predict_text", "a"], {"model_dir": "gs://b/run"}, None)])
def test_local_paths_are_refused_before_the_tpu_is_looked_up(run_config, api, mode, changes, refused):
    with pytest.raises(UserError) as caught:
        program.main(["--model", run_config(**changes), "--tpu", "mine", *mode])
    assert (f'cannot read "{refused}"' if refused else "has no TPU node") in str(caught.value)
    assert bool(api.requests) == (refused is None)


def test_a_plan_says_that_paths_are_local_and_asks_nobody(run_config, api, capsys):
    assert program.main(["--model", run_config(), "--tpu", "mine", "--plan"]) == 2
    assert 'which cannot read "model_dir"' in capsys.readouterr().out
    assert not api.requests


def test_a_zone_without_a_tpu_is_a_mistake(run_config):
    with pytest.raises(UserError, match="--tpu_zone says where a TPU is; give --tpu NAME, too"):
        program.main(["--model", run_config(), "--tpu_zone", "here"])


@pytest.mark.slow  # it looks at the clock, which proves nothing on a busy machine
def test_the_command_says_in_one_line_and_15_seconds_what_is_wrong(run_config, tmp_path):
    """Calls it as the user does, with the waits that users get: a TPU of another zone, and a silent metadata server."""
    path = run_config(model_dir="gs://b/run", data_path="gs://b/data", tpu_zone="europe-west4-a")
    with FakeTpuApi() as api, FakeTpuApi() as silent:
        silent.silent = True
        begun, expected = time.monotonic(), {}
        for server, more, words in ((api, [], "in zone europe-west4-a"), (silent, [], "give --tpu_project"),
                                    (silent, ["--tpu_project", "p"], "no Google credentials")):
            expected[subprocess.Popen(
                [sys.executable, "main.py", "--model", path, "--tpu", "mine", *more], cwd=ROOT, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**os.environ, **server.environment(tmp_path)})] = words
        for process, words in expected.items():
            out, err = process.communicate(timeout=60)
            assert (process.returncode, out, err.count("\n")) == (2, "", 1), (out, err)
            assert err.startswith("error: --tpu mine: ") and words in err
        assert time.monotonic() - begun < 15


@pytest.mark.parametrize("content, words", [
    ("[]", "holds [], but must be one JSON object"), ("null", "holds null"), ("", "is empty"), ("{}", "type"),
    ("[" * 10**5, "is nested more than"), (b"\xff", "is not UTF-8"), ('{"type": 3}', ""), ('{"type": ["x"]}', ""),
    ('{"type": "authorized_user", "client_id": 3}', ""), ('{"type": "service_account", "private_key": []}', ""),
    ('{"type": "external_account", "audience": 7, "credential_source": []}', "")])
def test_credentials_that_are_none_are_one_line_that_says_how_to_log_in(api, monkeypatch, tmp_path, content, words):
    path = tmp_path / "credentials.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    message = problem("mine")
    assert "no Google credentials" in message and words in message and message.endswith(cloud_tpu.LOG_IN)
    assert "\n" not in message


@pytest.mark.parametrize("answer, version", [
    ('{"currentVersion": "2.15.1"}', "2.15.1"), ("[]", None), ("null", None), ("[" * 10**5, None), ("x", None),
    ("", None), ('{"currentVersion": ["2"]}', None), ('{"currentVersion": null}', None),
    ('{"currentVersion": 2.15}', None)])
def test_a_node_that_tells_no_version_is_asked_no_further(monkeypatch, answer, version):
    monkeypatch.setattr(cloud_tpu, "get_directly", lambda url, seconds: answer)
    assert tpu_names._ask_version("10.0.0.1:8470") == version


@pytest.mark.parametrize("answer, error", [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n12", OSError), (b"\xff\r\n\r\n", OSError), (b"", OSError),
    (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 10**5 + b"\r\n\r\n", OSError), (b"HTTP/1.1 999 \r\n\r\n", OSError),
    (b"HTTP/1.1 200 OK\r\n\r\n\xff", ValueError), (b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * (1 << 21), None)])
def test_whatever_a_server_answers_is_read_under_a_limit_or_an_error_that_callers_know(answer, error):
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(1 << 16)
                connection.sendall(answer)
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        if error:
            with pytest.raises(error):
                cloud_tpu.get_directly(url, 3)
        else:
            assert len(cloud_tpu.get_directly(url, 3)) == cloud_tpu.MOST_ANSWERED
