"""The benchmarks of preparing data: equal work on both sides, and the JSON line at the end."""
import json

import pytest

from benchmarks import preparation, straightforward, two_processes
from configs.errors import UserError
from datasets import tfrecords
from encoder import bpe
from tests.helpers import pages


def test_plain_encoder_of_the_benchmark_makes_the_ids_of_gpt2():
    encode, encoder = straightforward.Encoder(*bpe.files()).encode, bpe.load()
    text = "It's  the naïve café\n\n  of 1234 東京, antidisestablishmentarianism!!!  "
    assert encode(text) == encode(text) == encoder.encode(text)  # the second time from its cache


@pytest.fixture
def installed(tmp_path):
    """Options for a folder of texts and pages as a system has them, in small numbers."""
    folder = tmp_path / "installed"
    (folder / "below").mkdir(parents=True)
    for number in range(7):
        (folder / "below" / f"page-{number}.html").write_text(pages.article(number, "de"), encoding="utf-8")
        text = f"The “{number}” of\nthe café’s harbour…\r\n" * 60
        (folder / f"text-{number}.txt").write_bytes(text.encode())
    (folder / "broken.txt").write_bytes(b"\xff\xfe no text")
    return ["--texts", folder, "--pages", folder, "--rounds", "1", "--megabytes", "0.02", "--page_count", "5"]


@pytest.mark.slow
@pytest.mark.parametrize("part", [*preparation.PARTS, preparation.VOCABULARY])
def test_preparation_benchmark_compares_equal_work_and_ends_with_one_json_line(installed, part, measure):
    _, found = measure(preparation, *installed, "--only", part, "--gigabytes", "0.00001", "--size", "290")
    if part == preparation.VOCABULARY:
        assert found["vocabulary"]["1e-05"]["peak"] > 1e7 and found["vocabulary"]["1e-05"]["share"] == 1
    elif part == "texts":
        assert found["without_ftfy_records"] == found["repaired_records"] == found["with_ftfy_records"] > 5
        assert all(0 < low <= middle <= high for middle, low, high in
                   (found[f"{key}_times_plain"] for key in ("without_ftfy", "repaired", "with_ftfy")))
    else:
        assert found["pages"] == 5 and found["texts_of_pages"] == {"ours": 5, "trafilatura": 5}


def test_texts_with_rare_words_are_valid_lines_of_the_size_and_never_the_same(tmp_path):
    texts = ["the “naïve”\\reader\nof\tcopies " * 40, "unforgettable harbours\r\n" * 50]
    for number, text in enumerate(texts):
        (tmp_path / str(number)).write_bytes(text.encode())
    preparation._write_with_rare_words([tmp_path / "0", tmp_path / "1"], tmp_path / "out", 20000)
    with open(tmp_path / "out", encoding="utf-8") as f:
        found = [json.loads(line)["text"] for line in f]
    assert 20000 <= (tmp_path / "out").stat().st_size < 23000 and len(found) > 8
    assert len(set(found)) == len(found) and all(len(one) == len(texts[i % 2]) for i, one in enumerate(found))
    words = [set(one.split()) - set(texts[i % 2].split()) for i, one in enumerate(found)]
    assert words[0] and not words[0] & words[2]


@pytest.mark.slow
@pytest.mark.parametrize("command", two_processes.COMMANDS)
def test_two_processes_are_set_beside_one_and_beside_two_commands(installed, command, measure):
    _, found = measure(two_processes, *installed, "--only", command, "--times", "2")
    found = found[command]
    assert all(0 < low <= middle <= high for middle, low, high in (found["two"], found["allowed"]))
    assert found["cpu"] > 0 and min(found["start"]) > 0 and len(found["without_start"]) == 3


def test_contenders_that_make_other_records_are_refused(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.tfrecords", "b.tfrecords")]
    for path, ids in zip(paths, ([5, 6], [5, 7])):
        tfrecords.write(path, [(b"key", ids, 0)])
    assert preparation._same_records(paths[:1]) == 1
    with pytest.raises(UserError, match="different records: the comparison is void"):
        preparation._same_records(paths)


@pytest.mark.parametrize("part, message", [("texts", "no text there"), ("pages", "no HTML file there")])
def test_a_folder_without_texts_or_pages_is_named(tmp_path, part, message):
    with pytest.raises(UserError, match=f"--{part} {tmp_path}: {message}"):
        preparation.main(["--only", part, "--texts", str(tmp_path), "--pages", str(tmp_path)])
