"""Runs of the command line, what they leave behind, and damage to it."""
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios

import pytest
import tensorflow.compat.v1 as tf

import main
from configs.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def command(*arguments, **options):
    return subprocess.run([sys.executable, os.path.join(ROOT, "main.py"), *arguments], capture_output=True, text=True,
                          timeout=240, **options)


def in_terminal(command, **options):
    """(Popen, file descriptor): the command in a terminal of its own; whoever closes the descriptor closes that."""
    ours, its = pty.openpty()

    def begin():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which whoever started the tests may have had ignored
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    process = subprocess.Popen(command, cwd=ROOT, stdin=its, stdout=its, stderr=its, start_new_session=True,
                               preexec_fn=begin, **options)
    os.close(its)
    return process, ours


def weights_of(model_dir, step):
    reader = tf.train.load_checkpoint(os.path.join(str(model_dir), "model.ckpt-%d" % step))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def scalars_of(folder):
    """{tag: [(step, value)]} of the events files in a folder, numbers in either of TensorBoard's forms."""
    found = {}
    for name in sorted(os.listdir(folder)):
        if "tfevents" in name:
            for event in tf.train.summary_iterator(os.path.join(folder, name)):
                for value in event.summary.value:
                    number = value.simple_value
                    if value.HasField("tensor") and value.tensor.dtype == tf.float32:
                        number = float(tf.make_ndarray(value.tensor))
                    found.setdefault(value.tag, []).append((event.step, number))
    return found


def stop_after(config, step, *arguments):
    """Runs the config in this process until a signal arrives in the given step."""
    from models.run import hooks

    class Stop(hooks.StopOnSignal):
        def after_run(self, run_context, run_values):
            if tf.train.get_global_step().eval(session=run_context.session) == step:
                self.signal_number = signal.SIGTERM
            super().after_run(run_context, run_values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hooks, "StopOnSignal", Stop)
        assert main.main(["--model", config, *arguments]) == 143


def mistake(*arguments):
    with pytest.raises(UserError) as caught:
        main.main(list(arguments))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def damage(path, how):
    data = path.read_bytes()
    if how == "cut off":
        path.write_bytes(data[:len(data) // 2])
    elif how == "missing":
        path.unlink()
    else:
        path.write_bytes(os.urandom(len(data)))
