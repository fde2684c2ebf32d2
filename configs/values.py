"""Checks one config value: what is allowed, in words, and the value as the Config stores it."""
import operator
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from configs import storage

MOST = 2**31 - 1  # what TensorFlow's int32 holds


class Kind(NamedTuple):
    allowed: str  # completes "must be ..." in an error, and a column of docs/config.md
    accept: Callable  # value from JSON -> value as stored; ValueError when it is not allowed


def integer(low, high=None):
    """An int in [low, high], at most MOST; a float without a fraction counts (1e5), a bool does not."""
    def accept(value):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return _checked(value, type(value) is int and low <= value <= (MOST if high is None else high))
    return Kind(f"an integer >= {low}" if high is None else f"an integer from {low} to {high}", accept)


def number(*, above=None, low=None, below=None, high=None):
    """A finite float within the bounds given: `above` and `below` are outside the range, `low` and `high` inside."""
    bounds = [(sign, holds, bound) for sign, holds, bound in (
        (">", operator.gt, above), (">=", operator.ge, low), ("<", operator.lt, below), ("<=", operator.le, high))
        if bound is not None]

    def accept(value):
        finite = type(value) in (int, float) and abs(value) <= sys.float_info.max
        return float(_checked(value, finite and all(holds(value, bound) for _, holds, bound in bounds)))
    return Kind("a number " + " and ".join(f"{sign} {bound:g}" for sign, _, bound in bounds), accept)


def one_of(*choices):
    """One of these texts."""
    return Kind(" or ".join(f'"{choice}"' for choice in choices),
                lambda value: _checked(value, isinstance(value, str) and value in choices))


def optional(kind):
    """`kind`, or null."""
    return Kind(kind.allowed + " or null", lambda value: None if value is None else kind.accept(value))


def task_files(*tasks):
    """A list of [task, path], each of these tasks -> ((task, path) ...)."""
    def accept(value):
        pairs = _checked(value, isinstance(value, (list, tuple)))
        _checked(pairs, all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs))
        return tuple((one_of(*tasks).accept(task), _path(path)) for task, path in pairs)
    return Kind(f"a list of [task, file], where tasks are {', '.join(tasks)},", accept)


def _text(value):
    return _checked(value, isinstance(value, str) and "\0" not in value)


def _path(value):
    return os.path.expanduser(_checked(value, _text(value).strip()))


def _checkpoint_path(value):
    path = _path(value)
    return _checked(path, not set(path) & set(storage.WILDCARDS))


def _texts(value):
    return tuple(_text(text) for text in _checked(value, isinstance(value, (list, tuple))))


def _files(value):
    """'a' -> 'a'; ['a', 'b'] -> ('a', 'b'); [['a', 2], ['b', 1]] -> (('a', 2.0), ('b', 1.0)).

    The three are not the same: a list of globs is one corpus read once per epoch, weights make a mixture.
    """
    if isinstance(value, str):
        return _path(value)
    entries = _checked(value, isinstance(value, (list, tuple)) and value)
    weighted = [isinstance(entry, (list, tuple)) for entry in entries]
    if not any(weighted):
        return tuple(_path(entry) for entry in entries)
    _checked(entries, all(weighted) and all(len(entry) == 2 for entry in entries))
    return tuple((_path(pattern), number(above=0).accept(share)) for pattern, share in entries)


def _checked(value, allowed):
    if not allowed:
        raise ValueError
    return value


BOOLEAN = Kind("true or false", lambda value: _checked(value, isinstance(value, bool)))
FOLDER = Kind("a string", lambda value: os.path.expanduser(_text(value)))
PATH = Kind("a string that is not empty", _path)
CHECKPOINT_PATH = Kind(f"a string that is not empty, without {' '.join(f'`{sign}`' for sign in storage.WILDCARDS)},"
                       " which TensorFlow takes for wildcards there", _checkpoint_path)
TEXTS = Kind("a list of strings", _texts)
FILES = Kind("a glob, a list of globs, or a list of [glob, weight > 0]", _files)
