"""datasets/zero_shot/tasks.py: what its messages name."""
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
