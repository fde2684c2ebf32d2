"""The benchmarks on tiny inputs: what they prepare, what they run, and the JSON line they end with."""
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks import data, preparation, products, scaling, shakespeare, straightforward, train, turns, two_processes
from configs import schema
from configs.errors import UserError
from datasets import manifest, records
from encoder import bpe
from models import weights
from tests.helpers import pages, waiting
from tests.helpers.runs import ROOT

# White space at both ends of both parts: the split lies among the line ends.
TEXT = "\n  \tFirst Citizen:\nBefore we proceed any further, hear me speak. " * 11 + "\n" * 60 + "Speak!" + "\n" * 40
SMALL = {"n_vocab": 40, "n_embd": 8, "n_layer": 1, "n_ctx": 16, "train_steps": 2, "max_steps": 3, "warmup_steps": 1}


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
        (_, payload), = records.read(entry.shard.path)
        ids = records.decode(payload)[1]
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


def run(folder, text, *more, seeds=1):
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    return subprocess.run([sys.executable, "-m", "benchmarks.shakespeare", "--text", str(text),
                           "--seeds", str(seeds), "--output_dir", str(folder), *settings, *more],
                          capture_output=True, text=True, timeout=240)


def test_benchmark_trains_evaluates_and_ends_with_one_json_line(tmp_path):
    (tmp_path / "input.txt").write_text(TEXT, newline="")
    result = run(tmp_path, tmp_path / "input.txt")
    assert result.returncode == 0, result.stderr
    printed = re.findall(r"evaluation at step 3: loss ([\d.]+),", result.stdout)
    assert len(printed) == 2 and printed[0] == printed[1]  # at the end of the training, and of the checkpoint
    found = json.loads(result.stdout.splitlines()[-1])
    assert found == {"val_loss": [float(printed[0])], "mean": float(printed[0])}
    assert f"{len(shakespeare.split(TEXT)[1])} targets" in result.stdout
    assert (tmp_path / "runs" / "shakespeare-char-1" / "model.ckpt-3.index").exists()


@pytest.mark.parametrize("content, more, message", [
    (None, [], "input.txt: no such file"),
    ("na\u00efve", [], "'\u00ef', which is more than one byte"),
    (TEXT, ["--seeds", "0"], "--seeds 0 is out of range: give at least 1"),
    (TEXT, ["--set", "n_vocab=5"], '"n_vocab" is 5, but the vocabulary'),
], ids=["no text", "not ASCII", "no seed", "main.py's own"])
def test_mistakes_are_one_line_and_status_2(tmp_path, content, more, message):
    if content is not None:
        (tmp_path / "input.txt").write_text(content, encoding="utf-8")
    result = run(tmp_path, tmp_path / "input.txt", *more)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 2 and last.startswith("error: ") and message in last
    assert "Traceback" not in result.stderr and "val_loss" not in result.stdout


def test_synthetic_corpus_has_the_size_asked_for_and_the_shape_of_real_text(tmp_path):
    data.make_corpus(str(tmp_path), 0.0005, 60, 50257)
    entries = manifest.load(str(tmp_path / "synthetic.manifest.json")).entries
    shards = [entry.shard for entry in entries]
    assert sum(shard.size for shard in shards) >= 5e5 > sum(shard.size for shard in shards[:-1])
    assert [shard.records for shard in shards] == [60] * len(shards)
    tokens = sum(shard.tokens for shard in shards)
    assert 600 < tokens / sum(shard.records for shard in shards) < 2000
    assert 2.1 < sum(shard.size for shard in shards) / tokens < 2.4
    assert max(shard.largest_id for shard in shards) < 50256  # the last id is <|endoftext|>
    assert records.scan(shards[0].path).tokens == shards[0].tokens


def test_synthetic_corpus_of_another_size_is_not_overwritten(tmp_path):
    data.make_corpus(str(tmp_path), 0.0001, 9, 300)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    data.make_corpus(str(tmp_path), 0.0001, 9, 300)
    with pytest.raises(UserError, match="is of another corpus: choose another --output_dir"):
        data.make_corpus(str(tmp_path), 0.0002, 9, 300)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_data_benchmark_reads_every_token_and_ends_with_one_json_line(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.data", "--output_dir", str(tmp_path), "--gigabytes",
         "0.001", "--files_per", "200", "--shards", "2", "--rounds", "1", "--set", "n_ctx=128", "--set",
         "train_batch_size=8"], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    shards = [entry.shard for entry in manifest.load(str(tmp_path / "synthetic.manifest.json")).entries]
    read = {name: int(count.replace(",", ""))
            for name, count in re.findall(r"round 1: (\w+) +([\d,]+) tokens", result.stdout)}
    assert read["bare"] == sum(shard.tokens for shard in shards[:2])
    whole = read["bare"] + sum(shard.records for shard in shards[:2])
    assert whole - 9 * 128 < read["pipeline"] <= whole
    assert 0 < found["ratio"] < 2 and 0 < found["pipeline_mb"] < found["peak_mb"]
    assert list(found["first_batch_seconds"]) == ["0", "10", "50", "99"]


def test_plain_encoder_of_the_benchmark_makes_the_ids_of_gpt2():
    encode, encoder = straightforward.Encoder(*bpe.files()).encode, bpe.load()
    text = "It's  the naïve café\n\n  of 1234 東京, antidisestablishmentarianism!!!  "
    assert encode(text) == encode(text) == encoder.encode(text)  # the second time from its cache


@pytest.fixture
def installed(tmp_path):
    """A folder of texts and pages as a system has them."""
    folder = tmp_path / "installed"
    (folder / "below").mkdir(parents=True)
    for number in range(7):
        (folder / "below" / f"page-{number}.html").write_text(pages.article(number, "de"), encoding="utf-8")
        text = f"The “{number}” of\nthe café’s harbour…\r\n" * 60
        (folder / f"text-{number}.txt").write_bytes(text.encode())
    (folder / "broken.txt").write_bytes(b"\xff\xfe no text")
    return folder


def prepare(folder, *more, script="preparation"):
    return subprocess.run([sys.executable, "-m", f"benchmarks.{script}", "--texts", str(folder), "--pages",
                           str(folder), "--rounds", "1", "--megabytes", "0.02", "--page_count", "5", *more],
                          capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("part", preparation.PARTS)
def test_preparation_benchmark_compares_equal_work_and_ends_with_one_json_line(installed, part):
    result = prepare(installed, "--only", part)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    if part == "texts":
        assert found["without_ftfy_records"] == found["with_ftfy_records"] > 5
        assert all(0 < low <= middle <= high for middle, low, high in
                   (found[f"{key}_times_plain"] for key in ("without_ftfy", "with_ftfy")))
    else:
        assert found["pages"] == 5 and found["texts_of_pages"] == {"ours": 5, "trafilatura": 5}


@pytest.mark.slow
@pytest.mark.parametrize("command", two_processes.COMMANDS)
def test_two_processes_are_set_beside_one_and_beside_two_commands(installed, command):
    result = prepare(installed, "--only", command, "--times", "2", script="two_processes")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])[command]
    assert all(0 < low <= middle <= high for middle, low, high in (found["two"], found["allowed"]))
    assert found["cpu"] > 0 and min(found["start"]) > 0 and len(found["without_start"]) == 3


def test_contenders_that_make_other_records_are_refused(installed, tmp_path):
    paths = [str(tmp_path / name) for name in ("a.tfrecords", "b.tfrecords")]
    for path, ids in zip(paths, ([5, 6], [5, 7])):
        records.write(path, [(b"key", ids, 0)])
    assert preparation._same_records(paths[:1]) == 1
    with pytest.raises(UserError, match="different records: the comparison is void"):
        preparation._same_records(paths)


def test_a_folder_without_texts_or_pages_is_one_line_and_status_2(tmp_path):
    result = prepare(tmp_path, "--only", "pages")
    assert result.returncode == 2 and "no HTML file there" in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_generation_benchmark_draws_the_same_tokens_on_both_sides_and_ends_with_one_json_line(tmp_path):
    pytest.importorskip("transformers")
    settings = [word for key, value in {"n_embd": 24, "n_layer": 1, "n_head": 3}.items()
                for word in ("--set", f"{key}={value}")]
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.generate", "--output_dir", str(tmp_path), "--batch", "3",
         "--prompt", "5", "--length", "4", "--rounds", "1", "--cores", "1", "--precision", "float32", *settings],
        capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])["3"]
    assert found["equal_tokens"] == 1
    for side in ("ours", "transformers"):
        figures = found[side]
        assert figures["precision"] == "float32" and figures["lowest"] <= figures["highest"]
        assert figures["first_token_seconds"] > 0 and 100 < figures["peak_mb"] < 4000
        assert 0 < figures["of_bandwidth_limit"] < 1
    assert found["ratio"] == pytest.approx(found["ours"]["tokens_per_second"]
                                           / found["transformers"]["tokens_per_second"], rel=0.1)
    assert os.listdir(tmp_path) == []


def test_processes_take_turns_and_the_last_answer_comes_at_their_end(tmp_path):
    (tmp_path / "child.py").write_text(
        "import sys; from benchmarks import turns; mine, count = turns.Turns(), 0\n"
        "while mine.wait():\n    count += 1; print('noise'); mine.answer(count * int(sys.argv[1]))\n"
        "mine.answer('over')\n")
    command, environment = str(tmp_path / "child.py"), {**os.environ, "PYTHONPATH": ROOT}
    with turns.process("one", [command, "1"], environment) as one, \
            turns.process("other", [command, "10"], environment) as other:
        assert [turn() for turn in (one, other, other, one)] == [1, 10, 20, 2]
    assert one.last == other.last == "over"
    with pytest.raises(UserError, match="failing ended early with status 1; see above"), \
            turns.process("failing", [command], environment) as failing:
        failing()


def test_a_process_that_takes_turns_dies_with_its_parent(tmp_path):
    (tmp_path / "child.py").write_text("import os, time; from benchmarks import turns; mine = turns.Turns()\n"
                                       "mine.wait(); mine.answer(os.getpid()); time.sleep(60)\n")
    parent = ("import sys; from benchmarks import turns\nwith turns.process('child', sys.argv[1:]) as turn:\n"
              "    print(turn(), flush=True); sys.stdin.read()\n")
    with subprocess.Popen([sys.executable, "-c", parent, str(tmp_path / "child.py")], text=True, cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": ROOT}, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        assert waiting.alive(child)
        process.kill()
    waiting.wait_until_gone([child])


def test_products_of_a_step_are_six_operations_for_each_weight_and_token():
    config = schema.from_dict({"n_embd": 24, "n_layer": 3, "n_head": 2, "n_ctx": 10, "n_vocab": 77, "model_dir": "x",
                               "train_batch_size": 6, "micro_batch_size": 2}, "here")
    found = products.shapes(config)
    matrices = sum(weight.shape[-1] * weight.shape[-2] for weight in weights.weight_list(config)
                   if len(weight.shape) == 3 or weight.name == "wte")
    assert products.operations(found) == 6 * matrices * 6 * 10
    assert found[20, 24, 72, False, False] == 3 * 3  # layers times micro-batches
    assert found[20, 24, 77, False, True] == found[77, 20, 24, True, False] == 3
    seconds = [2.0 if shape[0] == 77 else 1.0 for shape in found]
    rate = products.rate(config, [seconds, [3.0] * len(found)])  # the second library is the slower one throughout
    assert rate == pytest.approx(products.operations(found) / (sum(found.values()) + 3))


def test_training_benchmark_leaves_out_what_needs_a_gpu(capsys):
    assert train.main(["--setting", "124M-16x1024", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"124M-16x1024": "not measured: no GPU here"}


def run_benchmark(name, *arguments):
    return subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], capture_output=True,
                          text=True, timeout=400)


def train_tiny(folder, *more):
    settings = [word for key, value in {"n_embd": 24, "n_layer": 2, "n_head": 3, "train_batch_size": 4}.items()
                for word in ("--set", f"{key}={value}")]
    result = run_benchmark("train", "--output_dir", str(folder), "--device", "cpu", "--setting", "small", "--rounds",
                           "1", "--steps", "4", "--cores", "1", *settings, *more)
    assert result.returncode == 0, result.stderr
    assert os.listdir(folder) == []
    return json.loads(result.stdout.splitlines()[-1])["small"]


@pytest.mark.slow
def test_training_benchmark_sees_the_same_losses_on_both_sides_and_ends_with_one_json_line(tmp_path):
    pytest.importorskip("transformers")
    found = train_tiny(tmp_path, "--only", "ours", "torch", "--set", "micro_batch_size=2")
    losses = {who: found["float32"][who]["losses"] for who in ("ours", "torch")}
    assert len(losses["ours"]) == len(losses["torch"]) == 8 and losses["ours"][0] - losses["ours"][-1] > 0.01
    assert losses["ours"] == pytest.approx(losses["torch"], abs=1e-3)
    assert found["first_losses_differ_by"] < 1e-3
    for who in losses:
        for precision in ("float32", "bfloat16"):
            figures = found[precision][who]
            assert figures["tokens_per_second"] == figures["rounds"][0] > 0 and 0 < figures["of_limit"] < 1
            assert 100 < figures["peak_mb"] < 4000 and figures["first_step_seconds"] > 0
            assert figures["losses"] == pytest.approx(losses["torch"], abs=0.05)
    assert "ours" not in found["bfloat16-weights"] and found["bfloat16-weights"]["torch"]["tokens_per_second"] > 0
    ratio = found["bfloat16"]["ours"]["tokens_per_second"] / found["bfloat16"]["torch"]["tokens_per_second"]
    assert found["ratios"]["bfloat16"]["ratio"] == pytest.approx(ratio, rel=0.01)


@pytest.mark.slow
def test_ratio_is_that_of_the_best_of_each_side_in_all_its_variants(tmp_path):
    pytest.importorskip("transformers")
    found = train_tiny(tmp_path, "--only", "ours", "ours-xla", "torch-compile", "--precision", "float32")
    figures = found["float32"]
    assert figures["ours-xla"]["losses"] == pytest.approx(figures["torch-compile"]["losses"], abs=1e-3)
    best = max(figures["ours"]["tokens_per_second"], figures["ours-xla"]["tokens_per_second"])
    expected = best / figures["torch-compile"]["tokens_per_second"]
    assert found["ratios"]["float32"]["ratio"] == found["ratios"]["best"]["ratio"] == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
def test_scaling_benchmark_measures_each_size_and_plots_every_point(tmp_path):
    result = run_benchmark("scaling", "--only", "n_layer", "--values", "1", "3", "--rounds", "1", "--seconds", "0.1",
                           "--precision", "float32", "--output_dir", str(tmp_path), "--plot", str(tmp_path / "a.svg"))
    assert result.returncode == 0, result.stderr
    points = json.loads(result.stdout.splitlines()[-1])["n_layer"]["float32"]
    assert set(points) == {"1", "3"}
    for layers, point in points.items():
        assert 0 < point["lowest"] <= point["tokens_per_second"] <= point["highest"]
        width, window = scaling.MIDDLE["n_embd"], scaling.MIDDLE["n_ctx"]
        operations = 6 * (12 * int(layers) * width ** 2 + scaling.N_VOCAB * width) + 12 * int(layers) * width * window
        assert point["gigaoperations_per_second"] == pytest.approx(point["tokens_per_second"] * operations / 1e9,
                                                                   rel=0.02)
    circles = ElementTree.parse(tmp_path / "a.svg").findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == len(points) * len(scaling.SHOWN)
    assert os.listdir(tmp_path) == ["a.svg"]


def test_plot_has_more_to_the_right_and_higher_up():
    points = {value: {"tokens_per_second": speed, "gigaoperations_per_second": 7.0}
              for value, speed in ((1, 90.0), (2, 100.0), (8, 1000.0))}
    tree = ElementTree.fromstring(scaling.plot({"n_layer": {"bfloat16": points}}))
    circles = [(float(circle.get("cx")), float(circle.get("cy")))
               for circle in tree.findall("{http://www.w3.org/2000/svg}circle")][:3]
    (x1, y1), (x2, y2), (x8, y8) = circles
    assert (x8 - x1) / (x2 - x1) == pytest.approx(3, rel=0.01)  # doublings
    assert (y1 - y8) / (y1 - y2) == pytest.approx(22.85, rel=0.05)  # log(1000 / 90) / log(100 / 90)
    panel = tree.findall("{http://www.w3.org/2000/svg}rect")[1]
    left, top, width, height = (float(panel.get(name)) for name in ("x", "y", "width", "height"))
    assert all(left <= x <= left + width and top <= y <= top + height for x, y in circles)


@pytest.mark.slow
def test_startup_benchmark_times_the_first_step_and_watches_the_memory_of_evaluations(tmp_path):
    tiny = [word for key, value in {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_ctx": 16}.items()
            for word in ("--set", f"{key}={value}")]
    result = run_benchmark("startup", "--rounds", "1", "--cycles", "3", "--output_dir", str(tmp_path), *tiny)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["help"]["seconds"] < found["first_step"]["seconds"] > found["plan"]["seconds"] > 0
    held = found["cycles"]["mb"]
    assert len(held) == 3 and all(100 < megabytes < 4000 for megabytes in held)
    assert found["cycles"]["growth_mb"] == 0 < found["cycles"]["seconds_a_cycle"]  # of 3 cycles none is after the fifth
    assert os.listdir(tmp_path) == []


def test_a_run_that_ends_before_its_first_step_is_one_line_and_status_2(tmp_path):
    result = run_benchmark("startup", "--rounds", "1", "--only", "first_step", "--output_dir", str(tmp_path),
                           "--set", "n_embd=7")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "main.py ended before its first step with status 2" in result.stderr.strip().splitlines()[-1]


def test_all_benchmarks_go_on_after_one_that_failed_and_end_with_one_json_line():
    result = run_benchmark("every", "--only", "startup", "generate", "dedup", "shakespeare",
                           "--arguments", "startup=--rounds 1 --only help plan", "--arguments", "generate=--batch 0",
                           "--arguments", "dedup=--documents 0 --signatures 0 --lines 0")
    assert result.returncode == 1 and "--batch 0 is out of range" in result.stderr
    lines = result.stdout.splitlines()
    found = json.loads(lines[-1])
    assert found["generate"] == "failed with status 2" and list(found["dedup"]) == ["machine"]
    assert found["shakespeare"].startswith("not measured")
    assert 0 < found["startup"]["help"]["seconds"] < 60
    assert f"help.seconds {found['startup']['help']['seconds']}, plan.seconds" in lines[-5]
