"""datasets/pages/page_processes.py: whatever a page does to its worker, it costs that page only."""
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from configs.errors import UserError
from datasets.pages import page_processes
from tests.helpers.waiting import wait_until_gone

ROOT = pathlib.Path(__file__).parents[3]  # not that of tests.helpers.runs: every process would load TensorFlow
SECONDS = 0.2
BAD = {b"sleep": page_processes.TIMEOUT, b"spin": page_processes.TIMEOUT, b"spin in C": page_processes.TIMEOUT,
       b"segfault": page_processes.CRASHED, b"exit": page_processes.CRASHED, b"memory": page_processes.CRASHED}


def make(options):
    """A function that misbehaves on demand, each in a way that pages have shown."""
    def work(data):
        if data == b"sleep":
            time.sleep(1000)
        elif data == b"spin":
            while True:
                pass
        elif data == b"spin in C":
            re.match(r"(a+)+$", "a" * 60 + "b")  # centuries in which no other Python code runs
        elif data == b"segfault":
            ctypes.string_at(0)
        elif data == b"exit":
            os._exit(3)
        elif data == b"memory":
            bytes(2 * page_processes.MEMORY_BYTES)
        return "kept", options + data.decode()
    return work


def fail(options):
    raise RuntimeError(options)


def run(tasks, count):
    return sorted(page_processes.results(((data, data) for data in tasks), make, "page ", count, SECONDS))


@pytest.mark.parametrize("count", [1, 2])
def test_pages_that_hang_or_crash_are_counted_and_the_rest_goes_on(count):
    tasks = [b"0", *BAD, b"1", b"2"] if count == 2 else [b"0", b"spin", b"1"]
    start = time.monotonic()
    found = dict(run(tasks, count))
    assert found.keys() == set(tasks)
    for task in tasks:
        assert found[task] == ((BAD[task], None) if task in BAD else ("kept", "page " + task.decode()))
    assert time.monotonic() - start < 30


def test_a_process_that_dies_between_two_pages_harms_neither():
    process = page_processes._Process(make, "page ", SECONDS)
    try:
        process.begin(1, b"a")
        assert process.finish() == (1, ("kept", "page a"))
        os.kill(process.process.pid, signal.SIGKILL)
        process.process.join()
        process.begin(2, b"b")
        assert process.finish() == (2, ("kept", "page b"))
    finally:
        process.kill()


def test_a_result_that_waits_while_tasks_are_slow_to_come_is_no_timeout():
    def tasks():
        yield 1, b"a"
        time.sleep(SECONDS * page_processes.PATIENCE + 0.5)
        yield 2, b"b"
    assert sorted(page_processes.results(tasks(), make, "", 1, SECONDS)) == [(1, ("kept", "a")), (2, ("kept", "b"))]


def test_no_more_pages_are_taken_than_there_are_processes():
    taken, done = [], 0
    for _ in page_processes.results(((taken.append(i), b"x") for i in range(20)), make, "", 2, SECONDS):
        assert len(taken) - done <= 2 + 1
        done += 1
    assert done == 20


def test_large_pages_and_results_pass():
    data = b"x" * 5_000_000
    assert list(page_processes.results([(1, data)], make, "", 1, 20)) == [(1, ("kept", data.decode()))]


def test_a_process_that_cannot_start_is_an_error(capfd):
    with pytest.raises(UserError, match="does not start"):
        list(page_processes.results([(1, b"")], fail, "no such library", 1, SECONDS))
    assert "no such library" in capfd.readouterr().err


@pytest.mark.parametrize("page", ["sleep", "spin in C"])
def test_processes_end_with_their_parent_even_in_the_middle_of_a_page(page):
    code = ("from datasets.pages import page_processes\nfrom tests.datasets.pages import test_page_processes\n"
            f"def tasks():\n yield 1, b'{page}'\n"
            " print(workers()[0], flush=True)\n import time; time.sleep(100)\n"
            "def workers():\n import multiprocessing; return [c.pid for c in multiprocessing.active_children()]\n"
            "if __name__ == '__main__':\n"
            " list(page_processes.results(tasks(), test_page_processes.make, '', 1, 100))\n")
    run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    worker = int(run.stdout.readline())
    time.sleep(0.5)  # so that it is at work
    run.kill()
    run.wait()
    wait_until_gone([worker])
    run.stdout.close()
