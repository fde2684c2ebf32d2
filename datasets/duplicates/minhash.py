"""Texts -> words -> hashes of their n-grams -> MinHash signatures, for many texts at once, in NumPy alone.

A signature holds, for each of `PERMUTATIONS` orders of all possible shingles (runs of `SHINGLE` words), the text's
first shingle in that order: two texts agree in an entry with the probability of their shingles' Jaccard similarity
(Broder, On the resemblance and containment of documents, 1997, https://doi.org/10.1109/SEQUEN.1997.666900).
Bands of rows as in Lee et al. (https://arxiv.org/abs/2107.06499) and in datatrove's and SlimPajama's pipelines
(https://github.com/huggingface/datatrove, https://github.com/Cerebras/modelzoo): texts that agree in all `ROWS`
entries of a band are candidates, which 14 bands of 8 make of half the pairs of similarity (1/14)^(1/8) = 0.72.
"""
import functools
import hashlib
import unicodedata

import numpy as np

from configs import grouping

SHINGLE = 5  # words
BANDS, ROWS = 14, 8
PERMUTATIONS = BANDS * ROWS
FORMAT = 1  # raised whenever the same text would get another signature
SEED = 20261122  # of the constants below; part of the format
SEPARATOR, WORD, ALONE = 0, 1, 2  # kinds of characters: between words, part of a word, a word by itself
ASCII_KINDS = bytes(WORD if chr(code).isalnum() or chr(code) == "_" else SEPARATOR for code in range(256))
# Scripts that put no space between words: kana, Han, Thai, Lao, Myanmar, Khmer.
UNSPACED = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF),
            (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))
CODES = 0x110000  # Unicode's
PIECE = 1 << 15  # characters hashed at once: what fits the cache; a longer word is cut there
BLOCK = 1 << 10  # shingles permuted at once, likewise
TEXT_BYTES = 1 << 20  # of texts whose words are held at once


def word_hashes(texts):
    """Texts -> (uint64 hashes of their words, one after another; int64 [texts] counts of words).

    Words are letters, digits, marks and _ of the lower-case NFKC text; case, space and punctuation do not count.
    """
    hashes, counts = [np.zeros(0, np.uint64)], np.zeros(len(texts), np.int64)
    pieces = ((number, piece) for number, text in enumerate(texts) for piece in _pieces(_codes(text)))
    for group in grouping.groups(pieces, lambda item: len(item[1]), PIECE):
        owners, some = zip(*group)
        hashes.append(_hash_pieces(some, list(owners), counts))
    return np.concatenate(hashes), counts


def _codes(text):
    """Code points of the text in the form that is compared, with a space at its end: uint8 or uint32."""
    if text.isascii():
        return np.frombuffer((text.lower() + " ").encode("ascii"), np.uint8)
    text = unicodedata.normalize("NFKC", text).lower() + " "
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _pieces(codes):
    """Cuts a long text at ends of words; where it is cut depends on this text alone."""
    while len(codes) > PIECE:
        ends = np.flatnonzero(_kinds(codes[:PIECE]) != WORD)
        cut = int(ends[-1]) + 1 if len(ends) else PIECE
        yield codes[:cut]
        codes = codes[cut:]
    yield codes


def _hash_pieces(pieces, owners, counts):
    """The hashes of the words in `pieces`; adds their numbers to the `counts` of their texts, the `owners`.

    A word's hash is the polynomial in a random odd BASE modulo 2^64 with its characters as coefficients: differences of
    sums over all pieces, so that all words come at once, brought back to the word's start by the inverse of its power.
    """
    codes = np.concatenate(pieces)
    kinds = _kinds(codes)
    word = np.zeros(len(codes) + 2, bool)
    word[1:-1] = kinds == WORD
    edges = np.flatnonzero(word[1:] != word[:-1])
    starts, ends = edges[::2], edges[1::2]
    alone = np.flatnonzero(kinds == ALONE)
    if len(alone):
        starts, ends = np.sort(np.concatenate((starts, alone))), np.sort(np.concatenate((ends, alone + 1)))
    powers, inverses = _powers()
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * powers[:len(codes)], out=sums[1:])
    before = np.searchsorted(starts, np.cumsum([len(piece) for piece in pieces]))
    np.add.at(counts, owners, np.diff(before, prepend=0))
    return (sums[ends] - sums[starts]) * inverses[starts]


def ngrams(words, counts, length):
    """(uint64 hashes of all runs of `length` words, none across texts; int64 [texts] how many each text has)."""
    if len(words) < length:
        return np.zeros(0, np.uint64), np.zeros(len(counts), np.int64)
    base, last = _random_odd(2), len(words) - length + 1
    hashes = words[:last].copy()
    for i in range(1, length):
        hashes *= base
        hashes += words[i:last + i]
    inside = np.ones(len(words), bool)
    ends = np.cumsum(counts)
    for i in range(1, length):  # the last length - 1 words of a text begin no run
        inside[np.maximum(ends - i, ends - counts)[counts > 0]] = False
    return mix(hashes[inside[:last]]), np.maximum(counts - length + 1, 0)


def mix(hashes):
    """Spreads every bit of uint64 over all: the finalizer of splitmix64 (https://prng.di.unimi.it/splitmix64.c)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def minima(words, counts):
    """uint32 [texts, PERMUTATIONS], the signatures; all ones where a text has fewer than `SHINGLE` words.

    The order is that of a x modulo 2^32 with a random odd a, for the upper half x of a shingle's hash: multiply-shift
    (Dietzfelbinger et al. 1997, https://doi.org/10.1006/jagm.1997.0873), whose upper bits decide.
    """
    hashes, per_text = ngrams(words, counts, SHINGLE)
    hashes = (hashes >> np.uint64(32)).astype(np.uint32)
    factors = np.random.RandomState(SEED).randint(0, 2 ** 32, (PERMUTATIONS, 1), np.uint32) | np.uint32(1)
    result = np.full((len(counts), PERMUTATIONS), 0xFFFFFFFF, np.uint32)
    have = np.flatnonzero(per_text)
    starts = np.cumsum(per_text[have]) - per_text[have]
    buffer = np.empty((PERMUTATIONS, BLOCK), np.uint32)
    for begin in range(0, len(hashes), BLOCK):
        block = hashes[begin:begin + BLOCK]
        permuted = buffer[:, :len(block)]
        np.multiply(block, factors, out=permuted)
        first, stop = np.searchsorted(starts, (begin, begin + len(block) - 1), "right") - (1, 0)
        cuts = np.maximum(starts[first:stop] - begin, 0)
        rows = have[first:stop]
        result[rows] = np.minimum(result[rows], np.minimum.reduceat(permuted, cuts, axis=1).T)
    return result


def band_keys(signatures):
    """uint32 [texts, PERMUTATIONS] -> uint64 [BANDS, texts]: equal where all rows of the band are."""
    rows = signatures.reshape(-1, BANDS, ROWS).astype(np.uint64)
    keys = np.zeros(rows.shape[:2], np.uint64)
    for i in range(ROWS):
        keys = (keys + rows[:, :, i]) * _random_odd(3)
        keys ^= keys >> np.uint64(29)
    return np.ascontiguousarray(mix(keys).T)


def similarity(one, other):
    """float64 [pairs]: estimates of the Jaccard similarity from the signatures' low bytes, uint8 [pairs, PERMUTATIONS].

    Low bytes are enough (b-bit minwise hashing, Li and Koenig 2010, https://arxiv.org/abs/0910.3349).
    """
    by_chance = 1 / 256
    return ((one == other).mean(axis=1) - by_chance) / (1 - by_chance)


def exact_key(text, words):
    """int: equal for texts of the same words; of a text without words, for the same text but for space around it."""
    data = words.tobytes() if len(words) else b"-" + text.strip().encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _kinds(codes):
    """Code points, uint8 or uint32 -> SEPARATOR, WORD or ALONE, uint8."""
    if codes.dtype == np.uint8:  # several times as fast as indexing
        return np.frombuffer(codes.tobytes().translate(ASCII_KINDS), np.uint8)
    return _all_kinds()[codes]


@functools.lru_cache(maxsize=None)
def _all_kinds():
    """The kind of each code point, uint8 [CODES]; takes a quarter of a second, which ASCII text is spared."""
    kinds = np.array([unicodedata.category(chr(code))[0] in "LNM" for code in range(CODES)], np.uint8)
    for first, last in UNSPACED:
        kinds[first:last + 1] *= ALONE
    kinds[ord("_")] = WORD
    return kinds


@functools.lru_cache(maxsize=None)
def _powers():
    """BASE^i and BASE^-i modulo 2^64, uint64 [PIECE] each."""
    base = int(_random_odd(1))
    factors = np.repeat(np.array([[base], [pow(base, -1, 2 ** 64)]], np.uint64), PIECE, axis=1)
    factors[:, 0] = 1
    return np.cumprod(factors, axis=1, dtype=np.uint64)


@functools.lru_cache(maxsize=None)
def _random_odd(number):
    """An odd uint64 of its own for each use."""
    digest = hashlib.blake2b(b"%d:%d" % (SEED, number), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little") | 1)
