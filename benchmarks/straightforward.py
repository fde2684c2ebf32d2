"""What one would write first to make records of texts: a loop over the files, an encoder, TensorFlow's writer.

The encoder is either GPT-2's algorithm in plain Python (https://github.com/openai/gpt-2; Sennrich et al. 2016,
https://arxiv.org/abs/1508.07909), with a cache of words, or the package tokenizers.
"""
import json
import os
import unicodedata

import regex

from encoder import bpe

WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class Encoder:
    """Text -> ids: in each word, joins the pair of lowest rank until no pair has a rank."""

    def __init__(self, tokens_path, merges_path):
        with open(tokens_path, encoding="utf-8") as f:
            self.tokens = json.load(f)
        with open(merges_path, encoding="utf-8") as f:
            lines = f.read().split("\n")[1:]
        self.ranks = {tuple(line.split()): rank for rank, line in enumerate(lines) if line}
        self.symbols, self.words, self.cache = bpe.byte_symbols(), regex.compile(WORDS), {}

    def encode(self, text):
        """list of int."""
        ids = []
        for word in self.words.findall(text):
            word = "".join(self.symbols[byte] for byte in word.encode("utf-8"))
            if word not in self.cache:
                self.cache[word] = [self.tokens[part] for part in self._join(word)]
            ids.extend(self.cache[word])
        return ids

    def _join(self, word):
        parts = list(word)
        while len(parts) > 1:
            pair = min(zip(parts, parts[1:]), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if pair not in self.ranks:
                break
            joined = []
            for part in parts:
                if joined and (joined[-1], part) == pair:
                    joined[-1] += part
                else:
                    joined.append(part)
            parts = joined
        return parts


def tokenizers_encode(tokens_path, merges_path):
    """A function text -> list of int, by the package tokenizers."""
    import tokenizers
    tokenizer = tokenizers.ByteLevelBPETokenizer(tokens_path, merges_path)
    return lambda text: tokenizer.encode(text).ids


def clean(text, rule):
    """`text` by a rule of datasets/cleaning.py: ftfy over all lines."""
    import ftfy
    if rule == "repair":
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return unicodedata.normalize("NFC", "\n".join(map(ftfy.fix_encoding, lines)))
    return ftfy.fix_text(text, normalization="NFKC") if rule == "original" else text


def write(paths, target, encode, rule, minimum_size):
    """Writes a record for each file that has at least `minimum_size` tokens."""
    import tensorflow as tf
    with tf.io.TFRecordWriter(target) as writer:
        for path in paths:
            with open(path, encoding="utf-8", newline="") as f:
                text = clean(f.read(), rule)
            ids = encode(text)
            if len(ids) < minimum_size:
                continue
            key = os.path.basename(path).encode()
            features = {"hash": tf.train.Feature(bytes_list=tf.train.BytesList(value=[key])),
                        "text": tf.train.Feature(int64_list=tf.train.Int64List(value=ids))}
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
