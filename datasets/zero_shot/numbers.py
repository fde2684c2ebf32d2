"""From the scores of sequences to the numbers of an evaluation: perplexities, bits per byte, accuracies."""
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

LARGEST = math.log(1e300)  # of which a perplexity is still a number


class Score(NamedTuple):
    """What the network makes of the targets of one Sequence, arrays [scored]."""
    losses: np.ndarray  # float64, nats
    likeliest: np.ndarray  # bool: the target is the likeliest of all tokens
    likeliest_allowed: np.ndarray  # bool: the target is the likeliest of those that the task allows


class Numbers(NamedTuple):
    """The numbers of one variant of a task; None: it has none, or it is beyond 1e300."""
    examples: int
    tokens: int  # that were scored
    loss: float  # nats a token
    perplexity: float | None  # of a token
    word_perplexity: float | None = None
    bits_per_byte: float | None = None
    accuracy: float | None = None
    accuracy_norm: float | None = None  # by length


def of_texts(scores, examples, words, size):
    """The Numbers of texts that have so many words and bytes, scored whole."""
    numbers = _of_losses(scores, examples)
    total = numbers.loss * numbers.tokens
    return numbers._replace(word_perplexity=perplexity(total / words), bits_per_byte=total / math.log(2) / size)


def of_words(scores, is_right):
    """The Numbers of a word behind each context; is_right(Score) says whether it counts as predicted."""
    numbers = _of_losses(scores, len(scores))
    return numbers._replace(word_perplexity=perplexity(numbers.loss * numbers.tokens / len(scores)),
                            accuracy=float(np.mean([is_right(score) for score in scores])))


def of_choices(scores, labels, lengths):
    """The Numbers of choices, one of which is right in each example: the one of the lowest loss counts as chosen.

    `scores` holds the choices of all examples one after the other, `labels` the number of the right one in each
    example, `lengths` the lengths of the choices of each example, by which the accuracy by length divides the losses.
    Loss and tokens are those of the right choices.
    """
    right, hits, hits_by_length, place = [], [], [], 0
    for label, length in zip(labels, lengths):
        choices = scores[place:place + len(length)]
        place += len(length)
        sums = np.array([choice.losses.sum() for choice in choices])
        right.append(choices[label])
        hits.append(sums.argmin() == label)
        hits_by_length.append((sums / np.array(length)).argmin() == label)
    return _of_losses(right, len(labels))._replace(accuracy=float(np.mean(hits)),
                                                   accuracy_norm=float(np.mean(hits_by_length)))


def _of_losses(scores, examples):
    tokens = sum(len(score.losses) for score in scores)
    loss = math.fsum(score.losses.sum() for score in scores) / tokens
    return Numbers(examples, tokens, loss, perplexity(loss))


def perplexity(loss):
    """Returns exp(loss), or None beyond 1e300: JSON has no infinity."""
    return math.exp(loss) if loss < LARGEST else None
