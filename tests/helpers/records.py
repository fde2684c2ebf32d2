"""What shards hold, and small data sets to read."""
import os

import numpy as np

from datasets import integrity, manifest, tfrecords


def read(path):
    """Returns [(key bytes, ids int64 [T])] of a shard.  Raises UserError where a record is damaged."""
    return [(tfrecords.features(payload)["hash"].bytes_list.value[0], ids)
            for payload, ids in integrity.read(str(path))]


def shards_of(*paths):
    """[Shard] of files, from their manifests or else from reading them."""
    shards = manifest.shards_of(manifest.look_up(paths)[0])
    return [shards[path] for path in paths]


def write_data_set(folder, name, *, train=2, held_out=1, documents=3, length=40, vocabulary=None):
    """Writes so many shards of `documents` documents (equal in a split) and their manifest; returns the folder, str."""
    os.makedirs(folder, exist_ok=True)
    entries = []
    for split, suffix, count in (("train", "", train), ("eval", "-eval", held_out)):
        for number in range(count):
            path = os.path.join(folder, f"{name}{suffix}_{number}.tfrecords")
            ids = (np.arange(length) + (split == "eval")) % 200
            shard = tfrecords.write(path, [(b"%d" % i, ids, 4 * length) for i in range(documents)])
            entries.append(manifest.Entry(split, shard, {"kept": documents}))
    manifest.write(manifest.path_of(str(folder), name), {"name": name, "vocabulary": vocabulary}, entries)
    return str(folder)
