"""Ends a run whose TPU node was preempted: with one line, and the exit status that says "start again"."""
import contextlib
import os
import sys
import threading
import time

import tensorflow.compat.v1 as tf

from configs import errors, tpu_names

SECONDS = 30.0  # between two looks at the node


class NodeWatch(threading.Thread):
    """Ends the process when the node of `tpu`, a tpu_names.Tpu, is gone, whatever the other threads wait for."""

    def __init__(self, tpu):
        super().__init__(daemon=True)
        self._tpu = tpu

    def start(self):
        if not self.is_alive():
            super().start()

    def run(self):
        while not (line := tpu_names.preemption(self._tpu)):
            time.sleep(SECONDS)
        with contextlib.suppress(OSError):
            print("error:", errors.printable(line), file=sys.stderr)
            sys.stdout.flush()
        os._exit(errors.PREEMPTED)

    def stop(self):
        """Does nothing: the hook calls this when a session ends, and the node can go between two sessions."""


@contextlib.contextmanager
def known_first():
    """Holds an error of a connection back until a NodeWatch has looked, which ends the process if the node is gone."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError):
        for thread in threading.enumerate():
            if isinstance(thread, NodeWatch):
                thread.join(SECONDS + tpu_names.ANSWER_SECONDS)
        raise
