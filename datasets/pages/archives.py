"""Archives of downloaded pages, in the format of the OpenWebText downloader: writer beside reader.

A month of URLs becomes pairs `{month}-{n}_data.xz` and `{month}-{n}_meta.xz` (or .bz2, .gz), n from 1, each a tar
compressed whole.  Members are `{line:07d}-{md5(url)}.txt`, the page in UTF-8, and in the other `.json` about it, mode
0644 and time 0.  `state/{month}.txt` lists finished lines of the URL list, counted from 0, those without a page too.
Format: https://github.com/jcpeterson/openwebtext (archive_chunk, get_state and set_state of its download.py).
"""
from __future__ import annotations

import bz2
import collections
import contextlib
import functools
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import tarfile
import tempfile
import zlib

from configs.errors import UserError

COMPRESSIONS = {"xz": lzma.open, "bz2": bz2.open, "gz": gzip.open}
# xz's usual 6 gives 1.3 MB of HTML a second, 1 gives 10 and half as many bytes again: the archive keeps up with the
# network.
LEVELS = {"xz": {"preset": 1}, "bz2": {}, "gz": {"compresslevel": 6}}
MAGIC = {b"\xfd7zXZ\0": "xz", b"BZh": "bz2", b"\x1f\x8b": "gz"}
PAGE_SUFFIXES = (".txt", ".html", ".htm")
MONTH = re.compile(r"(RS_.*2\d{3}-\d{2})")
ARCHIVE = re.compile(r"(?P<month>.+)-(?P<n>\d+)_(?P<kind>data|meta)\.(?:xz|bz2|gz)")
MAX_BYTES = 10_000_000  # of one page; text of pages beyond is hardly ever worth its time
MAX_HEADER_BYTES = 1 << 20  # of a long name or other extension of tar's headers, which tarfile reads whole
MAX_NAME_BYTES = 200  # leaves room below the 255 of most file systems
MAX_DRAINED_BYTES = 1 << 26
PARTIAL = ".partial-"
DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)


def month_of(path):
    """What the archives of a URL list, or the texts of an archive, are called: `RS_2017-04`, or what names the file."""
    name = os.path.basename(path)
    found = MONTH.search(name)
    archive = ARCHIVE.fullmatch(name)
    return found.group(1) if found else archive["month"] if archive else os.path.splitext(name)[0]


def stem_of(line, url):
    """A page's name in both archives, without suffix."""
    return f"{line:07d}-{hashlib.md5(url.encode()).hexdigest()}"


def find(folder, month, kind="data"):
    """{n: path} of the month's archives in a folder."""
    names = [(ARCHIVE.fullmatch(name), name) for name in sorted(os.listdir(folder))]
    return {int(match["n"]): os.path.join(folder, name)
            for match, name in names if match and match["month"] == month and match["kind"] == kind}


def pages(path, max_bytes=MAX_BYTES, outcomes=None, position=None):
    """Yields (stem, bytes) of each page, in the order of the archive, which is read once from front to back.

    No member is ever written to the disk.  `outcomes`, a collections.Counter, gets what was skipped: `unsafe_name`
    (absolute, `..` and the like), `not_a_file` (links, devices, folders), `other_suffix`, `repeated_name`, `too_big`,
    beside the `page`s; `position` is called with the bytes of the file that have been read so far, for each member.
    Raises UserError where the archive is truncated or cannot be read, after the pages before that.
    """
    yield from members(path, PAGE_SUFFIXES, max_bytes, outcomes, position)


def members(path, suffixes, max_bytes=MAX_BYTES, outcomes=None, position=None):
    """Yields (stem, bytes) of the members with one of the suffixes; else as `pages`."""
    outcomes = {} if outcomes is None else outcomes
    found, seen = 0, set()
    with _open(path) as raw:
        try:
            with _decompressed(raw) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
                for member in iter(tar.next, None):
                    tar.members.clear()  # tarfile keeps each header for random access, which a stream has not
                    outcome, stem = _judge(member, suffixes, max_bytes, seen)
                    outcomes[outcome] = outcomes.get(outcome, 0) + 1
                    if position:
                        position(raw.tell())
                    if outcome != "page":
                        continue
                    data = tar.extractfile(member).read()
                    found += 1
                    yield stem, data
                _drain(stream)
        except _Damaged as error:
            problem = error
        except DAMAGE as error:
            problem = error
        else:
            return
        raise UserError(f"{path} is truncated or damaged near byte {raw.tell()} of {os.fstat(raw.fileno()).st_size}, "
                        f"after {found} pages ({problem}): get or make it again")


class _Damaged(Exception):
    """No tarfile.HeaderError: those end the reading as if all was well."""


class _Member(tarfile.TarInfo):
    """A header that is checked before tarfile follows it."""

    @classmethod
    def fromtarfile(cls, tar):
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # the mark at the end
            raise
        except tarfile.HeaderError as error:
            raise _Damaged(f"tar: {error}")

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        member = super().frombuf(buf, encoding, errors)
        extension = member.type in (*tarfile.GNU_TYPES, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if member.size < 0 or (extension and member.size > MAX_HEADER_BYTES):
            raise _Damaged(f"tar: a header of {member.size} bytes")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise _Damaged("tar: sparse files are not read")
        return member


def _judge(member, suffixes, max_bytes, seen):
    """(outcome, stem) of a member; its stem is put into `seen`."""
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
    if base in seen:
        return "repeated_name", None
    seen.add(base)
    return "page", base


def _open(path):
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}")


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


class Writer:
    """One month's archives: pages are added, `close` makes the archive and then the state that tells of it.

    Until then all is in files with a temporary name, so that a kill loses no more than the archive that is open.  Not
    for several threads at a time.
    """

    def __init__(self, folder, state_path, month, compression="xz"):
        self.folder, self.state_path, self.month, self.compression = folder, state_path, month, compression
        self.number = max([0, *find(folder, month), *find(folder, month, "meta")]) + 1
        self.lines, self.outcomes = [], []  # finished since the last archive
        self._parts = []

    def add(self, line, url="", page=None, meta=None, outcome="saved"):
        """Notes a line as finished; `page` (bytes, UTF-8) and `meta` (for JSON) are stored if there are any."""
        with self._nothing_by_halves():
            if page is not None:
                while len(self._parts) < 2:
                    self._parts.append(_Part(self.folder, self.compression))
                for part, data, suffix in zip(self._parts, (page, json.dumps(meta).encode()), ("txt", "json")):
                    part.add(f"{stem_of(line, url)}.{suffix}", data)
            self.lines.append(line)
            self.outcomes.append((line, outcome))

    def close(self):
        """Completes the archive, if it holds any page, then the state; afterwards the next one begins."""
        if not self.lines:
            return
        with self._nothing_by_halves():
            if self._parts:
                for part in self._parts:
                    part.close()
                # The meta archive first: where there is a data archive, both are complete.
                for kind, part in (("meta", self._parts[1]), ("data", self._parts[0])):
                    name = f"{self.month}-{self.number}_{kind}.{self.compression}"
                    os.rename(part.path, os.path.join(self.folder, name))
                _sync_folder(self.folder)
                self._parts, self.number = [], self.number + 1
            append_outcomes(self.state_path, self.outcomes)
            append_state(self.state_path, self.lines)
            self.lines, self.outcomes = [], []

    def abandon(self):
        """Removes what is not complete."""
        for part in self._parts:
            part.abandon()
        self._parts, self.lines, self.outcomes = [], [], []

    @contextlib.contextmanager
    def _nothing_by_halves(self):
        try:
            yield
        except BaseException as error:
            self.abandon()  # else a later `close` would complete an archive with half a page in it
            if isinstance(error, OSError):
                error.filename = error.filename or self.folder
            raise


class _Part:
    """A compressed tar under a temporary name."""

    def __init__(self, folder, compression):
        handle, self.path = tempfile.mkstemp(dir=folder, prefix=PARTIAL)
        os.fchmod(handle, 0o644)
        self._file = os.fdopen(handle, "wb")
        self._compressed = COMPRESSIONS[compression](self._file, "wb", **LEVELS[compression])
        self._tar = tarfile.TarFile(fileobj=self._compressed, mode="w")

    def add(self, name, data):
        member = tarfile.TarInfo(name)  # mode 0644, time 0, no owner
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        self._tar.members.clear()

    def close(self):
        self._tar.close()
        self._compressed.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self):
        for end in (functools.partial(os.unlink, self.path), self._compressed.close, self._file.close):
            with contextlib.suppress(OSError, ValueError):  # the disk may be full, or the file complete already
                end()


def clear(folder):
    """Removes what killed runs left; only for who holds the folder's lock."""
    for name in os.listdir(folder):
        if name.startswith(PARTIAL):
            os.unlink(os.path.join(folder, name))


def read_state(path):
    """Yields the finished lines; a last one that a kill cut short is left out."""
    if not os.path.exists(path):
        return
    with open(path, "rb") as f:
        for number, line in enumerate(f, 1):
            if not line.endswith(b"\n"):
                return
            if not re.fullmatch(rb"\d{1,9}", line.strip()):
                raise UserError(f"{path} line {number}: {line[:40]!r} is no line number: mend it or delete the file")
            yield int(line)


def append_state(path, lines):
    """Adds finished lines, all of them or, if the disk is full, none."""
    _append(path, b"".join(b"%d\n" % line for line in sorted(lines)))


def append_outcomes(state_path, outcomes):
    """Adds what became of lines, [(line, outcome)], beside their state, which gets them afterwards."""
    _append(_outcomes_path(state_path), "".join(f"{line} {outcome}\n" for line, outcome in sorted(outcomes)).encode())


def earlier_outcomes(state_path, finished):
    """Counter of what became of the lines that `finished` (url_lists.Lines) holds: `earlier` where nobody noted it.

    Of a line that stands there twice, since a kill kept it from the state, the last counts.
    """
    names, codes = ["earlier"], bytearray()
    for line, name in _read_outcomes(_outcomes_path(state_path)):
        if line in finished:
            if name not in names and len(names) < 256:
                names.append(name)
            codes.extend(bytes(max(0, line + 1 - len(codes))))
            codes[line] = names.index(name) if name in names else 0
    counts = collections.Counter({names[code]: count for code, count in collections.Counter(codes).items() if code})
    return counts + collections.Counter(earlier=len(finished) - sum(counts.values()))


def _outcomes_path(state_path):
    return os.path.splitext(state_path)[0] + ".outcomes"


def _read_outcomes(path):
    """Yields (line, outcome); what a kill cut short is left out."""
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as f:
            for text in f:
                if match := re.fullmatch(r"(\d{1,9}) (\w+)\n", text):
                    yield int(match[1]), match[2]


def _append(path, data):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "r+b" if os.path.exists(path) else "w+b", buffering=0) as f:
        end = _whole_lines(f)
        try:
            f.truncate(end)
            f.seek(end)
            while data:
                data = data[f.write(data):]
            os.fsync(f.fileno())
        except OSError:
            f.truncate(end)
            raise
    _sync_folder(os.path.dirname(path) or ".")


def _whole_lines(f):
    """Bytes up to the last line end."""
    size = f.seek(0, os.SEEK_END)
    start = max(0, size - 64)
    f.seek(start)
    return start + f.read().rfind(b"\n") + 1 if size else 0


def _sync_folder(folder):
    """Makes renames in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
