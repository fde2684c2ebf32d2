"""Random changes to bytes and JSON, each from a random.Random that replays them."""
from __future__ import annotations

import copy
import json

NASTY = (None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**19, 10**400, 0.5, -0.0, 1e308, float("inf"), float("-inf"),
         float("nan"), "", " ", "x", "a" * 5000, "\ud800", "\0", "../x", "x\ny", "[x]*?", "~", [], [[]], {}, [1, "x"],
         {"a": {}}, [None] * 3, "1", ["ab"], 3.0)
ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1251", "gbk", "shift_jis")


def text_of(draw, most=40):
    """A str of up to `most` characters, of many scripts, with controls and now and then a lone surrogate."""
    alphabets = ("abc XYZ019", "äöüßéèñ", "абвгд", "你好世界", "あいう", "\t\n\r ", "\0\x1b\x7f\u2028\u200b\ufeff",
                 "😀👍", "\ud800\udfff", "&amp;<>\"'\\/{}[]", "½⁶ﬁＡ１！", "<|endoftext|>")
    return "".join(draw.choice(draw.choice(alphabets[:draw.choice((1, 4, 8, 12))]))
                   for _ in range(draw.randrange(most)))


def changed_bytes(draw, data):
    """bytes, changed in one to three places, or cut off, or something else."""
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        place, other = (draw.randrange(len(data) + 1) for _ in range(2))
        start, stop = sorted((place, min(other, place + 64)))
        how = draw.randrange(9)
        if how == 0:
            del data[place:]
        elif how == 1:
            del data[start:stop]
        elif how == 2:
            data[place:place] = draw.randbytes(draw.randrange(1, 20))
        elif how == 3:
            data[place:place] = data[start:stop]
        elif how == 4:
            data[start:stop] = bytes(stop - start)
        elif how == 5 and draw.random() < 0.2:
            data = bytearray(draw.choice((b"", b"\0", b"{", b"[" * 100_000, b"\xff\xfe", draw.randbytes(100))))
        elif data:
            data[min(place, len(data) - 1)] ^= 1 << draw.randrange(8)
    return bytes(data)


def _places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*path, key))


def changed_value(draw, value, keys=()):
    """JSON `value` with other values, without some keys or with more of them; `keys`: names that mean something."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        path = draw.choice(list(_places(value)))
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        replacement = copy.deepcopy(draw.choice(NASTY))
        if not path:
            if isinstance(value, dict) and draw.random() < 0.9:
                value[draw.choice((*keys, "x", "", *value)) if keys or value else "x"] = replacement
            else:
                value = replacement
        elif draw.random() < 0.2:
            del inner[path[-1]]
        else:
            inner[path[-1]] = replacement
    return value


def as_json(draw, value):
    """The value as the bytes of JSON, written in one of several ways."""
    text = json.dumps(value, indent=draw.choice((None, None, 1)), ensure_ascii=draw.random() < 0.7)
    return text.encode("utf-8", "surrogatepass")


def changed_json(draw, value, keys=()):
    """bytes: the JSON of a changed value, or changed JSON, or JSON with a key twice, or in another encoding."""
    how = draw.random()
    if how < 0.7:
        return as_json(draw, changed_value(draw, value, keys))
    data = as_json(draw, value)
    if how < 0.85:
        return changed_bytes(draw, data)
    if how < 0.9:
        return data.decode().encode(draw.choice(ENCODINGS), "replace")
    if how < 0.95 and isinstance(value, dict) and value:
        key = draw.choice(list(value))
        return data[:-1] + b"," + json.dumps(key).encode() + b":" + as_json(draw, draw.choice(NASTY)) + b"}"
    number = draw.choice((b"1" * 5000, b"1e999", b"-0", b"0x1", b"NaN", b"1E400", b"[" * 5000 + b"]" * 5000))
    return data.replace(draw.choice((b"0", b"1", b"2", b"3")), number, 1)
