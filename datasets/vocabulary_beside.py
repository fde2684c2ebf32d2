"""A vocabulary that is not GPT-2's own lies beside the shards that it encoded, where a config finds it by itself."""
from configs import storage
from configs.errors import UserError
from encoder import bpe


def check(folder, encoder_path):
    """{file name: bytes} of the vocabulary at `encoder_path` (None: GPT-2's).

    Raises UserError where another one lies beside the shards in `folder`, local or gs://: a config that names none
    would take that one.
    """
    given, beside = bpe.read_files(encoder_path), storage.join(folder, bpe.FOLDER)
    for name, data in given.items():
        path = storage.join(beside, name)
        if storage.exists(path) and storage.read_bytes(path) != data:
            this = f"not that in {encoder_path}" if encoder_path else "not GPT-2's"
            raise UserError(f"{beside} holds a vocabulary that is {this}: give --encoder_path {beside} to use it, or "
                            "choose another --output_dir")
    return given


def put(folder, encoder_path):
    """Copies the vocabulary to where it belongs, unless it is GPT-2's or there.  Raises UserError as `check` does."""
    given = check(folder, encoder_path)
    if bpe.is_gpt2(given):
        return
    for name, data in given.items():
        path = storage.join(storage.join(folder, bpe.FOLDER), name)
        if not storage.exists(path):
            storage.write_whole(path, data)
