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

__all__ = ["PAIRS", "adamw", "attn", "faster", "mean_loss", "mlp", "norm", "token_losses", "two_uses"]

PAIRS = []  # (formula, its faster twin) of all that is marked


def faster(fast):
    """Marks a formula that `fast`, with the same arguments, replaces where its first one is worth compiling."""
    def decorate(formula):
        assert [*inspect.signature(fast).parameters] == [*inspect.signature(formula).parameters], formula
        PAIRS.append((formula, fast))

        @functools.wraps(formula)
        def choose(x, *arguments, **named):
            return (fast if worth_compiling(x) else formula)(x, *arguments, **named)
        return choose
    return decorate
