"""The decoding loop against decoding without a cache in NumPy and transformers, and the distribution it draws from."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from models import decoding, initial_values, sampling
from models.cpu import packed
from models.sampling import Limits, Options
from tests.helpers import graphs, hugging_face, reference

CONFIG = graphs.small_config()
WEIGHTS = graphs.random_weights(CONFIG, seed=4)
NEVER = CONFIG.n_vocab - 1  # an eot that no sample meets: limits keep it from being drawn
DEFAULTS = {"length": 8, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, "seed": 0, "stop": 0}
RANDOM = np.random.RandomState(0)
# Of all lengths that behave differently: one token, some, a full window, more than that.
PROMPTS = [RANDOM.randint(0, NEVER, length).tolist() for length in (1, 4, 13, 6, 2, 11, 25)]


def per_row(rows, **options):
    """Options of tensors [B], of values for all rows or lists of one for each."""
    values = {name: np.broadcast_to(np.asarray(options.get(name, default)), [rows])
              for name, default in DEFAULTS.items()}
    return Options(**{name: tf.constant(value, tf.float32 if isinstance(DEFAULTS[name], float) else tf.int32)
                      for name, value in values.items()})


def limits_for(eot=NEVER, stops=None, **options):
    options = {**DEFAULTS, **options}
    return Limits(n_ctx=CONFIG.n_ctx, eot=eot, length=int(np.max(options["length"])), stops=stops,
                  vocabulary=NEVER, largest=CONFIG.n_vocab, draws=bool(np.any(options["temperature"])),
                  penalties=bool(np.any(np.not_equal(options["repetition_penalty"], 1))))


def padded(prompts):
    """(int32 [B, S] with 17 as padding, int32 [B])."""
    width = max(map(len, prompts))
    return np.array([row + [17] * (width - len(row)) for row in prompts], np.int32), np.array(list(map(len, prompts)))


def sampler(weights, tokens, given, options, limits):
    """The Samples of the real network."""
    return sampling.sample(decoding.decoding_step(weights, CONFIG), decoding.empty_cache(CONFIG), tokens,
                           tf.cast(given, tf.int32), options, limits)


def generate(prompts, *, eot=NEVER, stops=None, **options):
    """[(list of tokens, logprobs)] for each prompt, a list of ids."""
    tokens, given = padded(prompts)

    def function(weights, tokens):
        return sampler(weights, tokens, tf.constant(given), per_row(len(prompts), **options),
                       limits_for(eot=eot, stops=stops, **options))
    found = graphs.run_network(WEIGHTS, tokens, function)
    assert all(np.all(row[count:] == eot) for row, count in zip(found.tokens, found.count))
    return [(row[:count].tolist(), logprobs[:count])
            for row, logprobs, count in zip(found.tokens, found.logprobs, found.count)]


def tokens_of(samples):
    return [tokens for tokens, _ in samples]


def greedy(prompt, length):
    """(tokens, logprobs) of greedy decoding without a cache, by the NumPy network and docs/generating.md's rule."""
    window, found, logprobs = prompt[-CONFIG.n_ctx:], [], []
    for _ in range(length):
        if len(window) > CONFIG.n_ctx:
            window = window[-(CONFIG.n_ctx // 2):]
        logits = reference.logits(WEIGHTS, np.array([window]), layers=CONFIG.n_layer, heads=CONFIG.n_head)[0, -1]
        found.append(int(logits[:NEVER].argmax()))
        logprobs.append(np.log(reference.softmax(logits[:NEVER])[found[-1]]))
        window = window + found[-1:]
    return found, logprobs


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_greedy_samples_up_to_n_ctx_equal_those_of_transformers(batch, penalty):
    torch = pytest.importorskip("torch")
    theirs = hugging_face.network(CONFIG, WEIGHTS).eval()
    prompts = [row[:12] for row in PROMPTS][-batch:]
    lengths = [CONFIG.n_ctx - len(row) for row in prompts]
    expected = [theirs.generate(torch.tensor([row]), attention_mask=torch.ones([1, len(row)], dtype=torch.long),
                                max_new_tokens=length, do_sample=False, suppress_tokens=[NEVER], eos_token_id=None,
                                pad_token_id=0, repetition_penalty=penalty)[0, len(row):].tolist()
                for row, length in zip(prompts, lengths)]
    assert tokens_of(generate(prompts, temperature=0.0, length=lengths, repetition_penalty=penalty)) == expected


def test_text_goes_on_beyond_the_window_by_rereading_its_last_half():
    """Rows of other lengths reach the end of their windows at other tokens."""
    found = generate(PROMPTS, temperature=0.0, length=30)
    for prompt, (tokens, logprobs) in zip(PROMPTS, found):
        expected, expected_logprobs = greedy(prompt, 30)
        assert tokens == expected
        np.testing.assert_allclose(logprobs, expected_logprobs, atol=1e-4)


def test_a_sample_depends_on_its_own_prompt_options_and_seed_alone():
    options = {"seed": [5, 6, 7, 8, 9, 10, 11], "temperature": [1.0, 0.7, 2.0, 0.0, 1.0, 1.3, 0.5],
               "top_k": [0, 3, 5, 0, 40, 2, 0], "top_p": [1.0, 0.8, 1.0, 0.5, 0.6, 0.9, 0.7],
               "repetition_penalty": [1.0, 1.2, 1.0, 1.0, 2.0, 0.8, 1.1], "length": [20, 9, 14, 3, 1, 30, 0]}
    together = tokens_of(generate(PROMPTS, **options))
    assert list(map(len, together)) == options["length"]
    alone = generate(PROMPTS[5:6], **{name: values[5:6] for name, values in options.items()})
    assert tokens_of(alone) == together[5:6]
    again = tokens_of(generate(PROMPTS[::-1], **{name: values[::-1] for name, values in options.items()}))
    assert again == together[::-1]


def sampled_twice(config, weights, options, *, use_tpu):
    """The Samples of PROMPTS in two runs of one session, and the types of the graph's operations."""
    tokens, given = padded(PROMPTS)
    with graphs.session() as s:
        variables = initial_values.create_variables(config)
        limits = limits_for(**options)._replace(n_ctx=config.n_ctx)
        found = sampling.sample(*decoding.decoder(variables, config, use_tpu=use_tpu), tf.constant(tokens),
                                tf.constant(given, tf.int32), per_row(len(tokens), **options), limits)
        for name, variable in variables.items():
            variable.load(weights[name], s)
        s.run(tf.local_variables_initializer())
        types = {node.op for node in graphs.all_nodes(tf.get_default_graph().as_graph_def())}
        return [s.run(found) for _ in range(2)], types


@pytest.mark.parametrize("usable, changes", [
    (True, {}), (True, {"n_ctx": 3}), (False, {}), (False, {"n_ctx": 3}), (False, {"precision": "bfloat16"})])
def test_packed_weights_and_a_cache_written_in_place_change_no_sample(usable, changes, monkeypatch):
    """Beyond the window, too, which n_ctx 3 reads in again one token at a time; and in a second run of the session."""
    if not usable:
        monkeypatch.setattr(packed, "supported", lambda dtype: False)
    config = graphs.small_config(**changes)
    weights = {**WEIGHTS, "wpe": WEIGHTS["wpe"][:config.n_ctx]}
    options = {"length": [20, 9, 14, 30, 1, 30, 0], "temperature": 0.0}
    (expected, _), _ = sampled_twice(config, weights, options, use_tpu=True)
    runs, types = sampled_twice(config, weights, options, use_tpu=False)
    assert ("InplaceUpdate" in types) == (config.n_ctx > 3)
    assert (packed.OP in types) == packed.supported(tf.float32)
    for found in runs:
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-4)


@pytest.mark.parametrize("usable", [True, False])
def test_tokens_drawn_in_bfloat16_have_nearly_the_logprobs_of_numpy(usable, monkeypatch):
    monkeypatch.setattr(packed, "LIKELIEST", 5)
    if not usable:
        monkeypatch.setattr(packed, "supported", lambda dtype: False)
    # Logits far from 0, as those of GPT-2 are: in bfloat16 they would be off by a quarter.
    weights = {**WEIGHTS, "ln_f/b": WEIGHTS["ln_f/b"] + 4, "wte": WEIGHTS["wte"] - 2}
    (found, again), types = sampled_twice(graphs.small_config(precision="bfloat16"), weights, {"length": 8},
                                          use_tpu=False)
    assert (packed.OP in types) == packed.supported(tf.bfloat16)
    np.testing.assert_array_equal(found.tokens, again.tokens)
    errors = []
    for prompt, tokens, logprobs in zip(PROMPTS, found.tokens, found.logprobs):
        text = np.array([[*prompt, *tokens]])[:, :CONFIG.n_ctx]
        logits = reference.logits(weights, text, layers=CONFIG.n_layer, heads=CONFIG.n_head)[0, :, :NEVER]
        wanted = np.log(reference.softmax(logits))[np.arange(text.size - 1), text[0, 1:]][len(prompt) - 1:]
        assert logits.max() < -64
        errors += list(np.abs(logprobs[:len(wanted)] - wanted))
    assert len(errors) > 30 and max(errors) < 0.4 and np.mean(errors) < 0.1


def test_samples_of_one_prompt_differ_with_the_seed_alone():
    one, other, again = tokens_of(generate(PROMPTS[1:2] * 3, seed=[1, 2, 1]))
    assert one == again != other


def test_a_sample_ends_with_eot_and_the_others_go_on():
    free = tokens_of(generate(PROMPTS, temperature=0.0))
    end = free[0][2]
    ended = tokens_of(generate(PROMPTS, temperature=0.0, eot=end))
    assert len(ended[0]) == free[0].index(end) + 1
    assert ended == [row[:row.index(end) + 1] if end in row else row for row in free]


def test_a_stop_of_two_tokens_ends_a_sample_behind_them():
    free = tokens_of(generate(PROMPTS[:3], temperature=0.0))
    first, second = free[0][2:4]
    stops = np.ones([3, CONFIG.n_vocab], np.int32)  # 1: nothing of it, 2: its first token, 0: complete
    stops[:, first], stops[2, second], stops[0] = 2, 0, 0
    found = tokens_of(generate(PROMPTS[:3], temperature=0.0, stops=stops, stop=1))
    pairs = [list(zip(row, row[1:])) for row in free]
    assert found == [row[:pair.index((first, second)) + 2] if (first, second) in pair else row
                     for row, pair in zip(free, pairs)]
    assert len(found[0]) <= 4


def test_work_ends_with_the_last_sample():
    calls = []

    def step(tokens, position, last, cache):
        logits = tf.numpy_function(lambda p: calls.append(1) or np.eye(5, dtype=np.float32)[p % 5], [position],
                                   tf.float32)
        return tf.ensure_shape(logits, [2, 5]), cache
    with graphs.session() as s:
        limits = Limits(n_ctx=9, eot=3, length=50, draws=False)
        found = sampling.sample(step, lambda batch, size: tf.zeros([batch, size]), tf.constant([[1, 2], [2, 0]]),
                                tf.constant([2, 1]), per_row(2, length=[50, 4]), limits)
        tokens, count = s.run([found.tokens, found.count])
    assert tokens[0, :4].tolist() == [0, 2, 3, 3]
    assert count.tolist() == [3, 4] or count.tolist() == [3, 3]
    assert len(calls) == max(count)


def draws(logits, runs=400, rows=25, **options):
    """How often each token is drawn from these logits, with `runs` x `rows` seeds."""
    with graphs.session() as s:
        row = tf.constant(logits, tf.float32)
        start = tf.placeholder(tf.int32, [])
        chosen = sampling.choose(tf.tile(row[None], [rows, 1]), 3, per_row(rows, **options)._replace(
            seed=tf.ensure_shape(start + tf.range(rows), [rows])), limits_for(**options))
        found = [s.run(chosen, {start: rows * i}) for i in range(runs)]
    return np.bincount(np.concatenate(found), minlength=len(logits))


LOGITS = np.array([1.0, 0.2, 2.5, -1.0, 1.8, 0.9, -0.3])


def expected_shares(temperature=1.0, top_k=0, top_p=1.0):
    p = reference.softmax(LOGITS / temperature)
    order = np.argsort(-p)
    order = order[:top_k or len(p)]
    reached = np.cumsum(p[order]) / p[order].sum()
    order = order[:np.searchsorted(reached, top_p) + 1]
    kept = np.zeros_like(p)
    kept[order] = p[order]
    return kept / kept.sum()


@pytest.mark.parametrize("options, possible", [
    ({}, 7), ({"temperature": 0.5}, 7), ({"top_k": 3}, 3), ({"top_p": 0.75}, 3), ({"top_k": 2, "temperature": 2.0}, 2),
    ({"top_k": 5, "top_p": 0.8, "temperature": 1.5}, 4), ({"top_k": 100}, 7), ({"top_p": 0.0}, 1)])
def test_draws_are_distributed_as_numpy_says(options, possible):
    counts = draws(LOGITS, **options)
    expected = expected_shares(**options) * counts.sum()
    assert (expected > 0).sum() == possible
    assert counts[expected == 0].sum() == 0
    chi_squared = ((counts - expected)[expected > 0] ** 2 / expected[expected > 0]).sum()
    assert chi_squared < 27.9  # chance of more, at 6 degrees of freedom: 1 in 10,000


def test_a_very_low_temperature_is_greedy_whatever_the_limits():
    assert draws(LOGITS, runs=1, rows=4, temperature=[1e-30, 1e-7, 1e-5, 1e-3], top_p=0.9)[2] == 4


def test_ids_beyond_the_vocabulary_are_never_drawn():
    found = tokens_of(generate(PROMPTS[:3], seed=[1, 2, 3], temperature=50.0, length=40))
    drawn = set(np.concatenate(found).tolist())
    assert len(drawn) > 20 and NEVER not in drawn


def test_sampler_compiles_with_xla_and_gives_the_same_tokens():
    """Every part of the graph, with static shapes; but for the draws, which XLA makes from other bits."""
    prompts = PROMPTS[1:4]
    tokens, given = padded(prompts)
    options = {"length": [20, 9, 14], "repetition_penalty": 1.3, "temperature": [0.0, 1.0, 1.0], "top_p": 0.001}
    stops = np.ones([2, CONFIG.n_vocab], np.int32)
    stops[:, 5] = stops[0] = 0

    def function(weights, tokens):
        def run():
            return list(sampler(weights, tokens, tf.constant(given), per_row(3, **options, stop=1),
                                limits_for(stops=stops, **options)))
        return [run(), tf.xla.experimental.compile(run)]
    plain, compiled = graphs.run_network(WEIGHTS, tokens, function)
    for one, other in zip(plain, compiled):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_tensors_of_unknown_shape_give_the_same_samples():
    prompts = PROMPTS[-3:]
    tokens, given = padded(prompts)
    options = {"seed": [1, 2, 3], "repetition_penalty": 1.2, "top_k": 9}

    def function(weights, tokens):
        rows = tf.placeholder_with_default(tokens, [None, None])
        own = Options(*[tf.placeholder_with_default(value, [None]) for value in per_row(3, **options)])
        limits = limits_for(**options)._replace(length=tf.placeholder_with_default(20, []))
        limits = limits._replace(largest=tf.reduce_max(own.top_k))
        own = own._replace(length=tf.fill([3], limits.length))
        return sampler(weights, rows, tf.placeholder_with_default(given, [None]), own, limits)
    found = graphs.run_network(WEIGHTS, tokens, function)
    assert found.tokens.tolist() == tokens_of(generate(prompts, length=20, **options))
