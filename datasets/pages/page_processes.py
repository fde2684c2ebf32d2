"""Works on untrusted pages in processes with limits: a page that takes too long or crashes costs only itself.

Libraries spend minutes on some pages, in C code that neither a signal's handler nor a thread can interrupt.  The limit
counts processor time, so that a busy machine gives the same result as an idle one; the system itself ends the process
(ITIMER_PROF, setitimer(2)).  The clock ends one that waits without working.

Pebble's ProcessPool (5.2.1) breaks when a worker dies between two pages, leaves the semaphores of a stopped command
behind, with a warning, and takes half as much processor time again for each small page.
"""
import contextlib
import ctypes
import logging
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import sys
import time
import warnings

from configs.errors import UserError
from datasets.jobs import workers

TIMEOUT, CRASHED = "timeout", "crashed"
PATIENCE = 5  # times the limit may pass on the clock
START_SECONDS = 300  # to import the libraries, on the slowest of machines
PR_SET_PDEATHSIG = 1  # prctl(2)
MEMORY_BYTES = 4 << 30  # of address space; some pages would take all there is


def results(pages, make, options, count, seconds):
    """Yields (tag, `work(data)`) for each (tag, data) of `pages`, in any order, where `work = make(options)`.

    `make` is a function that can be imported; each of `count` processes calls it once.  Data are bytes.  A page gives
    (TIMEOUT, None) where `work` takes more than `seconds`, and (CRASHED, None) where its process dies.
    """
    pool = [_Process(make, options, seconds) for _ in range(count)]
    try:
        for tag, data in pages:
            while all(process.busy for process in pool):
                yield from _next_results(pool)
            next(process for process in pool if not process.busy).begin(tag, data)
        while any(process.busy for process in pool):
            yield from _next_results(pool)
    finally:
        for process in pool:
            process.kill()


def _next_results(pool):
    """Waits until a process has finished or is overdue; yields what there is."""
    busy = [process for process in pool if process.busy]
    patience = max(0.0, min(process.deadline for process in busy) - time.monotonic())
    ready = multiprocessing.connection.wait([process.connection for process in busy], patience)
    for process in busy:
        if process.connection in ready or time.monotonic() > process.deadline:
            yield process.finish()


class _Process:
    """Works on one page at a time; after a death the next page gets a new process."""

    def __init__(self, make, options, seconds):
        self.make, self.options, self.seconds = make, options, seconds
        self.process, self.busy = None, False

    def begin(self, tag, data):
        if self.process and not self.process.is_alive():
            self.kill()  # it died while it was idle, which is not the fault of this page
        if not self.process:
            self._start()
        self.tag, self.busy, self.deadline = tag, True, time.monotonic() + PATIENCE * self.seconds
        with contextlib.suppress(OSError):  # it died just now; `finish` will see that
            self.connection.send_bytes(data)

    def finish(self):
        """(tag, result), for which it waits until the deadline; a result that is there by now counts in any case."""
        self.busy, outcome = False, TIMEOUT
        try:
            if self.connection.poll(max(0.0, self.deadline - time.monotonic())):
                return self.tag, self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            if self.process.exitcode != -signal.SIGPROF:
                outcome = CRASHED
        self.kill()
        return self.tag, (outcome, None)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.process = None

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.make, self.options, self.seconds), daemon=True)
        process.start()
        self.process = process  # not before: Ctrl-C may come in between
        theirs.close()  # so that the connection ends when the process does
        with contextlib.suppress(EOFError, OSError):
            if self.connection.poll(START_SECONDS) and self.connection.recv_bytes():
                return
        self.kill()
        raise UserError("a process for pages does not start: look above for its error, and `pip install -r "
                        "requirements-data.txt`")


def _serve(connection, make, options, seconds):
    """Runs in the process: receives pages and sends results until the other end is closed."""
    workers.tie_to_parent()
    if sys.platform == "linux":  # the parent's death is noticed even while C code keeps all of Python's threads waiting
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, highest = resource.getrlimit(resource.RLIMIT_AS)
    memory = MEMORY_BYTES if highest == resource.RLIM_INFINITY else min(MEMORY_BYTES, highest)
    resource.setrlimit(resource.RLIMIT_AS, (memory, highest))
    logging.disable(logging.CRITICAL)  # the libraries complain about every other page
    warnings.simplefilter("ignore")
    work = make(options)
    connection.send_bytes(b"ready")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # from here on messages are about pages
    while True:
        try:
            data = connection.recv_bytes()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, seconds)
        result = work(data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send(result)
