"""What the machine is, how much memory a process takes, as Linux tells it, and how fast memory is read."""
import platform
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from datasets.jobs import workers

READ = 2**28  # bytes that the bandwidth is measured on: far more than any cache holds


def processor():
    """The name of the processor."""
    with open("/proc/cpuinfo") as f:
        return next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.machine())


def resident(key, pid="self"):
    """Bytes of a process: VmRSS in use now, VmHWM the most so far."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(key))


def forget_peak():
    """From here on VmHWM is the most since now."""
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
