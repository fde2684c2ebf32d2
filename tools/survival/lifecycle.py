"""Decides what to do next for a run on TPUs that vanish; `decide` depends only on what was done and what is observed.

    WANT -> ASKED -> RUN -> END -> DONE        the phases of a run that nothing disturbs
              \\______\\__> CLEAN -> WANT         a node did not come or was preempted, or the run on it hangs

The caller writes the SurvivalState to disk before it acts, and observes anew before each decision.  So the process may
be killed at any time: the next one goes on from the same state, and neither forgets a node nor asks for a second one.
"""
from __future__ import annotations

import re
from typing import NamedTuple

from configs import cloud_tpu, errors, reading

WANT, ASKED, RUN, CLEAN, END, DONE = PHASES = "want", "asked", "run", "clean", "end", "done"
# States of the node, beside the API's own.
ABSENT, UNKNOWN, FOREIGN, READY = "ABSENT", "UNKNOWN", "FOREIGN", "READY"
LOST = (ABSENT, FOREIGN, *cloud_tpu.GONE)
# Actions.
CREATE, DELETE, START, STOP = "create", "delete", "start", "stop"
HEARD = "heard"  # stands for the operation's name where the API got our request for a node and the name is not known
LABEL_VALUE = "[0-9a-f]{16}"  # regex: random, so that no two runs have the same
CAP_REACHED, SIGNAL = 3, 128  # exit statuses; a signal's number is added to the second
# How JSON gives the fields of a SurvivalState.
JSON_KINDS = {**dict.fromkeys(("project", "name", "label", "zone", "phase", "reason"), str),
              **dict.fromkeys(("next_zone", "operation"), (str, type(None))),
              **dict.fromkeys(("since", "paid", "wait_until", "backed_up"), (int, float)),
              "paid_since": (int, float, type(None)), "failures": int, "step": int, "status": (int, type(None)),
              "refused": list}


class SurvivalState(NamedTuple):
    """What has to outlive this process.  Times are of the wall clock."""
    project: str
    name: str
    label: str  # on the nodes of this run, which tells them from others of the same name
    zone: str  # of the node that is there or asked for
    next_zone: str | None = None  # of the next node
    phase: str = WANT
    since: float = 0.0  # when the phase began
    operation: str | None = None  # the API's name for the creation of the node; None: the API has not answered
    paid: float = 0.0  # seconds that earlier nodes existed
    paid_since: float | None = None  # when this one was asked for
    failures: int = 0
    step: int = 0  # the furthest of the run
    refused: tuple = ()  # (zone, reason, whether for good) since the first zone was tried
    wait_until: float = 0.0
    status: int | None = None  # exit status in the end
    reason: str = ""  # for the end, or for CLEAN
    backed_up: float = 0.0


class Observation(NamedTuple):
    """What is there now."""
    now: float
    node: str  # its state
    node_error: str = ""  # why the node did not come
    running: bool = False  # whether the run is there
    exit_status: int | None = None  # of the run, if it was our child and the SurvivalState does not count it yet
    step: int = 0  # last one in the run's output
    quiet_seconds: float = 0.0  # since that step
    signal: int | None = None  # that told us to stop


def check(state):
    """Raises ValueError where a SurvivalState from a file is none that was written: whose node it means is unknown."""
    reading.check_kinds(state._asdict(), JSON_KINDS)
    if not re.fullmatch(LABEL_VALUE, state.label) or state.phase not in PHASES or any(
            not isinstance(one, list) or list(map(type, one)) != [str, str, bool] for one in state.refused):
        raise ValueError


def cost(state, now):
    """Seconds that nodes have existed."""
    return state.paid + (now - state.paid_since if state.paid_since is not None else 0.0)


def decide(state, seen, rules):
    """Returns (the next SurvivalState, the action for it or None); `rules` are tools/tpu_survival.py's options."""
    paid = cost(state, seen.now)
    paid_in_the_end = paid + rules.grace_seconds  # the time in which the run saves, too
    if state.phase != END and seen.signal is not None:
        state = _ending(state, seen, SIGNAL + seen.signal, f"stopped by signal {seen.signal}")
    elif state.phase != END and paid_in_the_end >= rules.max_hours * 3600:
        state = _ending(state, seen, CAP_REACHED, f"--max_hours is reached ({paid / 3600:.2f} hours of TPU)")
    return {WANT: _want, ASKED: _asked, RUN: _run, CLEAN: _remove, END: _remove}[state.phase](state, seen, rules)


def _want(state, seen, rules):
    if seen.node == FOREIGN:
        return _ending(state, seen, errors.USER_ERROR, f"zone {state.zone} has a node {state.name} that is not of this"
                       " run; choose another --name"), None
    if seen.node == UNKNOWN or seen.now < state.wait_until:
        return state, None
    paid_since = seen.now if state.paid_since is None else state.paid_since
    asked = state._replace(phase=ASKED, since=seen.now, operation=None, paid_since=paid_since)
    if seen.node == ABSENT:
        return asked, CREATE
    return asked._replace(operation=HEARD), None  # the API got an earlier request, and only its answer was lost


def _asked(state, seen, rules):
    if seen.node == READY:
        return state._replace(phase=RUN, since=seen.now, refused=()), None if seen.running else START
    if seen.node == ABSENT and state.operation is None:  # the API never got the request
        return state._replace(phase=WANT), None
    if seen.node == ABSENT:
        return refuse(state, seen.now, seen.node_error or "the node vanished while it was made", False, rules), None
    if seen.node in LOST:
        return _give_up(state, seen, f"is {seen.node} before it was READY", rules), None
    if seen.node != UNKNOWN and seen.now - state.since > rules.create_minutes * 60:
        why = f"still {seen.node} after {rules.create_minutes:g} minutes"
        return refuse(state, seen.now, why, False, rules), None
    return state, None


def refuse(state, now, why, for_good, rules):
    """The SurvivalState after a zone gave no node: the next zone is asked, after the last one and a pause the first.

    `for_good` says that this zone will never give one; when all say so, that is the end.
    """
    refused = (*state.refused, (state.zone, why, for_good))
    if state.operation is None:  # there was no node
        state = state._replace(paid_since=None)
    state = state._replace(phase=CLEAN, since=now, refused=refused, reason=f"zone {state.zone} gives no TPU: {why}")
    rest = rules.zones[rules.zones.index(state.zone) + 1:] if state.zone in rules.zones else rules.zones
    if rest:
        return state._replace(next_zone=rest[0])
    if all(final for _, _, final in refused):
        return state._replace(phase=END, status=errors.USER_ERROR,
                              reason="; ".join(f"zone {zone} gives no TPU: {why}" for zone, why, _ in refused))
    return state._replace(next_zone=rules.zones[0], refused=(), wait_until=now + rules.retry_minutes * 60)


def _run(state, seen, rules):
    if not seen.running and seen.exit_status == 0:
        return _ending(state, seen, 0, "the run is done"), None
    if seen.node in LOST:
        return _give_up(state, seen, f"is {seen.node}", rules), STOP if seen.running else None
    if seen.exit_status == errors.PREEMPTED:  # the run may know before we do
        return _give_up(state, seen, "was preempted, says the run", rules), None
    if seen.running:
        if seen.quiet_seconds > rules.hang_minutes * 60:
            return _give_up(state, seen, f"made no step for {rules.hang_minutes:g} minutes", rules), STOP
        return (state._replace(step=seen.step, failures=0) if seen.step > state.step else state), None
    if seen.node != READY:
        return state, None  # the node is being repaired, or the API does not answer
    if seen.exit_status is None:  # the failure is counted already, or the run was the child of an earlier process
        return state, START if seen.now >= state.wait_until else None
    failures = state.failures + 1 if seen.step <= state.step else 1
    state = state._replace(failures=failures, step=max(seen.step, state.step))
    if failures >= rules.max_failures:
        return _ending(state, seen, errors.USER_ERROR, f"the run failed {failures} times in a row and came no further"
                       f" than step {state.step}, at last with status {seen.exit_status}"), None
    if failures > 1:  # the node may be at fault
        return _give_up(state, seen, f"had the run fail {failures} times in a row", rules), None
    # A node may need a while after it is READY, or until the API knows that it is lost.
    return state._replace(wait_until=seen.now + rules.retry_minutes * 60), None


def _give_up(state, seen, what, rules):
    """The SurvivalState that leads to another node, asked for in the preferred zone first."""
    return state._replace(phase=CLEAN, since=seen.now, next_zone=rules.zones[0],
                          reason=f"{state.name} in {state.zone} {what}")


def _ending(state, seen, status, reason):
    return state._replace(phase=END, since=seen.now, status=status, reason=reason)


def _remove(state, seen, rules):
    """Ends the run, then the node; when both are gone, counts the node's cost and goes on."""
    if seen.running:
        return state, STOP
    if seen.node not in (ABSENT, FOREIGN):
        return state, None if seen.node in (UNKNOWN, "DELETING") else DELETE
    state = state._replace(paid=cost(state, seen.now), paid_since=None)
    if state.phase == END:
        return state._replace(phase=DONE), None
    return state._replace(phase=WANT, since=seen.now, zone=state.next_zone or rules.zones[0], operation=None), None
