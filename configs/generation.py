"""The options of generation: each one's default, its range and its meaning."""
from __future__ import annotations

from typing import NamedTuple

from configs import reading
from configs.errors import UserError


class Option(NamedTuple):
    """One number; `high` is the largest allowed one."""
    kind: type
    default: float | None
    low: float
    high: float
    meaning: str


OPTIONS = {
    "length": Option(int, 256, 1, 10**6, "tokens to generate"),
    "num_samples": Option(int, 1, 1, 10**6, "texts to generate"),
    "temperature": Option(float, 1.0, 0, 10**6, "below 1: safer; above: wilder; 0: always the likeliest"),
    "top_k": Option(int, 40, 0, 10**9, "draw from the K likeliest tokens only; 0: from all"),
    "top_p": Option(float, 1.0, 0, 1, "draw from the likeliest tokens that together have probability P"),
    "repetition_penalty": Option(float, 1.0, 0.01, 100, "above 1: tokens that the text holds become less likely, the"
                                 " prompt's included"),
    "seed": Option(int, None, 0, 2**31 - 1, "the same seed gives the same text; none: another each time"),
}


def check(name, value, where):
    """`value` as the option `name` holds it.  Raises UserError; `where` begins the message."""
    if name == "stop":
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) and text for text in texts):
            raise UserError(f"{where} is {reading.shown(value)}, but must be a text that is not empty, or a list")
        return tuple(texts)
    option = OPTIONS[name]
    number = type(value) is int or (type(value) is float and option.kind is float)
    if not number or not option.low <= value <= option.high:
        kind = "an integer" if option.kind is int else "a number"
        raise UserError(f"{where} is {reading.shown(value)}, but must be {kind} from {option.low} to {option.high}")
    return option.kind(value)
