"""The benchmark of generation, beside transformers."""
import os

import pytest

from benchmarks import generate
from configs.errors import UserError


@pytest.mark.slow
def test_generation_benchmark_draws_the_same_tokens_on_both_sides_and_ends_with_one_json_line(tmp_path, measure):
    pytest.importorskip("transformers")
    _, found = measure(generate, "--output_dir", tmp_path, "--batch", 3, "--prompt", 5, "--length", 4, "--rounds", 1,
                       "--precision", "float32", "--set", "n_embd=24", "--set", "n_layer=1", "--set", "n_head=3")
    found = found["3"]
    assert found["equal_tokens"] == 1
    for side in ("ours", "transformers"):
        figures = found[side]
        assert figures["precision"] == "float32" and figures["lowest"] <= figures["highest"]
        assert figures["first_token_seconds"] > 0 and 100 < figures["peak_mb"] < 4000
        assert 0 < figures["of_bandwidth_limit"] < 1
    assert found["ratio"] == pytest.approx(found["ours"]["tokens_per_second"]
                                           / found["transformers"]["tokens_per_second"], rel=0.1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("option, value, message", [("--batch", "0", "--batch 0 is out of range: give at least 1"),
                                                    ("--length", "1", "--length 1 is out of range: give at least 2")])
def test_options_out_of_range_are_named(option, value, message):
    with pytest.raises(UserError, match=message):
        generate.main([option, value])
