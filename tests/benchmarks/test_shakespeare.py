"""Tiny Shakespeare: how the text is split and encoded, the JSON line at the end, records and their picture."""
import re
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks import records, shakespeare
from configs.errors import UserError
from datasets import manifest
from encoder import bpe
from tests.helpers import records as record_files

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
        (_, ids), = record_files.read(entry.shard.path)
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


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Function: the lines of the record, which lies in a folder of the test."""
    monkeypatch.setattr(records, "FOLDER", str(tmp_path / "results"))
    return lambda: records.read("shakespeare")


@pytest.mark.slow
def test_benchmark_trains_evaluates_records_and_ends_with_one_json_line(tmp_path, measure, recorded):
    (tmp_path / "input.txt").write_bytes(TEXT.encode())
    command = [shakespeare, "--text", tmp_path / "input.txt", "--seeds", 2, "--output_dir", tmp_path, "--record",
               *SMALL]
    lines, found = measure(*command)
    printed = [float(loss) for loss in re.findall(r"evaluation at step 3: loss ([\d.]+),", "\n".join(lines))]
    assert printed[0] == printed[1] and printed[2] == printed[3]  # at the end of the training, and of the checkpoint
    first, second = printed[0], printed[2]
    best = found.pop("best")
    assert found == {"val_loss": [first, second], "mean": pytest.approx((first + second) / 2, abs=6e-5),
                     "spread": pytest.approx(abs(first - second) / 2 ** 0.5, abs=6e-5)}
    assert any(f"{len(shakespeare.split(TEXT)[1])} targets" in line for line in lines)
    runs = recorded()
    assert [run["seed"] for run in runs] == [1, 2] and [run["val_loss"] for run in runs] == [first, second]
    for run, loss, lowest in zip(runs, (first, second), best):
        assert [step for step, _ in run["evaluations"]] == [2, 3]
        assert run["evaluations"][1][1] == pytest.approx(loss, abs=6e-5)
        assert lowest == min(run["evaluations"], key=lambda point: point[1])
        assert run["config"] == "shakespeare-char" and "n_embd=8" in run["overrides"] and run["seconds"] >= 0
    assert measure(*command)[1]["val_loss"] == [first, second] and recorded() == runs  # nothing is made or noted twice


@pytest.mark.slow
def test_the_gpu_setting_is_one_run_that_goes_on_where_it_was_stopped(tmp_path, measure, recorded):
    (tmp_path / "input.txt").write_bytes(TEXT.encode())
    command = [shakespeare, "--text", tmp_path / "input.txt", "--setting", "gpu", "--output_dir", tmp_path, "--record",
               "--precision", "bfloat16", *SMALL, "--set=n_head=2", "--set=train_steps=7", "--set=train_batch_size=2"]
    measure(*command, "--set=max_steps=11", "--set=lr_schedule=constant")
    _, found = measure(*command, "--set=max_steps=23", "--set=lr_schedule=constant")
    assert len(found["val_loss"]) == 1 and found["spread"] is None
    short, whole = recorded()
    assert [step for step, _ in short["evaluations"]] == [7, 11]
    assert [step for step, _ in whole["evaluations"]] == [7, 11, 14, 21, 23]
    assert short["evaluations"] == whole["evaluations"][:2] and "precision=\"bfloat16\"" in whole["overrides"]
    assert len((tmp_path / "runs" / "shakespeare-char-gpu-1" / "origins.jsonl").read_text().splitlines()) == 2


def test_seconds_are_those_of_the_steps():
    assert shakespeare._seconds([{"step": 10, "tokens": 70, "tokens_per_second": 35.0}, {"step": 10, "eval_loss": 4.5},
                                 {"step": 30, "tokens": 210, "tokens_per_second": 10.0}]) == 70 / 35 + 140 / 10


def test_origin_of_a_run_names_the_commits_of_all_calls(tmp_path):
    assert shakespeare._origin(str(tmp_path))["commit"] is None
    (tmp_path / "origins.jsonl").write_text("".join(
        f'{{"commit": "{commit}", "machine": "M{day}", "date": "{day}"}}\n' for day, commit in enumerate("aabca")))
    assert shakespeare._origin(str(tmp_path)) == {"commit": "a, b, c", "machine": "M4", "date": "4"}


def test_plot_draws_means_of_the_recorded_seeds_beside_the_published_loss(tmp_path, recorded):
    losses = {(): [{250: 2.0, 500: 1.5, 750: 1.75}, {250: 2.5, 500: 1.75}], ("opt_name=muon",): [{250: 1.5}]}
    for overrides, seeds in losses.items():
        for seed, points in enumerate(seeds, 1):
            records.append("shakespeare", {"config": "shakespeare-char-gpu", "overrides": list(overrides), "seed": seed,
                                           "evaluations": [list(point) for point in points.items()]})
    records.append("shakespeare", {"config": "shakespeare-char", "overrides": ["lr=1"], "evaluations": [[9, 9.5]]})
    assert shakespeare.main(["--setting", "gpu", "--plot", str(tmp_path / "a.svg")]) == 0
    picture = ElementTree.parse(tmp_path / "a.svg")
    words = {"".join(text.itertext()).strip() for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"as configured (2 seeds), best 1.6250 at step 500, last: 1.625", "nanoGPT: 1.4697",
            "opt_name=muon (1 seed), best 1.5000 at step 250, last: 1.500"} <= words
    assert not any("lr=1" in word for word in words)


@pytest.mark.parametrize("content, more, message", [
    (None, [], "input.txt: no such file"),
    ("na\u00efve", [], "'\u00ef', which is more than one byte"),
    (TEXT, ["--seeds", "0"], "--seeds 0 is out of range: give at least 1"),
    (TEXT, ["--plot", "a.jpg"], "--plot a.jpg: give a name that ends with .png or .svg"),
    (None, ["--plot", "a.png"], "no run of the setting small is in"),
    (None, ["--text", ""], "--text is missing"),
], ids=["no text", "not ASCII", "no seed", "no picture", "no record", "no text given"])
def test_mistakes_are_named(tmp_path, recorded, content, more, message):
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
