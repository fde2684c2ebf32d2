"""A run that an older version of the code began goes on: tests/data/run-of-72538ae.tar.xz.

Commit 72538ae wrote all that is in it: a vocabulary, two sets of shards (one with its manifest, the other scanned, with
its caches), a config with dropout and micro-batches, and a model_dir that a signal left at step 6 of 12.  Beside them
stand what the same code did then: `steps.txt` with the loss and a hash of the batch of steps 1 to 12 (as
tools/verify_resume.py notes them), and the weights of step 12.
"""
import json
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from tests.helpers.runs import ROOT, weights_of

ARCHIVE = os.path.join(ROOT, "tests", "data", "run-of-72538ae.tar.xz")


def notes(path):
    """{step: (loss, hash of the batch)}"""
    with open(path) as f:
        return {int(step): (float.fromhex(loss), batch) for step, loss, batch in map(str.split, f)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the run, after the present code has gone on with it."""
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder)
    caches = sorted((folder / "data").glob("*.scan.json"))
    for cache in caches:  # of a file as it was: the archive does not keep nanoseconds
        changed = json.loads(cache.read_text())["state"][1]
        os.utime(str(cache).replace(".scan.json", ".tfrecords"), ns=(changed, changed))
    times = [cache.stat().st_mtime_ns for cache in caches]
    result = subprocess.run([sys.executable, os.path.join(ROOT, "tools", "verify_resume.py"), "--model", "config.json",
                             "--record", "now.txt"], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "continuing run at step 6 of 12" in result.stdout and "warning" not in result.stdout
    assert times == [cache.stat().st_mtime_ns for cache in caches]  # believed, not made again
    return folder


def test_it_goes_on_with_the_same_batches_dropout_and_losses(folder):
    before, now = notes(folder / "steps.txt"), notes(folder / "now.txt")
    assert sorted(now) == [7, 8, 9, 10, 11, 12]
    for step, (loss, batch) in now.items():
        assert batch == before[step][1], step
        assert loss == pytest.approx(before[step][0], rel=1e-5), step  # other noise would change the third digit


def test_it_ends_with_the_same_weights_to_rounding(folder):
    expected, found = np.load(folder / "weights_at_12.npz"), weights_of(folder / "run", 12)
    assert len(expected.files) == 28
    for name in expected.files:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=2e-5, err_msg=name)
