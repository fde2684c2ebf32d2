"""The process of a run, which outlives the process that supervises it: started once, watched by files, ended in time.

The run inherits a file lock, by which any process can tell whether the run is still there.  Its output goes to a file,
so the run goes on when nobody reads it.
"""
from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import time

LOCK_FILE, PID_FILE, OUTPUT_FILE = "run.lock", "run.pid", "output.log"
# The shell becomes the command, so its number is the command's; it is written before anything can go wrong.
STARTER = 'echo $$ > "$0" && exec "$@"'
TAIL_BYTES = 2**16


class RunProcess:
    """The run whose files lie in `folder`; the regex `step_pattern` finds the step, its group, in a line of output."""

    def __init__(self, folder, step_pattern):
        self._lock, self._pid, self.output = (os.path.join(folder, name) for name in (LOCK_FILE, PID_FILE, OUTPUT_FILE))
        self._pattern = re.compile(step_pattern.encode(), re.MULTILINE)
        self._process, self._stopping_since, self._half_line = None, None, b""
        self._read_to = max(self._size() - TAIL_BYTES, 0)
        self.step, self.step_time = 0, time.monotonic()
        self.exit_status = None  # as a shell gives it; None where another process started the run

    def start(self, command, environment=None):
        """Starts the run unless it is there; there is never a second one, whatever becomes of this process."""
        with open(self._lock, "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._pid)
            with open(self.output, "ab") as f:
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", STARTER, self._pid, *command], stdin=subprocess.DEVNULL, stdout=f, stderr=f,
                    pass_fds=[lock.fileno()], start_new_session=True, env={**os.environ, **(environment or {})})
        self.step, self.step_time, self.exit_status, self._stopping_since = 0, time.monotonic(), None, None
        self._read_to, self._half_line = self._size(), b""

    def running(self):
        """Whether the run, or a process that it started, is there."""
        if self._process and self._process.poll() is not None:
            status = self._process.returncode
            self.exit_status, self._process = status if status >= 0 else 128 - status, None
        with open(self._lock, "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return self._process is not None

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
        """Reads the new output; sets `step`, and `step_time` to the time of the last change of `step`."""
        with contextlib.suppress(FileNotFoundError), open(self.output, "rb") as f:
            f.seek(self._read_to)
            for data in iter(lambda: f.read(2**20), b""):
                self._read_to += len(data)
                self._note(data)

    def _note(self, data):
        lines, _, self._half_line = (self._half_line + data).rpartition(b"\n")
        self._half_line = self._half_line[-TAIL_BYTES:]
        steps = [int(step) for step in self._pattern.findall(lines)]
        if steps and steps[-1] != self.step:
            self.step, self.step_time = steps[-1], time.monotonic()

    def last_line(self):
        """The last line of the output, for a message."""
        with contextlib.suppress(FileNotFoundError), open(self.output, "rb") as f:
            f.seek(max(self._size() - 4000, 0))
            lines = f.read().decode(errors="replace").strip().splitlines()
            return lines[-1].strip()[:300] if lines else ""
        return ""

    def _size(self):
        return os.path.getsize(self.output) if os.path.exists(self.output) else 0
