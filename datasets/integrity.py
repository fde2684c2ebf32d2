"""Reads shards whole and says of each what is good in it, and of every damaged record where it stands."""
from __future__ import annotations

import hashlib
import tempfile
from typing import NamedTuple

from datasets import framing, tfrecords
from datasets.jobs import workers
from datasets.tfrecords import Shard

FORMAT, IDS = "format", "ids"  # kinds of damage inside an undamaged frame
KINDS = (framing.FOREIGN, framing.LENGTH, framing.PAYLOAD, framing.CUT, FORMAT, IDS)
WORKER_BYTES = 1 << 25  # less is read sooner than another process starts


class Problem(NamedTuple):
    """A damaged record: what stands at `offset` of a file after `number` others (as in framing.Piece)."""
    number: int
    offset: int
    kind: str  # of KINDS
    words: str

    def __str__(self):
        return f"record {self.number} at byte {self.offset} {self.words}"


class Survey(NamedTuple):
    """What reading a file whole has shown."""
    shard: Shard  # records, tokens and ids of the good records; size and sha256 of the file as it is
    problems: tuple


class ShardToRead(NamedTuple):
    path: str
    limit: int | None  # size of the vocabulary, where known


def judged(path, limit=None, seen=None):
    """Yields (framing.Piece, its token ids or None, its Problem or None) for all of a file, in its order.

    A record that is no tf.train.Example, has no `text` or has ids outside [0, limit) is damaged, too.
    """
    for piece in framing.walk(path, seen):
        ids, kind, words = None, piece.kind, framing.WORDS.get(piece.kind)
        try:
            ids = None if kind else tfrecords.token_ids(piece.payload, limit)
        except ValueError as error:
            kind, words = IDS if isinstance(error, tfrecords.IdError) else FORMAT, str(error)
        yield piece, ids, Problem(piece.number, piece.offset, kind, words) if kind else None


def survey(job, advance=None):
    """The Survey of a ShardToRead; `advance(bytes)` is called as it is read."""
    digest = hashlib.sha256()
    shard, size, problems = Shard.empty(job.path), 0, []

    def seen(data):
        nonlocal size
        digest.update(data)
        size += len(data)
        if advance:
            advance(len(data))
    for _, ids, problem in judged(job.path, job.limit, seen):
        if problem:
            problems.append(problem)
        else:
            shard = shard.with_records([len(ids)], ids)
    return Survey(shard._replace(size=size, sha256=digest.hexdigest()), tuple(problems))


def survey_all(jobs, total_bytes, processes, advance):
    """Yields the Survey of each ShardToRead as it is done, in any order, from up to so many processes."""
    with tempfile.TemporaryDirectory() as state:
        yield from workers.each(survey, jobs, min(processes, 1 + total_bytes // WORKER_BYTES), state, advance)


def first_problem(path, limit=None):
    """The first Problem in a file, or None."""
    return next((problem for _, _, problem in judged(path, limit) if problem), None)
