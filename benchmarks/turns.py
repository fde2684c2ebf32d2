"""Processes that take turns: each works while all others wait, so all meet the same machine in the same minutes.

The parent writes a line to a process whose turn it is, and the process answers with a line of JSON when it is done.
Where there are no more lines, the process gives a last answer and ends.
"""
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys

from configs.errors import UserError

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


@contextlib.contextmanager
def process(name, command, environment=None, folder=None):
    """Yields a function that lets the process take a turn and returns its answer; `last`, at the end, is its last one.

    `command` is what stands behind `python3`; `folder` is where the process runs (default: here).
    """
    with subprocess.Popen([sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env=environment, cwd=folder) as child:
        def turn():
            with contextlib.suppress(BrokenPipeError):  # it is gone: answer() says so
                os.write(child.stdin.fileno(), b"go\n")  # not by write(), whose buffer would be flushed once more
            return answer()

        def answer():
            line = child.stdout.readline()
            if not line:
                raise UserError(f"{name} ended early with status {child.wait()}; see above, and give smaller sizes"
                                " where memory was too small")
            return json.loads(line)
        yield turn
        child.stdin.close()
        turn.last = answer()


class Turns:
    """The process' own side: it waits for its turns on standard input and answers on standard output."""

    def __init__(self):
        # It holds gigabytes, and would go on building its graph when the parent is killed.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        self._output = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is no answer

    def wait(self):
        """Waits for the next turn; False where there is none."""
        return bool(sys.stdin.readline())

    def answer(self, values):
        print(json.dumps(values), file=self._output, flush=True)
