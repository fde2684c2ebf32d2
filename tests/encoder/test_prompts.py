"""Prompts and their options from files, and every mistake in them."""
import gzip
import json
import os
import re

import pytest

from configs import generation
from configs.errors import UserError
from datasets import cleaning
from encoder import prompts
from tests.helpers.runs import ROOT


def write(tmp_path, *lines, name="prompts.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return str(path)


def test_lines_are_prompts_in_order_with_their_own_options_before_the_given_ones(tmp_path):
    path = write(tmp_path, "\ufeff" + json.dumps({"prompt": "one"}), "", {
        "prompt": "two é", "temperature": 0, "top_k": 3, "top_p": 0.5, "length": 7, "seed": 4, "num_samples": 2,
        "stop": ["\n", "b", "\n"], "repetition_penalty": 1.5}, {"prompt": "", "stop": "x", "length": 1})
    one, two, three = prompts.read(path, {"length": 9, "stop": ("y",)})
    assert one == ("one", 9, 1, 1.0, 40, 1.0, 1.0, None, ("y",), f"{path}, line 1")
    assert two == ("two é", 7, 2, 0.0, 3, 0.5, 1.5, 4, ("\n", "b"), f"{path}, line 3")
    assert isinstance(two.temperature, float)
    assert (three.text, three.length, three.stop) == ("", 1, ("x",))


def test_any_other_file_is_one_prompt(tmp_path):
    path = write(tmp_path, {"prompt": "a"}, "b", name="prompt.txt")
    assert prompts.read(path, {"seed": 3}) == [prompts.make('{"prompt": "a"}\nb\n', {"seed": 3, "where": path})]


@pytest.mark.parametrize("line, words", [
    ("{", "line 2: no valid JSON"), ('["a"]', 'line 2: holds ["a"], but must be an object with a text in "prompt"'),
    ('{"text": "a"}', 'must be an object with a text in "prompt"'), ('{"prompt": 3}', 'a text in "prompt"'),
    ('{"prompt": "a", "top_k": -1}', '"top_k" is -1, but must be an integer from 0 to'),
    ('{"prompt": "a", "top_k": 1.5}', '"top_k" is 1.5, but must be an integer'),
    ('{"prompt": "a", "top_p": true}', '"top_p" is true, but must be a number from 0 to 1'),
    ('{"prompt": "a", "temperature": NaN}', '"temperature" is NaN'),
    ('{"prompt": "a", "temperature": Infinity}', '"temperature" is Infinity'),
    ('{"prompt": "a", "repetition_penalty": 0}', '"repetition_penalty" is 0, but must be a number from 0.01 to 100'),
    ('{"prompt": "a", "stop": ""}', '"stop" is "", but must be a text that is not empty, or a list'),
    ('{"prompt": "a", "stop": [3]}', '"stop" is [3]'), ('{"prompt": "a", "prompt": "b"}', '"prompt" is given twice'),
    ('{"prompt": "a", "topk": 3}', 'unknown option "topk"; did you mean "top_k"?'),
    ('{"prompt": "a", "model_dir": 3}', 'unknown option "model_dir"; known are prompt, stop, length')])
def test_a_wrong_line_is_named_with_its_number(tmp_path, line, words):
    path = write(tmp_path, {"prompt": "a"}, line)
    with pytest.raises(UserError) as caught:
        prompts.read(path, {})
    assert str(caught.value).startswith(path + ", line 2: ") and words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_prompts_and_stop_texts_get_the_line_ends_and_the_form_of_the_documents(tmp_path):
    for text in ("Cafe\u0301\r\n“x²” ﬁ &amp; ｆ\r", "a\ud83d\ude00\r\n"):
        prompt = prompts.make(text, {"stop": (text,)})
        assert prompt.text == prompt.stop[0] == cleaning.repair(text) != text
    path = tmp_path / "prompt.txt"
    path.write_bytes("Cafe\u0301\r\n".encode())
    assert prompts.read(str(path), {})[0].text == "Café\n"
    for data in ("\ufeff\ufeffCafé".encode(), "Café".encode("utf-16")):
        path.write_bytes(data)
        assert prompts.read(str(path), {})[0].text == "Café"
    for data in ("Café".encode("cp1252"), gzip.compress(b"text"), "plain".encode("utf-16-le")):
        path.write_bytes(data)
        with pytest.raises(UserError, match="prompt.txt: is not UTF-8 text, or UTF-16 with a byte order mark;"):
            prompts.read(str(path), {})


def test_marks_of_byte_order_at_the_start_of_a_prompt_are_dropped_as_those_of_documents_are(tmp_path):
    assert prompts.make("\ufeffOnce", {}).text == "Once"
    assert prompts.make(" \ufeff\r\na\ufeffb", {}).text == " \na\ufeffb"
    path = write(tmp_path, {"prompt": "\n\ufeff\ufeffOnce"})
    assert [prompt.text for prompt in prompts.read(path, {})] == ["\nOnce"]


def test_a_file_without_prompts_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="prompts.jsonl is empty; write a line"):
        prompts.read(write(tmp_path, ""), {})


def test_table_of_the_docs_has_every_option_and_its_default():
    with open(os.path.join(ROOT, "docs", "generating.md")) as f:
        table = dict(re.findall(r"^\| `--(\w+)[^`]*` \| ([^|]*) \|", f.read(), re.M))
    for name, option in generation.OPTIONS.items():
        assert table[name] == ("another each time" if option.default is None else f"{option.default:g}"), name
