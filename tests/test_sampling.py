"""The decoding loop against greedy decoding in NumPy and transformers, and the distribution that it draws from."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from models import gpt2, sampling
from models.sampling import Options
from tests import graphs, reference

CONFIG = graphs.small_config()
WEIGHTS = graphs.random_weights(CONFIG, seed=4)
NEVER = 10**6  # an eot that no sample meets


def generate(prompt, length, *, seeds=None, config=CONFIG, **options):
    """NumPy [B, length] from the real network."""
    options = Options(length=length, **{"eot": NEVER, **options})
    seeds = list(range(len(prompt))) if seeds is None else seeds

    def function(weights, tokens):
        def step(tokens, position, cache):
            hidden, cache = gpt2.transformer_step(weights, tokens, config, cache=cache, position=position)
            return gpt2.logits_of(hidden[:, -1], weights), cache
        cache = gpt2.empty_cache(tokens.shape[0], config)
        return sampling.sample(step, cache, tokens, tf.constant(seeds), n_ctx=config.n_ctx, options=options)
    return graphs.run_network(config, WEIGHTS, prompt, function)


def greedy(prompt, length):
    """Greedy decoding without a cache, by the NumPy network and the rule of the window."""
    text, window = [list(row) for row in prompt], [list(row)[-CONFIG.n_ctx:] for row in prompt]
    for _ in range(length):
        if len(window[0]) > CONFIG.n_ctx:
            window = [row[-(CONFIG.n_ctx // 2):] for row in window]
        logits = reference.logits(WEIGHTS, np.array(window), layers=CONFIG.n_layer, heads=CONFIG.n_head)[:, -1]
        for row, seen, token in zip(text, window, logits.argmax(-1)):
            row.append(int(token))
            seen.append(int(token))
    return np.array(text)[:, len(prompt[0]):]


@pytest.mark.parametrize("batch, given, length", [(1, 1, 12), (5, 4, 9), (3, 13, 1), (2, 6, 1)])
def test_greedy_samples_within_the_window_equal_numpy(batch, given, length):
    prompt = np.random.RandomState(given).randint(0, CONFIG.n_vocab, [batch, given])
    np.testing.assert_array_equal(generate(prompt, length, temperature=0), greedy(prompt, length))


@pytest.mark.parametrize("given, length", [(4, 40), (13, 9), (25, 6)])
def test_text_goes_on_beyond_the_window_by_rereading_its_last_half(given, length):
    prompt = np.random.RandomState(given).randint(0, CONFIG.n_vocab, [2, given])
    np.testing.assert_array_equal(generate(prompt, length, temperature=0), greedy(prompt, length))


def test_a_sample_depends_on_its_seed_and_not_on_its_neighbours():
    prompt = np.random.RandomState(0).randint(0, CONFIG.n_vocab, [4, 3])
    together = generate(prompt, 8, seeds=[5, 6, 7, 8])
    alone = generate(prompt[2:3], 8, seeds=[7])
    np.testing.assert_array_equal(together[2:3], alone)
    same_prompt = generate(np.repeat(prompt[:1], 3, 0), 8, seeds=[1, 2, 1])
    np.testing.assert_array_equal(same_prompt[0], same_prompt[2])
    assert not np.array_equal(same_prompt[0], same_prompt[1])


def test_a_sample_ends_with_eot_and_the_others_go_on():
    prompt = np.random.RandomState(1).randint(0, CONFIG.n_vocab, [3, 4])
    free = generate(prompt, 8, temperature=0)
    end = free[0, 2]
    ended = generate(prompt, 8, temperature=0, eot=int(end))
    for row, cut in zip(free, ended):
        stop = list(row).index(end) if end in row else len(row)
        np.testing.assert_array_equal(cut[:stop], row[:stop])
        assert np.all(cut[stop:] == end)


def draws(logits, count=20000, **options):
    """Share of each token among `count` draws from these logits."""
    with graphs.session() as s:
        row = tf.constant(logits, tf.float32)
        seeds = tf.placeholder(tf.int32, [50])
        tokens = sampling.choose(tf.tile(row[None], [50, 1]), seeds, 3, Options(length=1, eot=NEVER, **options))
        found = [s.run(tokens, {seeds: np.arange(i, i + 50)}) for i in range(0, count, 50)]
    return np.bincount(np.concatenate(found), minlength=len(logits))


LOGITS = np.array([1.0, 0.2, 2.5, -1.0, 1.8, 0.9, -0.3])


def expected_shares(temperature, kept):
    p = reference.softmax(LOGITS / temperature)
    p = np.where(np.isin(np.arange(len(p)), kept), p, 0)
    return p / p.sum()


@pytest.mark.parametrize("options, kept", [
    ({}, range(7)), ({"temperature": 0.5}, range(7)), ({"top_k": 3}, [2, 4, 0]), ({"top_p": 0.75}, [2, 4, 0]),
    ({"top_k": 2, "temperature": 2.0}, [2, 4]), ({"vocabulary": 5}, range(5))])
def test_draws_are_distributed_as_they_should_be(options, kept):
    counts = draws(LOGITS, **options)
    expected = expected_shares(options.get("temperature", 1.0), list(kept)) * counts.sum()
    possible = expected > 0
    assert counts[~possible].sum() == 0
    chi_squared = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_squared < 27.9  # chance of more, at 6 degrees of freedom: 1 in 10,000


def test_empty_nucleus_keeps_the_likeliest_token():
    assert draws(LOGITS, count=50, top_p=0.0)[2] == 50


def test_nucleus_of_0_75_is_what_numpy_finds():
    order = np.argsort(-LOGITS)
    reached = np.cumsum(reference.softmax(LOGITS)[order])
    assert sorted(order[:np.searchsorted(reached, 0.75) + 1]) == [0, 2, 4]


def test_sampler_compiles_with_xla_and_gives_the_same_tokens():
    prompt = np.random.RandomState(0).randint(0, CONFIG.n_vocab, [2, 5])

    def function(weights, tokens):
        def step(tokens, position, cache):
            hidden, cache = gpt2.transformer_step(weights, tokens, CONFIG, cache=cache, position=position)
            return gpt2.logits_of(hidden[:, -1], weights), cache

        def run():
            return sampling.sample(step, gpt2.empty_cache(2, CONFIG), tokens, tf.constant([3, 4]), n_ctx=CONFIG.n_ctx,
                                   options=Options(length=20, eot=NEVER, temperature=0))
        return [run(), tf.xla.experimental.compile(run)[0]]
    plain, compiled = graphs.run_network(CONFIG, WEIGHTS, prompt, function)
    np.testing.assert_array_equal(plain, compiled)
