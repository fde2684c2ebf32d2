"""Reads lists of URLs, one a line, and finds the lines that repeat a URL.

Memory holds two bits a line; the hashes that find repeated URLs lie on the disk and are sorted in parts.
"""
import bisect
import hashlib
import re
import tempfile
from typing import NamedTuple

import numpy as np

from configs import storage
from configs.errors import UserError
from datasets.pages import archives

READ_BYTES = 1 << 20
MAX_LINE_BYTES = 8192  # longer ones are no URLs that servers take
PART_BITS = 6  # the first ones of a hash: those of one part at a time are sorted in memory
BLOCK = 1 << 16  # hashes read at once
VALID = re.compile(r"https?://[^\s/?#]+([/?#][^\x00-\x1f\x7f]*)?", re.IGNORECASE)


class Lines:
    """A set of line numbers, a bit each."""

    def __init__(self, numbers=()):
        self._bits = bytearray()
        for number in numbers:
            self.add(number)

    def add(self, number):
        byte = number >> 3
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits) + len(self._bits) // 8))
        self._bits[byte] |= 1 << (number & 7)

    def discard(self, number):
        if number in self:
            self._bits[number >> 3] ^= 1 << (number & 7)

    def __contains__(self, number):
        byte = number >> 3
        return byte < len(self._bits) and bool(self._bits[byte] & 1 << (number & 7))

    def __len__(self):
        return bin(int.from_bytes(self._bits, "big")).count("1")


class UrlList(NamedTuple):
    path: str
    month: str  # names its archives
    total: int  # lines
    finished: Lines
    repeated: Lines  # those whose URL stands before, here or in an earlier list
    left: int  # lines to download


def read(path):
    """Yields (line number from 0, URL or None, what is wrong with it or None): "blank" or "invalid"."""
    for number, line in enumerate(_lines(path)):
        text = line[:MAX_LINE_BYTES].decode("utf-8-sig" if number == 0 else "utf-8", "replace").strip()
        if len(line) <= MAX_LINE_BYTES and "\ufffd" not in text and VALID.fullmatch(text):
            yield number, text, None
        else:
            yield number, None, "invalid" if text else "blank"


def survey(paths, finished, stems, folder):
    """[UrlList] of the files, read once; `folder` holds the temporary file.

    `finished`: Lines of each.  `stems`: {line: stem of its page in an archive} for some lines of each; raises UserError
    where a list holds other URLs there, or cannot be read.
    """
    starts, left = [0], [0] * len(paths)
    repeated = [Lines() for _ in paths]
    with tempfile.TemporaryFile(dir=folder) as f:
        for i, path in enumerate(paths):
            number = -1
            for number, url, problem in read(path):
                stem = stems[i].get(number)
                # In a list that was changed, lines would be skipped that were never downloaded.
                if stem and (problem or archives.stem_of(number, url) != stem):
                    raise UserError(f"{path} line {number + 1} is not the URL whose page is in the archive as {stem}: "
                                    "the list has changed since; give it another name or another --output_dir")
                left[i] += not problem and number not in finished[i]
                # Servers do not see the fragment.  What is no URL is hashed as its number, which no other line is.
                name = f"{starts[-1] + number}" if problem else url.partition("#")[0]
                f.write(hashlib.blake2b(name.encode(), digest_size=8).digest())
            starts.append(starts[-1] + number + 1)
        f.flush()
        for line in _repeated(np.memmap(f, np.uint64, "r")) if starts[-1] else ():
            i = bisect.bisect_right(starts, line) - 1
            repeated[i].add(line - starts[i])
            left[i] -= line - starts[i] not in finished[i]
    return [UrlList(path, archives.month_of(path), starts[i + 1] - starts[i], finished[i], repeated[i], left[i])
            for i, path in enumerate(paths)]


def _repeated(hashes):
    """Yields the lines, counted through all lists, of all but the first of each hash."""
    for part in range(1 << PART_BITS):
        lines = np.concatenate([np.flatnonzero(hashes[start:start + BLOCK] >> np.uint64(64 - PART_BITS) == part) + start
                                for start in range(0, len(hashes), BLOCK)])
        some = hashes[lines]
        order = np.argsort(some, kind="stable")
        some, lines = some[order], lines[order]
        yield from lines[1:][some[1:] == some[:-1]].tolist()


def _lines(path):
    """Yields each line as bytes; of one that is too long, a beginning that is too long as well."""
    if not storage.exists(path) or storage.is_folder(path):
        raise UserError(f"{path}: no such file{storage.looked_for_in(path)}")
    rest = b""
    with storage.open_file(path, "rb") as f:
        while chunk := f.read(READ_BYTES):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
            rest = rest[:MAX_LINE_BYTES + 1]
    if rest:
        yield rest
