"""Hostile inputs, many of every kind.

    python3 -m tests.fuzz --inputs 20000 --seed 1
    python3 -m tests.fuzz --kinds safetensors archive --inputs 500
    python3 -m tests.fuzz --kinds safetensors --number 17 --seed 1 --keep /tmp/x     # one again, its files left there

Its last lines are a table, of whose sums benchmarks/RESULTS.md tells.
"""
import argparse
import collections
import faulthandler
import os
import resource
import sys
import tempfile
import time

from configs import storage
from tests.fuzz import driver, kinds

MOST_SHOWN = 5  # faults of one cause
MEMORY = 8 << 30  # bytes beyond what the program takes at its start


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python3 -m tests.fuzz", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--inputs", type=int, default=20_000, help="of all kinds together")
    add("--seed", type=int, default=1)
    add("--kinds", nargs="+", choices=[*kinds.KINDS], default=[*kinds.KINDS])
    add("--number", type=int, help="only the input of this number of each kind")
    add("--keep", metavar="FOLDER", help="where the files of the last input of each kind stay")
    args = parser.parse_args(argv)
    storage.silence_tensorflow()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    resource.setrlimit(resource.RLIMIT_AS, (_virtual() + MEMORY, resource.RLIM_INFINITY))
    driver.say(f"seed {args.seed}, {args.inputs:,} inputs of {len(args.kinds)} kinds")
    each, results, shown = -(-args.inputs // len(args.kinds)), [], collections.Counter()
    numbers = range(each) if args.number is None else [args.number]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        for name in args.kinds:
            begun = time.monotonic()
            inputs = driver.Inputs(kinds.KINDS[name], os.path.join(args.keep or scratch, name), args.seed)
            for number in numbers:
                # What neither ends nor lets Python look at signals ends the program here, with its traceback.
                faulthandler.dump_traceback_later(6 * driver.SECONDS, exit=True)
                results.append(driver_result := inputs.try_one(number))
                cause = (name, driver_result.words.split("(")[-1])
                if driver_result.outcome == driver.FAULT:
                    shown[cause] += 1
                if (driver_result.outcome == driver.FAULT and shown[cause] <= MOST_SHOWN) or args.number is not None:
                    driver.say(f"{name} {number}: {driver_result.outcome} {driver_result.words}")
            driver.say(f"{name}: {len(numbers)} in {time.monotonic() - begun:.1f} s")
    faulthandler.cancel_dump_traceback_later()
    driver.say(driver.table(results))
    return int(any(result.outcome == driver.FAULT for result in results))


def _virtual():
    """Bytes of address space that this process has."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
