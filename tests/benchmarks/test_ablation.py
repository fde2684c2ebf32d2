"""The ablation: each of the original's choices changes what it says and nothing else; results are kept and compared."""
import collections
import contextlib
import io
import json
import os
import sysconfig

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import inputs
from benchmarks import ablation, original, records
from configs.errors import UserError
from datasets import shard_sets
from models import gpt2, initial_values, optimizers
from tests.helpers import graphs
from tests.test_inputs import EOT, N_CTX, config_for, flat, order_of, run, write_shards

REPLACED = ((optimizers, "gradients"), (initial_values, "weight_list"), (optimizers._Decoupled, "_decay_of"),
            (inputs, "train_input_fn"))


def current():
    return [getattr(owner, name) for owner, name in REPLACED]


def test_the_default_changes_nothing_and_every_choice_is_undone():
    before = current()
    assert ablation.VARIANTS["default"] == ((), {})
    with original.put_over(()) as keys:
        assert keys == {} and current() == before
    for name in ablation.CHOICES:
        with original.put_over((name,)) as keys:
            assert keys or current() != before, name
        assert current() == before
    with original.put_over(ablation.CHOICES) as keys:
        assert all(now is not then for now, then in zip(current(), before))
        assert keys == {"scale_by_in": True, "grad_clip": 0, "opt_name": "adafactor", "lr": 2.5e-4, "decay_type": "pow",
                        "decay_exponent": 0.8}
    assert current() == before


def test_variants_are_each_choice_alone_a_control_and_all_together():
    assert set(original.choices()) == set(ablation.CHOICES)
    assert {variant: chosen for variant, (chosen, _) in ablation.VARIANTS.items()} == {
        "default": (), "sum_dropout": (), **{name: (name,) for name in ablation.CHOICES},
        "all": ablation.CHOICES, "all_but_adafactor": ablation.CHOICES[:-1]}
    assert "adafactor" not in ablation.VARIANTS["all_but_adafactor"][0]
    assert ablation.VARIANTS["sum_dropout"][1] == {"embed_dropout": 0.1}


def loss_of(given, step):
    """(loss of a batch in the training step after `step`, the tables that the choice makes of `given`)."""
    config, random = graphs.small_config(), np.random.RandomState(3)

    def loss_fn(weights, tokens, labels, number):
        return gpt2.mean_loss(gpt2.transformer(weights, tokens, config), weights["wte"], labels)
    with tf.Graph().as_default(), tf.Session() as s:
        tf.set_random_seed(config.seed)
        tokens, labels = (tf.constant(random.randint(0, config.n_vocab, [5, 7]), tf.int32) for _ in range(2))
        tensors = {name: tf.constant(value) for name, value in given.items()}
        global_step = tf.train.create_global_step()
        loss, _ = optimizers.gradients(loss_fn, tensors, (tokens, labels))
        tables = original.dropped_tables(tensors)
        global_step.load(step, s)
        return s.run([loss, tables])


def test_tied_dropout_drops_entries_of_both_tables_in_training():
    given = graphs.random_weights(graphs.small_config())
    plain, tables = loss_of(given, 4)
    for name, rate in (("wte", (0.05, 0.15)), ("wpe", (0.03, 0.2))):
        kept = tables[name] != 0
        assert rate[0] < np.mean(~kept) < rate[1]
        np.testing.assert_allclose(tables[name][kept], given[name][kept] / 0.9, rtol=1e-6)
    with original.put_over(("tied_dropout",)) as keys:
        assert keys == {}
        dropped, other_step = loss_of(given, 4)[0], loss_of(given, 5)[0]
    assert dropped == pytest.approx(loss_of({**given, **tables}, 4)[0], rel=1e-5)
    assert abs(dropped - plain) > 1e-3 and abs(dropped - other_step) > 1e-3


def expected_deviations(names, width, depth):
    """{name below the layer: deviation} with these choices of the original."""
    attention, mlp = (1, depth ** -0.5) if "residual_scale" in names else ((2 * depth) ** -0.5,) * 2
    narrow, wide = (width ** -0.5, (4 * width) ** -0.5) if "scale_by_in" in names else (1, 1)
    return {"wte": 0.02, "wpe": 0.01, "attn/c_attn/w": 0.02 * narrow, "attn/c_proj/w": 0.02 * attention * narrow,
            "mlp/c_fc/w": 0.02 * narrow, "mlp/c_proj/w": 0.02 * mlp * wide}


@pytest.mark.parametrize("names", [(), ("scale_by_in",), ("residual_scale",), ("scale_by_in", "residual_scale")])
def test_starting_weights_have_the_deviations_of_the_choice(names):
    width, depth = 64, 3
    expected = expected_deviations(names, width, depth)
    with original.put_over(names) as keys:
        config = graphs.small_config(n_embd=width, n_head=4, n_layer=depth, n_vocab=101, n_ctx=97, **keys)
        listed = {weight.name: weight.deviation for weight in initial_values.weight_list(config)}
        if len(names) == 2:  # and what the network makes of the list
            with graphs.session() as s:
                variables = initial_values.create_variables(config)
                s.run(tf.global_variables_initializer())
                measured = {name: np.std(value) for name, value in s.run(variables).items()}
            for name, value in expected.items():
                name = name if name in measured else "h1/" + name
                np.testing.assert_allclose(measured[name], value, rtol=0.05, err_msg=name)
    for name, value in listed.items():
        below = name.partition("/")[2] if name[0] == "h" else name
        np.testing.assert_allclose(value, expected.get(below, 0), rtol=1e-6, err_msg=name)


def updated(config, grads):
    """[(before, after)] of a matrix and a vector after one update with these gradients, and Adam's first moments."""
    start = [np.float32([[1, -2, 3], [0.5, 1, 2]]), np.float32([2, -3, 4, 1])]
    with graphs.session() as s:
        variables = [tf.get_variable(name, initializer=value, use_resource=True)
                     for name, value in zip(("matrix", "vector"), start)]
        update, _ = optimizers.train_op([tf.constant(grad) for grad in grads], variables, config)
        s.run(tf.global_variables_initializer())
        s.run(update)
        moments = [s.run(variable) for variable in tf.global_variables() if "adam_m" in variable.name]
        return list(zip(start, s.run(variables))), moments


ZEROS = [np.zeros([2, 3], np.float32), np.zeros(4, np.float32)]


@pytest.mark.parametrize("opt_name", ["adam", "adafactor"])
def test_vector_decay_shrinks_vectors_like_matrices(opt_name):
    config = graphs.small_config(weight_decay=0.5, opt_name=opt_name, lr_schedule="constant")
    (matrix, vector), _ = updated(config, ZEROS)
    np.testing.assert_allclose(matrix[1], matrix[0] * (1 - config.lr * 0.5), rtol=1e-6)
    np.testing.assert_array_equal(vector[1], vector[0])
    with original.put_over(("vector_decay",)):
        both, _ = updated(config, ZEROS)
    for before, after in both:
        np.testing.assert_allclose(after, before * (1 - config.lr * 0.5), rtol=1e-6)


def test_without_clipping_the_optimizer_gets_the_gradient_as_it_is():
    grads = [np.full([2, 3], 6, np.float32), np.full(4, 5, np.float32)]
    norm = np.sqrt(6 * 36 + 4 * 25)
    for names, factor in (((), 1 / norm), (("no_clipping",), 1)):
        with original.put_over(names) as keys:
            config = graphs.small_config(**keys)
            _, moments = updated(config, grads)
        for grad, moment in zip(grads, moments):
            np.testing.assert_allclose(moment, (1 - config.beta1) * grad * factor, rtol=1e-5)


def test_adafactor_moves_each_tensor_by_its_size_times_the_published_rate():
    with original.put_over(("adafactor",)) as keys:
        config = graphs.small_config(lr_schedule="constant", **keys)
        found, moments = updated(config, [np.ones([2, 3], np.float32), np.ones(4, np.float32)])
    assert not moments and config.beta1 == 0
    for before, after in found:
        size = np.sqrt(np.mean(before ** 2))
        np.testing.assert_allclose(before - after, np.full_like(before, 2.5e-4 * size), rtol=1e-2)


def documents_of(count, length=3):
    """Documents whose tokens tell where they stand."""
    return [np.arange(length) + i * length for i in range(count)]


def test_stitched_window_comes_from_a_random_place_in_a_random_group_of_documents():
    documents, groups, stop = documents_of(42 * 5 + 7), 5, 13
    windows = original.stitched_windows(documents, EOT, N_CTX, 1, 0, stop)
    assert windows.shape == (stop, N_CTX + 1) and windows.dtype == np.int32
    for window in windows:
        for one, following in zip(window, window[1:]):
            assert following == EOT if one % 3 == 2 else following == one + 1 if one != EOT else following % 3 == 0
    for turn in range(2):  # within one pass a document is in one group only
        seen = collections.Counter(token // 3 for window in windows[turn * groups:(turn + 1) * groups]
                                   for token in {token // 3 * 3 for token in window if token != EOT})
        assert max(seen.values()) == 1
    assert len({tuple(window) for window in windows}) == stop  # other groups and places in each pass


def test_stitched_windows_go_on_from_any_place_and_depend_on_the_seed():
    documents = documents_of(42 * 3)
    whole = original.stitched_windows(documents, EOT, N_CTX, 1, 0, 11)
    for start in (1, 3, 7):
        np.testing.assert_array_equal(original.stitched_windows(documents, EOT, N_CTX, 1, start, 11), whole[start:])
    assert not np.array_equal(whole, original.stitched_windows(documents, EOT, N_CTX, 2, 0, 11))
    with pytest.raises(UserError, match="41 documents are fewer than the 42"):
        original.stitched_windows(documents[:41], EOT, N_CTX, 1, 0, 1)


def read_tokens(names, config, start, stop):
    """[T + 1] windows that a train() call over these steps reads."""
    order = order_of(config)
    with original.put_over(names):
        input_fn = inputs.train_input_fn(order, EOT, start_step=start, stop_step=stop)
    return flat(run(input_fn, config.train_batch_size, stop - start))


def test_one_window_reads_what_the_groups_give_and_goes_on_across_train_calls(tmp_path):
    write_shards(tmp_path, "a", [60, 70])
    config = config_for(tmp_path, train_steps=2)
    found = read_tokens(("one_window",), config, 0, 4)
    documents = original._documents(tuple(str(tmp_path / f"a_{i}.tfrecords") for i in range(2)))
    np.testing.assert_array_equal(found, original.stitched_windows(documents, EOT, N_CTX, config.seed, 0, 12))
    np.testing.assert_array_equal(read_tokens(("one_window",), config, 2, 4), found[6:])


def test_first_shards_are_read_again_by_every_train_call_in_another_order(tmp_path):
    documents = write_shards(tmp_path, "a", [20, 20, 20, 20])
    first = {token for document in documents[:20] for token in document} | {EOT}
    config = config_for(tmp_path, train_steps=3)
    calls = [read_tokens(("first_shards_again",), config, start, start + 3) for start in (0, 3, 6)]
    for windows in calls:
        assert len(windows) == 9 and set(np.concatenate(windows)) <= first
    assert not np.array_equal(calls[0], calls[1]) and not np.array_equal(calls[1], calls[2])
    ours = [read_tokens((), config, start, start + 3) for start in (0, 3)]
    assert not set(np.concatenate(ours[0])) <= first
    targets = [{token for window in windows for token in window[1:]} - {EOT} for windows in ours]
    assert not targets[0] & targets[1]


def test_first_shards_hold_what_one_call_reads_which_one_window_multiplies(tmp_path):
    write_shards(tmp_path, "a", [50] * 6)
    config = config_for(tmp_path, train_steps=1)
    shards = shard_sets.find(config, shard_sets.TRAIN).parts[0].shards
    sizes = [shard.tokens + shard.records for shard in shards]
    assert original._first_shards(shards, 0) == shards[:1]
    assert original._first_shards(shards, sizes[0]) == shards[:2]
    assert original._first_shards(shards, sum(sizes) + 1) == shards
    names, first = ("one_window", "first_shards_again"), shards[0].tokens
    calls = [np.concatenate(read_tokens(names, config, start, start + 1)) for start in (0, 1)]
    assert max(calls[0][calls[0] != EOT]) >= first  # 3 windows take 126 documents, more than a shard holds
    assert not np.array_equal(calls[0], calls[1])


def test_pieces_are_cut_at_line_ends_and_lose_nothing():
    lines = ["x" * length + "\n" for length in (100, 77, 0, 300, 20, 5)]
    found = list(ablation.pieces("".join(lines)))
    assert found == ["".join(lines[:3]), lines[3], "".join(lines[4:])]
    assert list(ablation.pieces(" \n\n")) == []


def test_table_compares_equal_seeds_and_names_what_diverged():
    text = ablation.table({"default": [2.0, 3.0], "adafactor": [2.5, 3.25], "no_clipping": [2.0, None]})
    assert text.splitlines()[2:] == ["| default | 2.500 | 1.000 |  |  |",
                                     "| adafactor | 2.875 | 0.750 | +0.375 (+0.250 to +0.500) | 0.5 |",
                                     "| no_clipping | 1 of 2 diverged | | | |"]


@pytest.mark.parametrize("arguments, message", [
    (["--steps", "3"], "--steps 3 is out of range: give at least 4"),
    (["--seeds", "22"], "--seeds 22 is out of range: .* give at most 21"),
    (["--only", "dropout"], "invalid choice: 'dropout'"),
    (["--text", "nowhere.txt"], "--text nowhere.txt: no such file")])
def test_wrong_arguments_are_named(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message):
        ablation.main([*arguments, "--output_dir", str(tmp_path)])


@pytest.mark.slow
def test_ablation_trains_keeps_its_results_and_refuses_another_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "FOLDER", str(tmp_path / "results"))
    command = ["--text", os.path.join(sysconfig.get_path("stdlib"), "asyncio"), "--seeds", "1", "--steps", "8",
               "--only", "default", "all", "--output_dir", str(tmp_path), "--record"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        ablation.main(command)
    result = json.loads(printed.getvalue().splitlines()[-1])
    assert result["tokens"] == 8 * 16 * 64 and result["val_loss"].keys() == {"default", "all"}
    assert all(5 < loss < 7 for losses in result["val_loss"].values() for loss in losses)
    again, kept = io.StringIO(), records.read("ablation")
    with contextlib.redirect_stdout(again):
        ablation.main(command)
    assert records.read("ablation") == kept and [each["variant"] for each in kept] == ["default", "all"]
    for each in kept:
        assert each["steps"] == 8 and each["seed"] == 1 and each["commit"] and each["seconds"] > 0
        assert [step for step, _ in each["evaluations"]] == [2, 4, 6, 8]
        assert each["evaluations"][-1][1] == each["loss"] == result["val_loss"][each["variant"]][0]
    assert "2 runs, 0 to make" in again.getvalue() and json.loads(again.getvalue().splitlines()[-1]) == result
    with pytest.raises(UserError, match="holds results with lr 0.003, not 0.1"):
        ablation.main([*command, "--lr", "0.1"])
