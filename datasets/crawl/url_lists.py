"""Reads lists of URLs, one a line, and finds the lines that repeat a URL.

Memory holds two bits a line; the hashes that find repeated URLs are sorted in pieces on the disk.
"""
import array
import bisect
import contextlib
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
BUCKETS = 64  # of hashes; one at a time is sorted in memory
BLOCK = 1 << 16  # hashes between two writes to the buckets
HASH = np.dtype([("hash", np.uint64), ("line", np.uint64)])
VALID = re.compile(r"https?://[^\s/?#]+([/?#][^\x00-\x1f\x7f]*)?", re.IGNORECASE)


class Lines:
    """A set of line numbers, a bit each."""

    def __init__(self, numbers=()):
        self._bits, self._count = bytearray(), 0
        for number in numbers:
            self.add(number)

    def add(self, number):
        byte = number >> 3
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits) + len(self._bits) // 8))
        self._count += number not in self
        self._bits[byte] |= 1 << (number & 7)

    def __contains__(self, number):
        byte = number >> 3
        return byte < len(self._bits) and bool(self._bits[byte] & 1 << (number & 7))

    def __len__(self):
        return self._count


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
    """[UrlList] of the files, read once; `folder` holds the temporary files.

    `finished`: Lines of each.  `stems`: {line: stem of its page in an archive} for some lines of each; raises UserError
    where a list holds other URLs there, or cannot be read.
    """
    starts, left = [0], [0] * len(paths)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(BUCKETS)]
        hashes, lines = array.array("Q"), array.array("Q")
        for i, path in enumerate(paths):
            number = -1
            for number, url, problem in read(path):
                stem = stems[i].get(number)
                if stem and (problem or archives.stem_of(number, url) != stem):  # it would leave out pages unread
                    raise UserError(f"{path} line {number + 1} is not the URL whose page is in the archive as {stem}: "
                                    "the list has changed since; give it another name or another --output_dir")
                if problem:
                    continue
                left[i] += number not in finished[i]
                fetched = url.split("#")[0].encode()  # servers do not see the fragment
                hashes.append(int.from_bytes(hashlib.blake2b(fetched, digest_size=8).digest(), "big"))
                lines.append(starts[-1] + number)
                if len(hashes) == BLOCK:
                    _spill(hashes, lines, files)
                    del hashes[:], lines[:]
            starts.append(starts[-1] + number + 1)
        _spill(hashes, lines, files)
        repeated = [Lines() for _ in paths]
        for line in _repeated(files):
            i = bisect.bisect_right(starts, line) - 1
            repeated[i].add(line - starts[i])
            left[i] -= line - starts[i] not in finished[i]
    return [UrlList(path, archives.month_of(path), starts[i + 1] - starts[i], finished[i], repeated[i], left[i])
            for i, path in enumerate(paths)]


def _lines(path):
    """Yields each line as bytes; of one that is too long, a beginning that is too long as well."""
    if not storage.exists(path) or storage.is_folder(path):
        raise UserError(f"{path}: no such file")
    rest = b""
    with storage.open_file(path, "rb") as f:
        while chunk := f.read(READ_BYTES):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
            rest = rest[:MAX_LINE_BYTES + 1]
    if rest:
        yield rest


def _spill(hashes, lines, files):
    """Adds the hashes to the files of their buckets."""
    records = np.empty(len(hashes), HASH)
    records["hash"], records["line"] = hashes, lines
    buckets = records["hash"] // np.uint64(2 ** 64 // BUCKETS)
    for bucket, f in enumerate(files):
        f.write(records[buckets == bucket].tobytes())


def _repeated(files):
    """Yields the lines, counted through all lists, of all but the first of each hash."""
    for f in files:
        f.seek(0)
        records = np.sort(np.frombuffer(f.read(), HASH), order=("hash", "line"))
        yield from records["line"][1:][records["hash"][1:] == records["hash"][:-1]].tolist()
