"""tools/new_config.py: what it writes fits the data, is accepted by --plan without a problem, and trains."""
import json
import re

import pytest

import main
from configs import schema
from configs.errors import UserError
from models.run import cost, plan
from tests.helpers.records import write_data_set
from tools import new_config


@pytest.fixture
def written(tmp_path, monkeypatch, capsys):
    """Function (data, *options) -> (the keys of the config that is written, what is said), in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cost, "MEASURED_SECONDS", 0.01)

    def call(data, *options):
        assert new_config.main(["--data", str(data), "--name", "mine", *options]) == 0
        return json.loads((tmp_path / "mine.json").read_text()), capsys.readouterr().out
    return call


def test_a_small_text_gets_a_tiny_network_for_a_few_epochs(text_corpus, written, capsys):
    keys, said = written(text_corpus)
    sizes = {"n_ctx": 128, "n_embd": 128, "n_layer": 4, "n_head": 4, "opt_name": "muon"}
    expected = {**sizes, "data_path": str(text_corpus), "model_dir": "runs/mine"}
    assert {key: keys[key] for key in expected} == expected
    assert list(keys) == [key for key in schema.FIELDS if key in keys]  # and nothing about vocabulary or files
    assert not {"n_vocab", "encoder_path", "input", "train_files", "eval_files"} & set(keys)
    epochs, = re.findall(r"([\d.]+) epochs of [\d,]+ tokens", said)
    assert 3 < float(epochs) <= plan.MOST_EPOCHS
    assert re.search(r"time, estimated from products on this machine: about [\d.]+ (seconds|minutes)", said)
    assert said.endswith("wrote mine.json; next: python3 main.py --model mine.json\n")
    assert main.main(["--model", "mine.json", "--plan"]) == 0
    assert "no problems found" in capsys.readouterr().out


@pytest.mark.parametrize("size, parameters", [("small", (4.8e6, 4.9e6)), ("124M", (85e6, 87e6))])
def test_a_size_may_be_chosen(text_corpus, written, size, parameters, capsys):
    keys, said = written(text_corpus, "--size", size)
    found = int(re.search(r"([\d,]+) parameters", said)[1].replace(",", ""))
    assert parameters[0] < found < parameters[1]  # with the 300 tokens of this vocabulary
    assert main.main(["--model", "mine.json", "--plan"]) == 0
    assert "no problems found" in capsys.readouterr().out


def test_much_text_gets_the_small_network_and_the_first_evaluation_within_minutes(tmp_path, written, monkeypatch):
    monkeypatch.setattr(cost, "seconds_a_step", lambda *_: 2.0)
    data = write_data_set(tmp_path / "data", "mine", train=1, held_out=1, documents=21, length=100_000)
    keys, said = written(data)
    assert keys["n_embd"] == 256 and keys["train_steps"] == 150 and keys["save_checkpoints_steps"] == 150
    assert keys["eval_steps"] > 0  # the 2 million tokens that are held out would take long
    assert "the first evaluation after about 5.0 minutes" in said
    epochs = keys["max_steps"] * keys["train_batch_size"] * keys["n_ctx"] / 2.1e6
    assert 3.9 < epochs <= 4


def test_where_there_are_gpus_one_is_measured_for_all(text_corpus, written, monkeypatch):
    from models.run import speed
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    asked = []
    monkeypatch.setattr(new_config.hardware, "gpus", lambda: (["one", "two"], []))
    monkeypatch.setattr(cost, "seconds_a_step", lambda config, rate, devices: asked.append((rate, devices)) or 1.0)
    assert "measuring the GPU" in written(text_corpus)[1]
    (rate, devices), = asked
    assert devices == 2
    for precision in ("float32", "bfloat16"):
        assert 1e8 < rate(64, 128, 512, precision) < 1e15  # by TensorFlow, here on the CPU


def test_memory_decides_how_much_is_computed_at_once(monkeypatch):
    config = schema.from_dict({"model_dir": "x", "n_vocab": 50257, **new_config.SIZES["124M"]}, "x")
    found = []
    for share in (100, 0.35, 0.15, 1e-9):
        monkeypatch.setattr(new_config, "GPU_BYTES", share * sum(cost.memory(config)))
        found.append(new_config._in_memory(config, on_cpu=False))
    assert found[0] == {} and list(found[1]) == list(found[2]) == ["micro_batch_size"]
    assert found[1]["micro_batch_size"] in (4, 8, 16)
    assert found[2]["micro_batch_size"] < found[1]["micro_batch_size"]
    assert found[3] == {"micro_batch_size": 1, "recompute": True}


def test_a_tiny_text_gets_a_shorter_window_and_no_text_is_an_error(tmp_path, written):
    keys, said = written(write_data_set(tmp_path / "few", "few", train=1, held_out=0, documents=10, length=100))
    assert keys["n_ctx"] == 32 and keys["eval_steps"] == 0
    assert "no evaluations: the data set holds none of its text out" in said
    with pytest.raises(UserError, match="do not fill one window"):
        new_config.main(["--data", write_data_set(tmp_path / "one", "one", train=1, held_out=0, documents=1, length=9),
                         "--name", "yours"])


def test_a_config_that_is_there_is_never_written_over(tmp_path, monkeypatch, text_corpus):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(UserError, match="mine.json is there already; move it elsewhere, or choose"):
        new_config.main(["--data", str(text_corpus), "--name", "mine.json"])
    assert (tmp_path / "mine.json").read_text() == "{}"
    with pytest.raises(UserError, match="--name '../mine': use letters"):
        new_config.main(["--data", str(text_corpus), "--name", "../mine"])
    with pytest.raises(UserError, match="--data nowhere .* is no folder; give that of a data set"):
        new_config.main(["--data", "nowhere", "--name", "yours"])


@pytest.mark.slow
def test_the_config_trains(text_corpus, written, capsys):
    keys, _ = written(text_corpus)
    steps = 3 * keys["train_steps"]  # of which there are many
    assert main.main(["--model", "mine.json", "--set", f"max_steps={steps}"]) == 0
    out = capsys.readouterr().out
    assert f"done: runs/mine is trained to step {steps}" in out
    losses = [float(loss) for loss in re.findall(r"evaluation at step \d+: loss ([\d.]+)", out)]
    assert len(losses) == 3 and losses[-1] < losses[0]
