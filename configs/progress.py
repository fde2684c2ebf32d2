"""The progress bar of all commands: at a terminal twice a second, in a file of output now and then."""
import sys
import weakref

from tqdm import tqdm

BARS = weakref.WeakSet()


def bar(total, name=None, unit="it", done=0, **options):
    """A tqdm bar on standard error, of which `done` is done already."""
    one = tqdm(total=total, initial=done, desc=name, unit=unit, mininterval=0.5 if sys.stderr.isatty() else 30,
               **options)
    BARS.add(one)
    return one


def close_all():
    """Ends the line of every bar that is still drawn: what follows begins on a line of its own."""
    for one in list(BARS):
        one.close()
