"""Finds the files of a vocabulary in a folder, by the names that OpenAI and Hugging Face give them.

OpenAI: encoder.json and vocab.bpe.  Hugging Face: vocab.json and merges.txt with the same content, or both inside
tokenizer.json (https://huggingface.co/docs/tokenizers), which is all that transformers 5 writes.  Tokens that were
added to a trained vocabulary are not in vocab.json, but in tokenizer.json or, if that is not there, added_tokens.json.
"""
from __future__ import annotations

import json
from typing import NamedTuple

from configs import reading, storage
from configs.errors import UserError

END_OF_TEXT = "<|endoftext|>"
TOKENS_FILE, MERGES_FILE = "encoder.json", "vocab.bpe"
THEIR_TOKENS_FILE, THEIR_MERGES_FILE, WHOLE_FILE = "vocab.json", "merges.txt", "tokenizer.json"
ADDED_FILE = "added_tokens.json"
TOKENIZER_CONFIG, MODEL_CONFIG = "tokenizer_config.json", "config.json"
NAMES = ((TOKENS_FILE, MERGES_FILE), (THEIR_TOKENS_FILE, THEIR_MERGES_FILE))
# Files of tokenizers that are none of ours, as globs.
FOREIGN = ("vocab.txt", "*.model", "*.spm", "*.tiktoken", "tekken.json")
# Classes of transformers, without "Fast" at the end, that cut and merge as GPT-2's does, or leave it to tokenizer.json.
CLASSES = ("GPT2Tokenizer", "GPTNeoXTokenizer", "CodeGenTokenizer", "RobertaTokenizer", "PreTrainedTokenizer",
           "TokenizersBackend")
PREFIX_SPACE = '"add_prefix_space" is true: it puts a space before each text; with false it can be used'
VERSION_LINE = "#version: 0.2"
FORMATS = f"{TOKENS_FILE} and {MERGES_FILE}, {THEIR_TOKENS_FILE} and {THEIR_MERGES_FILE}, or {WHOLE_FILE}"


class Found(NamedTuple):
    """A vocabulary."""
    data: dict  # {TOKENS_FILE: bytes, MERGES_FILE: bytes}
    paths: tuple  # where each of the two stands


def is_there(folder):
    """Whether `find` would find anything that it takes, or takes apart."""
    return any(storage.exists(storage.join(folder, name)) for name in (TOKENS_FILE, THEIR_TOKENS_FILE, WHOLE_FILE))


def find(folder):
    """The Found in `folder`, local or gs://; None where it holds none.

    Raises UserError where it holds a half of one, or any file there tells of a tokenizer that is not like GPT-2's.
    """
    found = _stored(folder)
    for name in FOREIGN if found is None else ():
        for path in storage.glob(storage.below(folder, name)):
            raise _refused(path)
    for name in (TOKENIZER_CONFIG, MODEL_CONFIG):
        path = storage.join(folder, name)
        settings = reading.read_object(path) if storage.exists(path) else {}
        named = settings.get("tokenizer_class")
        if named is not None and str(named).removesuffix("Fast") not in CLASSES[:None if found else 1]:
            raise _refused(path, f' ("tokenizer_class" is {reading.shown(named)})')
        if settings.get("add_prefix_space"):
            raise _refused(path, f" ({PREFIX_SPACE})")
        try:
            reading.check_kinds(settings, {"added_tokens_decoder": (dict, type(None))})
            _check_added((settings.get("added_tokens_decoder") or {}).values())
        except ValueError as error:
            raise _refused(path, f" ({error})")
    return found


def _refused(path, fact=""):
    return UserError(f"{path} belongs to a tokenizer that is no byte-level BPE like GPT-2's{fact}, and only that can be"
                     f" read here (as {FORMATS}); take it out of the folder to use the weights with another vocabulary")


def _stored(folder):
    """The Found of the files that hold a vocabulary; None where there are none.  Raises UserError as `find`."""
    path = storage.join(folder, WHOLE_FILE)
    whole = Found(_take_apart(path), (path, path)) if storage.exists(path) else None
    for names in NAMES:
        paths = tuple(storage.join(folder, name) for name in names)
        if all(map(storage.exists, paths)):
            found = Found({name: storage.read_bytes(path) for name, path in zip(NAMES[0], paths)}, paths)
            return found if _has_end(found) else whole or _with_added(found, folder)
    for names in NAMES if whole is None else ():
        for name, other in (names, names[::-1]):
            if storage.exists(storage.join(folder, name)):
                raise UserError(f"no vocabulary file {storage.join(folder, other)}, which belongs to the {name} there;"
                                " bring it, too, or take that one out of the folder")
    return whole


def _has_end(found):
    """Whether the vocabulary holds <|endoftext|>; also True where its file holds no tokens, which bpe.parse refuses."""
    if f'"{END_OF_TEXT}"'.encode() in found.data[TOKENS_FILE]:  # parsing GPT-2's takes a quarter of a second
        return True
    try:
        tokens = reading.parse(found.data[TOKENS_FILE])
    except ValueError:
        return True
    return not isinstance(tokens, dict) or END_OF_TEXT in tokens


def _with_added(found, folder):
    """The Found with the tokens of added_tokens.json, if there is one.  Raises UserError."""
    path = storage.join(folder, ADDED_FILE)
    if not storage.exists(path):
        return found
    added = reading.read_object(path)
    try:
        reading.check_kinds(added, dict.fromkeys(added, int))
    except ValueError as error:
        raise UserError(f"{path} must map each token to its id ({error}); fetch or build the vocabulary anew")
    tokens = {**reading.parse(found.data[TOKENS_FILE]), **added}
    return found._replace(data={**found.data, TOKENS_FILE: _dumped(tokens)})


def _dumped(tokens):
    return json.dumps(tokens, ensure_ascii=False).encode("utf-8", "surrogatepass")


def same(one, other):
    """Whether the files of two vocabularies, {name: bytes} each, hold the same, however they are formatted."""
    return _content(one) == _content(other)


def _content(data):
    """What two formattings of one vocabulary have in common; the bytes themselves where they cannot be read."""
    try:
        lines = data[MERGES_FILE].decode().split("\n")
        return reading.parse(data[TOKENS_FILE]), [line for line in lines[lines[0][:8] == "#version":] if line]
    except ValueError:
        return data


def _take_apart(path):
    """Both files' bytes from a tokenizer.json.  Raises UserError where it does other things to a text than GPT-2's."""
    values = reading.read_object(path)
    try:
        reading.check_kinds(values, {"model": dict, "added_tokens": (list, type(None))})
        model = values["model"]
        reading.check_kinds(model, {"vocab": dict, "merges": list})
        _check_steps(values, model)
        tokens = dict(model["vocab"])
        added = values.get("added_tokens") or []
        for token in added:
            reading.check_kinds(token, {"content": str, "id": int})
            tokens[token["content"]] = token["id"]
        _check_added(added)
        lines = [VERSION_LINE]
        for pair in model["merges"]:
            pair = pair.split(" ") if isinstance(pair, str) else pair
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
                raise ValueError(f'"merges" holds {reading.shown(pair)}')
            lines.append(" ".join(pair))
    except ValueError as error:
        raise UserError(f"{path} holds no byte-level BPE like GPT-2's ({error}); take it out of the folder to use the"
                        " weights alone")
    return {TOKENS_FILE: _dumped(tokens),
            MERGES_FILE: ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")}


def _check_added(tokens):
    """Raises ValueError for an added token, a dict, that texts are cut at before anything is merged.

    Special ones are no part of a text here: what looks like <|endoftext|> in it is read as any other text.
    """
    for token in tokens:
        reading.check_kinds(token, {"content": str})
        if not token.get("special") and token["content"] != END_OF_TEXT:
            raise ValueError(f'the added token {reading.shown(token["content"])} is not "special": it is cut out of a'
                             " text before its bytes are merged")


def _check_steps(values, model):
    """Raises ValueError where this tokenizer cuts or changes a text in another way than GPT-2's."""
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f'its "type" is {reading.shown(model["type"])}')
    for name in ("ignore_merges", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(name):
            raise ValueError(f'"{name}" is {reading.shown(model[name])}')
    cutting = values.get("pre_tokenizer")
    steps = cutting.get("pretokenizers") if isinstance(cutting, dict) else None
    if isinstance(steps, list) and len(steps) == 1:
        cutting = steps[0]
    if not isinstance(cutting, dict) or cutting.get("type") != "ByteLevel" or not cutting.get("use_regex", True):
        raise ValueError(f'"pre_tokenizer" is {reading.shown(cutting)}')
    if cutting.get("add_prefix_space", True):
        raise ValueError(PREFIX_SPACE)
    if values.get("normalizer") not in (None, {"type": "NFC"}):
        raise ValueError(f'"normalizer" is {reading.shown(values["normalizer"])}')
