"""Says what changes when a run goes on with another config, vocabulary or data than it was started with."""
import json

from configs import reading, schema, storage
from configs.errors import UserError

EFFECT = {
    schema.START: "has no effect: only a new run reads it",
    schema.ORDER: "the data order changes: some tokens come again, others later than planned",
    schema.SCHEDULE: "the learning rate follows the new schedule from here on",
    schema.UPDATE: "the weights are updated differently from here on",
}
CONFIG_FILE = "config.json"  # the resolved config, in model_dir
ANOTHER = 'choose another "model_dir"'  # what else helps where a run does not fit
# Fingerprints of the run's vocabulary and shards, the shards' names, and its batch sizes, in model_dir.
DATA_FILE = "data.json"
# What is read of both by `recorded`; earlier versions noted less.
KINDS = {CONFIG_FILE: {"encoder_path": (str, type(None)), "train_batch_size": (int, type(None))},
         DATA_FILE: {"vocabulary": (str, type(None)), "files": (list, type(None)), "batch_sizes": (list, type(None))}}


def recorded(model_dir, name):
    """The object in a note of the run in model_dir, CONFIG_FILE or DATA_FILE; {} without one.  Raises UserError."""
    path = storage.join(model_dir, name)
    if not storage.exists(path):
        return {}
    remedy = "bring back the one of the run"
    values = reading.read_object(path, remedy)
    try:
        reading.check_kinds(values, KINDS[name])
        if name == DATA_FILE:
            _check_lists(values)
    except ValueError as error:
        raise UserError(f"{path} is not as a run writes it ({error}); {remedy}")
    return values


def _check_lists(noted):
    """Raises ValueError where the lists of DATA_FILE hold something else than names, and pairs of numbers."""
    for name, fits in (("files", lambda one: isinstance(one, str)),
                       ("batch_sizes", lambda one: isinstance(one, list) and list(map(type, one)) == [int, int])):
        wrong = [one for one in noted.get(name) or [] if not fits(one)]
        if wrong:
            raise ValueError(f'"{name}" holds {reading.shown(wrong[0])}')


def batch_sizes(config, step):
    """[[first step, windows in a batch] ...] of the run in model_dir, which goes on from `step` with the config.

    Steps that are gone, because an older checkpoint is the newest again, are forgotten.
    """
    if step == 0:
        return [[0, config.train_batch_size]]
    saved = recorded(config.model_dir, CONFIG_FILE)
    # A run of an earlier version did not note them.
    noted = recorded(config.model_dir, DATA_FILE).get("batch_sizes") or (
        [[0, saved["train_batch_size"]]] if "train_batch_size" in saved else [])
    kept = [[first, size] for first, size in noted if first < step]
    return kept if kept and kept[-1][1] == config.train_batch_size else [*kept, [step, config.train_batch_size]]


def saved_config_warnings(config, otherwise=ANOTHER):
    """The lines of `check_resume` against the config saved in model_dir; none where no config is saved."""
    saved = storage.join(config.model_dir, CONFIG_FILE)
    if not storage.exists(saved):
        return []
    place = f"model_dir={json.dumps(config.model_dir)}"  # the folder may have moved, and have had a name that none may
    return check_resume(schema.load(saved, [place]), config, saved, otherwise)


def check_resume(saved, new, where, otherwise=ANOTHER):
    """Returns warnings, one line each, for a run that began with the config `saved` and goes on with the config `new`.

    `where` is the file that holds `saved`.  Raises UserError when the checkpoints do not fit the new network or its
    optimizer; `otherwise` is the other remedy that it names.
    """
    # Adafactor keeps a momentum for every weight only where beta1 is not zero.
    changes_slots = new.opt_name == "adafactor" and bool(saved.beta1) != bool(new.beta1)
    misfits, warnings = [], []
    for name, field in schema.FIELDS.items():
        before, now = getattr(saved, name), getattr(new, name)
        if before == now:
            continue
        change = f'"{name}" was {reading.shown(before)} and is now {reading.shown(now)}'
        effect = field.metadata["on_resume"]
        if effect == schema.NETWORK or name == "beta1" and changes_slots:
            misfits.append(change)
        elif effect in EFFECT:
            warnings.append(f"{where}: {change}: {EFFECT[effect]}")
    if misfits:
        raise UserError(f'{where}: the checkpoints there do not fit: {", ".join(misfits)}; restore the old value or'
                        f" {otherwise}")
    return warnings


def check_data(config, encoder, train_set=None, otherwise=ANOTHER):
    """Returns warnings, one line each, for other training shards than those that the run in model_dir began with.

    `train_set` is a shard_sets.ShardSet; None: nothing is to be trained.  Raises UserError for another vocabulary;
    `otherwise` is the other remedy that it names.
    """
    path, noted = storage.join(config.model_dir, DATA_FILE), recorded(config.model_dir, DATA_FILE)
    if not noted:
        return []
    if noted.get("vocabulary") != encoder.fingerprint:
        raise UserError(f"{config.model_dir} was trained with another vocabulary ({noted.get('vocabulary')!s:.12}) than"
                        f" that in {config.encoder_path or 'the package of GPT-2'} ({encoder.fingerprint:.12}); set"
                        f' "encoder_path" to that one or {otherwise}')
    if train_set is None or noted.get("shards") == train_set.fingerprint:
        return []
    line = f"{path}: the training shards are not those the run began with: the data order changes"
    if noted.get("files") is not None:
        lost = sorted(set(noted["files"]) - set(train_set.names))
        return [line + (f"; no longer read: {reading.shorten(lost)}" if lost else "")]
    # A run of an earlier version, which did not note the names.
    return [line + (f"; left out now: {reading.shorten(train_set.left_out)}" if train_set.left_out else "")]
