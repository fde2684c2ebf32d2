"""Finds and writes a vocabulary beside weights, under the names that OpenAI and Hugging Face give its files.

OpenAI: encoder.json and vocab.bpe.  Hugging Face: vocab.json and merges.txt with the same content, or both inside
tokenizer.json (https://huggingface.co/docs/tokenizers), which is all that transformers 5 writes.
"""
import json

from configs import reading, storage
from configs.errors import UserError
from encoder import bpe

TOKENS_FILE, MERGES_FILE, WHOLE_FILE = "vocab.json", "merges.txt", "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
NAMES = ((bpe.TOKENS_FILE, bpe.MERGES_FILE), (TOKENS_FILE, MERGES_FILE))


def find(folder):
    """{bpe.TOKENS_FILE: bytes, bpe.MERGES_FILE: bytes} of the vocabulary in `folder`; None where it holds none.

    GPT-2's vocabulary comes back in its own bytes, however it was formatted, so that its fingerprint is known.
    """
    for names in NAMES:
        paths = [storage.join(folder, name) for name in names]
        if all(map(storage.exists, paths)):
            files = dict(zip(NAMES[0], map(storage.read_bytes, paths)))
            break
    else:
        if not storage.exists(storage.join(folder, WHOLE_FILE)):
            return None
        files = _take_apart(storage.join(folder, WHOLE_FILE))
    known = bpe.read_files()
    return known if same(files, known) else files


def same(one, other):
    """Whether the files of two vocabularies hold the same, however they are formatted."""
    return _content(one) == _content(other)


def write(folder, data):
    """Writes what `find` or `bpe.read_files` returned under OpenAI's names, and returns its Encoder.

    Raises UserError where the Encoder cannot be made: then nothing should be done with the weights beside it either.
    """
    for name, content in data.items():
        storage.write_whole(storage.join(folder, name), content)
    return bpe.load(folder)


def write_hugging_face(folder, data, n_ctx):
    """Writes it under Hugging Face's names, with the settings that make transformers' tokenizer GPT-2's."""
    storage.write_whole(storage.join(folder, TOKENS_FILE), data[bpe.TOKENS_FILE])
    storage.write_whole(storage.join(folder, MERGES_FILE), data[bpe.MERGES_FILE])
    settings = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": n_ctx, "add_prefix_space": False,
                **dict.fromkeys(("bos_token", "eos_token", "unk_token"), bpe.END_OF_TEXT)}
    storage.write_whole(storage.join(folder, TOKENIZER_CONFIG), json.dumps(settings, indent=2) + "\n")


def _take_apart(path):
    """Both files' bytes from a tokenizer.json."""
    values = reading.read_object(path)
    try:
        model = values["model"]
        if model["type"] != "BPE" or "ByteLevel" not in json.dumps(values["pre_tokenizer"]):
            raise ValueError("another kind of tokenizer")
        tokens = dict(model["vocab"])
        tokens.update({token["content"]: token["id"] for token in values.get("added_tokens") or []})
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        merges = "\n".join([bpe.VERSION_LINE] + [f"{left} {right}" for left, right in pairs]) + "\n"
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds no byte-level BPE like GPT-2's ({error}); take it out of the folder to use the"
                        " weights alone")
    return {bpe.TOKENS_FILE: json.dumps(tokens, ensure_ascii=False).encode(), bpe.MERGES_FILE: merges.encode()}


def _content(data):
    """What two formattings of one vocabulary have in common; the bytes themselves where they cannot be read."""
    try:
        lines = data[bpe.MERGES_FILE].decode().split("\n")
        return json.loads(data[bpe.TOKENS_FILE].decode()), [line for line in lines[lines[0][:8] == "#version":] if line]
    except ValueError:
        return data
