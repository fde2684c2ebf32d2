"""datasets/cutting.py: where documents begin in a file, and copies of files that cannot be cut as they are."""
import argparse
import gzip
import json

import pytest

from datasets import cutting, documents


@pytest.mark.parametrize("content", ["", "\n", "\n\n", "a", "a\n", "a\nb", "a\n\nb\n", "\na"])
def test_lines_are_those_of_python_at_any_size_of_buffer(tmp_path, monkeypatch, content):
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    for size in (1, 2, 3, 100):
        monkeypatch.setattr(cutting, "READ_BYTES", size)
        starts, lengths = cutting._lines(str(path))
        expected = content.split("\n")[:-1] if content.endswith("\n") else content.split("\n") if content else []
        assert [content[start:start + n] for start, n in zip(starts, lengths)] == expected


def read(paths, scratch, **reading):
    """[(identity, text)] of the documents."""
    index = documents.make_index([str(path) for path in paths], scratch=str(scratch),
                                 reading=cutting.Reading(**reading))
    return [documents.read(index, number)[:2] for number in range(len(index.file))]


@pytest.mark.parametrize("split_on, content, expected", [
    ("<|endoftext|>", "a<|endoftext|>b\n<|endoftext|>\n c", ["a", "b\n", "\n c"]),
    ("<|endoftext|>", "a<|endoftext|><|endoftext|> \n<|endoftext|>", ["a"]), ("<|endoftext|>", "alone", ["alone"]),
    ("\n\n", "a\n\n\nb\n\n", ["a", "\nb"]), ("\n\n\n", "a\r\n\r\n\r\nb\n\n\nc", ["a", "b", "c"]),
    ("\n\n", "a\r\nb\r\n\r\nc\r\rd", ["a\r\nb", "c", "d"]), ("\n--\n", "a\r\n--\r\nb--\nc", ["a", "b--\nc"]),
    (".+", "a.+b..c", ["a", "b..c"]), ("é", "aéb", ["a", "b"]), ("x", "", []), ("x", " \n", [])])
def test_a_text_is_cut_at_the_mark_and_white_space_alone_is_no_document(tmp_path, split_on, content, expected):
    (tmp_path / "x.md").write_bytes(content.encode())
    (tmp_path / "y.txt").write_text("other")
    assert read([tmp_path / "x.md", tmp_path / "y.txt"], tmp_path / "scratch", split_on=split_on) == [
        *((f"x.md:{i}", text) for i, text in enumerate(expected, 1)), ("y.txt:1", "other")]
    assert not (tmp_path / "scratch").exists()


def test_a_mark_cuts_no_lines_of_json(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a---b"}\n')
    assert read([tmp_path / "x.jsonl"], tmp_path, split_on="---") == [("x.jsonl:1", "a---b")]


def test_files_of_other_encodings_are_cut_as_their_texts_are(tmp_path):
    texts, scratch = ["ä\n", "ö", "\nü"], tmp_path / "scratch"
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    for name, data in (("a.txt", "---".join(texts).encode("utf-16")), ("b.txt", "---".join(texts).encode("cp1252")),
                       ("c.jsonl", lines.encode("utf-16")), ("d.jsonl", lines.encode("cp1252")),
                       ("e.jsonl.gz", gzip.compress(lines.encode("cp1252"))), ("f.txt", "---".join(texts).encode())):
        (tmp_path / name).write_bytes(data)
    paths = sorted(path for path in tmp_path.iterdir())
    found = read(paths, scratch, split_on="---", encoding="cp1252")
    assert found == [(f"{path.name}:{i}", text) for path in paths for i, text in enumerate(texts, 1)]
    copies = {path: path.stat().st_mtime_ns for path in scratch.iterdir()}
    assert len(copies) == 6 and read(paths, scratch, split_on="---", encoding="cp1252") == found
    assert {path: path.stat().st_mtime_ns for path in scratch.iterdir()} == copies  # used again
    other = read(paths, scratch, split_on="---", encoding="latin-1")
    assert other == found and len(list(scratch.iterdir())) == 11  # but not for another encoding


def test_bytes_that_are_no_utf8_cost_only_the_documents_that_hold_them(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one---caf\xe9---three")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "one"}\n{"text": "caf\xe9"}\n{"text": "three"}\n')
    assert [text for _, text in read([tmp_path], tmp_path, split_on="---")] == ["one", None, "three"] * 2


@pytest.mark.parametrize("given, expected", [("<|endoftext|>", "<|endoftext|>"), (r"\n\n\n", "\n\n\n"),
                                             (r"a\t\\n\\", "a\t\\n\\"), ("\n", "\n")])
def test_escapes_of_a_mark_are_understood(given, expected):
    assert cutting.unescaped(given) == expected


@pytest.mark.parametrize("given, message", [
    ("", "it is empty"), (r"\d", r"\\d is not known; give a text, in which \\n is"), ("a\\", r"\\ is not known")])
def test_a_mark_that_is_none_is_told(given, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        cutting.unescaped(given)


def test_stretches_of_a_file_end_behind_a_word_at_a_line_end(tmp_path):
    (tmp_path / "text.txt").write_bytes("abc\n\ndef \nghi 。\njk\u2003\nlm東\r\nno\n".encode())
    starts, lengths = cutting.stretches(str(tmp_path / "text.txt"), 2, cutting.USUAL)
    data = (tmp_path / "text.txt").read_bytes()
    assert [data[start:start + length].decode() for start, length in zip(starts, lengths)] == [
        "abc", "\n\ndef \nghi 。\njk\u2003\nlm東", "\r\nno", "\n"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_file_whose_line_ends_are_not_sure_is_one_stretch(tmp_path, encoding):
    (tmp_path / "text.txt").write_bytes("上\n海\n".encode(encoding) * 9)
    starts, lengths = cutting.stretches(str(tmp_path / "text.txt"), 2, cutting.Reading("utf-16-be"))
    assert (list(starts), list(lengths)) == ([0], [(tmp_path / "text.txt").stat().st_size])
