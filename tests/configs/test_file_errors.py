"""What is said of a file that could not be read or written."""
import errno
import os

import pytest
import tensorflow as tf

from configs import file_errors


@pytest.mark.parametrize("error, said", [
    (RuntimeError("run/events.out.tfevents.1.vm; No space left on device"),
     "run/events.out.tfevents.1.vm: No space left on device"),
    (tf.errors.UnknownError(None, None, "a/model.ckpt.index; Input/output error"),
     "a/model.ckpt.index: Input/output error"),
    (tf.errors.ResourceExhaustedError(None, None, "No space left on device"), "No space left on device"),
    (tf.errors.ResourceExhaustedError(None, None, "a/model.ckpt; File too large"), "a/model.ckpt: File too large"),
    (RuntimeError("Input/output error"), None), (ValueError("a; No space left on device"), None)])
def test_what_tensorflow_says_of_a_file_names_it(error, said):
    assert file_errors.blame(error) == said


def test_every_cause_has_a_remedy_of_its_own_kind():
    def remedy(number):
        return file_errors.remedy(OSError(number, os.strerror(number), "a"))
    assert "ulimit -n" in remedy(errno.EMFILE) and "room" in remedy(errno.ENOSPC) and "ulimit -f" in remedy(errno.EFBIG)
    assert remedy(errno.EXDEV) == file_errors.NO_REMEDY
