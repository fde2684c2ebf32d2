"""GPT-2 from a JSON config: trains with evaluation, evaluates, generates text, or says what a run would do.

    python3 main.py --model configs/117M.json [--tpu NAME | grpc://HOST:PORT | local]
    python3 main.py --model configs/117M.json --predict_text "Once upon a time"
"""
import os
import sys
import warnings

import corpus
import errors
import plan
import storage
from configs import resume, schema
from encoder import bpe
from errors import UserError

SAMPLING = ("top_k", "top_p", "temperature", "length", "num_samples", "seed")


def parse_arguments(argv):
    parser = errors.Parser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--model", required=True, metavar="CONFIG.json", help="the run's config, local or gs://")
    parser.add_argument("--tpu", metavar="NAME", help="use this TPU: a name, grpc://HOST:PORT, or local")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a key of the config for this run (JSON value); may be repeated")
    modes = parser.add_argument_group("instead of training")
    modes.add_argument("--eval", action="store_true", help="evaluate the newest checkpoint on the whole eval set")
    modes.add_argument("--plan", action="store_true", help="say what this run would do; writes nothing")
    modes.add_argument("--which_data", type=int, metavar="STEP",
                       help="list the `hash`es of the documents in the batch of this step (1 is the first)")
    modes.add_argument("--predict_text", metavar="TEXT", help="continue this text")
    modes.add_argument("--predict_file", metavar="FILE", help="continue the text in this file")
    options = parser.add_argument_group("generation")
    options.add_argument("--length", type=int, help="tokens to generate (default: 256)")
    options.add_argument("--num_samples", type=int, help="texts to generate (default: 1)")
    options.add_argument("--temperature", type=float,
                         help="below 1: safer; above: wilder; 0: always the likeliest (default: 1)")
    options.add_argument("--top_k", type=int, help="draw from the K likeliest tokens only (default: 40; 0: from all)")
    options.add_argument("--top_p", type=float, help="draw from the likeliest tokens that together have probability P "
                         "(default: 1)")
    options.add_argument("--seed", type=int, help="the same seed gives the same text (default: another each time)")
    args = parser.parse_args(argv)
    _check_arguments(args)
    return args


def _check_arguments(args):
    modes = [name for name in ("eval", "plan") if getattr(args, name)]
    modes += [name for name in ("which_data", "predict_text", "predict_file") if getattr(args, name) is not None]
    if len(modes) > 1:
        raise UserError(f"--{modes[0]} and --{modes[1]} exclude each other; give one")
    if args.which_data is not None and args.which_data < 1:
        raise UserError(f"--which_data is {args.which_data}, but steps are counted from 1")
    given = [name for name in SAMPLING if getattr(args, name) is not None]
    if given and not (modes and modes[0].startswith("predict")):
        raise UserError(f"--{given[0]} needs a text to continue; give --predict_text TEXT or --predict_file FILE")
    limits = {"top_k": (0, None), "top_p": (0, 1), "temperature": (0, None), "length": (1, 10**6),
              "num_samples": (1, 10**6), "seed": (0, 2**31 - 1)}
    for name in given:
        low, high = limits[name]
        value = getattr(args, name)
        if not value >= low or (high is not None and value > high):
            allowed = f"at least {low}" if high is None else f"from {low} to {high}"
            raise UserError(f"--{name} is {value}, but must be {allowed}")


def main(argv=None):
    args = parse_arguments(argv)
    config = schema.load(args.model, args.overrides, notice=_note)
    encoder = bpe.load(config.encoder_path)
    if args.plan:
        print(plan.report(config, _found(config, encoder), _run_problems(config)))
        return 0
    _silence_tensorflow()
    if args.predict_text is not None or args.predict_file is not None:
        import generation  # here and not above: TensorFlow takes seconds, which --plan and a mistake need not cost
        return generation.predict(config, encoder, _prompt(args), args)
    import training
    if args.which_data is not None:
        return training.print_documents(config, encoder, args.which_data)
    if args.eval:
        return training.evaluate_whole(config, encoder, args.tpu)
    return training.train(config, encoder, args.tpu)


def _silence_tensorflow():
    """Before TensorFlow is imported: no lines about its build, its kernels and its libraries' next versions."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def _note(line):
    print(f"note: {line}", file=sys.stderr)


def _run_problems(config):
    """Lines on what --plan sees in model_dir."""
    try:
        return resume.saved_config_warnings(config)
    except UserError as error:
        return [str(error)]


def _found(config, encoder):
    """What --plan shows of the data, or what is wrong with it."""
    def look(split):
        try:
            found = corpus.find(config, split, cache=False)
            corpus.check(found, config, encoder)
        except UserError as error:
            return str(error)
        return found
    return plan.Data(look(corpus.TRAIN), look(corpus.EVAL) if config.eval_steps else '"eval_steps" is 0')


def _prompt(args):
    """The text to continue."""
    if args.predict_text is not None:
        return args.predict_text
    path = args.predict_file
    if not storage.exists(path):
        raise UserError(f"--predict_file {path}: no such file")
    with storage.open_file(path, "rb") as f:
        data = f.read()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"--predict_file {path} is not UTF-8 text (byte {error.start}); convert it first")
    if not text.strip():
        raise UserError(f"--predict_file {path} is empty; write the text to continue into it")
    return text


if __name__ == "__main__":
    errors.run_command(main)
