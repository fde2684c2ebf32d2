"""The benchmark of what lies between two stretches of steps."""
import os

import pytest

from benchmarks import between
from configs.errors import UserError


@pytest.mark.slow
def test_evaluations_are_split_into_their_batches_and_the_rest(tmp_path, measure):
    tiny = [f"--set={key}={value}" for key, value in {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_ctx": 16}.items()]
    lines, found = measure(between, "--only", "quickstart", "--rounds", 1, "--output_dir", tmp_path, *tiny)
    values = found["quickstart"]
    assert list(values) == ["batch", "beyond", "ratio", "save"] and 0 < values["save"] < 60
    assert abs(5 * values["batch"] + values["beyond"]) > 0.01  # seconds of five batches; of the parts one may be noise
    assert os.listdir(tmp_path) == [] and lines[-2].startswith("quickstart: an evaluation takes ")


def test_rounds_out_of_range_are_named():
    with pytest.raises(UserError, match="--rounds 0 is out of range: give at least 1"):
        between.main(["--rounds", "0"])
