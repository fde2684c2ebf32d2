"""Runs a program of the project: one line for a mistake, the exit status, streams."""
import os
import signal
import sys

from configs import start, storage
from configs.errors import USER_ERROR, UserError


def run(main, argv=None):
    """Runs `main(argv)` as a program: its status, 2 after one line for a user's mistake, 130 after Ctrl-C.

    Anything else that escapes is our own bug and keeps its traceback (status 1).
    """
    sys.stdout.reconfigure(errors="replace")  # a generated text may hold what a terminal cannot show
    try:
        start.end()
        status = main(argv)
        sys.stdout.flush()
        sys.exit(status)
    except UserError as error:
        sys.exit(_say(error))
    except BrokenPipeError:  # `... | head`: whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        # A full disk, a missing permission, a path that is a folder: the system's own words name the cause.
        if error.errno not in storage.OF_FILES:
            raise
        sys.exit(_say(f"{error.filename or 'write'}: {error.strerror}"))
    except Exception as error:
        blamed = storage.blame(error)
        if not blamed:
            raise
        sys.exit(_say(f"{blamed}; check the path, the space left and what this account may do there"))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _say(message):
    print("error:", " ".join(str(message).split("\n")), file=sys.stderr)
    return USER_ERROR
