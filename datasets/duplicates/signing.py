"""Signs documents: reads them in chunks, and writes a file for each chunk with all that dedup.py compares.

The file of a chunk of n documents has no header, only: `COLUMNS` keys, uint64 [COLUMNS, n] (the bands', then that of
the exact text); low bytes of the signatures, uint8 [n, PERMUTATIONS]; kinds of the documents, uint8 [n], with the
bit MARKED; for `--against` the hits, int32 [hits, 2] (document of the chunk, number of the n-gram).
"""
import functools
import os
from typing import NamedTuple

import numpy as np

from configs import grouping, storage
from datasets import documents, left_out
from datasets.duplicates import minhash
from encoder import bpe

CHUNK = 1024  # documents: few enough that a thousand books keep two processes busy
COLUMNS = minhash.BANDS + 1
EXACT = minhash.BANDS  # the column of the exact text's key
# SHORT: fewer words than a shingle, compared as a whole only.
KINDS = COMPARED, SHORT, EMPTY, BAD_LINE, OTHER_ENCODING, PACKED, NO_OBJECT = range(7)
PROBLEMS = {documents.BAD_LINE: BAD_LINE, documents.NO_OBJECT: NO_OBJECT, documents.OTHER_ENCODING: OTHER_ENCODING,
            documents.PACKED: PACKED}
MARKED = 1 << 7  # <|endoftext|> stands in the document
NGRAMS = "against.npy"
FILTER_BITS = range(16, 28)  # of the table that says of most n-grams at once that they are in no evaluation text


class Chunk(NamedTuple):
    """Documents that one job signs, and their file, of which only what is used is read."""
    state: str  # folder, with the Index
    number: int
    count: int  # documents
    ngram: int  # words; 0 without evaluation texts

    @property
    def path(self):
        return os.path.join(self.state, f"signatures-{self.number:06}")

    def column(self, number):
        return np.fromfile(self.path, "<u8", self.count, offset=8 * self.count * number)

    def rows(self, numbers):
        """uint8 [numbers, PERMUTATIONS]: low bytes of the signatures of these documents of the chunk."""
        start = 8 * COLUMNS * self.count
        return np.memmap(self.path, np.uint8, "r", start, (self.count, minhash.PERMUTATIONS))[numbers]

    def kinds(self):
        return self._flags() & ~np.uint8(MARKED)

    def marked(self):
        """bool [n]: in which documents <|endoftext|> stands."""
        return self._flags() >= MARKED

    def _flags(self):
        start = (8 * COLUMNS + minhash.PERMUTATIONS) * self.count
        return np.fromfile(self.path, np.uint8, self.count, offset=start)

    def hits(self):
        start = (8 * COLUMNS + minhash.PERMUTATIONS + 1) * self.count
        return np.fromfile(self.path, "<i4", offset=start).reshape(-1, 2)


def chunks(state, count, ngram):
    """The Chunks of `count` documents."""
    return [Chunk(state, i, min(CHUNK, count - i * CHUNK), ngram) for i in range(-(-count // CHUNK))]


def sign(chunk, advance):
    """Writes the chunk's file, whole or not at all."""
    index = documents.load(chunk.state)
    keys = np.zeros((COLUMNS, chunk.count), "<u8")
    low, kinds = np.zeros((chunk.count, minhash.PERMUTATIONS), np.uint8), np.zeros(chunk.count, np.uint8)
    hits, marked = [], np.zeros(chunk.count, bool)
    for group in grouping.groups(_texts(index, chunk, kinds), lambda item: len(item[1]), minhash.TEXT_BYTES):
        rows, texts = map(list, zip(*group))
        words, counts = minhash.word_hashes(texts)
        signatures = minhash.minima(words, counts)
        keys[:minhash.BANDS, rows], low[rows] = minhash.band_keys(signatures), signatures.astype(np.uint8)
        for row, text, some in zip(rows, texts, np.split(words, np.cumsum(counts))):
            keys[EXACT, row] = minhash.exact_key(text, some)
            marked[row] = bpe.END_OF_TEXT in text
            if len(some) < minhash.SHINGLE:
                kinds[row] = SHORT
        if chunk.ngram:
            hits.append(_hits(chunk, words, counts, rows))
        advance(len(rows))
    advance(int(np.isin(kinds, (EMPTY, *PROBLEMS.values())).sum()))
    kinds |= np.where(marked, np.uint8(MARKED), np.uint8(0))
    storage.write_whole(chunk.path, b"".join(part.tobytes() for part in (keys, low, kinds, *hits)))


def _texts(index, chunk, kinds):
    """Yields (row of the chunk, text) of each document that is not empty; notes the others in `kinds`."""
    for row in range(chunk.count):
        document = documents.read(index, chunk.number * CHUNK + row)
        if document.problem or not document.text.strip():
            kinds[row] = PROBLEMS.get(document.problem, EMPTY)
            continue
        yield row, document.text


def ngrams_of(index, length):
    """(sorted uint64 n-grams of all texts of the Index, how many have none, what was left out)."""
    ngrams, found = [np.zeros(0, np.uint64)], {}
    for number in range(len(index.file)):
        document = documents.read(index, number)
        if document.problem:
            left_out.note(found, document.problem, number)
            continue
        ngrams.append(np.unique(minhash.ngrams(*minhash.word_hashes([document.text]), length)[0]))
    return np.unique(np.concatenate(ngrams)), sum(not len(some) for some in ngrams[1:]), found


def _hits(chunk, words, counts, rows):
    """int32 [hits, 2]: (row, number of the n-gram), each pair once."""
    ngrams, table, shift = _evaluation_ngrams(chunk.state)
    hashes, per_text = minhash.ngrams(words, counts, chunk.ngram)
    maybe = np.flatnonzero(table[hashes >> shift])
    places = np.minimum(np.searchsorted(ngrams, hashes[maybe]), len(ngrams) - 1)
    equal = ngrams[places] == hashes[maybe]
    owners = np.searchsorted(np.cumsum(per_text), maybe[equal], "right")
    return np.unique(np.stack([np.array(rows)[owners], places[equal]], axis=1), axis=0).astype("<i4")


@functools.lru_cache(maxsize=1)
def _evaluation_ngrams(state):
    """(the sorted n-grams, table of which leading bits occur in them, shift that leaves these bits)."""
    ngrams = np.load(os.path.join(state, NGRAMS))
    bits = min(max((16 * len(ngrams)).bit_length(), FILTER_BITS[0]), FILTER_BITS[-1])
    shift = np.uint64(64 - bits)
    table = np.zeros(1 << bits, bool)
    table[ngrams >> shift] = True
    return ngrams, table, shift
