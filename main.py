"""GPT-2 from a JSON config: trains with evaluation, evaluates, generates text, or says what a run would do.

    python3 main.py --model configs/117M.json [--tpu NAME | grpc://HOST:PORT | local]
    python3 main.py --model configs/117M.json --predict_text "Once upon a time"
"""
import sys

from configs import commands, errors, resume, schema, storage, tpu_names
from configs.errors import UserError
from datasets import shard_sets
from encoder import bpe, prompts
from models.run import devices, plan


def parse_arguments(argv):
    parser = errors.Parser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--model", required=True, metavar="CONFIG.json", help="the run's config, local or gs://")
    parser.add_argument("--tpu", metavar="NAME", help="use this TPU: a name, grpc://HOST:PORT, or local")
    parser.add_argument("--tpu_project", metavar="PROJECT", help="Google Cloud project of the TPU (default: the"
                        " config's tpu_project, $GOOGLE_CLOUD_PROJECT, that of this VM)")
    parser.add_argument("--tpu_zone", metavar="ZONE", help="zone of the TPU (default: the config's tpu_zone,"
                        " $CLOUDSDK_COMPUTE_ZONE, that of this VM)")
    parser.add_argument("--strategy", choices=devices.CHOICES, help="train on all GPUs of this machine (mirrored),"
                        " or of the hosts in TF_CONFIG (multi_worker); without it, on all that there are")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a key of the config for this run (JSON value); may be repeated")
    modes = parser.add_argument_group("instead of training")
    modes.add_argument("--eval", action="store_true", help="evaluate the newest checkpoint on the whole eval set")
    modes.add_argument("--plan", action="store_true", help="say what this run would do; writes nothing")
    modes.add_argument("--which_data", type=int, metavar="STEP",
                       help="list the `hash`es of the documents in the batch of this step (1 is the first)")
    modes.add_argument("--predict_text", metavar="TEXT", help="continue this text")
    modes.add_argument("--predict_file", metavar="FILE", help="continue the text in this file; a .jsonl has many: a"
                       ' line {"prompt": TEXT} each, with options of its own where it names them ("length": 20)')
    modes.add_argument("--interactive", action="store_true", help="continue each line of standard input as it comes:"
                       " the weights are loaded once; Ctrl-C ends the text, not the program (CPU or GPU only)")
    modes.add_argument("--export_dir", metavar="DIR", help="write the newest checkpoint as a SavedModel, with the"
                       " signatures generate and score and the vocabulary as assets")
    options = parser.add_argument_group("generation")
    for name, option in prompts.OPTIONS.items():
        default = "" if option.default is None else f" (default: {option.default:g})"
        options.add_argument(f"--{name}", type=option.kind, help=option.meaning + default)
    options.add_argument("--stop", action="append", metavar="TEXT", help="end a text before this one; may be repeated")
    options.add_argument("--json", action="store_true", help="print one JSON object per text and nothing else: prompt,"
                         " text, tokens (ids, the one that ended it included), logprobs (of each token under the"
                         " model's own distribution, before temperature, penalty, top_k and top_p), stop (length, eot,"
                         " stop, or with --interactive interrupted)")
    args = parser.parse_args(argv)
    _check_arguments(args)
    return args


def _check_arguments(args):
    modes = [name for name in ("eval", "plan", "interactive") if getattr(args, name)]
    modes += [name for name in ("which_data", "predict_text", "predict_file", "export_dir")
              if getattr(args, name) is not None]
    if len(modes) > 1:
        raise UserError(f"--{modes[0]} and --{modes[1]} exclude each other; give one")
    if args.strategy and (modes or args.tpu):
        raise UserError(f"--strategy is for training on GPUs and hosts; leave it out with --{(modes or ['tpu'])[0]}")
    place = [name for name in ("tpu_project", "tpu_zone") if getattr(args, name) is not None]
    if place and args.tpu is None:
        raise UserError(f"--{place[0]} says where a TPU is; give --tpu NAME, too")
    if args.which_data is not None and args.which_data < 1:
        raise UserError(f"--which_data is {args.which_data}, but steps are counted from 1")
    given = [name for name in (*prompts.OPTIONS, "stop") if getattr(args, name) is not None]
    given += ["json"] if args.json else []
    if given and not (modes and modes[0].startswith(("predict", "interactive"))):
        raise UserError(f"--{given[0]} needs a text to continue; give --predict_text TEXT, --predict_file FILE or"
                        " --interactive")


def _generation_options(args):
    """{name: checked value} of the options of generation that are given."""
    return {name: prompts.check(name, getattr(args, name), f"--{name}") for name in (*prompts.OPTIONS, "stop")
            if getattr(args, name) is not None}


def main(argv=None):
    args = parse_arguments(argv)
    given = _generation_options(args)
    config = schema.load(args.model, args.overrides, notice=_note)
    encoder = bpe.load(config.encoder_path)
    if args.plan:
        print(plan.report(config, _found(config, encoder), _run_problems(config, args)))
        return 0
    storage.silence_tensorflow()
    if args.tpu and not args.interactive and args.export_dir is None and args.which_data is None:
        # Before the data are looked at, which may take longer: what is wrong with the TPU is said in seconds.
        _check_tpu_paths(config, args)
        args.tpu = tpu_names.find(args.tpu, args.tpu_project or config.tpu_project, args.tpu_zone or config.tpu_zone)
    if args.predict_text is not None or args.predict_file is not None:
        texts = prompts.read(args.predict_file, given) if args.predict_text is None \
            else [prompts.make(args.predict_text, given)]
        # Here and not above: TensorFlow takes seconds, which --plan and a mistake need not cost.
        from models.run import predict
        return predict.predict(config, encoder, texts, args)
    if args.interactive:
        from models.run import interactive
        return interactive.run(config, encoder, given, args)
    if args.export_dir is not None:
        from models.run import export
        return export.write(config, encoder, args.export_dir, args.tpu)
    from models.run import training
    if args.which_data is not None:
        return training.print_documents(config, encoder, args.which_data)
    if args.eval:
        return training.evaluate_whole(config, encoder, args.tpu)
    return training.train(config, encoder, args.tpu, args.strategy)


def _note(line):
    print(f"note: {line}", file=sys.stderr)


def _check_tpu_paths(config, args):
    generates = args.predict_text is not None or args.predict_file is not None
    tpu_names.check_paths(config, args.tpu, train=not generates and not args.eval,
                          evaluate=args.eval or not generates and config.eval_steps != 0)


def _run_problems(config, args):
    """Lines on what --plan sees in model_dir, in init_checkpoint, and on what a TPU would not see."""
    problems = []
    checks = [_check_bucket, resume.saved_config_warnings, _check_start]
    checks += [lambda config: _check_tpu_paths(config, args)] if args.tpu else []
    for check in checks:
        try:
            problems += check(config) or []
        except UserError as error:
            problems.append(str(error))
    return problems


def _check_bucket(config):
    """Raises TensorFlow's error, which names the bucket, where model_dir lies in one that is not there."""
    if storage.is_remote(config.model_dir):
        storage.glob(storage.join(config.model_dir, "*"))  # to ask for one object would only say that it is not there


def _check_start(config):
    """Raises UserError where the run cannot start from its init_checkpoint: shapes alone are looked at."""
    if config.init_checkpoint and not storage.exists(storage.join(config.model_dir, "checkpoint")):
        storage.silence_tensorflow()
        from models.checkpoints import (
            warm_start as sources,  # TensorFlow reads its own checkpoints: only who starts from weights waits for it
        )
        sources.check(sources.open_source(config.init_checkpoint), config)


def _found(config, encoder):
    """What --plan shows of the data, or what is wrong with it."""
    def look(split):
        try:
            found = shard_sets.find(config, split, cache=False)
            shard_sets.check(found, config, encoder)
        except UserError as error:
            return str(error)
        return found
    return plan.Data(look(shard_sets.TRAIN), look(shard_sets.EVAL) if config.eval_steps else '"eval_steps" is 0')


if __name__ == "__main__":
    commands.run(main)
