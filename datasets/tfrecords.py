"""The record format: TFRecord files of tf.train.Example {`hash`: one bytes, `text`: int64 list of token ids}.

Written and read without TensorFlow, so that the workers which build a data set start in a blink.  Sources:
https://github.com/tensorflow/tensorflow/blob/v2.15.1/tensorflow/core/example/example.proto and feature.proto beside it.
"""
from __future__ import annotations

import hashlib
import os
import re
import secrets
from typing import NamedTuple

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from configs import grouping, reading, storage
from datasets.framing import FOOTER_BYTES, HEADER_BYTES, frame

SUFFIX = ".tfrecords"
GROUP_TOKENS = 1 << 16  # that are packed at once
FACTS = {"records": int, "tokens": int, "text_bytes": (int, type(None)), "size": int, "sha256": (str, type(None)),
         "shortest": int, "largest_id": int}  # what a note in JSON tells of a Shard
COUNTS = ("records", "tokens", "size", "shortest", "largest_id")


def _example_class(numbers):
    """tf.train.Example as a class of protobuf, whose int64 lists hold values of the type `numbers`.

    It stands in a pool of its own, as TensorFlow registers the same messages in the common one.  The map of features
    is written as the list of its entries, which has the same bytes (https://protobuf.dev/programming-guides/proto3/#maps).
    """
    field = descriptor_pb2.FieldDescriptorProto
    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", syntax="proto3")
    for name, *fields in (
            ("BytesList", (many, "value", field.TYPE_BYTES)), ("FloatList", (many, "value", field.TYPE_FLOAT)),
            ("Int64List", (many, "value", numbers)),
            ("Feature", (one, "bytes_list", "BytesList"), (one, "float_list", "FloatList"),
             (one, "int64_list", "Int64List")),
            ("Entry", (one, "key", field.TYPE_STRING), (one, "value", "Feature")),
            ("Features", (many, "feature", "Entry")), ("Example", (one, "features", "Features"))):
        added = file.message_type.add(name=name)
        for number, (label, name_of_field, kind) in enumerate(fields, 1):
            kind = {"type_name": kind} if isinstance(kind, str) else {"type": kind}
            added.field.add(name=name_of_field, number=number, label=label, **kind)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Example"))


Example = _example_class(descriptor_pb2.FieldDescriptorProto.TYPE_INT64)
PackedExample = _example_class(descriptor_pb2.FieldDescriptorProto.TYPE_BYTES)  # packed numbers are a field of bytes


class Shard(NamedTuple):
    """What one file holds."""
    path: str
    records: int
    tokens: int
    text_bytes: int | None  # UTF-8 bytes of the text that was encoded; None when only the ids are known
    size: int  # bytes of the file
    sha256: str | None  # None when the file was not read whole
    shortest: int  # tokens of the shortest record, 0 where there is none
    largest_id: int  # -1 where there is none

    @classmethod
    def empty(cls, path):
        return cls(path, 0, 0, None, 0, None, 0, -1)

    @classmethod
    def of(cls, path, facts):
        """The Shard of what a note tells, its other fields by name.  Raises ValueError where that cannot be."""
        reading.check_kinds(facts, FACTS)
        for name, value in facts.items():
            if name not in FACTS:
                raise ValueError(f'"{name}" is not known')
            if type(value) is int and value < (-1 if name == "largest_id" else 0):
                raise ValueError(f'"{name}" is {value}')
        if facts.get("sha256") is not None and not re.fullmatch("[0-9a-f]{64}", facts["sha256"]):
            raise ValueError(f'"sha256" is {reading.shown(facts["sha256"])}')
        shard = cls(path, **{**dict.fromkeys(FACTS), **facts})
        if not shard._is_possible():
            raise ValueError(", ".join(f'"{name}" {facts[name]}' for name in COUNTS) + " cannot be of one file")
        return shard

    def _is_possible(self):
        """Whether the numbers, each of which may be, may be those of one file."""
        least = self.records * (HEADER_BYTES + FOOTER_BYTES) + self.tokens  # an id takes a byte or more
        return (self.size >= least and self.shortest * self.records <= self.tokens
                and (self.records > 1 or self.shortest == self.tokens) and (self.records > 0 or self.tokens == 0)
                and (self.largest_id >= 0) == (self.tokens > 0))

    def with_records(self, lengths, ids):
        """This Shard and more records: how many tokens each has, and the ids of all of them."""
        shortest = min(lengths) if not self.records else min(self.shortest, *lengths)
        return self._replace(records=self.records + len(lengths), tokens=self.tokens + len(ids), shortest=shortest,
                             largest_id=int(np.max(ids, initial=self.largest_id)))


class IdError(ValueError):
    """A token id that is negative or beyond the vocabulary."""


def write(path, documents, temporary_folder=None):
    """Writes `documents`, an iterable of (key bytes, token ids int [T], text bytes int), and returns the Shard.

    The local file `path` appears when it is complete and on disk; until then it is a file of another name in
    `temporary_folder` (default: the same folder; it must be on the same file system).
    """
    temporary = os.path.join(temporary_folder or os.path.dirname(path) or ".",
                             f"{storage.PARTIAL}{secrets.token_hex(8)}-{os.path.basename(path)}")
    shard, digest = Shard.empty(path)._replace(text_bytes=0), hashlib.sha256()
    with storage.written_whole(path, temporary) as f:
        for group in grouping.groups(documents, lambda document: len(document[1]) + 1, GROUP_TOKENS):
            keys, ids, text_bytes = zip(*group)
            data = b"".join(map(frame, encode(keys, ids)))
            f.write(data)
            digest.update(data)
            shard = shard.with_records([len(one) for one in ids], np.concatenate(ids))
            shard = shard._replace(size=shard.size + len(data), text_bytes=shard.text_bytes + sum(text_bytes))
    return shard._replace(sha256=digest.hexdigest())


def encode(keys, ids):
    """Yields a tf.train.Example as bytes for each key (bytes) and its ids (int [T] >= 0): features sorted by name.

    NumPy packs the ids of all of them at once: 26 M tokens/s in documents of 1,000 tokens, 14 where protobuf does it.
    """
    packed, ends = pack(np.concatenate(ids, dtype=np.int64, casting="unsafe"))
    places = np.concatenate([[0], ends])[np.cumsum([0, *map(len, ids)])].tolist()
    example = PackedExample(features={"feature": [{"key": "hash", "value": {"bytes_list": {}}},
                                                  {"key": "text", "value": {"int64_list": {}}}]})
    hash_, text = (entry.value for entry in example.features.feature)
    for key, start, stop in zip(keys, places, places[1:]):
        hash_.bytes_list.value[:] = [key]
        text.int64_list.value[:] = [packed[start:stop]] if stop > start else []
        yield example.SerializeToString()


def pack(values):
    """int64 [T] >= 0 -> (bytes, int64 [T], where those of each value end): as protobuf writes a list of numbers.

    Seven bits a byte, low bits first; the high bit says that more follow.
    """
    if values.size and values.min() < 0:
        raise ValueError(f"token ids start at 0, got {values.min()}")
    columns = max(1, -(-int(np.max(values, initial=0)).bit_length() // 7))
    sizes = np.ones(len(values), np.int64)
    for k in range(1, columns):
        sizes += values >= 1 << 7 * k
    ends = np.cumsum(sizes)
    out, starts = np.empty(sizes.sum() + columns, np.uint8), ends - sizes
    # The highest bytes first: what shorter values write beyond their end is then written over by what belongs there.
    for k in reversed(range(columns)):
        rest = values >> 7 * k
        out[starts + k] = rest & 0x7F | (rest > 0x7F).astype(np.uint8) << 7
    return out[:sizes.sum()].tobytes(), ends


def token_ids(payload, limit=None):
    """The bytes of a tf.train.Example -> int64 [T] >= 0.  Raises ValueError saying why it is no text.

    `limit` is the size of the vocabulary where it is known; an id beyond it raises IdError.
    """
    example = features(payload)
    if "text" not in example:
        raise ValueError(f"has no feature `text` (it has: {', '.join(sorted(example)) or 'none'})")
    if any(field.name != "int64_list" for field, _ in example["text"].ListFields()):
        raise ValueError("has a feature `text` that is not an int64 list")
    values = example["text"].int64_list.value
    ids = np.fromiter(values, np.int64, len(values))
    if ids.min(initial=0) < 0:
        raise IdError(f"holds token id {ids.min()}; ids start at 0")
    if limit is not None and ids.max(initial=-1) >= limit:
        raise IdError(f"holds token id {ids.max()}, beyond the {limit} of the vocabulary")
    return ids


def features(payload):
    """The bytes of a tf.train.Example -> {name: its tf.train.Feature}, whatever their order.  Raises ValueError."""
    try:
        return {entry.key: entry.value for entry in Example.FromString(payload).features.feature}
    except message.DecodeError:
        raise ValueError("is not a tf.train.Example")
