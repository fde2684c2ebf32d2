"""create_tfrecords.py with its output on Google Storage, on loopback: the same bytes, restarts, refusals."""
import os
import random
import signal
import subprocess
import sys

import pytest

from configs.errors import UserError
from datasets import create_tfrecords
from encoder import bpe
from tests.datasets.test_create_tfrecords import contents, sentence
from tests.helpers.fake_gcs import FakeGCS
from tests.helpers.runs import ROOT
from tests.helpers.waiting import children, wait_until

FOLDER = "gs://bucket/data"
OPTIONS = ["--name", "a", "--files_per", "9", "--eval_fraction", "0.2", "--processes", "2"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder, numbers = tmp_path_factory.mktemp("corpus"), random.Random(2)
    for i in range(40):
        (folder / f"{i}.txt").write_text(sentence(numbers, 30 + i), encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def reference(corpus, tmp_path_factory):
    """{name: bytes} of the same data set in a local folder."""
    folder = tmp_path_factory.mktemp("reference")
    create_tfrecords.main(["--input", corpus, "--output_dir", str(folder), *OPTIONS])
    return contents(folder)


@pytest.fixture
def gcs():
    with FakeGCS() as server:
        yield server


@pytest.fixture
def start(gcs, corpus, tmp_path):
    """Function (folder on gs://, *options) -> the process, which builds in tmp_path/work."""
    def run(folder=FOLDER, *more):
        command = ["datasets/create_tfrecords.py", "--input", corpus, "--output_dir", folder, "--work_dir",
                   str(tmp_path / "work"), *OPTIONS, *more]
        return subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, env={**os.environ, **gcs.environment(),
                                                "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "0"})
    return run


def end(process):
    """(status, stdout, the last line of stderr) of a process, when it is done."""
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, (err.splitlines() or [""])[-1]


def on_storage(gcs):
    return {name: gcs.objects[f"{FOLDER}/{name}"] for name in gcs.names(FOLDER)}


def uploaded(gcs):
    """Names of the objects whose uploads have begun, in order."""
    return [request.rpartition("%2F")[2].partition("&")[0] for request in gcs.requests
            if request.startswith("POST ") and "uploadType=resumable" in request]


def test_shards_come_to_google_storage_through_failing_requests_and_the_manifest_last(gcs, start, reference, tmp_path):
    fault = gcs.fail("", 503, every=5)
    process = start()
    wait_until(lambda: list(tmp_path.glob("work/.a.state/*.complete.json")) or process.poll() is not None, 60)
    os.kill(process.pid, signal.SIGSTOP)
    maps = []
    for pid in (process.pid, *children(process.pid)):
        with open(f"/proc/{pid}/maps") as f:
            maps.append("tensorflow" in f.read())
    os.kill(process.pid, signal.SIGCONT)
    assert maps[0] and not any(maps[1:]) and len(maps) > 2  # workers do without TensorFlow
    status, out, _ = end(process)
    assert status == 0 and out.endswith(f"{FOLDER}/a.manifest.json\n") and fault.done > 3
    assert on_storage(gcs) == reference and uploaded(gcs)[-1] == "a.manifest.json"

    del gcs.objects[f"{FOLDER}/a.manifest.json"]  # as if it had been killed while it copied
    gcs.objects[f"{FOLDER}/a_1.tfrecords"] = b"cut"
    gcs.requests.clear()
    assert end(start())[0] == 0 and on_storage(gcs) == reference
    assert [name for name in dict.fromkeys(uploaded(gcs)) if "writable" not in name] == ["a_1.tfrecords",
                                                                                          "a.manifest.json"]


@pytest.mark.slow
def test_finished_output_is_left_alone_verified_and_never_replaced_by_another(gcs, start, reference, tmp_path):
    assert end(start())[0] == 0
    before = dict(gcs.objects)
    status, out, _ = end(start())
    assert status == 0 and f"{FOLDER}/a.manifest.json is finished: nothing to do" in out and gcs.objects == before
    verified = subprocess.run([sys.executable, "datasets/verify_tfrecords.py", FOLDER], cwd=ROOT, capture_output=True,
                              text=True, env={**os.environ, **gcs.environment()}, timeout=120)
    assert verified.returncode == 0 and "0 problems in" in verified.stdout
    status, out, last = end(start(FOLDER, "--work_dir", str(tmp_path / "other")))
    assert status == 2 and f"{FOLDER}/a.manifest.json is there already" in last and not out
    assert gcs.objects == before


@pytest.mark.slow
def test_vocabulary_of_ones_own_goes_along_and_another_one_there_is_refused_before_the_work(gcs, start, tmp_path):
    bpe.write(str(tmp_path / "own"), [("t", "h")])
    given = ["--encoder_path", str(tmp_path / "own")]
    assert end(start(FOLDER, *given))[0] == 0
    assert uploaded(gcs)[-3:] == ["encoder.json", "vocab.bpe", "a.manifest.json"]
    assert {name.rpartition("/")[2]: data for name, data in on_storage(gcs).items() if "encoder/" in name} == {
        path.name: path.read_bytes() for path in (tmp_path / "own").iterdir()}
    del gcs.objects[f"{FOLDER}/a.manifest.json"]
    gcs.objects[f"{FOLDER}/encoder/vocab.bpe"] = b"another"
    status, out, last = end(start(FOLDER, *given, "--work_dir", str(tmp_path / "again")))
    assert status == 2 and f"{FOLDER}/encoder holds a vocabulary that is not that in {tmp_path}/own: give" in last
    assert not out and not (tmp_path / "again").exists()


@pytest.mark.slow
@pytest.mark.parametrize("folder, status, words", [
    ("gs://wrong/data", None, "gs://wrong/data/.a.writable: Google Storage answers 404, no such bucket"),
    (FOLDER, 403, "gs://bucket/data/.a.writable: Google Storage answers 403, no permission")])
def test_folder_that_cannot_be_written_is_one_line_before_the_work(gcs, start, tmp_path, folder, status, words):
    if status:
        gcs.fail("POST", status)
    returned, out, last = end(start(folder))
    assert returned == 2 and words in last and not out and not (tmp_path / "work").exists()


@pytest.mark.parametrize("folders", [("gs://bucket/data", "gs://bucket/work"), ("data", "work")])
def test_folder_to_work_in_is_local_and_for_google_storage_alone(corpus, folders):
    with pytest.raises(UserError, match="--work_dir .*work: give a local folder, and only where --output_dir is on"):
        create_tfrecords.arguments(["--input", corpus, "--output_dir", folders[0], "--work_dir", folders[1], *OPTIONS])
