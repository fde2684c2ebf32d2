"""A call that fails costs no more than its command: a sample of what tests/faults/sweep.py tries as a whole.

FAULT_SEED=N chooses other cases, FAULT_CASES=N how many there are of each command.
"""
import os

import pytest

from tests.faults import shim, sweep
from tests.faults.commands import COMMANDS

SEED = int(os.environ.get("FAULT_SEED") or 1)
CASES = int(os.environ.get("FAULT_CASES") or 2)
pytestmark = pytest.mark.skipif(not shim.compiler(), reason="needs Linux and a C compiler")


def faults(name, cases, folder):
    with sweep.Sweep(COMMANDS[name], folder) as made:
        found = [made.case(*case) for case in sweep.chosen(made, sample=cases, seed=SEED)]
    assert len(found) == cases
    return [str(case) for case in found if case.verdict == sweep.FAULT]


@pytest.mark.parametrize("name", ["vocabulary", "create_tfrecords"])
def test_calls_fail_one_by_one_and_each_time_the_command_says_so_and_goes_on(name, tmp_path):
    print(f"FAULT_SEED={SEED}")
    assert not faults(name, 3, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_more_calls_of_every_command_fail_one_by_one(name, tmp_path):
    print(f"FAULT_SEED={SEED}")
    assert not faults(name, CASES, tmp_path)


def test_a_call_of_every_kind_fails_when_it_is_its_turn(tmp_path):
    """So that no test above passes because nothing failed."""
    (tmp_path / "here").mkdir()
    with shim.Runner(tmp_path / "shim", ["tests.faults.calls"]) as runner:
        whole = runner.run("tests.faults.calls", [], tmp_path / "here")
        assert whole.status == 0 and [call.name for call in whole.calls] == [
            "open64", "write", "pwrite64", "fsync", "pread64", "rename", "fopen", "fwrite", "fflush", "fclose",
            "openat", "open", "read", "sendfile"]
        for call in whole.calls:
            outcome = runner.run("tests.faults.calls", [], tmp_path / "here", number=call.number, error=shim.BROKEN)
            assert outcome.status == 2 and f"{call.name}: Input/output error" in outcome.err, (call, outcome)
        outcome = runner.run("tests.faults.calls", [], tmp_path / "here", number=2, error=shim.FULL, lasts=True)
        assert outcome.status == 2 and "No space left on device" in outcome.err
