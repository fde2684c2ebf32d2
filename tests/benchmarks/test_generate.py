"""The benchmark of generation, beside transformers and CTranslate2."""
import importlib.util
import os

import pytest

from benchmarks import generate
from configs.errors import UserError


@pytest.mark.slow
def test_generation_benchmark_draws_the_same_tokens_on_all_sides_and_ends_with_one_json_line(tmp_path, measure):
    peers = [peer for peer in generate.PACKAGES if importlib.util.find_spec(peer)]
    if not peers:
        pytest.skip("no peer is installed")
    _, found = measure(generate, "--output_dir", tmp_path, "--batch", 3, "--prompt", 5, "--length", 4, "--rounds", 1,
                       "--precision", "float32", "--set", "n_embd=24", "--set", "n_layer=1", "--set", "n_head=3",
                       "--peers", *peers)
    found = found["3"]
    assert found["equal_tokens"] == 1
    for side in ("ours", *peers):
        figures = found[side]
        assert figures["precision"] == "float32" and figures["lowest"] <= figures["highest"]
        assert figures["first_token_seconds"] > 0 and 10 < figures["peak_mb"] < 4000
        assert figures["of_bandwidth_limit"] > 0
    best = max(found[peer]["tokens_per_second"] for peer in peers)
    assert found["ratio"] == pytest.approx(found["ours"]["tokens_per_second"] / best, rel=0.1)
    assert os.listdir(tmp_path) == []


def test_the_best_peer_counts_by_its_best_precision(capsys):
    args = generate._arguments(["--peers", "transformers", "ctranslate2", "--length", "12"])
    seconds = {("ours", "float32"): 4, ("ours", "bfloat16"): 2, ("transformers", "float32"): 5,
               ("transformers", "bfloat16"): 9, ("ctranslate2", "float32"): 6, ("ctranslate2", "int8"): 3}
    answers = {name: [{"first": 1, "all": time, "cpu": time}] for name, time in seconds.items()}
    ends = {name: {"peak": 5e6, "tokens": [[1, 2]]} for name in seconds}
    ends["ctranslate2", "float32"] = {"peak": 5e6, "tokens": [[1, 0]]}
    found = generate._summary(args, generate._config(args, "weights"), 1, answers, ends, 1e9)
    assert found["ratio"] == found["ratio_by_cpu_seconds"] == 1.5 and found["equal_tokens"] == 0.5
    assert found["transformers"]["precision"] == "float32" and found["ctranslate2"]["precision"] == "int8"
    assert found["others"] == {"ours float32": 3, "transformers bfloat16": 1.3, "ctranslate2 float32": 2}
    assert "ours bfloat16 beside ctranslate2 int8: 1.50 times" in capsys.readouterr().out


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(generate.PACKAGES, "ctranslate2", ("no-such-package",))
    with pytest.raises(UserError, match="no-such-package is not installed: `pip install -r requirements-dev.txt`"):
        generate.main(["--peers", "ctranslate2"])


def test_a_side_without_a_precision_to_measure_is_named():
    with pytest.raises(UserError, match="leaves nothing to measure of ctranslate2, which has float32 and int8"):
        generate.main(["--precision", "bfloat16", "--peers", "transformers", "ctranslate2"])


@pytest.mark.parametrize("option, value, message", [("--batch", "0", "--batch 0 is out of range: give at least 1"),
                                                    ("--length", "1", "--length 1 is out of range: give at least 2")])
def test_options_out_of_range_are_named(option, value, message):
    with pytest.raises(UserError, match=message):
        generate.main([option, value])
