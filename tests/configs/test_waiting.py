"""configs/waiting.py: a limit for what has none."""
import signal
import threading
import time

import pytest

from configs import waiting


def test_a_result_and_an_error_come_through_and_a_limit_holds():
    assert waiting.within(None, lambda: 3) == waiting.within(5, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        waiting.within(None, lambda: 1 / 0)
    forever = threading.Event()
    with pytest.raises(TimeoutError, match="no answer within 0.01 seconds"):
        waiting.within(0.01, forever.wait)
    forever.set()


def test_ctrl_c_ends_the_waiting():
    forever = threading.Event()
    threading.Timer(0.1, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        waiting.within(None, lambda: forever.wait(20))
    assert time.monotonic() - begun < 5
    forever.set()
