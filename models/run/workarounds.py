"""Every private touch of TensorFlow 2.15.1 around a run: the normal way, why it fails here, when to look again.

What the network itself needs of that kind stands where it is used: models/replicas.py, models/cpu/compiled.py and
models/cpu/onednn.py.  Look again at all of it with another release of TensorFlow.
"""
import contextlib
import ctypes
import functools
import gc
import logging
import os
import signal
import sys
import threading

import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.framework import ops
from tensorflow.python.tpu import preempted_hook
from tensorflow.python.training import monitored_session
from tensorflow_estimator.python.estimator import estimator as estimators
from tensorflow_estimator.python.estimator.tpu import error_handling

from configs import arguments, cluster, errors, tpu_names
from models import metrics
from models.checkpoints import run_checkpoints
from models.run import devices, preemption


def prepare():
    """To be called before all else: graph mode, none of TensorFlow's own lines, errors that are raised."""
    # Normally eager execution stays on.  Here replicas on several CPU devices then hang in an Estimator's session, and
    # signals are swallowed.
    tf.disable_eager_execution()
    tf.get_logger().setLevel(logging.CRITICAL)  # what goes wrong reaches the user as an exception
    # Normally a session that loses its files is made again, without a word and without end: a run whose storage is gone
    # would go on from its last checkpoint with the data behind its last step, and TPUEstimator would take the error for
    # the end of the training.  Now it is an error, and the next start goes on as it should.
    if cluster.VARIABLE not in os.environ:  # several hosts are dealt with in hosts.py
        monitored_session._PREEMPTION_ERRORS = ()
        error_handling._IGNORED_ERRORS = ()
    error_handling.ErrorRendezvous = FirstCause
    # Normally an error that ends a thread is printed.  But that of TensorBoard's file is also raised where the next
    # event is written.
    threading.excepthook = _tell_of_a_thread
    # Normally Python's collector goes through all objects, of which most are those of TensorFlow's modules and stay.
    if not gc.get_freeze_count():
        gc.freeze()


def _tell_of_a_thread(error, tell=threading.excepthook):
    if not error.thread or error.thread.name != "EventLoggerThread":
        tell(error)


class FirstCause(error_handling.ErrorRendezvous):
    """Raises the first error of a TPU's threads, but for one that only says that the session is closed.

    Normally the first error that is noted counts.  But a thread that feeds or fetches finds the session closed after
    the training failed, and may say so before the training says why.
    """

    _closed = None

    def record_error(self, source, exc_info, session=None):
        if source in ("infeed", "outfeed") and "closed Session" in str(exc_info[1]):
            self._closed = exc_info[1]
        else:
            super().record_error(source, exc_info, session)

    def raise_errors(self, timeout_sec=0):
        with preemption.known_first():
            super().raise_errors(timeout_sec)
        if self._closed:
            raise self._closed


def resolver(tpu):
    """The resolver of a tpu_names.Tpu; if that was found by its name, the process ends soon after its preemption.

    Normally CloudTPUPreemptedHook, which TPUEstimator adds for a TPU that was resolved by name, ends the process.  Its
    thread fails: it dies of the first node that is READY (recoverable() reads absl's flags, which nobody parsed) and of
    every answer that does not come, says nothing when it ends the process, lets each session end up to 30 seconds late,
    and sees neither generation nor a new session that waits for a dead node (for a day).  So the hook starts our thread
    in the place of its own.  Look again when recoverable() works without flags.
    """
    if tpu.nodes:
        watch = preemption.NodeWatch(tpu)
        watch.start()
        preempted_hook._TPUPollingThread = lambda cluster, session: watch
    elif tpu.name != tpu_names.LOCAL:
        arguments.note(f"--tpu {tpu}: whether its node was preempted is noticed by the connection alone")
    return tpu_names.resolver(tpu)


def session_config(*, on_tpu=False):
    """What every session runs with: on CPUs a graph runs as it was built.

    Normally TensorFlow's Grappler rewrites each graph before its first run.  On CPUs that took up to a second of
    every training, evaluation and generation, made no step faster, and kept up to 180 MB; measure again with another
    release.
    """
    config = tf.ConfigProto(allow_soft_placement=True)
    options = config.graph_options.rewrite_options
    options.disable_meta_optimizer = not on_tpu and not devices.devices()
    # Where Grappler runs, two of its parts stay off.  The remapper's kernels were up to four times slower on CPUs.  The
    # plan of what to keep in memory complains of each operation that it cannot price.
    options.remapping = RewriterConfig.OFF
    options.memory_optimization = RewriterConfig.NO_MEM_OPT
    return config


@contextlib.contextmanager
def without_points():
    """Inside, `estimator.evaluate` writes no points for TensorBoard.

    Normally it writes them into `eval/`.  There they would lie between those of the trainings, which may be of a part
    of the set, and a run that nobody may write to could not be evaluated.
    """
    names = "_write_dict_to_summary", "_write_checkpoint_path_to_summary"
    before = {name: getattr(estimators, name) for name in names}
    for name in names:
        setattr(estimators, name, lambda **_: None)
    try:
        yield
    finally:
        for name, write in before.items():
            setattr(estimators, name, write)


def release_graphs():
    """Lets go of the graphs of trainings and evaluations that are over.

    Normally a graph goes with its last reference.  But tf.custom_gradient registers each gradient for good, and with it
    the tensors that it refers to and their graph: tens of megabytes for every evaluation.
    """
    registered = ops.gradient_registry
    for name in [name for name in registered.list() if name.startswith("CustomGradient-")]:
        del registered._registry[name]
    gc.collect()


def release_heap():
    """Returns to the system what the C library's heap keeps though it is free: up to 100 MB after a graph was built.

    Normally the heap shrinks by itself.  Needs glibc, and does nothing elsewhere.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def bad_alloc_told(line):
    """Inside, a std::bad_alloc that nobody catches ends the process with `line` and the status of a user's mistake.

    Normally what goes wrong in a step is raised.  But some of what TensorFlow's threads throw ends the process by
    SIGABRT, with nothing but the name of the exception.  Needs GNU's C++ library, and does nothing elsewhere.
    """
    try:
        library = ctypes.CDLL("libstdc++.so.6")
        set_handler, thrown = library["_ZSt13set_terminatePFvvE"], library["__cxa_current_exception_type"]
    except (OSError, AttributeError):
        yield
        return
    set_handler.argtypes, set_handler.restype, thrown.restype = [ctypes.c_void_p], ctypes.c_void_p, ctypes.c_void_p
    before = []

    @ctypes.CFUNCTYPE(None)
    def terminated():
        kind = thrown()  # a std::type_info: a pointer to its functions, and one to its name
        name = ctypes.cast(kind, ctypes.POINTER(ctypes.c_char_p))[1] if kind else None
        if name != b"St9bad_alloc":
            ctypes.CFUNCTYPE(None)(before[0])()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os.write(2, f"error: {line}\n".encode())
        os._exit(errors.USER_ERROR)
    before.append(set_handler(ctypes.cast(terminated, ctypes.c_void_p)))
    try:
        yield
    finally:
        set_handler(before[0])


@functools.lru_cache(maxsize=None)
def compile_silently():
    """Lets XLA's first compilation of the process be one that nobody hears.

    Normally TF_CPP_MIN_LOG_LEVEL silences TensorFlow.  But the first compilation reports itself on stderr all the same.
    """
    if devices.devices():  # nothing is compiled for GPUs
        return
    with _without_stderr(), tf.Graph().as_default(), tf.Session(config=session_config()) as session:
        x = tf.placeholder(tf.float32, [])  # a constant would be folded instead of compiled
        session.run(tf.function(tf.negative, jit_compile=True, autograph=False)(x), {x: 1.0})


@contextlib.contextmanager
def _without_stderr():
    try:
        kept = os.dup(2)
    except OSError:  # closed: silent already
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def ended_by_ctrl_c(model_fn):
    """`model_fn`, whose training on a TPU ends by Ctrl-C as it does by SIGTERM: saved.

    Normally a handler stays where it was put.  But TPUEstimator's own hook lets Ctrl-C kill at once before every run,
    and only hooks that the model_fn gives come behind that one.
    """
    def ended(features, labels, mode, params):
        spec = model_fn(features, labels, mode, params)
        training = mode == tf.estimator.ModeKeys.TRAIN
        return spec._replace(training_hooks=(_KeepInterrupt(),)) if training else spec
    return ended


class Saver(tf.train.CheckpointSaverHook):
    """Saves every so many steps, but not at once what the session has just restored.  Stands before hooks.Progress.

    Normally an Estimator adds TensorFlow's own hook.  But that one saves as soon as there is a session, so that each
    checkpoint is written twice for an evaluation; and it writes the graph into TensorBoard's file each time, where
    here the file's opening does (each copy takes time and memory).  Progress flushes that file at the end.
    And after every run it runs the session once more to read the step; after a run of one step, this one does not.
    `by_minutes` is the run's saving.SaverByMinutes.
    """

    def __init__(self, estimator, by_minutes):
        # Not Estimator.train(saving_listeners), which several hosts refuse.
        super().__init__(estimator.model_dir, save_steps=estimator.config.save_checkpoints_steps, save_graph_def=False,
                         listeners=[by_minutes])

    def begin(self):
        super().begin()
        if metrics.of_each_step(metrics.collected()):
            self._set_steps_per_run(1)

    def after_create_session(self, session, coord):
        step = session.run(self._global_step_tensor)
        if not run_checkpoints.is_at(self._checkpoint_dir, step):
            self._save(session, step)
        self._timer.update_last_triggered_step(step)


class _KeepInterrupt(tf.train.SessionRunHook):
    """Renews the handler of SIGINT before every run."""

    def begin(self):
        self._handler = signal.getsignal(signal.SIGINT)

    def before_run(self, run_context):
        signal.signal(signal.SIGINT, self._handler)
