"""The record format: TFRecord files of tf.train.Example {`hash`: one bytes, `text`: int64 list of token ids}.

Written and read without TensorFlow, so that the workers which build a data set start in a blink.  Sources:
https://github.com/tensorflow/tensorflow/blob/v2.15.1/tensorflow/core/example/feature.proto and
https://protobuf.dev/programming-guides/encoding for what is inside.
"""
from __future__ import annotations

import hashlib
import os
import secrets
from typing import NamedTuple

import numpy as np

from configs.errors import UserError
from datasets.framing import FOOTER_BYTES, HEADER_BYTES, REMEDY, frame, read

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5  # protobuf's wire types
BYTES_LIST, INT64_LIST = 1, 3  # fields of tf.train.Feature
HASH, TEXT = b"\x0a\x04hash", b"\x0a\x04text"  # the names of both features as field 1 of their entries
GROUP_TOKENS = 1 << 16  # that are packed at once


class Shard(NamedTuple):
    """What one file holds.  Without records `shortest` is 0 and `largest_id` -1."""
    path: str
    records: int
    tokens: int
    text_bytes: int | None  # UTF-8 bytes of the text that was encoded; None when only the ids are known
    size: int  # bytes of the file
    sha256: str | None  # None when the file was not read whole
    shortest: int  # tokens of the shortest record
    largest_id: int


class IdError(ValueError):
    """A token id that no vocabulary or not this one has."""


def write(path, documents, temporary_folder=None):
    """Writes `documents`, an iterable of (key bytes, token ids int [T], text bytes int), and returns the Shard.

    The local file `path` appears when it is complete and on disk; until then it is a file of another name in
    `temporary_folder` (default: the same folder; it must be on the same file system).
    """
    temporary = os.path.join(temporary_folder or os.path.dirname(path) or ".",
                             f".partial-{secrets.token_hex(8)}-{os.path.basename(path)}")
    records = tokens = text_bytes = size = 0
    shortest, largest_id, digest = None, -1, hashlib.sha256()
    try:
        with open(temporary, "wb") as f:
            for group in groups(documents, lambda document: len(document[1]) + 1, GROUP_TOKENS):
                keys, ids, lengths_of_texts = zip(*group)
                lengths, together = [len(one) for one in ids], np.concatenate(ids, dtype=np.int64, casting="unsafe")
                data = b"".join(map(frame, _examples(keys, together, lengths)))
                f.write(data)
                digest.update(data)
                records, tokens, size = records + len(group), tokens + len(together), size + len(data)
                text_bytes += sum(lengths_of_texts)
                shortest = min(lengths) if shortest is None else min(shortest, *lengths)
                largest_id = int(np.max(together, initial=largest_id))
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename = error.filename or path  # a failed write does not say of which file
        raise
    return Shard(path, records, tokens, text_bytes, size, digest.hexdigest(), shortest or 0, largest_id)


def scan(path):
    """The Shard of a file, from reading all of it; text bytes and sha256 stay unknown.  Raises UserError."""
    records = tokens = size = 0
    shortest, largest_id = None, -1
    for offset, payload in read(path):
        try:
            ids = token_ids(payload)
        except ValueError as error:
            raise UserError(f"{path}: record {records} at byte {offset} {error}: {REMEDY}")
        records, tokens = records + 1, tokens + len(ids)
        shortest = len(ids) if shortest is None else min(shortest, len(ids))
        largest_id = max(largest_id, int(np.max(ids, initial=-1)))
        size = offset + HEADER_BYTES + len(payload) + FOOTER_BYTES
    return Shard(path, records, tokens, None, size, None, shortest or 0, largest_id)


def groups(items, size, limit):
    """Yields lists of consecutive items, each list as soon as the sizes in it add up to `limit`."""
    group, total = [], 0
    for item in items:
        group.append(item)
        total += size(item)
        if total >= limit:
            yield group
            group, total = [], 0
    if group:
        yield group


def encode(key, ids):
    """(bytes, int [T] >= 0) -> the bytes of a tf.train.Example, features sorted by name, ids packed."""
    return _example(key, encode_varints(ids))


def _examples(keys, ids, lengths):
    """Yields what `encode` gives for each of the keys; `ids` are those of all of them, `lengths` how many each has."""
    data, ends = _varints(ids)
    data, places = data.tobytes(), np.concatenate([[0], ends])[np.cumsum([0, *lengths])].tolist()
    for key, start, stop in zip(keys, places, places[1:]):
        yield _example(key, data[start:stop])


def _example(key, packed):
    hash_feature = _delimited(BYTES_LIST, _delimited(1, key))
    text_feature = _delimited(INT64_LIST, _delimited(1, packed) if packed else b"")
    return _delimited(1, _delimited(1, HASH + _delimited(2, hash_feature))
                      + _delimited(1, TEXT + _delimited(2, text_feature)))


def decode(payload):
    """The bytes of a tf.train.Example -> (key bytes, int64 [T]).  Raises ValueError naming what is missing."""
    features = _features(payload)
    keys = _nested(features.get("hash", b""), BYTES_LIST)
    values = [value for key in keys for value in _nested(key, 1)]
    if len(values) != 1:
        raise ValueError(f"has {len(values)} values in the feature `hash`, not one")
    return values[0], _token_ids(features)


def token_ids(payload, limit=None):
    """The bytes of a tf.train.Example -> int64 [T] >= 0.  Raises ValueError saying why it is no text.

    `limit` is the size of the vocabulary where it is known; an id beyond it raises IdError.
    """
    ids = _token_ids(_features(payload))
    if ids.min(initial=0) < 0:
        raise IdError(f"holds token id {ids.min()}; ids start at 0")
    if limit is not None and ids.max(initial=-1) >= limit:
        raise IdError(f"holds token id {ids.max()}, beyond the {limit} of the vocabulary")
    return ids


def encode_varints(values):
    """int [T] >= 0 -> bytes: seven bits a byte, low bits first, the high bit of a byte saying that more follow."""
    return _varints(values)[0].tobytes()


def _varints(values):
    """(uint8, int64 [T]): the bytes, and where those of each value end."""
    values = np.asarray(values, np.int64)
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
    return out[:sizes.sum()], ends


def decode_varints(data):
    """bytes -> int64 [T].  Raises ValueError where the last value is cut off or a value is too long."""
    data = np.frombuffer(data, np.uint8)
    if not len(data):
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(data < 0x80)
    if not len(ends) or ends[-1] != len(data) - 1:
        raise ValueError("ends within a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    longest = int((ends - starts).max()) + 1
    if longest > 10:
        raise ValueError("has a number of more than 64 bits")
    bits = data & 0x7F
    values = bits[starts].astype(np.uint64)
    for k in range(1, longest):  # whole arrays and a product, as masks would cost twice the time
        values |= bits.take(starts + k, mode="clip").astype(np.uint64) * (starts + k <= ends) << np.uint64(7 * k)
    return values.view(np.int64)


def _features(payload):
    """{name: the bytes of its tf.train.Feature}, whatever their order; unknown fields are passed over."""
    features = {}
    for entry in [entry for group in _nested(payload, 1) for entry in _nested(group, 1)]:
        name, value = (b"".join(_nested(entry, number)[-1:]) for number in (1, 2))
        features[name.decode("utf-8", "replace")] = value
    return features


def _nested(data, number):
    """List of the bytes of all fields of that number in a message.  Raises ValueError where one is a plain number."""
    values = [value for found, _, value in _fields(data) if found == number]
    if any(isinstance(value, int) for value in values):
        raise ValueError("is not a tf.train.Example")
    return values


def _token_ids(features):
    """int64 [T] of the feature `text`, packed or not.  Raises ValueError when there is no such list."""
    if "text" not in features:
        raise ValueError(f"has no feature `text` (it has: {', '.join(sorted(features)) or 'none'})")
    if any(number != INT64_LIST for number, _, _ in _fields(features["text"])):
        raise ValueError("has a feature `text` that is not an int64 list")
    numbers = [encode_varint(value) if wire == VARINT else value
               for values in _nested(features["text"], INT64_LIST) for number, wire, value in _fields(values)
               if number == 1]
    return decode_varints(b"".join(numbers))


def _fields(data):
    """Yields (field number, wire type, value) of a protobuf message: an int for varints, else bytes."""
    position, size = 0, len(data)
    while position < size:
        tag, position = _decode_varint(data, position)
        wire = tag & 7
        if wire == VARINT:
            value, position = _decode_varint(data, position)
        else:
            if wire == LENGTH_DELIMITED:
                length, position = _decode_varint(data, position)
            elif wire in (FIXED32, FIXED64):
                length = 4 if wire == FIXED32 else 8
            else:
                raise ValueError("is not a tf.train.Example")
            value, position = data[position:position + length], position + length
        if position > size:
            raise ValueError("is not a tf.train.Example: it ends within a field")
        yield tag >> 3, wire, value


def _delimited(number, data):
    """Field `number`, below 16, of a message."""
    return b"%c%b%b" % (number << 3 | LENGTH_DELIMITED, encode_varint(len(data)), data)


def encode_varint(value):
    """int >= 0 -> bytes."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _decode_varint(data, position):
    """(value, position after it)."""
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError("is not a tf.train.Example: it ends within a number")
