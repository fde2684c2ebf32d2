"""Runs inputs of many kinds through the code that reads them, and says what came of each.

`ok`: it was taken, and what came out is right.  `clean`: it was refused as a user's mistake, in one line, or as a
program of the project would refuse it (configs/commands.py).  `fault`: anything else - another exception, a result that
is wrong, or no end.
"""
from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import sys
import traceback
from pathlib import Path
from typing import Callable, NamedTuple

from configs import commands

SECONDS = 10  # that one input may take
OK, CLEAN, FAULT = "ok", "clean", "fault"


class Kind(NamedTuple):
    name: str
    area: str  # what of the project it is about
    prepare: Callable  # (Path of a folder) -> what `make` gets
    make: Callable  # (draw, prepared, Path of an empty folder) -> function () that reads the input and raises Wrong


class Wrong(Exception):
    """Something was taken and became what it is not."""


class Hang(BaseException):
    """An input took too long."""


class Result(NamedTuple):
    kind: str
    number: int
    outcome: str
    words: str  # on a fault, or the line of a clean refusal


def draw_for(seed, name, number):
    return random.Random(f"{seed}/{name}/{number}")


class Inputs:
    """The inputs of one kind, by their numbers; `folder` is theirs."""

    def __init__(self, kind, folder, seed):
        self.kind, self.seed, self.case = kind, seed, Path(folder) / "case"
        place = Path(folder) / "prepared"
        place.mkdir(parents=True)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            self._prepared = kind.prepare(place)

    def try_one(self, number):
        """The Result of input `number`."""
        shutil.rmtree(self.case, ignore_errors=True)
        self.case.mkdir()
        with contextlib.redirect_stderr(io.StringIO()):
            act = self.kind.make(draw_for(self.seed, self.kind.name, number), self._prepared, self.case)
        outcome, words = judged(act)
        return Result(self.kind.name, number, outcome, words)


def judged(act):
    """(outcome, words) of act(), run as a program."""
    def program(argv):
        act()
        return 0
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        try:
            with _limited():
                commands.run(program)
        except SystemExit as end:
            status = end.code or 0
        except BaseException as error:  # a panic of a library in Rust is no Exception
            where = traceback.extract_tb(error.__traceback__)[-1]
            return FAULT, (f"{type(error).__name__}: {str(error)[:200]!r} ({os.path.basename(where.filename)},"
                           f" line {where.lineno})")
    if status == 128 + signal.SIGINT:  # of whoever has seen enough
        raise KeyboardInterrupt
    err.flush()
    lines = [line for line in err.buffer.getvalue().decode().splitlines() if line.startswith("error: ")]
    if status == 0 and not lines:
        return OK, ""
    if status == 2 and len(lines) == 1 and len(lines[0]) > len("error: "):
        return CLEAN, lines[0]
    return FAULT, f"status {status} with {lines[:3]}"


@contextlib.contextmanager
def _limited():
    """Raises Hang inside after SECONDS; in the main thread only, where there are signals."""
    def hang(*_):
        raise Hang(f"more than {SECONDS} s")
    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def table(results):
    """The counts of all results, as a table of Markdown."""
    rows = ["| inputs | tried | ok | clean | fault |", "|---|---|---|---|---|"]
    names = [*dict.fromkeys(result.kind for result in results)]
    for name in [*names, "all"]:
        some = [result.outcome for result in results if name in (result.kind, "all")]
        rows.append(f"| {name} | {len(some):,} | " + " | ".join(f"{some.count(what):,}" for what in (OK, CLEAN, FAULT))
                    + " |")
    return "\n".join(rows)


def say(line):
    print(line, file=sys.__stdout__, flush=True)
