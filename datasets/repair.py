"""Replaces a damaged shard by a copy of its good records, so that a run can go on without the others.

The order of the data is arithmetic on the counts of the shards, so that damage has to be known before the first step:
every shard is read whole once, and remembered for as long as it does not change.  The folder of the data is left as
it is; copies and notes stand in a folder of the run.
"""
from __future__ import annotations

import hashlib
import json
import os
from typing import NamedTuple

from configs import progress, reading, storage
from configs.errors import UserError, printable
from datasets import framing, integrity
from datasets.jobs import workers
from datasets.tfrecords import Shard

FOLDER = "repaired"  # in model_dir
NOTES_FILE = "shards.json"
LOCK_FILE = ".lock"


class Note(NamedTuple):
    """What is remembered of a shard."""
    state: list  # storage.state of the file, when it was read
    limit: int | None  # size of the vocabulary that its ids were held against
    shard: Shard  # of the good records; its path is that of the copy where records are damaged
    skipped: dict  # {kind: damaged records}
    first: str  # the first damaged record in words; empty where there is none


def replace(listed, *, folder, limit, write=True):
    """{path: Shard to read in its place}, after reading all shards that are not known yet, and says what is skipped.

    `listed`, {path: (Shard, Manifest) or None}, is what manifests say of the files.  `folder`, local or gs://, gets the
    copies and notes.  `limit` is the size of the vocabulary.  Without `write` nothing is written or said, and manifests
    are believed where nothing is noted.
    """
    if not write:
        return _foreseen(listed, folder, limit)
    with storage.only_run(storage.join(folder, LOCK_FILE), "wait until it has read its shards"):
        notes = _load(folder)
        try:
            _read_new(listed, notes, folder, limit)
        finally:  # what was read before Ctrl-C or a full disk need not be read again
            _save(folder, notes)
    for path, known in listed.items():
        _say(path, known, notes[_name(path)])
    return {path: _resolved(path, known, notes[_name(path)]) for path, known in listed.items()}


def forget(folder):
    """Makes the next run read all shards again, and copy them anew where they are damaged."""
    _save(folder, {})


def _foreseen(listed, folder, limit):
    notes, shards = _load(folder), {}
    for path, known in listed.items():
        note = notes.get(_name(path))
        if _holds(note, path, _limit(known, limit)):
            shards[path] = _resolved(path, known, note)
        elif known:
            shards[path] = known[0]._replace(path=path)
        else:
            survey = integrity.survey(integrity.ShardToRead(path, limit))
            shards[path] = _note(survey, path, storage.state(path), limit).shard
    return shards


def _read_new(listed, notes, folder, limit):
    """Brings `notes` up to date with the files, and copies the damaged ones."""
    jobs = [integrity.ShardToRead(path, _limit(known, limit)) for path, known in listed.items()
            if not _holds(notes.get(_name(path)), path, _limit(known, limit))]
    if not jobs:
        return
    # Noted before reading: a file that changes meanwhile is read again.
    states = {job.path: storage.state(job.path) for job in jobs}
    limits = dict(jobs)
    total = sum(size for size, _ in states.values())
    with progress.bar(total, "reading shards", "B", unit_scale=True) as bar:
        for survey in integrity.survey_all(jobs, total, workers.cores(), bar.update):
            path = survey.shard.path
            copy = storage.join(storage.join(folder, _digest(path)), os.path.basename(path))
            note = _note(survey, copy, states[path], limits[path])
            if note.skipped:
                note = note._replace(shard=note.shard._replace(size=_copy(path, copy, limits[path])))
            notes[_name(path)] = note


def _limit(known, limit):
    """The `limit` of a shard: None where its manifest itself tells larger ids, which shard_sets.check reports."""
    return None if known and known[0].largest_id >= limit else limit


def _note(survey, copy, state, limit):
    """The Note of a survey.  Raises UserError where the ids are those of another vocabulary, not damage."""
    path = survey.shard.path
    kinds = [problem.kind for problem in survey.problems]
    skipped = {kind: kinds.count(kind) for kind in integrity.KINDS if kind in kinds}
    if skipped.get(integrity.IDS, 0) > survey.shard.records:
        raise UserError(f"{path}: {skipped[integrity.IDS]} of its {len(kinds) + survey.shard.records} records hold ids"
                        f' outside the {limit} of "n_vocab": the shard was made with another vocabulary')
    shard = survey.shard._replace(path=copy, sha256=None) if kinds else survey.shard
    return Note(state, limit, shard, skipped, str(survey.problems[0]) if kinds else "")


def _holds(note, path, limit):
    """Whether the note still tells how the file is, and its copy is there."""
    if note is None or note.limit != limit or not storage.exists(path) or note.state != storage.state(path):
        return False
    copy = note.shard.path
    return not note.skipped or (storage.exists(copy) and storage.size(copy) == note.shard.size)


def _resolved(path, known, note):
    """The Shard to read: the manifest's where the file is what it says."""
    if note.skipped:
        return note.shard
    same = known and known[0].sha256 == note.shard.sha256 and known[0].records == note.shard.records
    return (known[0] if same else note.shard)._replace(path=path)


def _say(path, known, note):
    """One line for a file that is damaged, or has not the records that its manifest says."""
    expected = f" of {known[0].records}" if known else ""
    if note.skipped:
        print(printable(f"warning: {path}: skipped {sum(note.skipped.values())} damaged records, of which the first:"
                        f" {note.first}; {note.shard.records}{expected} records are good, read from {note.shard.path}"))
    elif known and (known[0].records, known[0].tokens) != (note.shard.records, note.shard.tokens):
        print(printable(f"warning: {path}: holds {note.shard.records} undamaged records of {note.shard.tokens} tokens,"
                        f" {known[1].path} says {known[0].records} of {known[0].tokens}; reading what is there"))


def _copy(path, target, limit):
    """Writes the good records of `path` to `target`, whole or not at all; returns the bytes."""
    good = (framing.frame(piece.payload) for piece, _ in integrity.judged(path, limit) if not piece.kind)
    # One name, so that what a killed run left is written over.
    partial = os.path.join(os.path.dirname(target), storage.PARTIAL + os.path.basename(target))
    with storage.written_whole(target, partial) as f:
        return sum(f.write(data) or len(data) for data in good)


def _load(folder):
    """{name of a shard: Note}; none where they cannot be read, which costs another reading of the shards."""
    path = storage.join(folder, NOTES_FILE)
    try:
        return {name: Note(**{**content, "shard": Shard.of(content["shard"].pop("path"), content["shard"])})
                for name, content in (reading.read_object(path) if storage.exists(path) else {}).items()}
    except (UserError, TypeError, KeyError, ValueError, AttributeError):
        return {}


def _save(folder, notes):
    content = {name: {**note._asdict(), "shard": note.shard._asdict()} for name, note in notes.items()}
    storage.write_whole(storage.join(folder, NOTES_FILE), json.dumps(content, indent=1) + "\n")


def _name(path):
    return path if storage.is_remote(path) else os.path.abspath(path)


def _digest(path):
    """Tells shards of one name in different folders apart."""
    return hashlib.sha256(os.fsencode(_name(path))).hexdigest()[:12]
