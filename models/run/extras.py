"""What a run leaves behind beside its checkpoints: no reason to end a training where it cannot be written."""
import contextlib

from configs import file_errors

LONGEST_REASON = 120
TOLD = set()  # paths


@contextlib.contextmanager
def written(path):
    """Inside, `path` is written; whatever hinders that is a warning, once for each path."""
    try:
        yield
    except Exception as error:  # of the disk, of Google Storage, of the library that draws
        if path not in TOLD:
            TOLD.add(path)
            reason = getattr(error, "strerror", None) or file_errors.blame(error) or f"{type(error).__name__}: {error}"
            reason = " ".join(reason.split())[:LONGEST_REASON]
            print(f"warning: {path} was not written ({reason}); the training goes on", flush=True)
