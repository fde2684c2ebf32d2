"""Processes that take turns, and what one takes by itself."""
import os
import subprocess
import sys

import pytest

from benchmarks import machine, turns
from configs.errors import UserError
from tests.helpers import waiting
from tests.helpers.runs import ROOT

COUNTING = ("import sys; from benchmarks import turns; mine, count = turns.Turns(), 0\n"
            "while mine.wait():\n    count += 1; print('noise'); mine.answer(count * int(sys.argv[1]))\n"
            "mine.answer('over')")


def test_processes_take_turns_and_the_last_answer_comes_at_their_end():
    with turns.process("one", ["-c", COUNTING, "1"], folder=ROOT) as one, \
            turns.process("other", ["-c", COUNTING, "10"], folder=ROOT) as other:
        assert [turn() for turn in (one, other, other, one)] == [1, 10, 20, 2]
    assert one.last == other.last == "over"


def test_a_process_that_ends_early_is_named_whenever_it_ended():
    with pytest.raises(UserError, match="failing ended early with status 3; see above"), \
            turns.process("failing", ["-c", "raise SystemExit(3)"]) as failing:
        failing()
    with pytest.raises(UserError, match="one ended early with status 4"), \
            turns.process("one", ["-c", "input(); print(1, flush=True); raise SystemExit(4)"]) as one:
        assert one() == 1
        waiting.wait_until(lambda: not waiting.children(os.getpid()) or not all(
            map(waiting.alive, waiting.children(os.getpid()))))
        one()


def test_a_process_that_takes_turns_dies_with_its_parent():
    child = ("import os, time; from benchmarks import turns; mine = turns.Turns()\n"
             "mine.wait(); mine.answer(os.getpid()); time.sleep(60)")
    parent = ("import sys; from benchmarks import turns\nwith turns.process('child', sys.argv[1:]) as turn:\n"
              "    print(turn(), flush=True); sys.stdin.read()\n")
    with subprocess.Popen([sys.executable, "-c", parent, "-c", child], text=True, cwd=ROOT, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        assert waiting.alive(child)
        process.kill()
    waiting.wait_until_gone([child])


def test_a_command_is_measured_with_what_it_started_and_not_with_what_started_it(capfd):
    large = bytearray(3 * 10**8)  # of this process, whose children would count as so large
    code = "x = bytearray({}); print(len(x))"
    starter = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code.format(10**8)!r}])"
    used = machine.run([sys.executable, "-c", starter])
    assert used.output == str(10**8) and 10**8 < used.peak < 2 * 10**8 < len(large)
    assert used.cpu > 0 and 0 < used.seconds < 60
    with pytest.raises(UserError, match="ended with status 5; buy more memory"):
        machine.run([sys.executable, "-c", "import sys; print('the reason', file=sys.stderr); sys.exit(5)"],
                    "buy more memory")
    assert "the reason" in capfd.readouterr().err
