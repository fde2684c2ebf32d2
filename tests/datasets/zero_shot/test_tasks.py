"""datasets/zero_shot/tasks.py: labels, how many lines of a file count, and what messages name."""
import json

import pytest

from configs.errors import UserError
from datasets.zero_shot import tasks
from encoder import bpe

CHOICES = {"ctx_a": "a", "ctx_b": "b", "activity_label": "c", "endings": ["d", "é"], "label": 0}


@pytest.mark.parametrize("task, content, where", [
    ("text", "a\né\n", ""), ("wikitext", "a\né\n", ""), ("ptb", "a\né\n", ""),
    ("lambada", '{"text": "a b"}\n\n{"text": "a é"}\n', ", line 3"), ("hellaswag", json.dumps(CHOICES), ", line 1")])
def test_a_character_that_the_vocabulary_lacks_is_named_with_its_place(tmp_path, task, content, where):
    symbols = bpe.byte_symbols()
    bpe.write(str(tmp_path), [], [symbols[byte] for byte in range(128)])
    path = tmp_path / "given"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        tasks.read(task, str(path), tasks.Given(bpe.load(str(tmp_path)), 16))
    assert str(caught.value).startswith(f"{path}{where}: the vocabulary has no token for the character 'é': use one")


@pytest.mark.parametrize("pairs, labels", [
    ([("text", "a/held out.txt"), ("ptb", "a/held out.txt")], ["text", "ptb"]),
    ([("wikitext", "wiki.test.raw"), ("wikitext", "wiki.valid.raw")],
     ["wikitext-wiki.test.raw", "wikitext-wiki.valid.raw"]),
    ([("text", "a/held out.txt"), ("ptb", "x"), ("text", "gs://b/held out.txt"), ("text", "c/an other.txt")],
     ["text-a_held_out.txt", "ptb", "text-gs___b_held_out.txt", "text-an_other.txt"])])
def test_a_task_that_comes_twice_is_called_by_its_file_and_files_of_one_name_by_their_paths(pairs, labels):
    assert tasks.labels(pairs) == labels


@pytest.mark.parametrize("paths", [("a/b.txt", "a/b.txt"), ("a b.txt", "a_b.txt"), ("a/b.txt", "c/b.txt", "a_b.txt")])
def test_tasks_that_would_be_called_the_same_are_one_line(paths):
    with pytest.raises(UserError, match=r'^"zero_shot" \["text", "a.b.txt"\]: another task would be called'
                                        r' text-a_b.txt, too; give each file once, and names that differ'):
        tasks.labels([("text", path) for path in paths])


@pytest.mark.parametrize("limit, lines", [(1, "a\n"), (2, "a\n\n"), (3, "a\n\nb"), (4, "a\n\nb"), (None, "a\n\nb")])
def test_a_limit_keeps_so_many_lines_or_all_where_there_are_fewer(limit, lines):
    assert tasks._first_lines("file", "a\n\nb", limit) == lines
