"""Runs jobs on the machines of a Ray cluster; a job whose machine dies runs again elsewhere (https://docs.ray.io).

Jobs read and write files on storage that the machines share, and return only their counts.  The code travels with the
command: machines need the packages of the requirements files and no checkout.  Jobs are tasks with `max_retries`, since
`ray.util.multiprocessing.Pool` returns an error for the job of a machine that dies.
"""
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time

from configs import errors, storage
from configs.errors import UserError

RETRIES = 5  # machines that may die under one job
REPORT_SECONDS = 0.3
CONNECT_SECONDS = 5
PROBE_SECONDS = 20  # Ray tries for two minutes by itself, then ends the process
PROBE = "import ray, sys; ray.init(sys.argv[1], logging_level='ERROR', log_to_driver=False)"
HOW_TO_START = "`ray start --head --port 6379` on one machine, `ray start --address HOST:6379` on the others"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# What travels to the workers; nothing else, since a checkout may hold an environment and data of any size.
CODE = {"py_modules": [os.path.join(ROOT, name) for name in ("configs", "datasets", "encoder")],
        "excludes": ["*.json", "__pycache__"]}


def check(address):
    """Returns `address` ("auto" or "host:port"); raises UserError where no cluster answers there, within seconds."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise UserError(f"--ray_address {address}: give `auto` or HOST:PORT, such as 10.0.0.1:6379")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            raise UserError(f"--ray_address {address}: nobody answers ({error.strerror or error}): start Ray there "
                            f"({HOW_TO_START}), or give another address")
    with errors.packages_from("requirements-ray.txt"):
        import ray  # noqa: F401 (after the check that needs no seconds)
    environment = {name: value for name, value in os.environ.items() if address == "auto" or name != "RAY_ADDRESS"}
    try:
        # In a process of its own, since a wrong address would hold up this one, and then end it.
        probe = subprocess.run([sys.executable, "-c", PROBE, address], text=True, stdin=subprocess.DEVNULL,
                               capture_output=True, timeout=PROBE_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        raise UserError(f"--ray_address {address}: nothing there answers as Ray does within {PROBE_SECONDS} s: give the"
                        f" address that `ray start --head` has printed ({HOW_TO_START})")
    if probe.returncode:
        reason = (probe.stderr.strip().splitlines() or [f"status {probe.returncode}"])[-1]
        raise UserError(f"--ray_address {address}: no Ray cluster ({reason.split(': ', 1)[-1]}): start one "
                        f"({HOW_TO_START}) and run this command on one of its machines")
    return address


def each(function, jobs, address, state, advance):
    """workers.each on a cluster: one CPU a job.  `state` and all paths in the jobs are on shared storage."""
    import ray
    from ray import exceptions
    with _connected(ray, address), _witness(state) as witness:
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(),
                                                                             soft=False)
        progress = ray.remote(_Progress).options(num_cpus=0, scheduling_strategy=here).remote()
        run = ray.remote(_run).options(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")
        waiting = [run.remote(function, job, number, os.getcwd(), witness.name, progress)
                   for number, job in enumerate(jobs)]
        shown = 0
        try:
            while waiting:
                done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=REPORT_SECONDS)
                with contextlib.suppress(exceptions.RayActorError):  # the work goes on without progress
                    so_far = ray.get(progress.total.remote())
                    advance(so_far - shown)
                    shown = so_far
                for reference in done:
                    result, error = ray.get(reference)
                    if error:
                        raise error
                    yield result
        except exceptions.RayTaskError:
            raise  # our own bug, with its traceback
        except exceptions.RayError as error:
            reason = str(error).strip().split("\n")[0].split(". ")[0]
            raise UserError(f"the cluster lost a job {RETRIES + 1} times ({reason:.200}): run the same command again "
                            "to go on")


class _Progress:
    """An actor on the command's machine that knows how much each job has done; a job that runs again counts anew."""

    def __init__(self):
        self.amounts = {}

    def report(self, number, amount):
        self.amounts[number] = amount

    def total(self):
        return sum(self.amounts.values())


def _run(function, job, number, folder, witness, progress):
    """Runs in a worker; returns (`function(job, advance)`, None), or (None, an error that is not our bug)."""
    amount, due = 0, 0.0

    def advance(more):
        nonlocal amount, due
        amount += more
        if time.monotonic() > due:
            due = time.monotonic() + REPORT_SECONDS
            progress.report.remote(number, amount)
    # Else the processes that this worker starts would load Ray's main program, and Ray with it.
    vars(sys.modules["__main__"]).pop("__file__", None)
    with contextlib.suppress(OSError):
        os.chdir(folder)  # relative paths mean the same as where the command runs
    try:
        if not os.path.exists(witness):
            raise UserError(f"{socket.gethostname()}: {os.path.dirname(witness)} is not there, or not the folder that "
                            "the command sees: with --ray_address all paths must be on storage that the machines share")
        result = function(job, advance)
    except (UserError, OSError) as error:
        return None, error
    progress.report.remote(number, amount)
    return result, None


@contextlib.contextmanager
def _connected(ray, address):
    """Connects to the cluster, and hands this project's code to its workers."""
    try:
        ray.init(address, runtime_env=dict(CODE), logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"--ray_address {address}: {error}")
    try:
        yield
    finally:
        ray.shutdown()  # ends what still runs of this command


def _witness(state):
    """A file in the folder `state`: a worker that finds it sees the same folder as the command."""
    return tempfile.NamedTemporaryFile(dir=os.path.abspath(state), prefix=storage.PARTIAL + "ray-")
