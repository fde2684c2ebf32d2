"""What a program does before its other imports: Ctrl-C, or a package that is missing, is one line and no traceback.

The guard at the top of a file that is run by hand calls begin(); commands.run() takes over when the imports are done.
The syntax is that of Python 3.6, so that an old Python can still say that it is too old.
"""
import contextlib
import gc
import os
import signal
import sys
import threading

from configs import errors

OLDEST = (3, 9)
ENDING = signal.SIGTERM, signal.SIGHUP


def begin():
    """Watches over the imports that follow, until end()."""
    if sys.version_info < OLDEST:
        sys.exit(_say("this is Python {}.{}, and the program needs Python 3.9 to 3.11: {}".format(
            *sys.version_info[:2], errors.SET_UP)))
    _open_closed_streams()
    sys.excepthook = _tell
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is ignored in the background
        signal.signal(signal.SIGINT, stop)


def _open_closed_streams():
    """Gives a standard stream that is closed the null device.

    Else the next file that is opened gets its number, and what TensorFlow and others print would be written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
            stream = open(number, "r" if number == 0 else "w", errors="replace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def end():
    """From now on Ctrl-C is KeyboardInterrupt, SIGTERM and SIGHUP SystemExit: there may be something to clean up."""
    if signal.getsignal(signal.SIGINT) is stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` has SIGHUP ignored
            signal.signal(number, leave)


@contextlib.contextmanager
def ended_at_once():
    """Inside, Ctrl-C, SIGTERM and SIGHUP end the program at once: nothing may be half-written there.

    Normally an exception would do.  But in the middle of an import libraries turn it into an ImportError of their
    own, or print it and go on.  And in a long call of TensorFlow it would come at the end of the call, because Python
    calls its handlers between two of its own instructions (SIGTERM and SIGHUP need none here; Ctrl-C still waits).
    Other handlers, as those of a training, stay.
    """
    at_once = {signal.default_int_handler: stop, leave: signal.SIG_DFL}
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)
              if threading.current_thread() is threading.main_thread() and signal.getsignal(number) in at_once}
    for number, handler in before.items():
        signal.signal(number, at_once[handler])
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def importing(without=()):
    """For imports that take seconds: a signal ends the program at once, and the packages `without` are hidden.

    Normally Python collects garbage again and again while it loads modules.  But there is none, and the search takes a
    sixth of the time of TensorFlow's import.
    """
    looks = gc.isenabled()
    gc.disable()
    try:
        with ended_at_once(), hidden(without):
            yield
    finally:
        if looks:
            gc.enable()


@contextlib.contextmanager
def hidden(packages):
    """Inside, an import of one of these packages that is not there yet fails as if it were not installed."""
    absent = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def stop(number=signal.SIGINT, frame=None):
    """Ends the process at once, as a handler of Ctrl-C: what is to be cleaned up must be clean already."""
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


def leave(number, frame):
    """Ends the program by SystemExit, as a handler: incomplete files are removed on the way.  Again: at once."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nobody's impatience: shells and terminals send it several times
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(128 + number)


def _tell(kind, error, trace):
    """sys.excepthook: a package that is not installed is the user's to mend, all else is our own bug."""
    if issubclass(kind, ModuleNotFoundError) and error.name and not _is_ours(error.name.split(".")[0]):
        sys.exit(_say(errors.without(error.name.split(".")[0])))
    sys.__excepthook__(kind, error, trace)


def _is_ours(name):
    """Whether this project, or Python itself (`_lzma`, where it was built without), should have had the module."""
    return name.startswith("_") or any(os.path.exists(os.path.join(errors.HOME, name + end)) for end in ("", ".py"))


def _say(message):
    print("error:", message, file=sys.stderr)
    return errors.USER_ERROR
