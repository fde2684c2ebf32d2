"""Where the documents of a file begin and end: its lines, or what stands between the marks that part them.

A file that is packed or in another encoding is first copied into a scratch folder: documents are read by their bytes.
"""
from __future__ import annotations

import argparse
import array
import itertools
import mmap
import os
import re
from typing import NamedTuple

import numpy as np

from datasets import encodings, listing, packed

OWN, UNPACKED, IN_UTF8 = range(3)  # the bytes of a file lie in itself, or in one of two copies
UNREADABLE = 3  # the file is not in its encoding throughout: one document without text
ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}
LINE_END = rb"(?:\r\n|\r(?!\n)|\n)"
VISIBLE = re.compile(rb"\S")
READ_BYTES = 1 << 24
# Where a long text may be cut: neither within a word nor within white space, of which none ends in the bytes b0 to bf.
LINE_END_BEHIND_WORD = re.compile(rb"[!-~\xb0-\xbf](?=[\r\n])")


class Reading(NamedTuple):
    """How files become texts."""
    encoding: str | None = None  # of what is not UTF-8: a name, or encodings.DETECT
    split_on: str | None = None  # stands between the documents of a text file
    text_key: str = "text"  # the field of a line of JSON that holds its text


USUAL = Reading()


def reading_of(args):
    """The Reading of the options that documents.py adds."""
    return Reading(args.encoding, args.split_on, args.text_key)


def unescaped(text):
    r"""For add_argument(type=...): `text` with \n, \t and \\ as the characters that they stand for."""
    unknown = [pair for pair in re.findall(r"\\.?", text, re.DOTALL) if pair[1:] not in ESCAPES]
    if unknown or not text:
        cause = f"{unknown[0]} is not known" if unknown else "it is empty"
        raise argparse.ArgumentTypeError(f"{text!r}: {cause}; give a text, in which \\n is a line end, \\t a tab and "
                                         "\\\\ is \\")
    return re.sub(r"\\(.)", lambda match: ESCAPES[match[1]], text)


def cut(path, scratch, reading):
    """(offsets, lengths) in bytes of the documents of a file, and where these bytes are."""
    place, where = path, OWN
    if path.lower().endswith(packed.SUFFIXES):
        place, where = packed.unpack(path, scratch), UNPACKED
    if encodings.is_packed(encodings.beginning(place)):
        return (0,), (os.path.getsize(place),), where  # one document, which has no text
    source = place
    try:
        encoding = encodings.to_bring_to_utf8(source, reading.encoding)
        if encoding:
            place, where = place_of_bytes(path, IN_UTF8, scratch, reading), IN_UTF8
            if not os.path.exists(place):
                encodings.bring_to_utf8(source, place, encoding)
    except UnicodeError:
        return (0,), (os.path.getsize(source),), UNREADABLE
    return (*(_lines(place) if listing.is_lines(path) else _parts(place, reading.split_on)), where)


def place_of_bytes(path, where, scratch, reading):
    """Path of the file that holds the bytes of the file `path`; `where` is what `cut` says."""
    if where == OWN:
        return path
    # A copy in UTF-8 is told from other copies of the file, which earlier runs may have left.
    return packed.place(path, scratch, f"UTF-8 from {reading.encoding}" if where == IN_UTF8 else "")


def stretches(path, longest, reading):
    """(offsets, lengths) in bytes of stretches of a text file, each of which ends at a line end after `longest` bytes.

    A file in which the bytes of a line end may be part of a character, as in UTF-16, is one stretch.
    """
    size, starts = os.path.getsize(path), [0]
    try:
        in_lines = encodings.to_bring_to_utf8(path, reading.encoding) is None
    except UnicodeError:
        in_lines = False
    if in_lines and size > longest:
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            while match := LINE_END_BEHIND_WORD.search(data, starts[-1] + longest):
                starts.append(match.end())
    return starts, np.diff([*starts, size])


def _parts(path, split_on):
    """(offsets, lengths) in bytes of what stands between `split_on` in a file of UTF-8 and is not white space alone."""
    pattern = b"".join(LINE_END if character == "\n" else re.escape(os.fsencode(character)) for character in split_on)
    starts, lengths, start = array.array("q"), array.array("q"), 0
    if os.path.getsize(path) == 0:  # which cannot be mapped
        return starts, lengths
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        marks = (match.span() for match in re.finditer(pattern, data))
        for stop, following in itertools.chain(marks, [(len(data), 0)]):
            if VISIBLE.search(data, start, stop):
                starts.append(start)
                lengths.append(stop - start)
            start = following
    return starts, lengths


def _lines(path):
    """(offsets, lengths), arrays in bytes and without line ends; the last line may lack its own."""
    ends, position = [np.zeros(0, np.int64)], 0
    with open(path, "rb") as f:
        for chunk in iter(lambda: f.read(READ_BYTES), b""):
            ends.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + position)
            position += len(chunk)
    ends = np.concatenate(ends)
    if position and (not len(ends) or ends[-1] != position - 1):
        ends = np.append(ends, position)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])[:len(ends)]
    return array.array("q", starts.tobytes()), array.array("q", (ends - starts).tobytes())
