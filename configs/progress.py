"""The progress bar of all commands: at a terminal twice a second, in a file of output now and then."""
import sys

from tqdm import tqdm


def bar(total, name=None, unit="it", done=0, **options):
    """A tqdm bar on standard error, of which `done` is done already."""
    return tqdm(total=total, initial=done, desc=name, unit=unit, mininterval=0.5 if sys.stderr.isatty() else 30,
                **options)
