"""What shards hold."""
from datasets import integrity, manifest, tfrecords


def read(path):
    """[(key bytes, ids int64 [T])] of a shard, none of whose records may be damaged."""
    return [(tfrecords.features(piece.payload)["hash"].bytes_list.value[0], ids)
            for piece, ids in integrity.judged(str(path))]


def shards_of(*paths):
    """[Shard] of files, from their manifests or else from reading them."""
    shards = manifest.shards_of(manifest.look_up(paths)[0])
    return [shards[path] for path in paths]
