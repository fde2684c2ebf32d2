"""Runs commands of the project in which one call of the system fails (shim.c), each in a process of its own.

The processes are forked from one that has loaded the command's modules already: TensorFlow takes seconds, and a sweep
runs the same command hundreds of times.
"""
from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from typing import NamedTuple

from configs.errors import HOME

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim.c")
FULL, BROKEN = errno.ENOSPC, errno.EIO
SECONDS = 600  # that a command may take


class Call(NamedTuple):
    """A call on a file below the folder."""
    number: int
    writes: bool
    name: str
    path: str


class Outcome(NamedTuple):
    status: int  # as a shell has it, negative: the signal that ended it
    out: str
    err: str
    calls: list  # of Call


def compiler():
    """Path of the C compiler, None without one or where there is no LD_PRELOAD as on Linux."""
    return shutil.which("cc") if sys.platform == "linux" else None


class Runner:
    """Context manager: a process that has loaded `modules`, whose functions main(argv) `run` calls in children."""

    def __init__(self, scratch, modules):
        """`scratch`: a folder for the library and its files."""
        self._scratch, self._modules = str(scratch), modules

    def __enter__(self):
        os.makedirs(self._scratch, exist_ok=True)
        library, self._count, self._log, self._out, self._err = (
            os.path.join(self._scratch, name) for name in ("shim.so", "count", "log", "out", "err"))
        subprocess.run([compiler(), "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        self._environment = {
            **os.environ, "LD_PRELOAD": library, "FAULT_COUNT": self._count, "FAULT_LOG": self._log, "PYTHONPATH": HOME,
            "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forked", *self._modules], cwd=HOME, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment)
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(30)

    def environment(self, folder, *, number, match="", sent=0):
        """The environment of a program of its own, not forked, with what `run` says."""
        return {**self._environment, **self._fault(folder, number, 0, False, match, sent)}

    def _fault(self, folder, number, error, lasts, match, sent):
        """The library's variables; its files are empty again."""
        for path, content in ((self._count, bytes(8)), (self._log, b"")):
            with open(path, "wb") as f:
                f.write(content)
        return {"FAULT_FOLDERS": os.path.realpath(folder), "FAULT_N": str(number), "FAULT_ERROR": str(error),
                "FAULT_LASTS": str(int(lasts)), "FAULT_MATCH": match, "FAULT_SIGNAL": str(int(sent))}

    def run(self, module, argv, folder, *, number=0, error=0, lasts=False, match="", sent=0):
        """The Outcome of `module`.main(argv) in `folder`, whose call of that number fails with `error`, an errno.

        If it `lasts`, so do all later calls that write.  0: nothing fails.  Only calls on paths that hold `match`
        count.  `sent`: instead of failing, the call sends this signal to its process.
        """
        environment = self._fault(folder, number, error, lasts, match, sent)
        job = {"module": module, "argv": argv, "folder": str(folder), "environment": environment, "out": self._out,
               "err": self._err, "seconds": SECONDS}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        texts = []
        for path in (self._out, self._err, self._log):
            with open(path, errors="replace") as f:
                texts.append(f.read())
        calls = [Call(int(number), kind == "w", name, path) for number, kind, name, path in
                 (line.split(" ", 3) for line in texts.pop().splitlines())]
        return Outcome(status, *texts, calls)
