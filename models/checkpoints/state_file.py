"""Which checkpoint of a folder is the newest: TensorFlow's file "checkpoint", read and written without TensorFlow."""
import glob
import os
import re

from configs import storage

STATE_FILE = "checkpoint"
BEST = "best"  # the folder in model_dir of the best checkpoint
LONGEST = 1 << 20  # bytes of it that are read
FOLDERS = rb'(?:(?:[^"\\]|\\.)*/)?'  # regex: before a name, where TensorFlow writes \" for "


def named_newest(folder):
    """Path in `folder` of the checkpoint that its file "checkpoint" names, whether it is there or not, or None.

    Not by TensorFlow's latest_checkpoint, which finds the place of the original in a folder that was copied, would go
    wherever the file points to, and fails where it is not UTF-8.
    """
    match = re.search(rb'^model_checkpoint_path: "%s([^"/\\\0]+)"' % FOLDERS, _read(folder), re.MULTILINE)
    return storage.join(folder, os.fsdecode(match.group(1))) if match and match.group(1).strip(b".") else None


def all_in(folder):
    """Paths of the checkpoints that lie in `folder`, the newest first, whether they are whole or not."""
    return sorted((path[:-len(".index")] for path in storage.glob(storage.below(folder, "model.ckpt-*.index"))),
                  key=step_in_name, reverse=True)


def files_of(path):
    """Paths of the files of the checkpoint `path`."""
    return storage.glob(glob.escape(path) + ".*")


def newest(folder):
    """Path of the checkpoint that its file "checkpoint" names, or without that file, of the one of the last step."""
    path = named_newest(folder)
    return path if path or storage.exists(storage.join(folder, STATE_FILE)) else next(iter(all_in(folder)), None)


def note_newest(path):
    """Makes the file "checkpoint" beside the checkpoint `path` name it alone: TensorFlow restores that one."""
    _write(path, [path])


def note_run(path):
    """Makes the file "checkpoint" name `path` as the newest, and all before it as those that are counted.

    TensorFlow deletes only what it counts.  It no longer counts what lay there while "keep_checkpoint_max" was 0.
    """
    folder, step = path.rpartition("/")[0], step_in_name(path)
    before = [other for other in reversed(all_in(folder)) if step_in_name(other) < step]
    _write(path, before if before and path == uncounted(folder) else [*before, path])


def note_uncounted(path):
    """Makes the file "checkpoint" name `path` as the newest, but not among those that TensorFlow counts and deletes."""
    _write(path, _counted(path.rpartition("/")[0]))


def uncounted(folder):
    """Path of the newest checkpoint where `note_uncounted` named it, else None."""
    path = named_newest(folder)
    if path is None:
        return None
    counted = _counted(folder)
    return path if counted and path not in counted else None


def _counted(folder):
    """Paths of the checkpoints in `folder` that its file "checkpoint" counts, the oldest first."""
    names = re.findall(rb'^all_model_checkpoint_paths: "%s([^"/\\]+)"' % FOLDERS, _read(folder), re.MULTILINE)
    return [storage.join(folder, os.fsdecode(name)) for name in names]


def _write(newest, counted):
    """Writes the file "checkpoint" beside `newest`, unless it says so already."""
    # Names alone, as a path to another folder would not do: TensorFlow would restore from there.
    lines = [b'model_checkpoint_path: "%s"\n', *[b'all_model_checkpoint_paths: "%s"\n'] * len(counted)]
    content = b"".join(line % os.fsencode(os.path.basename(path)) for line, path in zip(lines, [newest, *counted]))
    folder = newest.rpartition("/")[0]
    if content != _read(folder):
        storage.write_whole(storage.join(folder, STATE_FILE), content)


def _read(folder):
    """The bytes of the folder's file "checkpoint", none where there is none."""
    state = storage.join(folder, STATE_FILE)
    return storage.read_bytes(state, LONGEST) if storage.exists(state) else b""


def step_in_name(path):
    """STEP of .../model.ckpt-STEP; -1 for another name."""
    match = re.search(r"-(\d+)$", path)
    return int(match.group(1)) if match else -1


def weights_source(config, path):
    """Where the weights of a run come from, in words; `path` is the checkpoint of its own that it goes on from."""
    return os.path.basename(path) if path else config.init_checkpoint or "scratch"
