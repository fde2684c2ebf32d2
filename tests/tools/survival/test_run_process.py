"""tools/survival/run_process.py: one run at a time, whoever asks, and no waiting for its output."""
import os
import signal
import sys
import time

import pytest

from tools.survival import run_process

STEP = r"^step +(\d+)/"


@pytest.fixture
def folder(tmp_path):
    """A folder whose run is killed in the end."""
    yield str(tmp_path)
    run = run_process.RunProcess(str(tmp_path), STEP)
    if run.running():
        run.stop(0)
        time.sleep(0.01)
        run.stop(0)


def program(text):
    return [sys.executable, "-u", "-c", text]


def until(condition):
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_run_is_known_to_whoever_looks_and_is_not_started_twice(folder):
    mine = run_process.RunProcess(folder, STEP)
    mine.start(program("import time; print('step  7/9'); time.sleep(60)"))
    other = run_process.RunProcess(folder, STEP)
    assert mine.running() and other.running()
    other.start(program("print('step 8/9')"))
    until(lambda: other.read_output() or other.step)
    assert other.step == 7
    other.stop(5)
    until(lambda: not other.running())
    assert not mine.running() and mine.exit_status == 128 + signal.SIGTERM
    assert other.exit_status is None  # it was not its own


@pytest.mark.parametrize("text, status", [("pass", 0), ("raise SystemExit(2)", 2),
                                          ("import os; os.kill(os.getpid(), 9)", 128 + 9)])
def test_the_exit_status_is_known_of_a_run_that_was_started_here(folder, text, status):
    run = run_process.RunProcess(folder, STEP)
    run.start(program(text))
    until(lambda: not run.running())
    assert run.exit_status == status


def test_a_command_that_does_not_exist_ends_at_once_and_says_so(folder):
    run = run_process.RunProcess(folder, STEP)
    run.start(["/no/such/command"])
    until(lambda: not run.running())
    assert run.exit_status in (126, 127) and "/no/such/command" in run.last_line()


def test_one_that_does_not_heed_the_signal_is_killed_with_its_children_when_the_time_is_over(folder):
    run = run_process.RunProcess(folder, STEP)
    run.start(program("import signal, subprocess, sys, time\n"
                      "signal.signal(15, signal.SIG_IGN)\n"
                      "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], close_fds=False)\n"
                      "print('step 1/2')\ntime.sleep(60)"))
    until(lambda: run.read_output() or run.step)
    begun = time.monotonic()
    run.stop(0.3)
    time.sleep(0.2)
    run.stop(0.3)
    assert run.running()
    until(lambda: run.stop(0.3) or not run.running())
    assert 0.3 <= time.monotonic() - begun < 5 and run.exit_status == 128 + signal.SIGKILL


def test_only_a_new_step_is_a_sign_of_life(folder):
    run = run_process.RunProcess(folder, STEP)
    run.start(program("import time\nfor line in ['step 1/9', 'waiting', 'step 1/9']:\n    print(line)\n"
                      "    time.sleep(0.05)\nprint('step 2/', end='')\ntime.sleep(0.2)\nprint('9')"))
    changes = {(run.step, run.step_time)}  # before the first look, which may come late
    until(lambda: run.read_output() or changes.add((run.step, run.step_time)) or not run.running())
    run.read_output()
    changes.add((run.step, run.step_time))
    assert [step for step, _ in sorted(changes)] == [0, 1, 2]  # one time each, and no half line


def test_output_that_nobody_reads_does_not_stop_it(folder):
    run = run_process.RunProcess(folder, STEP)
    run.start(program("print('x' * 3_000_000)\nprint('step 5/5')"))
    until(lambda: not run.running())
    assert run.exit_status == 0 and os.path.getsize(run.output) > 3_000_000
    run.read_output()
    assert run.step == 5 and run.last_line() == "step 5/5"
