"""The hosts that train together, as the environment variable TF_CONFIG describes them to TensorFlow.

The format: https://www.tensorflow.org/api_docs/python/tf/distribute/cluster_resolver/TFConfigClusterResolver.  Names of
hosts: https://www.rfc-editor.org/rfc/rfc1123#page-13, and the underscores that container networks allow.
"""
import ipaddress
import os
import re

from configs import reading
from configs.errors import UserError

VARIABLE = "TF_CONFIG"
EXAMPLE = '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'
LABEL = r"\w(?:[\w-]{0,61}\w)?"
ADDRESS = re.compile(rf"(?:\[([\da-f:.]+)(?:%[\w.-]+)?\]|(\d+(?:\.\d+)+)|{LABEL}(?:\.{LABEL})*):(\d{{1,5}})",
                     re.ASCII | re.IGNORECASE)


def hosts():
    """(addresses of all hosts, place of this one); without any ([], 0).  Raises UserError for a bad TF_CONFIG."""
    text = os.environ.get(VARIABLE)
    if not text:
        return [], 0
    try:
        content = reading.parse(text)
        reading.check_kinds(content, {})
        if content.get("cluster", {}) == {}:  # Google's AI Platform sets it so for one host
            return [], 0
        reading.check_kinds(content, {"cluster": dict, "task": dict})
        kinds, task = content["cluster"], content["task"]
        reading.check_kinds(kinds, dict.fromkeys(kinds, list))
        reading.check_kinds(task, {"type": str, "index": (int, str)})
        found = {(kind, str(number)): address for kind in ("chief", "worker")
                 for number, address in enumerate(kinds.pop(kind, []))}
        for address in found.values():
            _check(address)
        if len(set(found.values())) < len(found):
            raise ValueError("two hosts have one address")
        if kinds:
            raise ValueError(f'"{reading.shorten_text(next(iter(kinds)))}" is no kind of host that is known here')
        place = task["type"], str(task["index"])
        if place not in found:
            raise ValueError(f'"task" is {reading.shown(task)}, which "cluster" does not hold')
        return list(found.values()), list(found).index(place)
    except ValueError as error:
        raise UserError(f"the environment variable {VARIABLE} is {text[:200]} ({error}); it has to look like {EXAMPLE}")


def _check(address):
    """Raises ValueError if `address` is not HOST:PORT.  gRPC would wait for such an address for ever."""
    match = isinstance(address, str) and ADDRESS.fullmatch(address)
    if not match or not 0 < int(match[3]) < 2**16:
        raise ValueError(f"{reading.shown(address)} is no HOST:PORT with a port from 1 to {2**16 - 1}")
    if match[1] or match[2]:
        ipaddress.ip_address(match[1] or match[2])
