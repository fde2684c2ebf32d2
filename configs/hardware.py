"""What this machine has: what its processor can do, its memory, its GPUs as their driver and as TensorFlow see them.

Imports nothing but Python's own modules: tools/doctor.py tells of a machine where packages are missing, too.
"""
import functools
import json
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
from typing import NamedTuple

SECONDS = 120  # that TensorFlow gets to start
DRIVERS_OWN = "libcuda.so.1"  # comes with the driver, all other libraries with requirements-gpu.txt
_GROUPS = "/sys/fs/cgroup"
_ASK = """import json, tensorflow
config = tensorflow.config
print(json.dumps([config.experimental.get_device_details(gpu).get("device_name", gpu.name)
                  for gpu in config.list_physical_devices("GPU")]))"""
# TensorFlow 2.15 names the libraries that it does not find only at this level of detail, and says which could not be
# loaded: that one or one that it needs (tsl/platform/default/dso_loader.cc).
_LOUD = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}
_NOT_LOADED = re.compile(r"Could not load dynamic library '([^']+)'; dlerror: (?:(\S+): cannot open shared object)?")
_WARNING = re.compile(r"^\S+ [\d:.]+: [WEF] \S+\] (.*)$", re.M)
_ALWAYS_SAID = ("Unable to register cu", "TF-TRT Warning")  # by TensorFlow 2.15 on every machine
_NOT_NEEDED = "libnvinfer"  # TensorRT, which TensorFlow looks for, too; requirements-gpu.txt does not bring it


class Seen(NamedTuple):
    """TensorFlow's answer on GPUs: names of those that it can use, libraries that it lacks, its last warning."""
    gpus: list
    missing: list
    said: str


@functools.lru_cache(maxsize=None)
def features():
    """Names of the processor's instruction sets, as in /proc/cpuinfo; none where Linux does not tell them."""
    return frozenset(word for line in _lines("/proc/cpuinfo") if line.startswith("flags") for word in line.split())


def multiplies_bfloat16():
    """Whether the processor has instructions that multiply numbers in bfloat16."""
    return not features().isdisjoint({"avx512_bf16", "amx_bf16"})


def processor():
    """The name of the processor; that of its kind where Linux does not tell it."""
    return next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
                platform.machine())


def memory():
    """(bytes of memory, those that new processes can take or None where Linux does not tell them).

    A container may have less than its machine: the limits of this process' control groups count.
    """
    free = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable")]
    total = min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_group_limits()])
    return total, min(free[0], total) if free else None


def _group_limits():
    """Yields the limits of memory, in bytes, of this process' control groups and of those around them."""
    # https://man7.org/linux/man-pages/man7/cgroups.7.html: "number:controllers:path", no controllers in version 2.
    for line in _lines("/proc/self/cgroup"):
        controllers, group = line.rstrip("\n").split(":", 2)[1:]
        if controllers not in ("", "memory"):
            continue
        below = pathlib.PurePath(_GROUPS, controllers, group.lstrip("/"))
        file = "memory.limit_in_bytes" if controllers else "memory.max"
        for folder in (below, *below.parents):
            yield from (int(text) for text in _lines(folder / file) if text.strip().isdigit())  # "max": no limit


def _lines(path):
    try:
        with open(path) as f:
            return f.readlines()
    except OSError:
        return []


def driver_gpus():
    """(names of the GPUs that the NVIDIA driver has, what nvidia-smi says where it names none)."""
    said = _nvidia_smi("-L")
    names = re.findall(r"^GPU \d+: (.*?) \(UUID", said, re.M)
    return names, "" if names else " ".join(said.split())


def gpu_memory():
    """Bytes of memory of the GPU that has least of it; None where nvidia-smi does not tell."""
    said = _nvidia_smi("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    return min((int(mebibytes) << 20 for mebibytes in re.findall(r"^(\d+)$", said, re.M)), default=None)


def _nvidia_smi(*arguments):
    """What nvidia-smi prints."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, errors="replace",
                              timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "no nvidia-smi" if isinstance(error, FileNotFoundError) else f"nvidia-smi: {error}"
    return done.stdout + done.stderr


def tensorflow_gpus():
    """Seen by TensorFlow, asked in a process of its own: it says what it lacks only to who asks before it starts."""
    try:
        done = subprocess.run([sys.executable, "-c", _ASK], env={**os.environ, **_LOUD}, capture_output=True, text=True,
                              errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Seen([], [], f"nothing for {SECONDS} seconds")
    if done.returncode < 0:
        return Seen([], [], f"it ends with {signal.Signals(-done.returncode).name}")
    if done.returncode:
        return Seen([], [], (done.stderr.strip() or "nothing").splitlines()[-1])
    return Seen(json.loads(done.stdout.splitlines()[-1]), *_complaints(done.stderr))


def _complaints(log):
    """(libraries that TensorFlow needs and did not find, its last warning that says something) from its stderr."""
    missing = [needed or wanted for wanted, needed in _NOT_LOADED.findall(log) if not wanted.startswith(_NOT_NEEDED)]
    said = [line for line in _WARNING.findall(log) if not line.startswith(_ALWAYS_SAID)]
    return list(dict.fromkeys(missing)), said[-1] if said else ""


def gpus():
    """(names of the GPUs that TensorFlow can use, [the line on those that it cannot]), without TensorFlow in here.

    Asks only where the driver has a GPU, and CUDA_VISIBLE_DEVICES does not hide it: TensorFlow takes seconds.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    names = [] if hidden else driver_gpus()[0]
    if not names:
        return [], []
    seen = tensorflow_gpus()
    if seen.gpus:
        return seen.gpus, []
    why = f"it does not find {', '.join(seen.missing)}" if seen.missing else f"it says: {seen.said or 'nothing'}"
    remedy = ("`python3 tools/doctor.py` shows more" if not seen.missing else
              "repair the NVIDIA driver, which brings it" if DRIVERS_OWN in seen.missing else
              "run `pip install -r requirements-gpu.txt`")
    return [], [f"the CPU computes: nvidia-smi finds {in_words(names)}, but TensorFlow does not use it, for {why};"
                f" {remedy}"]


def in_words(names, cores=0):
    """What computes: ['NVIDIA H200'] -> 'GPU: NVIDIA H200'; no GPUs -> '2 CPU cores'."""
    if not names:
        return f"{cores} CPU core{'s' if cores > 1 else ''}"
    return f"{f'{len(names)} GPUs' if len(names) > 1 else 'GPU'}: {', '.join(dict.fromkeys(names))}"
