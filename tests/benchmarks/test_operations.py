"""The benchmark of what a training step spends its time on."""
import os

import pytest

from benchmarks import operations
from configs.errors import UserError
from models.run import workarounds


@pytest.mark.slow
def test_kinds_of_operations_add_up_to_the_step(tmp_path, measure, monkeypatch):
    monkeypatch.setattr(workarounds, "session_config", workarounds.session_config)  # which it changes
    tiny = [f"--set={key}={value}" for key, value in {"n_embd": 96, "n_layer": 2, "n_head": 3}.items()]
    lines, found = measure(operations, "--steps", 2, "--output_dir", tmp_path, *tiny)
    kinds = found["kinds"]
    assert sum(kinds.values()) == pytest.approx(found["step_ms"], rel=0.5)
    assert max(kinds, key=kinds.get) == "products" and kinds["the optimizer"] > 0
    assert any(kind.startswith("compiled: _losses") for kind in kinds)
    assert "| kind of operation | operations | ms of a step | share |" in lines and os.listdir(tmp_path) == []


@pytest.mark.parametrize("operation, name, function, kind", [
    ("_MklMatMul", "gradients/MatMul_1", "", "products"),
    ("_MklBatchMatMulV2", "MatMul_8", "", "products of attention's heads"),
    ("PartitionedCall", "PartitionedCall_3", "__inference_gelu_1994", "compiled: gelu"),
    ("MatMul", "Muon/update_model/h0/mlp/c_fc/w/MatMul", "", "the optimizer"),
    ("StatefulPartitionedCall", "AdamW/update_model/wte/StatefulPartitionedCall", "__inference_adamw_7",
     "the optimizer"),
    ("Cast", "gradients/Cast", "", "casts"), ("L2Loss", "global_norm/L2Loss_1", "", "gradients' norm"),
    ("Softmax", "S", "", "Softmax")])
def test_operations_are_sorted_by_kind(operation, name, function, kind):
    assert operations.kind_of(operation, name, function) == kind


def test_rare_kinds_are_one_and_figures_are_those_of_a_step():
    trace = [("MatMul", "a", "", 0.5), ("MatMul", "b", "", 0.5), ("Rare", "c", "", 0.001), ("Odd", "d", "", 0.002)]
    found = operations.by_kind([trace, trace])
    assert list(found) == ["products", "all else"]
    assert found["products"] == (2, 1.0) and found["all else"] == (2, pytest.approx(0.003))
    assert operations.table(found).splitlines()[2:] == ["| products | 2 | 1,000.0 | 99.7% |",
                                                        "| all else | 2 | 3.0 | 0.3% |"]


def test_steps_out_of_range_are_named():
    with pytest.raises(UserError, match="--steps 0 is out of range: give at least 1"):
        operations.main(["--steps", "0"])
