"""configs/reading.py: what JSON from outside may hold, and what each other file is refused for."""
import json
import random

import pytest

from configs import reading
from configs.errors import UserError

FINITE = "but must be a finite number of 64 bits"
WRONG = [
    ("", "Expecting value"), ("{", "Expecting"), ("{}x", "Extra data"),
    ('{"a": 1, "a": 2}', '"a" is given twice (1, 2)'), ('[{"b": {"a": [1], "a": null}}]', '"a" is given twice ([1], '),
    ('{"a": NaN}', f'"a" is NaN, {FINITE}'), ('{"a": [3, -Infinity]}', f'"a" is -Infinity, {FINITE}'),
    ('{"a": {"b": 1e999}}', f'"b" is Infinity, {FINITE}'), ('{"a": -1e400}', f'"a" is -Infinity, {FINITE}'),
    ('{"a": 9223372036854775808}', f'"a" is 9223372036854775808, {FINITE}'), ("[1" + "0" * 400 + "]", "000..., but"),
    ("-" + "1" * 100_000, "holds -" + "1" * 59 + "..., but"), ("[" * 101 + "]" * 101, "is nested more than 100 deep"),
    ('{"a":' * 101 + "1" + "}" * 101, "is nested more than"), ("[" * 100_000 + "]" * 100_000, "is nested more than"),
    ("[" * 100_000, "is nested more than"), (b'"\xff"', "codec can't decode"), (b"\xff\xfe{\0", "codec can't decode")]


@pytest.mark.parametrize("text, words", WRONG)
def test_what_is_wrong_with_json_is_one_value_error(text, words):
    with pytest.raises(ValueError) as caught:
        reading.parse(text)
    assert words in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("text, words", [*WRONG, ("[1]", "holds [1], but must be one JSON object"),
                                         ("null", "holds null, but must be")])
def test_a_file_that_is_refused_is_one_line_that_names_it(tmp_path, text, words):
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        reading.read_object(str(path))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert words in str(caught.value) or any(other in str(caught.value)
                                             for other in ("is empty", "not JSON at line 1", "not UTF-8"))


@pytest.mark.parametrize("text, words", [
    ("", "is empty"), (" \n", "is empty"), ('{"a": 1', "the file ends there"),
    ('{"a": [1, 2]\n', "the file ends there"), ('{"a" 1}', "look there for a comma or quote")])
def test_a_file_of_json_that_is_empty_or_ends_too_early_is_told_as_that(tmp_path, text, words):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=words):
        reading.read_object(str(tmp_path / "x.json"))


def test_a_file_that_is_too_long_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST", 20)
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"é": "é" * 20}, ensure_ascii=False))  # the limit falls into a character
    with pytest.raises(UserError, match="x.json: is longer than 20 bytes; give the path of a JSON file"):
        reading.read_object(str(path))
    path.write_text('{"a": 1234567890123}')
    assert reading.read_object(str(path)) == {"a": 1234567890123}
    with pytest.raises(ValueError, match="longer than 20 bytes"):
        reading.parse("[" + " " * 20 + "]")


def test_what_is_right_is_read_as_python_reads_it():
    chance = random.Random(3)

    def value(depth):
        kind = chance.randrange(4 if depth else 3)
        if kind == 0:
            return chance.choice([None, True, False, "", "\ud800", "a\u00e9\U0001f600\0", '"\\'])
        if kind == 1:
            return chance.choice([0, -1, 2**63 - 1, -2**63, chance.randrange(10**9)])
        if kind == 2:
            return chance.choice([0.1, -1e308, 5e-324, chance.random()])
        inner = [value(depth - 1) for _ in range(chance.randrange(4))]
        return inner if chance.random() < 0.5 else {str(i) * i: one for i, one in enumerate(inner)}
    for _ in range(500):
        text = json.dumps(value(5), ensure_ascii=chance.random() < 0.5)
        assert reading.parse(text) == json.loads(text)
    assert reading.parse("[" * 100 + "]" * 100)
    assert reading.parse('{"é": 1}'.encode()) == {"é": 1}


@pytest.mark.parametrize("values, words", [
    ([], "[] is no object"), (None, "null is no object"), ({}, '"a" is missing'), ({"a": True}, '"a" is true'),
    ({"a": 1.0}, '"a" is 1.0'), ({"a": "1"}, '"a" is "1"'), ({"a": 1, "b": 1}, '"b" is 1')])
def test_a_value_of_another_kind_is_named(values, words):
    with pytest.raises(ValueError) as caught:
        reading.check_kinds(values, {"a": int, "b": (str, type(None))})
    assert str(caught.value) == words
    reading.check_kinds({"a": 1}, {"a": int, "b": (str, type(None))})


def test_an_override_that_is_json_but_may_not_be_is_named():
    for text, words in (('a={"b": 1, "b": 2}', '"b" is given twice'), ("a=[NaN]", FINITE),
                        ("a=" + "9" * 5000, FINITE), ("a=[[[" + "[" * 5000, "is nested more")):
        with pytest.raises(UserError) as caught:
            reading.parse_override(text)
        assert str(caught.value).startswith("--set a=") and words in str(caught.value)
        assert len(str(caught.value)) < 200
    assert reading.parse_override("a=b [") == {"a": "b ["}
