"""main.py's command line: the arguments, and which of them go together."""
import os
import shlex
import sys

from configs import errors, generation, schema, storage, tpu_names
from configs.errors import UserError

TRAIN, EVAL, PLAN, WHICH_DATA, PREDICT, INTERACTIVE, EXPORT = MODES = (
    "train", "eval", "plan", "which_data", "predict", "interactive", "export")
STRATEGIES = ("mirrored", "multi_worker")
# What is given in the place of training -> the mode.
IN_PLACE = {"eval": EVAL, "plan": PLAN, "interactive": INTERACTIVE, "which_data": WHICH_DATA, "predict_text": PREDICT,
            "predict_file": PREDICT, "export_dir": EXPORT}
BEST = "best"  # what --checkpoint calls the best checkpoint of the run


def parse(argv):
    """The arguments, with `mode` (one of MODES) and `generation` ({option that is given: value}).  Raises UserError."""
    parser = errors.Parser(description="GPT-2 from a JSON config: trains with evaluation, evaluates, generates text,"
                           " exports, or says what a run would do.", allow_abbrev=False)
    parser.add_argument("--model", required=True, metavar="CONFIG.json", help="the run's config, local or gs://")
    parser.add_argument("--tpu", metavar="NAME", help="use this TPU: a name, grpc://HOST:PORT, or local")
    parser.add_argument("--tpu_project", metavar="PROJECT", help="Google Cloud project of the TPU (default: the"
                        " config's tpu_project, $GOOGLE_CLOUD_PROJECT, that of this VM)")
    parser.add_argument("--tpu_zone", metavar="ZONE", help="zone of the TPU (default: the config's tpu_zone,"
                        " $CLOUDSDK_COMPUTE_ZONE, that of this VM)")
    parser.add_argument("--strategy", choices=STRATEGIES, help="train on all GPUs of this machine (mirrored),"
                        " or of the hosts in TF_CONFIG (multi_worker); without it, on all that there are")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a key of the config for this run (JSON value); may be repeated")
    instead = parser.add_argument_group("instead of training")
    _add_modes(instead.add_mutually_exclusive_group())
    instead.add_argument("--checkpoint", metavar="best|PATH", help="evaluate, continue texts with, or export this"
                         " checkpoint and not the newest: the best of the run, a checkpoint of any run"
                         " (runs/mine/model.ckpt-1000), or the newest in a folder")
    _add_options(parser.add_argument_group("generation"))
    args = parser.parse_args(argv)
    _check(args)
    args.mode = next(map(IN_PLACE.get, _given(args, IN_PLACE)), TRAIN)
    args.generation = {name: generation.check(name, getattr(args, name), f"--{name}")
                       for name in _given(args, [*generation.OPTIONS, "stop"])}
    return args


def _add_modes(group):
    add = group.add_argument
    add("--eval", action="store_true", help="evaluate the newest checkpoint on the whole eval set")
    add("--plan", action="store_true", help="say what this run would do; writes nothing")
    add("--which_data", type=errors.at_least(1), metavar="STEP",
        help="list the documents in the batch of this step (1 is the first), by their paths")
    add("--predict_text", metavar="TEXT", help="continue this text")
    add("--predict_file", metavar="FILE", help="continue the text in this file; a .jsonl has many: a line"
        ' {"prompt": TEXT} each, with options of its own where it names them ("length": 20)')
    add("--interactive", action="store_true", help="continue each line of standard input as it comes: the weights are"
        " loaded once; Ctrl-C ends the text, not the program (CPU or GPU only)")
    add("--export_dir", metavar="DIR", help="write the newest checkpoint as a SavedModel, with the signatures generate"
        " and score and the vocabulary as assets")


def _add_options(group):
    for name, option in generation.OPTIONS.items():
        default = "" if option.default is None else f" (default: {option.default:g})"
        group.add_argument(f"--{name}", type=option.kind, help=option.meaning + default)
    group.add_argument("--stop", action="append", metavar="TEXT", help="end a text before this one; may be repeated")
    group.add_argument("--int8", action="store_true", help="behind the prompt, multiply with weights of eight bits:"
                       " faster on a CPU with VNNI; the texts differ a little")
    group.add_argument("--json", action="store_true", help="print one JSON object per text and nothing else: prompt,"
                       " text, tokens (ids, the one that ended it included), logprobs (of each token under the model's"
                       " own distribution, before temperature, penalty, top_k and top_p), stop (length, eot, stop, or"
                       " with --interactive interrupted)")


def _given(args, names):
    """Returns the names of the options that the user gave, out of `names`."""
    values = {name: getattr(args, name) for name in names}
    return [name for name, value in values.items() if value is not None and value is not False]  # 0 is a value


def _check(args):
    """Raises UserError where arguments exclude or need each other."""
    modes = _given(args, IN_PLACE)
    if args.strategy and (modes or args.tpu):
        raise UserError(f"--strategy is for training on GPUs and hosts; leave it out with --{(modes or ['tpu'])[0]}")
    place = _given(args, ["tpu_project", "tpu_zone"])
    if place and args.tpu is None:
        raise UserError(f"--{place[0]} says where a TPU is; give --tpu NAME, too")
    if args.checkpoint is not None and (not modes or IN_PLACE[modes[0]] in (PLAN, WHICH_DATA)):
        raise UserError("--checkpoint is for --eval, --predict_text, --predict_file, --interactive and --export_dir;"
                        f" leave it out {f'with --{modes[0]}' if modes else 'to train'}")
    options = _given(args, [*generation.OPTIONS, "stop", "json", "int8"])
    if options and not (modes and modes[0].startswith(("predict", "interactive"))):
        raise UserError(f"--{options[0]} needs a text to continue; give --predict_text TEXT, --predict_file FILE or"
                        " --interactive")
    for name, text in [("predict_text", args.predict_text or ""), *(("stop", text) for text in args.stop or [])]:
        storage.check_text(text, f"--{name}")
    if args.int8 and args.tpu is not None:
        raise UserError("--int8 is for the processor of this machine; leave it out with --tpu")


def check_tpu_paths(args, config):
    """Raises UserError where a TPU node would need a file that lies on this machine.

    A node reads data and checkpoints itself, and sees no disk but its own.  A TPU VM is one machine with its TPU.
    """
    trains = args.mode in (TRAIN, PLAN)
    evaluates = args.mode == EVAL or trains and config.eval_steps != 0
    keys = [("model_dir", config.model_dir), *(_data_paths(config, "train_files") if trains else []),
            *(_data_paths(config, "eval_files") if evaluates else [])]
    chosen = [("--checkpoint", args.checkpoint)] if args.checkpoint not in (None, BEST) else []
    for name, path in [(f'"{key}"', path) for key, path in keys] + chosen:
        if args.tpu != tpu_names.LOCAL and not storage.is_remote(path):
            raise UserError(f"--tpu {args.tpu} is another machine, which cannot read {name} {path} here; copy it with"
                            f" `gsutil -m cp -r` and set {name} to gs://BUCKET/..., or give --tpu local on a TPU VM")


def _data_paths(config, key):
    """[(key to change, path or glob)] for the shards that `key` names."""
    given = getattr(config, key)
    if config.input != schema.FILES_INPUT or given is None:
        return [("data_path", config.data_path or ".")]
    globs = (given,) if isinstance(given, str) else [part if isinstance(part, str) else part[0] for part in given]
    paths = [(storage.join(config.data_path, pattern), pattern) for pattern in globs]
    return [(key if path == pattern else "data_path", path) for path, pattern in paths]


def find_tpu(args, config):
    """The tpu_names.Tpu that is named, None without one or where the mode needs none.  Raises UserError in seconds."""
    if not args.tpu or args.mode in (INTERACTIVE, EXPORT, WHICH_DATA):
        return None
    check_tpu_paths(args, config)
    return tpu_names.find(args.tpu, args.tpu_project or config.tpu_project, args.tpu_zone or config.tpu_zone)


def command(args, *more):
    """The command line of the same config with other options, as a shell takes it."""
    program = sys.argv[0] if os.path.basename(sys.argv[0]) == "main.py" else "main.py"
    overrides = [word for text in args.overrides for word in ("--set", text)]
    return shlex.join(["python3", program, "--model", args.model, *overrides, *more])


def note(line):
    """Shows what the user should know, on standard error."""
    print(f"note: {errors.printable(line)}", file=sys.stderr)


def warn(line):
    """Shows what may spoil the run, on standard error."""
    print(f"warning: {errors.printable(line)}", file=sys.stderr)
