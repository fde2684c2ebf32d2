"""What the machine is, and how much memory a process takes, as Linux tells it."""
import platform


def processor():
    """The name of the processor."""
    with open("/proc/cpuinfo") as f:
        return next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.machine())


def resident(key, pid="self"):
    """Bytes of a process: VmRSS in use now, VmHWM the most so far."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(key))
