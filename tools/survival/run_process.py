"""Starts, watches and ends the process of a run, which goes on when the process that supervises it dies.

The run inherits a file lock, by which any process can tell whether the run is still there.  Its output goes to a file,
so the run goes on when nobody reads it.
"""
from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time

from configs import storage

LOCK_FILE, PID_FILE, OUTPUT_FILE = "run.lock", "run.pid", "output.log"
# The shell becomes the command, so its number is the command's; it is written before anything can go wrong.
STARTER = 'echo $$ > "$0" && exec "$@"'
TAIL_BYTES = 2**20  # of the output, in which the last step is looked for


class RunProcess:
    """The run whose files lie in `folder`; the regex `step_pattern` finds the step, its group, in a line of output."""

    def __init__(self, folder, step_pattern):
        self._lock, self._pid, self.output = (os.path.join(folder, name) for name in (LOCK_FILE, PID_FILE, OUTPUT_FILE))
        self._pattern = re.compile(step_pattern.encode(), re.MULTILINE)
        self._process, self._stopping_since, self._output_from = None, None, 0
        self.step, self.step_time = 0, time.monotonic()
        self.exit_status = None  # as a shell gives it; None where another process started the run

    def start(self, command):
        """Starts the run unless it is there; there is never a second one, whatever becomes of this process."""
        lock = storage.lock(self._lock)
        if not lock:
            return
        self.step, self.step_time, self.exit_status, self._stopping_since = 0, time.monotonic(), None, None
        with lock, open(self.output, "ab") as f:
            self._output_from = f.tell()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._pid)
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", STARTER, self._pid, *command], stdin=subprocess.DEVNULL, stdout=f, stderr=f,
                pass_fds=[lock.fileno()], start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})

    def running(self):
        """Whether the run, or a process that it started, is there."""
        if self._process and self._process.poll() is not None:
            status = self._process.returncode
            self.exit_status, self._process = status if status >= 0 else 128 - status, None
        lock = storage.lock(self._lock)
        if lock:
            lock.close()
        return not lock or self._process is not None

    def stop(self, grace_seconds):
        """Asks the run to end, and kills it `grace_seconds` after the first call; call it until the run is gone."""
        now = time.monotonic()
        self._stopping_since = self._stopping_since or now
        number = signal.SIGKILL if now - self._stopping_since > grace_seconds else signal.SIGTERM
        if number == signal.SIGTERM and now > self._stopping_since:
            return  # a second SIGTERM would make the run end without saving
        with contextlib.suppress(OSError, ValueError), open(self._pid) as f:
            os.killpg(int(f.read()), number)

    def read_output(self):
        """Sets `step` to the last step in the output, and `step_time` to the time of its last change."""
        whole_lines, _, _ = self._output_end().rpartition(b"\n")
        steps = self._pattern.findall(whole_lines)
        if steps and int(steps[-1]) != self.step:
            self.step, self.step_time = int(steps[-1]), time.monotonic()

    def last_line(self):
        """The last line of the output, for a message."""
        lines = self._output_end().decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:300] if lines else ""

    def _output_end(self):
        """The last bytes of the output of the run that was started here, or of all where none was."""
        with contextlib.suppress(FileNotFoundError), open(self.output, "rb") as f:
            f.seek(max(os.path.getsize(self.output) - TAIL_BYTES, self._output_from))
            return f.read()
        return b""
