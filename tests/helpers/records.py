"""What shards hold."""
from datasets import integrity, manifest, tfrecords


def read(path):
    """Returns [(key bytes, ids int64 [T])] of a shard.  Raises UserError where a record is damaged."""
    return [(tfrecords.features(payload)["hash"].bytes_list.value[0], ids)
            for payload, ids in integrity.read(str(path))]


def shards_of(*paths):
    """[Shard] of files, from their manifests or else from reading them."""
    shards = manifest.shards_of(manifest.look_up(paths)[0])
    return [shards[path] for path in paths]
