"""Packed lines of JSON -> lines in a scratch folder, once: documents are read in random order, which packing forbids.

The scratch folder also holds the copies in UTF-8 of files in other encodings that are cut into documents.

Formats: https://www.rfc-editor.org/rfc/rfc1952 and https://www.rfc-editor.org/rfc/rfc8878.
"""
import contextlib
import functools
import gzip
import hashlib
import os
import shutil
import zlib

from configs import storage
from configs.errors import UserError

SUFFIXES = (".jsonl.gz", ".jsonl.zst")
GZIP, ZSTANDARD, SKIPPABLE = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"  # the last behind any byte
READ_BYTES = 1 << 24
ZSTANDARD_BYTES = 1 << 12  # unpacked at once: to at most 128 MB, 128 KB for each 4 bytes
# Text unpacks to 3 to 20 times its size.  What goes beyond this is a bomb, or a page written over and over.
LARGEST_RATIO, HARMLESS_BYTES = 300, 1 << 28


@contextlib.contextmanager
def scratch_folder(path):
    """Deletes the folder `path` at the end and after a user's mistake.

    After a kill or on a full disk it stays, so that the next run finds what is unpacked.
    """
    try:
        yield path
    except UserError:
        shutil.rmtree(path, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)


def place(path, scratch, change=""):
    """Where the contents of a file lie: a name of its own for each file, version of it, and `change` of its text."""
    facts = os.stat(path)
    key = b"%s\0%d\0%d%s" % (os.fsencode(os.path.abspath(path)), facts.st_size, facts.st_mtime_ns, change.encode())
    return os.path.join(scratch, hashlib.sha256(key).hexdigest()[:32] + ".jsonl")


def unpack(path, scratch):
    """Unpacks a file unless that is done; returns where.  Raises UserError where it is damaged."""
    target = place(path, scratch)
    if os.path.exists(target):
        return target
    largest, size = max(HARMLESS_BYTES, LARGEST_RATIO * os.path.getsize(path)), 0
    with storage.written_whole(target) as f:
        for data in _contents(path):
            size += len(data)
            if size > largest:
                raise UserError(f"{path} unpacks to more than {LARGEST_RATIO} times its size, so it is not text: "
                                "leave it out with --exclude, or unpack it yourself")
            f.write(data)
    return target


def _contents(path):
    """Yields the contents of a .gz or .zst file in parts.  Raises UserError where it is damaged or cut off."""
    import zstandard  # only packed files pay for it
    try:
        if not os.path.getsize(path):
            raise EOFError("it is empty")
        with open(path, "rb") as f:
            if path.lower().endswith(".gz"):
                yield from iter(functools.partial(gzip.GzipFile(fileobj=f).read, READ_BYTES), b"")
            else:
                yield from _zstandard_contents(f, zstandard.ZstdDecompressor())
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        with open(path, "rb") as f:
            start = f.read(4)
        begins = start[:2] == GZIP if path.lower().endswith(".gz") else start == ZSTANDARD or start[1:] == SKIPPABLE
        problem = f"is damaged or cut off ({error}): fetch it anew" if begins or not start else \
            "does not begin as its name says: rename it to end as what it is"
        raise UserError(f"{path} {problem}, or leave it out with --exclude")


def _zstandard_contents(f, decompressor):
    """Yields the contents of all frames.  The library's own reader takes a file that is cut off for whole."""
    frame, rest = None, b""
    while data := rest or f.read(ZSTANDARD_BYTES):
        frame = frame or decompressor.decompressobj()
        yield frame.decompress(data)
        rest = frame.unused_data if frame.eof else b""
        frame = None if frame.eof else frame
    if frame:
        raise EOFError("it ends within a frame")
