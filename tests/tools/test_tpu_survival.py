"""tools/tpu_survival.py with a real run on a TPU API on loopback, whose nodes vanish and whose answers fail."""
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from configs.errors import UserError
from tests.helpers.fake_tpu_api import NO_ROOM, FakeTpuApi
from tests.helpers.runs import ROOT
from tools import tpu_survival

NAME = "mine"
# A run of so many steps that goes on from its last one, as main.py does; files in its folder tell it to misbehave.
RUN = '''
import fcntl, os, signal, sys, time
folder, total, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
path = lambda name: os.path.join(folder, name)
lock = open(path("only"), "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    open(path("twice"), "w")
with open(path("starts"), "a") as f:
    f.write(" ".join(sys.argv[4:]) + "\\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
step = int(open(path("step")).read()) if os.path.exists(path("step")) else 0
print("starting at step", step)
while step < total:
    while os.path.exists(path("hang")):
        print("waiting for a TPU")
        time.sleep(0.05)
    if os.path.exists(path("preempted")):
        os.remove(path("preempted"))
        sys.exit(75)
    if os.path.exists(path("fail")):
        sys.exit(f"error: the loss is not finite at step {step}")
    step += 1
    print(f"step {step:5}/{total}   loss 1.0")
    with open(path("step.new"), "w") as f:
        f.write(str(step))
    os.replace(path("step.new"), path("step"))
    time.sleep(pause)
print("done", "x" * 200000)
'''


class Case:
    """A fake API and the folder of a run."""

    def __init__(self, api, folder):
        self.api, self.folder = api, folder
        (folder / "run.py").write_text(RUN)

    def arguments(self, *more, steps=30, pause=0.01, zones="a,b"):
        return ["--name", NAME, "--tpu_project", "p", "--zones", zones, "--accelerator", "v3-8", "--max_hours", "1",
                "--poll_seconds", "0.05", "--answer_seconds", "1", "--grace_seconds", "1", "--state_dir",
                str(self.folder / "state"), "--retry_minutes", "0.001", *more, "--", sys.executable,
                str(self.folder / "run.py"), str(self.folder), str(steps), str(pause)]

    def call(self, *more, **named):
        return tpu_survival.main(self.arguments(*more, **named))

    def start(self, *more, **named):
        """The same in a process of its own."""
        script = os.path.join(ROOT, "tools", "tpu_survival.py")
        return subprocess.Popen([sys.executable, script, *self.arguments(*more, **named)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def step(self):
        path = self.folder / "step"
        return int(path.read_text()) if path.exists() else 0

    def starts(self):
        path = self.folder / "starts"
        return path.read_text().splitlines() if path.exists() else []

    def state(self):
        return json.loads((self.folder / "state" / "state.json").read_text())

    def when(self, condition, *actions):
        """Does it in the background as soon as the condition holds."""
        def wait():
            self.until(condition)
            for action in actions:
                action()
        threading.Thread(target=wait, daemon=True).start()

    def until(self, condition):
        limit = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < limit
            time.sleep(0.01)

    def check_clean(self):
        """No node is left, and there never were two nodes or two runs."""
        assert not self.api.nodes and self.api.most_at_once <= 1
        assert not (self.folder / "twice").exists()


@pytest.fixture
def case(monkeypatch, tmp_path):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with FakeTpuApi(create_seconds=0.1, delete_seconds=0.1) as api:
        for name, value in api.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("google.auth.compute_engine._metadata._GCE_METADATA_HOST", api.address)
        yield Case(api, tmp_path)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_run_is_started_on_a_new_node_watched_to_its_end_and_the_node_deleted(case, capsys):
    assert case.call() == 0
    case.check_clean()
    assert case.api.made == case.api.deleted == [("a", NAME)]
    assert case.starts() == ["--tpu mine --tpu_project p --tpu_zone a"] and case.step() == 30
    body, = case.api.bodies
    assert body["acceleratorType"] == "v3-8" and body["schedulingConfig"] == {"preemptible": True}
    assert body["tensorflowVersion"].startswith("2.15")
    assert "the run is done; no node is left" in capsys.readouterr().out
    assert os.path.getsize(case.folder / "state" / "output.log") > 200_000  # more than a pipe holds
    assert case.call() == 0  # that it is done is known
    assert len(case.api.made) == 1


def test_a_preempted_node_is_replaced_and_the_run_goes_on(case, capsys):
    case.when(lambda: case.step() > 5, lambda: case.api.preempt("a", NAME))
    assert case.call(steps=60) == 0
    case.check_clean()
    assert case.api.made == [("a", NAME)] * 2 and len(case.starts()) == 2
    assert "mine in a is PREEMPTED" in capsys.readouterr().out


def test_a_run_that_knows_first_of_the_preemption_gets_another_node_at_once(case, capsys):
    case.when(lambda: case.step() > 5, (case.folder / "preempted").touch)
    assert case.call("--retry_minutes", "5", "--max_failures", "1", steps=60) == 0
    case.check_clean()
    assert case.api.made == [("a", NAME)] * 2 and len(case.starts()) == 2
    assert "mine in a was preempted" in capsys.readouterr().out


@pytest.mark.slow
def test_a_node_that_somebody_deletes_is_replaced(case):
    case.when(lambda: case.step() > 5, lambda: case.api.nodes.clear())
    assert case.call(steps=60) == 0
    case.check_clean()
    assert len(case.api.made) == 2


def test_a_run_that_hangs_is_killed_and_gets_another_node(case, capsys):
    hang = case.folder / "hang"
    case.when(lambda: case.step() > 5, hang.touch, lambda: case.until(lambda: len(case.api.made) == 2), hang.unlink)
    assert case.call("--hang_minutes", "0.015", steps=40) == 0
    case.check_clean()
    assert len(case.starts()) == 2
    assert "made no step for 0.015 minutes" in capsys.readouterr().out


def test_a_zone_without_quota_or_room_leads_to_the_next(case, capsys):
    case.api.fail("POST", 429, zone="a", message="Quota limit 'TPUV3sPreemptiblePerProjectPerZone' has been exceeded")
    case.api.stillborn.add("b")
    assert case.call(zones="a,b,c") == 0
    case.check_clean()
    assert case.api.made == [("b", NAME), ("c", NAME)] and case.starts()[0].endswith("--tpu_zone c")
    out = capsys.readouterr().out
    assert "zone a gives no TPU: Quota limit" in out and f"zone b gives no TPU: {NO_ROOM}" in out


def test_zones_are_asked_again_after_a_pause(case, capsys):
    case.api.fail("POST", 429, times=3)
    assert case.call() == 0
    case.check_clean()
    assert case.api.requests["POST"] == 4
    assert "no zone has one, asking again in 0.001 minutes" in capsys.readouterr().out


def test_zones_that_never_will_give_one_are_one_line(case):
    case.api.fail("POST", 403, zone="a", message="permission denied")
    case.api.fail("POST", 400, zone="b", message="no such accelerator")
    with pytest.raises(UserError) as caught:
        case.call()
    assert "zone a gives no TPU: permission denied; zone b gives no TPU: no such accelerator" in str(caught.value)
    case.check_clean()


@pytest.mark.parametrize("kind", [503, "cut", *(pytest.param(kind, marks=pytest.mark.slow)
                                                for kind in ("hang", "garbage", "reset"))])
def test_an_api_that_fails_for_a_while_harms_neither_node_nor_run(case, kind):
    for method in ("GET", "POST", "DELETE"):
        case.api.fail(method, kind, times=2)
    case.when(lambda: case.step() > 3, lambda: case.api.fail("GET", kind, times=3))
    assert case.call("--answer_seconds", "0.5", steps=60) == 0
    case.check_clean()
    assert len(case.starts()) == 1


def test_a_run_that_fails_again_and_again_is_given_up_with_its_last_words(case):
    case.when(lambda: case.step() > 5, (case.folder / "fail").touch)
    with pytest.raises(UserError, match="failed 3 times in a row .* its output ends with: error: the loss is"):
        case.call()
    case.check_clean()
    assert len(case.starts()) == 3 and len(case.api.made) == 2


def test_the_cap_ends_the_run_and_the_node(case, capsys):
    assert case.call("--max_hours", f"{2 / 3600}", steps=10_000) == 3
    case.check_clean()
    assert "--max_hours is reached" in capsys.readouterr().out
    assert 1 < case.state()["paid"] < 10
    assert case.call("--max_hours", f"{2 / 3600}") == 3  # what was paid is not forgotten
    assert len(case.api.made) == 1


def test_a_signal_ends_the_run_and_the_node_and_the_next_call_goes_on(case):
    case.when(lambda: case.step() > 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert case.call(steps=50) == 143
    case.check_clean()
    before = case.step()
    assert 5 < before < 50
    assert case.call(steps=50) == 0
    assert len(case.starts()) == 2 and case.step() == 50


def test_a_node_of_the_same_name_that_is_not_ours_is_left_alone(case):
    case.api.put(NAME, zone="a")
    with pytest.raises(UserError, match="zone a has a node mine that is not of this run; choose another --name"):
        case.call()
    assert not case.api.made and not case.api.deleted and ("a", NAME) in case.api.nodes


@pytest.mark.parametrize("labels", [None, [], "x", {}, {"tpu-survival": None}, {"tpu-survival": "0123456789abcdef"}])
def test_a_foreign_node_is_left_alone_whatever_its_labels_are(case, labels):
    case.api.put(NAME, zone="a", labels=labels)
    case.api.put(NAME, zone="b", labels=labels)
    with pytest.raises(UserError, match="zone a has a node mine that is not of this run"):
        case.call()
    assert not case.api.deleted and len(case.api.nodes) == 2


def test_where_the_owner_of_a_node_is_unknown_nothing_is_deleted(case, capsys, monkeypatch):
    """The disk is full, the API does not say whose node it is, and somebody has made one of the same name."""
    real = tpu_survival.keeper.storage.write_whole

    def write(path, text):
        if case.step() > 5:
            case.api.nodes.clear()
            case.api.put(NAME, zone="a")
            case.api.fail("GET", 503)
            raise OSError(28, "No space left on device", path)
        real(path, text)
    monkeypatch.setattr(tpu_survival.keeper.storage, "write_whole", write)
    with pytest.raises(OSError, match="No space left"):
        case.call(steps=10_000)
    assert not case.api.deleted and case.api.requests["DELETE"] == 0 and ("a", NAME) in case.api.nodes
    label = case.state()["label"]
    assert (f"the node may be left: if `gcloud compute tpus describe mine --zone a --project p` shows the label"
            f" tpu-survival: {label}, it is this run's") in capsys.readouterr().out


@pytest.mark.parametrize("change", [
    {"label": None}, {"label": ""}, {"label": "mine"}, {"label": 7}, {"zone": None}, {"zone": 3}, {"phase": "x"},
    {"phase": []}, {"paid": "1"}, {"paid": float("nan")}, {"paid_since": float("inf")}, {"refused": [["a"]]},
    {"refused": "ab"}, {"operation": 5}, {"more": 1}, {"step": 1e400}])
def test_a_state_that_nobody_wrote_so_deletes_nothing(case, change):
    state = {"project": "p", "name": NAME, "label": "0123456789abcdef", "zone": "a", "phase": "run", "refused": []}
    (case.folder / "state").mkdir()
    (case.folder / "state" / "state.json").write_text(json.dumps({**state, **change}))
    case.api.put(NAME, zone="a")
    with pytest.raises(UserError, match="state.json is damaged, so it is not known which node is this run's; bring"):
        case.call()
    assert not case.api.requests and ("a", NAME) in case.api.nodes


def test_a_full_disk_leaves_no_node(case, monkeypatch):
    real = tpu_survival.keeper.storage.write_whole

    def write(path, text):
        if case.step() > 5:
            raise OSError(28, "No space left on device")
        real(path, text)
    monkeypatch.setattr(tpu_survival.keeper.storage, "write_whole", write)
    with pytest.raises(OSError, match="No space left"):
        case.call(steps=10_000)
    case.until(lambda: not case.api.left())
    case.check_clean()


def test_killed_at_any_moment_it_goes_on_with_the_same_node_and_run(case):
    """kill -9 while it asks, waits, watches and deletes; each time the same command is given again."""
    moments = [lambda: case.api.made, lambda: case.step() > 3, lambda: case.step() > 20, lambda: case.step() > 40,
               lambda: case.api.deleted]
    for moment in moments:
        process = case.start(steps=100)
        case.until(moment)
        process.kill()
        process.communicate()
    out, err = case.start(steps=100).communicate(timeout=60)
    assert err == "" and "the run is done" in out, (out, err)
    case.check_clean()
    assert case.api.made == [("a", NAME)] and case.step() == 100
    assert len(case.starts()) <= 2  # the second to find out how an orphan ended


@pytest.mark.slow
def test_a_second_one_for_the_same_run_is_refused(case):
    process = case.start(steps=1000)
    case.until(lambda: case.step() > 0)
    with pytest.raises(UserError, match="another run holds .*lock"):
        case.call()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    case.check_clean()


def test_a_dry_run_prints_every_call_and_makes_none(case, capsys):
    assert case.call("--dry_run", "--network", "net") == 0
    out = capsys.readouterr().out
    for zone in "ab":
        assert f"POST http://{case.api.address}/v1/projects/p/locations/{zone}/nodes?nodeId=mine&alt=json" in out
    assert '"network": "net"' in out and '"preemptible": true' in out
    assert f"DELETE http://{case.api.address}/v1/projects/p/locations/a/nodes/mine" in out
    assert "run.py" in out and "--tpu mine --tpu_project p --tpu_zone a" in out
    assert not case.api.requests and not (case.folder / "state").exists()


def test_a_dry_run_needs_neither_network_nor_credentials(case, monkeypatch, capsys):
    monkeypatch.delenv("TPU_API_DISCOVERY_URL")
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    assert case.call("--dry_run") == 0
    assert "POST https://tpu.googleapis.com/v1/projects/p/locations/a/nodes?nodeId=mine" in capsys.readouterr().out


@pytest.mark.parametrize("more, words", [
    (["--name", "My TPU"], "--name: My TPU is out of range: give small letters, digits and -, beginning with a letter"),
    (["--zones", "a,a"], "--zones: a,a is out of range: give zones, such as us-central1-b, each once"),
    (["--zones", ","], "--zones: , is out of range"), (["--zones", "a,B"], "--zones: a,B is out of range"),
    (["--max_hours", "0"], "--max_hours: 0 is out of range: give more than 0"),
    (["--max_hours", "0.0001"], "is less than the 1 seconds"),
    (["--backup_dir", "gs://b/x", "--model_dir", "run[1]"], "--model_dir run[1] holds [, and TensorFlow takes"),
    (["--backup_dir", "x"], "--backup_dir and --model_dir need each other"),
    (["--state_dir", "gs://b/state"], "--state_dir: gs://b/state is out of range: give a local folder"),
    (["--step_pattern", "("], "is no regex"), (["--step_pattern", "step"], "must have one group")])
def test_a_mistake_is_one_line_before_anything_is_asked(case, more, words):
    with pytest.raises(UserError) as caught:
        case.call(*more)
    assert words in str(caught.value) and not case.api.requests


def test_credentials_that_may_not_are_said_before_anything_is_made(case):
    case.api.fail("GET", 403, message="no permission for tpu.nodes.get")
    with pytest.raises(UserError, match="refuses project p, zone .: no permission for tpu.nodes.get"):
        case.call()
    assert case.api.requests["POST"] == 0


def test_a_command_with_a_tpu_of_its_own_is_refused():
    with pytest.raises(UserError, match="leave --tpu out"):
        tpu_survival.main(["--name", "a", "--zones", "a", "--accelerator", "v3-8", "--max_hours", "1", "--",
                           "main.py", "--tpu", "b"])


@pytest.mark.slow
def test_checkpoints_are_backed_up_while_the_run_goes_on_and_at_the_end(case):
    from tests.tools.test_backup_checkpoint import save
    save(case.folder / "run", 7)
    copies = case.folder / "backups"
    case.when((copies / "step-7" / "checkpoint").exists, lambda: save(case.folder / "run", 9))
    case.until(lambda: (case.folder / "run" / "checkpoint").exists())
    assert case.call("--backup_dir", str(copies), "--model_dir", str(case.folder / "run"), steps=400) == 0
    assert sorted(os.listdir(copies)) == ["step-7", "step-9"]
    assert case.state()["backed_up"] > 0
    case.check_clean()
