"""A vocabulary that is not GPT-2's own lies beside the shards that it encoded, where a config finds it by itself."""
from configs import storage
from configs.errors import UserError
from encoder import bpe, vocabulary_files


def check(folder, encoder_path):
    """{file name: bytes} of the vocabulary at `encoder_path` (None: GPT-2's).

    Raises UserError where another one lies beside the shards in `folder`, local or gs://: a config that names none
    would take that one.
    """
    given, beside = bpe.read_files(encoder_path), storage.join(folder, bpe.FOLDER)
    there = {name: storage.join(beside, name) for name in given}
    if _is_theirs(beside):
        other = bpe.read_files(beside) != given
    else:  # a kill may have left one file of two
        other = any(storage.exists(path) and storage.read_bytes(path) != given[name] for name, path in there.items())
    if other:
        this = f"not that in {encoder_path}" if encoder_path else "not GPT-2's"
        raise UserError(f"{beside} holds a vocabulary that is {this}: give --encoder_path {beside} to use it, or "
                        "choose another --output_dir")
    return given


def put(folder, encoder_path):
    """Copies the vocabulary to where it belongs, unless it is GPT-2's or there.  Raises UserError as `check` does."""
    given = check(folder, encoder_path)
    if bpe.is_gpt2(given) or _is_theirs(storage.join(folder, bpe.FOLDER)):
        return
    for name, data in given.items():
        path = storage.join(storage.join(folder, bpe.FOLDER), name)
        if not storage.exists(path):
            storage.write_whole(path, data)


def _is_theirs(folder):
    """Whether the vocabulary in `folder` has Hugging Face's names, and not OpenAI's."""
    return vocabulary_files.is_there(folder) and not any(
        storage.exists(storage.join(folder, name)) for name in (bpe.TOKENS_FILE, bpe.MERGES_FILE))
