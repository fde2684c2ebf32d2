"""Copies the newest checkpoint of a run to BACKUP_DIR/step-N, which can be used as a model_dir; both may be gs://.

    python3 tools/backup_checkpoint.py gs://bucket/runs/345M gs://other-bucket/backups --keep 7
"""
import os
import re
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

from configs import commands, errors, start, storage
from configs.errors import UserError
from models.checkpoints import state_file

FOLDER = "step-"
NOTE = "backup.txt"  # in a copy: the name of the checkpoint, the sign that this tool made it
ATTEMPTS = 3


def main(argv=None):
    args = _arguments(argv)
    for folder in (args.model_dir, args.backup_dir):
        storage.check_for_tensorflow(folder, "the folder")
    storage.silence_tensorflow()
    with start.importing():
        import tensorflow as tf  # here and not above: it takes seconds, which --help need not cost
    folder, size = _persist(back_up, args.model_dir, args.backup_dir)
    print(f"{folder}: {f'{size:,} bytes copied' if size else 'is there already'}")
    for old in backups(args.backup_dir, folder)[:-args.keep]:
        _persist(tf.io.gfile.rmtree, old)
        print(f"{old}: deleted, {args.keep} newer ones are kept")
    return 0


def _persist(function, *arguments):
    """The function's result; it is called again when it misses a file.

    The run may delete a checkpoint while it is read, and for TensorFlow a folder is missing when Google Storage fails.
    """
    import tensorflow as tf
    for left in reversed(range(ATTEMPTS)):
        try:
            return function(*arguments)
        except tf.errors.NotFoundError:
            if not left:
                raise


def back_up(model_dir, backup_dir):
    """(folder of the copy, bytes that were copied) of the newest checkpoint of which all can be read."""
    from models.checkpoints import run_checkpoints
    path = _newest_whole(model_dir)
    if path is None:
        raise UserError(f"{model_dir} holds no checkpoint; nothing is copied")
    folder = storage.join(backup_dir, f"{FOLDER}{run_checkpoints.step_of(path)}")
    if _is_whole(folder):
        return folder, 0
    size = run_checkpoints.copy(path, folder)
    storage.write_whole(storage.join(folder, NOTE), os.path.basename(path) + "\n")
    return folder, size


def _newest_whole(model_dir):
    """As run_checkpoints.newest_whole.  Raises NotFoundError where the run has saved another one meanwhile."""
    import tensorflow as tf

    from models.checkpoints import run_checkpoints
    named, path = run_checkpoints.latest(model_dir), None
    try:
        path = run_checkpoints.newest_whole(model_dir, "give another MODEL_DIR")
    except UserError:
        if run_checkpoints.latest(model_dir) == named:
            raise
    if path != named and run_checkpoints.latest(model_dir) != named:
        raise tf.errors.NotFoundError(None, None, f"{named}: the run has saved another one meanwhile")
    return path


def _is_whole(folder):
    """Whether `folder` holds a copy of which all can be read.  One without the file `checkpoint` was cut short."""
    from models.checkpoints import run_checkpoints, tf_checkpoint
    try:
        path = run_checkpoints.latest(folder)
        return path is not None and run_checkpoints.read_whole(path) is None
    except tf_checkpoint.Damaged:
        return False


def backups(backup_dir, last):
    """Folders of copies, the oldest copy first and `last` last: what this tool made and in which no run has gone on."""
    import tensorflow as tf
    notes = storage.glob(storage.below(backup_dir, f"{FOLDER}*/{NOTE}"))
    notes = [path for path in notes if re.search(rf"/{FOLDER}\d+/[^/]+$", path)]
    # Not by step alone: another run's may be higher.  The times are in whole seconds.
    made = {os.path.dirname(path): tf.io.gfile.stat(path).mtime_nsec for path in notes}
    def age(folder):
        name = os.path.basename(folder)
        return name == os.path.basename(last), made[folder], int(name[len(FOLDER):])
    return sorted(filter(_is_as_copied, made), key=age)


def _is_as_copied(folder):
    """Whether the newest checkpoint in the folder is the one that was copied."""
    newest = os.path.basename(state_file.named_newest(folder) or "")
    return storage.read_bytes(storage.join(folder, NOTE)) == os.fsencode(newest + "\n")


def _arguments(argv):
    parser = errors.script_parser(__doc__)
    parser.add_argument("model_dir", help="of the run")
    parser.add_argument("backup_dir", help="gets a folder for each copy")
    parser.add_argument("--keep", type=errors.at_least(1), default=7, help="newest copies that are kept")
    return parser.parse_args(argv)


if __name__ == "__main__":
    commands.run(main)
