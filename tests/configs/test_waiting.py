"""configs/waiting.py: a limit for what has none."""
import signal
import subprocess
import sys
import threading

import pytest

from configs import waiting
from tests.helpers.runs import ROOT

WAITS = """
import threading
from configs import waiting
try:
    print("waits", flush=True)
    waiting.within(None, threading.Event().wait)
except KeyboardInterrupt:
    print("ended")
"""


def test_a_result_and_an_error_come_through_and_a_limit_holds():
    assert waiting.within(None, lambda: 3) == waiting.within(5, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        waiting.within(None, lambda: 1 / 0)
    forever = threading.Event()
    with pytest.raises(TimeoutError, match="no answer within 0.01 seconds"):
        waiting.within(0.01, forever.wait)
    forever.set()


def test_ctrl_c_ends_the_waiting():
    process = subprocess.Popen([sys.executable, "-c", WAITS], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[0] == "ended\n"
