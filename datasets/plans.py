"""How an output is made, as JSON: the same command goes on where it was stopped, another one is an error."""
import json
import os

from configs import storage
from configs.errors import UserError

PLAN = "plan.json"
FILES = "names, sizes or times of the files of --input were others"  # of which "inputs" is a fingerprint


def begin(state, plan):
    """Makes the folder `state`, notes the plan in it and removes what a run that was killed left half-written."""
    os.makedirs(state, exist_ok=True)
    storage.clear(state)
    storage.write_whole(os.path.join(state, PLAN), json.dumps(plan))


def _shown(value):
    """In one line, whatever a text holds."""
    return (repr(value)[1:-1] if isinstance(value, str) else str(value))[:60]


def check(saved_plan, plan, there, remedy):
    """Raises UserError where `saved_plan`, that of what is `there`, is not `plan`, and says in what they differ."""
    changed = [FILES if key == "inputs" else f"{key} was {_shown(saved_plan.get(key))}, now {_shown(plan.get(key))}"
               for key in sorted({*plan, *saved_plan}) if saved_plan.get(key) != plan.get(key)]
    if changed:
        raise UserError(f"{there} in another way ({'; '.join(changed)}): repeat that command, or {remedy}")
