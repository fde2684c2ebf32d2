"""Fails each call of a command on its files in turn and looks at what comes of it.

    python3 -m tests.faults.sweep                                  # every call of every command: hours
    python3 -m tests.faults.sweep --commands dedup vocabulary
    python3 -m tests.faults.sweep --commands training --every 10
    python3 -m tests.faults.sweep --commands training --every 2 --begin 1   # the half that --every 2 leaves out
    python3 -m tests.faults.sweep --sample 5 --seed 1

A case is good if the command ends with status 2 and one line that names the file, or goes on and ends as if nothing
had happened, and if the same command without the fault then ends with what an undisturbed run made, and leaves nothing
else.
"""
from __future__ import annotations

import argparse
import collections
import contextlib
import io
import os
import random
import re
import sys
import tempfile
from typing import NamedTuple

from tests.faults import shim
from tests.faults.commands import COMMANDS, fresh, names, result

ERRORS = {"ENOSPC": shim.FULL, "EIO": shim.BROKEN}
REFUSED, WENT_ON, FAULT = "status 2", "went on", "fault"


class Case(NamedTuple):
    command: str
    call: shim.Call
    error: str  # of ERRORS
    verdict: str
    words: str  # on a fault, else the line of the error

    def __str__(self):
        return (f"{self.command} {self.call.number} {self.error} {self.call.name} {self.call.path}: {self.verdict}"
                f"{': ' if self.words else ''}{self.words}")


class Sweep:
    """Context manager for the cases of one command."""

    def __init__(self, command, scratch):
        self.command, self._scratch = command, str(scratch)
        self._template, self._folder = os.path.join(self._scratch, "template"), os.path.join(self._scratch, "case")

    def __enter__(self):
        os.makedirs(self._template)
        with contextlib.redirect_stdout(io.StringIO()):
            self.command.prepare(self._template)
        self._runner = shim.Runner(os.path.join(self._scratch, "shim"), [self.command.module])
        self._runner.__enter__()
        self.begin()
        undisturbed = self.run()
        assert undisturbed.status == 0, undisturbed
        self.calls = undisturbed.calls
        self._result, self._names = result(self.command, self._folder), names(self.command, self._folder)
        assert self._result
        return self

    def __exit__(self, *caught):
        self._runner.__exit__(*caught)

    def run(self, **fault):
        """The shim.Outcome of the command, where it was left; `begin` first, to start anew."""
        return self._runner.run(self.command.module, self.command.argv, self._folder, **fault)

    def folder(self, name):
        """Path of a folder of the command."""
        return os.path.join(self._folder, name)

    def begin(self):
        fresh(self._template, self._folder)

    def possible(self):
        """(call, error) of all cases: reading fails as on a broken disk, writing also as on a full one."""
        return [(call, error) for call in self.calls for error in ERRORS if call.writes or error == "EIO"]

    def case(self, call, error):
        """The Case in which `call` fails; a disk that is full stays so."""
        self.begin()
        outcome = self.run(number=call.number, error=ERRORS[error], lasts=error == "ENOSPC")
        if len(outcome.calls) < call.number:
            return Case(self.command.name, call, error, FAULT, "the call was not made again: the order is not the same")
        made = outcome.calls[call.number - 1]
        call = call._replace(name=made.name, path=os.path.relpath(made.path, self._folder))
        words = _wrong(outcome, call.path)
        if words:
            return Case(self.command.name, call, error, FAULT, words)
        words = self.wrong_again()
        if words:
            return Case(self.command.name, call, error, FAULT, f"after {_last(outcome.err)!r}: {words}")
        return Case(self.command.name, call, error, *((REFUSED, _last(outcome.err)) if outcome.status else
                                                     (WENT_ON, "")))

    def wrong_again(self):
        """What is wrong with the same command without a fault, in words; None where nothing is."""
        outcome = self.run()
        if outcome.status:
            return f"then status {outcome.status}: {_last(outcome.err)}"
        now, left = result(self.command, self._folder), names(self.command, self._folder)
        other = sorted(path for path in {*now, *self._result} if now.get(path) != self._result.get(path))
        if other:
            return f"then another result: {other[:3]}"
        if left != self._names:
            return f"then other files: {sorted(left ^ self._names)[:3]}"
        return None


def _wrong(outcome, path):
    """What is wrong with the run whose call on `path` failed, in words; None where nothing is."""
    if "Traceback" in outcome.err or outcome.status not in (0, 2):
        return f"status {outcome.status}: {_last(outcome.err)}"
    errors = [line for line in _lines(outcome.err) if line.startswith("error:")]
    if len(errors) != (outcome.status == 2):
        return f"status {outcome.status} with {len(errors)} lines of error: {errors[:2]}"
    if errors and not _is_named(path, errors[0]):
        return f"the line does not name {path}: {errors[0]}"
    return None


def _is_named(path, line):
    """Whether a line names a file: itself, or its folder (of one under a passing name), a conversion's target."""
    folder, name = os.path.split(path)
    folders = [folder, folder.replace(".partial", "")]
    return name in line or any(folder and folder in line for folder in folders) or (
        path.split("/")[0].replace(".partial", "") in line.split(":", 1)[1])


def _lines(err):
    return re.split(r"[\r\n]+", err)


def _last(err):
    return next((line for line in reversed(_lines(err)) if line.strip()), "")[:300]


def table(cases):
    """The counts of all cases, as a table of Markdown."""
    rows = ["| command | cases | status 2, the file named | went on | fault |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(case.command for case in cases):
        counts = collections.Counter(case.verdict for case in cases if case.command == name)
        rows.append(f"| {name} | {sum(counts.values()):,} | {counts[REFUSED]:,} | {counts[WENT_ON]:,} |"
                    f" {counts[FAULT]:,} |")
    return "\n".join(rows)


def chosen(sweep, every=1, begin=0, sample=None, seed=0):
    """The cases to try: each `every`-th from number `begin` on, or a `sample` of so many by the seed."""
    cases = sweep.possible()[begin::every]
    return sorted(random.Random(seed).sample(cases, min(sample, len(cases)))) if sample else cases


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python3 -m tests.faults.sweep", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    add("--every", type=int, default=1, help="only each so-manieth case")
    add("--begin", type=int, default=0, help="leave out so many cases first")
    add("--sample", type=int, help="so many cases of each command, chosen by --seed")
    add("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    cases = []
    for name in args.commands:
        with tempfile.TemporaryDirectory(prefix="faults-") as scratch, Sweep(COMMANDS[name], scratch) as sweep:
            wanted = chosen(sweep, args.every, args.begin, args.sample, args.seed)
            print(f"{name}: {len(sweep.calls)} calls, {len(wanted)} of {len(sweep.possible())} cases", flush=True)
            for number, (call, error) in enumerate(wanted, 1):
                cases.append(sweep.case(call, error))
                if cases[-1].verdict == FAULT:
                    print(cases[-1], flush=True)
                if number % 50 == 0:
                    print(f"{number} of {len(wanted)}", flush=True)
        print(table([case for case in cases if case.command == name]), flush=True)
    return int(any(case.verdict == FAULT for case in cases))


if __name__ == "__main__":
    sys.exit(main())
