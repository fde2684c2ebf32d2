"""Translates the original's keys that have another name now, so that its published JSON files load unchanged.

Source: every *.json in the history of https://github.com/ConnorJL/GPT2.
"""
import math

from configs.errors import UserError
from configs.reading import shown

IN_OPT_PARAMS = {"name": "opt_name", "lr": "lr", "warmup_steps": "warmup_steps", "beta1": "beta1", "beta2": "beta2",
                 "epsilon": "epsilon", "weight_decay": "weight_decay", "wd_type": "decay_type",
                 "wd_exponent": "decay_exponent"}
# Two files have "name" at the top level, beside "lr" and "weight_decay".
RENAMED = {old: new for old, new in IN_OPT_PARAMS.items() if old != new}
CURRENT = {"model_path": "model_dir", "scale": "scale_by_depth", "opt_params": "its keys at the top level", **RENAMED}
OPTIMIZERS = ("adam", "adamW", "adafactor")  # the original's

# The original's README names this default; its first "adamW" file leaves the key out.
ADAMW_WEIGHT_DECAY = 0.01
# Two published 25-layer files carry the scale of the 48-layer file that they were copied from.
COPIED_SCALE = {25: 48}
LARGE = 1e9  # beyond every sensible value, and far below where an int no longer fits a float


def resolve(values, where, notice, *, earlier=None):
    """The user's settings `values`, from the file or option `where`, under current keys; unknown keys stay.

    `notice` is called with one line for each alias.  `earlier` is what `values` will override: the file below a --set.
    Raises UserError when an alias contradicts its current key, or when a `scale` is no longer reachable.
    """
    known = {**(earlier or {}), **values}
    current = {key: value for key, value in values.items() if key not in CURRENT}
    for old, new, value in _translate(values, where, notice, known):
        if new in current and current[new] != value:
            raise UserError(f'{where}: "{old}" gives {shown(value)}, but "{new}" gives {shown(current[new])};'
                            f' keep "{new}" alone')
        current[new] = value
    if current.get("opt_name") != "adamW":
        return current
    decay = {**known, **current}.get("weight_decay", ADAMW_WEIGHT_DECAY)
    notice(f'{where}: "opt_name": "adamW" is now "adam" with "weight_decay" ({shown(decay)})')
    return {**current, "opt_name": "adam", "weight_decay": decay}


def _translate(values, where, notice, known):
    """Yields (key as written, current key, value) for every alias."""
    if "model_path" in values:
        notice(f'{where}: "model_path" is now "model_dir"')
        yield "model_path", "model_dir", values["model_path"]
    for old in [name for name in RENAMED if name in values]:
        if old == "name" and values[old] not in OPTIMIZERS:
            raise UserError(f'{where}: "name" is {shown(values[old])}, but in the original it was that of the optimizer'
                            f' ({", ".join(OPTIMIZERS)}), now "opt_name"; leave "name" out')
        notice(f'{where}: "{old}" is now "{RENAMED[old]}"')
        yield old, RENAMED[old], values[old]
    if "opt_params" in values:
        yield from _flatten(values["opt_params"], where, notice)
    if "scale" in values:
        notice(f'{where}: {_depth_scale(values["scale"], known.get("n_layer"), where)}')
        yield "scale", "scale_by_depth", True


def _flatten(opt_params, where, notice):
    if not isinstance(opt_params, dict):
        raise UserError(f'{where}: "opt_params" is {shown(opt_params)}, but must be an object; better give its keys'
                        ' at the top level')
    notice(f'{where}: the keys inside "opt_params" now stand at the top level')
    for old, value in opt_params.items():
        if old not in IN_OPT_PARAMS:
            raise UserError(f'{where}: unknown key "{old}" in "opt_params", which may hold {", ".join(IN_OPT_PARAMS)}')
        if old != IN_OPT_PARAMS[old]:
            notice(f'{where}: "{old}" in "opt_params" is now "{IN_OPT_PARAMS[old]}"')
        yield f"opt_params.{old}", IN_OPT_PARAMS[old], value


def _depth_scale(scale, n_layer, where):
    """The notice for a `scale` that `scale_by_depth` reproduces; UserError for any other value."""
    if not _is_number(n_layer) or n_layer < 1:
        raise UserError(f'{where}: "scale" depends on "n_layer", which is {shown(n_layer)}; set "n_layer" to an'
                        ' integer >= 1, or leave "scale" out')
    original = 1 / math.sqrt(n_layer)
    now = f'"scale_by_depth": true (1/sqrt(2 n_layer) = {original / math.sqrt(2):.4g})'
    for source in (n_layer, COPIED_SCALE.get(n_layer)):
        if source and _is_number(scale) and math.isclose(scale, 1 / math.sqrt(source), rel_tol=1e-3):
            return (f'"scale" is now {now}' if source == n_layer else
                    f'"scale" {scale:.4g} is that of {source} layers; used now: {now}')
    raise UserError(f'{where}: "scale" is {shown(scale)}, but only 1/sqrt(n_layer) = {original:.6g} is known; leave it'
                    ' out and set "scale_by_depth" to true for 1/sqrt(2 n_layer), to false for 1')


def _is_number(value):
    return type(value) in (int, float) and abs(value) < LARGE
