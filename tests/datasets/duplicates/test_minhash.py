"""datasets/duplicates/minhash.py against sets of words in plain Python."""
import random
import re
import unicodedata

import numpy as np
import pytest

from datasets.duplicates import minhash

TEXTS = ["", "one", "Two words", "“Quoted” naïve_names, isn't 1813!", " -- ... ", "ﬁne ＡＢＣ ΣΊΣΥΦΟΣ жук",
         "a b c d e f g", "x" * 70 + " tail", "The the THE", "\ud800 lone", "last\n\n"]


def words_of(text):
    """The same words by another road."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower())


def random_text(rng, words):
    return " ".join(f"w{rng.randrange(10 ** 6)}" for _ in range(words))


def split(values, counts):
    return np.split(values, np.cumsum(counts)[:-1])


def shingles(text, length=minhash.SHINGLE):
    words = words_of(text)
    return {tuple(words[i:i + length]) for i in range(len(words) - length + 1)}


def test_words_are_those_of_a_regular_expression_and_equal_hashes_are_equal_words():
    hashes, counts = minhash.word_hashes(TEXTS)
    expected = [word for text in TEXTS for word in words_of(text)]
    assert counts.tolist() == [len(words_of(text)) for text in TEXTS]
    known = {}
    for word, value in zip(expected, hashes.tolist()):
        assert known.setdefault(word, value) == value
    assert len(set(known.values())) == len(known) >= 20


@pytest.mark.parametrize("piece", [7, 30, minhash.PIECE])
def test_a_text_has_the_same_words_in_any_company(monkeypatch, piece):
    monkeypatch.setattr(minhash, "PIECE", piece)
    together = split(*minhash.word_hashes(TEXTS))
    for text, hashes in zip(TEXTS, together):
        assert np.array_equal(minhash.word_hashes([text])[0], hashes)


def test_words_longer_than_a_piece_are_cut_and_others_are_not(monkeypatch):
    text = "short " + "x" * 20 + " and more words " * 9
    whole = minhash.word_hashes([text])[0]
    monkeypatch.setattr(minhash, "PIECE", 8)
    cut = minhash.word_hashes([text])[0]
    assert len(cut) == len(whole) + 2 and np.array_equal(cut[4:], whole[2:]) and cut[0] == whole[0]


def test_ascii_and_other_texts_agree_on_their_common_words():
    plain, other = minhash.word_hashes(["alpha Beta_2"])[0], minhash.word_hashes(["alpha é Beta_2"])[0]
    assert np.array_equal(plain, other[[0, 2]])


def test_scripts_without_spaces_are_words_of_one_character():
    assert minhash.word_hashes(["中文字，中 abc ภาษา"])[1].tolist() == [4 + 1 + 4]
    hashes = minhash.word_hashes(["中文字，中 abc"])[0]
    assert hashes[0] == hashes[3] and len(set(hashes.tolist())) == 4


@pytest.mark.parametrize("length", [1, 2, 5, 13])
def test_ngrams_are_the_runs_of_words_within_each_text(length):
    rng = random.Random(1)
    texts = [" ".join(rng.choice("abc") for _ in range(words)) for words in (0, 3, 14, 1, 60, 0, 13, 5, 0)]
    hashes, counts = minhash.ngrams(*minhash.word_hashes(texts), length)
    runs = [tuple(words[i:i + length]) for words in map(words_of, texts) for i in range(len(words) - length + 1)]
    assert counts.tolist() == [max(len(words_of(text)) - length + 1, 0) for text in texts]
    known = {}
    for run, value in zip(runs, hashes.tolist()):
        assert known.setdefault(run, value) == value
    assert len(set(known.values())) == len(known) and len(hashes) == len(runs)


def test_minima_are_those_of_a_loop_at_any_size_of_block(monkeypatch):
    rng = random.Random(2)
    words, counts = minhash.word_hashes([random_text(rng, n) for n in (9, 0, 5, 4, 40, 17)])
    factors = np.random.RandomState(minhash.SEED).randint(0, 2 ** 32, minhash.PERMUTATIONS, np.uint32) | np.uint32(1)
    hashes, per_text = minhash.ngrams(words, counts, minhash.SHINGLE)
    expected = [[min([int(a) * (value >> 32) % 2 ** 32 for value in some.tolist()], default=2 ** 32 - 1)
                 for a in factors] for some in split(hashes, per_text)]
    for block in (1, 3, 1000):
        monkeypatch.setattr(minhash, "BLOCK", block)
        assert minhash.minima(words, counts).tolist() == expected


def pairs_of_similarity(similarity, pairs, rng):
    """(texts, texts, exact Jaccard similarities) of texts that share their beginnings."""
    one, other, exact = [], [], []
    for _ in range(pairs):
        words = random_text(rng, rng.choice([61, 150, 400])).split()
        keep = round(2 * len(words) * similarity / (1 + similarity))
        one.append(" ".join(words))
        other.append(" ".join(words[:keep] + random_text(rng, len(words) - keep).split()))
        a, b = shingles(one[-1]), shingles(other[-1])
        exact.append(len(a & b) / len(a | b))
    return one, other, np.array(exact)


@pytest.mark.parametrize("similarity", [0.3, 0.7, 0.9])
def test_estimates_are_unbiased_and_as_exact_as_so_many_permutations_allow(similarity):
    one, other, exact = pairs_of_similarity(similarity, 150, random.Random(3))
    one, other = [minhash.minima(*minhash.word_hashes(texts)) for texts in (one, other)]
    deviation = np.sqrt((exact * (1 - exact)).mean() / minhash.PERMUTATIONS)
    for estimate in ((one == other).mean(axis=1), minhash.similarity(one.astype(np.uint8), other.astype(np.uint8))):
        error = estimate - exact
        assert abs(error.mean()) < 4 * deviation / np.sqrt(len(error))
        assert 0.7 * deviation < error.std() < 1.4 * deviation


def test_candidates_follow_the_s_curve():
    rng = random.Random(4)
    for similarity in (0.45, 0.72, 0.9):
        one, other, exact = pairs_of_similarity(similarity, 150, rng)
        keys = [minhash.band_keys(minhash.minima(*minhash.word_hashes(texts))) for texts in (one, other)]
        share, expected = (keys[0] == keys[1]).any(axis=0).mean(), (1 - (1 - exact ** 8) ** 14).mean()
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 150) + 0.01


def test_band_keys_are_equal_where_all_rows_are():
    signatures = np.random.RandomState(0).randint(0, 2 ** 32, (3, minhash.PERMUTATIONS), np.uint32)
    signatures[1, :16] = signatures[0, :16]
    signatures[1, 24:31] = signatures[0, 24:31]  # one row short of a band
    keys = minhash.band_keys(signatures)
    assert (keys[:, 0] == keys[:, 1]).tolist() == [True, True] + 12 * [False]


def key(text):
    return minhash.exact_key(text, minhash.word_hashes([text])[0])


def test_exact_keys_see_words_and_their_order_alone():
    assert key("The cat; sat\n") == key("the CAT sat") != key("the sat cat")
    assert key("...") == key(" ...\n") != key("..") and key("") != key("...")


def test_signatures_are_those_of_the_format():
    """Raise FORMAT where this must change: signatures of two versions would be compared else."""
    signature = minhash.minima(*minhash.word_hashes(["The quick brown fox jumps over the lazy dog, née 狐"]))
    found = (minhash.FORMAT, int(signature.sum()), int(minhash.band_keys(signature)[3, 0]))
    assert found == (1, 60539631494, 9542424740019493848)
