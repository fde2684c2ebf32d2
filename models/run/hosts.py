"""Training on several hosts: all make the same steps and stop after the same one; when one is gone, all start again.

Collective operations wait without end for a host that died (TensorFlow 2.15.1).  So each host watches the others: the
one that misses another starts its own program again, which goes on from the last checkpoint when all are there.
"""
import contextlib
import os
import signal
import socket
import sys
import threading
import time

import tensorflow.compat.v1 as tf

from configs import cluster
from models import replicas
from models.checkpoints import run_checkpoints
from models.run import devices, workarounds

LOOK_SECONDS = 1.0
MISSES = 3  # in a row, until a host counts as gone
FOREVER = 10**9


class HostsInStep(tf.train.SessionRunHook):
    """Trains step by step with the other hosts; all stop after the same step, when one of them was told to.

    `stop` and `by_minutes` are this host's hooks.StopOnSignal and saving.SaverByMinutes; `stopped` says afterwards
    whether all have stopped, `step` the last step made.
    """

    def __init__(self, stop, by_minutes, model_dir):
        self._stop, self._by_minutes, self._model_dir = stop, by_minutes, model_dir
        self.stopped, self.step, self._last_step = False, 0, None
        self._others_may_leave = threading.Event()
        threading.Thread(target=self._watch_others, args=cluster.hosts(), daemon=True).start()

    def train(self, estimator, input_fn, target, progress, *, last):
        """`estimator.train`, which Estimators refuse to do on several hosts.  Returns when the first host has saved."""
        mine, self._last_step = [self], target if last else None
        if devices.is_first(devices.MULTI_WORKER):
            # Of several hosts an Estimator saves only if it writes summaries of its own as well (TensorFlow 2.15.1).
            mine += [workarounds.Saver(estimator, self._by_minutes), self._by_minutes, progress]
        spec = tf.estimator.TrainSpec(input_fn, max_steps=target, hooks=mine)
        # Nothing is evaluated in here.
        idle = tf.estimator.EvalSpec(input_fn, steps=1, start_delay_secs=0, throttle_secs=FOREVER)
        try:
            tf.estimator.train_and_evaluate(estimator, spec, idle)
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError) as error:
            if not self._may_leave():
                start_again(f"the other hosts cannot be reached ({str(error).splitlines()[0][:100]})")
        # The first host saves; who began the next chunk before would begin it from older weights.
        self.wait_for(lambda: run_checkpoints.is_at(self._model_dir, self.step))
        if self.stopped and self._stop.signal_number is None:
            self._stop.signal_number = signal.SIGTERM  # another host's
        if self.stopped or last:
            self.leave()

    def wait_for(self, condition):
        """Waits until condition() holds, which the first host makes true."""
        while not condition():
            time.sleep(LOOK_SECONDS / 4)

    def leave(self):
        """Lets all hosts end by themselves: none is missed any more."""
        self._others_may_leave.set()

    def _may_leave(self):
        """Whether other hosts may be gone: hosts that are done leave while this one still closes its session."""
        return (self.stopped or self.step == self._last_step) and run_checkpoints.is_at(self._model_dir, self.step)

    def begin(self):
        self._wishes, self._agreed = replicas.stop_tensors()

    def after_create_session(self, session, coord):
        self.step = session.run(tf.train.get_global_step())

    def before_run(self, run_context):
        self._stop.before_run(run_context)
        wish = float(self._stop.signal_number is not None)
        return tf.train.SessionRunArgs(self._agreed, feed_dict=dict.fromkeys(self._wishes, wish))

    def after_run(self, run_context, run_values):
        self._stop.waits = False  # all hosts are there
        self.step += 1
        if run_values.results > 0:
            self.stopped = True
            run_context.request_stop()

    def _watch_others(self, addresses, own):
        """Starts this program again where another host is gone before it may leave."""
        missed = {}  # only hosts that answered before; this host waits for the others
        while not self._others_may_leave.wait(LOOK_SECONDS):
            for address in addresses[:own] + addresses[own + 1:]:
                if _answers(address):
                    missed[address] = 0
                elif address in missed:
                    missed[address] += 1
            gone = [address for address, times in missed.items() if times >= MISSES]
            if gone and not self._others_may_leave.is_set() and not self._may_leave():
                start_again(f"{gone[0]} is gone")


def start_again(reason):
    """Replaces this process by a new one of the same command line."""
    print(f"{reason}: starting again from the last checkpoint, when all hosts are there", flush=True)
    os.execv(sys.executable, [sys.executable, *sys.argv])


def _answers(address):
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        socket.create_connection((host, int(port)), LOOK_SECONDS).close()
        return True
    return False


@contextlib.contextmanager
def alone():
    """What is built and run in here does not know of the other hosts."""
    value = os.environ.pop(cluster.VARIABLE)
    try:
        yield
    finally:
        os.environ[cluster.VARIABLE] = value
