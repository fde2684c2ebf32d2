"""Waits for what may not come, and stays open to Ctrl-C meanwhile."""
import concurrent.futures
import threading


def within(seconds, function):
    """Returns `function()`, or raises TimeoutError after so many seconds (None: never).

    The function runs in a thread of its own, which ends with the process.  So the limit and Ctrl-C also hold in what
    neither a socket's timeout nor a handler of Python's ends: the look-up of a host's name, or a library's own code.
    """
    outcome = concurrent.futures.Future()

    def run():
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)
    threading.Thread(target=run, daemon=True).start()
    if not concurrent.futures.wait([outcome], seconds).done:
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    return outcome.result()
