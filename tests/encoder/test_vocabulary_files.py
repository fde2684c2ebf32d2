"""encoder/vocabulary_files.py: tokens that were added to a vocabulary, against tokenizers and transformers."""
import json

import pytest
from tokenizers import AddedToken, ByteLevelBPETokenizer

from configs.errors import UserError
from encoder import bpe

TEXT = "the theme  of the thesis"


@pytest.fixture
def trained():
    """A tokenizer that was trained without <|endoftext|>."""
    tokenizer = ByteLevelBPETokenizer(add_prefix_space=False)
    tokenizer.train_from_iterator(["the theme of the thesis is there"] * 9, vocab_size=280, show_progress=False)
    return tokenizer


def test_an_added_token_that_texts_are_cut_at_is_refused(tmp_path, trained):
    trained.add_special_tokens(["<|endoftext|>", "[PAD]"])
    path = tmp_path / "tokenizer.json"
    trained.save(str(path))
    ids = bpe.load(str(tmp_path)).encode(TEXT)
    assert ids == trained.encode(TEXT).ids
    trained.add_tokens([AddedToken("  ", normalized=False)])
    assert trained.encode(TEXT).ids != ids
    trained.save(str(path))
    with pytest.raises(UserError) as caught:
        bpe.load(str(tmp_path))
    assert f"{path} holds no byte-level BPE like GPT-2's (the added token \"  \" is not" in str(caught.value)


def test_end_of_text_is_no_text_whether_it_is_a_special_token_or_not(tmp_path, trained):
    trained.add_tokens(["<|endoftext|>"])
    trained.save(str(tmp_path / "tokenizer.json"))
    encoder = bpe.load(str(tmp_path))
    assert encoder.eot == trained.token_to_id("<|endoftext|>")
    assert encoder.encode(TEXT) == trained.encode(TEXT).ids and encoder.eot not in encoder.encode("a<|endoftext|>")


@pytest.mark.parametrize("value, words", [
    ({"7": {"content": "  ", "special": False}}, 'the added token "  " is not "special"'), ({"7": 3}, "3 is no object"),
    ([], '"added_tokens_decoder" is []')])
def test_an_added_token_counts_too_where_the_settings_alone_name_it(tmp_path, value, words):
    bpe.write(str(tmp_path), [])
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"added_tokens_decoder": {"256": {"content": "<|endoftext|>", "special": True}}}))
    assert bpe.load(str(tmp_path)).size == 257
    path.write_text(json.dumps({"added_tokens_decoder": value}))
    with pytest.raises(UserError) as caught:
        bpe.load(str(tmp_path))
    assert f"{path} belongs to a tokenizer" in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize("name", ["GPT2TokenizerFast", "GPT2Tokenizer"])
def test_end_of_text_is_found_among_the_tokens_that_transformers_added(tmp_path, trained, name):
    """The first class writes tokenizer.json and added_tokens.json, the second only the latter."""
    transformers = pytest.importorskip("transformers")
    trained.save_model(str(tmp_path))
    theirs = getattr(transformers, name)(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    theirs.add_special_tokens({"pad_token": "[PAD]"})
    theirs.save_pretrained(tmp_path / "saved")
    assert "<|endoftext|>" not in (tmp_path / "saved" / "vocab.json").read_text()
    assert (tmp_path / "saved" / "tokenizer.json").exists() == (name == "GPT2TokenizerFast")
    encoder = bpe.load(str(tmp_path / "saved"))
    assert (encoder.eot, encoder.size) == (theirs.eos_token_id, len(theirs))
    assert encoder.encode(TEXT) == theirs.encode(TEXT) and encoder.decode([theirs.pad_token_id]) == "[PAD]"


def test_files_that_hold_end_of_text_stay_what_they_are_beside_a_tokenizer_json(tmp_path, trained):
    bpe.write(str(tmp_path), [])
    before = bpe.fingerprint(str(tmp_path))
    trained.add_special_tokens(["<|endoftext|>"])
    trained.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "added_tokens.json").write_text('{"[PAD]": 257}')
    assert bpe.fingerprint(str(tmp_path)) == before and bpe.load(str(tmp_path)).size == 257


@pytest.mark.parametrize("added, words", [
    ("[]", "added_tokens.json: holds []"), ('{"[PAD]": 269}', "vocab.json has no token <|endoftext|>"),
    ('{"<|endoftext|>": "269"}', 'added_tokens.json must map each token to its id ("<|endoftext|>" is "269")'),
    ('{"<|endoftext|>": 999}', "vocab.json: the ids must be 0 to")])
def test_what_is_wrong_with_added_tokens_is_one_line(tmp_path, trained, added, words):
    trained.save_model(str(tmp_path))
    (tmp_path / "added_tokens.json").write_text(added)
    with pytest.raises(UserError) as caught:
        bpe.load(str(tmp_path))
    assert f"{tmp_path}/{words}" in str(caught.value)
