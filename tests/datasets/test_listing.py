"""datasets/listing.py: which files are read, and what is said of those that are not."""
import os

import pytest

from configs.errors import UserError
from datasets import listing


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder `texts` with something of every kind; the test stands beside it."""
    for name in ("texts/A.TXT", "texts/b.markdown", "texts/README", "texts/c.html", "texts/sub/D.HTML", "texts/e.pdf",
                 "texts/sub/f.Jsonl.GZ", "old/g.txt", "old/below/h.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    os.symlink("../old", tmp_path / "texts" / "link")
    os.symlink("nowhere", tmp_path / "texts" / "gone.txt")
    os.symlink("../old/g.txt", tmp_path / "texts" / "linked.txt")
    os.mkfifo(tmp_path / "texts" / "pipe.txt")
    monkeypatch.chdir(tmp_path)


def find(*inputs, exclude=()):
    """(paths below their roots, what was left out)."""
    left_out = {}
    return [place[1] for place in listing.find(inputs, listing.matcher(exclude), "--input", left_out)], left_out


ALWAYS = ["A.TXT", "b.markdown", "linked.txt", "sub/f.Jsonl.GZ"]


def test_endings_count_whatever_their_case_and_all_else_is_counted_by_kind_and_named(tree):
    found, left_out = find("texts")
    assert found == ALWAYS
    assert left_out == {".html": [2, "c.html"], ".pdf": [1, "e.pdf"], "without ending": [1, "README"],
                        "link to a folder": [1, "link"], "link to nowhere": [1, "gone.txt"],
                        "no regular file": [1, "pipe.txt"]}
    assert listing.described(left_out) == (
        "2 .html (c.html, ...), 1 .pdf (e.pdf), 1 link to a folder (link), 1 link to nowhere (gone.txt), 1 no regular "
        "file (pipe.txt), 1 without ending (README); give texts without ending and links by name")
    assert listing.described({}) == ""
    many = {f".{i}": [9 - i, f"a.{i}"] for i in range(9)}
    assert listing.described(many).endswith("4 .5 (a.5, ...), 6 of 3 other kinds")


def test_what_is_excluded_is_not_called_left_out(tree):
    found, left_out = find("texts", exclude=["*.html", "link", "README", "gone.txt", "pipe.txt", "sub", "*.pdf"])
    assert (found, left_out) == (ALWAYS[:3], {})


def test_texts_without_ending_and_links_are_read_when_they_are_given_by_name(tree):
    assert find("texts/README") == (["README"], {})
    found, left_out = find("texts", "texts/README", "texts/link")
    assert found == ["A.TXT", "README", *ALWAYS[1:], "below/h.txt", "g.txt"] or \
        found == ["A.TXT", "README", *ALWAYS[1:], "g.txt", "below/h.txt"]
    assert not {"without ending", "link to a folder"} & left_out.keys()
    assert find("texts", "texts/link/below")[0] == [*ALWAYS, "h.txt"]


def test_a_glob_reads_what_a_folder_would_and_counts_the_rest(tree):
    found, left_out = find("texts/*")
    assert found == ["A.TXT", "b.markdown", "link/g.txt", "link/below/h.txt", "linked.txt", "sub/f.Jsonl.GZ"]
    assert left_out == {".html": [2, "c.html"], ".pdf": [1, "e.pdf"], "without ending": [1, "README"],
                        "link to nowhere": [1, "gone.txt"], "no regular file": [1, "pipe.txt"]}
    assert find("texts/**")[0] == ALWAYS


@pytest.mark.parametrize("given, message", [
    ("my_texts", "--input my_texts: no such file or folder in {here}$"),
    ("/nowhere", "/nowhere: no such file or folder$"),
    ("no*where", r"no such file or folder in {here}$"),
    ("texts/e.pdf", "--input texts/e.pdf: only .txt, .py, .* and files without ending are read; if it is plain text, "
                    "rename it to end in .txt"),
    ("gs://bucket/x", "text is read from local files only")])
def test_an_input_that_cannot_be_read_says_where_it_was_looked_for(tree, given, message):
    with pytest.raises(UserError, match=message.format(here=os.getcwd())):
        find(given)
