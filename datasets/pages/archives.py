"""Names and reads archives of downloaded pages, in the format of the OpenWebText downloader.

A month of URLs becomes pairs `{month}-{n}_data.xz` and `{month}-{n}_meta.xz` (or .bz2, .gz), n from 1, each a tar
compressed whole.  Members are `{line:07d}-{md5(url)}.txt`, the page in UTF-8, and in the other `.json` about it, mode
0644 and time 0: https://github.com/jcpeterson/openwebtext (archive_chunk of its download.py).
"""
import bz2
import gzip
import hashlib
import lzma
import os
import re
import tarfile
import zlib

from configs import file_errors
from configs.errors import UserError

COMPRESSIONS = ("bz2", "gz", "xz")
MAGIC = {b"\xfd7zXZ\0": lzma, b"BZh": bz2, b"\x1f\x8b": gzip}
PAGE_SUFFIXES = (".txt", ".html", ".htm")
MONTH = re.compile(r"(RS_.*2\d{3}-\d{2})")
WARC = re.compile(r"(.+)\.warc(?:\.gz)?")
ARCHIVE = re.compile(r"(?P<month>.+)-(?P<n>\d+)_(?P<kind>data|meta)\.(?:xz|bz2|gz)")
MAX_BYTES = 10_000_000  # of one page; text of pages beyond is hardly ever worth its time
# Of a long name or other extension of tar's headers, which tarfile reads whole and some releases of Python search in a
# time that grows with its square.
MAX_HEADER_BYTES = 1 << 14
MAX_NAME_BYTES = 200  # leaves room below the 255 of most file systems
MAX_DRAINED_BYTES = 1 << 26
# RecursionError: tarfile calls itself for each of several extensions in a row.
DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, RecursionError, lzma.LZMAError, zlib.error)


def month_of(path):
    """What names a file's archives and texts: the month in its name, such as `RS_2017-04`, or its name, as for WARC."""
    name = os.path.basename(path)
    match = WARC.fullmatch(name) or MONTH.search(name) or ARCHIVE.fullmatch(name)
    return match[1] if match else os.path.splitext(name)[0]


def stem_of(line, url):
    """A page's name in both archives, without suffix."""
    return f"{line:07d}-{hashlib.md5(url.encode()).hexdigest()}"


def find(folder, month, kind="data"):
    """{n: path} of the month's archives in a folder."""
    names = [(ARCHIVE.fullmatch(name), name) for name in sorted(os.listdir(folder))]
    return {int(match["n"]): os.path.join(folder, name)
            for match, name in names if match and match["month"] == month and match["kind"] == kind}


def members(path, max_bytes=MAX_BYTES, suffixes=PAGE_SUFFIXES):
    """Yields (stem, page, reason, position) of each member: bytes without a reason, or None and why it is skipped.

    The archive is read once, and `position` bytes of it by then; nothing is written to the disk.  Reasons:
    `not_a_file` (links, devices, folders), `unsafe_name` (absolute, `..` and the like), `other_suffix`, `too_big`,
    `repeated_name`.  Raises UserError where the archive is truncated or damaged, after the members before that.
    """
    stems = set()
    with open_archive(path) as raw:
        try:
            start = raw.peek(6)  # tells the compression, not the name
            module = next((module for magic, module in MAGIC.items() if start.startswith(magic)), None)
            if not module:
                raise ValueError("neither xz, bz2 nor gz" if start else "the file is empty")
            with module.open(raw, "rb") as stream, tarfile.open(fileobj=_Ending(stream), mode="r|",
                                                                tarinfo=_Member) as tar:
                for member in iter(tar.next, None):
                    tar.members.clear()  # tarfile keeps each header for random access, which a stream does not have
                    stem, suffix = os.path.splitext(os.path.basename(member.name))
                    reason = _reason_to_skip(member, stem, suffix in suffixes, max_bytes, stem in stems)
                    page = None if reason else tar.extractfile(member).read()
                    if not reason:
                        stems.add(stem)
                    yield stem, page, reason, raw.tell()
                for _ in range(MAX_DRAINED_BYTES >> 20):  # checksums of the compression follow the end of the tar
                    stream.read(1 << 20)
        except DAMAGE as error:
            raise UserError(f"{path} is truncated or damaged near byte {raw.tell()} of {os.path.getsize(path)}, after "
                            f"{len(stems)} pages ({error}): get or make it again")


def open_archive(path):
    """The file, for reading bytes.  Raises UserError."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {file_errors.remedy(error)}")


class _Ending:
    """What tarfile reads from.  Its end is an error where tarfile, skipping what a header tells of, would go on."""

    def __init__(self, stream):
        self.stream, self.ended = stream, False

    def read(self, size):
        data = self.stream.read(size)
        if not data and self.ended:
            raise EOFError("a member is longer than what is left")
        self.ended = not data
        return data


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
            cls._refuse_sparse()
        return member

    def _proc_builtin(self, tar):
        # tarfile would move by the size in a member's own header, and afterwards change it to that in the global one.
        named = sorted(tar.pax_headers.keys() & {"size", "path"})
        if named:
            raise ValueError(f"tar: a global header sets the {named[0]} of all members")
        return super()._proc_builtin(tar)

    def _apply_pax_info(self, headers, *rest):
        if any(name.startswith("GNU.sparse.") for name in headers):
            self._refuse_sparse()
        super()._apply_pax_info(headers, *rest)

    @staticmethod
    def _refuse_sparse(*_):
        raise ValueError("tar: sparse files are not read")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse  # those that pax headers tell of


def _reason_to_skip(member, stem, known_suffix, max_bytes, repeated):
    """Why a member is no page to be read, or None."""
    name = member.name
    if not member.isreg():
        return "not_a_file"
    if (name.startswith("/") or ".." in name.split("/") or re.search(r"[\x00-\x1f\x7f\\]", name)
            or len(os.fsencode(stem)) > MAX_NAME_BYTES):
        return "unsafe_name"
    if not known_suffix:
        return "other_suffix"
    if member.size > max_bytes:
        return "too_big"
    return "repeated_name" if repeated else None
