"""TFRecord files as bytes: a length, its CRC, the payload, its CRC; where one is damaged, what of it is still good.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details.
"""
from __future__ import annotations

import functools
from typing import NamedTuple

import google_crc32c
import numpy as np

from configs import storage
from configs.errors import UserError

HEADER_BYTES, FOOTER_BYTES = 12, 4  # length and its CRC; the CRC of the payload
READ_BYTES = 1 << 22
FOREIGN, LENGTH, PAYLOAD, CUT = "no TFRecord file", "length", "payload", "cut off"  # kinds of damage
WORDS = {FOREIGN: "begins no uncompressed TFRecord file (its length does not match its CRC, and no record follows)",
         LENGTH: "has a damaged length (CRC mismatch)", PAYLOAD: "is damaged (CRC mismatch)", CUT: "is cut off"}
REMEDY = 'move the file elsewhere, then build or fetch it again; or set "skip_corrupt_records" to true, which leaves'\
         " such records out"


class Piece(NamedTuple):
    """A record, or a damaged stretch, which ends where the next whole record begins and counts as one record."""
    number: int  # pieces before it in the file
    offset: int
    kind: str | None  # of damage
    words: str | None  # on the damage
    payload: bytes | None  # of a whole record

    def __str__(self):
        return f"record {self.number} at byte {self.offset} {self.words}"


def frame(payload):
    """bytes -> bytes: the payload as a record of a TFRecord file."""
    length = len(payload).to_bytes(8, "little")
    return b"".join([length, masked_crc(length), payload, masked_crc(payload)])


def walk(path, seen=lambda data: None):
    """Yields the Pieces of a local or gs:// file from its start to its end, in bounded memory.

    `seen(bytes)` gets all bytes of the file, once and in order.  Raises UserError where the file is missing.
    """
    if not storage.exists(path):
        raise UserError(f"no file {path}")
    size = storage.size(path)
    with storage.open_file(path, "rb") as f:
        ahead = _Ahead(f, seen)
        offset = number = 0
        while offset < size:
            ahead.wanted = offset
            payload, kind, end = _record_at(ahead, offset, size)
            if kind:
                end = _next_after(ahead, offset, end, size)
                if kind == LENGTH and number == 0 and end == size:
                    kind = FOREIGN
            yield Piece(number, offset, kind, WORDS.get(kind), payload)
            offset, number = end, number + 1


class _Ahead:
    """Reads a file forward once; keeps in memory what it has read from byte `wanted` on, which must have been read."""

    def __init__(self, f, seen):
        self.f, self.seen = f, seen
        self.data, self.start, self.wanted = b"", 0, 0  # `data` begins at byte `start` of the file

    def get(self, offset, count):
        """The bytes [offset, offset + count) of the file, fewer at its end, from `wanted` on."""
        while self.start + len(self.data) < offset + count:
            more = self.f.read(max(READ_BYTES, offset + count - self.start - len(self.data)))
            if not more:
                break
            self.seen(more)
            self.data = self.data[self.wanted - self.start:] + more
            self.start = self.wanted
        return self.data[offset - self.start:offset - self.start + count]


def _record_at(ahead, offset, size):
    """(payload, kind of damage, where the record ends by its length), each None where there is none."""
    header = ahead.get(offset, HEADER_BYTES)
    length = _length(header)
    if length is None:
        return None, CUT if len(header) < HEADER_BYTES else LENGTH, None
    end = offset + HEADER_BYTES + length + FOOTER_BYTES
    body = ahead.get(offset + HEADER_BYTES, length + FOOTER_BYTES) if end <= size else b""  # a length may be anything
    if len(body) < length + FOOTER_BYTES:
        return None, CUT, None
    payload = body[:length]
    return (payload, None, end) if masked_crc(payload) == body[length:] else (None, PAYLOAD, end)


def _next_after(ahead, offset, end, size):
    """Where the next piece begins after the damaged one at `offset`; by its length that is `end`, if not None.

    An undamaged record may begin before `end`: bytes may be missing.
    """
    if end is not None and (end == size or _length(ahead.get(end, HEADER_BYTES)) is not None):
        return end
    offset, stop = offset + 1, size if end is None else end
    while offset < stop:
        ahead.wanted = offset
        count = min(READ_BYTES, stop - offset)
        for place in _header_places(ahead.get(offset, count + HEADER_BYTES - 1)):
            if _record_at(ahead, offset + int(place), size)[1] is None:
                return offset + int(place)
        offset += count
    return stop


def _header_places(data):
    """Where in `data` eight bytes are followed by their masked CRC: int [any], ascending."""
    values = np.frombuffer(data, np.uint8)
    count = len(values) - HEADER_BYTES + 1
    if count < 1:
        return np.zeros(0, np.int64)
    first, tables = _crc_tables()
    crc = np.full(count, first)
    for k in range(8):
        crc ^= tables[k][values[k:k + count]]
    masked = (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(0xA282EAD8)
    stored = sum(values[8 + k:8 + k + count].astype(np.uint32) << np.uint32(8 * k) for k in range(4))
    return np.flatnonzero(masked == stored)


@functools.lru_cache(maxsize=1)
def _crc_tables():
    """(CRC of eight zero bytes, what each value of each of eight bytes changes in it: uint32 [8, 256]).

    A CRC is linear but for a constant, so that the changes of all bytes add up (by xor).
    """
    zeros = google_crc32c.value(bytes(8))
    tables = [[google_crc32c.value(bytes(k) + bytes([value]) + bytes(7 - k)) ^ zeros for value in range(256)]
              for k in range(8)]
    return np.uint32(zeros), np.array(tables, np.uint32)


def masked_crc(data):
    """4 bytes: the CRC as TFRecord files store it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def _length(header):
    """The length that a header tells, None where it is not whole and good."""
    return int.from_bytes(header[:8], "little") if masked_crc(header[:8]) == header[8:] else None
