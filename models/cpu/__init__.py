"""The formulas of models/gpt2.py and models/optimizers.py once more, faster on CPUs.

`@cpu.faster(f)` puts f in the place of the formula behind it, where that pays.  Both take the same arguments, and
tests/models/cpu/test_pairs.py holds them to the same values and gradients.  compiled.FORMULAS_ONLY switches it off.
"""
import functools
import inspect

from models.cpu.adamw import adamw
from models.cpu.attention import attn
from models.cpu.compiled import worth_compiling
from models.cpu.loss import mean_loss, token_losses, two_uses
from models.cpu.mlp import mlp, norm
from models.cpu.muon import orthogonal, pays

__all__ = ["PAIRS", "adamw", "attn", "faster", "mean_loss", "mlp", "norm", "orthogonal", "pays", "token_losses",
           "two_uses"]

PAIRS = []  # (formula, its faster twin) of all that is marked


def _first_is_large(x, *_, **__):
    return worth_compiling(x)


def faster(fast, where=_first_is_large):
    """Marks a formula that `fast` replaces where `where` is true, both with the same arguments.

    That is normally where the first of them is worth compiling.
    """
    def decorate(formula):
        assert [*inspect.signature(fast).parameters] == [*inspect.signature(formula).parameters], formula
        PAIRS.append((formula, fast))

        @functools.wraps(formula)
        def choose(*arguments, **named):
            return (fast if where(*arguments, **named) else formula)(*arguments, **named)
        return choose
    return decorate
