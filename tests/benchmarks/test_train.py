"""The benchmark of training, beside transformers."""
import json
import os

import pytest

from benchmarks import ours, products, train
from configs import schema


def test_products_of_a_step_are_six_operations_for_each_weight_and_token():
    config = schema.from_dict({"n_embd": 24, "n_layer": 3, "n_head": 2, "n_ctx": 10, "n_vocab": 77, "model_dir": "x",
                               "train_batch_size": 6, "micro_batch_size": 2}, "here")
    found = products.shapes(config)
    matrices = sum(weight.shape[-1] * weight.shape[-2] for weight in ours.weight_list(config)
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


def train_tiny(measure, folder, *more):
    sizes = {"n_embd": 24, "n_layer": 2, "n_head": 3, "train_batch_size": 4}
    _, found = measure(train, "--output_dir", folder, "--device", "cpu", "--setting", "small", "--rounds", 1, "--steps",
                       4, *[f"--set={key}={value}" for key, value in sizes.items()], *more)
    assert os.listdir(folder) == []
    return found["small"]


@pytest.mark.slow
def test_training_benchmark_sees_the_same_losses_on_both_sides_and_ends_with_one_json_line(tmp_path, measure):
    pytest.importorskip("transformers")
    found = train_tiny(measure, tmp_path, "--only", "ours", "torch", "--set", "micro_batch_size=2")
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
def test_ratio_is_that_of_the_best_of_each_side_in_all_its_variants(tmp_path, measure):
    pytest.importorskip("transformers")
    found = train_tiny(measure, tmp_path, "--only", "ours", "ours-xla", "torch-compile", "--precision", "float32")
    figures = found["float32"]
    assert figures["ours-xla"]["losses"] == pytest.approx(figures["torch-compile"]["losses"], abs=1e-3)
    best = max(figures["ours"]["tokens_per_second"], figures["ours-xla"]["tokens_per_second"])
    expected = best / figures["torch-compile"]["tokens_per_second"]
    assert found["ratios"]["float32"]["ratio"] == found["ratios"]["best"]["ratio"] == pytest.approx(expected, rel=0.01)
