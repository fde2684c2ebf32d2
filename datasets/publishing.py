"""A finished data set in a local folder -> Google Storage: its shards and vocabulary, and last of all the manifest.

The local folder stays, so that the same command again copies only what is not there yet.
"""
import contextlib
import os

from configs import progress, storage
from configs.errors import UserError
from datasets import manifest, vocabulary_beside


def check(folder, local, name, encoder_path):
    """Raises UserError, or TensorFlow's error, where `name` in `local` cannot go to `folder`: before days of work."""
    target, source = (manifest.path_of(place, name) for place in (folder, local))
    if storage.exists(target):
        if not os.path.exists(source) or storage.read_bytes(source) != storage.read_bytes(target):
            other = "is not the same" if os.path.exists(source) else "is not there"
            raise UserError(f"{target} is there already and {source} {other}: choose another --name, or another"
                            " --output_dir")
        return
    vocabulary_beside.check(folder, encoder_path)
    probe = storage.join(folder, f".{name}.writable")
    storage.write_whole(probe, "create_tfrecords.py may write here\n")
    with contextlib.suppress(Exception):  # who may create objects may not always delete them
        storage.remove(probe)


def publish(folder, local, name, encoder_path):
    """Copies what `folder` lacks of the finished data set `name` in the folder `local`, and its vocabulary."""
    target, source = (manifest.path_of(place, name) for place in (folder, local))
    shards = {storage.join(folder, os.path.basename(entry.shard.path)): entry.shard
              for entry in manifest.load(source).entries}
    missing = {path: shard for path, shard in shards.items()
               if not storage.exists(path) or storage.size(path) != shard.size}
    if not missing and storage.exists(target):
        print(f"{target} is finished: nothing to do")
        return
    with progress.bar(sum(shard.size for shard in missing.values()), "copying", "B", unit_scale=True) as bar:
        for path, shard in missing.items():
            storage.copy(shard.path, path)
            bar.update(shard.size)
    vocabulary_beside.put(folder, encoder_path)
    storage.write_whole(target, storage.read_bytes(source))
    print(target)
