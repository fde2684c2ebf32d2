"""The benchmark of start-up and of memory over many evaluations."""
import os

import pytest

from benchmarks import startup
from configs.errors import UserError


@pytest.mark.slow
def test_startup_benchmark_times_the_first_step_and_a_text_and_watches_the_memory_of_evaluations(tmp_path, measure):
    tiny = [f"--set={key}={value}" for key, value in {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_ctx": 128}.items()]
    _, found = measure(startup, "--rounds", 1, "--cycles", 3, "--output_dir", tmp_path, *tiny)
    assert found["help"]["seconds"] < found["first_step"]["seconds"] > found["plan"]["seconds"] > 0
    assert 0.01 < found["first_step"]["fresh_gigabytes_per_second"] < 100
    held = found["cycles"]["mb"]
    assert len(held) == 3 and all(100 < megabytes < 4000 for megabytes in held)
    for values in found["text"].values():
        assert {name for name, of in values.items() if of["peak"] > 100 and 0 < of["seconds"] < of["cpu"] * 20} == {
            "transformers", "init_checkpoint", "run"}
        assert all(of["ratio"] > 0 for name, of in values.items() if name != "transformers")
    assert found["text"]["float32"]["init_checkpoint"]["same_text"] and found["text"]["float32"]["run"]["same_text"]
    assert found["cycles"]["growth_mb"] == 0 < found["cycles"]["seconds_a_cycle"]  # of 3 cycles none is after the fifth
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("part, message", [("plan", "main.py ended with status 2"),
                                           ("first_step", "main.py ended before its first step with status 2")])
def test_a_run_that_ends_too_early_is_named(tmp_path, part, message):
    with pytest.raises(UserError, match=message):
        startup.main(["--rounds", "1", "--only", part, "--output_dir", str(tmp_path), "--set", "n_embd=7"])
