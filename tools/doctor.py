"""What this machine has for a run, in a block to paste into a report: Python, TensorFlow, processor, memory, GPUs, TPU.

Works with a bare Python, too, and then says what is missing.
"""
import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

import glob
import platform
import shutil
from importlib import metadata

from configs import commands, errors, hardware
from datasets.jobs import workers

# What a run is faster by, and the names by which Linux calls it: any of them will do.
FEATURES = {"AVX2": {"avx2"}, "AVX-512": {"avx512f"}, "bfloat16": {"avx512_bf16", "amx_bf16"}, "AMX": {"amx_tile"}}


def main(argv=None):
    """Prints the block; returns the exit status."""
    errors.script_parser(__doc__).parse_args(argv)
    for name, value in rows():
        print(f"{name:<20}{value}", flush=True)
    return 0


def rows():
    """Yields (name, value) of each line."""
    where = "a virtual environment" if sys.prefix != sys.base_prefix else "no virtual environment"
    yield "Python", f"{platform.python_version()}, {where}"
    yield "TensorFlow", _version("tensorflow")
    yield "system", platform.platform()
    features = [f"{name} {'yes' if words & hardware.features() else 'no'}" for name, words in FEATURES.items()]
    yield "processor", f"{hardware.processor()}: {', '.join(features) if hardware.features() else 'features unknown'}"
    yield "cores", f"{workers.cores()} of {os.cpu_count()}"
    total, free = hardware.memory()
    yield "memory", _gigabytes(total) + (f", of which {_gigabytes(free)} are free" if free is not None else "")
    yield "disk", f"{_gigabytes(shutil.disk_usage('.').free)} free here"
    names, said = hardware.driver_gpus()
    yield "GPU, by its driver", hardware.in_words(names) if names else f"none ({said})"
    yield "GPU, by TensorFlow", _seen()
    chips = len(glob.glob("/dev/accel[0-9]*"))
    yield "TPU", f"{chips} chips: --tpu local" if chips else "no /dev/accel*; main.py asks for the TPU of --tpu NAME"
    yield "vocabulary", _vocabulary()


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return f"not installed: {errors.SET_UP}"


def _seen():
    """What TensorFlow says of GPUs, and that it starts at all."""
    seen = hardware.tensorflow_gpus()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    parts = [hardware.in_words(seen.gpus) if seen.gpus else "none", *(f"lacks {name}" for name in seen.missing)]
    parts += [f"says: {seen.said}"] if seen.said else []
    return "; ".join(parts + ([] if hidden is None else [f"CUDA_VISIBLE_DEVICES is {hidden!r}"]))


def _vocabulary():
    try:
        from encoder import bpe
        return f"GPT-2's, {bpe.load(None).size:,} tokens"
    except ModuleNotFoundError as error:
        return errors.without(error.name)
    except errors.UserError as error:
        return str(error)


def _gigabytes(size):
    return f"{size / 1e9:.1f} GB"


if __name__ == "__main__":
    commands.run(main)
