"""Checkpoints by minutes, between those that workarounds.Saver writes by steps; how long it takes to write them."""
import time

import tensorflow.compat.v1 as tf

from configs import storage
from models.checkpoints import run_checkpoints, state_file, tf_checkpoint

SHARE = 0.02  # of the time since the last checkpoint: when writing one takes more, that is told
LEAST_SECONDS = 0.5  # less is nothing to tell of


class SaverByMinutes(tf.train.SessionRunHook, tf.train.CheckpointSaverListener):
    """Saves when "save_checkpoints_minutes" have passed without a checkpoint: a kill costs no more than that.

    "keep_checkpoint_max" does not count such a checkpoint, so it drives none of the others out.  It is removed when the
    next one, of whichever kind, is there.  One object accompanies a run over all its calls of train(): as a hook, and
    as the listener of the hook that saves by steps.  It also tells of each checkpoint that takes long to write.
    """

    def __init__(self, config, say=print):
        self._model_dir, self._say, self._most = config.model_dir, say, config.keep_checkpoint_max
        self._seconds = 60 * (config.save_checkpoints_minutes or float("inf"))
        self._own = state_file.uncounted(config.model_dir)  # path of the last that was saved by minutes, or None
        self._removed = None  # what before_save removed, in words that are not said yet
        self._last, self._step = None, None  # when the last checkpoint was there, and its step

    def begin(self):
        self._global_step = tf.train.get_global_step()

    def after_create_session(self, session, coord):
        self._safe = time.monotonic()  # a session begins with what a checkpoint holds
        if self._last is None:
            self._last = self._safe

    def after_run(self, run_context, run_values):
        if time.monotonic() - self._safe >= self._seconds:
            step = run_context.session.run(self._global_step)
            if step != self._step:
                self._save(run_context.session, step)

    def _save(self, session, step):
        self._begun = time.monotonic()
        saver, = session.graph.get_collection(tf.GraphKeys.SAVERS)
        path = saver.save(session, storage.join(self._model_dir, tf_checkpoint.NAME), global_step=step,
                          write_meta_graph=False, write_state=False)
        state_file.note_uncounted(path)
        self._replace_by(path)
        self._tell(step)

    def before_save(self, session, step):
        """Removes what a higher "keep_checkpoint_max" had kept: TensorFlow removes no more than one at each save."""
        self._begun = time.monotonic()
        for saver in tf.get_collection(tf.GraphKeys.SAVERS):
            there = saver.last_checkpoints
            surplus = there[:max(0, len(there) - (self._most or len(there)))]
            if surplus:
                for path in surplus:
                    run_checkpoints.remove(path)
                saver.recover_last_checkpoints(there[len(surplus):])
                self._removed = (f"removed {len(surplus)} checkpoints, up to step"
                                 f' {state_file.step_in_name(surplus[-1])}: "keep_checkpoint_max" is {self._most}')

    def after_save(self, session, step):
        """Takes note of a checkpoint that was saved by steps."""
        if self._own and state_file.step_in_name(self._own) == step:
            self._own = None  # it was written once more, and is counted now
        self._replace_by(None)
        self._tell(step)

    def end(self, *_):
        """Nothing is left to do: the hook that saves by steps also saves the last step."""

    def _replace_by(self, path):
        old, self._own = self._own, path
        if old and old != path:
            run_checkpoints.remove(old)

    def _tell(self, step):
        if self._removed:  # told now: a line that cannot be written would have ended the run unsaved
            said, self._removed = self._removed, None
            self._say(said)
        now = time.monotonic()
        taken, last = now - self._begun, self._last
        if last is not None and taken > max(LEAST_SECONDS, SHARE * (now - last)):
            self._say(f"saving step {step} took {taken:.2f} s, {taken / (now - last):.0%} of the time since the last"
                      " checkpoint")
        self._safe, self._last, self._step = now, now, step
