"""Extracts one archive of pages to texts `{output_dir}/{month}/{stem}.txt`: all of them appear, or none.

Texts gather in `.extraction/{archive}.partial`, which a later run empties.  When the archive has been read to its end,
that folder becomes `{archive}.complete`: nothing is extracted again, the texts are moved to their month, and a later
run can finish that.  Last comes the mark, `{archive}.done.json`: the archive's report.
"""
import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
from typing import NamedTuple, Optional

from configs import reading, storage
from configs.errors import UserError
from datasets.pages import archives, extractors, page_processes, warc

STATE = ".extraction"
PATIENCE = 60  # seconds until a Ray worker whose machine has died must be gone; it ends within a few
LOCK, PARTIAL, COMPLETE, DONE, STAGED, REPORT = ".lock", ".partial", ".complete", ".done.json", ".text", "report.json"
JUDGED = ("kept", "empty", "short", "other_language", page_processes.TIMEOUT, page_processes.CRASHED, "error")
SKIPPED = ("too_big", "repeated_name", "unsafe_name", "not_a_file", "other_suffix", "not_html", "bad_http")
OUTCOMES = ("pages", *JUDGED, *SKIPPED)  # each page is judged once; what was skipped is no page
# OpenWebText's release (https://skylion007.github.io/OpenWebTextCorpus/) holds the texts themselves.
PLAIN_TEXT = re.compile(r"urlsf_subset\d+")


class Report(NamedTuple):
    """What came of an archive."""
    archive: str  # name of the file
    size: int  # bytes
    extractors: list  # names
    outcomes: dict
    damage: Optional[str]  # what ended the reading early


def extract(args, processes, path, advance):
    """Extracts the archive `path`, or goes on where an earlier run stopped; returns its Report.

    `args`: of extraction.arguments.  `advance(bytes)` is called with what has been read of the file.  A damaged
    archive gets no texts and no mark, unless `--keep_damaged`: then the pages before the damage count.
    """
    base, folder = base_of(args.output_dir, path), os.path.join(args.output_dir, archives.month_of(path))
    with storage.only_run(base + LOCK, "leave that archive to it", PATIENCE if args.ray_address else 0):
        report = finished(args.output_dir, path)
        if report:
            return report
        if not os.path.isdir(base + COMPLETE):
            report = _extract_pages(args, processes, path, base + PARTIAL, advance)
            if report.damage and not args.keep_damaged:
                shutil.rmtree(base + PARTIAL)
                return report
            os.sync()  # once for all, instead of an fsync for each of a hundred thousand small files
            os.rename(base + PARTIAL, base + COMPLETE)
        os.makedirs(folder, exist_ok=True)
        with publishing(args.output_dir):
            for name in sorted(os.listdir(base + COMPLETE)):
                if name != REPORT:
                    _move_text(os.path.join(base + COMPLETE, name), os.path.join(folder, name[:-len(STAGED)] + ".txt"))
        os.replace(os.path.join(base + COMPLETE, REPORT), base + DONE)
        os.rmdir(base + COMPLETE)
        return load(base + DONE)


def finished(output_dir, path):
    """The Report of an archive that has its mark, else None.  Raises UserError where the archive has changed since."""
    mark = base_of(output_dir, path) + DONE
    if not os.path.exists(mark):
        return None
    report, size = load(mark), os.path.getsize(path)
    if report.size == size:
        return report
    if report.damage:
        return None  # this may be a better copy
    raise UserError(f"{path} has {size} bytes, and had {report.size} when its texts were extracted to {output_dir}: "
                    f"choose another --output_dir")


def load(path):
    """The Report in a mark."""
    content = reading.read_object(path)
    try:
        return Report(**content)
    except TypeError:
        raise UserError(f"{path} is no report of an extraction: move it elsewhere, and the archive is extracted again")


def base_of(output_dir, path):
    """The beginning of all paths of an archive's state."""
    return os.path.join(output_dir, STATE, os.path.basename(path))


@contextlib.contextmanager
def publishing(output_dir):
    """Waits for the right to move texts to their place, and holds it."""
    with open(os.path.join(output_dir, STATE, "publish.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _extract_pages(args, processes, path, folder, advance):
    """Writes the texts of all pages and the Report into the new `folder`; returns the Report."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    name, size = os.path.basename(path), os.path.getsize(path)
    if PLAIN_TEXT.match(name):
        args = argparse.Namespace(**{**vars(args), "extractors": ["text"]})
    outcomes, damage = dict.fromkeys(OUTCOMES, 0), None

    def pages():
        # Damage is not raised: an exception would lose the pages under way, another number of them at each run.
        nonlocal damage
        source, before = warc if name.endswith(warc.SUFFIXES) else archives, 0
        try:
            for stem, page, reason, position in source.members(path, args.page_bytes):
                advance(position - before)
                before = position
                outcomes[reason or "pages"] += 1
                if not reason:
                    yield stem, page
        except UserError as error:
            damage = str(error)
        advance(size - before)
    for stem, (outcome, text) in page_processes.results(pages(), extractors.make, args, processes, args.page_seconds):
        outcomes[outcome] += 1
        if text is not None:
            with storage.open_file(os.path.join(folder, stem + STAGED), "wb") as f:
                f.write(text.encode("utf-8", "replace"))
    report = Report(name, size, args.extractors, outcomes, damage)
    storage.write_whole(os.path.join(folder, REPORT), json.dumps(report._asdict(), indent=1))
    return report


def _move_text(staged, target):
    """Moves a text to its place, unless a longer one of the same page, downloaded twice, is there already."""
    def rank(path):  # the same text stays, whichever comes first
        data = storage.read_bytes(path)
        return len(data), data
    if os.path.exists(target) and rank(target) >= rank(staged):
        os.unlink(staged)
    else:
        os.replace(staged, target)
