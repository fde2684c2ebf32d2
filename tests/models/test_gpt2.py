"""The network against NumPy, Hugging Face's, OpenAI's own, and its own properties."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from configs.constants import IGNORED
from models import decoding, dropout, gpt2, initial_values, metrics, optimizers
from models.cpu import loss
from models.weights import weight_list
from tests.helpers import graphs, hugging_face, openai, reference

CONFIG = graphs.small_config()
WEIGHTS = graphs.random_weights(CONFIG)
TOKENS = np.random.RandomState(1).randint(0, CONFIG.n_vocab, [5, 7])


def test_logits_equal_an_independent_numpy_forward_pass():
    expected = reference.logits(WEIGHTS, TOKENS, layers=CONFIG.n_layer, heads=CONFIG.n_head)
    np.testing.assert_allclose(graphs.logits(CONFIG, WEIGHTS, TOKENS), expected, atol=1e-4)


def test_logits_equal_those_of_hugging_face_on_the_same_weights():
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        expected = hugging_face.network(CONFIG, WEIGHTS).eval()(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(graphs.logits(CONFIG, WEIGHTS, TOKENS), expected, atol=1e-4)


def test_logits_names_and_shapes_equal_those_of_openai_s_own_network():
    expected, variables = openai.logits(CONFIG, WEIGHTS, TOKENS)
    assert variables == {f"model/{name}": weight.shape for name, weight in WEIGHTS.items()}
    np.testing.assert_allclose(graphs.logits(CONFIG, WEIGHTS, TOKENS), expected, atol=1e-4)


def test_bfloat16_logits_are_float32_and_near():
    config = graphs.small_config(precision="bfloat16")
    weights = {name: value * 0.3 if value.ndim > 1 else value for name, value in WEIGHTS.items()}
    expected = graphs.logits(CONFIG, weights, TOKENS)
    found = graphs.logits(config, weights, TOKENS)
    assert found.dtype == np.float32
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())


def test_future_token_cannot_change_past_logits():
    changed = TOKENS.copy()
    changed[:, 4] = (changed[:, 4] + 1) % CONFIG.n_vocab
    before, after = graphs.logits(CONFIG, WEIGHTS, TOKENS), graphs.logits(CONFIG, WEIGHTS, changed)
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.all(np.abs(before[:, 4:] - after[:, 4:]).max(-1) > 1e-4)


def test_every_past_token_changes_the_last_logits():
    before = graphs.logits(CONFIG, WEIGHTS, TOKENS)[:, -1]
    for position in range(TOKENS.shape[1]):
        changed = TOKENS.copy()
        changed[:, position] = (changed[:, position] + 1) % CONFIG.n_vocab
        assert np.all(np.abs(graphs.logits(CONFIG, WEIGHTS, changed)[:, -1] - before).max(-1) > 1e-5)


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-4), ("bfloat16", 0.25)])
@pytest.mark.parametrize("pieces", [[7], [1] * 7, [3, 1, 2, 1]])
def test_logits_with_the_cache_equal_those_without(pieces, precision, tolerance):
    config = graphs.small_config(precision=precision)

    def function(weights, tokens):
        step = decoding.decoding_step(weights, config)
        cache, position, found = decoding.empty_cache(config)(5, 9), tf.fill([5], 0), []
        for piece in tf.split(tokens, pieces, 1):
            last = tf.fill([5], piece.shape[1] - 1)
            logits, cache = step(piece, position, last, cache)
            position += piece.shape[1]
            found.append(logits)
        return tf.stack(found, 1)  # [B, pieces, V]
    ends = np.cumsum(pieces) - 1
    np.testing.assert_allclose(graphs.run_network(WEIGHTS, TOKENS, function),
                               graphs.logits(config, WEIGHTS, TOKENS)[:, ends], atol=tolerance)


def test_variables_are_openai_s_names_and_shapes_in_float32():
    with graphs.session():
        initial_values.create_variables(graphs.small_config(precision="bfloat16"))
        found = {variable.op.name: (variable.shape.as_list(), variable.dtype.base_dtype)
                 for variable in tf.trainable_variables()}
    layer = {"ln_1/g": [12], "ln_1/b": [12], "attn/c_attn/w": [1, 12, 36], "attn/c_attn/b": [36],
             "attn/c_proj/w": [1, 12, 12], "attn/c_proj/b": [12], "ln_2/g": [12], "ln_2/b": [12],
             "mlp/c_fc/w": [1, 12, 48], "mlp/c_fc/b": [48], "mlp/c_proj/w": [1, 48, 12], "mlp/c_proj/b": [12]}
    expected = {"model/wpe": [13, 12], "model/wte": [29, 12], "model/ln_f/g": [12], "model/ln_f/b": [12]}
    expected.update({"model/h%d/%s" % (i, name): shape for i in range(2) for name, shape in layer.items()})
    assert found == {name: (shape, tf.float32) for name, shape in expected.items()}


def starting_values(**changes):
    with graphs.session() as s:
        variables = initial_values.create_variables(graphs.small_config(n_embd=96, n_vocab=499, n_layer=8, **changes))
        s.run(tf.global_variables_initializer())
        return s.run(variables)


def test_starting_weights_have_gpt2_s_deviations():
    values = starting_values()
    residual = 0.02 / np.sqrt(2 * 8)
    for name, deviation in [("wte", 0.02), ("wpe", 0.01), ("h7/attn/c_attn/w", 0.02), ("h0/attn/c_proj/w", residual),
                            ("h3/mlp/c_proj/w", residual), ("h1/mlp/c_fc/w", 0.02)]:
        assert values[name].std() == pytest.approx(deviation, rel=0.1), name
        assert abs(values[name].mean()) < 0.2 * deviation
    assert np.all(values["h2/ln_1/g"] == 1) and np.all(values["h2/attn/c_attn/b"] == 0)
    assert starting_values(scale_by_depth=False)["h3/mlp/c_proj/w"].std() == pytest.approx(0.02, rel=0.1)
    wide = starting_values(initializer_range=0.05)
    assert wide["h1/mlp/c_fc/w"].std() == pytest.approx(0.05, rel=0.1)
    assert wide["h3/mlp/c_proj/w"].std() == pytest.approx(0.05 / 4, rel=0.1)
    assert wide["wpe"].std() == pytest.approx(0.01, rel=0.1)
    assert starting_values(scale_by_in=True)["h1/mlp/c_fc/w"].std() == pytest.approx(0.02 / np.sqrt(96), rel=0.1)


def test_starting_weights_depend_on_the_seed_alone_and_differ_between_tensors():
    one, again, other = starting_values(), starting_values(), starting_values(seed=2)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["wte"], other["wte"])
    assert not np.array_equal(one["h0/mlp/c_fc/w"], one["h1/mlp/c_fc/w"])


def test_starting_weights_are_tensorflow_s_own_numbers_for_the_seed_and_the_place_in_the_list():
    config, values = graphs.small_config(n_embd=96, n_vocab=499, n_layer=8), starting_values()
    with graphs.session() as s:
        expected = s.run({weight.name: weight.deviation * tf.random.stateless_normal(
            weight.shape, [config.seed, number], alg="philox")
            for number, weight in enumerate(weight_list(config)) if weight.deviation})
    assert len(expected) == 2 + 4 * config.n_layer
    assert all(np.array_equal(values[name], expected[name]) for name in expected)


@pytest.mark.parametrize("changes", [{}, {"precision": "bfloat16"}, {"recompute": True}, {"micro_batch_size": 2},
                                     {"opt_name": "adafactor"}, {"opt_name": "muon"},
                                     {"res_dropout": 0.1, "attn_dropout": 0.2}])
def test_training_graph_has_only_static_shapes_and_no_dead_operations(changes):
    config = graphs.small_config(**changes)
    with graphs.session():
        tokens = tf.placeholder(tf.int32, [6, 13])
        labels = tf.placeholder(tf.int32, [6, 13])
        tf.train.create_global_step()
        spec = gpt2.make_model_fn(config)(tokens, labels, "train", {"use_tpu": False})
        operations = tf.get_default_graph().get_operations()
        dynamic = [op.name for op in operations for out in op.outputs
                   if out.dtype.base_dtype not in (tf.resource, tf.variant) and not out.shape.is_fully_defined()]
        assert not dynamic
        reached = reached_from(spec)
        dead = [op for op in operations if op.name not in reached]
    # tf.custom_gradient leaves the Identity of its result behind.
    assert not [op.name for op in dead if not is_of_the_framework(op.name) and op.type != "Identity"]


def reached_from(spec):
    """Names of the operations that a training step, the shown scalars or the initialisation need."""
    wanted = [spec.train_op, spec.loss.op, tf.global_variables_initializer()]
    wanted += [tensor.op for tensor in metrics.collected().values()]
    reached = set()
    while wanted:
        op = wanted.pop()
        if op.name not in reached:
            reached.add(op.name)
            wanted += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return reached


def is_of_the_framework(name):
    """Reads and checks that TensorFlow puts beside every variable, and what tf.gradients leaves over."""
    return "Read/ReadVariableOp" in name or "IsInitialized" in name or name.startswith("gradients") \
        or "/gradients/" in name or "global_step" in name


def test_recomputed_block_has_the_same_gradients():
    labels = (TOKENS + 3) % CONFIG.n_vocab

    def gradients(config):
        def function(weights, tokens):
            hidden = gpt2.transformer(weights, tokens, config, dropout.of_step(config, tf.constant(3), 0))
            total = gpt2.mean_loss(hidden, weights["wte"], tf.constant(labels, tf.int32))
            found = dict(zip(weights, tf.gradients(total, list(weights.values()))))
            return {name: tf.convert_to_tensor(gradient) for name, gradient in found.items()}
        return graphs.run_network(WEIGHTS, TOKENS, function)
    changes = {"res_dropout": 0.2, "attn_dropout": 0.1, "embed_dropout": 0.1}
    plain = gradients(graphs.small_config(**changes))
    again = gradients(graphs.small_config(recompute=True, **changes))
    for name, gradient in plain.items():
        np.testing.assert_allclose(again[name], gradient, rtol=1e-5, atol=1e-7, err_msg=name)


def test_dropout_differs_by_step_and_place_and_repeats_exactly():
    config = graphs.small_config(res_dropout=0.3, attn_dropout=0.3, embed_dropout=0.3)

    def hidden(step, first_row=0, tokens=TOKENS):
        return graphs.run_network(WEIGHTS, tokens, lambda weights, tokens: gpt2.transformer(
            weights, tokens, config, dropout.of_step(config, tf.constant(step), first_row)))
    np.testing.assert_array_equal(hidden(5), hidden(5))
    assert not np.array_equal(hidden(5), hidden(6))
    assert not np.array_equal(hidden(5), hidden(5, first_row=1))
    np.testing.assert_allclose(hidden(5, 3, TOKENS[3:]), hidden(5)[3:], atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_noise_of_a_row_is_the_same_in_every_micro_batch_and_for_no_two_rows(compiled):
    def noise(first_row, rows):
        def function():
            return dropout.noise(tf.constant([7, 3]), tf.constant(first_row), [rows, 5, 7])
        with graphs.session() as s:
            return s.run(tf.xla.experimental.compile(function)[0] if compiled else function())
    whole = noise(0, 8)
    assert whole.min() >= 0 and whole.max() < 1 and len(np.unique(whole)) > 0.99 * whole.size
    np.testing.assert_array_equal(np.concatenate([noise(0, 3), noise(3, 1), noise(4, 4)]), whole)


@pytest.mark.parametrize("batch, micro, devices, slices", [
    (512, None, 8, 1), (512, 4, 1, 128), (512, 16, 4, 32),  # 1 x 512, 128 x 4, 32 x 4 sequences on each device
    (512, 4, 8, 64), (480, 12, 8, 60), (480, 24, 8, 20)])  # 64 x 1, 60 x 1, 20 x 3
def test_devices_share_the_sequences_computed_at_once_and_compute_one_at_least(batch, micro, devices, slices):
    config = graphs.small_config(train_batch_size=batch, micro_batch_size=micro)
    assert optimizers.micro_batches(config, batch // devices) == slices


@pytest.mark.parametrize("changes", [{}, {"res_dropout": 0.2, "attn_dropout": 0.1, "embed_dropout": 0.1},
                                     {"recompute": True, "res_dropout": 0.2}])
def test_micro_batches_give_the_gradient_of_the_whole_batch_dropout_included(changes):
    tokens = np.random.RandomState(3).randint(0, CONFIG.n_vocab, [6, 14])

    def first_step(micro_batch_size):
        config = graphs.small_config(micro_batch_size=micro_batch_size, beta1=0.5, grad_clip=0, **changes)
        with graphs.session() as s:
            features, labels = tf.constant(tokens[:, :-1], tf.int32), tf.constant(tokens[:, 1:], tf.int32)
            spec = gpt2.make_model_fn(config)(features, labels, "train", {"use_tpu": False})
            s.run(tf.global_variables_initializer())
            loss, _ = s.run([spec.loss, spec.train_op])
            # After one update Adam's first moment is half the gradient.
            return loss, s.run({v.op.name: v for v in tf.global_variables() if v.op.name.endswith("/adam_m")})
    loss, whole = first_step(None)
    norm = np.sqrt(sum(np.sum(moment ** 2) for moment in whole.values()))
    assert len(whole) == len(WEIGHTS)
    for size in (1, 2, 3):
        found_loss, found = first_step(size)
        assert found_loss == pytest.approx(loss, rel=1e-6)
        for name, moment in whole.items():
            assert np.linalg.norm(found[name] - moment) < 1e-5 * norm, name


def test_dropout_keeps_the_mean_and_drops_the_rate():
    with graphs.session() as s:
        x = tf.ones([200, 301])
        dropped = s.run(dropout.dropped(x, dropout.noise([7, 4], 0, [200, 301]) >= 0.2, rate=0.2))
    assert np.mean(dropped == 0) == pytest.approx(0.2, abs=0.01)
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1) / np.float32(0.8)}


def test_dropout_in_bfloat16_scales_by_the_rate_itself():
    with graphs.session() as s:
        x = tf.cast(tf.constant(np.random.RandomState(0).rand(200, 301), tf.float32), tf.bfloat16)
        dropped = dropout.dropped(x, dropout.noise([7, 4], 0, [200, 301]) >= 0.1, rate=0.1)
        kept, dropped = s.run([tf.cast(x, tf.float32), tf.cast(dropped, tf.float32)])
    assert dropped.sum() * 0.9 / kept[dropped > 0].sum() == pytest.approx(1, abs=2e-4)


def test_gelu_and_norm_equal_numpy():
    x = np.random.RandomState(0).randn(3, 5, 11).astype(np.float32) * 3
    g, b = np.linspace(0.5, 1.5, 11, dtype=np.float32), np.linspace(-1, 1, 11, dtype=np.float32)
    with graphs.session() as s:
        gelu, norm = s.run([gpt2.gelu(tf.constant(x)), gpt2.norm(tf.constant(x), tf.constant(g), tf.constant(b))])
    np.testing.assert_allclose(gelu, reference.gelu(x.astype(np.float64)), atol=1e-5)
    np.testing.assert_allclose(norm, reference.layer_norm(x.astype(np.float64), g, b), atol=1e-5)


LOSSES = pytest.mark.parametrize("token_losses", [gpt2.token_losses, loss.token_losses], ids=["formula", "fast"])


def cross_entropy(token_losses, logits, labels, weights):
    """(losses, gradient of their weighted sum) where the logits are the products with an identity matrix."""
    with graphs.session() as s:
        tensor = tf.constant(logits, tf.float32)[None]
        losses = token_losses(tensor, tf.eye(tensor.shape[-1]), tf.constant(labels, tf.int32)[None])
        return [values[0] for values in s.run([losses, tf.gradients(losses * weights, tensor)[0]])]


@LOSSES
def test_cross_entropy_and_its_gradient_equal_numpy(token_losses):
    random = np.random.RandomState(2)
    logits, labels, weights = random.randn(6, 9) * 4, np.array([0, 8, 3, 3, 1, 5]), random.rand(6).astype(np.float32)
    losses, gradient = cross_entropy(token_losses, logits, labels, weights)
    probabilities = reference.softmax(logits)
    np.testing.assert_allclose(losses, -np.log(probabilities[np.arange(6), labels]), rtol=1e-5)
    expected = (probabilities - np.eye(9)[labels]) * weights[:, None]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@LOSSES
def test_cross_entropy_is_right_where_the_label_s_probability_underflows(token_losses):
    losses, gradient = cross_entropy(token_losses, [[0.0, 200.0, -300.0], [1e4, 0.0, 0.0]], [2, 1],
                                     np.ones(2, np.float32))
    np.testing.assert_allclose(losses, [500.0, 1e4], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0, 1, -1], [1, -1, 0]], atol=1e-6)


@LOSSES
def test_ignored_labels_give_no_loss_and_no_gradient(token_losses):
    losses, gradient = cross_entropy(token_losses, [[1.0, 2.0], [3.0, 0.0]], [IGNORED, 0],
                                     np.ones(2, np.float32))
    assert losses[0] == 0 and losses[1] > 0
    assert np.all(gradient[0] == 0) and np.all(gradient[1] != 0)

