"""The vocabulary beside weights: found, compared, written under the names of OpenAI or of Hugging Face."""
import json

from configs import storage
from encoder import bpe, vocabulary_files
from encoder.vocabulary_files import same


def find(folder):
    """{bpe.TOKENS_FILE: bytes, bpe.MERGES_FILE: bytes} of the vocabulary in `folder`; None where it holds none.

    GPT-2's vocabulary comes back in its own bytes, however it was formatted, so that its fingerprint is known.  Raises
    UserError, which names the file, where an Encoder cannot be made of it.
    """
    found = vocabulary_files.find(folder)
    if found is None:
        return None
    known = bpe.read_files()
    if same(found.data, known):
        return known
    bpe.parse(found)
    return found.data


def write(folder, data):
    """Writes what `find` or `bpe.read_files` returned under OpenAI's names, and returns its Encoder."""
    for name, content in data.items():
        storage.write_whole(storage.join(folder, name), content)
    return bpe.load(folder)


def write_hugging_face(folder, data, n_ctx):
    """Writes it under Hugging Face's names, with the settings that make transformers' tokenizer GPT-2's."""
    for ours, theirs in zip(*vocabulary_files.NAMES):
        storage.write_whole(storage.join(folder, theirs), data[ours])
    settings = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": n_ctx, "add_prefix_space": False,
                **dict.fromkeys(("bos_token", "eos_token", "unk_token"), bpe.END_OF_TEXT)}
    storage.write_whole(storage.join(folder, vocabulary_files.TOKENIZER_CONFIG),
                        json.dumps(settings, indent=2) + "\n")
