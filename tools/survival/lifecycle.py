"""What to do next for a run on TPUs that vanish: a pure function of what was done and what is seen.

    WANT -> ASKED -> RUN -> END -> DONE        the way of a run that nothing disturbs
              \\______\\__> CLEAN -> WANT         a node that did not come, was preempted, or on which the run hangs

The State is on disk before anything is done for it, and every step asks anew what is there.  So whenever the process
is killed, the next one goes on from the same State, and neither forgets a node nor asks for a second one.
"""
from __future__ import annotations

from typing import NamedTuple

from configs import cloud_tpu, errors

WANT, ASKED, RUN, CLEAN, END, DONE = "want", "asked", "run", "clean", "end", "done"
# What is seen of the node, beside the API's own words for its state.
ABSENT, UNKNOWN, FOREIGN, READY = "ABSENT", "UNKNOWN", "FOREIGN", "READY"
LOST = (ABSENT, FOREIGN, *cloud_tpu.GONE)
# What is to be done.
CREATE, DELETE, START, STOP = "create", "delete", "start", "stop"
HEARD = "heard"  # of a question for a node whose operation has no known name
CAP_REACHED, USER_ERROR, SIGNAL = 3, 2, 128  # exit statuses


class Options(NamedTuple):
    """All times in seconds."""
    zones: tuple
    most: float  # that nodes may exist, all together
    grace: float  # for the run to save and end
    hang: float  # without a step
    coming: float  # for a node to become READY
    retry: float  # before the run is started again, or the first zone asked again when all have refused
    failures: int  # of the run in a row, none of which got further than the ones before


class State(NamedTuple):
    """What has to outlive this process; times are those of the wall clock."""
    project: str
    name: str
    label: str  # that tells the nodes of this run from others of the same name
    zone: str  # of the node, there or asked for
    next_zone: str | None = None  # of the one after it
    phase: str = WANT
    since: float = 0.0  # when the phase began
    operation: str | None = None  # the API's name for its work on the node we asked for; None: it has not answered
    paid: float = 0.0  # seconds that earlier nodes existed
    paid_since: float | None = None  # when this one was asked for
    failures: int = 0
    step: int = 0  # the furthest of the run
    refused: tuple = ()  # (zone, why, whether for good) since the first zone was tried
    wait_until: float = 0.0
    status: int | None = None  # how all ends
    reason: str = ""  # the same in words; of CLEAN, why
    backed_up: float = 0.0


class Seen(NamedTuple):
    """What is there."""
    now: float
    node: str  # its state
    why: str = ""  # it did not come
    running: bool = False  # the run
    ended: int | None = None  # exit status of the run, where it ended under our eyes and that is not in the State yet
    step: int = 0  # last one in its output
    quiet: float = 0.0  # seconds since it said so
    signal: int | None = None  # that we were told to stop with


def again(state, options):
    """The State of another attempt after all has ended; what was paid stays paid."""
    return State(state.project, state.name, state.label, options.zones[0], paid=state.paid, step=state.step,
                 backed_up=state.backed_up)


def cost(state, now):
    """Seconds that nodes have existed."""
    return state.paid + (now - state.paid_since if state.paid_since is not None else 0.0)


def decide(state, seen, options):
    """(the next State, what to do for it or None)."""
    if state.phase in (END, DONE):
        return _end(state, seen)
    if seen.signal is not None:
        return _end(_ending(state, seen, SIGNAL + seen.signal, f"stopped by signal {seen.signal}"), seen)
    # The run saves before the node goes, and that is paid, too.
    if cost(state, seen.now) >= options.most - options.grace:
        hours = cost(state, seen.now) / 3600
        return _end(_ending(state, seen, CAP_REACHED, f"--max_hours is reached ({hours:.2f} hours of TPU)"), seen)
    return {WANT: _want, ASKED: _asked, RUN: _run, CLEAN: _clean}[state.phase](state, seen, options)


def _want(state, seen, options):
    if seen.node == FOREIGN:
        return _ending(state, seen, USER_ERROR, f"zone {state.zone} has a node {state.name} that is not of this run;"
                       " choose another --name"), None
    if seen.node == UNKNOWN or seen.now < state.wait_until:
        return state, None
    if seen.node == ABSENT:
        since = state.paid_since if state.paid_since is not None else seen.now
        return state._replace(phase=ASKED, since=seen.now, operation=None, paid_since=since), CREATE
    # An earlier question was heard; only the answer was lost.
    return state._replace(phase=ASKED, since=seen.now, operation=HEARD, paid_since=state.paid_since or seen.now), None


def _asked(state, seen, options):
    if seen.node == READY:
        return state._replace(phase=RUN, since=seen.now, refused=()), None if seen.running else START
    if seen.node == ABSENT and state.operation is None:  # the question was never heard
        return state._replace(phase=WANT), None
    if seen.node == ABSENT:
        return refuse(state, seen.now, seen.why or "the node vanished while it was made", False, options), None
    if seen.node in LOST:
        return _give_up(state, seen, f"is {seen.node} before it was READY", options), None
    if seen.node != UNKNOWN and seen.now - state.since > options.coming:
        return refuse(state, seen.now, f"still {seen.node} after {options.coming / 60:g} minutes", False, options), None
    return state, None


def refuse(state, now, why, for_good, options):
    """The State after a zone gave no node: on to the next zone, after a pause to the first, or the end where none ever
    will; `for_good` says that this one never will."""
    refused = (*state.refused, (state.zone, why, for_good))
    if state.operation is None:  # there was no node
        state = state._replace(paid_since=None)
    state = state._replace(phase=CLEAN, since=now, refused=refused, reason=f"zone {state.zone} gives no TPU: {why}")
    rest = options.zones[options.zones.index(state.zone) + 1:] if state.zone in options.zones else options.zones
    if rest:
        return state._replace(next_zone=rest[0])
    if all(final for _, _, final in refused):
        return state._replace(phase=END, status=USER_ERROR,
                              reason="; ".join(f"zone {zone} gives no TPU: {why}" for zone, why, _ in refused))
    return state._replace(next_zone=options.zones[0], refused=(), wait_until=now + options.retry)


def _run(state, seen, options):
    if not seen.running and seen.ended == 0:
        return _ending(state, seen, 0, "the run is done"), None
    if seen.node in LOST:
        return _give_up(state, seen, f"is {seen.node}", options), STOP if seen.running else None
    if seen.ended == errors.PREEMPTED:  # the run may know before we do
        return _give_up(state, seen, "was preempted, says the run", options), None
    if seen.running:
        if seen.quiet > options.hang:
            return _give_up(state, seen, f"made no step for {options.hang / 60:g} minutes", options), STOP
        return (state._replace(step=seen.step, failures=0) if seen.step > state.step else state), None
    if seen.node != READY:
        return state, None  # being repaired, or nobody can tell
    if seen.ended is None:  # it is counted already, or a process before this one started it
        return state, START if seen.now >= state.wait_until else None
    failures = state.failures + 1 if seen.step <= state.step else 1
    state = state._replace(failures=failures, step=max(seen.step, state.step))
    if failures >= options.failures:
        return _ending(state, seen, USER_ERROR, f"the run failed {failures} times in a row and came no further than"
                       f" step {state.step}, at last with status {seen.ended}"), None
    if failures > 1:  # the node may be at fault
        return _give_up(state, seen, f"had the run fail {failures} times in a row", options), None
    # A node may need a while after it is READY, or to be known to be lost.
    return state._replace(wait_until=seen.now + options.retry), None


def _give_up(state, seen, what, options):
    """On to another node, first in the zone that is liked best."""
    return state._replace(phase=CLEAN, since=seen.now, next_zone=options.zones[0],
                          reason=f"{state.name} in {state.zone} {what}")


def _clean(state, seen, options):
    state, action, gone = _remove(state, seen)
    if gone:
        state = state._replace(phase=WANT, since=seen.now, zone=state.next_zone or options.zones[0], operation=None)
    return state, action


def _end(state, seen):
    state, action, gone = _remove(state, seen)
    return state._replace(phase=DONE) if gone else state, action


def _ending(state, seen, status, reason):
    return state._replace(phase=END, since=seen.now, status=status, reason=reason)


def _remove(state, seen):
    """(State, what to do, whether all is gone): ends the run, then the node, whose cost is then counted."""
    if seen.running:
        return state, STOP, False
    if seen.node in (ABSENT, FOREIGN):
        return state._replace(paid=cost(state, seen.now), paid_since=None), None, True
    return state, None if seen.node in (UNKNOWN, "DELETING") else DELETE, False
