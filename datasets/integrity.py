"""Reads shards whole and says of each what is good in it, and of every damaged record where it stands."""
from __future__ import annotations

import hashlib
from typing import NamedTuple

from configs import storage
from configs.errors import UserError
from datasets import framing, tfrecords
from datasets.jobs import workers
from datasets.tfrecords import Shard

FORMAT, IDS = "format", "ids"  # kinds of damage inside an undamaged frame
KINDS = (framing.FOREIGN, framing.LENGTH, framing.PAYLOAD, framing.CUT, FORMAT, IDS)
WORKER_BYTES = 1 << 25  # less is read sooner than another process starts


class Survey(NamedTuple):
    """What reading a file whole has shown."""
    shard: Shard  # records, tokens and ids of the good records; size and sha256 of the file as it is
    problems: tuple  # the damaged framing.Pieces


class ShardToRead(NamedTuple):
    path: str
    limit: int | None  # size of the vocabulary, where known


def judged(path, limit=None, seen=lambda data: None):
    """Yields (framing.Piece, its token ids or None) for all of a file, in its order.

    A record that is no tf.train.Example, has no `text` or has ids outside [0, limit) is damaged, too.
    """
    for piece in framing.walk(path, seen):
        try:
            yield piece, None if piece.kind else tfrecords.token_ids(piece.payload, limit)
        except ValueError as error:
            kind = IDS if isinstance(error, tfrecords.IdError) else FORMAT
            yield piece._replace(kind=kind, words=str(error), payload=None), None


def read(path):
    """Yields (payload bytes, token ids int64 [T]) of each record.  Raises UserError at the first damage."""
    for piece, ids in judged(path):
        if piece.kind:
            raise UserError(f"{path}: {piece}: {framing.REMEDY}")
        yield piece.payload, ids


def scan(path):
    """The Shard of a file without damage; text bytes and sha256 stay unknown.  Raises UserError at the first damage."""
    shard = Shard.empty(path)
    for _, ids in read(path):
        shard = shard.with_records([len(ids)], ids)
    return shard._replace(size=storage.size(path))


def survey(job, advance=lambda amount: None):
    """The Survey of a ShardToRead; `advance(bytes)` is called as it is read."""
    shard, digest, problems = Shard.empty(job.path), hashlib.sha256(), []

    def seen(data):
        digest.update(data)
        advance(len(data))
    for piece, ids in judged(job.path, job.limit, seen):
        if piece.kind:
            problems.append(piece)
        else:
            shard = shard.with_records([len(ids)], ids)
    return Survey(shard._replace(size=storage.size(job.path), sha256=digest.hexdigest()), tuple(problems))


def survey_all(jobs, total_bytes, processes, advance):
    """Iterator of the Survey of each ShardToRead as it is done, in any order, from up to so many processes."""
    return workers.each(survey, jobs, min(processes, 1 + total_bytes // WORKER_BYTES), None, advance)


def first_problem(path, limit=None):
    """The first damaged framing.Piece of a file, or None."""
    return next((piece for piece, _ in judged(path, limit) if piece.kind), None)
