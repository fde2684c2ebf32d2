"""What a run costs: sizes against published numbers, memory and slots against hand counts and measurements."""
import dataclasses
import re
import types

import pytest

from configs import hardware, schema
from models.run import cost
from models.weights import count, slot_shapes, weight_list


def config_with(**values):
    return schema.from_dict({"model_dir": "runs/a", "n_vocab": 50257, **values}, "x")


# Sizes small and all different: V 11, T 5, C 6, L 2.
TINY = {"n_vocab": 11, "n_ctx": 5, "n_embd": 6, "n_layer": 2, "n_head": 3}


@pytest.mark.parametrize("n_layer, n_embd, parameters", [
    (12, 768, 124_439_808), (24, 1024, 354_823_168), (36, 1280, 774_030_080), (48, 1600, 1_557_611_200)])
def test_parameters_are_those_of_the_released_models(n_layer, n_embd, parameters):
    assert cost.parameter_count(config_with(n_layer=n_layer, n_embd=n_embd)) == parameters


def test_variables_have_the_names_and_shapes_of_the_released_checkpoints():
    shapes = {"model/" + weight.name: weight.shape for weight in weight_list(config_with(**TINY))}
    assert len(shapes) == 2 + 2 * 12 + 2
    assert shapes["model/wpe"] == (5, 6) and shapes["model/wte"] == (11, 6)
    assert shapes["model/h1/attn/c_attn/w"] == (1, 6, 18) and shapes["model/h1/mlp/c_proj/w"] == (1, 24, 6)
    assert shapes["model/ln_f/g"] == (6,)


def test_checkpoint_of_adam_holds_two_numbers_per_weight():
    config = config_with(**TINY)
    assert cost.checkpoint_bytes(config) == 3 * 4 * cost.parameter_count(config) + 8


def test_checkpoint_of_adafactor_holds_rows_and_columns_and_momentum_only_with_beta1():
    matrices = (5 + 6) + (11 + 6) + 2 * ((6 + 18) + (6 + 6) + (6 + 24) + (24 + 6))
    vectors = 2 * (4 * 6 + 18 + 6 + 24 + 6) + 2 * 6
    config = config_with(**TINY, opt_name="adafactor")
    assert count(slot_shapes(config)) == matrices + vectors
    with_momentum = config_with(**TINY, opt_name="adafactor", beta1=0.9)
    assert count(slot_shapes(with_momentum)) == matrices + vectors + cost.parameter_count(config)


def test_checkpoint_of_muon_holds_one_number_per_weight_of_a_matrix_and_two_of_all_others():
    matrices = 2 * (6 * 18 + 6 * 6 + 6 * 24 + 24 * 6)
    config = config_with(**TINY, opt_name="muon")
    assert count(slot_shapes(config)) == 2 * cost.parameter_count(config) - matrices


def test_memory_of_a_tiny_network_is_the_hand_count():
    config = config_with(**TINY, train_batch_size=7)
    P = cost.parameter_count(config)
    layer = 7 * 5 * (16 * 6 * 4 + 2 * 6) + 7 * 3 * 5 * 5 * (4 + 4)
    assert cost.memory(config) == (4 * P, 4 * P, 8 * P, 2 * layer, 2 * 4 * 7 * 5 * 11, cost.FRAMEWORK)
    smaller = 7 * 5 * (10 * 6 * 4 + 2 * 6)
    assert cost.memory(config, on_cpu=True) == (4 * P, 4 * P, 8 * P, 2 * smaller, 4 * 7 * 5 * 11,
                                                 cost.FRAMEWORK)
    dropping = config_with(**TINY, train_batch_size=7, attn_dropout=0.1)
    assert cost.memory(dropping, on_cpu=True).activations == 2 * (smaller + 7 * 3 * 5 * 5)


def test_memory_follows_micro_batches_recompute_and_precision():
    full = cost.memory(config_with(train_batch_size=8))
    micro = cost.memory(config_with(train_batch_size=8, micro_batch_size=2))
    assert (micro.activations * 4, micro.logits * 4) == (full.activations, full.logits)
    assert micro.gradients == 2 * full.gradients  # the sum so far, and the newest
    assert cost.memory(config_with(train_batch_size=8, micro_batch_size=8)) == full
    assert cost.memory(config_with(recompute=True)).activations < full.activations / 6
    assert cost.memory(config_with(precision="bfloat16")).activations < full.activations
    assert cost.memory(config_with(precision="bfloat16")).weights == full.weights


@pytest.mark.parametrize("number, words", [
    (999, "999 bytes"), (1500, "1.5 kB"), (1_493_277_704, "1.5 GB"), (2e12, "2.0 TB")])
def test_bytes_are_shown_in_the_unit_that_fits(number, words):
    assert cost.human_bytes(number) == words


@pytest.mark.parametrize("number, words", [
    (0.0123, "0.012 seconds"), (89, "89 seconds"), (90, "1.5 minutes"), (5400, "1.5 hours"), (86400, "24 hours"),
    (2e9, "23,148 days")])
def test_times_are_shown_in_the_unit_that_fits(number, words):
    assert cost.human_seconds(number) == words


@pytest.mark.parametrize("batch, n_ctx, precision, measured", [
    (4, 256, "bfloat16", 2990e6), (4, 256, "float32", 3240e6), (2, 1024, "bfloat16", 3336e6),
    (2, 1024, "float32", 3903e6)])
def test_memory_on_a_cpu_is_what_was_measured(batch, n_ctx, precision, measured):
    """The peaks of 124M in benchmarks/RESULTS.md, Training."""
    config = config_with(train_batch_size=batch, n_ctx=n_ctx, precision=precision)
    assert sum(cost.memory(config, on_cpu=True)) == pytest.approx(measured, rel=0.03)


def test_devices_share_a_micro_batch():
    whole, half = (cost.memory(config_with(train_batch_size=8), devices=devices) for devices in (1, 2))
    assert (half.activations * 2, half.logits * 2) == (whole.activations, whole.logits)
    assert half.gradients == whole.gradients  # to compute on two devices is not to accumulate


def applied(config, words):
    """The Configs of the ways that `lighter` names, and the bytes that it says of each."""
    found = []
    if words.startswith("make"):
        return found
    for way in words.removeprefix("set ").split(", or "):
        values = dict(re.findall(r'"(\w+)" to "?(\w+)', way))
        values = {key: value if key == "precision" else value == "true" if key == "recompute" else int(value)
                  for key, value in values.items()}
        found.append((dataclasses.replace(config, **values), re.search(r"about ([\d.]+ .B)", way)[1]))
    return found


@pytest.mark.parametrize("on_cpu", [False, True])
@pytest.mark.parametrize("limit", [60e9, 24e9, 12e9, 5e9, 3.5e9])
@pytest.mark.parametrize("changes", [{}, {"micro_batch_size": 16}, {"recompute": True}, {"precision": "bfloat16"}])
def test_what_is_named_fits_and_more_would_not(limit, changes, on_cpu, monkeypatch):
    monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda: True)
    config = config_with(train_batch_size=48, **changes)
    words = cost.lighter(config, limit, on_cpu)
    assert applied(config, words) or limit < 5e9
    for lighter, size in applied(config, words):
        assert sum(cost.memory(lighter, on_cpu)) <= limit and cost.human_bytes(
            sum(cost.memory(lighter, on_cpu))) == size
        larger = [rows for rows in range(lighter.micro_batch_size + 1, 48) if 48 % rows == 0] \
            if lighter.micro_batch_size not in (None, config.micro_batch_size) else []
        if larger and (config.micro_batch_size or 48) > larger[0]:
            assert sum(cost.memory(dataclasses.replace(lighter, micro_batch_size=larger[0]), on_cpu)) > limit


def test_one_key_is_named_before_two_and_all_only_where_nothing_else_fits(monkeypatch):
    config = config_with(train_batch_size=8)
    as_it_is, rest = sum(cost.memory(config)), sum(cost.memory(config)[:3]) + cost.FRAMEWORK
    assert cost.lighter(config, as_it_is - 1) == (
        'set "micro_batch_size" to 4 (about 12.2 GB), or "recompute" to true (about 7.5 GB), or "precision" to'
        ' "bfloat16" (about 15.8 GB)')
    assert '"micro_batch_size" to 1 (about' in cost.lighter(config, rest + 2.9e9)
    assert cost.lighter(config, rest + 1.3e9).startswith('set "recompute" to true and "micro_batch_size" to 1 (about')
    assert cost.lighter(config, rest + 1.05e9).startswith(
        'set "recompute" to true and "micro_batch_size" to 1 and "precision" to "bfloat16" (about')
    assert cost.lighter(config, rest + 1.05e9, precision=False).startswith("make")
    monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda: False)
    assert "bfloat16" not in cost.lighter(config, as_it_is / 2, on_cpu=True)  # there it would be slower
    assert cost.lighter(config, rest) == 'make "n_layer", "n_embd" or "n_ctx" smaller'


def test_gpus_get_a_sequence_each_at_least():
    words = cost.lighter(config_with(train_batch_size=8, recompute=True), 5e9, devices=4)
    assert '"micro_batch_size" to 4 ' in words


def test_where_a_step_ran_out_of_memory_two_keys_are_named_with_values_that_fit_what_there_is():
    config = config_with(train_batch_size=32)
    needed = sum(cost.memory(config))
    for limit in (None, 2 * needed, needed / 2):  # unknown; enough by the estimate, which was too low; too little
        words = cost.out_of_memory(config, limit)
        assert '"micro_batch_size" to ' in words and '"recompute" to true' in words and "precision" not in words
        assert words.endswith(f"as it is, a step takes about {cost.human_bytes(needed)}")
        for lighter, _ in applied(config, words.rpartition("; ")[0]):
            assert sum(cost.memory(lighter)) < 0.55 * needed


def test_operations_of_a_step_are_those_of_the_products():
    # 6 for each of the 124.4 M parameters, and 12 layers x width x context of attention, for each of 8 x 1,024 tokens
    assert cost.step_operations(config_with(train_batch_size=8)) == pytest.approx(
        8192 * (6 * 124_439_808 + 12 * 12 * 768 * 1024))


def test_time_of_a_step_grows_with_its_operations_and_falls_with_devices_and_with_their_rate():
    asked = []

    def rate(*shape):
        asked.append(shape)
        return 1e9
    one, four = (cost.seconds_a_step(config_with(train_batch_size=batch), rate) for batch in (1, 4))
    assert asked == [(1024, 768, 3072, "float32"), (4096, 768, 3072, "float32")]
    assert four == pytest.approx(4 * one)
    assert 1.2 < one / (cost.step_operations(config_with(train_batch_size=1)) / 1e9) < 1.4
    assert cost.seconds_a_step(config_with(train_batch_size=1), rate, devices=2) == pytest.approx(one / 2)
    assert cost.seconds_a_step(config_with(train_batch_size=1, recompute=True), rate) == pytest.approx(4 / 3 * one)


def test_products_of_muon_count_once_a_step_whatever_the_batch_and_on_each_device():
    # Five times 4 a a b + 2 a a a for a matrix of a x b, a <= b: two layers of 6 x 18, 6 x 6, 6 x 24, 24 x 6
    operations = 2 * 5 * sum(4 * 36 * b + 2 * 216 for b in (18, 6, 24, 24))
    for size in (1, 7):
        adam, muon = (config_with(**TINY, train_batch_size=size, opt_name=name) for name in ("adam", "muon"))
        assert (cost.update_operations(adam), cost.update_operations(muon)) == (0, operations)
        for devices in (1, 2):
            one, other = (cost.seconds_a_step(config, lambda *shape: 1e3, devices) for config in (adam, muon))
            assert other - one == pytest.approx(operations / 1e3)


@pytest.mark.parametrize("there, faster", [(True, cost.BFLOAT16_FASTER), (False, 1)])
def test_the_products_of_this_machine_are_measured_and_the_fastest_counts(monkeypatch, there, faster):
    assert 1e8 < cost.cpu_rate(64, 128, 512, "float32") < 1e15
    assert cost.cpu_rate(64, 10**5, 10**5, "float32") > 1e8  # which would take 40 GB
    monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda: there)
    for precision, expected in (("float32", 1), ("bfloat16", faster)):
        times = iter([0.0, 0.06, 0.08, 0.12])
        monkeypatch.setattr(cost, "time", types.SimpleNamespace(monotonic=lambda times=times: next(times)))
        assert cost.cpu_rate(64, 128, 512, precision) == pytest.approx(
            expected * cost.ONEDNN_FASTER * 2 * 64 * 128 * 512 / 0.02)
