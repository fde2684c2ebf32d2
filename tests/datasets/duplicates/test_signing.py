"""datasets/duplicates/signing.py: what a chunk's file holds, against the same from one document at a time."""
import numpy as np
import pytest

from datasets import documents
from datasets.duplicates import minhash, signing

TEXTS = ["one two three four five six", "", "few words", "naïve 中文字 and more words than five", "x " * 300]


@pytest.fixture
def state(tmp_path):
    """A saved Index of nine documents: two of each text but the first and the last, and one that is not UTF-8."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i, text in enumerate(TEXTS + TEXTS[:4]):
        (folder / f"{i}.txt").write_text(text, encoding="utf-8")
    (folder / "5.txt").write_bytes(TEXTS[0].encode() + b"\xff")
    documents.save(documents.make_index([str(folder)]), str(tmp_path))
    return str(tmp_path)


@pytest.mark.parametrize("size", [4, 9, 100])
@pytest.mark.parametrize("batch", [1, 1 << 20])
def test_a_chunk_holds_the_keys_and_rows_of_its_documents(state, monkeypatch, size, batch):
    monkeypatch.setattr(signing, "CHUNK", size)
    monkeypatch.setattr(minhash, "TEXT_BYTES", batch)
    chunks, count = signing.chunks(state, 9, 0), 0
    for chunk in chunks:
        signing.sign(chunk, lambda n: None)
        for row in range(chunk.count):
            text = documents.read(documents.load(state), count).text
            words, counts = minhash.word_hashes([text or ""])
            signature = minhash.minima(words, counts)
            expected = signing.OTHER_ENCODING if count == 5 else signing.EMPTY if not text else \
                signing.SHORT if counts[0] < 5 else signing.COMPARED
            assert chunk.kinds()[row] == expected
            if text:
                keys = [chunk.column(number)[row] for number in range(signing.COLUMNS)]
                assert keys == [*minhash.band_keys(signature)[:, 0], minhash.exact_key(text, words)]
                assert np.array_equal(chunk.rows(np.array([row]))[0], signature[0].astype(np.uint8))
            count += 1
        assert len(chunk.hits()) == 0
    assert count == 9 and len(chunks) == -(-9 // size)


def test_progress_counts_every_document_once(state):
    seen = []
    for chunk in signing.chunks(state, 9, 0):
        signing.sign(chunk, seen.append)
    assert sum(seen) == 9


def test_hits_are_the_ngrams_that_a_document_shares_with_the_evaluation_texts(state, tmp_path):
    (tmp_path / "eval.txt").write_text("Two three, four! naïve 中文 x x x", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    evaluation = documents.make_index([str(tmp_path / "eval.txt"), str(tmp_path / "latin.txt")])
    ngrams, without, found = signing.ngrams_of(evaluation, 3)
    assert len(ngrams) == 7 and not without and found == {"other_encoding": [1, [1]]}
    documents.save_array(str(tmp_path / signing.NGRAMS), ngrams)
    signing._evaluation_ngrams.cache_clear()
    chunk = signing.chunks(state, 9, 3)[0]
    signing.sign(chunk, lambda n: None)
    hits = chunk.hits()
    assert len(np.unique(hits, axis=0)) == len(hits)
    assert np.bincount(hits[:, 0], minlength=9).tolist() == [1, 0, 0, 1, 1, 0, 0, 0, 1]
    shared = {row: ngrams[hits[hits[:, 0] == row, 1]].tolist() for row in (0, 3, 4)}
    for row, words in ((0, "two three four"), (3, "naïve 中文"), (4, "x x x")):
        assert shared[row] == minhash.ngrams(*minhash.word_hashes([words]), 3)[0].tolist()
