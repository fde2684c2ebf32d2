"""Two processes beside one: create_tfrecords.py and run_newspaper_extract.py as commands, and what the machine allows.

What the machine allows: two commands of one process, each on half of the input, beside one command on the whole.
Start-up is what a command takes for next to no input.  Texts and pages are those of benchmarks/preparation.py; each
text is taken several times, so that start-up does not decide.  Ends with one JSON line.
"""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import functools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import options, preparation
from configs import commands
from configs.errors import UserError
from datasets.pages import archive_writer

SHARDS = 24
COMMANDS = ("create_tfrecords", "run_newspaper_extract")


def main(argv=None):
    """Prints the tables and the JSON line; returns 0."""
    args = _arguments(argv)
    preparation.print_machine(args)
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in COMMANDS if args.only is None else (args.only,):
            halves, tiny, own = {"create_tfrecords": _texts, "run_newspaper_extract": _pages}[name](args, folder)
            command = [sys.executable, os.path.join(options.ROOT, "datasets", name + ".py"), *own]
            result[name] = _compare(name, functools.partial(_run, command, os.path.join(folder, "out")), halves, tiny,
                                    args.rounds)
    result["load"] = round(os.getloadavg()[0], 1)
    print(json.dumps(result))
    return 0


def _compare(name, run, halves, tiny, rounds):
    """Prints how many times as fast two processes are as one, and returns it as {what: (median, least, most)}."""
    runs = {"one": lambda: run([halves], 1), "two": lambda: run([halves], 2),
            "halves": lambda: run([halves[:1], halves[1:]], 1),
            "start of one": lambda: run([tiny], 1), "start of two": lambda: run([tiny], 2)}
    times = preparation.side_by_side(name, runs, rounds, 1, "runs")
    allowed = preparation.ratio(times, "halves", "one", 0)
    found = preparation.ratio(times, "two", "one", 0)
    working = {side: [(wall - start, cpu) for (wall, cpu), (start, _) in zip(times[side], times[f"start of {side}"])]
               for side in ("one", "two")}
    without = preparation.ratio(working, "two", "one", 0)
    cpu = 1 / preparation.ratio(times, "two", "one")[0]
    starts = [statistics.median(wall for wall, _ in times[f"start of {side}"]) for side in ("one", "two")]
    spreads = ["{:.2f} ({:.2f} to {:.2f})".format(*spread) for spread in (found, without, allowed)]
    print(f"{name}: two processes are {spreads[0]} times as fast as one (wanted: at least 1.8), without start-up "
          f"{spreads[1]}, two commands on half each {spreads[2]}; two take {cpu:.2f} times the CPU seconds; start-up "
          f"of one {starts[0]:.2f} s, of two {starts[1]:.2f} s", flush=True)
    return {"two": found, "without_start": without, "allowed": allowed, "cpu": round(cpu, 3), "start": starts}


def _texts(args, folder):
    """([folders with either half of the texts], the smallest input, options of the command)."""
    root = os.path.join(folder, "texts")
    paths, size = preparation.collect_texts(args.texts, args.megabytes, os.path.join(root, "source"))
    halves, tiny = [os.path.join(root, name) for name in ("0", "1")], os.path.join(root, "tiny")
    for number in range(args.times):
        for half in halves:
            os.makedirs(os.path.join(half, str(number)))
        for i, path in enumerate(paths):
            os.link(path, os.path.join(halves[i % 2], str(number), os.path.basename(path)))
    os.makedirs(tiny)
    for path in sorted(paths, key=os.path.getsize)[-2:]:
        os.link(path, os.path.join(tiny, os.path.basename(path)))
    count = len(paths) * args.times
    print(f"{count} texts of {size * args.times / 1e6:.0f} MB in all", flush=True)
    own = ["--name", "x", "--eval_fraction", "0", "--files_per", str(-(-count // SHARDS))]
    return halves, [tiny, "--files_per", "1"], own + ["--no_ftfy"] * args.no_ftfy


def _pages(args, folder):
    """Like _texts, for archives of pages."""
    found = preparation.collect_pages(args)
    folders = [os.path.join(folder, "pages", name) for name in ("0", "1", "tiny")]
    for path in folders:
        os.makedirs(path)
    for number in range(SHARDS):
        _archive(folders[number % 2], number, found[number::SHARDS])
    for number in range(2):
        _archive(folders[2], number, found[:1])
    print(f"{len(found)} pages of {sum(map(len, found)) / 1e6:.0f} MB in all", flush=True)
    return folders[:2], folders[2:], []


def _archive(folder, number, pages):
    writer = archive_writer.Writer(folder, os.path.join(folder, f"state-{number}.txt"), f"RS_2017-{number + 1:02d}")
    for line, page in enumerate(pages):
        writer.add(line, f"http://localhost/{number}/{line}", page, {})
    writer.close()


def _run(command, output, inputs, processes):
    """(seconds, CPU seconds with all workers) of several commands at once, one for each list of `inputs`."""
    shutil.rmtree(output, ignore_errors=True)
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    running = [subprocess.Popen([*command, "--output_dir", os.path.join(output, str(number)), "--processes",
                                 str(processes), "--input", *given], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL) for number, given in enumerate(inputs)]
    statuses = [process.wait() for process in running]
    if any(statuses):
        raise UserError(f"{' '.join(command)} failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _arguments(argv):
    parser = options.parser("two_processes", __doc__)
    add = parser.add_argument
    add("--only", choices=COMMANDS, help="measure this alone")
    add("--times", type=int, default=4, help="how often each text is taken")
    add("--no_ftfy", action="store_true", help="texts as they are")
    args = preparation.checked(parser, argv)
    options.check_least(args, times=1)
    return args


if __name__ == "__main__":
    commands.run(main)
