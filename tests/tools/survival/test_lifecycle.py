"""tools/survival/lifecycle.py in a world of its own, in which everything fails at random, and its single decisions."""
import argparse
import json
import random

import pytest

from configs import errors
from tools.survival import lifecycle
from tools.survival.lifecycle import ABSENT, FOREIGN, READY, UNKNOWN, Observation, SurvivalState

HOUR = 3600.0
RULES = argparse.Namespace(zones=["a", "b", "c"], max_hours=100.0, grace_seconds=180.0, hang_minutes=30.0,
                           create_minutes=30.0, retry_minutes=5.0, max_failures=3)
LENGTH = 5000  # steps of the run in the world below
TICK = 30.0


def test_every_state_that_is_written_is_read_again():
    assert set(lifecycle.JSON_KINDS) == set(SurvivalState._fields)
    state = SurvivalState("p", "n", "0123456789abcdef", "a", refused=(("a", "why", True),), paid_since=3, status=0)
    lifecycle.check(SurvivalState(**json.loads(json.dumps(state._asdict()))))


class World:
    """Nodes, one run, and an API, in time of their own; `trouble` is how often each thing goes wrong at a tick."""

    def __init__(self, seed, trouble):
        self.chance, self.trouble = random.Random(seed), trouble
        self.now, self.nodes, self.operations = 0.0, {}, 0
        self.running, self.hung, self.ended, self.step, self.changed, self.stopping = False, False, None, 0, 0.0, None
        self.cost, self.asked, self.starts = 0.0, 0, 0
        self.disk = json.dumps(SurvivalState("p", "n", "label", "a")._asdict())

    def bad(self):
        return self.chance.random() < self.trouble

    def pass_time(self):
        self.now += TICK
        self.cost += TICK * len(self.nodes)
        for zone, node in list(self.nodes.items()):
            if node["state"] == "CREATING" and self.now >= node["due"]:
                node["state"] = READY
            elif node["state"] == "DELETING" and self.now >= node["due"]:
                del self.nodes[zone]
            elif node["state"] == READY and self.bad():
                node["state"] = self.chance.choice(["PREEMPTED", "TERMINATED", "REPAIRING", "STOPPED"])
            elif node["state"] == "REPAIRING" and self.chance.random() < 0.2:
                node["state"] = READY
            elif node["state"] == "CREATING" and self.bad():
                del self.nodes[zone]
        if self.running:
            self.go_on()

    def go_on(self):
        if self.stopping is not None and (not self.hung or self.now >= self.stopping + RULES.grace_seconds):
            self.running, self.ended = False, 143
        elif self.bad():
            self.hung = True
        elif self.bad():
            self.running, self.ended = False, 1
        elif not self.hung and any(node["state"] == READY for node in self.nodes.values()):
            self.step, self.changed = self.step + 10, self.now
            if self.step >= LENGTH:
                self.running, self.ended = False, 0

    def see(self, state):
        node = UNKNOWN if self.bad() else self.nodes.get(state.zone, {}).get("state", ABSENT)
        return Observation(now=self.now, node=node, running=self.running, exit_status=self.ended, step=self.step,
                           quiet_seconds=self.now - self.changed)

    def create(self, state):
        """Does what Keeper does, until it dies."""
        answered, heard = not self.bad(), not self.bad()
        if answered and self.bad():
            return lifecycle.refuse(state, self.now, "no quota", False, RULES)
        if heard and state.zone not in self.nodes:
            self.nodes[state.zone] = {"state": "CREATING", "due": self.now + 120}
            self.asked += 1
        return state._replace(operation="o") if answered and heard else state

    def act(self, action, state):
        if action == lifecycle.CREATE:
            return self.create(state)
        if action == lifecycle.DELETE and not self.bad() and state.zone in self.nodes:
            self.nodes[state.zone].update(state="DELETING", due=self.now + 60)
        if action == lifecycle.START:
            assert not self.running, "a second run"
            assert state.zone in self.nodes or self.trouble
            self.running, self.hung, self.ended, self.stopping, self.changed = True, False, None, None, self.now
            self.step -= self.step % 100  # its last checkpoint
            self.starts += 1
        if action == lifecycle.STOP and self.stopping is None:
            self.stopping = self.now
        return state

    def live(self):
        """Until all is done; the process dies between any two things it does."""
        while True:
            state = SurvivalState(**json.loads(self.disk))
            if state.phase == lifecycle.DONE:
                return state
            before = state
            state, action = lifecycle.decide(before, self.see(before), RULES)
            self.disk = json.dumps(state._asdict())
            self.ended = None if state != before else self.ended
            if not self.bad():
                state = self.act(action, state)
                if not self.bad():
                    self.disk = json.dumps(state._asdict())
                else:
                    self.ended = None  # the next process is not its parent
            assert len(self.nodes) <= 1, "a second node"
            assert self.now < 1000 * HOUR, state
            self.pass_time()


def test_a_run_that_nothing_disturbs_asks_once_and_leaves_nothing():
    world = World(0, 0.0)
    state = world.live()
    assert (state.status, world.asked, world.starts, world.nodes, world.running) == (0, 1, 1, {}, False)
    assert world.step == LENGTH and state.paid == pytest.approx(world.cost, abs=3 * TICK)


@pytest.mark.parametrize("trouble", [0.002, 0.01, 0.05, 0.2])
def test_whatever_happens_there_is_one_node_one_run_and_nothing_in_the_end(trouble):
    ends = set()
    for seed in range(20):
        world = World(seed, trouble)
        state = world.live()
        ends.add(state.status)
        assert not world.nodes and not world.running, (seed, state)
        assert state.status in (0, lifecycle.CAP_REACHED, errors.USER_ERROR)
        assert (state.status == 0) == (world.step >= LENGTH)
        allowed = RULES.max_hours * HOUR + RULES.grace_seconds + 40 * TICK
        assert world.cost <= allowed, "the nodes cost more than allowed"
    assert 0 in ends or trouble > 0.01  # else no node lives from one checkpoint to the next


def state(**changes):
    return SurvivalState("p", "n", "label", "a", **{"phase": lifecycle.RUN, "paid_since": 0.0, **changes})


def advance(before, node, now=HOUR, **seen):
    """(the next state, the action)."""
    return lifecycle.decide(before, Observation(now=now, node=node, **seen), RULES)


def decide(before, node, now=HOUR, **seen):
    """(the next phase, the action)."""
    after, action = advance(before, node, now, **seen)
    return after.phase, action


@pytest.mark.parametrize("node", ["PREEMPTED", "TERMINATED", "STOPPED", ABSENT, FOREIGN, "DELETING"])
def test_a_lost_node_ends_the_run_first(node):
    assert decide(state(), node, running=True) == ("clean", "stop")
    assert decide(state(phase="clean"), node, running=True) == ("clean", "stop")
    expected = {ABSENT: ("want", None), FOREIGN: ("want", None), "DELETING": ("clean", None)}
    assert decide(state(phase="clean"), node) == expected.get(node, ("clean", "delete"))


def test_an_api_that_does_not_answer_changes_nothing_until_the_run_hangs():
    before = state(step=7)
    assert advance(before, UNKNOWN, running=True, step=7, quiet_seconds=1799.0) == (before, None)
    assert decide(before, UNKNOWN, running=True, step=7, quiet_seconds=1801.0) == ("clean", "stop")
    assert decide(state(phase="clean"), UNKNOWN) == ("clean", None)
    assert decide(state(phase="end", status=0), UNKNOWN) == ("end", None)


def test_a_run_that_fails_is_started_again_then_on_another_node_then_given_up():
    before, action = advance(state(step=50), READY, exit_status=1, step=40)
    assert (before.phase, before.failures, action) == ("run", 1, None)
    assert decide(before, READY, now=HOUR + RULES.retry_minutes * 60 - 1) == ("run", None)
    assert decide(before, READY, now=HOUR + RULES.retry_minutes * 60) == ("run", "start")
    before, action = advance(before, READY, exit_status=1, step=50)
    assert (before.phase, before.failures, action) == ("clean", 2, None)
    before, action = advance(before._replace(phase="run"), READY, exit_status=2)
    assert (before.phase, before.status) == ("end", errors.USER_ERROR) and "failed 3 times" in before.reason


def test_a_run_that_is_done_needs_no_other_node():
    assert decide(state(), "PREEMPTED", exit_status=0) == ("end", None)
    assert decide(state(), UNKNOWN, exit_status=0) == ("end", None)


@pytest.mark.parametrize("node", [READY, UNKNOWN, "PREEMPTED"])
def test_a_run_that_says_its_node_was_preempted_gets_another_and_has_not_failed(node):
    before = state(step=50, failures=2)
    after, action = advance(before, node, exit_status=75, step=40)
    assert (after.phase, after.failures, action) == ("clean", 2, None)
    assert decide(after, READY) == ("clean", "delete")


def test_a_step_beyond_all_before_forgives_failures():
    after, _ = advance(state(step=50, failures=2), READY, running=True, step=50)
    assert after.failures == 2
    after, _ = advance(after, READY, running=True, step=51)
    assert (after.failures, after.step) == (0, 51)
    after, _ = advance(after._replace(failures=2), READY, exit_status=1, step=60)
    assert (after.failures, after.phase) == (1, "run")


def test_zones_are_tried_in_their_order_and_again_after_a_pause():
    asked, now = [], 0.0
    current = state(phase="want", paid_since=None)
    while len(asked) < 4:
        current, action = advance(current, ABSENT, now=now)
        if action == lifecycle.CREATE:
            asked.append((current.zone, now))
            current = lifecycle.refuse(current, now, "quota", current.zone == "b", RULES)
        now += 10
    assert [zone for zone, _ in asked] == ["a", "b", "c", "a"]
    assert asked[3][1] - asked[2][1] >= RULES.retry_minutes * 60
    assert current.paid == 0 and current.paid_since is None


def test_zones_that_never_will_end_it():
    current = state(phase="asked", paid_since=None)
    for zone in RULES.zones:
        assert current.zone == zone
        current = lifecycle.refuse(current, 0.0, "no such type", True, RULES)
        if current.phase == "clean":
            current, _ = advance(current, ABSENT, now=1.0)
    assert (current.phase, current.status) == ("end", errors.USER_ERROR)
    assert "zone a gives no TPU: no such type; zone b" in current.reason


def test_a_node_of_somebody_else_is_neither_used_nor_deleted():
    after, action = advance(state(phase="want"), FOREIGN, now=0.0)
    assert (after.status, action) == (errors.USER_ERROR, None) and "not of this run" in after.reason
    assert decide(after, FOREIGN) == ("done", None)


def test_the_cap_leaves_the_run_time_to_save_and_counts_earlier_nodes():
    before = state(paid=90 * HOUR)
    assert decide(before, READY, now=10 * HOUR - RULES.grace_seconds - 1, running=True) == ("run", None)
    assert decide(before, READY, now=10 * HOUR - RULES.grace_seconds, running=True) == ("end", "stop")
    after, _ = advance(before, READY, now=10 * HOUR, running=True)
    assert after.status == lifecycle.CAP_REACHED and "--max_hours is reached (100.00 hours" in after.reason


@pytest.mark.parametrize("phase", ["want", "asked", "run", "clean"])
def test_a_signal_ends_every_phase(phase):
    after, action = advance(state(phase=phase), READY, now=1.0, running=True, signal=15)
    assert (after.phase, after.status, action) == ("end", 143, "stop")
    assert decide(after, READY) == ("end", "delete")
    assert decide(after, ABSENT) == ("done", None)


def test_a_node_that_does_not_come_is_deleted_before_the_next_zone_is_asked():
    before = state(phase="asked", operation="o", since=0.0)
    assert decide(before, "CREATING", now=1799.0) == ("asked", None)
    after, action = advance(before, "CREATING", now=1801.0)
    assert (after.phase, after.zone, after.next_zone) == ("clean", "a", "b")
    assert decide(after, "CREATING") == ("clean", "delete")
    after, _ = advance(after, ABSENT, now=1900.0)
    assert (after.phase, after.zone, after.paid) == ("want", "b", 1900.0)
