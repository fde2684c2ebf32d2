"""Config: every setting of a run, its default, meaning and allowed values; loading, validation, saving.

`load` and `from_dict` are the gate: what they return is checked and resolved.  No null is left that stands for another
key's value; those that stand for what lies beside the data, "n_vocab" and "encoder_path", are settled by
datasets/vocabularies.py.  The meanings below are the table in docs/config.md (`markdown`).

Sources of defaults: the original's files and README (https://github.com/ConnorJL/GPT2); beta2 from GPT-3
(https://arxiv.org/abs/2005.14165, appendix B); Adafactor's from https://arxiv.org/abs/1804.04235.
"""
from __future__ import annotations

import dataclasses
import difflib
import json

from configs import aliases, other_trainers, reading, storage
from configs.errors import UserError
from configs.generation import OPTIONS
from configs.values import (
    BOOLEAN,
    CHECKPOINT_PATH,
    FILES,
    FOLDER,
    PATH,
    TEXTS,
    integer,
    number,
    one_of,
    optional,
    task_files,
)

MODEL, MEMORY, OPTIMIZER, RUN, DATA, OUTPUT = "model", "precision, memory", "optimizer", "run", "data", "output"

# What a changed key does to a run that already has checkpoints (configs/resume.py).
NETWORK, START, ORDER, SCHEDULE, UPDATE, FREE = "network", "start", "order", "schedule", "update", "nothing"

DEFAULT_HEAD_SIZE = 64
DEFAULT_DECAY = 0.2  # of max_steps
DEFAULT_BETA1 = {"adam": 0.9, "adafactor": 0.0, "muon": 0.9}
REQUIRED = ("model_dir",)
FILES_INPUT = "tfrecords"
INPUTS = ("openwebtext", "openwebtext_long", "openwebtext_longbiased", FILES_INPUT)

ZERO_SHOT_TASKS = ("text", "wikitext", "ptb", "lambada", "hellaswag")

PROBABILITY = number(low=0, below=1)


def key(group, default, kind, on_resume, meaning):
    return dataclasses.field(default=default, metadata={"group": group, "kind": kind, "on_resume": on_resume,
                                                        "meaning": meaning})


@dataclasses.dataclass(frozen=True)
class Config:
    """Make one with `load` or `from_dict`; the constructor itself checks nothing."""
    model: str = key(MODEL, "GPT2", one_of("GPT2"), NETWORK, "the network; there is one")
    n_ctx: int = key(MODEL, 1024, integer(1, 2**20), NETWORK, "tokens that the network sees at once")
    n_vocab: int | None = key(MODEL, None, optional(integer(1, 2**24)), NETWORK,
        "tokens that the network knows, `<|endoftext|>` included; null = as many as the vocabulary has")
    n_embd: int = key(MODEL, 768, integer(1, 2**16), NETWORK, "width: numbers per token between layers")
    n_layer: int = key(MODEL, 12, integer(1, 1000), NETWORK, "layers")
    n_head: int | None = key(MODEL, None, optional(integer(1)), NETWORK,
        "attention heads; must divide `n_embd`; null = `n_embd` / 64")
    embed_dropout: float = key(MODEL, 0.0, PROBABILITY, UPDATE, "share of the embeddings' sum dropped in training")
    attn_dropout: float = key(MODEL, 0.0, PROBABILITY, UPDATE, "share of the attention weights dropped in training")
    res_dropout: float = key(MODEL, 0.0, PROBABILITY, UPDATE, "share of each layer's two outputs dropped in training")
    initializer_range: float = key(MODEL, 0.02, number(above=0, high=1), START,
        "standard deviation of the starting weights. GPT-2's 0.02 suits widths from about 768 on; a narrow network"
        " learned much faster from about 0.5 / sqrt(`n_embd`) (3 seeds, no p-value)")
    scale_by_depth: bool = key(MODEL, True, BOOLEAN, START,
        "start the residual projections at `initializer_range` / sqrt(2 `n_layer`), as GPT-2 does")
    scale_by_in: bool = key(MODEL, False, BOOLEAN, START,
        "also divide each starting weight by sqrt(fan-in); rarely useful")

    precision: str = key(MEMORY, "float32", one_of("float32", "bfloat16"), FREE,
        "dtype of the activations; weights, optimizer, softmax and loss stay float32. bfloat16 is faster on TPUs"
        " and recent GPUs and needs about half the activation memory")
    micro_batch_size: int | None = key(MEMORY, None, optional(integer(1)), FREE,
        "sequences of the global batch computed at once, by all devices together, but at least one on each; gradients"
        " are summed over the batch, so that less memory gives the same result. Must divide `train_batch_size`; null ="
        " all at once")
    recompute: bool = key(MEMORY, False, BOOLEAN, FREE,
        "keep only each layer's input and compute the rest again going backward: far less memory, about a third"
        " more time")

    opt_name: str = key(OPTIMIZER, "adam", one_of("adam", "adafactor", "muon"), NETWORK,
        "adam is AdamW when `weight_decay` is not 0; adafactor keeps almost no state beside the weights; muon"
        " orthogonalises the updates of the layers' matrices, keeps half of adam's state for them, and treats all other"
        " weights as adam does")
    lr: float = key(OPTIMIZER, 2.5e-4, number(above=0, high=100), SCHEDULE,
        "learning rate at its highest, right after the warm-up; adafactor multiplies it by the size of each tensor"
        " (about 0.02), so that 0.01 is usual there; muon's updates are scaled so that `lr` and `weight_decay`"
        " of adam suit it, too")
    lr_schedule: str = key(OPTIMIZER, "cosine", one_of("cosine", "linear", "constant", "wsd"), SCHEDULE,
        "how lr falls from the end of the warm-up to `max_steps`; \"wsd\" (warm-up, stable, decay) holds lr until the"
        " last `decay_steps`, so that a run can be extended")
    warmup_steps: int = key(OPTIMIZER, 0, integer(0), SCHEDULE,
        'steps in which lr rises to its height; at most `max_steps`. Left out: no warm-up. (The original then'
        ' also held lr constant; here that is `lr_schedule` "constant")')
    decay_steps: int | None = key(OPTIMIZER, None, optional(integer(0)), SCHEDULE,
        "steps at the end of `lr_schedule` \"wsd\" in which lr falls; 0 = it never does; null = a fifth of"
        " `max_steps`. (`decay_type` and `decay_exponent` are adafactor's, and have nothing to do with lr)")
    decay_shape: str = key(OPTIMIZER, "1-sqrt", one_of("linear", "1-sqrt"), SCHEDULE,
        "how lr falls in these steps; \"1-sqrt\" falls fastest at first, and ends with the lower loss in"
        " https://arxiv.org/abs/2405.18392")
    lr_min: float = key(OPTIMIZER, 0.0, number(low=0, high=1), SCHEDULE,
        "lr at `max_steps`, as a fraction of `lr`; 0.1 is usual today, 0 the original's")
    weight_decay: float = key(OPTIMIZER, 0.0, number(low=0), UPDATE,
        "decoupled decay, times the current lr, of tensors of rank >= 2 (never of biases and gains); 0.1 is usual"
        " today. Left out: none, as in the original")
    beta1: float | None = key(OPTIMIZER, None, optional(PROBABILITY), UPDATE,
        "momentum; null = 0.9 for adam, 0 for adafactor (which then stores none), 0.9 for what muon treats as adam does"
        " (for matrices it is always 0.95)")
    beta2: float = key(OPTIMIZER, 0.95, PROBABILITY, UPDATE,
        "decay of the squared gradients, for adam, for what muon treats as adam does, and for adafactor's `decay_type`"
        " \"adam\"; GPT-3's value (the original's files say 0.98)")
    epsilon: float = key(OPTIMIZER, 1e-8, number(above=0), UPDATE, "adam's guard against division by zero")
    decay_type: str = key(OPTIMIZER, "pow", one_of("pow", "adam"), UPDATE,
        "adafactor's decay of squared gradients, not of lr: \"pow\" = 1 - step^-`decay_exponent`, \"adam\" = `beta2`"
        " with bias correction")
    decay_exponent: float = key(OPTIMIZER, 0.8, number(above=0, high=1), UPDATE, 'for `decay_type` "pow"')
    grad_clip: float = key(OPTIMIZER, 1.0, number(low=0), UPDATE,
        "longest gradient, as the norm over all weights; 0 = no limit (the original's)")

    train_batch_size: int = key(RUN, 8, integer(1, 2**20), ORDER,
        "sequences of `n_ctx` tokens per step, over all devices together")
    eval_batch_size: int = key(RUN, 8, integer(1, 2**20), FREE, "sequences per evaluation batch")
    predict_batch_size: int = key(RUN, 1, integer(1, 2**20), FREE, "texts generated at once")
    train_steps: int = key(RUN, 1000, integer(1), FREE, "steps between evaluations")
    eval_steps: int = key(RUN, 10, integer(-1), FREE,
        "batches per evaluation; 0 = no evaluation, -1 = the whole eval set")
    max_steps: int = key(RUN, 100000, integer(1), SCHEDULE, "training stops exactly here, and lr reaches its end here")
    early_stopping: int | None = key(RUN, None, optional(integer(1)), FREE,
        "evaluations without a better loss after which training ends; the best checkpoint is kept in `model_dir`/best,"
        " as always; null = never")
    iterations: int = key(RUN, 100, integer(1), FREE, "steps that a TPU makes between two visits of the host")
    save_checkpoints_steps: int = key(RUN, 1000, integer(1), FREE, "steps between checkpoints")
    save_checkpoints_minutes: float | None = key(RUN, 10.0, optional(number(above=0)), FREE,
        "most minutes of training without a checkpoint, so that a kill costs no more; one that is saved between those"
        " of `save_checkpoints_steps` is replaced by the next; null = only by steps")
    keep_checkpoint_max: int = key(RUN, 5, integer(0), FREE,
        "newest checkpoints by steps that are kept; 0 = all")
    seed: int = key(RUN, 1, integer(0, 2**31 - 1), ORDER, "starting weights, data order and dropout")
    init_checkpoint: str | None = key(RUN, None, optional(PATH), START,
        "start a new run from these weights (not their optimizer or step): a folder or checkpoint of OpenAI's, Hugging"
        " Face's, the original's or ours; a smaller `n_ctx` takes the first positions; null = from scratch")
    resize_vocab: bool = key(RUN, False, BOOLEAN, START,
        "let `init_checkpoint` have another `n_vocab`: ids that both have keep their weights, the others start as in a"
        " new run")
    tpu_project: str | None = key(RUN, None, optional(PATH), FREE,
        "Google Cloud project of the TPU that `--tpu` names; null = `$GOOGLE_CLOUD_PROJECT`, or that of the VM")
    tpu_zone: str | None = key(RUN, None, optional(PATH), FREE,
        "its zone; null = `$CLOUDSDK_COMPUTE_ZONE`, or that of the VM")

    data_path: str = key(DATA, "", FOLDER, FREE,  # whether the shards are others is seen by their fingerprint
        "folder of the shards and their manifest; empty = the current folder")
    input: str = key(DATA, FILES_INPUT, one_of(*INPUTS), FREE,
        "what to read: \"tfrecords\", the shards of any data set; or the original's OpenWebText shards (all; only long"
        " documents; more long ones), by their names")
    train_files: str | tuple | None = key(DATA, None, optional(FILES), FREE,
        'for `input` "tfrecords": what to train on, relative to `data_path` unless absolute or gs://; globs are'
        ' one corpus, weights a mixture; null = the training shards of the one manifest in `data_path`')
    eval_files: str | tuple | None = key(DATA, None, optional(FILES), FREE,
        'for `input` "tfrecords": what to evaluate on, in the same form (read once in order, whatever the'
        ' weights); null = the evaluation shards of that manifest')
    skip_corrupt_records: bool = key(DATA, False, BOOLEAN, FREE,
        "go on without damaged records: every shard is read whole once before the first step, and `model_dir`/repaired"
        " gets a copy of what is good in each damaged one; false = stop and name the record")
    encoder_path: str | None = key(DATA, None, optional(PATH), FREE,
        "folder with encoder.json and vocab.bpe, or with Hugging Face's files; null = the vocabulary of the run in"
        " `model_dir`, else the one in `data_path`/encoder, else GPT-2's own")

    model_dir: str = key(OUTPUT, None, CHECKPOINT_PATH, FREE,
        "folder of the checkpoints, logs and resolved config; must be given")
    predict_path: str | None = key(OUTPUT, None, optional(PATH), FREE,
        "file that generated texts are appended to; null = they are only printed")
    sample_prompts: tuple | None = key(OUTPUT, None, optional(TEXTS), FREE,
        "texts that are continued after each evaluation of a training: on the console, in `model_dir`/samples.txt and"
        " in TensorBoard; null = none")
    sample_length: int = key(OUTPUT, 100, integer(1, OPTIONS["length"].high), FREE, "tokens of each of these samples")
    zero_shot: tuple | None = key(OUTPUT, None, optional(task_files(*ZERO_SHOT_TASKS)), FREE,
        "tasks that are scored after each evaluation of a training, as tools/zero_shot.py does: on the console, in"
        " `model_dir`/metrics.jsonl and in TensorBoard; null = none")

    @property
    def head_size(self):
        return self.n_embd // self.n_head


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def load(path, overrides=(), notice=lambda line: None):
    """The Config in a JSON file, local or gs://.  Raises UserError, one line with file, key, value and remedy.

    `overrides` are "KEY=VALUE" strings, of which later ones win; VALUE is JSON, and what is not JSON is a string.
    `notice` is called with one line for each key of the original that has another name now.
    """
    values = aliases.resolve(reading.read_object(path), path, notice)
    where = dict.fromkeys(values, path)
    for text in overrides:
        option = f"--set {text}"
        new = aliases.resolve(reading.parse_override(text), option, notice, earlier=values)
        values.update(new)
        where.update(dict.fromkeys(new, option))
    return _build(values, where, " --set ".join([path, *overrides]))


def from_dict(values, where):
    """The Config of a dict with any of the keys; `where` names its source in errors (UserError)."""
    values = aliases.resolve(values, where, lambda line: None)
    return _build(values, dict.fromkeys(values, where), where)


def save(config, path):
    """Writes the complete resolved config as JSON, in the order of the fields; `load` gives back an equal Config."""
    storage.write_whole(path, json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def markdown():
    """The table of all keys for docs/config.md, each group under its name."""
    rows, group = ["| key | default | allowed | meaning |", "|---|---|---|---|"], None
    for name, field in FIELDS.items():
        if field.metadata["group"] != group:
            group = field.metadata["group"]
            rows.append(f"| **{group}** | | | |")
        default = "required" if name in REQUIRED else f"`{json.dumps(field.default)}`"
        meaning = field.metadata["meaning"].replace("|", "\\|")
        rows.append(f'| `{name}` | {default} | {field.metadata["kind"].allowed} | {meaning} |')
    return "\n".join(rows) + "\n"


def _build(values, where, everywhere):
    """Checks each value, then resolves the defaults that depend on other keys, then checks that all fit together.

    `where` gives the source of each key, `everywhere` that of the whole.
    """
    for name in values:
        if name not in FIELDS:
            raise UserError(f'{where[name]}: unknown key "{name}"; {_nearest(name)}')
    for name in REQUIRED:
        if name not in values:
            raise UserError(f'{everywhere}: "{name}" is missing; set it to the {FIELDS[name].metadata["meaning"]}')
    config = Config(**{name: _accept(name, value, where[name]) for name, value in values.items()})
    config = dataclasses.replace(
        config, n_head=config.n_embd // DEFAULT_HEAD_SIZE if config.n_head is None else config.n_head,
        beta1=DEFAULT_BETA1[config.opt_name] if config.beta1 is None else config.beta1,
        decay_steps=round(config.max_steps * DEFAULT_DECAY)
        if config.lr_schedule == "wsd" and config.decay_steps is None else config.decay_steps)
    problem = _contradiction(config, values)
    if problem:
        raise UserError(f"{everywhere}: {problem}")
    return config


def _accept(name, value, where):
    field = FIELDS[name]
    kind = field.metadata["kind"]
    storage.check_text(json.dumps(value, ensure_ascii=False), f'{where}: "{name}"')
    try:
        return kind.accept(value)
    except ValueError:
        default = "" if name in REQUIRED else f" (left out: {json.dumps(field.default)})"
        raise UserError(f'{where}: "{name}" is {reading.shown(value)}, but must be {kind.allowed}{default}') from None


def _contradiction(c, stated):
    """What does not fit together in the Config, as one line, or None.  `stated` holds what the user has set."""
    if stated.get("n_head") is None and c.n_embd % DEFAULT_HEAD_SIZE:
        return (f'"n_embd" {c.n_embd} is not a multiple of {DEFAULT_HEAD_SIZE}, so "n_head" has no default; set'
                f' "n_head" to a divisor of {c.n_embd}')
    if c.n_embd % c.n_head:
        return f'"n_embd" {c.n_embd} cannot be split into "n_head" {c.n_head} equal heads; change one of them'
    if c.warmup_steps > c.max_steps:
        return (f'"warmup_steps" {c.warmup_steps} is more than "max_steps" {c.max_steps};'
                ' lower the first or raise the second')
    if c.decay_steps is not None and c.lr_schedule != "wsd":
        return (f'"decay_steps" is {c.decay_steps}, but "lr_schedule" "{c.lr_schedule}" has no such steps; set'
                ' "lr_schedule" to "wsd", or "decay_steps" to null')
    if c.lr_schedule == "wsd" and c.warmup_steps + c.decay_steps > c.max_steps:
        share = ' (a fifth of "max_steps")' if stated.get("decay_steps") is None else ""
        return (f'"warmup_steps" {c.warmup_steps} and "decay_steps" {c.decay_steps}{share} are together more than'
                f' "max_steps" {c.max_steps}; lower one of the first two or raise the third')
    if c.micro_batch_size and c.train_batch_size % c.micro_batch_size:
        return (f'"micro_batch_size" {c.micro_batch_size} does not divide "train_batch_size" {c.train_batch_size};'
                ' use a divisor')
    if c.early_stopping and c.eval_steps == 0:
        return (f'"early_stopping" is {c.early_stopping}, but "eval_steps" 0 means no evaluations; set "eval_steps" to'
                ' -1, or "early_stopping" to null')
    given = [name for name in ("train_files", "eval_files") if getattr(c, name) is not None]
    if given and c.input != FILES_INPUT:
        return (f'"{given[0]}" is given, but "input" "{c.input}" has its own files; set "input" to "{FILES_INPUT}" or'
                f' leave "{given[0]}" out')
    return None


def _nearest(name):
    known = [*FIELDS, *aliases.CURRENT, *other_trainers.HINTS]
    nearest = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    if not nearest:
        return "docs/config.md lists all keys"
    if nearest[0] in other_trainers.HINTS:
        return other_trainers.hint(nearest[0])
    current = aliases.CURRENT.get(nearest[0])
    return f'did you mean "{nearest[0]}"' + (f" (now {current})?" if current else "?")
