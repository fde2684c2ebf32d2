"""Builds shards: one worker (datasets/jobs/workers.py) reads, cleans, encodes and writes all of one shard.

The state folder holds the index of the documents and one small file for each shard that is complete.
"""
from __future__ import annotations

import functools
import json
import os
from typing import NamedTuple

import numpy as np

from configs import errors, grouping, reading, storage
from configs.errors import UserError
from datasets import cleaning, documents, left_out, manifest, tfrecords
from encoder import bpe

OUTCOMES = ("read", "kept", "dropped", "short", "broken", "empty", *documents.PROBLEMS)
COMPLETE = ".complete.json"
GROUP_CHARACTERS = 1 << 17  # that are encoded at once


class ShardToBuild(NamedTuple):
    state: str  # folder
    path: str  # of the shard
    split: str  # manifest.TRAIN or EVAL
    numbers: np.ndarray  # int64, of the documents to read, in their order
    dropped: int  # documents that are left out because --drop names them
    encoder_path: str | None
    vocabulary: str  # fingerprint
    minimum_size: int  # tokens
    clean: str  # one of cleaning.RULES
    cut: float  # share of each document that is for evaluation, its end; 0: documents are whole


class Built(NamedTuple):
    """A shard that is complete."""
    entry: manifest.Entry
    found: dict | None  # what is to be said of its documents, as in left_out.py; None: an earlier run said it


def completed(state, output_dir):
    """[the Built of each shard that earlier runs completed]."""
    built = []
    for path in storage.glob(storage.below(state, "*" + COMPLETE)):
        note = reading.read_object(path)
        if "entry" not in note:  # from before there was anything to say
            continue
        try:
            reading.check_kinds(note, {"found": dict})
            built.append(Built(manifest.entry_from_json(note["entry"], output_dir), note["found"]))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): move it away, and its shard is built again")
    return built


def build(job, advance):
    """Writes a ShardToBuild, then the note that it is complete; returns the Built.  The state holds the Index."""
    encoder, index = load_encoder(job.encoder_path, job.vocabulary), documents.load(job.state)
    outcomes, found = {**dict.fromkeys(OUTCOMES, 0), "dropped": job.dropped}, {}
    advance(job.dropped)
    shard = tfrecords.write(job.path, _encoded(job, encoder, index, outcomes, found, advance), job.state)
    entry = manifest.Entry(job.split, shard, outcomes)
    storage.write_whole(os.path.join(job.state, os.path.basename(job.path) + COMPLETE),
                        json.dumps({"entry": manifest.entry_to_json(entry), "found": found}))
    return Built(entry, found)


@functools.lru_cache(maxsize=1)
def load_encoder(path, fingerprint):
    """The Encoder, which takes a quarter of a second to build, once in each process."""
    encoder = bpe.load(path)
    if encoder.fingerprint != fingerprint:
        raise UserError(f"the vocabulary in {path} has changed since this run began: repeat the command")
    return encoder


def _encoded(job, encoder, index, outcomes, found, advance):
    """Yields (key bytes, token ids, text bytes) of each document that is kept, and counts them all."""
    texts = _texts(job, index, outcomes, found, advance)
    for group in grouping.groups(texts, lambda text: len(text[1]), GROUP_CHARACTERS):
        for (identity, text), ids in zip(group, _encode(encoder, group)):
            # Broken as in the original, which met files of nothing but token 0.
            outcome = "short" if len(ids) < job.minimum_size else "kept" if ids.any() else "broken"
            outcomes[outcome] += 1
            if outcome == "kept":
                yield os.fsencode(identity), ids, len(text.encode())


def _texts(job, index, outcomes, found, advance):
    """Yields (identity, text) of each document that has one, and counts the others."""
    for number in job.numbers.tolist():
        advance(1)
        document = documents.read(index, number)
        outcomes["read"] += 1
        if document.problem:
            outcomes[document.problem] += 1
            if not job.cut or job.split == manifest.TRAIN:  # a lone document is read for each split
                left_out.note(found, document.problem, number)
            continue
        text = cleaning.clean(document.text, job.clean)
        if job.cut:
            place = place_to_cut(text, job.cut)
            text = text[:place] if job.split == manifest.TRAIN else text[place:]
        left_out.note_marks(found, index, number, text)
        if text.isspace() or not text:
            outcomes["empty"] += 1
            continue
        yield document.identity, text


def place_to_cut(text, share):
    """Where the last `share` of a text begins: at a line end near there, else at a space, else right there."""
    wanted, far = round(len(text) * (1 - share)), len(text) * share / 2
    for mark in "\n ":
        places = [text.rfind(mark, 0, wanted) + 1, text.find(mark, wanted) + 1]
        near = [place for place in places if 0 < place < len(text) and abs(place - wanted) <= far]
        if near:
            return min(near, key=lambda place: abs(place - wanted))
    return wanted


def _encode(encoder, group):
    """The token ids of each (identity, text).  Raises UserError that names the document."""
    try:
        return encoder.encode_arrays([text for _, text in group])
    except UserError:
        for identity, text in group:
            with errors.about(identity):
                encoder.encode_array(text)
        raise
