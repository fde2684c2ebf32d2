"""Writes archives of pages (datasets/pages/archives.py), and which lines of a list of URLs are finished.

`state/{month}.txt` lists those lines, counted from 0, also the ones that gave no page, in the format of get_state and
set_state of OpenWebText's downloader.  `{month}.outcomes`, our own, says what became of each line; the last word on a
line counts.
"""
import array
import collections
import contextlib
import io
import json
import os
import re
import tarfile

from configs import storage
from configs.errors import UserError
from datasets.pages import archives

# xz's usual 6 packs 1.3 MB of HTML a second; 1 packs 10, to 1.5 times the size, and so keeps up with the network.
LEVELS = {"xz": {"preset": 1}, "bz2": {}, "gz": {"compresslevel": 6}}
NOTE = re.compile(rb"(\d{1,9}) (\w+)(?: (\d+))?\n")  # of an outcome, and of the limit that decided it


class Writer:
    """One month's archives: pages are added, `close` makes the archive and then the state that tells of it.

    Until then everything is in files with temporary names: a kill loses only the archive that is open.  Not for several
    threads at a time.
    """

    def __init__(self, folder, state_path, month, compression="xz"):
        self.folder, self.state_path, self.month, self.compression = folder, state_path, month, compression
        self.number = max([0, *archives.find(folder, month), *archives.find(folder, month, "meta")]) + 1
        self.finished = []  # (line, outcome) since the last archive
        self._tars, self._open = {}, contextlib.ExitStack()  # {kind: tar} of the open archive; all that is to close

    def add(self, line, url="", page=None, meta=None, outcome="saved"):
        """Notes a line as finished; `page` (bytes, UTF-8) and `meta` (for JSON) are stored if there are any.

        `outcome`: a word, and behind a space the limit that decided it, if one did.
        """
        with self._all_or_nothing():
            if page is not None:
                if not self._tars:
                    self._begin()
                for kind, suffix, data in (("data", "txt", page), ("meta", "json", json.dumps(meta).encode())):
                    member = tarfile.TarInfo(f"{archives.stem_of(line, url)}.{suffix}")  # mode 0644, time 0, no owner
                    member.size = len(data)
                    self._tars[kind].addfile(member, io.BytesIO(data))
                    self._tars[kind].members.clear()
            self.finished.append((line, outcome))

    def close(self):
        """Completes the archive, if it holds any page, then the state; afterwards the next one begins."""
        if not self.finished:
            return
        with self._all_or_nothing():
            if self._tars:
                for tar in self._tars.values():
                    tar.close()  # both before either file is complete: on a full disk none appears
                self._open.close()
                _sync_folder(self.folder)
                self._tars, self.number = {}, self.number + 1
            note_finished(self.state_path, self.finished)
            self.finished = []

    def abandon(self):
        """Removes what is not complete."""
        with contextlib.suppress(OSError, ValueError), self._open:  # the disk may be full
            raise OSError("abandoned")  # so that storage.written_whole removes its files
        self._tars, self.finished = {}, []

    def _begin(self):
        """Opens both tars.  The data archive is complete last: where there is one, both are there."""
        for kind in ("data", "meta"):
            path = os.path.join(self.folder, f"{self.month}-{self.number}_{kind}.{self.compression}")
            f = self._open.enter_context(storage.written_whole(path))
            # With the name "" gzip notes none.
            tar = tarfile.open("", f"w:{self.compression}", f, **LEVELS[self.compression])  # noqa: SIM115
            self._tars[kind] = self._open.enter_context(tar)

    @contextlib.contextmanager
    def _all_or_nothing(self):
        try:
            yield
        except BaseException as error:
            self.abandon()  # else a later `close` would complete an archive with half a page in it
            if isinstance(error, OSError):
                error.filename = error.filename or self.folder
            raise


def read_state(path):
    """Yields the finished lines; a last one that a kill cut short is left out."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as f:
        for number, line in enumerate(f, 1):
            if not line.endswith(b"\n"):
                return
            if not re.fullmatch(rb"\d{1,9}", line.strip()):
                raise UserError(f"{path} line {number}: {line[:40]!r} is no line number: mend it, or choose "
                                "another --output_dir")
            yield int(line)


def note_finished(state_path, finished):
    """Adds [(line, outcome)] to the outcomes, then the lines to the state: each wholly, or not if the disk is full."""
    finished = sorted(finished)
    _append(_outcomes_path(state_path), "".join(f"{line} {outcome}\n" for line, outcome in finished).encode())
    _append(state_path, b"".join(b"%d\n" % line for line, _ in finished))


def earlier_outcomes(state_path, finished):
    """Counter of what became of the lines that `finished` (url_lists.Lines) holds: `earlier` where nobody noted it."""
    names, codes = {"earlier": 0}, array.array("H")  # outcome -> code; line -> code
    for line, outcome, _ in notes(state_path):
        if line in finished:
            codes.frombytes(bytes(2 * max(0, line + 1 - len(codes))))
            codes[line] = names.setdefault(outcome, len(names))
    counts = collections.Counter(codes)
    counts[0] = len(finished) - sum(counts[code] for code in names.values() if code)
    return +collections.Counter({name: counts[code] for name, code in names.items()})


def notes(state_path):
    """Yields (line, outcome, the limit that decided it or None); of a line that comes again, the last word counts."""
    with contextlib.suppress(FileNotFoundError), open(_outcomes_path(state_path), "rb") as f:
        for match in filter(None, map(NOTE.fullmatch, f)):  # what a kill cut short does not match
            yield int(match[1]), match[2].decode(), int(match[3]) if match[3] else None


def _outcomes_path(state_path):
    return os.path.splitext(state_path)[0] + ".outcomes"


def _append(path, data):
    """Adds whole lines behind the last whole line, all of them or none."""
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    with open(path, "a+b", buffering=0) as f:
        start = max(0, f.seek(0, os.SEEK_END) - 1024)
        f.seek(start)
        end = start + f.read().rfind(b"\n") + 1
        try:
            f.truncate(end)
            while data:
                data = data[f.write(data):]
            os.fsync(f.fileno())
        except OSError:
            f.truncate(end)
            raise
    _sync_folder(folder)


def _sync_folder(folder):
    """Makes the renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
