"""Learns a byte-level BPE vocabulary of a chosen size from text: `encoder.json` and `vocab.bpe` in OpenAI's format.

The merges are learned by Hugging Face's tokenizers (https://github.com/huggingface/tokenizers), which breaks ties in
a fixed order: the same text gives the same bytes.
"""
import json
import os
import sys
import tempfile

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

from importlib.metadata import version

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from configs import commands, errors, progress, reading, start, storage, waiting
from configs.errors import UserError
from datasets import cleaning, cutting, documents, encodings, left_out, plans
from encoder import bpe

NOTE = "vocabulary.json"  # written last: what the two files were made from
SMALLEST = len(bpe.byte_symbols()) + 1  # no merges
TIMES = 2  # a pair seen once teaches nothing
LONGEST = 1000  # bytes: longer words are cut, since tokenizers' time grows with the square of their length


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
                "cleaning": cleaning.RULES[args.clean], "tools": tools, **documents.plan(index)}
        if _finished(args.output_dir, plan):
            print(f"{args.output_dir} is finished: nothing to do")
            return 0
        found = {}
        merges = waiting.within(None, lambda: learn(_texts(index, args.clean, found), args.size - SMALLEST))
        said = [*left_out.described(found, index)]
    if len(merges) < args.size - SMALLEST:
        raise UserError(f"--size {args.size} needs {args.size - SMALLEST} merges and the text of "
                        f"{left_out.many(len(index.file), 'document')} gives {len(merges)}: "
                        + "; ".join([*said, f"give more text, or a --size of at most {len(merges) + SMALLEST}"]))
    print("".join(line + "\n" for line in said), end="")
    # The note comes before the files too, without their fingerprint: files we were stopped at are known as ours.
    note = storage.join(args.output_dir, NOTE)
    storage.write_whole(note, json.dumps(plan, indent=1) + "\n")
    bpe.write(args.output_dir, merges)
    encoder = bpe.load(args.output_dir)
    storage.write_whole(note, json.dumps({**plan, "fingerprint": encoder.fingerprint}, indent=1) + "\n")
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


def _texts(index, rule, found):
    """Yields the text of every document, as create_tfrecords.py encodes it; notes in `found` which have none."""
    with progress.bar(len(index.file), unit="doc") as bar:
        for number in range(len(index.file)):
            document = documents.read(index, number)
            if document.problem:
                left_out.note(found, document.problem, number)
            elif document.text:
                text = cleaning.clean(document.text, rule)
                left_out.note_marks(found, index, number, text)
                yield text
            bar.update()


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
    cleaning.add_argument(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    commands.run(main)
