"""Hostile inputs of every kind: the first of each, of what `python3 -m tests.fuzz` tries by thousands."""
import pytest

from tests.fuzz import driver, kinds

SEED = 1


@pytest.mark.parametrize("name", kinds.KINDS)
def test_the_first_inputs_of_every_kind_are_read_right_or_refused_in_one_line(name, tmp_path):
    inputs = driver.Inputs(kinds.KINDS[name], tmp_path, SEED)
    results = [inputs.try_one(number) for number in range(2)]
    assert not [result for result in results if result.outcome == driver.FAULT]


def wrong():
    raise driver.Wrong("it is not")


def refused():
    from configs.errors import UserError
    raise UserError("x: one\nline")


def endless():
    while True:
        pass


@pytest.mark.parametrize("act, outcome", [(lambda: None, driver.OK), (refused, driver.CLEAN), (wrong, driver.FAULT),
                                          (lambda: {}["x"], driver.FAULT), (endless, driver.FAULT)])
def test_a_fault_is_seen(act, outcome, monkeypatch):
    """So that no test above passes because nothing is looked at."""
    monkeypatch.setattr(driver, "SECONDS", 0.1)
    assert driver.judged(act)[0] == outcome


def test_an_input_is_the_same_again_by_seed_and_number():
    first, again, other = (driver.draw_for(seed, "config", 7).random() for seed in (1, 1, 2))
    assert first == again != other
