"""Processes that take turns: each runs while all others wait, so that all meet the same machine in the same minutes.

The parent writes a line where a process is to go on, and the process answers with a line of JSON when it has; it ends
where there are no more lines, with a last answer.
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
def process(name, command, environment=None):
    """A function that lets the process take its turn and gives its answer; `last`, at the end, is its last one."""
    with subprocess.Popen([sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env=environment) as child:
        def turn():
            child.stdin.write("go\n")
            child.stdin.flush()
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
    """The other side: what a process waits for and answers on its standard input and output."""

    def __init__(self):
        # It holds gigabytes, and would go on building its graph when the parent is killed.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        self._output = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is no answer

    def come(self):
        """Waits for the next turn; False where there is none."""
        return bool(sys.stdin.readline())

    def answer(self, values):
        print(json.dumps(values), file=self._output, flush=True)
