"""Which shards a config reads for training and for evaluation, and whether they fit it (no TensorFlow here)."""
import hashlib
import json
import math
import os
import re
from typing import NamedTuple

from configs import schema, storage
from configs.errors import UserError
from datasets import manifest, repair

SHORT, LONG = "openwebtext-newspaper", "openwebtext-newspaper-long"
# The original's inputs: parts of a mixture as (name of the shards, share).
OPENWEBTEXT = {"openwebtext": [(SHORT, 1.0)], "openwebtext_long": [(LONG, 1.0)],
               "openwebtext_longbiased": [(SHORT, 0.3), (LONG, 0.7)]}
# The original told training and evaluation shards apart by their numbers.
HELD_OUT = {1, 2, 11, 12, 16, 34, 36, 58, 60, 61, 62, 67, 83}
TRAIN, EVAL = "train", "eval"


class Part(NamedTuple):
    """Shards that are read as one text, and their share of a mixture."""
    shards: tuple  # of datasets.tfrecords.Shard
    weight: float

    @property
    def records(self):
        return sum(shard.records for shard in self.shards)

    @property
    def tokens(self):
        """Token ids in the records, without the <|endoftext|> that will be put behind each."""
        return sum(shard.tokens for shard in self.shards)


class ShardSet(NamedTuple):
    """All that one config reads for one purpose."""
    parts: tuple
    vocabulary: str  # fingerprint, or None where no manifest tells it
    text_bytes: int  # UTF-8 bytes of the text, or None where unknown

    @property
    def records(self):
        return sum(part.records for part in self.parts)

    @property
    def tokens(self):
        return sum(part.tokens for part in self.parts)

    @property
    def targets(self):
        """Tokens to predict where all documents are one text, <|endoftext|> behind each."""
        return self.tokens + self.records - 1

    def bits_per_byte(self, loss):
        """Bits for each byte of the text at a mean loss of a token, in nats; None where the bytes are not known."""
        return loss / math.log(2) * self.targets / self.text_bytes if self.text_bytes else None

    @property
    def fingerprint(self):
        """Hex sha256 over all that decides the order of the data, wherever the shards lie."""
        facts = [[part.weight, [[os.path.basename(shard.path), shard.records, shard.tokens] for shard in part.shards]]
                 for part in self.parts]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def read(config, encoder, split, cache=True):
    """What `find` gives, after `check`."""
    shards = find(config, split, cache)
    check(shards, config, encoder)
    return shards


def find(config, split, cache=True):
    """The ShardSet for `split`, TRAIN or EVAL; without `cache` nothing is written.

    With the config's skip_corrupt_records a damaged shard is replaced by a copy of its good records, in model_dir.
    Raises UserError: nothing there, damaged or contradictory shards.
    """
    if config.input == schema.FILES_INPUT:
        parts = _files(config, split)
    else:
        parts = [(_openwebtext_shards(config, name, split), weight) for name, weight in OPENWEBTEXT[config.input]]
    every = [path for paths, _ in parts for path in paths]
    listed, vocabulary = manifest.look_up(every)
    if config.skip_corrupt_records:
        by_path = repair.replace(listed, folder=repair_folder(config), limit=config.n_vocab, write=cache)
    else:
        by_path = manifest.shards_of(listed, cache)
    sizes = [by_path[path].text_bytes for path in every]
    return ShardSet(tuple(Part(tuple(by_path[path] for path in paths), weight) for paths, weight in parts), vocabulary,
                    None if None in sizes else sum(sizes))


def repair_folder(config):
    return storage.join(config.model_dir, repair.FOLDER)


def check(shards, config, encoder):
    """Raises UserError where the ids in the ShardSet are not those of this network and vocabulary."""
    check_vocabulary(config, encoder)
    if shards.vocabulary not in (None, encoder.fingerprint):
        raise UserError(f"{shards.parts[0].shards[0].path} was encoded with another vocabulary"
                        f" ({shards.vocabulary:.12}) than that in {_vocabulary_of(config)} ({encoder.fingerprint:.12});"
                        ' encode the text anew with this one or set "encoder_path" to that one')
    for part in shards.parts:
        for shard in part.shards:
            if shard.largest_id >= config.n_vocab:
                raise UserError(f'{shard.path} holds token id {shard.largest_id}, but "n_vocab" is {config.n_vocab};'
                                " the shard was made with another vocabulary")


def check_vocabulary(config, encoder):
    """Raises UserError where the network has fewer ids than the vocabulary."""
    if encoder.size > config.n_vocab:
        raise UserError(f'"n_vocab" is {config.n_vocab}, but the vocabulary in {_vocabulary_of(config)} has'
                        f' {encoder.size} ids; set "n_vocab" to {encoder.size}')


def _vocabulary_of(config):
    return config.encoder_path or "GPT-2's own package"


def _files(config, split):
    """[(paths, weight)] of the config's train_files or eval_files."""
    key = f"{split}_files"
    given = getattr(config, key)
    if given is None:
        raise UserError(f'"{key}" is missing; set it to a glob of .tfrecords files below "data_path"')
    if isinstance(given, str):
        given = (given,)
    if isinstance(given[0], str):
        paths = [path for pattern in given for path in _match(config, pattern, key)]
        return [(list(dict.fromkeys(paths)), 1.0)]  # what two globs match is read once
    return [(_match(config, pattern, key), float(weight)) for pattern, weight in given]


def _match(config, pattern, key):
    pattern = storage.below(config.data_path, pattern)
    paths = [path for path in storage.glob(pattern) if not storage.is_folder(path)]
    if not paths:
        raise UserError(f'"{key}": no file matches {pattern}; make shards with datasets/create_tfrecords.py or set'
                        ' "data_path"')
    return sorted(paths, key=_natural)


def _openwebtext_shards(config, name, split):
    """Shards {name}_{i} to train on and {name}-eval_{i} to evaluate on; without the latter the original's split."""
    def numbered(stem):
        paths = storage.glob(storage.below(config.data_path, stem + "_*.tfrecords"))
        return {int(match.group(1)): path for path in paths if (match := re.search(r"_(\d+)\.tfrecords$", path))}
    everything, held_out = numbered(name), numbered(name + "-eval")
    if not held_out:
        held_out = {number: path for number, path in everything.items() if number in HELD_OUT}
        everything = {number: path for number, path in everything.items() if number not in HELD_OUT}
    chosen = everything if split == TRAIN else held_out
    if not chosen:
        stem = name if split == TRAIN else name + "-eval"
        without = "" if split == TRAIN else ', or set "eval_steps" to 0'
        raise UserError(f'"data_path": no file {storage.join(config.data_path, stem)}_*.tfrecords; make shards with'
                        f" datasets/create_tfrecords.py --name {name}{without}")
    return [path for _, path in sorted(chosen.items())]


def overlap(one, other):
    """Paths that both ShardSets read."""
    paths = {shard.path for part in other.parts for shard in part.shards}
    return [shard.path for part in one.parts for shard in part.shards if shard.path in paths]


def _natural(path):
    """Sorts x_2 before x_10."""
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", path)]
