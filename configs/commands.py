"""Runs a program of the project: one line for a mistake, the exit status, streams."""
import contextlib
import errno
import os
import signal
import sys

from configs import file_errors, start, storage
from configs.errors import USER_ERROR, UserError, printable

OUTPUT = "standard output"


def run(main, argv=None):
    """Runs `main(argv)` as a program: its status, 2 after one line for a user's mistake, 130 after Ctrl-C.

    SIGTERM and SIGHUP end it with 143 and 129 (start.leave), where main does not handle them itself.
    Anything else that escapes is our own bug and keeps its traceback (status 1).
    """
    # A generated text may hold what a terminal cannot show; whoever watches a pipe or a log wants each line at once.
    sys.stdout.reconfigure(errors="replace", line_buffering=True)
    sys.stdout = GuardedStream(sys.stdout, lambda: storage.naming(OUTPUT))  # an error says what it was
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream.isatty():
            setattr(sys, name, GuardedStream(stream, _lost_where_it_is_closed))
    sys.exit(_status(main, argv))


def _status(main, argv):
    try:
        start.end()
        status = main(argv)
        sys.stdout.flush()
        return status
    except UserError as error:
        return _say(error)
    except BrokenPipeError:  # `... | head`: whoever reads has enough
        return 128 + signal.SIGPIPE
    except OSError as error:
        # A full disk, a missing permission, a path that is a folder: the system's own words name the cause.
        if error.filename != OUTPUT and error.errno not in file_errors.REMEDIES:
            raise
        where = error.filename or "write"
        where = os.fsdecode(where) if isinstance(where, bytes) else where
        return _say(f"{where}: {error.strerror}; {file_errors.remedy(error)}")
    except UnicodeEncodeError as error:
        if "surrogates" not in error.reason:
            raise
        return _say(f"{error.object!a} {storage.NO_UNICODE}")
    except Exception as error:
        blamed = file_errors.blame(error)
        if not blamed:
            raise
        return _say(f"{blamed}; {file_errors.remedy(error)}")
    except KeyboardInterrupt:
        return _say("interrupted", "", 128 + signal.SIGINT)
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # else Python would try it once more at its end, and say so
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class GuardedStream:
    """A stream of output; all that is written to it is written inside of the context that `guard()` makes."""

    def __init__(self, stream, guard):
        self._stream, self._guard = stream, guard

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        with self._guard():
            return self._stream.write(text)

    def flush(self):
        with self._guard():
            self._stream.flush()


@contextlib.contextmanager
def _lost_where_it_is_closed():
    """Inside, what a terminal is told that was closed is lost.

    The error would end the program before the SIGHUP that follows is heard, or though SIGHUP is ignored.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def _say(message, before="error: ", status=USER_ERROR):
    """Shows the message on a line of its own, where anybody can still read it; returns the exit status."""
    with contextlib.suppress(OSError):
        if "configs.progress" in sys.modules:
            sys.modules["configs.progress"].close_all()
        print(before + printable(str(message)), file=sys.stderr, flush=True)
    return status
