"""What each of the original's choices costs: small models on a real text, with each choice alone and with all of them.

Every run is a process of its own that trains through main.py with the real data pipeline, on the same number of
tokens, with evaluations on the whole held-out text.  Results are kept, so an interrupted ablation goes on where it
was.  The p-value of a difference is that of this difference by itself.  Ends with one JSON line.
"""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import hashlib
import json
import os
import statistics
import sysconfig

from benchmarks import options, records, significance, studies
from configs import commands, reading, storage
from configs.errors import UserError
from datasets import create_tfrecords, documents, manifest
from encoder import train as encoder_train

STEPS, SEEDS, PROCESSES, LR = 320, 8, 2, 3e-3
EVALUATIONS = 4
MODEL = {"n_ctx": 64, "n_vocab": 1024, "n_embd": 64, "n_layer": 4, "n_head": 2, "lr_min": 0.1, "weight_decay": 0.1,
         "train_batch_size": 16, "eval_batch_size": 32, "eval_steps": -1, "keep_checkpoint_max": 1,
         "input": "tfrecords"}
WARM_UP = 0.1  # of the steps
# Documents are pieces of files about as long as a window, as web pages are to the original's window of 1,024 tokens.
PIECE_CHARACTERS = 180
HELD_OUT_PIECES, HELD_OUT_SHARE = 50, 0.015  # so many neighbouring pieces are held out together; their share
READ_SHARE = 0.9  # of the training text is read by a run; only choices that do so read anything twice
SHARDS = 40
# Python's own sources as the quick start takes them: without installed packages, tests and tables.
EXCLUDED = ("site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data",
            "msilib")
DEFAULT = "default"
CHOICES = ("tied_dropout", "scale_by_in", "residual_scale", "vector_decay", "no_clipping", "one_window",
           "first_shards_again", "adafactor")
# name: (choices of the original, keys of the config besides)
VARIANTS = {DEFAULT: ((), {}), "tied_dropout": (("tied_dropout",), {}), "sum_dropout": ((), {"embed_dropout": 0.1}),
            **{name: ((name,), {}) for name in CHOICES[1:]},
            "all_but_adafactor": (CHOICES[:-1], {}), "all": (CHOICES, {})}


def main(argv=None):
    """Makes the runs that are missing, prints the table and the JSON line; returns 0."""
    args = _arguments(argv)
    if args.run:
        return run_one(args.output_dir, args.run, args.seed)
    with storage.only_run(os.path.join(args.output_dir, ".lock"), "choose another --output_dir"):
        tokens = prepare(args)
        runs = trained(args)
    results = {}
    for run in runs:
        results.setdefault(run["variant"], []).append(run["loss"])
        if args.record:
            records.append("ablation", run)
    print(table(results))
    print(json.dumps({"tokens": tokens, "lr": args.lr, "val_loss": results}))
    return 0


def _arguments(argv):
    parser = options.parser("ablation", __doc__)
    add = parser.add_argument
    add("--text", metavar="PATH", help="file, folder or glob of text; Python's own sources without it")
    add("--seeds", type=int, default=SEEDS, help=f"runs of each variant; 1 to {significance.MOST_PAIRS}")
    add("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME",
        help="run these variants only, of " + ", ".join(VARIANTS))
    add("--steps", type=int, default=STEPS, help="of each run, with four evaluations")
    add("--lr", type=float, default=LR, help="learning rate of all variants but Adafactor's")
    add("--processes", type=int, default=PROCESSES, help="runs at once, on one core each")
    add("--output_dir", default="runs/ablation", help="folder for the text, the results and the logs")
    add("--record", action="store_true", help="add each run to benchmarks/results/ablation.jsonl")
    add("--run", choices=VARIANTS, help=options.HIDDEN)  # what a process of an ablation does
    add("--seed", type=int, help=options.HIDDEN)
    args = parser.parse_args(argv)
    options.check_least(args, seeds=1, steps=EVALUATIONS, processes=1)
    if args.seeds > significance.MOST_PAIRS:
        raise UserError(f"--seeds {args.seeds} is out of range: the p-value of a difference goes through all 2^seeds"
                        f" signs; give at most {significance.MOST_PAIRS}")
    return args


def prepare(args):
    """Makes text, vocabulary, shards and config in output_dir, once; returns the tokens that a run trains on."""
    folder = args.output_dir
    index = index_of(args.text)
    options.keep_setting(folder, {"steps": args.steps, "lr": args.lr, "text": index.fingerprint})
    _write_pieces(index, folder)
    count = _make_shards(folder)
    tokens = args.steps * MODEL["train_batch_size"] * MODEL["n_ctx"]
    paths = [os.path.abspath(os.path.join(folder, f"train_{i}.tfrecords")) for i in range(count)]
    values = {**MODEL, "lr": args.lr, "warmup_steps": round(WARM_UP * args.steps), "max_steps": args.steps,
              "train_steps": -(-args.steps // EVALUATIONS), "save_checkpoints_steps": args.steps,
              "train_files": _enough(paths, tokens / READ_SHARE),
              "eval_files": os.path.abspath(os.path.join(folder, "eval_*.tfrecords")),
              "encoder_path": os.path.abspath(os.path.join(folder, "encoder")), "model_dir": "unset"}
    storage.write_whole(os.path.join(folder, "config.json"), json.dumps(values, indent=1) + "\n")
    return tokens


def index_of(text):
    """The documents.Index of what --text names; without it, of Python's own sources."""
    return documents.make_index([text or sysconfig.get_path("stdlib")], () if text else EXCLUDED, option="--text")


def _write_pieces(index, folder):
    """Cuts the documents at ends of lines into train.jsonl and eval.jsonl."""
    targets = {split: os.path.join(folder, split + ".jsonl") for split in ("train", "eval")}
    if all(map(storage.exists, targets.values())):
        return
    lines = {split: [] for split in targets}
    for number in range(len(index.file)):
        document = documents.read(index, number)
        for i, piece in enumerate(pieces(document.text or "")):
            digest = hashlib.blake2b(os.fsencode(f"{document.identity}:{i // HELD_OUT_PIECES}"), digest_size=8).digest()
            held_out = int.from_bytes(digest, "big") < HELD_OUT_SHARE * 2 ** 64
            lines["eval" if held_out else "train"].append(json.dumps({"text": piece}) + "\n")
    for split, path in targets.items():
        if not lines[split]:
            raise UserError(f"--text is too short: no piece of it fell to the {split} set; give more")
        storage.write_whole(path, "".join(lines[split]))


def pieces(text):
    """Yields the text cut at ends of lines into pieces of at least PIECE_CHARACTERS, but for the last."""
    piece = ""
    for line in text.splitlines(keepends=True):
        piece += line
        if len(piece) >= PIECE_CHARACTERS:
            yield piece
            piece = ""
    if piece.strip():
        yield piece


def _make_shards(folder):
    """Makes vocabulary and shards, unless they are there; returns the number of shards to train on."""
    def path(name):
        return os.path.join(folder, name)
    encoder_train.main(["--input", path("train.jsonl"), "--size", str(MODEL["n_vocab"]), "--no_ftfy",
                        "--output_dir", path("encoder")])
    with open(path("train.jsonl")) as f:
        count = sum(1 for _ in f)
    for split in ("train", "eval"):
        create_tfrecords.main(["--input", path(split + ".jsonl"), "--name", split, "--output_dir", folder,
                               "--encoder_path", path("encoder"), "--eval_fraction", "0", "--minimum_size", "8",
                               "--no_ftfy", "--processes", "1", "--files_per", str(-(-count // SHARDS))])
    return sum(entry.shard.records > 0 for entry in manifest.load(manifest.path_of(folder, "train")).entries)


def _enough(paths, tokens):
    """The fewest leading shards with that many tokens, or all."""
    held = 0
    shards = manifest.shards_of(manifest.look_up(paths)[0])
    for count, shard in enumerate(map(shards.get, paths), 1):
        held += shard.tokens + shard.records
        if held >= tokens:
            return paths[:count]
    return paths


def run_one(folder, variant, seed):
    """Trains one variant as `main.py` would; returns its exit status."""
    import main as command
    from benchmarks import original  # here: the process that starts the others needs no TensorFlow
    chosen, keys = VARIANTS[variant]
    with original.put_over(chosen) as original_keys:
        keys = {**keys, **original_keys, "seed": seed, "model_dir": os.path.join(folder, f"{variant}-{seed}")}
        return command.main(["--model", os.path.join(folder, "config.json"),
                             *options.set_words(options.overrides(keys))])


def trained(args):
    """Makes the runs that have no result yet; returns the results of all that are wanted, as records.py keeps them."""
    # Seed by seed: an ablation that is cut short has results of every variant.
    runs = [studies.Run(f"{variant}-{seed}", ["-m", "benchmarks.ablation", "--run", variant, "--seed", str(seed),
                                              "--output_dir", args.output_dir], {"variant": variant, "seed": seed})
            for seed in range(1, args.seeds + 1) for variant in VARIANTS if variant in args.only]
    found = studies.results(args.output_dir, runs, args.processes, lambda seconds, figures: {"seconds": seconds})
    setting = reading.read_object(os.path.join(args.output_dir, options.SETTING))
    unknown = dict.fromkeys(records.origin())  # of results that were made before they told it
    return [{"script": "benchmarks.ablation", **setting, **unknown, **result} for result in found]


def table(results):
    """{variant: [loss by seed, None where it diverged]} -> a Markdown table; differences are those at equal seeds."""
    rows = ["| variant | validation loss | spread | difference to the default | p |", "|---|---|---|---|---|"]
    for variant, losses in results.items():
        if None in losses:
            rows.append(f"| {variant} | {losses.count(None)} of {len(losses)} diverged | | | |")
            continue
        difference, p = "", ""
        if variant != DEFAULT and None not in results.get(DEFAULT, [None]):
            pairs = [loss - default for loss, default in zip(losses, results[DEFAULT])]
            difference = f"{statistics.mean(pairs):+.3f} ({min(pairs):+.3f} to {max(pairs):+.3f})"
            p = f"{significance.paired(pairs):.2g}"
        rows.append(f"| {variant} | {statistics.mean(losses):.3f} | {max(losses) - min(losses):.3f} | {difference}"
                    f" | {p} |")
    return "\n".join(rows)


if __name__ == "__main__":
    commands.run(main)
