"""Runs jobs in worker processes, which report their progress and end with their parent, or on a Ray cluster."""
import contextlib
import mmap
import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import threading
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool

from configs import errors
from configs.errors import UserError
from datasets.jobs import ray_cluster

EARLY = 4  # not all of a large machine for what may be a small job
REPORT_SECONDS = 0.3


def cores():
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_arguments(parser, promise, *names):
    """Adds --processes, also called `names`, and --ray_address; `promise` says what does not depend on them."""
    parser.add_argument("--processes", *names, type=errors.at_least(1), default=cores(),
                        help=f"on this machine; {promise}")
    parser.add_argument("--ray_address", type=ray_cluster.check, metavar="ADDRESS",
                        help="run on the Ray cluster there, a job on each of its CPUs: `auto` (the one this machine "
                             "belongs to) or HOST:PORT; all paths on shared storage")


@contextlib.contextmanager
def started(processes, prepare=None, *arguments):
    """A pool of processes for `each`, or None where one process is enough.

    With `prepare`, a function that can be imported, EARLY processes start now and call it while the caller goes on;
    the others start when there are jobs.
    """
    if processes < 2:
        yield None
        return
    # Spawned, not forked: forking a process that has threads can hang.
    pool = futures.ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=tie_to_parent)
    try:
        with _deaf_to_ctrl_c():
            for _ in range(min(processes, EARLY) if prepare else 0):
                pool.submit(_call, prepare, arguments)
        yield pool
    except BrokenProcessPool:
        raise UserError("a worker died, for lack of memory perhaps: run the same command again to go on, with fewer "
                        f"--processes than {processes}")
    finally:
        for child in multiprocessing.active_children():
            child.terminate()  # idle when all went well
        pool.shutdown(cancel_futures=True)


def each(function, jobs, processes, state, advance, ray_address=None, pool=None):
    """Yields `function(job, advance)` of each job as it is done, in any order; calls `advance(amount)` now and then.

    With a `ray_address` a cluster does the jobs, all machines of which see the folder `state`.  Else they are done by
    the processes of `pool`, from `started`, or of a new one; here where one process is enough.
    """
    processes = min(processes, len(jobs))
    if ray_address and jobs:
        yield from ray_cluster.each(function, jobs, ray_address, state, advance)
    elif processes > 1:
        with contextlib.nullcontext(pool) if pool else started(processes) as pool:
            yield from _in_processes(function, jobs, pool, advance)
    else:
        yield from (function(job, advance) for job in jobs)


@contextlib.contextmanager
def _deaf_to_ctrl_c():
    """Processes that start inside never hear Ctrl-C, which would end their imports with a traceback; here it waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_processes(function, jobs, pool, advance):
    """Jobs note how much they have done in a file that all map into their memory, int64 [jobs]."""
    with tempfile.NamedTemporaryFile(buffering=0) as f:
        f.write(bytes(8 * len(jobs)))
        with _deaf_to_ctrl_c():
            waiting = {pool.submit(_run, function, job, f.name, number) for number, job in enumerate(jobs)}
        shown = 0
        while waiting:
            done, waiting = futures.wait(waiting, REPORT_SECONDS, futures.FIRST_COMPLETED)
            f.seek(0)
            so_far = sum(memoryview(f.read()).cast("q"))
            advance(so_far - shown)
            shown = so_far
            yield from (future.result() for future in done)


def _run(function, job, path, number):
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as shared, memoryview(shared).cast("q") as amounts:
        def advance(more):
            amounts[number] += more
        return function(job, advance)


def _call(function, arguments):
    """Returns nothing: a worker that is killed while it sends a large result would leave the parent waiting."""
    function(*arguments)


def tie_to_parent():
    """Leaves Ctrl-C to the parent, and ends this process when the parent ends, even by a kill."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent():
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
