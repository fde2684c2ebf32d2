"""Reads documents and lays down, for chunk after chunk, what dedup.py compares; one job is one chunk, one file.

A chunk's file holds, for its n documents and one after another without a header: `COLUMNS` keys, uint64
[COLUMNS, n] (the bands', then that of the exact text); low bytes of the signatures, uint8 [n, PERMUTATIONS]; facts,
uint8 [n, 2] (the kind of document, whether it is invalid UTF-8); and for `--against` the hits, int32 [hits, 2]
(document of the chunk, n-gram of the evaluation texts).
"""
from __future__ import annotations

import functools
import os
from typing import NamedTuple

import numpy as np

from configs import storage
from datasets import documents
from datasets.duplicates import minhash

CHUNK = 1024  # documents: few enough that a thousand books keep two processes busy
COLUMNS = minhash.BANDS + 1
EXACT = minhash.BANDS  # the column of the exact text's key
KINDS = COMPARED, SHORT, EMPTY, BAD_LINE = range(4)  # SHORT: fewer words than a shingle, compared as a whole only
NGRAMS = "against.npy"
FILTER_BITS = range(16, 28)  # of the table that says of most n-grams at once that they are in no evaluation text


class Job(NamedTuple):
    state: str  # folder, with the Index
    number: int  # of the chunk
    count: int  # documents in it
    ngram: int  # words; 0 without evaluation texts


class Chunk(NamedTuple):
    """A chunk's file, read lazily: of a memory-mapped array only what is used comes in."""
    path: str
    count: int

    def column(self, number):
        return np.fromfile(self.path, "<u8", self.count, offset=8 * self.count * number)

    def rows(self, numbers):
        """uint8 [numbers, PERMUTATIONS]: low bytes of the signatures of these documents of the chunk."""
        start = 8 * COLUMNS * self.count
        return np.memmap(self.path, np.uint8, "r", start, (self.count, minhash.PERMUTATIONS))[numbers]

    def facts(self):
        start = (8 * COLUMNS + minhash.PERMUTATIONS) * self.count
        return np.fromfile(self.path, np.uint8, 2 * self.count, offset=start).reshape(-1, 2)

    def hits(self):
        start = (8 * COLUMNS + minhash.PERMUTATIONS + 2) * self.count
        return np.fromfile(self.path, "<i4", offset=start).reshape(-1, 2)


def jobs(state, count, ngram):
    return [Job(state, i, min(CHUNK, count - i * CHUNK), ngram) for i in range(-(-count // CHUNK))]


def chunk(job):
    return Chunk(os.path.join(job.state, f"signatures-{job.number:06}"), job.count)


def sign(job, advance):
    """Writes the job's chunk, whole or not at all."""
    index = documents.load(job.state)
    keys = np.zeros((COLUMNS, job.count), np.uint64)
    low, facts = np.zeros((job.count, minhash.PERMUTATIONS), np.uint8), np.zeros((job.count, 2), np.uint8)
    hits = []
    for rows, texts in _batches(index, job, facts):
        words, counts = minhash.word_hashes(texts)
        signatures = minhash.minima(words, counts)
        keys[:minhash.BANDS, rows], low[rows] = minhash.band_keys(signatures), minhash.low_bytes(signatures)
        ends = np.cumsum(counts).tolist()
        for row, text, count, end in zip(rows, texts, counts.tolist(), ends):
            keys[EXACT, row] = minhash.exact_key(text, words[end - count:end])
        short = [row for row, count in zip(rows, counts) if count < minhash.SHINGLE]
        facts[short, 0] = SHORT
        if job.ngram:
            hits.append(_hits(job, words, counts, rows))
        advance(len(rows))
    advance(int(np.isin(facts[:, 0], (EMPTY, BAD_LINE)).sum()))
    parts = [keys.astype("<u8"), low, facts, *[hit.astype("<i4") for hit in hits]]
    storage.write_whole(chunk(job).path, b"".join(part.tobytes() for part in parts))


def _batches(index, job, facts):
    """Yields (rows of the chunk, their texts) that are not empty, some at a time; notes the others in `facts`."""
    rows, texts, size = [], [], 0
    for row in range(job.count):
        document = documents.read(index, job.number * CHUNK + row)
        facts[row, 1] = document.invalid_utf8
        if document.text is None or not document.text.strip():
            facts[row, 0] = BAD_LINE if document.text is None else EMPTY
            continue
        rows.append(row)
        texts.append(document.text)
        size += len(document.text)
        if size >= minhash.TEXT_BYTES:
            yield rows, texts
            rows, texts, size = [], [], 0
    if rows:
        yield rows, texts


def ngrams_of(index, length):
    """(sorted uint64 n-grams of all texts of the Index, how many texts have none)."""
    found, without = [np.zeros(0, np.uint64)], 0
    for number in range(len(index.file)):
        words, counts = minhash.word_hashes([documents.read(index, number).text or ""])
        hashes, _ = minhash.ngrams(words, counts, length)
        without += not len(hashes)
        found.append(np.unique(hashes))
    return np.unique(np.concatenate(found)), without


def _hits(job, words, counts, rows):
    """int64 [hits, 2]: (row, number of the n-gram), each pair once."""
    ngrams, table, shift = _wanted(job.state)
    hashes, per_text = minhash.ngrams(words, counts, job.ngram)
    maybe = np.flatnonzero(table[hashes >> shift])
    places = np.searchsorted(ngrams, hashes[maybe])
    found = places < len(ngrams)
    found[found] = ngrams[places[found]] == hashes[maybe[found]]
    owners = np.searchsorted(np.cumsum(per_text), maybe[found], "right")
    pairs = np.stack([np.array(rows, np.int64)[owners], places[found]], axis=1)
    return np.unique(pairs, axis=0)


@functools.lru_cache(maxsize=1)
def _wanted(state):
    """(sorted n-grams, table of which leading bits occur in them, shift that leaves these bits)."""
    ngrams = np.load(os.path.join(state, NGRAMS))
    bits = min(max((16 * len(ngrams)).bit_length(), FILTER_BITS[0]), FILTER_BITS[-1])
    shift = np.uint64(64 - bits)
    table = np.zeros(1 << bits, bool)
    table[ngrams >> shift] = True
    return ngrams, table, shift
