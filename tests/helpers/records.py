"""What the records of a shard hold."""
from datasets import integrity, tfrecords


def read(path):
    """[(key bytes, ids int64 [T])] of a shard, none of whose records may be damaged."""
    return [(tfrecords.features(piece.payload)["hash"].bytes_list.value[0], ids)
            for piece, ids in integrity.judged(str(path))]
