"""Jobs for the tests of datasets/jobs/ray_cluster.py, which its workers import."""
import multiprocessing
import os
import signal
import sys

from configs.errors import UserError


def look_around(job, advance):
    """(heavy modules loaded here, those in a process started here, is the folder that of the command?)."""
    advance(job)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send_modules, args=(theirs,))
    process.start()
    found = ours.recv()
    process.join()
    return _heavy(), found, os.getcwd()


def _heavy():
    return sorted({"ray", "tensorflow"} & set(sys.modules))


def _send_modules(connection):
    connection.send(_heavy())


def die_once(job, advance):
    """Kills its worker the first time, which leaves a file."""
    try:
        open(job, "x").close()
    except FileExistsError:
        return "done"
    os.kill(os.getpid(), signal.SIGKILL)


def die(job, advance):
    os.kill(os.getpid(), signal.SIGKILL)


def err(job, advance):
    raise job


def stumble(job, advance):
    raise UserError("this text is ill\nin two lines")
