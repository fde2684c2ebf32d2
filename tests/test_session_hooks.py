"""What is told between the steps."""
import numpy as np
import pytest

import session_hooks


def spikes(losses):
    watch = session_hooks.SpikeWatch()
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
