"""Jobs on a real cluster of Ray nodes on this machine, one of which is killed; what is said where there is none."""
import contextlib
import errno
import inspect
import os
import random
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import types
import zipfile

import pytest

from configs import storage
from configs.errors import UserError
from datasets import create_tfrecords
from datasets.jobs import ray_cluster, workers
from tests.datasets.test_extract_text import contents, write_archive
from tests.helpers import ray_jobs
from tests.helpers.pages import article
from tests.helpers.runs import ROOT
from tests.helpers.waiting import children, wait_until

STDLIB = sysconfig.get_path("stdlib")
# A node that answers no more is given up after a second and a half, not half a minute.
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


def run(script, *arguments, **environment):
    return subprocess.run([sys.executable, os.path.join("datasets", script), *map(str, arguments)], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, **environment}, timeout=300)


def shards(folder, *more):
    return ["--input", folder / "texts", "--name", "text", "--output_dir", folder / "shards", *more]


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("Some words that are long enough to be kept. " * 9)
    return tmp_path


@pytest.mark.parametrize("address, words", [
    ("nowhere", "give `auto` or HOST:PORT"), ("127.0.0.1:99999", "give `auto` or HOST:PORT"),
    (":6379", "give `auto` or HOST:PORT"), ("127.0.0.1:6²", "give `auto` or HOST:PORT"),
    ("no-such-host.invalid:6379", "nobody answers")])
def test_address_that_is_none_is_one_line(texts, address, words, capsys):
    with pytest.raises(UserError, match=words) as error:
        create_tfrecords.main(list(map(str, shards(texts, "--ray_address", address))))
    assert address in str(error.value) and "\n" not in str(error.value)
    assert not (texts / "shards").exists()


def test_address_where_nobody_listens_ends_in_seconds_with_status_2(texts):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and never listened to
        begun = time.monotonic()
        result = run("create_tfrecords.py", *shards(texts, "--ray_address", f"127.0.0.1:{closed.getsockname()[1]}"))
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "nobody answers (Connection refused)" in result.stderr and "ray start --head" in result.stderr
    assert time.monotonic() - begun < 20 and not (texts / "shards").exists()


def test_without_a_cluster_auto_is_one_line(texts, tmp_path):
    result = run("create_tfrecords.py", *shards(texts, "--ray_address", "auto"), RAY_TMPDIR=str(tmp_path))
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "--ray_address auto: no Ray cluster (Could not find any running Ray instance" in result.stderr


def test_port_of_something_else_is_one_line(monkeypatch):
    monkeypatch.setattr(ray_cluster, "PROBE_SECONDS", 3)
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(UserError, match="as Ray does"):
        ray_cluster.check(f"127.0.0.1:{other.getsockname()[1]}")


def test_without_ray_the_remedy_is_named(texts, tmp_path):
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError(name='ray')")
    result = run("create_tfrecords.py", *shards(texts, "--ray_address", "auto"), PYTHONPATH=str(tmp_path))
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "the package ray is not installed: `pip install -r requirements-ray.txt`" in result.stderr


def test_code_that_travels_to_the_workers_holds_all_that_their_jobs_import(tmp_path):
    from ray._private.runtime_env import packaging
    options = {"include_parent_dir": True, "excludes": ray_cluster.CODE["excludes"]}
    if "include_gitignore" in inspect.signature(packaging.create_package).parameters:  # not in each release of Ray
        options["include_gitignore"] = True
    for module in ray_cluster.CODE["py_modules"]:
        packed = tmp_path / "packed.zip"
        packaging.create_package(module, packed, **options)
        with zipfile.ZipFile(packed) as f:
            f.extractall(tmp_path)
        packed.unlink()
    code = ("from datasets import building\nfrom datasets.duplicates import signing\n"
            "from datasets.pages import archive_texts\nprint(building.__file__, archive_texts.__file__)")
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert result.stdout.count(str(tmp_path)) == 2, result.stderr
    assert all(name.endswith(".py") for name in contents(tmp_path) if "__pycache__" not in name)


def test_lock_of_a_worker_that_is_about_to_die_is_waited_for(tmp_path):
    path = str(tmp_path / "lock")
    holder = subprocess.Popen([sys.executable, "-c", f"import fcntl, time; f = open({path!r}, 'w'); "
                               "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(100)"],
                              stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match="another run holds"), storage.only_run(path, "wait"):
        pass
    threading.Timer(0.5, holder.kill).start()
    begun = time.monotonic()
    with storage.only_run(path, "wait", 30):
        assert 0.4 < time.monotonic() - begun < 10
    holder.communicate()
    assert not os.path.exists(path)


@pytest.fixture(scope="module")
def cluster():
    from ray import cluster_utils
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={
        "num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False, "_system_config": QUICK})
    yield cluster
    cluster.shutdown()


def kill(node):
    """The raylet and the workers that are its children, as if the machine were gone."""
    from ray._private import ray_constants
    raylet, = node.all_processes[ray_constants.PROCESS_TYPE_RAYLET]
    workers = children(raylet.process.pid)
    for pid in (raylet.process.pid, *workers):
        os.kill(pid, signal.SIGKILL)


def run_and_kill(cluster, busy, script, *arguments):
    """Runs a command on two nodes, one of which is killed as soon as `busy()`."""
    node = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    process = subprocess.Popen([sys.executable, os.path.join("datasets", script), *map(str, arguments), "--ray_address",
                                cluster.address], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: busy() or process.poll() is not None, 120)
        assert process.poll() is None, process.communicate()
        kill(node)
        output, errors = process.communicate(timeout=240)
    finally:
        process.kill()
        cluster.remove_node(node, allow_graceful=False)
    assert process.returncode == 0, output + errors
    return output


def named(folder, start):
    return [name for name in (os.listdir(folder) if folder.exists() else ()) if name.startswith(start)]


@pytest.fixture
def each(cluster, tmp_path, monkeypatch):
    """Function (function, jobs) -> (sorted results, what `advance` got in all)."""
    modules = [*ray_cluster.CODE["py_modules"], os.path.join(ROOT, "tests")]
    monkeypatch.setitem(ray_cluster.CODE, "py_modules", modules)

    def run(function, jobs):
        amounts = []
        found = list(workers.each(function, jobs, 1, str(tmp_path), amounts.append, cluster.address))
        return sorted(found), sum(amounts)
    return run


@pytest.mark.slow
def test_workers_load_no_tensorflow_and_the_processes_they_start_no_ray_either(each):
    found, amount = each(ray_jobs.look_around, [3, 5, 9])
    assert found == [(["ray"], [], os.getcwd())] * 3
    assert amount == 17


@pytest.mark.slow
def test_job_whose_worker_died_is_done_again(each, tmp_path):
    assert each(ray_jobs.die_once, [str(tmp_path / "one"), str(tmp_path / "two")])[0] == ["done", "done"]


@pytest.mark.slow
def test_job_that_kills_every_worker_is_one_line(each, monkeypatch):
    monkeypatch.setattr(ray_cluster, "RETRIES", 1)
    with pytest.raises(UserError, match=r"the cluster lost a job 2 times \(.*\): run the same command again"):
        each(ray_jobs.die, [0])


@pytest.mark.slow
def test_mistake_that_a_worker_finds_comes_back_as_it_is(each):
    with pytest.raises(UserError) as error:
        each(ray_jobs.stumble, [0])
    assert error.value.args == ("this text is ill\nin two lines",)
    with pytest.raises(OSError) as error:
        each(ray_jobs.err, [OSError(errno.ENOSPC, "No space left on device", "/a/file")])
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, "/a/file")
    with pytest.raises(ValueError, match="a bug"):  # with the worker's traceback
        each(ray_jobs.err, [ValueError("a bug")])


@pytest.mark.slow
def test_folder_that_workers_do_not_see_is_one_line(each, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_witness", lambda state: contextlib.nullcontext(
        types.SimpleNamespace(name="/no/such/folder/witness")))
    with pytest.raises(UserError, match="/no/such/folder is not there, or not the folder that the command sees"):
        each(ray_jobs.look_around, [1])


@pytest.mark.slow
def test_killed_node_leaves_the_bytes_of_the_shards_as_they_are(cluster, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    # Shards that take some tenths of a second each, so that both nodes are at work for seconds.
    options = ("--input", STDLIB, "--exclude", "site-packages", "--name", "text", "--files_per", "80")
    assert run("create_tfrecords.py", *options, "--output_dir", here, "--processes", "2").returncode == 0
    state = there / ".text.state"
    run_and_kill(cluster, lambda: sum(name.endswith(".tfrecords") for name in named(state, ".partial-")) == 2,
                 "create_tfrecords.py", *options, "--output_dir", there)
    assert contents(there) == contents(here) and len(contents(here)) > 9


@pytest.mark.slow
def test_killed_node_leaves_the_texts_as_they_are(cluster, tmp_path):
    for month in range(6):
        write_archive(tmp_path / "pages", {line: article(100 * month + line).encode() for line in range(100)},
                      f"RS_2017-0{month + 1}", "gz")
    assert run("run_newspaper_extract.py", "--input", tmp_path / "pages", "--output_dir", tmp_path / "here",
               "--processes", "2").returncode == 0
    state = tmp_path / "there" / ".extraction"
    run_and_kill(cluster, lambda: sum(name.endswith(".partial") for name in named(state, "RS")) == 2,
                 "run_newspaper_extract.py", "--input", tmp_path / "pages", "--output_dir", tmp_path / "there")
    assert not named(state, ".partial-ray")
    here, there = contents(tmp_path / "here"), contents(tmp_path / "there")
    # Of a worker that was killed its lock may be left.
    assert {name: data for name, data in there.items() if not name.endswith(".lock")} == \
        {name: data for name, data in here.items() if not name.endswith(".lock")}
    assert len(here) > 600


@pytest.mark.slow
def test_killed_node_leaves_the_list_of_duplicates_as_it_is(cluster, tmp_path):
    rng, words = random.Random(5), [f"word{i}" for i in range(3000)]
    with open(tmp_path / "texts.jsonl", "w") as f:
        text = ""
        for _ in range(12_000):
            text = text if rng.random() < 0.1 else " ".join(rng.choices(words, k=150))
            f.write(f'{{"text": "{text}"}}\n')
    options = ("--input", tmp_path / "texts.jsonl")
    assert run("dedup.py", *options, "--output", tmp_path / "here" / "drop.txt", "--processes", "2").returncode == 0
    run_and_kill(cluster, lambda: named(tmp_path / "there" / ".drop.txt.state", "signatures-"),
                 "dedup.py", *options, "--output", tmp_path / "there" / "drop.txt")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert (tmp_path / "here" / "drop.txt").read_text().count("\n") > 1000
