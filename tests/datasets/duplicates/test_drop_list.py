"""datasets/duplicates/drop_list.py: written, read back, and what it names."""
import hashlib
import os

import numpy as np
import pytest

from configs.errors import UserError
from datasets import documents
from datasets.duplicates import drop_list


@pytest.fixture
def index(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (b"a b.txt", b"n\xff.txt", "é.txt".encode(), b"z.jsonl"):
        with open(os.path.join(os.fsencode(folder), name), "w") as f:
            f.write('{"text": "x"}\n' * 3)
    return documents.make_index([str(folder)])


def test_a_list_names_the_documents_it_was_written_from(index, tmp_path):
    path, numbers = str(tmp_path / "drop.txt"), np.array([1, 2, 4])
    sha256 = drop_list.write(path, index, numbers)
    keys, read_sha256 = drop_list.read(path)
    with open(path, "rb") as f:
        assert sha256 == read_sha256 == hashlib.sha256(f.read()).hexdigest()
    named, known = drop_list.mark(keys, index)
    assert np.flatnonzero(named).tolist() == [1, 2, 4] and known.all() and len(known) == 3


def test_other_line_ends_and_empty_lines_do_not_matter(index, tmp_path):
    (tmp_path / "drop.txt").write_bytes(b"a b.txt\r\n\nnowhere.txt\nz.jsonl:2")
    named, known = drop_list.mark(drop_list.read(str(tmp_path / "drop.txt"))[0], index)
    assert [documents.identity(index, number) for number in np.flatnonzero(named)] == ["a b.txt", "z.jsonl:2"]
    assert known.tolist() == [True, False, True]


def test_an_empty_list_names_nothing(index, tmp_path):
    assert len(drop_list.write(str(tmp_path / "drop.txt"), index, np.zeros(0, np.int64))) == 64
    named, known = drop_list.mark(drop_list.read(str(tmp_path / "drop.txt"))[0], index)
    assert not named.any() and len(known) == 0


def test_a_list_that_is_missing_is_an_error():
    with pytest.raises(UserError, match="--drop /nowhere: no such file"):
        drop_list.read("/nowhere")


def test_archived_stems_in_two_folders_are_one_name(tmp_path):
    stem = "0000017-" + "0a" * 16 + ".txt"
    for month in "12":
        (tmp_path / month).mkdir()
        (tmp_path / month / stem).write_text("page")
    with pytest.raises(UserError, match=stem[:-4] + ": rename one or leave it out"):
        drop_list.check_names(documents.make_index([str(tmp_path)]))
