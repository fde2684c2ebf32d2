"""What the machine is, how fast it reads memory, and how much memory and time a process takes, as Linux tells it."""
import json
import mmap
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import NamedTuple

import numpy as np

from configs import hardware
from configs.errors import UserError
from datasets.jobs import workers

READ = 2**28  # bytes that the bandwidth is measured on: far more than any cache holds
FRESH = 2**31  # bytes that `first_touch` asks for
# A process counts as at least as large as the one that starts it (getrusage(2)), so this small one starts it.
_STARTER = """import json, resource, subprocess, sys, time
begun = time.monotonic()
status = subprocess.run(sys.argv[1:]).returncode
seconds, used = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))"""


def described(*packages):
    """Cores, processor, load, and the versions of Python and of these packages, in one line."""
    versions = [f"{name} {version(name.lower())}" for name in packages]
    return ", ".join([f"{workers.cores()} cores of {hardware.processor()}", f"load {os.getloadavg()[0]:.1f}",
                      f"Python {platform.python_version()}", *versions])


def use_cores(count):
    """Keeps this process, and those that it starts, to the last `count` of its cores; 0: to all."""
    if count:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])


def one_core():
    """The environment of a process that trains on one core of a CPU, as one of several at once."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    return {**os.environ, **threads, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}


def resident(key, pid="self"):
    """Bytes of a process in memory: with the key VmRSS those in use now, with VmHWM the most so far."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(key))


def forget_peak():
    """Starts VmHWM of this process anew."""
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")


def read_bandwidth():
    """Bytes a second that all cores together read from memory: the best of three passes."""
    data = np.ones(READ // 4, np.float32)
    cores = workers.cores()
    seconds = []
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(3):
            begun = time.monotonic()
            list(pool.map(lambda part: np.dot(part, part), np.array_split(data, cores)))
            seconds.append(time.monotonic() - begun)
    return data.nbytes / min(seconds)


def first_touch():
    """Bytes a second at which a process gets memory that it has not had before.

    Where the host of a virtual machine takes back what is free, that may be a hundredth of memory's own speed.
    """
    with mmap.mmap(-1, FRESH) as memory:
        begun = time.monotonic()
        for start in range(0, FRESH, mmap.PAGESIZE):
            memory[start] = 1
        return FRESH / (time.monotonic() - begun)


class Usage(NamedTuple):
    """What a command took, with the processes that it waited for; `peak` is that of the largest one."""
    seconds: float
    cpu: float  # seconds
    peak: int  # bytes
    output: str


def run(command, remedy="see above", **options):
    """Runs the command to its end and returns its Usage; shows its errors and raises UserError where it fails."""
    done = subprocess.run([sys.executable, "-c", _STARTER, *command], capture_output=True, text=True, **options)
    output, _, last = done.stdout.rstrip("\n").rpartition("\n")
    status, seconds, cpu, peak = json.loads(last)
    if status:
        sys.stderr.write(done.stderr)
        raise UserError(f"{' '.join(command)} ended with status {status}; {remedy}")
    return Usage(seconds, cpu, peak, output)
