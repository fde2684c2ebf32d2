"""Ends a text at a stop text: token by token in Python, and by a table of the same rule in the graph.

Tokens are pieces of UTF-8, which need not end where a character or a stop text does.
"""
import codecs

import numpy as np

from configs.constants import STOPPED
from configs.errors import UserError

NEVER = 1  # state of the table in which there is nothing to stop at
LONGEST = 1000  # bytes of all stop texts together: the table has one row of the vocabulary's size for each


class Text:
    """The text of one sample.  What may be part of a character or of a stop text is held back until it is known."""

    def __init__(self, encoder, stops=()):
        self._encoder, self._stops = encoder, stops
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def add(self, token):
        """The str that is certain since the last token; `stopped` tells whether a stop text is complete."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(self._encoder.decode_bytes([token]))
        starts = [self._held.find(stop) for stop in self._stops if stop in self._held]
        if starts:
            self.stopped = True
            return self._held[:min(starts)]
        certain = len(self._held) - max([_overlap(self._held, stop) for stop in self._stops], default=0)
        text, self._held = self._held[:certain], self._held[certain:]
        return text

    def end(self):
        """What is left when no token follows; half a character is dropped."""
        text, self._held = "" if self.stopped else self._held, ""
        return text


def automaton(encoder, stop_sets):
    """(int32 [Q, V], the first state of each set): the state after each of the V tokens of the vocabulary.

    `stop_sets` is a list of tuples of str.  Raises UserError where the texts are too long for a table.
    """
    if sum(len(stop.encode()) for stops in set(stop_sets) for stop in stops) > LONGEST:
        raise UserError(f"the stop texts have more than {LONGEST} bytes together; give shorter or fewer ones")
    byte_rows, first = [np.full([1, 256], STOPPED), np.full([1, 256], NEVER)], {(): NEVER}
    for stops in stop_sets:
        if stops not in first:
            first[stops] = sum(map(len, byte_rows))
            byte_rows.append(_byte_automaton([stop.encode() for stop in stops], first[stops]))
    after_byte = np.concatenate(byte_rows).astype(np.int32)  # [Q, 256]
    tokens = [encoder.decode_bytes([token]) for token in range(encoder.size)]
    states = np.tile(np.arange(len(after_byte), dtype=np.int32)[:, None], [1, len(tokens)])  # [Q, V]
    for place in range(max(map(len, tokens))):
        longer = np.array([i for i, token in enumerate(tokens) if len(token) > place])
        byte = np.array([tokens[i][place] for i in longer])
        states[:, longer] = after_byte[states[:, longer], byte]
    return states, [first[stops] for stops in stop_sets]


def _byte_automaton(texts, offset):
    """int [n, 256], the state after a byte, states counted from `offset`; the first is the beginning.

    Aho and Corasick 1975, https://doi.org/10.1145/360825.360855.
    """
    beginnings = sorted({text[:n] for text in texts for n in range(len(text) + 1)}, key=lambda text: (len(text), text))
    number = {beginning: node for node, beginning in enumerate(beginnings)}
    complete = [beginning in texts for beginning in beginnings]
    after, shorter = np.zeros([len(beginnings), 256], int), [0] * len(beginnings)
    for node, beginning in enumerate(beginnings):  # `shorter`: the longest other beginning that this one ends with
        after[node] = after[shorter[node]]
        complete[node] = complete[node] or complete[shorter[node]]
        for byte in range(256):
            if child := number.get(beginning + bytes([byte])):
                shorter[child], after[node, byte] = after[node, byte], child
    return np.where(np.array(complete)[after], STOPPED, after + offset)


def _overlap(text, stop):
    """Length of the longest end of `text` that `stop` begins with."""
    return max((n for n in range(1, min(len(text), len(stop)) + 1) if text.endswith(stop[:n])), default=0)
