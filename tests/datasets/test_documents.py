"""datasets/documents.py: which files are found, how they are named, and what is read."""
import gzip
import json
import os
import shutil
import tarfile

import pytest

from configs.errors import UserError
from datasets import cutting, documents, left_out

STEM = "0000017-" + "0a" * 16


@pytest.fixture
def tree(tmp_path):
    """A folder with one of everything; written in an order that is not the sorted one."""
    root = tmp_path / "tree"
    files = {"z.txt": "last", "b/readme.md": "# b", "b/code.py": "x = 1\n", "b/test/t.py": "pass", "a.txt": "first",
             "a/site-packages/p.py": "p", "ignored.html": "<p>", "month/" + STEM + ".txt": "page",
             "lines.jsonl": '{"text": "one"}\n\n{"text": "two", "n": 1}\nbroken\n{"text": 5}\n[1]\n{"text": "no end"}'}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def names(inputs, exclude=()):
    index = documents.make_index([str(path) for path in inputs], exclude)
    return [documents.identity(index, number) for number in range(len(index.file))]


def read_all(inputs, **reading):
    index = documents.make_index([str(path) for path in inputs], scratch=str(inputs[0].parent / "scratch"),
                                 reading=cutting.Reading(**reading))
    return [documents.read(index, number) for number in range(len(index.file))]


def test_a_folder_is_read_in_sorted_order_with_paths_below_it_as_names(tree):
    lines = [f"lines.jsonl:{i}" for i in range(1, 8)]
    assert names([tree]) == ["a.txt", *lines, "z.txt", "a/site-packages/p.py", "b/code.py", "b/readme.md",
                             "b/test/t.py", STEM]


def test_excluded_are_components_and_whole_paths(tree):
    everything = names([tree])
    assert names([tree], ["site-packages"]) == [n for n in everything if n != "a/site-packages/p.py"]
    assert names([tree], ["test", "*.jsonl", "month/"]) == ["a.txt", "z.txt", "a/site-packages/p.py", "b/code.py",
                                                           "b/readme.md"]
    assert names([tree], ["*/b/*", "lines.jsonl", "*/" + STEM + ".txt"]) == ["a.txt", "z.txt", "a/site-packages/p.py"]
    assert "b/code.py" in names([tree], ["ode.py", "B"])


def test_files_and_globs_are_named_from_what_stands_before_the_wildcard(tree):
    assert names([tree / "a.txt"]) == ["a.txt"]
    assert names([tree / "b" / "*.py"]) == ["code.py"]
    assert names([tree / "*" / "*.py"]) == ["b/code.py"]
    assert names([str(tree / "**" / "*.py")]) == ["a/site-packages/p.py", "b/code.py", "b/test/t.py"]
    assert names([str(tree / "[ab]")]) == ["a/site-packages/p.py", "b/code.py", "b/readme.md", "b/test/t.py"]


def test_equal_names_of_several_inputs_begin_with_enough_of_their_paths(tmp_path):
    for name in ("1/war.txt", "2/war.txt", "2/of/war.txt", "3/peace.txt", "a/x/war.txt", "b/x/war.txt", "a/x/l.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    one, two, three, a, b = (tmp_path / name for name in ("1", "2", "3", "a/x", "b/x"))
    assert names([one / "war.txt", two / "war.txt"]) == ["1/war.txt", "2/war.txt"]
    assert names([one, two]) == ["1/war.txt", "2/war.txt", "2/of/war.txt"]
    assert names([one, three]) == ["war.txt", "peace.txt"]  # they are told apart as they are
    assert names([tmp_path / "*" / "war.txt"]) == ["1/war.txt", "2/war.txt"]
    assert names([a, b, three]) == ["a/x/l.jsonl:1", "a/x/war.txt", "b/x/war.txt", f"{tmp_path.name}/3/peace.txt"]
    index = documents.make_index([str(a), str(b)])
    assert documents.path(index, 1) == str(a / "war.txt") and documents.read(index, 1).text == "{}"
    with_eval = documents.make_index([str(one), str(two)], eval_inputs=[str(three)])
    assert documents.identity(with_eval, 0) == "peace.txt" and documents.identity(with_eval, 1) == "1/war.txt"
    # datasets/dedup.py, which knows nothing of the evaluation, must find the same names
    assert names([one], []) == ["war.txt"] == [documents.identity(documents.make_index(
        [str(one)], eval_inputs=[str(a)]), 2)]
    (tmp_path / "1" / "war.txt").rename(tmp_path / "1" / "was.txt")
    assert names([one, two]) == ["was.txt", "war.txt", "of/war.txt"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_file_for_evaluation_is_not_trained_on_under_the_name_of_a_link(tmp_path, link):
    for name in ("texts/one.txt", "texts/two.txt", "held/three.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    link(tmp_path / "texts" / "two.txt", tmp_path / "held" / "2.txt")
    link(tmp_path / "held" / "three.txt", tmp_path / "texts" / "3.txt")
    index = documents.make_index([str(tmp_path / "texts")], eval_inputs=[str(tmp_path / "held")])
    assert [documents.identity(index, number) for number in range(len(index.file))] == ["2.txt", "three.txt", "one.txt"]
    assert index.held_out == 2


def test_what_two_inputs_share_is_read_once(tree):
    assert names([tree / "b", tree]).count("b/code.py") == 1
    assert len(names([tree / "b", tree, tree / "a.txt", tree / "*.txt"])) == len(names([tree]))


def test_lines_of_json_are_documents(tree):
    found = read_all([tree / "lines.jsonl"])
    assert [document.text for document in found] == ["one", "", "two", None, None, None, "no end"]
    assert [document.problem for document in found] == [None] * 3 + ["no_object", "bad_lines", "no_object", None]
    assert [document.identity for document in found][::6] == ["lines.jsonl:1", "lines.jsonl:7"]


def test_a_text_in_another_encoding_is_none_unless_it_is_named_and_marks_of_byte_order_are_dropped(tmp_path):
    for name, data in (("a.txt", b"caf\xe9 au lait"), ("b.txt", b"\xef\xbb\xbfmarked"), ("c.txt", "café\r\n".encode()),
                       ("d.md", "wide\n".encode("utf-16")), ("e.jsonl", b'{"text": "caf\xe9"}')):
        (tmp_path / name).write_bytes(data)
    others = [("marked", None), ("café\r\n", None), ("wide\n", None)]
    assert [document[1:] for document in read_all([tmp_path])] == [
        (None, "other_encoding"), *others, (None, "other_encoding")]
    assert [document[1:] for document in read_all([tmp_path], encoding="cp1252")] == [
        ("café au lait", None), *others, ("café", None)]


@pytest.mark.parametrize("reading", [{}, {"encoding": "latin-1"}, {"split_on": "\n"}, {
    "split_on": "\n", "encoding": "cp437"}])
def test_a_packed_file_is_one_document_without_text_whatever_its_name_and_how_it_is_read(tmp_path, reading):
    packed = gzip.compress(b"many\nlines of text\n" * 99, mtime=0)
    for name in ("a.txt", "b.jsonl"):
        (tmp_path / name).write_bytes(packed)
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(packed))  # packed twice
    assert [document[1:] for document in read_all([tmp_path], **reading)] == [(None, "packed")] * 3


@pytest.mark.parametrize("reading", [{}, {"encoding": "detect"}, {"split_on": "\n\n"}, {
    "split_on": "\n\n", "encoding": "cp1252"}])
def test_a_tar_is_one_document_without_text_whatever_its_name_and_how_it_is_read(tmp_path, reading):
    (tmp_path / "book.txt").write_text("one\n\ntwo\n\n" * 200)
    with tarfile.open(tmp_path / "b.jsonl", "w") as tar:
        tar.add(tmp_path / "book.txt", "book.txt")
    shutil.copy(tmp_path / "b.jsonl", tmp_path / "a.txt")
    (tmp_path / "book.txt").unlink()
    assert [document[1:] for document in read_all([tmp_path], **reading)] == [(None, "packed")] * 2


def test_letters_in_bytes_of_ascii_are_left_out_of_texts_parts_and_lines_unless_their_encoding_is_named(tmp_path):
    for name, text in (("a.txt", "雪国\n\n夜\n\n"), ("b.jsonl", '{"text": "雪国"}\n{"text": "夜"}\n')):
        (tmp_path / name).write_bytes(text.encode("iso2022_jp"))
    unread = (None, "other_encoding")
    assert [document[1:] for document in read_all([tmp_path])] == [unread] * 3
    assert [document[1:] for document in read_all([tmp_path], split_on="\n\n")] == [unread] * 4
    assert [document.text for document in read_all([tmp_path], encoding="iso2022_jp")] == [
        "雪国\n\n夜\n\n", "雪国", "夜"]


@pytest.mark.parametrize("encoding, data", [
    (None, "one---two".encode("utf-16") + b"\0"), ("cp1252", b"caf\xe9---\x81"), ("detect", bytes(range(256)) * 9),
    ("utf-16-le", b"a---b")])
def test_a_file_to_cut_that_is_not_in_its_encoding_throughout_is_one_document_without_text(tmp_path, encoding, data):
    for name, content in (("a.txt", data), ("b.jsonl", data), ("c.txt", "one---two".encode("utf-16"))):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    assert read_all([tmp_path / "in"], split_on="---", encoding=encoding) == [
        ("a.txt:1", None, "other_encoding"), ("b.jsonl:1", None, "other_encoding"), ("c.txt:1", "one", None),
        ("c.txt:2", "two", None)]
    assert len(list((tmp_path / "scratch").iterdir())) == 1


def test_a_mark_of_byte_order_is_dropped_wherever_a_document_begins(tmp_path):
    (tmp_path / "cat.txt").write_text("\ufeffone\n--\n\ufefftwo", encoding="utf-8")  # cat a.txt b.txt
    (tmp_path / "lines.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "\xef\xbb\xbfone"}\n{"text": "\\ufefftwo"}')
    assert [document.text for document in read_all([tmp_path], split_on="\n--\n")] == ["one", "two"] * 2
    (tmp_path / "cat.txt").write_text("\ufeffa tale\n<eot>\n" * 3 + "\ufeff\ufeff \ufeff\r\n\tin\ufeffside\ufeff")
    (tmp_path / "lines.jsonl").write_bytes(b'\xef\xbb\xbf\xef\xbb\xbf{"text": "\xef\xbb\xbf\\ufeff one"}')
    (tmp_path / "wide.txt").write_bytes("\n\ufeffwide".encode("utf-16") + b"\n\0")
    (tmp_path / "far.txt").write_bytes("\ufeff遠\n".encode("gb18030"))
    assert [document.text for document in read_all([tmp_path], split_on="<eot>", encoding="gb18030")] == [
        "a tale\n", "\na tale\n", "\na tale\n", "\n \r\n\tin\ufeffside\ufeff", "遠\n", " one", "\nwide\n"]
    assert [document.text for document in read_all([tmp_path], encoding="gb18030")][1::2] == ["遠\n", "\nwide\n"]


def test_the_field_of_a_text_may_be_named_and_the_fields_that_are_there_are_known(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"body": "one", "id": 3}\n{"text": "two"}\n[1]\nbroken')
    assert [document.text for document in read_all([tmp_path], text_key="body")] == ["one", None, None, None]
    index = documents.make_index([str(tmp_path)])
    assert [documents.fields(index, number) for number in range(4)] == [
        {"body": "one", "id": 3}, {"text": "two"}, {}, {}]


def test_why_a_line_has_no_text_is_told_apart(tmp_path):
    lines = ['{"id": -%s, "text": "long number"}' % ("7" * 5001), '{"n": [1e999, NaN, 5], "text": "any number"}', "{}",
             '{"text": "one", "id": 1, "text": "other", "title": "t"}', '{"a": 1, "a": 2, "b": {"text": 1, "text": 2}}',
             '{"text": 77}', '{"text": "ab"}\r{"text": "cd"}', '"text"', '{"text": "cut']
    (tmp_path / "x.jsonl").write_bytes("\n".join(lines).encode())
    index = documents.make_index([str(tmp_path)])
    found, problems = {}, []
    for number in range(len(lines)):
        document = documents.read(index, number)
        problems.append(document.problem or document.text)
        if document.problem:
            left_out.note(found, document.problem, number)
    assert problems == ["long number", "any number", *["bad_lines"] * 4, *["no_object"] * 3]
    assert [*left_out.described(found, index)] == [
        "4 lines left out without a text in 'text': x.jsonl:3, x.jsonl:4, x.jsonl:5, x.jsonl:6; keys there are 'text', "
        "which is no text, 'id', 'title', 'a', 'b'; give --text_key title",
        '3 lines left out without a JSON object: x.jsonl:7, x.jsonl:8, x.jsonl:9; each line must be one such as '
        '{"text": "..."}, and end in \\n, not in \\r alone']
    assert [line.partition("; ")[2] for line in left_out.described({"bad_lines": [1, [3]]}, index)] == [
        "keys there are 'text', which is given twice, 'id', 'title'"]


def test_a_saved_index_reads_the_same(tree, tmp_path):
    (tree / "wide.jsonl").write_text('{"body": "x"}', "utf-16")
    index = documents.make_index([str(tree)], scratch=str(tmp_path), reading=cutting.Reading(text_key="body"))
    (tmp_path / "index").mkdir()
    documents.save(index, str(tmp_path / "index"))
    loaded = documents.load(str(tmp_path / "index"))
    assert [documents.read(loaded, i) for i in range(13)] == [documents.read(index, i) for i in range(13)]
    assert (loaded.fingerprint, loaded.folders, loaded.left_out) == (index.fingerprint, index.folders, index.left_out)
    assert documents.plan(loaded) == documents.plan(index) == {"text_key": "body"}


def test_the_fingerprint_follows_names_sizes_and_times(tree):
    def fingerprint():
        return documents.make_index([str(tree)]).fingerprint
    first = fingerprint()
    assert fingerprint() == first
    os.utime(tree / "a.txt", (1, 1))
    second = fingerprint()
    (tree / "a.txt").rename(tree / "a2.txt")
    assert len({first, second, fingerprint()}) == 3


def test_file_names_that_are_not_utf8_are_read(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"n\xff.txt"), "w") as f:
        f.write("text")
    assert os.fsencode(read_all([tmp_path])[0].identity) == b"n\xff.txt"


@pytest.mark.parametrize("given, message", [
    ("nowhere", "no such file or folder"), ("no*where", "no such file or folder"), ("empty", "no document in"),
    ("empty", r"no document in empty, only 1 .html \(page.html\): give files, folders or globs of .txt, .py,"),
    ("gs://bucket/x", "local files only")])
def test_an_input_without_documents_is_an_error(tmp_path, monkeypatch, given, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "page.html").write_text("<p>")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        documents.make_index([given])


def test_a_file_that_shrank_or_went_is_an_error(tree):
    index = documents.make_index([str(tree)])
    (tree / "a.txt").write_text("")
    with pytest.raises(UserError, match="a.txt has become shorter"):
        documents.read(index, 0)
    (tree / "a.txt").unlink()
    with pytest.raises(UserError, match="a.txt: No such file"):
        documents.read(index, 0)


def test_deeply_nested_json_is_a_bad_line(tmp_path):
    (tmp_path / "x.jsonl").write_text("[" * 100000 + "\n" + json.dumps({"text": "ok"}))
    assert [document.text for document in read_all([tmp_path])] == [None, "ok"]
