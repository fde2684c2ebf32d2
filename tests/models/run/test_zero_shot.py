"""Zero-shot tasks: each number against transformers' GPT-2 with the same weights, one prediction at a time."""
import dataclasses
import json
import math
import re
import signal
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import main
from configs import schema, tpu_names
from configs.errors import UserError
from datasets import shard_sets, window_order
from datasets.zero_shot import numbers, sequences, tasks, texts, variants
from encoder import bpe
from models.checkpoints import best_checkpoint
from models.run import after_evaluation, endings, hooks, loss_picture, metrics_file, samples, zero_shot
from tests.helpers import graphs, hugging_face
from tests.helpers.runs import scalars_of
from tools import zero_shot as tool

TEXT = "import json\n\ndef main(é):\r\n    return 'the rest of it'  # \u3042 and so on, to the end of it\n" * 2
FIGURES = ("loss", "perplexity", "word_perplexity", "bits_per_byte", "accuracy", "accuracy_norm")


def weights_of(config):
    reader = tf.train.load_checkpoint(config.model_dir)
    return {name[len("model/"):]: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
            if name.startswith("model/")}


class Theirs:
    """transformers' GPT-2 with the weights of a config's run."""

    def __init__(self, config):
        self.config, self.encoder = config, bpe.load(config.encoder_path) if config.encoder_path else None
        self.network = hugging_face.network(config, weights_of(config)).eval()

    def logprobs(self, inputs):
        """float64 [V] of the token behind `inputs`."""
        import torch
        with torch.no_grad():
            return self.network(torch.tensor([inputs])).logits[0, -1].double().log_softmax(-1).numpy()

    def behind(self, context, target):
        """[(loss, rank of it among all tokens)] of each of the `target` tokens; no more than n_ctx + 1 in all."""
        tokens = ([*context] or [self.encoder.eot]) + [*target]
        tokens = tokens[-(self.config.n_ctx + 1):]
        return [(-found[tokens[end]], int((found > found[tokens[end]]).sum()))
                for end in range(len(tokens) - len(target), len(tokens)) for found in [self.logprobs(tokens[:end])]]


@pytest.fixture(scope="module")
def theirs(random_run):
    return Theirs(schema.load(random_run))


@pytest.fixture
def ours(random_run, capsys):
    """Function (task, file, *options) -> {variant: the object of --json}."""
    def run(task, path, *options):
        capsys.readouterr()
        assert tool.main(["--model", random_run, "--task", task, "--file", str(path), "--json", *options]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert all(one["task"] == task for one in found)
        return {one["variant"]: one for one in found}
    return run


def sliding_window(theirs, text, stride):
    """Sum of the losses of a text: the context of a token is that of the window which scores it."""
    n_ctx = theirs.config.n_ctx
    stream = [theirs.encoder.eot, *theirs.encoder.encode(text)]
    total, last = 0.0, len(stream) - 1
    for place in range(1, len(stream)):
        windows_before = max(0, math.ceil((place - n_ctx) / stride))
        end = min(last, n_ctx + windows_before * stride) if windows_before else min(n_ctx, last)
        total -= theirs.logprobs(stream[end - min(n_ctx, end):place])[stream[place]]
    return total, last


@pytest.mark.parametrize("stride", [16, 5, 1])
def test_text_has_the_perplexity_of_a_sliding_window_over_transformers_network(theirs, ours, tmp_path, stride):
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    found = ours("text", tmp_path / "a.txt", *(["--stride", str(stride)] if stride < 16 else []))["rolling"]
    total, tokens = sliding_window(theirs, TEXT, stride)
    assert (found["examples"], found["tokens"]) == (1, tokens) and tokens % 5 and tokens % 16
    for name, expected in (("loss", total / tokens), ("perplexity", math.exp(total / tokens)),
                           ("word_perplexity", math.exp(total / len(TEXT.split()))),
                           ("bits_per_byte", total / math.log(2) / len(TEXT.encode()))):
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, err_msg=name)
    assert found["accuracy"] is None is found["accuracy_norm"]


def test_text_shorter_than_the_window_is_one_window(theirs, ours, tmp_path):
    (tmp_path / "a.txt").write_text("def")
    total, tokens = sliding_window(theirs, "def", 16)
    found = ours("text", tmp_path / "a.txt")["rolling"]
    assert found["tokens"] == tokens < 16
    np.testing.assert_allclose(found["loss"], total / tokens, rtol=1e-5)


def test_wikitext_is_counted_page_by_page_for_lm_eval_and_as_a_whole_for_openai(theirs, ours, tmp_path):
    pages = [" = One = \n \n The <unk> 's 1 @,@ 200 walls . \n", " = Two = \n \n ( old ) and not a wall , but two"]
    (tmp_path / "wiki.test.raw").write_text("\n".join(pages))
    found = ours("wikitext", tmp_path / "wiki.test.raw")
    total = sum(sliding_window(theirs, texts.lm_eval_wikitext(page), 16)[0] for page in pages)
    lm_eval = found["lm-eval"]
    assert lm_eval["examples"] == 2
    np.testing.assert_allclose(math.log(lm_eval["word_perplexity"]),
                               total / sum(len(re.split(r"\s+", page)) for page in pages), rtol=1e-5)
    np.testing.assert_allclose(lm_eval["bits_per_byte"], total / sum(map(len, pages)) / math.log(2), rtol=1e-5)
    total, _ = sliding_window(theirs, texts.plain_wikitext("\n".join(pages)), 16)
    words = len(" ".join(pages).split()) + 6  # line ends
    np.testing.assert_allclose(math.log(found["openai"]["word_perplexity"]), total / words, rtol=1e-5)


def test_ptb_is_counted_by_its_own_words(theirs, ours, tmp_path):
    text = " it was n't <unk> \n $ N million \n"
    (tmp_path / "ptb.test.txt").write_text(text)
    total, _ = sliding_window(theirs, "it wasn't <unk>\n$N million\n", 16)
    np.testing.assert_allclose(math.log(ours("ptb", tmp_path / "ptb.test.txt")["openai"]["word_perplexity"]),
                               total / 9, rtol=1e-5)


def lambada_lines(theirs):
    """Texts of which some end with the likeliest word, be it a stop word or not."""
    encoder, random, found = theirs.encoder, np.random.RandomState(3), []
    words = {number: encoder.decode([number]) for number in range(encoder.size)}
    words = {number: word for number, word in words.items() if re.fullmatch(" [a-z]+", word)}
    for _ in range(700):
        context = " ".join(random.choice(["def", "json", "self", "x", "é", "an", "of"], random.randint(1, 5)))
        likeliest = int(theirs.logprobs(encoder.encode(context)[-16:]).argmax())
        if likeliest in words:
            found.append(context + words[likeliest])
    assert len({text.split()[-1] in texts.STOP_WORDS.split() for text in found}) == 2
    return [*found, "def json", "self as", "import", "x (for example, in the names of the other things)"]


def test_lambada_has_the_last_words_of_transformers_network(theirs, ours, tmp_path):
    lines = lambada_lines(theirs)
    (tmp_path / "lambada.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in lines))
    found = ours("lambada", tmp_path / "lambada.jsonl")
    barred = [number for number in range(theirs.encoder.size) if theirs.encoder.decode([number])[:1] == " "
              and theirs.encoder.decode([number])[1:].lower() in texts.STOP_WORDS.split()]
    losses, hits = [], {"lm-eval": [], "openai": [], "last-token": []}
    for text in lines:
        context, _, word = text.rpartition(" ")
        context, word = theirs.encoder.encode(context), theirs.encoder.encode(" " + word)
        losses.append(theirs.behind(context, word))
        ranks = [rank for _, rank in losses[-1]]
        hits["lm-eval"].append(ranks == [0] * len(ranks))
        hits["last-token"].append(ranks[-1] == 0)
        likely = theirs.logprobs((context or [theirs.encoder.eot])[-(17 - len(word)):])
        likely[barred] = -np.inf
        hits["openai"].append(likely.argmax() == word[0] and not any(ranks[1:]))
    sums = [sum(loss for loss, _ in one) for one in losses]
    tokens = sum(map(len, losses))
    assert {name: one["accuracy"] for name, one in found.items()} == {
        name: pytest.approx(np.mean(values)) for name, values in hits.items()}
    assert len({one["accuracy"] for one in found.values()} - {0, 1}) > 1
    for one in found.values():
        assert (one["examples"], one["tokens"]) == (len(lines), tokens)
        np.testing.assert_allclose(one["loss"], sum(sums) / tokens, rtol=1e-5)
        np.testing.assert_allclose(math.log(one["word_perplexity"]), np.mean(sums), rtol=1e-5)


def hellaswag_lines(count):
    random = np.random.RandomState(7)

    def words(low, high):
        return " ".join(random.choice(["def", "json", "[step]", "Self", "x", "(é)", "import", "the"],
                                      random.randint(low, high)))
    for number in range(count):
        context = {"ctx_a": words(1, 4) + " [title] " + words(1, 3), "ctx_b": words(0, 3)}
        yield {**context, "ctx": f'{context["ctx_a"]} {context["ctx_b"]}'.strip(), "activity_label": words(1, 3),
               "endings": [words(1, 2) + "." for _ in range(4)], "label": number % 4}


def test_hellaswag_has_the_endings_that_transformers_network_chooses(theirs, ours, tmp_path):
    lines = [*hellaswag_lines(21)]
    (tmp_path / "hellaswag_val.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = ours("hellaswag", tmp_path / "hellaswag_val.jsonl")

    def without_marks(text):
        return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")
    for name in ("llm.c", "lm-eval"):
        hits, by_length, right, tokens = 0, 0, 0.0, 0
        for line in lines:
            context, endings = line["ctx"], line["endings"]
            if name == "lm-eval":
                context = without_marks(f'{line["activity_label"]}: {line["ctx_a"]} {line["ctx_b"].capitalize()}')
                endings = [*map(without_marks, endings)]
            context, spaces = context.rstrip(), "" if name == "llm.c" else " " * (len(context) - len(context.rstrip()))
            encoded = [theirs.encoder.encode(f"{spaces} {ending}") for ending in endings]
            scored = [theirs.behind(theirs.encoder.encode(context), ending) for ending in encoded]
            sums = [sum(loss for loss, _ in one) for one in scored]
            lengths = [*map(len, encoded if name == "llm.c" else endings)]
            hits += np.argmin(sums) == line["label"]
            by_length += np.argmin(np.divide(sums, lengths)) == line["label"]
            right, tokens = right + sums[line["label"]], tokens + len(encoded[line["label"]])
        one = found[name]
        assert (one["examples"], one["tokens"], one["word_perplexity"]) == (21, tokens, None)
        assert (one["accuracy"], one["accuracy_norm"]) == pytest.approx((hits / 21, by_length / 21))
        np.testing.assert_allclose(one["loss"], right / tokens, rtol=1e-5)
    assert len({one[name] for one in found.values() for name in ("accuracy", "accuracy_norm")}) > 1


def test_sequences_of_all_lengths_are_scored_in_few_shapes_and_come_back_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(zero_shot, "ROWS", 7)  # less than a sequence has targets
    config = graphs.small_config(n_ctx=50, model_dir=str(tmp_path / "run"), eval_batch_size=2)
    graphs.save_checkpoint(config, scale=1.0)
    network = Theirs(config)
    random = np.random.RandomState(1)
    given, not_allowed = [], [*range(3, 12)]
    for length in (5, 51, 17, 33, 50, 2, 40, 18, 16, 34, 9, 3):
        scored = random.randint(1, length)
        tokens = random.randint(0, 29, length).astype(np.int32)
        for place in range(max(1, length - scored), length):  # some targets are the likeliest
            likely = network.logprobs(tokens[:place].tolist())
            likely[not_allowed if random.rand() < 0.5 else []] = -np.inf
            tokens[place] = likely.argmax() if random.rand() < 0.7 else tokens[place]
        given.append(sequences.Sequence(tokens, scored))
    with zero_shot.Scorer(config, tf.train.latest_checkpoint(config.model_dir)) as scorer:
        scores = scorer.scores(given, not_allowed)
        assert {length for length, _ in scorer._networks} == {16, 32, 50}
    for (tokens, scored), score in zip(given, scores):
        for place, loss, likeliest, allowed in zip(range(len(tokens) - scored, len(tokens)), *score):
            expected = network.logprobs(tokens[:place].tolist())
            np.testing.assert_allclose(loss, -expected[tokens[place]], rtol=1e-4, atol=1e-5)
            assert likeliest == (expected.argmax() == tokens[place])
            expected[not_allowed] = -np.inf
            assert allowed == (expected.argmax() == tokens[place])
        assert len(score.losses) == scored
    flags = zip(*(np.concatenate([score[field] for score in scores]) for field in (1, 2)))
    assert set(flags) == {(one, other) for one in (False, True) for other in (False, True)}


def test_weights_that_are_not_finite_are_one_line(tmp_path):
    config = graphs.small_config(model_dir=str(tmp_path / "run"))
    graphs.save_checkpoint(config, scale=math.nan)
    part = tasks.Part([sequences.Sequence(np.arange(5, dtype=np.int32), 4)],
                      [(variants.ROLLING, lambda scores: numbers.of_texts(scores, 1, 1, 1))])
    with pytest.raises(UserError, match=r"the loss is not finite \(nan\) with the weights in .*; go back to an older"):
        list(zero_shot.measure(config, tf.train.latest_checkpoint(config.model_dir), [("x", [part])]))


def test_huge_perplexities_are_short_and_stay_out_of_tensorboard_whose_numbers_end_earlier(tmp_path):
    found = numbers.Numbers(3, 5, 299.5, 1234567.0, word_perplexity=1.5e130, bits_per_byte=2.5)
    assert zero_shot.line("text", variants.ROLLING, found) == (
        "text, rolling: loss 299.5000 nats a token, perplexity 1.23457e+06, word perplexity 1.5e+130, bits per byte"
        " 2.5000; 3 examples, 5 tokens")
    zero_shot._store(str(tmp_path), 7, "x", found)
    assert scalars_of(tmp_path) == {"x/loss": [(7, 299.5)], "x/perplexity": [(7, 1234567.0)],
                                    "x/bits_per_byte": [(7, 2.5)]}
    assert metrics_file.read(str(tmp_path))[0]["x/word_perplexity"] == 1.5e130


@pytest.fixture
def files(tmp_path):
    """The pairs of a config's "zero_shot"."""
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.v1.txt").write_text("def main():\n    pass\n")
    (tmp_path / "lambada.jsonl").write_text('{"text": "def main"}\n{"text": "import the json"}\n')
    return [["text", str(tmp_path / "a.txt")], ["lambada", str(tmp_path / "lambada.jsonl")],
            ["text", str(tmp_path / "b.v1.txt")]]


@pytest.mark.slow
def test_a_training_scores_the_tasks_of_its_config_at_each_evaluation(run_config, files, tmp_path, capsys):
    config = run_config(max_steps=8, zero_shot=files)
    assert main.main(["--model", config]) == 0
    out = capsys.readouterr().out
    entries = metrics_file.read(str(tmp_path / "run"))
    prefixes = ["zero_shot/text-a.txt/rolling", "zero_shot/lambada/lm-eval", "zero_shot/lambada/openai",
                "zero_shot/lambada/last-token", "zero_shot/text-b.v1.txt/rolling"]
    found = {(entry["step"], prefix): {name[len(prefix) + 1:]: value for name, value in entry.items()
                                       if name.startswith(prefix + "/")}
             for entry in entries for prefix in prefixes if f"{prefix}/loss" in entry}
    assert list(found) == [(step, prefix) for step in (4, 8) for prefix in prefixes]
    assert all("time" in entry for entry in entries) and loss_picture.has_loss(entries)
    assert found[4, prefixes[0]]["loss"] != found[8, prefixes[0]]["loss"]
    shown = scalars_of(tmp_path / "run")
    for (step, prefix), figures in found.items():
        for name in FIGURES:
            in_tensorboard = dict(shown.get(f"{prefix}/{name}", ()))
            assert in_tensorboard.get(step) == pytest.approx(figures[name], rel=1e-6)
    assert re.search(r"evaluation at step 4.*at step 4, text-a.txt, rolling: loss .*at step 4, lambada, openai: loss .*"
                     r"evaluation at step 8.*at step 8, text-b.v1.txt, rolling: loss", out, re.S)
    assert (tmp_path / "run" / "loss.png").exists()
    for pair, prefix in zip(files, ("zero_shot/text-a.txt/", "zero_shot/lambada/")):  # of step 8, by hand
        assert tool.main(["--model", config, "--task", pair[0], "--file", pair[1], "--json"]) == 0
        for one in map(json.loads, capsys.readouterr().out.splitlines()):
            for name in FIGURES:
                assert one[name] == pytest.approx(found[8, prefix + one["variant"]][name], rel=1e-6)


def test_an_evaluation_whose_tasks_a_signal_broke_off_is_missed_and_the_tasks_before_are_stored(
        run_config, files, tmp_path):
    config = schema.load(run_config(max_steps=1, warmup_steps=0, zero_shot=files, sample_prompts=["def"],
                                    sample_length=3))
    graphs.save_checkpoint(config, scale=0.1)
    encoder = bpe.load(config.encoder_path)
    evaluation = window_order.EvalWindows.of(config, shard_sets.read(config, encoder, shard_sets.EVAL))
    after = after_evaluation.make(config, encoder, None, evaluation, main.build_estimator)
    stop = types.SimpleNamespace(signal_number=None)

    def before_run(_):  # called before each batch of the tasks
        if any("zero_shot/text-a.txt/rolling/loss" in entry for entry in metrics_file.read(config.model_dir)):
            stop.signal_number = signal.SIGTERM
    stop.before_run = before_run
    with pytest.raises(hooks.Interrupted):
        after(tf.train.latest_checkpoint(config.model_dir), 1, 5.5, stop)
    assert endings.is_missed(config, 1) and not (tmp_path / "run" / "best").exists()
    stored = [name for entry in metrics_file.read(config.model_dir) for name in entry if name.endswith("/loss")]
    assert stored == ["zero_shot/text-a.txt/rolling/loss"]
    stop.before_run = lambda _: None
    stop.signal_number = None
    after(tf.train.latest_checkpoint(config.model_dir), 1, 5.5, stop)
    assert not endings.is_missed(config, 1) and best_checkpoint.evaluations(config.model_dir, 1) == (1, [])
    assert (tmp_path / "run" / samples.FILE).read_text().count("SAMPLE 0 AT STEP") == 1


@pytest.mark.slow
def test_a_signal_ends_the_tasks_of_a_step_and_the_training_goes_on_later(run_config, files, tmp_path, monkeypatch):
    class Stop(hooks.StopOnSignal):
        def before_run(self, run_context):
            super().before_run(run_context)
            if run_context is None:  # no hook of a session: between two batches of a task
                self.signal_number = signal.SIGTERM
    config = run_config(max_steps=8, zero_shot=files)
    with monkeypatch.context() as patch:
        patch.setattr(hooks, "StopOnSignal", Stop)
        assert main.main(["--model", config]) == 143
    assert not [entry for entry in metrics_file.read(str(tmp_path / "run")) if "zero_shot" in json.dumps(entry)]
    assert main.main(["--model", config]) == 0
    entries = metrics_file.read(str(tmp_path / "run"))
    for name in ("eval_loss", "zero_shot/text-a.txt/rolling/loss", "zero_shot/lambada/openai/loss"):
        assert [entry["step"] for entry in entries if name in entry] == [4, 8], name


@pytest.mark.slow
def test_tasks_change_nothing_in_a_training(run_config, files, tmp_path):
    from tests.helpers.runs import weights_of as weights_at
    for name, changes in (("with", {"zero_shot": files}), ("without", {})):
        main.main(["--model", run_config(max_steps=8, res_dropout=0.1, model_dir=str(tmp_path / name), **changes)])
    one, other = weights_at(tmp_path / "with", 8), weights_at(tmp_path / "without", 8)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_a_file_that_is_not_there_stops_a_training_before_its_first_step_and_the_plan_says_so(
        run_config, files, tmp_path, capsys):
    config = run_config(zero_shot=[*files, ["ptb", str(tmp_path / "none.txt")]])
    with pytest.raises(UserError, match="none.txt: cannot be read .*; give the path of a file for the .* task ptb"):
        main.main(["--model", config])
    assert not list((tmp_path / "run").glob("model.ckpt*"))
    assert main.main(["--model", config, "--plan"]) == 2
    assert "none.txt: cannot be read" in capsys.readouterr().out
    assert main.main(["--model", config, "--plan", "--set", "eval_steps=0"]) == 0  # that training would begin
    assert "none.txt" not in capsys.readouterr().out


def test_on_a_tpu_one_note_says_that_no_task_is_scored(run_config, files, capsys):
    config = schema.load(run_config(zero_shot=files))
    pod = tpu_names.Tpu("my-pod", None, None, ("a:1", "b:1"), None)
    encoder = bpe.load(config.encoder_path)
    zero_shot.writer(config, encoder, pod)("model.ckpt-4", None)
    assert capsys.readouterr() == ("", "note: no zero-shot tasks: they are scored on CPUs and GPUs, and this run is on"
                                       " --tpu my-pod; tools/zero_shot.py scores its checkpoints\n")
    zero_shot.writer(dataclasses.replace(config, zero_shot=None), encoder, pod)("model.ckpt-4", None)
    assert capsys.readouterr() == ("", "")


def test_tasks_without_evaluations_are_said_to_be_none(run_config, files, capsys):
    main.main(["--model", run_config(max_steps=2, eval_steps=0, zero_shot=files)])
    assert 'no evaluations and no zero-shot tasks: "eval_steps" is 0' in capsys.readouterr().out
