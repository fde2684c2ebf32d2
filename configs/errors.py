"""A user's mistake, which every command of the project shows as one clear line."""
import argparse
import os

USER_ERROR = 2  # exit status
PREEMPTED = os.EX_TEMPFAIL  # 75, exit status of a run whose TPU is gone, which goes on when it is started again


class UserError(Exception):
    """A mistake the user can mend: the message says what, where, which value and the remedy, in one line."""


class Parser(argparse.ArgumentParser):
    """Reports wrong arguments in one line, by UserError."""

    def error(self, message):
        raise UserError(f"{message}; `python3 {self.prog} --help` lists the options")
