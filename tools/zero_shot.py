"""Scores a checkpoint on WikiText, PTB, LAMBADA, HellaSwag or a text of yours, which it was not trained for.

    python3 tools/zero_shot.py --model mine.json --task lambada --file lambada_test.jsonl

Nothing is downloaded; docs/evaluation.md says where the files are from, what each number is, and what is normal.
"""
import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

import json

from configs import arguments, commands, errors, schema, start, storage
from datasets import vocabularies
from datasets.zero_shot import tasks


def main(argv=None):
    """Prints the numbers of each variant of the task; returns 0."""
    args = _arguments(argv)
    config, encoder = vocabularies.complete(schema.load(args.model, args.overrides, notice=arguments.note))
    # Before TensorFlow is there: a mistake in the file is told at once.
    parts = tasks.read(args.task, args.file, tasks.Given(encoder, config.n_ctx, args.stride, args.limit))
    storage.silence_tensorflow()
    with start.importing():
        from models.checkpoints import run_folder
        from models.run import devices, workarounds, zero_shot
    workarounds.prepare()
    for line in devices.unused_gpus():
        arguments.warn(line)
    if config.precision == "bfloat16":
        arguments.note('the activations are bfloat16, as "precision" says; published numbers are those of float32')
    path = run_folder.trained(config, encoder, "evaluate", args.checkpoint)
    vocabularies.check(config, encoder)
    workarounds.compile_silently()
    for _, variant, numbers in zero_shot.measure(config, path, [(args.task, parts)]):
        if args.json:
            print(json.dumps({"task": args.task, "variant": variant.name, **numbers._asdict()}), flush=True)
            continue
        print(zero_shot.line(args.task, variant, numbers))
        print(f"    {variant.name} is: {variant.meaning}")
        if variant.normal:
            print(f"    normal is: {variant.normal}")
    return 0


def _arguments(argv):
    parser = errors.script_parser(__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--model", required=True, metavar="CONFIG.json", help="the run's config, local or gs://")
    add("--task", required=True, choices=schema.ZERO_SHOT_TASKS, help="what the file holds")
    add("--file", required=True, help="local or gs://")
    add("--stride", type=errors.at_least(1), metavar="N", help="tokens that each window of n_ctx scores, of text,"
        " wikitext and ptb (without it: n_ctx)")
    add("--limit", type=errors.at_least(1), metavar="N", help="read the first N lines of the file, or"
        " all where it has fewer (without it: all)")
    add("--json", action="store_true", help="print a JSON object for each variant and nothing else")
    add("--checkpoint", metavar="best|PATH", help="score this checkpoint (without it: the newest)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a key of the config (JSON value); may be repeated")
    return parser.parse_args(argv)


if __name__ == "__main__":
    commands.run(main)
