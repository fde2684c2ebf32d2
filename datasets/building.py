"""Builds shards: one worker (datasets/jobs/workers.py) reads, cleans, encodes and writes all of one shard.

The state folder holds the index of the documents and one small file for each shard that is complete.
"""
from __future__ import annotations

import functools
import json
import os
from typing import NamedTuple

import numpy as np

from configs import grouping, reading, storage
from configs.errors import UserError
from datasets import cleaning, documents, manifest, tfrecords
from encoder import bpe

OUTCOMES = ("read", "kept", "dropped", "short", "broken", "empty", "bad_lines", "invalid_utf8")
COMPLETE = ".complete.json"
GROUP_CHARACTERS = 1 << 17  # that are encoded at once


class ShardToBuild(NamedTuple):
    state: str  # folder
    path: str  # of the shard
    split: str  # "train" or "eval"
    numbers: np.ndarray  # int64, of the documents to read, in their order
    dropped: int  # documents that are left out because --drop names them
    encoder_path: str | None
    vocabulary: str  # fingerprint
    minimum_size: int  # tokens
    clean: str  # one of cleaning.RULES


def completed(state, output_dir):
    """[the Entry of each shard that earlier runs completed]."""
    return [manifest.entry_from_json(reading.read_object(path), output_dir)
            for path in storage.glob(storage.below(state, "*" + COMPLETE))]


def build(job, advance):
    """Writes a ShardToBuild, then the note that it is complete; returns the Entry.  The state holds the Index."""
    encoder, index = load_encoder(job.encoder_path, job.vocabulary), documents.load(job.state)
    outcomes = {**dict.fromkeys(OUTCOMES, 0), "dropped": job.dropped}
    advance(job.dropped)
    shard = tfrecords.write(job.path, _encoded(job, encoder, index, outcomes, advance), job.state)
    entry = manifest.Entry(job.split, shard, outcomes)
    storage.write_whole(os.path.join(job.state, os.path.basename(job.path) + COMPLETE),
                        json.dumps(manifest.entry_to_json(entry)))
    return entry


@functools.lru_cache(maxsize=1)
def load_encoder(path, fingerprint):
    """The Encoder, which takes a quarter of a second to build, once in each process."""
    encoder = bpe.load(path)
    if encoder.fingerprint != fingerprint:
        raise UserError(f"the vocabulary in {path} has changed since this run began: repeat the command")
    return encoder


def _encoded(job, encoder, index, outcomes, advance):
    """Yields (key bytes, token ids, text bytes) of each document that is kept, and counts them all."""
    texts = _texts(job, index, outcomes, advance)
    for group in grouping.groups(texts, lambda text: len(text[1]), GROUP_CHARACTERS):
        for (identity, text), ids in zip(group, _encode(encoder, group)):
            # Broken as in the original, which met files of nothing but token 0.
            outcome = "short" if len(ids) < job.minimum_size else "kept" if ids.any() else "broken"
            outcomes[outcome] += 1
            if outcome == "kept":
                yield os.fsencode(identity), ids, len(text.encode())


def _texts(job, index, outcomes, advance):
    """Yields (identity, text) of each document that has one, and counts the others."""
    for number in job.numbers.tolist():
        advance(1)
        document = documents.read(index, number)
        outcomes["read"] += 1
        outcomes["invalid_utf8"] += document.invalid_utf8
        if document.text is None:
            outcomes["bad_lines"] += 1
            continue
        text = cleaning.clean(document.text, job.clean)
        if text.isspace() or not text:
            outcomes["empty"] += 1
            continue
        yield document.identity, text


def _encode(encoder, group):
    """The token ids of each (identity, text).  Raises UserError that names the document."""
    try:
        return encoder.encode_arrays([text for _, text in group])
    except UserError:
        for identity, text in group:
            try:
                encoder.encode_array(text)
            except UserError as error:
                raise UserError(f"{identity}: {error}")
        raise
