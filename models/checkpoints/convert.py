"""Converts weights between the formats of OpenAI, Hugging Face and the original and ours, and proves each result.

"branch" is the one command that converts nothing: models/checkpoints/branch.py.

    python3 -m models.checkpoints import-openai SRC DST     # then: python3 main.py --model DST/model.json
    python3 -m models.checkpoints import-hf SRC DST --data data/mine
    python3 -m models.checkpoints export-hf MODEL.json DST
    python3 -m models.checkpoints export-openai MODEL.json DST
    python3 -m models.checkpoints inspect PATH
    python3 -m models.checkpoints branch RUN/model.ckpt-800 NEW_MODEL_DIR
"""
import json
import logging

from configs import arguments, errors, schema, start, storage
from configs.errors import UserError
from datasets import fitting, vocabularies
from datasets.window_order import WindowOrder
from encoder import bpe, formats
from models.weights import count, misfits

FROM_OPENAI, FROM_HF, TO_HF, TO_OPENAI = "import-openai", "import-hf", "export-hf", "export-openai"
MODEL_FILE, PROOF_FILE, WEIGHTS = "model.json", "conversion.json", "weights.ckpt"
# What model.json says besides the sizes: careful fine-tuning, without --data on the data set that the docs make first.
FINE_TUNING = {"lr": 5e-5, "warmup_steps": 100, "lr_min": 0.1, "weight_decay": 0.1, "train_batch_size": 8,
               "train_steps": 500, "max_steps": 2000, "save_checkpoints_steps": 500, "data_path": "data/openwebtext"}
EPOCHS = 3  # of --data, at most
LARGE = 5 * 10**8  # parameters; such a model starts with the keys of LEAN, so that it fits more machines
LEAN = {"micro_batch_size": 1, "recompute": True}


def main(argv=None):
    args = _arguments(argv)
    with start.importing():
        import tensorflow.compat.v1 as tf  # here and not above: it takes seconds, which --help need not cost
    tf.disable_eager_execution()
    tf.get_logger().setLevel(logging.CRITICAL)  # what goes wrong reaches the user as an exception
    return args.run(args)


def _arguments(argv):
    parser = errors.Parser(prog="-m models.checkpoints", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name, run, meaning, first, *more):
        command = commands.add_parser(name, help=meaning, description=meaning)
        for argument, what in ((first, first), *more):
            command.add_argument(argument.lower(), metavar=argument, help=what)
        command.set_defaults(run=run, command=name)
        return command
    destination = ("DST", "new folder for the result")
    for name, what in ((FROM_OPENAI, "OpenAI's or the original's TensorFlow checkpoint"),
                       (FROM_HF, "Hugging Face's safetensors and config.json")):
        command = add(name, _import, f"{what} -> a checkpoint and a {MODEL_FILE} for main.py", "SRC", destination)
        command.add_argument("--n_head", type=int, help="attention heads, where no file beside the weights tells them"
                             " (default: n_embd / 64)")
        command.add_argument("--data", metavar="FOLDER", help=f"folder of the shards that {MODEL_FILE} is to train on")
    for name, what in ((TO_HF, "files that transformers loads"), (TO_OPENAI, "files that OpenAI's programs load")):
        add(name, _export, f"the newest checkpoint of a config -> {what}", "MODEL.json", destination)
    command = add("inspect", _inspect, "what weights, whatever their format, hold", "PATH")
    command.add_argument("--sha256", action="store_true", help="read every tensor and print its sha256")
    add("branch", _branch, "one checkpoint of a run -> a new run that goes on from it", "CHECKPOINT",
        ("DST", "new folder, the new run's model_dir"))
    return parser.parse_args(argv)


def _import(args):
    from models.checkpoints import any_format, proof, tf_checkpoint
    source = any_format.open_weights(args.src)
    right = FROM_OPENAI if source.kind == tf_checkpoint.KIND else FROM_HF
    if args.command != right:
        raise UserError(f"{args.src} holds weights of another format ({source.kind}); use {right}")
    destination = args.dst.rstrip("/")
    with storage.new_folder(destination) as folder:
        values = _sizes(source, args.n_head)
        files = _vocabulary_files(source.path.rpartition("/")[0] or ".", args.data)
        values.update(_take_vocabulary(files, folder, destination, values["n_vocab"], args.data))
        values.update({**FINE_TUNING, **(LEAN if count(source.shapes) >= LARGE else {}), "model_dir": destination,
                       "init_checkpoint": storage.join(destination, WEIGHTS)})
        if args.data:
            fingerprint = files and bpe.fingerprint(storage.join(folder, bpe.FOLDER))
            values.update(_for_data(values, args.data, fingerprint, destination))
        config = schema.from_dict(values, source.path)
        problem = misfits(source.shapes, config)
        if problem:
            raise UserError(f"{source.path} holds no whole GPT-2: {problem}; fetch it anew")
        tf_checkpoint.write(storage.join(folder, WEIGHTS), source.shapes, source.read)
        result = tf_checkpoint.open_weights(storage.join(folder, WEIGHTS))
        _write_proof(folder, *proof.prove(source, result, config), source)
        storage.write_whole(storage.join(folder, MODEL_FILE), json.dumps(values, indent=4) + "\n")
    print(f"{destination}/{MODEL_FILE}: train with your data or generate, python3 main.py --model"
          f" {destination}/{MODEL_FILE}")
    return 0


def _export(args):
    from models.checkpoints import any_format, hugging_face, proof, run_folder, tf_checkpoint
    config, encoder = vocabularies.complete(schema.load(vars(args)["model.json"], notice=arguments.note))
    path = run_folder.trained(config, encoder, "export")
    source = any_format.open_weights(path or config.init_checkpoint)
    problem = misfits(source.shapes, config)
    if problem:  # init_checkpoint may have more positions or tokens
        raise UserError(f"{source.path} is not the network of the config: {problem}; train first")
    data = bpe.read_files(config.encoder_path)
    destination = args.dst.rstrip("/")
    with storage.new_folder(destination) as folder:
        if args.command == TO_HF:
            hugging_face.write_folder(folder, config, source.shapes, source.read, encoder.eot)
            formats.write_hugging_face(folder, data, config.n_ctx)
        else:
            tf_checkpoint.write_folder(folder, config, source.shapes, source.read)
            formats.write(folder, data)
        _write_proof(folder, *proof.prove(source, any_format.open_weights(folder), config), source)
    print(f"{destination}: written from {source.path}")
    return 0


def _inspect(args):
    from models.checkpoints import any_format, proof
    source = any_format.open_weights(args.path)
    sizes = ", ".join(f"{name} {value}" for name, value in source.config_values.items())
    print(f"{source.path}: {source.kind}, {len(source.shapes)} tensors, {count(source.shapes):,} parameters\n{sizes}")
    for name, shape in source.shapes.items():
        digest = "  " + proof.digest(source, name) if args.sha256 else ""
        print(f"{errors.printable(name):24} {source.dtypes[name]:9} {'x'.join(map(str, shape)):14}{digest}".rstrip())
    for name, shape in source.not_weights.items():
        print(f"{errors.printable(name):24} not a weight {'x'.join(map(str, shape))}".rstrip())
    return 0


def _branch(args):
    from models.checkpoints import branch
    return branch.run(args)


def _sizes(source, n_head):
    """{config key: value} of the network's sizes.  Raises UserError where the attention heads are not clear."""
    values = dict(source.config_values)
    told = values.get("n_head")
    if n_head is not None and told not in (None, n_head):
        raise UserError(f"--n_head is {n_head}, but the files beside {source.path} say {told}; leave --n_head out")
    values["n_head"] = told or n_head or values["n_embd"] / schema.DEFAULT_HEAD_SIZE
    if values["n_head"] != int(values["n_head"]):
        raise UserError(f"{source.path}: no file beside it tells the attention heads, and its width {values['n_embd']}"
                        f" is no multiple of {schema.DEFAULT_HEAD_SIZE}; give --n_head")
    if not (told or n_head):
        arguments.note(f"no file beside {source.path} tells the attention heads: n_head is n_embd /"
                       f" {schema.DEFAULT_HEAD_SIZE} = {values['n_head']:.0f}, as in all of GPT-2's sizes; --n_head"
                       " says otherwise")
    return {**values, "n_head": int(values["n_head"])}


def _vocabulary_files(folder, data):
    """The vocabulary's files in a folder of weights, as formats.find; formatted as those beside the shards `data`."""
    files = formats.find(folder)
    beside = formats.find(storage.join(data, bpe.FOLDER)) if data else None
    return beside if files and beside and formats.same(files, beside) else files


def _take_vocabulary(files, folder, destination, n_vocab, data):
    """Writes the vocabulary's `files`, those beside the weights; returns the config keys that say where."""
    if files is None:
        known = bpe.load().size
        if data or n_vocab >= known:
            whose = f"that of {data}" if data else "GPT-2's own"
            arguments.note(f"no vocabulary lies beside the weights: they are used with {whose}")
        else:
            arguments.note(f"no vocabulary lies beside the weights, and GPT-2's {known} ids are not their {n_vocab}:"
                           f' set "encoder_path" in {destination}/{MODEL_FILE}')
        return {}
    encoder = formats.write(storage.join(folder, bpe.FOLDER), files)
    if encoder.size > n_vocab:
        raise UserError(f"the vocabulary beside the weights has {encoder.size} ids, and they are for {n_vocab}; take"
                        " its files out of the folder to import the weights alone")
    return {"encoder_path": storage.join(destination, bpe.FOLDER)}


def _for_data(values, data, fingerprint, destination):
    """The config keys that train on the shards in the folder `data`, in steps that fit them.

    `fingerprint` is that of the weights' vocabulary, or None.  Raises UserError where the shards have another one.
    """
    config = schema.from_dict({**values, "data_path": data}, f"--data {data}")
    train, held_out = fitting.sets(config)
    largest = max(shard.largest_id for shard in train.shards)
    other = None not in (fingerprint, train.vocabulary) and fingerprint != train.vocabulary
    if other or largest >= config.n_vocab:
        what = "with another vocabulary than the weights'" if other else \
            f"with ids up to {largest}, and the weights know {config.n_vocab} tokens"
        anew = "with the vocabulary of the weights" if fingerprint is None else \
            "without --encoder_path" if fingerprint == bpe.fingerprint() else \
            f"with --encoder_path {destination}/{bpe.FOLDER}, after an import without --data,"
        raise UserError(f"--data {data} was encoded {what}; encode its text anew {anew} to use it here")
    windows = WindowOrder.of(config, train).windows
    found = fitting.steps(windows, batch=config.train_batch_size, epochs=EPOCHS, most=config.max_steps)
    return {"data_path": data, **found, **fitting.evaluations(
        found, held_out, n_ctx=config.n_ctx, eval_batch=config.eval_batch_size, between=config.train_steps)}


def _write_proof(folder, report, lines, source):
    storage.write_whole(storage.join(folder, PROOF_FILE),
                        json.dumps({"source": source.path, "kind": source.kind, **report}, indent=1) + "\n")
    for line in lines:
        print(line)
    print(f"sha256 of each tensor: {PROOF_FILE}")
