"""Downloads GPT-2's released weights from OpenAI or Hugging Face, or writes its vocabulary, which needs no network.

    python3 tools/download_model.py 124M                  # then: python3 -m models.checkpoints import-openai ...
    python3 tools/download_model.py 124M --source hf
    python3 tools/download_model.py encoder
"""
import os
import re
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

from configs import commands, errors, start, storage
from configs.errors import UserError
from encoder import bpe, formats
from encoder.vocabulary_files import THEIR_MERGES_FILE, THEIR_TOKENS_FILE
from tools import fetch

# https://github.com/openai/gpt-2, download_model.py; https://huggingface.co/openai-community
BASE_URLS = {"openai": "https://openaipublic.blob.core.windows.net/gpt-2/models",
             "hf": "https://huggingface.co/openai-community"}
REPOSITORIES = {"124M": "gpt2", "355M": "gpt2-medium", "774M": "gpt2-large", "1558M": "gpt2-xl"}
# The large ones last: what is wrong with a mirror shows at once.
FILES = {"openai": ("hparams.json", bpe.MERGES_FILE, bpe.TOKENS_FILE, "checkpoint", "model.ckpt.index",
                    "model.ckpt.meta", "model.ckpt.data-00000-of-00001"),
         "hf": ("config.json", THEIR_MERGES_FILE, THEIR_TOKENS_FILE, "model.safetensors")}
VOCABULARY = "encoder"


def main(argv=None):
    args = _arguments(argv)
    if args.model == VOCABULARY:
        folder = args.output_dir or "data/encoder"
        encoder = formats.write(folder, bpe.read_files())
        print(f"{folder}: {encoder.size} tokens, fingerprint {encoder.fingerprint}")
        return 0
    folder, files = args.output_dir or f"data/gpt2/{args.model}-{args.source}", FILES[args.source]
    base = (args.base_url or BASE_URLS[args.source]).rstrip("/")
    base += f"/{args.model}" if args.source == "openai" else f"/{REPOSITORIES[args.model]}/resolve/main"
    pinned = _pinned(args)
    with storage.only_run(os.path.join(folder, ".lock"), "choose another --output_dir"):
        kept = [name for name in files if os.path.exists(os.path.join(folder, name))]
        for name in files:
            path = os.path.join(folder, name)
            passed = fetch.fetch(f"{base}/{name}", path, pinned.get(name))
            how = f"{passed.kind} as {passed.origin} says" if passed else "no checksum is published"
            print(f"{path}: {os.path.getsize(path):,} bytes, {'already there' if name in kept else how}")
        _check(folder, [name for name in files if name not in kept], kept)
    print(f"{folder} is whole; python3 -m models.checkpoints import-{args.source} {folder} runs/{args.model}")
    return 0


def _arguments(argv):
    parser = errors.script_parser(__doc__)
    add = parser.add_argument
    add("model", choices=[*REPOSITORIES, VOCABULARY], help="what to fetch: weights with their vocabulary, or the"
        " vocabulary alone, which needs no network")
    add("--source", choices=list(BASE_URLS), default="openai", help="whose files")
    add("--base_url", help="a mirror: the address in front of 124M/... (openai) or gpt2/resolve/main/... (hf)")
    add("--output_dir", help="folder for the files (without it data/gpt2/MODEL-SOURCE, or data/encoder)")
    add("--sha256", action="append", default=[], metavar="FILE=HEX", help="what a file must be; may be repeated")
    return parser.parse_args(argv)


def _pinned(args):
    """{file name: Checksum} of what is known before any server is asked.  Raises UserError for a wrong --sha256."""
    known = {name: fetch.Checksum("sha256", value, "this program") for name, value in bpe.GPT2_SHA256.items()}
    for text in args.sha256:
        name, _, value = text.partition("=")
        if name not in FILES[args.source] or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
            raise UserError(f"--sha256 {text}: must be FILE=HEX with 64 digits, FILE one of"
                            f" {', '.join(FILES[args.source])}")
        known[name] = fetch.Checksum("sha256", value.lower(), "--sha256")
    return known


def _check(folder, fetched, kept):
    """Reads everything once: formats, and the checksum that TensorFlow keeps of each tensor.

    Where something is damaged, the files `fetched` are deleted.  Those `kept` stay: they may be the user's own.
    """
    storage.silence_tensorflow()
    with start.importing():
        from models.checkpoints import any_format  # here and not above: it brings TensorFlow, and takes seconds
    try:
        if formats.find(folder) != bpe.read_files():
            raise UserError(f"{folder}: the vocabulary there is not GPT-2's")
        source = any_format.open_weights(folder)
        for name in source.shapes:
            source.read(name)
    except UserError as error:
        for name in fetched:
            os.unlink(os.path.join(folder, name))
        deleted = "; what was fetched is deleted" if fetched else ""
        remedy = ": run again, or give another --base_url"
        if kept:
            remedy = (f"; {', '.join(kept)} lay there before: give another --output_dir, or move them elsewhere and run"
                      " again")
        raise UserError(f"{error}{deleted}{remedy}")


if __name__ == "__main__":
    commands.run(main)
