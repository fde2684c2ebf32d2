"""What happens between the steps: the progress line, the figures of the run, and a clean stop on a signal."""
from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from configs import commands, storage
from models import metrics
from models.run import cost, devices, hosts, loss_watch, metrics_file, saving, workarounds

LINE_SECONDS = 5  # between progress lines
SCALARS_STEPS = 10  # between points in TensorBoard and lines in metrics.jsonl
ECHO_SECONDS = 0.2  # in which signals are one: `timeout` and others send theirs to the process and to its group


class Progress(tf.train.SessionRunHook):
    """Prints a line every few seconds; writes scalars to TensorBoard and metrics.jsonl.

    `order` is the run's WindowOrder, `watch` its LossWatch.  The scalars come from the graph's collection of them; the
    mean loss since the last line is shown: one batch's says little.  (A TPU shows one of each run of many steps.)
    """

    def __init__(self, config, order, watch, say=print):
        self._config, self._order, self._max_steps = config, order, config.max_steps
        self._watch, self._say = watch, say
        self._tokens = order.batch * order.n_ctx  # of a step
        self._operations = cost.token_operations(config)
        self._start, self._loss, self._losses = None, 0.0, 0  # after the first step; the sum of how many losses
        self._entries, self._noted, self._noted_at = [], 0, 0.0  # not yet in metrics.jsonl; up to which step all are
        self.step = 0  # of the last update, for whoever catches an error
        self.unsaid = None  # the error of a line that could not be written: the training ends, saved, before it is told

    def begin(self):
        self._scalars, self._global_step = metrics.collected(), tf.train.get_global_step()
        self._each_step = metrics.of_each_step(self._scalars)
        self._writer = tf.summary.FileWriterCache.get(self._config.model_dir)

    def after_create_session(self, session, coord):
        self.step = self._noted = session.run(self._global_step)
        self._noted_at = time.monotonic()
        workarounds.release_heap()  # of the graph's making

    def before_run(self, run_context):
        return tf.train.SessionRunArgs(self._scalars)

    def after_run(self, run_context, run_values):
        try:
            self._after_run(run_context.session, run_values.results)
        except OSError as error:
            if error.filename != commands.OUTPUT:
                raise
            self.unsaid = error
            run_context.request_stop()

    def _after_run(self, session, values):
        before = self.step
        # A TPU makes many steps in one run, and inside the run their number would be read too early or too late.
        self.step = before + 1 if self._each_step else session.run(self._global_step)
        if "loss" in values:
            self._loss, self._losses = self._loss + values["loss"], self._losses + 1
            warning = self._watch.warning(self.step, values["loss"])
            if warning:
                self._say(f"warning: {warning}")
        now = time.monotonic(), self.step, self._loss, self._losses
        if self._start is None:  # the first step also builds and warms up: its time says nothing
            workarounds.release_heap()  # of its compilations
            self._start = self._line = self._point = now
            self._print(values, values.get("loss"), None)
            return
        if now[0] - self._line[0] >= LINE_SECONDS or self.step == self._max_steps:
            self._print(values, *_means(self._line, now))
            self._line = now
        if self.step // SCALARS_STEPS > before // SCALARS_STEPS:
            self._write(values, *_means(self._point, now))
            self._point = now

    def end(self, session):
        self._writer.flush()  # else the last points come minutes later, or with the end of the process never
        self._note()

    def _print(self, values, loss, rate):
        parts = [f"step {self.step:{len(str(self._max_steps))}}/{self._max_steps}"]
        parts += [] if loss is None else [f"loss {loss:.4f}"]
        parts += [f"lr {values['learning_rate']:.2e}"] if self._each_step else []
        if rate:
            overall = (self.step - self._start[1]) / (time.monotonic() - self._start[0])
            epoch = max(self._order.seen(self.step).epochs)
            parts += [f"epoch {epoch:.2f}", f"{round(rate * self._tokens):,} tokens/s",
                      f"{duration((self._max_steps - self.step) / overall)} left"]
        self._say("   ".join(parts))

    def _write(self, values, loss, rate):
        """Writes a point: of the learning rate and the gradient that of the last step, else since the last point."""
        seen, tokens = self._order.seen(self.step), rate * self._tokens
        shown = {**dict.fromkeys(metrics.TAGS), **values, "loss": loss}  # None: only the TPU knows
        speed = {"tokens_per_second": tokens, "teraflops_per_second": tokens * self._operations / 1e12}
        self._entries.append(metrics_file.entry(self.step, **shown, **speed, tokens=int(seen.tokens),
                                                epoch=max(seen.epochs)))
        # On Google Storage each writing is one of the whole file: as often as a checkpoint.
        if not storage.is_remote(self._config.model_dir) \
                or self.step - self._noted >= self._config.save_checkpoints_steps \
                or time.monotonic() - self._noted_at >= 60 * (self._config.save_checkpoints_minutes or float("inf")):
            self._note()
        points = {metrics.TAGS[name]: value for name, value in shown.items()} if self._each_step else {}
        points.update({f"speed/{name}": value for name, value in speed.items()})
        points.update({"progress/epoch": max(seen.epochs), "progress/documents_seen": seen.documents,
                       "progress/tokens_seen": seen.tokens, "progress/dropped": self._order.dropped})
        summary = tf.Summary(value=[tf.Summary.Value(tag=name, simple_value=float(value))
                                    for name, value in sorted(points.items())])
        self._writer.add_summary(summary, self.step)

    def _note(self):
        """Writes what metrics.jsonl does not hold yet."""
        if self._entries:
            metrics_file.append(self._config.model_dir, self._entries)
        self._entries, self._noted, self._noted_at = [], self.step, time.monotonic()


def _means(start, end):
    """(mean loss or None, steps a second) between two (seconds, step, sum of losses, number of losses)."""
    seconds, steps, loss, losses = (new - old for new, old in zip(end, start))
    return loss / losses if losses else None, steps / max(seconds, 1e-9)


def duration(seconds):
    """3725 -> '1:02:05'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Interrupted(Exception):
    """A signal came during an evaluation: its result would be that of a part of the set."""


class GiveUpOnSignal(tf.train.SessionRunHook):
    """Raises Interrupted at the batch in which `stop`, a StopOnSignal, saw a signal: for evaluations."""

    def __init__(self, stop):
        self._stop = stop

    def before_run(self, run_context):
        self._stop.before_run(run_context)

    def after_run(self, run_context, run_values):
        if self._stop.signal_number is not None:
            raise Interrupted


class StopOnSignal(tf.train.SessionRunHook):
    """Ends training after the step in which Ctrl-C, SIGTERM or SIGHUP came, so that it is saved; a second one kills.

    `signal_number` tells afterwards which came.  Estimators put in handlers of their own, so these are renewed
    before every step.  While `waits` is set, for hosts that may never come, the first signal kills: no step would end.
    """
    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, *, waits=False):
        self.waits, self.signal_number, self._first = waits, None, -math.inf
        # `nohup` has SIGHUP ignored, a script's `&` SIGINT, and so they stay.
        self._heard = [number for number in self.SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        # Python calls handlers between two of its own instructions, and two signals of a kind once: in a step, which
        # may take minutes, the first would be heard at its end and the second never.  This socket hears each at once.
        self._arrived, self._written = socket.socketpair()
        for end in (self._arrived, self._written):
            end.setblocking(False)
        self._lock = threading.RLock()  # a handler may interrupt another one
        signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        self._install()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def name(self):
        """What the signal is called that came."""
        return "Ctrl-C" if self.signal_number == signal.SIGINT else signal.Signals(self.signal_number).name

    def _install(self):
        for number in self._heard:
            signal.signal(number, self._count)

    def _listen(self):
        while True:
            select.select([self._arrived], [], [])
            self._count()

    def _count(self, *_):
        """Takes note of the signals that arrived: from the thread in the middle of a step, else as a handler."""
        with self._lock, contextlib.suppress(BlockingIOError):
            for number in self._arrived.recv(1024):
                now = time.monotonic()
                if number not in self._heard or now - self._first < ECHO_SECONDS:
                    continue
                if self.waits:
                    with contextlib.suppress(OSError):
                        os.write(2, b"signal %d: stopped before the first step, with nothing to save\n" % number)
                    os._exit(128 + number)
                if self.signal_number is not None:
                    if number != signal.SIGHUP:  # nobody's impatience: shells and terminals send it several times
                        os._exit(128 + number)
                    continue
                self.signal_number, self._first = number, now
                # The terminal, or the `tee` that got this signal too, may be gone: what they are told is lost, and the
                # step is saved.
                sys.stdout, sys.stderr = (commands.GuardedStream(stream, lambda: contextlib.suppress(OSError))
                                          for stream in (sys.stdout, sys.stderr))
                with contextlib.suppress(OSError):
                    os.write(2, b"signal %d: stopping after this step; SIGINT or SIGTERM now stop at once\n" % number)

    def before_run(self, run_context):
        self._install()

    def after_run(self, run_context, run_values):
        if self.signal_number is not None:
            run_context.request_stop()


class RunHooks(NamedTuple):
    """What accompanies a run over all its calls of train()."""
    stop: StopOnSignal
    losses: loss_watch.LossWatch
    by_minutes: saving.SaverByMinutes
    in_step: hosts.HostsInStep | None  # where there are several hosts

    @classmethod
    def of(cls, config, strategy, step):
        """Those of a run that goes on from `step`; the signals are heard from now on."""
        several = strategy == devices.MULTI_WORKER
        stop, by_minutes = StopOnSignal(waits=several), saving.SaverByMinutes(config)
        return cls(stop, loss_watch.LossWatch(config, step), by_minutes,
                   hosts.HostsInStep(stop, by_minutes, config.model_dir) if several else None)

    @property
    def stopped(self):
        """Whether a signal, on whichever host, has ended the training."""
        return self.in_step.stopped if self.in_step else self.stop.signal_number is not None

    def alone(self):
        """A context in which what is built and run does not know of other hosts."""
        return hosts.alone() if self.in_step else contextlib.nullcontext()

    # Under several devices AutoGraph would rewrite the code that builds the graph, for as long as building it takes.
    @tf.autograph.experimental.do_not_convert
    def train(self, estimator, input_fn, progress, target, *, last):
        """`estimator.train` to the step `target`, the `last` one or not, or until a signal; what is reached is saved.
        """
        if self.in_step:
            self.in_step.train(estimator, input_fn, target, progress, last=last)
        else:
            # A TPUEstimator counts on its own hook where a TPU makes many steps at once.
            savers = [] if estimator.config.cluster else [workarounds.Saver(estimator, self.by_minutes)]
            estimator.train(input_fn, max_steps=target, hooks=[*savers, self.by_minutes, progress, self.stop],
                            saving_listeners=[self.by_minutes])
        if progress.unsaid and self.stop.signal_number is None:
            raise progress.unsaid
