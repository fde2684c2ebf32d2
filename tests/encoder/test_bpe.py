"""encoder/bpe.py against tiktoken, tokenizers and published ids; its errors; its limits."""
import json
import os
import random
import re
import shutil
import unicodedata

import numpy as np
import pytest
import tiktoken
import tiktoken.load
import tiktoken_ext.openai_public
from tokenizers import ByteLevelBPETokenizer

from configs.errors import UserError
from encoder import bpe, vocabulary_files

STRINGS = 10000


@pytest.fixture(scope="module")
def gpt2():
    return bpe.load()


@pytest.fixture(scope="module")
def files():
    folder = bpe._gpt2_folder()
    return os.path.join(folder, "encoder.json"), os.path.join(folder, "vocab.bpe")


@pytest.fixture(scope="module")
def strings():
    """Random text out of all planes, with what the word pattern treats in its own way."""
    rng = random.Random(1)
    spaces = [" ", "  ", "\n", "\t", "\r\n", "\u3000", "\xa0", "\u2028", "\x1c", "\x85", " " * 30, "\n\n\n"]
    pieces = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "''", "don't", "<|endoftext|>", "Ġ", "\ufeff",
              "👨‍👩‍👧‍👦", "🇺🇳", "e\u0301", "Ⅷ", "٣", "½", "ﬁ", "\0", "\x7f", "word", "Words", "1234", "...", "中文",
              "한국어"]

    def character():
        while True:
            limit = rng.choice([0x80, 0x800, 0x3000, 0x10000, 0x20000, 0x30000, 0x110000])
            c = chr(rng.randrange(limit))
            # Characters younger than the tables of one library or another are letters to some of them only.
            if unicodedata.category(c) not in ("Cn", "Cs"):
                return c
    makers = [character, lambda: rng.choice(spaces), lambda: rng.choice(pieces)]
    return [""] + ["".join(rng.choice(makers)() for _ in range(rng.randrange(30))) for _ in range(STRINGS - 1)]


def write_vocabulary(folder, tokens, merges):
    (folder / "encoder.json").write_text(tokens if isinstance(tokens, str) else json.dumps(tokens))
    (folder / "vocab.bpe").write_text(merges)
    return str(folder)


def test_published_ids_of_gpt2(gpt2):
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.encode("") == []
    assert gpt2.decode([15496, 995]) == "Hello world"
    assert (gpt2.size, gpt2.eot) == (50257, 50256)


def test_ids_equal_tiktokens_and_decode_to_the_text(gpt2, files, strings, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(vocab_bpe_file=files[1], encoder_json_file=files[0])
    reference = tiktoken.Encoding("reference", pat_str=tiktoken_ext.openai_public.r50k_pat_str, mergeable_ranks=ranks,
                                  special_tokens={"<|endoftext|>": 50256})
    for text in strings:
        ids = gpt2.encode(text)
        assert ids == reference.encode_ordinary(text)
        assert gpt2.decode(ids) == text


def test_ids_equal_those_of_tokenizers(gpt2, files, strings):
    reference = ByteLevelBPETokenizer(*files, add_prefix_space=False)
    for text, encoded in zip(strings, reference.encode_batch(strings)):
        assert gpt2.encode(text) == encoded.ids, text


def test_surrogate_pairs_join_and_lone_ones_become_the_replacement_character(gpt2):
    rng = random.Random(2)
    for _ in range(500):
        text = "".join(rng.choice(["a", " ", "\ud83d", "\ude00", "\ud800", "\udfff", "é"]) for _ in range(7))
        joined = re.sub("[\ud800-\udbff][\udc00-\udfff]", lambda pair: chr(
            0x10000 + (ord(pair[0][0]) - 0xD800) * 0x400 + ord(pair[0][1]) - 0xDC00), text)
        expected = re.sub("[\ud800-\udfff]", "\ufffd", joined)
        assert gpt2.encode(text) == gpt2.encode(expected)
        assert gpt2.decode(gpt2.encode(text)) == expected


def test_end_of_text_in_a_document_is_text(gpt2):
    assert gpt2.eot not in gpt2.encode("a<|endoftext|>b")
    assert gpt2.decode([gpt2.eot]) == "<|endoftext|>"


def test_the_array_holds_the_same_ids_as_int32(gpt2):
    ids = gpt2.encode_array("one two")
    assert ids.dtype == np.int32 and ids.tolist() == gpt2.encode("one two")


@pytest.fixture(scope="module")
def published(gpt2):
    """tiktoken with the words of GPT-2's encoder.py to the letter."""
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    ranks = gpt2._tiktoken._mergeable_ranks
    return tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


@pytest.mark.parametrize("tail", ["x", ".", " x", "\nx", "'s", "\x1c", ""])
@pytest.mark.parametrize("space", [" ", "\n", "\u3000"])
def test_long_runs_of_white_space_make_the_published_ids(gpt2, published, space, tail):
    text = "b" + space * 1000 + tail + "  c" + space * 1501 + tail
    assert gpt2.encode(text) == published.encode_ordinary(text)


def test_any_mixture_of_white_space_and_words_makes_the_published_ids(gpt2, published):
    numbers = random.Random(0)
    pieces = [*"    \t\n\r\x0b\x1c\x85\xa0\u2003\u2028\u3000", *"ab1.'", "'s", "'ll", " the", "\u00e9", "\u4e16",
              "\U0001f600"]
    for _ in range(2000):
        text = "".join(numbers.choices(pieces, k=numbers.randrange(25)))
        assert gpt2.encode(text) == published.encode_ordinary(text), ascii(text)
        text += "\0 \0\n" + text  # the character that stands for a cut
        assert gpt2.encode(text) == published.encode_ordinary(text), ascii(text)


@pytest.mark.parametrize("block", [1, 2, 5, bpe.BLOCK])
def test_many_texts_at_once_make_the_ids_of_each(gpt2, published, monkeypatch, block):
    numbers = random.Random(block)
    pieces = [*"   \n\r\x1c\x85\u2003\u3000", *"ab1.", "'s", " the", "\u00e9", "\U0001f600"]
    monkeypatch.setattr(bpe, "BLOCK", block)
    for special in ("", "\0", "\1", "\0\1", "\ud83d", "\ud83d\ude00"):
        for _ in range(40):
            texts = ["".join(numbers.choices(pieces, k=numbers.randrange(12))) for _ in range(numbers.randrange(1, 9))]
            at = numbers.randrange(len(texts))
            texts[at] += "  " + special + " a" if special else ""
            found = gpt2.encode_arrays(texts)
            assert [ids.tolist() for ids in found] == [published.encode_ordinary(text) for text in texts], ascii(texts)
            assert all(ids.dtype == np.int32 for ids in found)
    assert gpt2.encode_arrays([]) == []


def test_white_space_beyond_the_limit_of_tiktokens_regular_expressions(gpt2):
    text = "b" + " " * 1200000 + "word"
    assert gpt2.decode(gpt2.encode(text)) == text
    assert gpt2.encode(text)[-1] == gpt2.encode(" word")[0]


def test_a_million_letters_without_a_space(gpt2):
    assert gpt2.decode(gpt2.encode("a" * 1000000)) == "a" * 1000000


def test_decoding_replaces_broken_bytes_and_ids_of_padding(gpt2):
    assert gpt2.decode(gpt2.encode("🎉")[:1] + gpt2.encode("b")) == "\ufffdb"
    assert gpt2.decode([gpt2.encode("a")[0], 50257, 60000]) == "a\ufffd\ufffd"
    assert gpt2.decode_bytes(np.array([[15496], [995]])) == b"Hello world"
    with pytest.raises(ValueError, match="-1"):
        gpt2.decode([-1])


def test_ids_in_another_order_than_the_merges(tmp_path, gpt2, files):
    with open(files[0]) as f:
        tokens = json.load(f)
    turned = {token: 50255 - i if i < 50256 else i for token, i in tokens.items()}
    with open(files[1]) as f:
        merges = f.read()
    other = bpe.load(write_vocabulary(tmp_path, turned, merges))
    text = "The quick brown fox, 12 naïve 中文!"
    assert other.encode(text) == [50255 - i for i in gpt2.encode(text)]
    assert other.decode(other.encode(text)) == text
    assert other.fingerprint != gpt2.fingerprint


def test_a_copy_has_the_same_fingerprint_and_a_moved_boundary_another(tmp_path, gpt2, files):
    for path in files:
        with open(path, "rb") as f:
            (tmp_path / os.path.basename(path)).write_bytes(f.read())
    assert bpe.load(str(tmp_path)).fingerprint == gpt2.fingerprint
    assert bpe._fingerprint(b"ab", b"c") != bpe._fingerprint(b"a", b"bc")


def test_a_vocabulary_of_characters_names_the_one_it_lacks(tmp_path):
    symbols = [bpe.byte_symbols()[byte] for byte in b"\n abcd"]
    bpe.write(str(tmp_path), [], symbols)
    encoder = bpe.load(str(tmp_path))
    assert (encoder.size, encoder.eot) == (7, 6)
    assert encoder.encode("ab\n dc") == [2, 3, 0, 1, 5, 4]
    assert encoder.decode([2, 3, 0, 1, 5, 4]) == "ab\n dc"
    with pytest.raises(UserError, match="'é'"):
        encoder.encode("a é")


def test_the_version_line_may_be_absent_and_line_ends_may_be_windows(tmp_path):
    bpe.write(str(tmp_path), [("a", "b"), ("ab", "c")])
    expected = bpe.load(str(tmp_path)).encode("abc ab a")
    (tmp_path / "vocab.bpe").write_bytes(b"a b\r\nab c")
    assert bpe.load(str(tmp_path)).encode("abc ab a") == expected == [257, 220, 256, 220, 64]


def test_byte_symbols_are_gpt2s_first_ids(files):
    with open(files[0]) as f:
        tokens = json.load(f)
    assert [tokens[symbol] for symbol in bpe.byte_symbols().values()] == list(range(256))
    assert sorted(bpe.byte_symbols()) == list(range(256))


@pytest.mark.parametrize("tokens, merges, message", [
    ("{", "", "encoder.json is not JSON"),
    ([], "", "must map"),
    ({"a": 0, "<|endoftext|>": 2}, "", "ids must be 0 to 1"),
    ({"a": 0, "b": 1}, "", "has no token <|endoftext|>, which ends a document here: bring back the file"),
    ('{"a": 0, "a": 1, "<|endoftext|>": 2}', "", '"a" is given twice (0, 1)'),
    ({"a": True, "<|endoftext|>": 0}, "", "must map"), ({"a": 10**30, "<|endoftext|>": 0}, "", "a finite number"),
    ({"a": 1.0, "<|endoftext|>": 0}, "", "must map"), ("[" * 10**5, "", "is nested more than 100 deep"),
    ({"a": 0, "b": 1, "<|endoftext|>": 2}, "a b\n", "line 1: the token 'ab' is not in encoder.json"),
    ({"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, "#version: 0.2\na b\n\na b\n", "line 3: expected two tokens"),
    ({"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, "a b\na b\n", "line 2: the token 'ab' is merged a second time"),
    ({"a": 0, "b": 1, "<|endoftext|>": 2}, "a b c\n", "line 1: expected two tokens"),
])
def test_malformed_files_are_named_with_what_is_wrong(tmp_path, tokens, merges, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        bpe.load(write_vocabulary(tmp_path, tokens, merges))
    assert str(tmp_path) in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "encoder.json"))):
        bpe.load(str(tmp_path))
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(UserError, match="vocab.bpe"):
        bpe.load(str(tmp_path))


def test_a_changed_file_in_the_package_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(bpe, "_gpt2_folder", lambda: write_vocabulary(tmp_path, {"<|endoftext|>": 0}, ""))
    with pytest.raises(UserError, match="is not GPT-2's"):
        bpe.load()


# What Hugging Face's tokenizers writes.

def learned(texts):
    """A tokenizer as its own trainer makes it: <|endoftext|> gets id 0."""
    tokenizer = ByteLevelBPETokenizer(add_prefix_space=False)
    tokenizer.train_from_iterator(texts, vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False)
    return tokenizer


@pytest.fixture(scope="module")
def trained(strings):
    return learned([text for text in strings if text.isascii()] + ["the theme of the thesis is there"] * 9)


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"), ("tokenizer.json",)])
def test_a_vocabulary_of_tokenizers_own_trainer_is_read_whatever_its_files_are(tmp_path, trained, strings, names):
    if len(names) == 1:
        trained.save(str(tmp_path / "tokenizer.json"))
    else:
        trained.save_model(str(tmp_path))
        for name, theirs in zip(names, ("vocab.json", "merges.txt")):
            os.rename(tmp_path / theirs, tmp_path / name)
    encoder = bpe.load(str(tmp_path))
    assert (encoder.eot, encoder.size) == (0, trained.get_vocab_size())
    for text in strings[:300]:
        ids = encoder.encode(text)
        assert ids == trained.encode(text.replace("<|endoftext|>", "<|endoftext|")).ids or "<|endoftext|>" in text
        assert encoder.decode(ids) == text and encoder.eot not in ids
    assert encoder.decode([0, 1]).startswith("<|endoftext|>")
    assert bpe.fingerprint(str(tmp_path)) == encoder.fingerprint
    assert set(bpe.files(str(tmp_path))) == {str(tmp_path / name) for name in names}


def test_gpt2_s_vocabulary_as_hugging_face_formats_it_has_gpt2_s_fingerprint(tmp_path, gpt2, files):
    with open(files[0]) as f:
        (tmp_path / "vocab.json").write_text(json.dumps(json.load(f), ensure_ascii=False, indent=1))
    shutil.copy(files[1], tmp_path / "merges.txt")
    assert bpe.load(str(tmp_path)).fingerprint == bpe.fingerprint(str(tmp_path)) == gpt2.fingerprint


@pytest.mark.parametrize("change, words", [
    ({"model": {"type": "WordPiece"}}, 'its "type" is "WordPiece"'), ({"model": {"vocab": []}}, '"vocab" is []'),
    ({"model": {"merges": "a b"}}, '"merges" is "a b"'), ({"model": {"merges": [["a"]]}}, '"merges" holds ["a"]'),
    ({"model": {"merges": ["a b c"]}}, '"merges" holds ["a", "b", "c"]'), ({"model": {"merges": [7]}}, "holds 7"),
    ({"model": {"byte_fallback": True}}, '"byte_fallback" is true'), ({"added_tokens": [7]}, "7 is no object"),
    ({"model": {"end_of_word_suffix": "</w>"}}, '"end_of_word_suffix" is "</w>"'),
    ({"added_tokens": [{"content": "x", "id": "7"}]}, '"id" is "7"'), ({"added_tokens": "x"}, '"added_tokens" is "x"'),
    ({"pre_tokenizer": None}, '"pre_tokenizer" is null'), ({"pre_tokenizer": {"type": "Metaspace"}}, "Metaspace"),
    ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, '"add_prefix_space" is true'),
    ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}}, '"pre_tokenizer" is'),
    ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split"}, {"type": "ByteLevel"}]}}, "Split"),
    ({"normalizer": {"type": "Lowercase"}}, '"normalizer" is {"type": "Lowercase"}'),
    ({"model": None}, '"model" is null')])
def test_a_tokenizer_that_treats_text_in_another_way_is_refused(tmp_path, trained, change, words):
    path = tmp_path / "tokenizer.json"
    trained.save(str(path))
    content = json.loads(path.read_text())
    for name, value in change.items():
        content[name] = {**content[name], **value} if name == "model" and value else value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        bpe.load(str(tmp_path))
    assert str(caught.value).startswith(f"{path} holds no byte-level BPE like GPT-2's (") and words in str(caught.value)


ANOTHER_CUT = {"pre_tokenizer": {"type": "Digits", "individual_digits": True}}
LOWER_CASE = {"normalizer": {"type": "Lowercase"}}


@pytest.mark.parametrize("name, facts, words", [
    ("tokenizer_config.json", {"tokenizer_class": "CLIPTokenizerFast"}, '("tokenizer_class" is "CLIPTokenizerFast")'),
    ("tokenizer_config.json", {"tokenizer_class": "GPTNeoXJapaneseTokenizer"}, '"GPTNeoXJapaneseTokenizer"'),
    ("tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, 'space" is true'),
    ("config.json", {"n_head": 2, "tokenizer_class": "Qwen2Tokenizer"}, '("tokenizer_class" is "Qwen2Tokenizer")'),
    ("tokenizer.json", ANOTHER_CUT, '"pre_tokenizer" is {"type": "Digits"'), ("tokenizer.json", LOWER_CASE, "Lowerc")])
@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"), ("tokenizer.json",)])
def test_a_fact_about_the_tokenizer_counts_whatever_files_hold_the_vocabulary(tmp_path, trained, name, facts, words,
                                                                              names):
    trained.save(str(tmp_path / "tokenizer.json"))
    whole = json.loads((tmp_path / "tokenizer.json").read_text())
    if len(names) == 2:
        trained.save_model(str(tmp_path))
        for file, theirs in zip(names, ("vocab.json", "merges.txt")):
            os.rename(tmp_path / theirs, tmp_path / file)
    assert bpe.load(str(tmp_path)).size == trained.get_vocab_size()
    (tmp_path / name).write_text(json.dumps({**(whole if name == "tokenizer.json" else {}), **facts}))
    with pytest.raises(UserError) as caught:
        bpe.load(str(tmp_path))
    assert str(tmp_path / name) in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize("named", ["GPT2Tokenizer", "GPT2TokenizerFast", "GPTNeoXTokenizerFast", "CodeGenTokenizer",
                                   "RobertaTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", None])
def test_the_classes_that_treat_text_as_gpt2_s_are_read(tmp_path, trained, named):
    trained.save_model(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": named, "add_prefix_space": False, "model_max_length": int(1e30)}))  # as transformers has it
    assert bpe.load(str(tmp_path)).encode("the theme") == trained.encode("the theme").ids


def test_tokens_with_a_mark_at_the_end_of_a_word_are_no_byte_level_bpe(tmp_path):
    symbols = [*bpe.byte_symbols().values()]
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), "th", "the</w>", "<|endoftext|>"]  # as CLIP has them
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n")
    with pytest.raises(UserError, match="merges.txt, line 3: no byte and no line above makes the token 'e</w>': this "):
        bpe.load(str(tmp_path))


def test_the_file_that_lacks_a_token_is_named_as_it_is_there(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "<|endoftext|>": 2}))
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(UserError, match="merges.txt, line 1: the token 'ab' is not in vocab.json: the two files must"):
        bpe.load(str(tmp_path))


@pytest.mark.parametrize("name, content, words", [
    ("qwen.tiktoken", "YQ== 0\n", "qwen.tiktoken belongs to"), ("tekken.json", "{}", "tekken.json belongs to"),
    ("sentencepiece.bpe.model", "x", "sentencepiece.bpe.model belongs to"),
    ("tokenizer_config.json", '{"tokenizer_class": "PreTrainedTokenizerFast"}', '_config.json belongs to a tokenizer'),
    ("vocab.txt", "[PAD]\n[UNK]\n", "vocab.txt belongs to a tokenizer that is no byte-level BPE"),
    ("spiece.model", "x", "spiece.model belongs to"),
    ("vocab.json", "{}", "merges.txt, which belongs to the vocab.json"),
    ("merges.txt", "", "vocab.json, which belongs to the merges.txt"),
    ("tokenizer_config.json", '{"tokenizer_class": "BertTokenizer"}', "tokenizer_config.json belongs to a tokenizer"),
    ("tokenizer_config.json", "[]", "tokenizer_config.json: holds []")])
def test_what_is_not_recognised_is_not_taken_for_absent(tmp_path, name, content, words):
    assert vocabulary_files.find(str(tmp_path)) is None
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    assert vocabulary_files.find(str(tmp_path)) is None
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        vocabulary_files.find(str(tmp_path))
    assert words in str(caught.value)
