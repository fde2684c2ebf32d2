"""Checks one config value: what is allowed, in words, and the value as the Config stores it."""
import math
from collections.abc import Callable
from typing import NamedTuple

MOST = 2**31 - 1  # what TensorFlow's int32 holds


class Kind(NamedTuple):
    allowed: str  # completes "must be ..." in an error, and a column of docs/config.md
    accept: Callable  # value from JSON -> value as stored; ValueError when it is not allowed


def integer(low, high=None):
    """An int in [low, high], at most MOST; a float without a fraction counts (1e5), a bool does not."""
    def accept(value):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        _require(isinstance(value, int) and not isinstance(value, bool))
        _require(low <= value <= (MOST if high is None else high))
        return value
    return Kind(f"an integer >= {low}" if high is None else f"an integer from {low} to {high}", accept)


def number(*, above=None, low=None, below=None, high=None):
    """A finite float within the bounds given: `above` and `below` are outside the range, `low` and `high` inside."""
    def accept(value):
        _require(isinstance(value, (int, float)) and not isinstance(value, bool))
        value = _finite(value)
        _require((above is None or value > above) and (low is None or value >= low))
        _require((below is None or value < below) and (high is None or value <= high))
        return value
    bounds = [(">", above), (">=", low), ("<", below), ("<=", high)]
    return Kind("a number " + " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None), accept)


def one_of(*choices):
    def accept(value):
        _require(isinstance(value, str) and value in choices)
        return value
    return Kind(" or ".join(f'"{choice}"' for choice in choices), accept)


def optional(kind):
    """`kind`, or null."""
    return Kind(kind.allowed + " or null", lambda value: None if value is None else kind.accept(value))


def _boolean(value):
    _require(isinstance(value, bool))
    return value


def _text(value):
    _require(isinstance(value, str) and "\0" not in value)
    return value


def _path(value):
    _require(_text(value).strip())
    return value


def _files(value):
    """'a' -> 'a'; ['a', 'b'] -> ('a', 'b'); [['a', 2], ['b', 1]] -> (('a', 2.0), ('b', 1.0)).

    The three are not the same: a list of globs is one corpus read once per epoch, weights make a mixture.
    """
    if isinstance(value, str):
        return _path(value)
    _require(isinstance(value, (list, tuple)) and value)
    weighted = [isinstance(entry, (list, tuple)) for entry in value]
    if not any(weighted):
        return tuple(_path(entry) for entry in value)
    _require(all(weighted) and all(len(entry) == 2 for entry in value))
    weight = number(above=0)
    return tuple((_path(pattern), weight.accept(share)) for pattern, share in value)


def _finite(value):
    try:
        value = float(value)
    except OverflowError:
        raise ValueError from None
    _require(math.isfinite(value))
    return value


def _require(fact):
    if not fact:
        raise ValueError


BOOLEAN = Kind("true or false", _boolean)
TEXT = Kind("a string", _text)
PATH = Kind("a string that is not empty", _path)
FILES = Kind("a glob, a list of globs, or a list of [glob, weight > 0]", _files)
