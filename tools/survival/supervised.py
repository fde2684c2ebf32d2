"""A command that outlives its supervisor: started once, watched through files, ended in time.

A file lock that it inherits tells whether it still runs, to whichever process asks; its output goes to a file, so that
nobody has to read it for it to go on.
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
# The shell becomes the command, so that the number is its own; it is written before anything can go wrong.
STARTER = 'echo $$ > "$0" && exec "$@"'
TAIL_BYTES = 2**16


class Supervised:
    """The command whose files lie in `folder`; `step` is a regex whose group is the step in a line of its output."""

    def __init__(self, folder, step):
        self._lock, self._pid, self.output = (os.path.join(folder, name) for name in (LOCK_FILE, PID_FILE, OUTPUT_FILE))
        self._pattern = re.compile(step.encode(), re.MULTILINE)
        self._process, self._asked, self._rest = None, None, b""
        self._read_to = max(self._size() - TAIL_BYTES, 0)
        self.step, self.changed = 0, time.monotonic()
        self.ended = None  # exit status, as a shell gives it; None where another process started it

    def start(self, command, environment=None):
        """Starts it unless it runs; whatever becomes of this process, there is never a second one."""
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
        self.step, self.changed, self.ended, self._asked = 0, time.monotonic(), None, None
        self._read_to, self._rest = self._size(), b""

    def running(self):
        """Whether it, or a process that it started, is there."""
        if self._process and self._process.poll() is not None:
            status = self._process.returncode
            self.ended, self._process = status if status >= 0 else 128 - status, None
        with open(self._lock, "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return self._process is not None

    def stop(self, grace):
        """Asks it to end, and kills it `grace` seconds after the first time; to be called again until it is gone."""
        now = time.monotonic()
        self._asked = self._asked or now
        number = signal.SIGKILL if now - self._asked > grace else signal.SIGTERM
        if number == signal.SIGTERM and now > self._asked:
            return  # once: the run takes a second one for impatience
        with contextlib.suppress(OSError, ValueError), open(self._pid) as f:
            os.killpg(int(f.read()), number)

    def look(self):
        """Reads what has been put out; sets `step`, and `changed` to the time when there was a new one."""
        with contextlib.suppress(FileNotFoundError), open(self.output, "rb") as f:
            f.seek(self._read_to)
            for data in iter(lambda: f.read(2**20), b""):
                self._read_to += len(data)
                self._note(data)

    def _note(self, data):
        lines, _, self._rest = (self._rest + data).rpartition(b"\n")
        self._rest = self._rest[-TAIL_BYTES:]
        steps = [int(found) for found in self._pattern.findall(lines)]
        if steps and steps[-1] != self.step:
            self.step, self.changed = steps[-1], time.monotonic()

    def last_line(self):
        """The end of its output, for a message."""
        with contextlib.suppress(FileNotFoundError), open(self.output, "rb") as f:
            f.seek(max(self._size() - 4000, 0))
            lines = f.read().decode(errors="replace").strip().splitlines()
            return lines[-1].strip()[:300] if lines else ""
        return ""

    def _size(self):
        return os.path.getsize(self.output) if os.path.exists(self.output) else 0
