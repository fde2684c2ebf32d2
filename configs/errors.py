"""What the user did wrong, as one clear line and an exit status, in every command of the project."""
import argparse
import errno
import os
import signal
import sys

USER_ERROR = 2


class UserError(Exception):
    """A mistake the user can mend: the message says what, where, which value and the remedy, in one line."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, by UserError."""

    def error(self, message):
        raise UserError(f"{message}; `python3 {self.prog} --help` lists the options")


def run_command(main, argv=None):
    """Runs `main(argv)` as a program: its status, 2 after one line for a user's mistake, 130 after Ctrl-C.

    Anything else that escapes is our own bug and keeps its traceback (status 1).
    """
    sys.stdout.reconfigure(errors="replace")  # a generated text may hold what a terminal cannot show
    try:
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
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR,
                               errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.EFBIG, errno.ENAMETOOLONG):
            raise
        sys.exit(_say(f"{error.filename or 'write'}: {error.strerror}"))
    except Exception as error:
        from configs import storage  # not above: it raises UserError itself
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
