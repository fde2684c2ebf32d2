"""The data order: every token once an epoch, the same from any step, packed without loss."""
import collections

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import inputs
import main
from configs import schema
from configs.constants import IGNORED
from configs.errors import UserError
from datasets import create_tfrecords, shard_sets, window_order
from tests.helpers import graphs, records

EOT = 999
N_CTX = 5


def write_shards(folder, name, sizes, seed=0, token=0, length=None):
    """Shards {name}_{i}.tfrecords with documents of random lengths and unlike tokens, by TensorFlow's own writer."""
    random, documents = np.random.RandomState(seed), []
    for number, size in enumerate(sizes):
        with tf.io.TFRecordWriter(str(folder / ("%s_%d.tfrecords" % (name, number)))) as writer:
            for _ in range(size):
                count = length or random.randint(1, 12)
                ids = list(range(token, token + count))
                token += count
                documents.append(ids)
                example = tf.train.Example()
                example.features.feature["hash"].bytes_list.value.append(b"%d" % ids[0])
                example.features.feature["text"].int64_list.value.extend(ids)
                writer.write(example.SerializeToString())
    return documents


def config_for(folder, **changes):
    return schema.from_dict({
        "n_ctx": N_CTX, "n_vocab": 1000, "n_embd": 8, "n_head": 2, "n_layer": 1, "input": "tfrecords",
        "train_batch_size": 3, "eval_batch_size": 4, "data_path": str(folder),
        "train_files": "a_*.tfrecords", "eval_files": "a_*.tfrecords",
        "model_dir": "unused", **changes}, "test")


def order_of(config):
    return window_order.WindowOrder.of(config, shard_sets.find(config, shard_sets.TRAIN))


def evaluation_of(config):
    return window_order.EvalWindows.of(config, shard_sets.find(config, shard_sets.EVAL))


def batches(config, start, stop):
    """[(tokens, labels)] of the steps [start, stop), NumPy [B, T] each."""
    return run(inputs.train_input_fn(order_of(config), EOT, start_step=start, stop_step=stop),
               config.train_batch_size, stop - start)


def run(input_fn, batch_size, count=None):
    with graphs.session() as s:
        dataset = input_fn({"batch_size": batch_size})
        for component in tf.nest.flatten(tf.data.get_output_shapes(dataset)):
            assert component.as_list() == [batch_size, N_CTX]
        assert set(tf.nest.flatten(tf.data.get_output_types(dataset))) == {tf.int32}
        following, found = tf.data.make_one_shot_iterator(dataset).get_next(), []
        while count is None or len(found) < count:
            try:
                found.append(s.run(following))
            except tf.errors.OutOfRangeError:
                assert count is None
                return found
        return found


def flat(found):
    """[T + 1] windows of batches, in order."""
    return [np.append(tokens, labels[-1]) for batch in found for tokens, labels in zip(*batch)]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few files instead of 16 million tokens."""
    monkeypatch.setattr(window_order, "BLOCK_TOKENS", 120)


def windows_an_epoch(config):
    return order_of(config).windows


@pytest.mark.parametrize("epochs", [1, 3])
def test_every_token_is_a_target_once_an_epoch_but_for_less_than_a_window_a_block(tmp_path, small_blocks, epochs):
    documents = write_shards(tmp_path, "a", [7, 4, 9, 8, 3, 12])
    config = config_for(tmp_path, train_batch_size=1)
    windows = windows_an_epoch(config)
    part, = shard_sets.find(config, shard_sets.TRAIN).parts
    blocks = window_order.cut_blocks(part.shards, N_CTX)
    assert len(blocks) > 1
    found = batches(config, 0, epochs * windows)
    counts = collections.Counter(int(label) for _, labels in found for label in labels[0])
    tokens = [token for document in documents for token in document]
    assert max(counts[token] for token in tokens) <= epochs
    lost = epochs * (len(tokens) + len(documents)) - sum(counts.values())
    assert 0 <= lost <= epochs * len(blocks) * N_CTX
    assert sum(counts.values()) == epochs * windows * N_CTX


def test_windows_are_the_documents_joined_by_eot_and_overlap_by_one(tmp_path):
    documents = write_shards(tmp_path, "a", [11])
    config = config_for(tmp_path, train_batch_size=1)
    after = {}
    for document in documents:
        for one, following in zip(document, document[1:] + [EOT]):
            after[one] = following
    for window in flat(batches(config, 0, windows_an_epoch(config))):
        for one, following in zip(window, window[1:]):
            assert after[one] == following if one != EOT else following in {document[0] for document in documents}


@pytest.mark.parametrize("start", [1, 2, 5, 11, 12, 23, 40, 77])
def test_batches_from_any_step_on_are_those_of_the_uninterrupted_run(tmp_path, small_blocks, start):
    write_shards(tmp_path, "a", [7, 4, 9, 8, 3])
    config = config_for(tmp_path)
    assert windows_an_epoch(config) * 2 < 3 * 80  # several epochs are crossed
    whole = flat(batches(config, 0, 80))
    np.testing.assert_array_equal(flat(batches(config, start, 80)), whole[3 * start:])


def test_shard_larger_than_what_may_wait_is_shuffled_piecemeal_and_goes_on_from_any_step(tmp_path, monkeypatch):
    documents = write_shards(tmp_path, "a", [31])
    config = config_for(tmp_path, train_batch_size=1)
    count = windows_an_epoch(config)
    shuffled_whole = flat(batches(config, 0, count))
    monkeypatch.setattr(inputs, "SHUFFLED_TOKENS", 50)
    whole = flat(batches(config, 0, count))
    assert not np.array_equal(whole, shuffled_whole)
    seen = collections.Counter(np.concatenate([window[1:] for window in whole]).tolist())
    tokens = [token for document in documents for token in document]
    assert max(seen[token] for token in tokens) == 1
    assert len(tokens) + len(documents) - sum(seen.values()) < N_CTX
    for start in (7, count - 3):
        np.testing.assert_array_equal(flat(batches(config, start, count)), whole[start:])
    check_documents_of(config, documents, count - 3)


def test_long_documents_are_parsed_few_at_a_time(tmp_path):
    write_shards(tmp_path, "a", [3], length=100)
    part, = shard_sets.find(config_for(tmp_path), shard_sets.TRAIN).parts
    assert inputs.documents_at_once(part) == inputs.DOCUMENTS_AT_ONCE
    shard, = part.shards
    longer = part._replace(shards=(shard._replace(tokens=3 * inputs.TOKENS_AT_ONCE // 7),))
    assert inputs.documents_at_once(longer) == 7
    assert inputs.documents_at_once(part._replace(shards=(shard._replace(tokens=10**12),))) == 1
    assert inputs.documents_at_once(part._replace(shards=(shard._replace(tokens=0, records=0),))) > 0


def test_each_epoch_has_another_order_of_the_same_tokens(tmp_path, small_blocks):
    write_shards(tmp_path, "a", [7, 4, 9, 8, 3])
    config = config_for(tmp_path, train_batch_size=1)
    count = windows_an_epoch(config)
    windows = flat(batches(config, 0, 2 * count))
    assert not np.array_equal(windows[:count], windows[count:])
    first, second = (set(np.concatenate(part).tolist()) for part in (windows[:count], windows[count:]))
    assert len(first & second) > 0.9 * len(first)


def test_a_single_document_is_cut_at_other_places_in_each_epoch(tmp_path):
    document, = write_shards(tmp_path, "a", [1], seed=3, length=101)
    config = config_for(tmp_path, train_batch_size=1)
    count = windows_an_epoch(config)
    assert count == 20  # 101 tokens and <|endoftext|>, the first of which is no target
    windows = flat(batches(config, 0, 6 * count))
    starts = [{window[0] for window in windows[epoch * count:][:count]} for epoch in range(6)]
    assert len({frozenset(start) for start in starts}) > 2
    ring = document + [EOT]
    following = dict(zip(ring, ring[1:] + ring[:1]))
    for window in windows:
        assert [following[token] for token in window[:-1]] == window[1:].tolist()


def test_another_seed_gives_another_order(tmp_path):
    write_shards(tmp_path, "a", [17])
    one, other = (flat(batches(config_for(tmp_path, seed=seed), 0, 5)) for seed in (1, 2))
    assert not np.array_equal(one, other)


def test_order_does_not_depend_on_the_batch_size(tmp_path):
    write_shards(tmp_path, "a", [17])
    one = flat(batches(config_for(tmp_path, train_batch_size=2), 0, 9))
    np.testing.assert_array_equal(one, flat(batches(config_for(tmp_path, train_batch_size=6), 0, 3)))


def mixture(folder, **changes):
    write_shards(folder, "a", [9, 6], seed=1)
    write_shards(folder, "b", [8], seed=2)
    return config_for(folder, train_files=[["a_*.tfrecords", 1], ["b_*.tfrecords", 3]], **changes)


def test_mixture_has_its_shares_and_goes_on_from_any_step(tmp_path, monkeypatch):
    monkeypatch.setattr(window_order, "MIXTURE_PERIOD", 20)
    config = mixture(tmp_path)
    whole = flat(batches(config, 0, 40))
    for start in (1, 6, 7, 13, 39):
        np.testing.assert_array_equal(flat(batches(config, start, 40)), whole[3 * start:])
    np.testing.assert_array_equal(window_order.mixture_quota([1, 3]), [5, 15])
    orders = [window_order.mixture_order(np.array([5, 15]), config.seed, period) for period in (0, 1)]
    assert [sorted(turns) for turns in orders] == [[0] * 5 + [1] * 15] * 2 and not np.array_equal(*orders)


@pytest.mark.parametrize("weights", [[1], [0.3, 0.7], [1, 1, 1], [1e-9, 1, 1]])
def test_quota_of_a_mixture_sums_to_the_period_and_starves_nobody(weights):
    quota = window_order.mixture_quota(weights)
    assert quota.sum() == window_order.MIXTURE_PERIOD and quota.min() >= 1
    np.testing.assert_allclose(quota / quota.sum(), np.array(weights) / sum(weights), atol=2e-3)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_evaluation_reads_every_target_once_in_order(tmp_path, batch_size):
    documents = write_shards(tmp_path, "a", [3, 8, 2])
    config = config_for(tmp_path, eval_batch_size=batch_size, eval_steps=-1)
    result = run(inputs.eval_input_fn(evaluation_of(config), EOT), batch_size)
    result = result[:evaluation_of(config).batches]
    text = [token for document in documents for token in document + [EOT]]
    tokens, labels = (np.concatenate([batch[i].reshape(-1) for batch in result]) for i in (0, 1))
    counted = labels != IGNORED
    np.testing.assert_array_equal(labels[counted], text[1:])
    np.testing.assert_array_equal(tokens[counted], text[:-1])
    assert np.all(tokens >= 0)  # ids that an embedding can look up, where nothing counts too


def test_number_of_evaluation_batches_is_at_most_what_there_is(tmp_path):
    documents = write_shards(tmp_path, "a", [13])
    windows = -(-(sum(map(len, documents)) + len(documents) - 1) // N_CTX)
    for wanted, expected in [(1, 1), (2, 2), (10**6, -(-windows // 4)), (-1, -(-windows // 4))]:
        config = config_for(tmp_path, eval_steps=wanted)
        assert evaluation_of(config).batches == expected


def test_corpus_too_small_for_one_window_is_an_error(tmp_path):
    write_shards(tmp_path, "a", [1])
    config = config_for(tmp_path, n_ctx=400)
    with pytest.raises(UserError, match="do not fill one window of n_ctx"):
        order_of(config)


def test_negative_token_id_is_found_before_training(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a_0.tfrecords")) as writer:
        example = tf.train.Example()
        example.features.feature["hash"].bytes_list.value.append(b"x")
        example.features.feature["text"].int64_list.value.extend([3, -1, 4])
        writer.write(example.SerializeToString())
    with pytest.raises(UserError, match="a_0.tfrecords: record 0 at byte 0 holds token id -1"):
        shard_sets.find(config_for(tmp_path), shard_sets.TRAIN)


def test_record_of_another_kind_is_named_and_not_a_crash(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a_0.tfrecords")) as writer:
        writer.write(b"\x08\x05")  # field 1 as a plain number
    with pytest.raises(UserError, match="a_0.tfrecords: record 0 at byte 0"):
        shard_sets.find(config_for(tmp_path), shard_sets.TRAIN)


def test_what_two_globs_match_is_read_once_and_data_path_is_no_glob(tmp_path):
    folder = tmp_path / "we[i]rd"
    folder.mkdir()
    write_shards(folder, "a", [2, 3])
    part, = shard_sets.find(config_for(folder, train_files=["a_*.tfrecords", "*_1.tfrecords"]), shard_sets.TRAIN).parts
    assert [shard.path.rsplit("/", 1)[1] for shard in part.shards] == ["a_0.tfrecords", "a_1.tfrecords"]


def test_tiny_corpus_is_scheduled_in_chunks(tmp_path, monkeypatch):
    write_shards(tmp_path, "a", [9])
    config = config_for(tmp_path)
    windows = windows_an_epoch(config)
    monkeypatch.setattr(window_order, "LONGEST_SCHEDULE", 10)
    assert order_of(config).longest_stretch == 10 * windows // 3


def test_no_python_operation_stands_in_the_pipeline(tmp_path):
    config = mixture(tmp_path)
    with graphs.session():
        inputs.train_input_fn(order_of(config), EOT, start_step=0, stop_step=9)({"batch_size": 3})
        nodes = graphs.all_nodes(tf.get_default_graph().as_graph_def())
    assert not [node.name for node in nodes if "PyFunc" in node.op]


def test_shards_of_the_original_are_split_by_its_own_numbers(tmp_path):
    for number in (0, 1, 2, 3, 10, 11):
        write_shards(tmp_path, "x%d" % number, [2])
        (tmp_path / ("x%d_0.tfrecords" % number)).rename(tmp_path / ("openwebtext-newspaper_%d.tfrecords" % number))
    config = config_for(tmp_path, input="openwebtext", train_files=None, eval_files=None)

    def numbers(split):
        return [path.path.rsplit("_", 1)[1] for part in shard_sets.find(config, split).parts for path in part.shards]
    assert numbers(shard_sets.TRAIN) == ["0.tfrecords", "3.tfrecords", "10.tfrecords"]
    assert numbers(shard_sets.EVAL) == ["1.tfrecords", "2.tfrecords", "11.tfrecords"]
    write_shards(tmp_path, "openwebtext-newspaper-eval", [2])
    assert numbers(shard_sets.EVAL) == ["0.tfrecords"] and len(numbers(shard_sets.TRAIN)) == 6


def test_longbiased_takes_three_parts_in_ten_from_all_and_seven_from_the_long(tmp_path):
    write_shards(tmp_path, "openwebtext-newspaper", [4])
    write_shards(tmp_path, "openwebtext-newspaper-long", [4])
    config = config_for(tmp_path, input="openwebtext_longbiased", train_files=None, eval_files=None)
    parts = shard_sets.find(config, shard_sets.TRAIN).parts
    assert [(part.weight, part.shards[0].path.rsplit("/", 1)[1]) for part in parts] == [
        (0.3, "openwebtext-newspaper_0.tfrecords"), (0.7, "openwebtext-newspaper-long_0.tfrecords")]


class Vocabulary:
    size, fingerprint = 1000, "ours"


def test_token_id_beyond_the_vocabulary_is_found_before_training(tmp_path):
    documents = write_shards(tmp_path, "a", [9])
    config = config_for(tmp_path, n_vocab=documents[-1][-1])
    vocabulary = Vocabulary()
    vocabulary.size = 10
    with pytest.raises(UserError, match=r'a_0.tfrecords holds token id %d, but "n_vocab" is %d' % (
            documents[-1][-1], config.n_vocab)):
        shard_sets.check(shard_sets.find(config, shard_sets.TRAIN), config, vocabulary)


def test_shards_of_another_vocabulary_are_an_error(tmp_path):
    write_shards(tmp_path, "a", [9])
    found = shard_sets.find(config_for(tmp_path), shard_sets.TRAIN)._replace(vocabulary="theirs")
    with pytest.raises(UserError, match="another vocabulary"):
        shard_sets.check(found, config_for(tmp_path), Vocabulary())


def test_vocabulary_larger_than_the_network_is_an_error(tmp_path):
    write_shards(tmp_path, "a", [2])
    config = config_for(tmp_path, n_vocab=900)
    with pytest.raises(UserError, match='"n_vocab" is 900, but GPT-2.s own vocabulary has 1000 ids'):
        shard_sets.check(shard_sets.find(config, shard_sets.TRAIN), config, Vocabulary())


def test_facts_of_shards_without_manifest_are_those_of_their_records(tmp_path):
    documents = write_shards(tmp_path, "a", [9])
    shard, = records.shards_of(str(tmp_path / "a_0.tfrecords"))
    assert (shard.records, shard.tokens) == (9, sum(map(len, documents)))


@pytest.mark.parametrize("step", [1, 4, 9, 30, 41])
def test_documents_of_a_step_are_those_whose_tokens_its_batch_holds(tmp_path, small_blocks, step):
    documents = write_shards(tmp_path, "a", [7, 4, 9, 8, 3])
    config = config_for(tmp_path)
    check_documents_of(config, documents, step)


def check_documents_of(config, documents, step):
    owner = {token: str(document[0]) for document in documents for token in document}
    windows = flat(batches(config, step - 1, step))
    found = inputs.documents_of(order_of(config), step)
    held = {owner[token] for window in windows for token in window if token != EOT}
    only_ends = set(found) - held  # a window may begin with a document's <|endoftext|>
    assert held <= set(found) and len(only_ends) <= config.train_batch_size


def test_which_data_tells_documents_of_one_name_apart(run_config, text_corpus, tmp_path, capsys):
    texts = [tmp_path / folder / "war.txt" for folder in ("1", "2\n3")]
    for path in texts:
        path.parent.mkdir()
        path.write_text(f"what stands in {path.parent.name} " * 9)
    assert create_tfrecords.main(["--input", *map(str, texts), "--name", "war", "--output_dir", str(tmp_path / "data"),
                                  "--encoder_path", str(text_corpus / "encoder"), "--eval_fraction", "0",
                                  "--minimum_size", "5", "--processes", "1"]) == 0
    capsys.readouterr()
    config = run_config(data_path=str(tmp_path / "data"), train_files="war_*.tfrecords", train_batch_size=10)
    assert main.main(["--model", config, "--which_data", "1"]) == 0
    assert capsys.readouterr().out == "1/war.txt\n2 3/war.txt\n"  # a line each


def test_which_data_of_a_step_that_another_batch_size_made_lists_what_it_read(run_config, capsys):
    config = run_config(max_steps=4, train_steps=2, train_batch_size=2, eval_steps=0)
    listed = []
    for changes in (["max_steps=2"], ["train_batch_size=6"]):
        overrides = [word for change in changes for word in ("--set", change)]
        assert main.main(["--model", config, *overrides]) == 0
        capsys.readouterr()
        assert main.main(["--model", config, *overrides, "--which_data", "2"]) == 0
        listed.append(capsys.readouterr().out)
    assert listed[0] == listed[1]


def test_documents_of_a_step_of_a_mixture(tmp_path, monkeypatch):
    monkeypatch.setattr(window_order, "MIXTURE_PERIOD", 20)
    documents = write_shards(tmp_path, "a", [9, 6], seed=1) + write_shards(tmp_path, "b", [8], seed=2, token=500)
    config = config_for(tmp_path, train_files=[["a_*.tfrecords", 1], ["b_*.tfrecords", 3]], seed=4)
    for step in (1, 2, 9):
        check_documents_of(config, documents, step)


def test_what_was_seen_counts_epochs_documents_and_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(window_order, "MIXTURE_PERIOD", 20)
    config = mixture(tmp_path)
    found = shard_sets.find(config, shard_sets.TRAIN)
    order = order_of(config)
    seen, windows = order.seen(40), [part.windows for part in order.parts]
    assert seen.tokens == 40 * 3 * N_CTX
    np.testing.assert_allclose(seen.epochs, [30 / windows[0], 90 / windows[1]])
    assert seen.documents == int(30 / windows[0] * 15) + int(90 / windows[1] * 8)
    lost = sum(part.tokens + part.records - N_CTX * count for part, count in zip(found.parts, windows))
    assert order.dropped == pytest.approx(lost / (found.tokens + found.records))


def test_what_a_run_has_seen_never_shrinks_with_its_batches(tmp_path):
    order = order_of(mixture(tmp_path))
    of_a_run = order.of_a_run([[0, 7], [10, 3], [20, 1], [21, order.batch]])
    windows = [of_a_run.seen(step).tokens // N_CTX for step in (5, 10, 12, 20, 21, 30)]
    assert windows == [35, 70, 76, 100, 101, 101 + 9 * order.batch]
    for one, other in zip(*[[of_a_run.seen(step) for step in range(start, start + 40)] for start in (0, 1)]):
        assert one.documents <= other.documents and all(map(float.__le__, one.epochs, other.epochs))
    same = order.of_a_run([[0, order.batch]])
    assert same.seen(40) == order.seen(40)
    assert of_a_run.ranges(3, 9) == order.ranges(3, 9)  # which data comes is as before
