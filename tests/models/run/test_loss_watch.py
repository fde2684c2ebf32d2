"""Spikes and divergence, told from the losses of a training."""
import math

import numpy as np
import pytest

from configs import schema
from models.run import loss_watch


def spikes(losses):
    watch = loss_watch.SpikeWatch()
    return [number for number, loss in enumerate(losses) if watch.usual(loss) is not None]


def noisy(losses, seed=0):
    return losses + np.random.RandomState(seed).randn(len(losses)) * 0.05


FALLING = 2.0 + 8.0 * np.exp(-np.arange(1000) / 150)


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_the_fall_of_the_loss_are_no_spikes(seed):
    assert spikes(noisy(FALLING, seed)) == []


def test_every_jump_is_a_spike_also_when_it_follows_another():
    losses = noisy(FALLING)
    losses[[400, 402, 700]] += [5, 3, 1.0]
    assert spikes(losses) == [400, 402, 700]


def test_the_first_steps_are_never_spikes():
    losses = noisy(FALLING[:40])
    losses[20] += 5
    assert spikes(losses) == []


def test_a_new_level_is_told_of_and_then_grown_used_to():
    losses = noisy(np.where(np.arange(1500) < 500, 3.0, 6.0))
    losses[1400] = 9
    found = spikes(losses)
    assert found[0] == 500 and found[-1] == 1400
    assert all(number < 700 for number in found[:-1]) and len(found) < 5


V = 300
BOUND = math.log(V) + 1


def warnings(losses, first=1, warmup_steps=0):
    """[(step, line)] of what a LossWatch says of a run's losses, of which the first is that of step `first`."""
    config = schema.from_dict({"model_dir": "x", "n_vocab": V, "lr": 0.5, "warmup_steps": warmup_steps}, "here")
    watch = loss_watch.LossWatch(config, first - 1)
    said = [(step, watch.warning(step, loss)) for step, loss in enumerate(losses, first)]
    return [(step, line) for step, line in said if line]


def run_of(*stretches):
    """Noisy losses: (loss, steps) one after the other."""
    return noisy(np.concatenate([np.full(steps, loss) for loss, steps in stretches]))


def test_a_diverging_run_is_named_once_by_its_learning_rate_and_not_by_the_documents_of_a_batch():
    (step, line), = warnings(run_of((3, 100), (BOUND + 1, 300), (BOUND + 9, 300)))
    assert step == 150
    assert line == ('diverging: lower "lr" (0.5); for 50 steps the loss has been above 6.70, which is ln("n_vocab") +'
                    " 1: worse than guessing")


def test_a_run_that_explodes_in_its_first_steps_is_named_also_when_it_goes_on_from_a_checkpoint():
    assert [step for step, _ in warnings(run_of((5.7, 1), (30, 100)))] == [51]
    assert [step for step, _ in warnings(run_of((30, 100)), first=801)] == [850]


def test_a_tpu_of_whose_steps_few_are_seen_is_named_as_soon():
    config = schema.from_dict({"model_dir": "x", "n_vocab": V}, "here")
    watch = loss_watch.LossWatch(config)
    said = [step for step in range(20, 400, 20) if watch.warning(step, 3 if step <= 100 else BOUND + 1)]
    assert said == [160]


def test_the_warm_up_does_not_count():
    assert warnings(run_of((5.7, 1), (30, 100)), warmup_steps=101) == []
    assert [step for step, _ in warnings(run_of((5.7, 1), (30, 100)), warmup_steps=40)] == [90]


@pytest.mark.parametrize("losses", [run_of((3, 100), (BOUND - 0.5, 300)), run_of((3, 100), (BOUND + 5, 45), (3, 100)),
                                    np.linspace(40, 5, 300)])  # the last: starting weights that begin above
def test_nothing_else_is_called_diverging(losses):
    assert not [line for _, line in warnings(losses) if "diverging" in line]


def test_a_jump_beyond_guessing_is_named_with_its_documents_when_the_loss_has_come_down_again():
    losses = run_of((3, 200))
    losses[100:110] += 9
    (step, line), = warnings(losses)
    assert step == 111 and line.startswith("the loss jumped to 12.") and "at step 101, from about 3." in line
    assert "--which_data 101 lists the documents of that batch" in line


def test_any_other_jump_is_named_at_once():
    losses = run_of((3, 200))
    losses[100] += 2
    assert [step for step, _ in warnings(losses)] == [101]
    losses[100] += 30
    assert [step for step, _ in warnings(losses, warmup_steps=101)] == [101]
