"""Ends a run whose TPU node was preempted: with one line, and the exit status that says "start again"."""
import contextlib
import os
import sys
import threading
import time

import tensorflow.compat.v1 as tf
from tensorflow.python.tpu import preempted_hook

from configs import errors, tpu_names

SECONDS = 30.0  # between two looks at the node


class Watch(threading.Thread):
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
            print("error:", line, file=sys.stderr)
            sys.stdout.flush()
        os._exit(errors.PREEMPTED)

    def stop(self):
        """Goes on: the hook calls this when a session ends, and the node can go between two sessions."""


def watch(tpu):
    """Ends the process within a minute of the preemption of the node of `tpu`, if that was found by its name.

    The normal way is CloudTPUPreemptedHook, which TPUEstimator adds for a TPU resolved by name.  Its thread fails in
    TensorFlow 2.15.1: it dies of the first node that is READY (recoverable() reads absl's flags, which nobody parsed)
    and of every answer that does not come, says nothing when it ends the process, lets each session end up to 30
    seconds late, and sees neither generation nor a new session that waits for a dead node (for a day).  So the hook
    starts this thread in the place of its own.  Look again when recoverable() works without flags.
    """
    if tpu.nodes:
        thread = Watch(tpu)
        thread.start()
        preempted_hook._TPUPollingThread = lambda cluster, session: thread


@contextlib.contextmanager
def known_first():
    """Holds an error of a connection back until a Watch has looked at the node, and ended the process if it is gone."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError):
        for thread in threading.enumerate():
            if isinstance(thread, Watch):
                thread.join(SECONDS + tpu_names.ANSWER_SECONDS)
        raise
