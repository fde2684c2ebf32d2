"""Says what changes when a run goes on with another config than the one it was started with."""
from configs import reading, schema, storage
from configs.errors import UserError

EFFECT = {
    schema.START: "has no effect: only a new run reads it",
    schema.ORDER: "the data order changes: some tokens come again, others later than planned",
    schema.SCHEDULE: "the learning rate follows the new schedule from here on",
    schema.UPDATE: "the weights are updated differently from here on",
}
CONFIG_FILE = "config.json"  # the resolved config, in model_dir


def saved_config_warnings(config):
    """The lines of `check_resume` against the config saved in model_dir; none where no config is saved."""
    saved = storage.join(config.model_dir, CONFIG_FILE)
    return check_resume(schema.load(saved), config, saved) if storage.exists(saved) else []


def check_resume(saved, new, where):
    """Warning lines for continuing, with config `new`, a run whose resolved config is `saved`.

    Args:
      where: the file that `saved` came from.
    Raises: UserError when the checkpoints do not fit the new network.
    """
    network, training = compare(saved, new)
    if network:
        raise UserError(f'{where}: the checkpoints there do not fit: {", ".join(map(_words, network))}; restore the old'
                        ' value or choose another "model_dir"')
    return [f"{where}: {_words(change)}: {EFFECT[_effect(change[0])]}" for change in training]


def compare(saved, new):
    """([(key, old, new)] that change the network or its optimizer's state, [(key, old, new)] that change the training).

    Keys that change neither (where and how often to save, how much memory to use) are in no list.
    """
    changes = [(name, getattr(saved, name), getattr(new, name)) for name in schema.FIELDS
               if getattr(saved, name) != getattr(new, name)]
    # Adafactor keeps a momentum for every weight only where beta1 is not zero.
    changes_slots = new.opt_name == "adafactor" and bool(saved.beta1) != bool(new.beta1)
    network = [change for change in changes
               if _effect(change[0]) == schema.NETWORK or change[0] == "beta1" and changes_slots]
    return network, [change for change in changes if change not in network and _effect(change[0]) in EFFECT]


def _effect(name):
    return schema.FIELDS[name].metadata["on_resume"]


def _words(change):
    name, old_value, new_value = change
    return f'"{name}" was {reading.shown(old_value)} and is now {reading.shown(new_value)}'
