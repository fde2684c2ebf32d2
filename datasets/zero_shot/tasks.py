"""The tasks of zero-shot evaluation: from a file to what is scored, and which numbers are made of the scores."""
from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from configs import errors, reading
from configs.errors import UserError
from datasets.zero_shot import numbers, sequences, texts, variants


class Part(NamedTuple):
    """Sequences that are scored once, for one or several variants."""
    sequences: list
    variants: list  # of (variants.Variant, function from the list of Scores to numbers.Numbers)
    not_allowed: np.ndarray = np.zeros(0, np.int32)  # ids that are left out in Score.likeliest_allowed


class Given(NamedTuple):
    """What a task is made of."""
    encoder: object  # bpe.Encoder
    n_ctx: int
    stride: int | None = None  # tokens that a window scores; None: n_ctx
    limit: int | None = None  # lines of the file that are read; None: all

    def rolling(self, text):
        return sequences.rolling(self.encoder, text, self.n_ctx, self.stride or self.n_ctx)


def read(task, path, given):
    """List of the Parts of a task, from its file, local or gs://.  Raises UserError."""
    if given.stride and TASKS[task] not in OF_TEXTS:
        raise UserError(f"--stride is of texts that are scored whole; leave it out with --task {task}")
    if given.stride and given.stride > given.n_ctx:
        raise UserError(f'--stride {given.stride} is more than "n_ctx" {given.n_ctx}; give at most that')
    text = reading.read_text(path, f"a file for the zero-shot task {task}")
    if not text.strip():
        raise UserError(f"{path} is empty; give a file for the zero-shot task {task}")
    return TASKS[task](path, text, given)


def read_all(config, encoder):
    """[(label, list of Parts)] of the config's "zero_shot".  Raises UserError."""
    pairs = config.zero_shot or ()
    return [(label, read(task, path, Given(encoder, config.n_ctx)))
            for label, (task, path) in zip(labels(pairs), pairs)]


def labels(pairs):
    """What each (task, path) is called: by its task, or where that comes twice with the file's name, or with the path.

    Raises UserError where two would be called the same.
    """
    found = []
    for task, path in pairs:
        names = [_name(other) for name, other in pairs if name == task]
        called = f"{task}-{_name(path) if names.count(_name(path)) == 1 else path}" if len(names) > 1 else task
        # tf.summary replaces all other characters in a tag, but for the slash, which parts label, variant and figure.
        found.append(re.sub(r"[^-\w.]", "_", called))
    for (task, path), label in zip(pairs, found):
        if found.count(label) > 1:
            raise UserError(f'"zero_shot" {reading.shown([task, path])}: another task would be called {label}, too;'
                            " give each file once, and names that differ in letters or digits")
    return found


def _name(path):
    return path.rpartition("/")[2]


def _text(path, text, given):
    text = _first_lines(path, text, given.limit)
    return [_whole(path, given, variants.ROLLING, [text], len(text.split()), len(text.encode()))]


def _wikitext(path, text, given):
    text = _first_lines(path, text, given.limit)
    pages = texts.wikitext_pages(text)
    words = sum(len(re.split(r"\s+", page)) for page in pages)
    return [_whole(path, given, variants.WIKITEXT_LM_EVAL, list(map(texts.lm_eval_wikitext, pages)), words,
                   sum(len(page.encode()) for page in pages)),
            _detokenised(path, given, variants.WIKITEXT_OPENAI, text, texts.plain_wikitext)]


def _ptb(path, text, given):
    return [_detokenised(path, given, variants.PTB_OPENAI, _first_lines(path, text, given.limit), texts.plain_ptb)]


def _detokenised(path, given, variant, text, plain):
    """Makes the Part that scores plain(text).  It counts the words and line ends of the text as it was before."""
    return _whole(path, given, variant, [plain(text)], len(text.split()) + text.count("\n"), len(text.encode()))


def _whole(path, given, variant, parts, words, size):
    """Makes the Part that scores each text in `parts` by itself.  All together have `words` words and `size` bytes."""
    with errors.about(path):
        scored = [sequence for part in parts for sequence in given.rolling(part)]
    return Part(scored, [(variant, functools.partial(numbers.of_texts, examples=len(parts), words=words, size=size))])


def _lambada(path, text, given):
    def last_word(values):
        reading.check_kinds(values, {"text": str})
        context, _, word = values["text"].rstrip().rpartition(" ")
        if not word:
            raise ValueError('"text" is empty')
        return sequences.continuation(given.encoder, context, " " + word, given.n_ctx)
    scored = _of_lines(path, text, given, last_word)
    return [Part(scored, [
        (variants.LAMBADA_LM_EVAL, _words(lambda score: score.likeliest.all())),
        (variants.LAMBADA_OPENAI, _words(lambda score: score.likeliest_allowed[0] and score.likeliest[1:].all())),
        (variants.LAMBADA_LAST_TOKEN, _words(lambda score: score.likeliest[-1]))], _stop_tokens(given.encoder))]


def _words(is_right):
    return functools.partial(numbers.of_words, is_right=is_right)


def _stop_tokens(encoder):
    """int32 ids of the tokens that are a space and a stop word, in small letters or not."""
    stop_words = texts.STOP_WORDS.split()
    known = ((number, encoder.decode([number])) for number in range(encoder.size))
    return np.array([number for number, token in known
                     if token.startswith(" ") and token[1:].lower() in stop_words], np.int32)


class Choices(NamedTuple):
    """An example of HellaSwag."""
    context: str
    endings: list
    label: int


def _hellaswag(path, text, given):
    return [_choices(path, text, given, variants.HELLASWAG_LLM_C, _plain_choices, sequences.joined, by_tokens=True),
            _choices(path, text, given, variants.HELLASWAG_LM_EVAL, _lm_eval_choices, sequences.continuation,
                     by_tokens=False)]


def _choices(path, text, given, variant, made, sequence, *, by_tokens):
    """Makes the Part of a variant of HellaSwag.  `made` makes the Choices of a line, `sequence` scores an ending."""
    def example(values):
        _check_choices(values)
        choices = made(values)
        return choices, [sequence(given.encoder, choices.context, " " + ending, given.n_ctx)
                         for ending in choices.endings]
    examples = _of_lines(path, text, given, example)
    lengths = [[one.scored for one in scored] if by_tokens else [max(1, len(ending)) for ending in choices.endings]
               for choices, scored in examples]
    numbered = functools.partial(numbers.of_choices, labels=[choices.label for choices, _ in examples], lengths=lengths)
    return Part([one for _, scored in examples for one in scored], [(variant, numbered)])


def _check_choices(values):
    """Raises ValueError where a line is no example of HellaSwag."""
    reading.check_kinds(values, {"ctx_a": str, "ctx_b": str, "ctx": (str, type(None)), "activity_label": str,
                                 "endings": list, "label": (int, str)})
    endings, label = values["endings"], str(values["label"])
    if len(endings) < 2 or not all(isinstance(ending, str) for ending in endings):
        raise ValueError(f'"endings" is {reading.shown(endings)}, but must be a list of texts, at least 2')
    if not re.fullmatch("[0-9]{1,9}", label) or int(label) >= len(endings):
        raise ValueError(f'"label" is {reading.shown(values["label"])}, but must be the number of an ending, 0 to'
                         f" {len(endings) - 1}")


def _plain_choices(values):
    context = values.get("ctx")
    context = f'{values["ctx_a"]} {values["ctx_b"]}'.rstrip() if context is None else context
    return Choices(context, values["endings"], int(values["label"]))


def _lm_eval_choices(values):
    context = f'{values["activity_label"]}: {values["ctx_a"]} {values["ctx_b"].capitalize()}'
    return Choices(texts.lm_eval_hellaswag(context), list(map(texts.lm_eval_hellaswag, values["endings"])),
                   int(values["label"]))


def _of_lines(path, text, given, example):
    """Returns [example(object)] for all lines of JSON.  Raises UserError where `example` raises ValueError."""
    found = []
    for number, line in enumerate(_first_lines(path, text, given.limit).split("\n"), 1):
        if line.strip():
            try:
                with errors.about(f"{path}, line {number}"):
                    found.append(example(reading.parse(line)))
            except ValueError as error:
                raise UserError(f"{path}, line {number}: {error}; docs/evaluation.md says what a line must hold")
    return found


def _first_lines(path, text, limit):
    """Returns the first `limit` lines of a text, or all if it has fewer.  Raises UserError if they are empty."""
    lines = text.split("\n")
    count = len(lines) - (not lines[-1])
    if limit is None or limit >= count:
        return text
    if not any(map(str.strip, lines[:limit])):
        raise UserError(f"--limit {limit}: the first {limit} lines of {path} are empty; raise it or leave it out")
    return "\n".join(lines[:limit]) + "\n"


OF_TEXTS = (_text, _wikitext, _ptb)
TASKS: dict[str, Callable] = {"text": _text, "wikitext": _wikitext, "ptb": _ptb, "lambada": _lambada,
                              "hellaswag": _hellaswag}
