"""Measures what has a peer or a bound, smaller than each benchmark does by itself, and prints one table of it.

The whole takes 40 minutes on two idle cores of a slow machine; it needs up to 17 GB of memory and 5 GB of disk for a
moment.  Ends with one JSON line: date, machine, minutes, {subject: [ours, the peer, ratio]}, and what failed; status 1
where something did.
"""
from __future__ import annotations

if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import json
import shlex
import subprocess
import sys
import tempfile
import time
from typing import Callable, NamedTuple

from benchmarks import generate, machine, options, records, shakespeare, startup, train
from configs import commands, errors
from configs.errors import UserError

HEAD = "| | ours | the peer | ratio | wanted |\n|---|---|---|---|---|"
BEST = "best"  # of a side, in whichever precision
RECORDS = "every"


class Row(NamedTuple):
    """A line of the table; ours and the peer's in the unit that the subject names."""
    subject: str
    ours: float | None = None
    peer: float | None = None
    peer_name: str = ""
    ratio: float | None = None
    wanted: str = ""


class Benchmark(NamedTuple):
    module: str
    arguments: str  # {folder} is deleted at the end
    rows: Callable  # JSON of its last line -> its Rows


def main(argv=None):
    """Prints the lines of each benchmark, the table and the JSON line; returns 0, or 1 where one failed."""
    args = _arguments(argv)
    with errors.packages_from("requirements-dev.txt"):
        described = machine.described("TensorFlow", "torch", "transformers", "tiktoken", "tokenizers")
    rows, minutes, failed = [], {}, {}
    for name in args.only:
        benchmark, arguments = BENCHMARKS[name], args.arguments.get(name, BENCHMARKS[name].arguments)
        if "{text}" in arguments and not args.text:
            print(f"{name}: not measured; give the tiny Shakespeare text by --text (docs/benchmarks.md)")
            continue
        print(f"\n== {name}: {benchmark.module} {arguments}", flush=True)
        begun = time.monotonic()
        status, found = _run(benchmark.module, arguments, args.text)
        minutes[name] = round((time.monotonic() - begun) / 60, 1)
        if status:
            failed[name] = f"failed with status {status}"
        else:
            rows += benchmark.rows(found)
    result = {"date": time.strftime("%Y-%m-%d"), "machine": described, "minutes": minutes,
              "found": {row.subject: [row.ours, row.peer, row.ratio] for row in rows}, "failed": failed}
    if args.record:
        records.append(RECORDS, {"script": "benchmarks.every", **result})
    print(f"\n{result['date']}, {described}; {sum(minutes.values()):.0f} minutes")
    print("\n".join(["", HEAD, *map(_line, rows), ""]))
    print(json.dumps(result))
    return 1 if failed else 0


def _run(module, arguments, text):
    """Runs a benchmark and passes its lines on; returns (exit status, the JSON of its last line or None)."""
    with tempfile.TemporaryDirectory() as folder:
        words = [word.format(folder=folder, text=text) for word in shlex.split(arguments)]
        with subprocess.Popen([sys.executable, "-m", f"benchmarks.{module}", *words], stdout=subprocess.PIPE,
                              text=True) as process:
            line = ""
            for line in process.stdout:
                print(line, end="", flush=True)
    return process.returncode, None if process.returncode else json.loads(line)


def _line(row):
    peer = " ".join(filter(None, [_number(row.peer), row.peer_name]))
    return f"| {row.subject} | {_number(row.ours)} | {peer} | {'' if row.ratio is None else f'{row.ratio:.2f}'} |" \
           f" {row.wanted} |"


def _number(value):
    """Three digits, or all before the point."""
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# What the table shows of each

def _startup(found):
    rows = [Row(f"`main.py`, {part.replace('_', ' ')}, s", found[part]["seconds"], wanted=f"under {most:g}")
            for part, most in startup.WANTED.items() if part in found]
    for precision, sides in found.get("text", {}).items():
        ours, peer = sides["init_checkpoint"], sides[startup.PEER]
        rows += [Row(f"a text of {startup.LENGTH} tokens from the shell, {precision}, s", ours["seconds"],
                     peer["seconds"], startup.PEER, ours["ratio"], f"at most {startup.WANTED_RATIO:g}"),
                 Row(f"its peak, {precision}, MB", ours["peak"], peer["peak"], startup.PEER, ours["peak_ratio"],
                     f"at most {startup.WANTED_MEMORY:g}")]
    if "cycles" in found:
        rows.append(Row("growth over evaluations, MB", found["cycles"]["growth_mb"], wanted="flat"))
    return rows


def _data(found):
    speeds = (round(found[f"{side}_tokens_per_second"] / 1e6, 1) for side in ("pipeline", "bare"))
    return [Row("input pipeline, M tokens/s", *speeds, "bare loop", found["ratio"], "0.25"),
            Row("its memory, MB", found["pipeline_mb"], wanted="under 500")]


def _preparation(found):
    rows = []
    for key, peer, least in (("repaired", "plain", 2), ("without_ftfy", "plain", 4), ("without_ftfy", "tokenizers", 3)):
        if "texts" in found:
            speeds = found[f"{key}_megabytes_per_cpu_second"]
            rows.append(Row(f"texts to records, {key.replace('_', ' ')}, MB a CPU second, beside {peer}",
                            speeds["ours"], speeds[peer], peer, found[f"{key}_times_{peer}"][0], str(least)))
    if "pages" in found:
        rows.append(Row("pages to texts", peer_name="trafilatura", ratio=found["extraction_speed_by_clock"][0],
                        wanted="0.9"))
    return rows


def _two_processes(found):
    return [Row(f"two processes of {name}", peer_name="one process", ratio=found[name]["two"][0], wanted="1.8")
            for name in ("create_tfrecords", "run_newspaper_extract") if name in found]


def _train(found):
    """Ours beside the fastest of torch, where a speed is wanted."""
    rows = []
    for name, measured in found.items():
        wanted = train.SETTINGS[name].wanted
        for which in [which for which in wanted if which in measured["ratios"]]:
            each = [(who, figures) for precision in train.PRECISIONS
                    if which in (precision, BEST) and precision != train.UNCOUNTED
                    for who, figures in measured.get(precision, {}).items() if who in train.CONTENDERS]
            (_, own), (who, theirs) = (max((one for one in each if one[0].startswith(side)), key=_speed)
                                       for side in ("ours", "torch"))
            rows.append(Row(f"training {name}, {which}, tokens/s", own["tokens_per_second"],
                            theirs["tokens_per_second"], who, measured["ratios"][which]["ratio"],
                            str(wanted[which])))
    return rows


def _generate(found):
    """Ours beside the fastest of the peers, each in its best precision."""
    rows = []
    for batch, measured in found.items():
        sides = {name: figures for name, figures in measured.items()
                 if isinstance(figures, dict) and "tokens_per_second" in figures}
        own = sides.pop("ours")
        who, theirs = max(sides.items(), key=_speed)
        rows.append(Row(f"generation at batch {batch}, tokens/s", own["tokens_per_second"], theirs["tokens_per_second"],
                        f"{who} {theirs['precision']}", measured["ratio"], str(generate.WANTED)))
    return rows


def _speed(named):
    """Tokens a second in (name, figures)."""
    return named[1]["tokens_per_second"]


def _shakespeare(found):
    return [Row(f"Shakespeare, loss, seeds: {len(found['val_loss'])}, no p-value", found["mean"],
                shakespeare.SETTINGS["small"].published, "nanoGPT")]


BENCHMARKS = {
    "startup": Benchmark("startup", "--rounds 2 --cycles 10", _startup),
    "data": Benchmark("data", "--gigabytes 0.2 --rounds 3 --output_dir {folder}", _data),
    "preparation": Benchmark("preparation", "--megabytes 4 --page_count 60 --rounds 2", _preparation),
    "two_processes": Benchmark("two_processes", "--times 6 --page_count 100 --rounds 1", _two_processes),
    "train": Benchmark("train", "--setting 124M-4x256 --precision float32 bfloat16 --rounds 2", _train),
    "train-others": Benchmark("train", "--setting 124M-2x1024 small --precision bfloat16 --rounds 2", _train),
    "generate": Benchmark("generate", "--rounds 2 --peers transformers ctranslate2", _generate),
    "shakespeare": Benchmark("shakespeare", "--seeds 1 --text {text} --output_dir {folder}", _shakespeare),
}


def _arguments(argv):
    parser = options.parser("every", __doc__)
    parser.epilog += " " + "; ".join(f"{name}: {benchmark.arguments}" for name, benchmark in BENCHMARKS.items())
    add = parser.add_argument
    add("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), help="run these")
    add("--text", metavar="FILE", help="the tiny Shakespeare text; without it that benchmark is left out")
    add("--record", action="store_true", help=f"add the JSON line to benchmarks/results/{RECORDS}.jsonl")
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
