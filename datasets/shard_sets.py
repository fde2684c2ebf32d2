"""Which shards a config reads for training and for evaluation, and whether they fit it (no TensorFlow here)."""
import hashlib
import json
import math
import os
from typing import NamedTuple

from configs import reading, storage
from configs.errors import UserError
from datasets import integrity, manifest, repair, shard_files, vocabularies
from datasets.manifest import EVAL, TRAIN  # noqa: F401 (for those who ask for a split)
from encoder import bpe


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
    left_out: tuple = ()  # names of files that the config's globs take in and the rules of shard_files.py do not

    @property
    def shards(self):
        """Those of all parts."""
        return [shard for part in self.parts for shard in part.shards]

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
    def names(self):
        """The file names of all shards."""
        return [os.path.basename(shard.path) for shard in self.shards]

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

    "n_vocab" must be settled (vocabularies.complete) with the config's skip_corrupt_records.

    With the config's skip_corrupt_records a damaged shard is replaced by a copy of its good records, in model_dir.
    Raises UserError: nothing there, damaged or contradictory shards.
    """
    choices = shard_files.choose(config, split)
    every = [path for choice in choices for path in choice.paths]
    listed, vocabulary = manifest.look_up(every)
    if config.skip_corrupt_records:
        by_path = repair.replace(listed, folder=repair_folder(config), limit=config.n_vocab, write=cache)
    else:
        by_path = manifest.shards_of(listed, cache)
    sizes = [by_path[path].text_bytes for path in every]
    parts = tuple(Part(tuple(by_path[path] for path in choice.paths), choice.weight) for choice in choices)
    left_out = tuple(os.path.basename(path) for choice in choices for path in choice.left_out)
    return ShardSet(parts, vocabulary, None if None in sizes else sum(sizes), left_out)


def repair_folder(config):
    return storage.join(config.model_dir, repair.FOLDER)


def check(shards, config, encoder):
    """Raises UserError where the ids in the ShardSet are not those of this network and vocabulary."""
    path = shards.shards[0].path
    if shards.vocabulary not in (None, encoder.fingerprint):
        raise UserError(f"{path} was encoded with another vocabulary ({shards.vocabulary:.12}) than"
                        f" {bpe.name_of(config.encoder_path)} ({encoder.fingerprint:.12}); encode the text anew with"
                        f" this one, or {vocabularies.remedy(path, shards.vocabulary)}")
    vocabularies.check(config, encoder)
    for shard in shards.shards:
        if shard.largest_id >= config.n_vocab:
            raise UserError(f'{shard.path} holds token id {shard.largest_id}, but "n_vocab" is {config.n_vocab};'
                            " the shard was made with another vocabulary")


def overlap_warnings(train, evaluation):
    """A line where the two ShardSets share shards, by path, whatever links lead there, or by contents."""
    trained, evaluated = ([shard for shard in some.shards if shard.records] for some in (train, evaluation))
    paths = {os.path.realpath(shard.path) for shard in trained}
    others = [shard for shard in evaluated if os.path.realpath(shard.path) not in paths]
    common = set(map(_counts, trained)) & set(map(_counts, others))
    contents = {_sha256(shard) for shard in trained if _counts(shard) in common}
    differ = {shard.path for shard in others if _counts(shard) not in common or _sha256(shard) not in contents}
    shared = list(dict.fromkeys(shard.path for shard in evaluated if shard.path not in differ))
    if not shared:
        return []
    verb = "is" if len(shared) == 1 else "are"
    return [f"{reading.shorten(shared)} {verb} trained on and evaluated on; the evaluation will look too good"]


def _counts(shard):
    return shard.size, shard.records, shard.tokens


def _sha256(shard):
    """That of the file, which is read where nothing notes it: seldom, since another size or count tells files apart."""
    return shard.sha256 or integrity.survey(integrity.ShardToRead(shard.path, None)).shard.sha256
