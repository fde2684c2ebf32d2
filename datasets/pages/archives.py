"""Archives of downloaded pages, in the format of the OpenWebText downloader: their names and their reader.

A month of URLs becomes pairs `{month}-{n}_data.xz` and `{month}-{n}_meta.xz` (or .bz2, .gz), n from 1, each a tar
compressed whole.  Members are `{line:07d}-{md5(url)}.txt`, the page in UTF-8, and in the other `.json` about it, mode
0644 and time 0.  Format: https://github.com/jcpeterson/openwebtext (archive_chunk of its download.py).  Writer:
datasets/pages/archive_writer.py.
"""
from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import re
import tarfile
import zlib

from configs.errors import UserError

COMPRESSIONS = {"xz": lzma.open, "bz2": bz2.open, "gz": gzip.open}
MAGIC = {b"\xfd7zXZ\0": "xz", b"BZh": "bz2", b"\x1f\x8b": "gz"}
PAGE_SUFFIXES = (".txt", ".html", ".htm")
MONTH = re.compile(r"(RS_.*2\d{3}-\d{2})")
ARCHIVE = re.compile(r"(?P<month>.+)-(?P<n>\d+)_(?P<kind>data|meta)\.(?:xz|bz2|gz)")
MAX_BYTES = 10_000_000  # of one page; text of pages beyond is hardly ever worth its time
MAX_HEADER_BYTES = 1 << 20  # of a long name or other extension of tar's headers, which tarfile reads whole
MAX_NAME_BYTES = 200  # leaves room below the 255 of most file systems
MAX_DRAINED_BYTES = 1 << 26
DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)


def month_of(path):
    """The month in a file's name, such as `RS_2017-04`, else its name: what its archives or texts are called by."""
    name = os.path.basename(path)
    match = MONTH.search(name) or ARCHIVE.fullmatch(name)
    return match[1] if match else os.path.splitext(name)[0]


def stem_of(line, url):
    """A page's name in both archives, without suffix."""
    return f"{line:07d}-{hashlib.md5(url.encode()).hexdigest()}"


def find(folder, month, kind="data"):
    """{n: path} of the month's archives in a folder."""
    names = [(ARCHIVE.fullmatch(name), name) for name in sorted(os.listdir(folder))]
    return {int(match["n"]): os.path.join(folder, name)
            for match, name in names if match and match["month"] == month and match["kind"] == kind}


def pages(path, max_bytes=MAX_BYTES, outcomes=None, position=None, suffixes=PAGE_SUFFIXES):
    """Yields (stem, bytes) of each page, in the order of the archive, which is read once from front to back.

    No member is ever written to the disk.  `outcomes`, a dict of counts, gets what was skipped: `unsafe_name`
    (absolute, `..` and the like), `not_a_file` (links, devices, folders), `other_suffix`, `repeated_name`, `too_big`,
    beside the `page`s; `position` is called with the bytes of the file that have been read so far, for each member.
    Raises UserError where the archive is truncated or cannot be read, after the pages before that.
    """
    outcomes = {} if outcomes is None else outcomes
    count, stems = 0, set()
    with open_archive(path) as raw:
        try:
            with _decompressed(raw) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
                for member in iter(tar.next, None):
                    tar.members.clear()  # tarfile keeps each header for random access, which a stream does not have
                    outcome, stem = _judge(member, suffixes, max_bytes, stems)
                    outcomes[outcome] = outcomes.get(outcome, 0) + 1
                    if position:
                        position(raw.tell())
                    if outcome == "page":
                        data = tar.extractfile(member).read()
                        count += 1
                        yield stem, data
                _drain(stream)
        except DAMAGE as error:
            raise UserError(f"{path} is truncated or damaged near byte {raw.tell()} of "
                            f"{os.fstat(raw.fileno()).st_size}, after {count} pages ({error}): get or make it again")


def open_archive(path):
    """The file, for reading bytes.  Raises UserError."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}")


class _Member(tarfile.TarInfo):
    """A header that is checked before tarfile follows it: a HeaderError would end the reading as if all was well."""

    @classmethod
    def fromtarfile(cls, tar):
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # the mark at the end
            raise
        except tarfile.HeaderError as error:
            raise ValueError(f"tar: {error}")

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        member = super().frombuf(buf, encoding, errors)
        extension = member.type in (*tarfile.GNU_TYPES, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if member.size < 0 or (extension and member.size > MAX_HEADER_BYTES):
            raise ValueError(f"tar: a header of {member.size} bytes")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise ValueError("tar: sparse files are not read")
        return member


def _judge(member, suffixes, max_bytes, stems):
    """(outcome, stem) of a member; `stems` are those of the pages before, to which that of a page is added."""
    name = member.name
    parts = name.split("/")
    base, suffix = os.path.splitext(parts[-1])
    if not member.isreg():
        return "not_a_file", None
    if (name.startswith("/") or ".." in parts or re.search(r"[\x00-\x1f\x7f\\]", name)
            or len(os.fsencode(base)) > MAX_NAME_BYTES):
        return "unsafe_name", None
    if suffix not in suffixes:
        return "other_suffix", None
    if member.size > max_bytes:
        return "too_big", None
    if base in stems:
        return "repeated_name", None
    stems.add(base)
    return "page", base


def _decompressed(raw):
    """A file object of the tar inside; what the file begins with counts, not its name."""
    start = raw.read(6)
    raw.seek(0)
    for magic, compression in MAGIC.items():
        if start.startswith(magic):
            return COMPRESSIONS[compression](raw, "rb")
    raise ValueError("neither xz, bz2 nor gz" if start else "the file is empty")


def _drain(stream):
    """Reads what follows tar's own end, little in a sound archive: the checksums of the compression stand there."""
    for _ in range(MAX_DRAINED_BYTES >> 20):
        if not stream.read(1 << 20):
            return
