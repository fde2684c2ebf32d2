"""Tiny Shakespeare: how the text is split and encoded, and the JSON line at the end."""
import re

import pytest

from benchmarks import shakespeare
from configs.errors import UserError
from datasets import manifest
from encoder import bpe
from tests.helpers import records

# White space at both ends of both parts: the split lies among the line ends.
TEXT = "\n  \tFirst Citizen:\nBefore we proceed any further, hear me speak. " * 11 + "\n" * 60 + "Speak!" + "\n" * 40
SMALL = [f"--set={key}={value}" for key, value in {"n_vocab": 40, "n_embd": 8, "n_layer": 1, "n_ctx": 16,
                                                   "train_steps": 2, "max_steps": 3, "warmup_steps": 1}.items()]


def test_text_is_split_by_position_as_in_nanogpt():
    train, validation = shakespeare.split("0123456789abcdefghi")
    assert (train, validation) == ("0123456789abcdefg", "hi")  # int(19 * 0.9) is 17


def test_shards_hold_every_character_of_the_text_as_one_token(tmp_path):
    shakespeare.prepare(TEXT, str(tmp_path))
    encoder = bpe.load(str(tmp_path / "encoder"))
    assert all(part[0].isspace() and part[-1].isspace() for part in shakespeare.split(TEXT))
    characters = sorted(set(TEXT))
    assert encoder.size == len(characters) + 1
    assert encoder.decode(range(encoder.size - 1)) == "".join(characters)
    expected = dict(zip(("train", "eval"), shakespeare.split(TEXT)))
    entries = manifest.load(str(tmp_path / "shakespeare-char.manifest.json")).entries
    assert [entry.split for entry in entries] == ["train", "eval"]
    for entry in entries:
        (_, ids), = records.read(entry.shard.path)
        assert "".join(characters[i] for i in ids) == expected[entry.split]
        assert entry.shard.tokens == entry.shard.text_bytes == len(expected[entry.split])


def test_data_of_another_text_are_not_overwritten(tmp_path):
    shakespeare.prepare(TEXT, str(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    shakespeare.prepare(TEXT, str(tmp_path))
    with pytest.raises(UserError, match="train.txt is of another text: choose another --output_dir"):
        shakespeare.prepare(TEXT[1:], str(tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_loss_is_read_from_the_line_that_eval_prints():
    assert shakespeare.loss_in("loss 9,\nevaluation at step 3: loss 1.8812, perplexity 6.56, 9 batches in 0:01\n"
                               "9 targets, 2 bits per token\n") == 1.8812


@pytest.mark.slow
def test_benchmark_trains_evaluates_and_ends_with_one_json_line(tmp_path, measure):
    (tmp_path / "input.txt").write_bytes(TEXT.encode())
    lines, found = measure(shakespeare, "--text", tmp_path / "input.txt", "--seeds", 1, "--output_dir", tmp_path,
                           *SMALL)
    printed = re.findall(r"evaluation at step 3: loss ([\d.]+),", "\n".join(lines))
    assert len(printed) == 2 and printed[0] == printed[1]  # at the end of the training, and of the checkpoint
    assert found == {"val_loss": [float(printed[0])], "mean": float(printed[0])}
    assert any(f"{len(shakespeare.split(TEXT)[1])} targets" in line for line in lines)
    assert (tmp_path / "runs" / "shakespeare-char-1" / "model.ckpt-3.index").exists()


@pytest.mark.parametrize("content, more, message", [
    (None, [], "input.txt: no such file"),
    ("na\u00efve", [], "'\u00ef', which is more than one byte"),
    (TEXT, ["--seeds", "0"], "--seeds 0 is out of range: give at least 1"),
], ids=["no text", "not ASCII", "no seed"])
def test_mistakes_are_named(tmp_path, content, more, message):
    if content is not None:
        (tmp_path / "input.txt").write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        shakespeare.main(["--text", str(tmp_path / "input.txt"), "--output_dir", str(tmp_path), *SMALL, *more])
    assert message in str(caught.value)


def test_a_mistake_that_main_py_finds_is_its_line_and_status(tmp_path, capfd):
    (tmp_path / "input.txt").write_text(TEXT)
    status = shakespeare.main(["--text", str(tmp_path / "input.txt"), "--output_dir", str(tmp_path), *SMALL,
                               "--set", "n_vocab=5"])
    printed = capfd.readouterr()
    assert status == 2 and 'error: "n_vocab" is 5, but the vocabulary' in printed.err.strip().splitlines()[-1]
    assert "val_loss" not in printed.out
