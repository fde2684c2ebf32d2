"""tools/zero_shot.py, as its user calls it."""
import json
import subprocess
import sys

import pytest

from configs import schema
from configs.errors import UserError
from datasets.zero_shot import tasks
from tests.helpers.runs import ROOT
from tools import zero_shot

ENDINGS = {"ctx_a": "a", "ctx_b": "b", "activity_label": "c", "endings": ["d", "e"], "label": 0}
KEYS = ["task", "variant", "examples", "tokens", "loss", "perplexity", "word_perplexity", "bits_per_byte", "accuracy",
        "accuracy_norm"]


def mistake(run, task, path, *options):
    """The error of a call, which is one line."""
    with pytest.raises(UserError) as caught:
        zero_shot.main(["--model", run, "--task", task, "--file", str(path), *options])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_config_and_the_tool_know_the_same_tasks():
    assert tuple(tasks.TASKS) == schema.ZERO_SHOT_TASKS


def test_it_runs_as_a_file_and_prints_an_object_for_each_variant(random_run, tmp_path):
    (tmp_path / "lambada.jsonl").write_text('{"text": "def main"}\n{"text": "import the json"}\n')
    found = subprocess.run([sys.executable, "tools/zero_shot.py", "--model", random_run, "--task", "lambada", "--file",
                            str(tmp_path / "lambada.jsonl"), "--json"], cwd=ROOT, check=True, capture_output=True)
    objects = [json.loads(line) for line in found.stdout.decode().splitlines()]
    assert [one["variant"] for one in objects] == ["lm-eval", "openai", "last-token"]
    assert all([*one] == KEYS and one["examples"] == 2 for one in objects)


def test_what_a_number_is_and_what_is_normal_stand_beside_it(random_run, tmp_path, capsys):
    (tmp_path / "wiki.test.raw").write_text(" = One = \n \n a wall . \n = Two = \n b c d \n")
    arguments = ["--model", random_run, "--task", "wikitext", "--file", str(tmp_path / "wiki.test.raw")]
    assert zero_shot.main(arguments) == 0
    out = capsys.readouterr().out
    assert "wikitext, lm-eval: loss " in out and "2 examples, " in out and "wikitext, openai: loss " in out
    assert "lm-eval is: lm-eval 0.4's wikitext: each page by itself" in out
    assert "normal is: 124M word perplexity 37.37" in out and "29.41, 22.76, 19.93, 18.34" in out
    assert zero_shot.main([*arguments, "--json", "--limit", "3"]) == 0
    limited = json.loads(capsys.readouterr().out.splitlines()[0])
    assert limited["examples"] == 1  # the first page is in the first three lines


def test_bfloat16_is_said_and_comes_near_float32(random_run, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("def main(argument):\n    return argument\n")
    arguments = ["--model", random_run, "--task", "text", "--file", str(tmp_path / "a.txt"), "--json"]
    losses = []
    for precision, said in (("float32", ""), ("bfloat16", 'note: the activations are bfloat16, as "precision" says;'
                                              " published numbers are those of float32\n")):
        assert zero_shot.main([*arguments, "--set", f"precision={precision}"]) == 0
        out, err = capsys.readouterr()
        assert err == said
        losses.append(json.loads(out)["loss"])
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("task, content, words", [
    ("text", "", "is empty; give a file for the zero-shot task text"),
    ("wikitext", " \n \n", "is empty"),
    ("text", b"\xff\xfe\xfd", "is not UTF-8 text"),
    ("lambada", '{"text": "a b"}\nno', "line 2: Expecting value"),
    ("lambada", '{"text": "a b"}\n\n{"txt": "a"}', 'line 3: "text" is missing'),
    ("lambada", '["a b"]', 'line 1: ["a b"] is no object'),
    ("lambada", '{"text": " "}', 'line 1: "text" is empty'),
    ("lambada", json.dumps({"text": "a " + "xyz" * 9}), 'line 1: what is scored has 28 tokens, and "n_ctx" is 16'),
    ("hellaswag", json.dumps({**ENDINGS, "label": 2}), '"label" is 2, but must be the number of an ending, 0 to 1'),
    ("hellaswag", json.dumps({**ENDINGS, "label": "-1"}), '"label" is "-1", but must be'),
    ("hellaswag", json.dumps({**ENDINGS, "label": True}), '"label" is true'),
    ("hellaswag", json.dumps({**ENDINGS, "endings": ["a"]}), '"endings" is ["a"], but must be a list of texts'),
    ("hellaswag", json.dumps({**ENDINGS, "ctx_b": None}), '"ctx_b" is null')])
def test_a_file_that_is_not_what_its_task_needs_is_one_line(random_run, tmp_path, task, content, words):
    path = tmp_path / "given"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = mistake(random_run, task, path)
    assert message.startswith(str(path)) and words in message


def test_options_that_do_not_fit_are_one_line(random_run, tmp_path):
    (tmp_path / "a.txt").write_text("\n\na b\n")
    (tmp_path / "a.jsonl").write_text('{"text": "a b"}\n')
    assert "--stride is of texts" in mistake(random_run, "lambada", tmp_path / "a.jsonl", "--stride", "4")
    assert '--stride 17 is more than "n_ctx" 16' in mistake(random_run, "text", tmp_path / "a.txt", "--stride", "17")
    assert "the first 2 lines of" in mistake(random_run, "text", tmp_path / "a.txt", "--limit", "2")
    assert "none.txt: cannot be read" in mistake(random_run, "text", tmp_path / "none.txt")
    assert "invalid choice: 'piqa'" in mistake(random_run, "piqa", tmp_path / "a.txt")


def test_a_run_without_a_checkpoint_is_one_line(run_config, tmp_path):
    (tmp_path / "a.txt").write_text("a b")
    assert "holds no checkpoint to evaluate; train first, or set" in mistake(run_config(), "text", tmp_path / "a.txt")
