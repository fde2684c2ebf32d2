"""datasets/crawl/url_lists.py: which lines are URLs, which repeat one, whatever the size of the list."""
import random

import pytest

from configs.errors import UserError
from datasets.crawl import url_lists
from datasets.pages import archives


def write(folder, content, name="x.txt"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else "\n".join(content).encode())
    return str(folder / name)


def survey(folder, *lists, finished=(), stems=None):
    paths = [write(folder, lines, f"{i}.txt") for i, lines in enumerate(lists)]
    finished = [url_lists.Lines(finished) for _ in paths]
    return url_lists.survey(paths, finished, [stems or {}] * len(paths), str(folder))


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_lines_are_counted_from_zero_and_told_apart_at_any_size_of_buffer(tmp_path, monkeypatch, size):
    monkeypatch.setattr(url_lists, "READ_BYTES", size)
    monkeypatch.setattr(url_lists, "MAX_LINE_BYTES", 50)
    long = b"http://a.example/" + b"x" * 33
    content = (b"\xef\xbb\xbfhttp://a.example/\r\n\n  HTTPS://B.example/\xc3\xbc?q=a b \nftp://c.example\n \t\nhttp:///x\n"
               b"http://d.example/\xff\nhttp://a b/\nhttp://e.example/\x07\n" + long + b"\n" + long + b"y\nhttp://f.example")
    assert list(url_lists.read(write(tmp_path, content))) == [
        (0, "http://a.example/", None), (1, None, "blank"), (2, "HTTPS://B.example/ü?q=a b", None),
        (3, None, "invalid"), (4, None, "blank"), (5, None, "invalid"), (6, None, "invalid"), (7, None, "invalid"),
        (8, None, "invalid"), (9, long.decode(), None), (10, None, "invalid"), (11, "http://f.example", None)]


@pytest.mark.parametrize("content, lines", [(b"", 0), (b"\n", 1), (b"x", 1), (b"x\n", 1), (b"\n\n", 2),
                                            (b"x" * 100_000, 1), (b"x" * 100_000 + b"\n", 1)])
def test_lines_are_those_of_python(tmp_path, content, lines):
    assert len(list(url_lists.read(write(tmp_path, content)))) == lines


@pytest.mark.parametrize("block", [1, 10, 1 << 16])
def test_repeated_urls_are_all_but_the_first_over_all_lists(tmp_path, monkeypatch, block):
    monkeypatch.setattr(url_lists, "BLOCK", block)
    draw = random.Random(3)
    lists = [[f"http://{draw.randrange(60)}.example/#{draw.randrange(9)}" if draw.random() < 0.9 else "no"
              for _ in range(length)] for length in (50, 1, 70)]
    seen, expected, left = set(), [], []
    done = {0, 3, 40}
    for lines in lists:
        repeated = set()
        for i, url in enumerate(lines):
            key = url.split("#")[0]
            if url != "no" and key in seen:
                repeated.add(i)
            seen.add(key)
        expected.append(repeated)
        left.append(sum(url != "no" and i not in repeated | done for i, url in enumerate(lines)))
    found = survey(tmp_path, *lists, finished=done)
    assert [{i for i in range(100) if i in part.repeated} for part in found] == expected
    assert [(part.month, part.total, part.left) for part in found] == [
        (str(i), len(lists[i]), left[i]) for i in range(3)]
    assert [len(part.repeated) for part in found] == [len(lines) for lines in expected]
    assert all(name.endswith(".txt") for name in map(str, tmp_path.iterdir()))


def test_sets_of_lines_hold_what_was_put_in():
    numbers = random.Random(1).sample(range(10_000), 700)
    lines = url_lists.Lines([*numbers, *numbers[:50]])
    assert len(lines) == 700 and [i for i in range(20_000) if i in lines] == sorted(numbers)


def test_a_list_is_held_against_the_archive(tmp_path):
    urls = ["http://a.example", "http://b.example"]
    survey(tmp_path, urls, stems={1: archives.stem_of(1, urls[1])})
    with pytest.raises(UserError, match="0.txt line 2 is not the URL"):
        survey(tmp_path, urls[::-1], stems={1: archives.stem_of(1, urls[1])})
    with pytest.raises(UserError, match="0.txt line 2 is not the URL"):
        survey(tmp_path, [urls[0], "", urls[1]], stems={1: archives.stem_of(1, urls[1])})


def test_a_list_that_is_not_there_is_an_error(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=f"{path}: no such file"):
            list(url_lists.read(str(path)))
