"""Work on untrusted pages in processes that can be killed: one that takes too long or crashes costs that page only.

Why processes: the time goes into C code, where neither a signal's handler nor a thread gets a word in, and some pages
take minutes.  The limit counts the time of the processor, so that a busy machine gives the same result as an idle one;
the system itself ends the process (ITIMER_PROF, setitimer(2)).  The clock ends one that waits without working.
"""
from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import time
import warnings

from configs.errors import UserError
from datasets.jobs import workers

TIMEOUT, CRASHED = "timeout", "crashed"
PATIENCE = 5  # times the limit may pass on the clock
START_SECONDS = 300  # to import the libraries, on the slowest of machines
MEMORY_BYTES = 4 << 30  # of address space; some pages would take all there is


def results(tasks, make, options, count, seconds):
    """Yields (tag, `work(data)`) for each (tag, data) of `tasks`, in any order, where `work = make(options)`.

    `make` is a function that can be imported; each of `count` processes calls it once, data are bytes.  In place of a
    result stands (TIMEOUT, None) where `work` took more than `seconds`, (CRASHED, None) where its process died.
    """
    pool = [_Worker(make, options, seconds) for _ in range(count)]
    try:
        for tag, data in tasks:
            while all(worker.busy for worker in pool):
                yield from _collect(pool)
            next(worker for worker in pool if not worker.busy).begin(tag, data)
        while any(worker.busy for worker in pool):
            yield from _collect(pool)
    finally:
        for worker in pool:
            worker.kill()


def _collect(pool):
    """Waits until a worker has finished or is overdue; yields what there is."""
    busy = [worker for worker in pool if worker.busy]
    patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
    ready = multiprocessing.connection.wait([worker.connection for worker in busy], patience)
    for worker in busy:
        # A result that came while the tasks were read is a result, however late it is seen.
        if worker.connection in ready:
            yield worker.finish()
        elif time.monotonic() > worker.deadline:
            yield worker.give_up()


class _Worker:
    """A process that does one task at a time; after it died, the next task gets a new one."""

    def __init__(self, make, options, seconds):
        self.make, self.options, self.seconds = make, options, seconds
        self.process = self.connection = None
        self.tag, self.busy, self.deadline = None, False, 0.0

    def begin(self, tag, data):
        if self.process is not None and not self.process.is_alive():
            self.kill()  # it died while it was idle, which is not the fault of this page
        if self.process is None:
            self._start()
        self.tag, self.busy, self.deadline = tag, True, time.monotonic() + PATIENCE * self.seconds
        with contextlib.suppress(OSError):  # it died just now; `finish` will see that
            self.connection.send_bytes(data)

    def finish(self):
        """(tag, result) after the connection became ready."""
        try:
            result = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            result = (TIMEOUT if self.process.exitcode == -signal.SIGPROF else CRASHED), None
            self.kill()
        self.busy = False
        return self.tag, result

    def give_up(self):
        self.kill()
        self.busy = False
        return self.tag, (TIMEOUT, None)

    def kill(self):
        if self.process is not None:
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
        theirs.close()  # so that its death is the end of ours
        try:
            if not self.connection.poll(START_SECONDS):
                raise EOFError
            self.connection.recv_bytes()
        except (EOFError, OSError):
            self.kill()
            raise UserError("a worker for pages does not start: look above for its error, and install requirements.txt")


def _serve(connection, make, options, seconds):
    """The process: gets data, sends results, until the other end is closed."""
    workers.enter()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory()
    logging.disable(logging.CRITICAL)  # the libraries complain about every other page
    warnings.simplefilter("ignore")
    work = make(options)
    connection.send_bytes(b"ready")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # from here on what is said is about pages
    while True:
        try:
            data = connection.recv_bytes()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, seconds)
        result = work(data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send(result)


def _limit_memory():
    _, highest = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if highest == resource.RLIM_INFINITY else min(MEMORY_BYTES, highest)
    resource.setrlimit(resource.RLIMIT_AS, (limit, highest))
