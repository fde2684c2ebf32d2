"""Learns a byte-level BPE vocabulary of a chosen size from text: `encoder.json` and `vocab.bpe` in OpenAI's format.

The merges are learned by Hugging Face's tokenizers (https://github.com/huggingface/tokenizers), which breaks ties in
a fixed order: the same text gives the same bytes.  It keeps every different word in memory, so documents are taken in
a random order, which depends on their number alone, until --memory is used up; of most texts that is all of them.
"""
import json
import os
import re
import sys
import tempfile

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

from importlib.metadata import version

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from configs import commands, errors, progress, reading, start, storage, waiting
from configs.errors import UserError
from datasets import cleaning, cutting, documents, encodings, left_out, plans
from encoder import bpe

NOTE = "vocabulary.json"  # written last: what the two files were made from
SMALLEST = len(bpe.byte_symbols()) + 1  # no merges
TIMES = 2  # a pair seen once teaches nothing
LONGEST = 1000  # bytes: longer words are cut, since tokenizers' time grows with the square of their length
STRETCH_BYTES = 1 << 25  # of a file that are read at once
PIECE_CHARACTERS = 1 << 17  # that tokenizers gets at once: it takes some 50 bytes for each, and collects 256 pieces
PIECE_END = re.compile(r"\S(?=[ \n])")
# Nearly GPT-2's, and the same in all releases of Unicode.
WORD = re.compile(r" ?(?:[A-Za-z\x80-\U0010ffff]+|[0-9]+|[!-/:-@[-`{-~]+)")
GIGABYTES = 4.0  # of memory
FIXED_BYTES = 500_000_000  # of memory, whatever the text
WORD_BYTES, WORD_BYTES_PER_BYTE = 250, 100  # of memory for a different word


def main(argv=None):
    """Arguments -> encoder.json, vocab.bpe, vocabulary.json; returns 0."""
    args = _arguments(argv)
    try:
        return _make(args)
    except KeyboardInterrupt:
        # The library goes on to learn in its thread, which takes minutes and would disturb Python's end.
        progress.close_all()
        start.stop()
    except SystemExit as end:  # by SIGTERM or SIGHUP
        os._exit(end.code)


def _make(args):
    # The vocabulary's own folder may be on gs://; packed text is unpacked in TMPDIR.
    with tempfile.TemporaryDirectory(prefix="unpacked-") as scratch:
        index = documents.make_index(args.input, args.exclude, scratch=scratch, reading=cutting.reading_of(args))
        documents.show_left_out(index)
        tools = {"tokenizers": version("tokenizers"), **cleaning.tools(args.clean), **encodings.tools(args.encoding)}
        plan = {"size": args.size, "inputs": index.fingerprint, "documents": len(index.file),
                "cleaning": cleaning.RULES[args.clean], "tools": tools, **documents.plan(index),
                **({"memory": args.memory} if args.memory != GIGABYTES else {})}
        if _finished(args.output_dir, plan):
            print(f"{args.output_dir} is finished: nothing to do")
            return 0
        storage.check_folder(args.output_dir)  # said before minutes are spent
        found, share = {}, {"bytes": 0, "of": int(index.length.sum())}
        texts = _texts(index, args.clean, args.memory * 1e9 - FIXED_BYTES, found, share)
        merges = waiting.within(None, lambda: learn(texts, args.size - SMALLEST))
        said = [*left_out.described(found, index)]
    if len(merges) < args.size - SMALLEST:
        raise UserError(f"--size {args.size} needs {args.size - SMALLEST} merges and the text of "
                        f"{left_out.many(len(index.file), 'document')} gives {len(merges)}: "
                        + "; ".join([*said, f"give more text, or a --size of at most {len(merges) + SMALLEST}"]))
    learned_from = {"learned_from": share} if share["bytes"] < share["of"] else {}
    if learned_from:
        said.append("learned from {bytes:,} of {of:,} bytes of text, in documents drawn at random: ".format(**share)
                    + f"the different words of more do not fit into --memory {args.memory:g}")
    print("".join(line + "\n" for line in said), end="")
    # The note comes before the files too, without their fingerprint: files we were stopped at are known as ours.
    note = storage.join(args.output_dir, NOTE)
    storage.write_whole(note, json.dumps(plan, indent=1) + "\n")
    bpe.write(args.output_dir, merges)
    encoder = bpe.load(args.output_dir)
    storage.write_whole(note, json.dumps({**plan, **learned_from, "fingerprint": encoder.fingerprint}, indent=1) + "\n")
    print(f"{args.output_dir}: {encoder.size} tokens, fingerprint {encoder.fingerprint}")
    return 0


def learn(texts, count):
    """The first `count` merges, pairs of tokens in byte symbols, or as many as there are pairs that occur twice."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False),
                                                       pre_tokenizers.FixedLength(length=LONGEST)])
    trainer = trainers.BpeTrainer(vocab_size=SMALLEST - 1 + count, min_frequency=TIMES, show_progress=False,
                                  initial_alphabet=list(bpe.byte_symbols().values()))
    tokenizer.train_from_iterator(texts, trainer)
    return [*map(tuple, json.loads(tokenizer.to_str())["model"]["merges"])]


def _texts(index, rule, room, found, share):
    """Yields the texts of documents, as create_tfrecords.py encodes them, while their words fit into `room` bytes.

    Notes in `found` which have no text, and in `share` how many "bytes" were read.
    """
    parts, owner = documents.in_stretches(index, STRETCH_BYTES)
    known, unreadable = set(), set()
    with progress.bar(len(owner), unit="doc") as bar:
        for number in np.random.RandomState(0).permutation(len(owner)):
            document, whole = documents.read(parts, number), int(owner[number])
            if document.problem:
                left_out.note(found, document.problem, whole, whole not in unreadable)
                unreadable.add(whole)
            elif document.text:
                text = cleaning.clean(document.text, rule)
                words = set(WORD.findall(text)) - known
                room -= sum(WORD_BYTES + WORD_BYTES_PER_BYTE * len(word.encode()) for word in words)
                if room < 0 and known:
                    return
                known |= words
                left_out.note_marks(found, index, whole, text)
                yield from _pieces(text)
            share["bytes"] += int(parts.length[number])
            bar.update()


def _pieces(text):
    """Yields a text in pieces that together have the same words."""
    start = 0
    while match := PIECE_END.search(text, start + PIECE_CHARACTERS):
        yield text[start:match.end()]
        start = match.end()
    yield text[start:]


def _finished(folder, plan):
    """Whether `folder` holds the vocabulary of `plan`.  Raises UserError where it holds another one."""
    remedy = "choose another --output_dir, or move that vocabulary elsewhere"
    note = storage.join(folder, NOTE)
    if not storage.exists(note):
        present = [name for name in (bpe.TOKENS_FILE, bpe.MERGES_FILE) if storage.exists(storage.join(folder, name))]
        if present:
            raise UserError(f"{folder} holds {present[0]} without {NOTE}, from elsewhere: {remedy}")
        return False
    saved_plan = reading.read_object(note)
    fingerprint = saved_plan.pop("fingerprint", None)
    saved_plan.pop("learned_from", None)
    plans.check(saved_plan, plan, f"{folder} already holds a vocabulary made", remedy)
    if fingerprint and bpe.load(folder).fingerprint != fingerprint:
        raise UserError(f"{folder} holds a vocabulary that was changed after it was made: {remedy}")
    return fingerprint is not None


def _arguments(argv):
    parser = errors.script_parser(__doc__)
    documents.add_arguments(parser)
    add = parser.add_argument
    size = errors.checked(int, lambda value: value >= SMALLEST, f"at least {SMALLEST}, 256 bytes and {bpe.END_OF_TEXT}")
    add("--size", type=size, default=4096, help=f"number of token ids, {bpe.END_OF_TEXT} included")
    add("--output_dir", required=True, help="folder for the vocabulary")
    memory = errors.checked(float, lambda value: 1 <= value < float("inf"), "at least 1")
    add("--memory", type=memory, default=GIGABYTES, metavar="GB",
        help="learn from so many documents, drawn at random, as this much memory takes")
    cleaning.add_argument(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    commands.run(main)
