"""Runs all benchmarks one after the other, smaller than each does by itself, and prints a table of what they found.

The whole takes most of an hour on two cores, and up to 17 GB of memory and 5 GB of disk for a moment.  Ends with one
JSON line that holds the last line of each; status 1 where one failed.
"""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import json
import shlex
import subprocess
import sys
import tempfile
import time

from benchmarks import options
from configs import commands
from configs.errors import UserError

# name: (arguments, in which {folder} is deleted at the end; what the table shows of its JSON, * stands for any key)
BENCHMARKS = {
    "startup": ("--rounds 3", ("*.seconds", "cycles.growth_mb")),
    "data": ("--gigabytes 0.2 --rounds 3 --output_dir {folder}", ("ratio", "pipeline_mb")),
    "preparation": ("--megabytes 2 --page_count 60 --rounds 2", ("*_times_plain", "*_two_processes")),
    "dedup": ("--documents 2000 --signatures 100000 --lines 100000", ("quality.*", "memory.*")),
    "train": ("--setting 124M-4x256 small 124M-16x1024 --precision float32 bfloat16",
              ("*.ratios.*.ratio", "*.*.ours.of_limit")),
    "generate": ("--rounds 3", ("*.ratio",)),
    "scaling": ("--rounds 1 --seconds 1", ("n_layer.*.6.tokens_per_second",)),
    "memory": ("--only '24 layers, recompute'", ("*.peak",)),
    "ablation": ("--seeds 1 --only default residual_scale no_clipping --output_dir {folder}", ("val_loss.*",)),
    "shakespeare": ("--seeds 1 --text {text} --output_dir {folder}", ("mean",)),
}


def main(argv=None):
    """Prints the lines of each benchmark, the table and the JSON line; returns 0, or 1 where one failed."""
    args = _arguments(argv)
    found, rows, failed = {}, [], False
    for name in args.only:
        arguments = args.arguments.get(name, BENCHMARKS[name][0])
        if "{text}" in arguments and not args.text:
            found[name], seconds = "not measured: give the tiny Shakespeare text by --text (docs/benchmarks.md)", 0
        else:
            print(f"\n== {name} {arguments}", flush=True)
            begun = time.monotonic()
            status, found[name] = _run(name, arguments, args.text)
            seconds, failed = time.monotonic() - begun, failed or status != 0
        rows.append(f"| {name} | {seconds / 60:.1f} | {_shown(found[name], BENCHMARKS[name][1])} |")
    print("\n".join(["", "| benchmark | minutes | |", "|---|---|---|", *rows]))
    print(json.dumps(found))
    return 1 if failed else 0


def _run(name, arguments, text):
    """Runs a benchmark and passes its lines on; returns (exit status, JSON of the last line or what went wrong)."""
    with tempfile.TemporaryDirectory() as folder:
        words = [word.format(folder=folder, text=text) for word in shlex.split(arguments)]
        with subprocess.Popen([sys.executable, "-m", f"benchmarks.{name}", *words], stdout=subprocess.PIPE,
                              text=True) as process:
            line = ""
            for line in process.stdout:
                print(line, end="", flush=True)
    if process.returncode:
        return process.returncode, f"failed with status {process.returncode}"
    return 0, json.loads(line)


def _shown(found, patterns):
    """One line with what the patterns match in a JSON value."""
    if isinstance(found, str):
        return found
    values = {path: value for pattern in patterns for path, value in _matches(found, pattern.split("."))}
    return ", ".join(f"{path} {json.dumps(value)}" for path, value in values.items())


def _matches(value, pattern, path=()):
    """Yields (path, number or list) of what the pattern names; "*" is any name, "*_end" any with that end."""
    if not pattern:
        if isinstance(value, (int, float, list)):
            yield ".".join(path), value
    elif isinstance(value, dict):
        for key, below in value.items():
            if key == pattern[0] or pattern[0].startswith("*") and key.endswith(pattern[0][1:]):
                yield from _matches(below, pattern[1:], (*path, key))


def _arguments(argv):
    parser = options.parser("every", __doc__)
    parser.epilog += " " + "; ".join(f"{name}: {arguments}" for name, (arguments, _) in BENCHMARKS.items())
    add = parser.add_argument
    add("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), help="run these")
    add("--text", metavar="FILE", help="the tiny Shakespeare text; without it that benchmark is left out")
    add("--arguments", action="append", default=[], metavar="NAME=ARGUMENTS",
        help="run a benchmark with these arguments instead of those below; may be repeated")
    args = parser.parse_args(argv)
    given = [text.partition("=") for text in args.arguments]
    for name, sign, _ in given:
        if name not in BENCHMARKS or not sign:
            raise UserError(f"--arguments {name}{sign}: give NAME=ARGUMENTS with a name of {', '.join(BENCHMARKS)}")
    args.arguments = {name: arguments for name, _, arguments in given}
    return args


if __name__ == "__main__":
    commands.run(main)
