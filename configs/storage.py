"""Files that may be local or on Google Storage: `gs://` paths go through TensorFlow, all others never import it."""
import contextlib
import errno
import fcntl
import glob as local_glob
import io
import os
import re
import secrets
import shutil
import time
import warnings

from configs import start
from configs.errors import UserError

REMOTE = "gs://"
PARTIAL = ".partial-"  # begins the names of files that are not complete
# Packages that TensorFlow imports with itself where they are there, which takes a sixth of the time of its import.
# Only the name of a TPU needs one of them here.
TENSORFLOW_SPARES = ("googleapiclient", "oauth2client", "h5py", "scipy", "pandas", "PIL")
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)  # answers to who would make a file in a folder
NO_UNICODE = "is not UTF-8 text; give one that is, and rename a file where it is a path"
WILDCARDS = "*?[\\"  # what TensorFlow takes for a pattern, in the path of a checkpoint, too


def is_remote(path):
    return path.startswith(REMOTE)


def silence_tensorflow():
    """Before TensorFlow is imported: no lines about its build, its kernels and its libraries' next versions."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def _gfile():
    silence_tensorflow()
    with start.importing():
        import tensorflow  # 2 to 10 seconds: only a gs:// path pays for it
    return tensorflow.io.gfile


def open_file(path, mode="r"):
    """A file object; text is UTF-8 and keeps its line ends.  Raises OSError for local paths, OpError for gs://."""
    if is_remote(path):
        return _gfile().GFile(path, mode)
    raw = _NamedFile(path, mode.replace("b", ""))
    buffered = io.BufferedReader(raw) if raw.readable() else io.BufferedWriter(raw)
    return buffered if "b" in mode else io.TextIOWrapper(buffered, "utf-8", newline="")


def read_into(file, place):
    """Fills `place`, a buffer of bytes, from what open_file(path, "rb") gave; returns how many were still there."""
    if hasattr(file, "readinto"):
        return file.readinto(place)
    data = file.read(len(place))  # on gs://
    memoryview(place)[:len(data)] = data
    return len(data)


@contextlib.contextmanager
def naming(path):
    """Inside, an error of the system that names no file, as one of reading or writing does, is one about `path`."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path
        raise


class _NamedFile(io.FileIO):
    """A local file.  Where reading or writing fails, the error names the file, as it does where opening fails."""

    def readinto(self, buffer):
        with naming(self.name):
            return super().readinto(buffer)

    def readall(self):
        with naming(self.name):
            return super().readall()

    def write(self, data):
        with naming(self.name):
            return super().write(data)


def exists(path):
    return _gfile().exists(path) if is_remote(path) else os.path.exists(path)


def is_folder(path):
    return _gfile().isdir(path) if is_remote(path) else os.path.isdir(path)


def size(path):
    """Bytes."""
    return _gfile().stat(path).length if is_remote(path) else os.stat(path).st_size


def state(path):
    """[bytes, time of change]: as long as it is the same, so is the file.

    The time is not known for gs://: after replacing an object there by one of the same size, delete what was noted.
    """
    return [size(path), None if is_remote(path) else os.stat(path).st_mtime_ns]


def glob(pattern):
    """Sorted paths that match; a path without wildcards that exists matches itself."""
    return sorted(_gfile().glob(pattern) if is_remote(pattern) else local_glob.glob(pattern, recursive=True))


def below(folder, pattern):
    """Joins a folder and a glob.  A wildcard in the name of the folder stands for itself."""
    return join(local_glob.escape(folder), pattern)


def make_folder(path):
    # Google Storage has no folders; TensorFlow's makedirs would write empty objects, and never return from a bucket
    # that does not exist.
    if not is_remote(path):
        os.makedirs(path, exist_ok=True)


def existing(folder):
    """The local folder itself, or what is there of the path to it."""
    path = os.path.abspath(folder)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def check_folder(folder):
    """Raises OSError where a local folder can be neither made nor written to, as far as a look tells."""
    if is_remote(folder):
        return
    there = existing(folder)
    number = None
    if not os.path.isdir(there):
        number = errno.ENOTDIR
    elif not os.access(there, os.W_OK | os.X_OK):
        number = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
    if number:
        raise OSError(number, os.strerror(number), there)


def join(folder, path):
    """`path` below `folder`; `path` itself where it is absolute or remote."""
    return path if is_remote(path) else os.path.join(folder, path)


def looked_for_in(path):
    """For messages: ` in FOLDER`, where a relative path is looked for; nothing for other paths."""
    return "" if is_remote(path) or os.path.isabs(path) else f" in {os.getcwd()}"


def read_bytes(path, most=-1):
    """All bytes of a file, or its first `most`."""
    with open_file(path, "rb") as f:
        return f.read(most)


def check_for_tensorflow(path, what):
    """Raises UserError where TensorFlow could not find again what it wrote to `path`, which `what` gave."""
    sign = next((sign for sign in WILDCARDS if sign in path), None)
    if sign:
        raise UserError(f"{what} {path} holds {sign}, and TensorFlow takes {' '.join(WILDCARDS)} in the path of a"
                        " checkpoint for wildcards; choose a path without them")
    check_text(path, what)


def check_text(text, what):
    """Raises UserError where `text`, which `what` gave, holds what is no Unicode, as a path's bytes may be."""
    with contextlib.suppress(UnicodeEncodeError):
        text.encode()
        return
    raise UserError(f"{what} {ascii(text)} {NO_UNICODE}")


def append_whole(path, text):
    """Adds the str `text` to the file; where that fails, a local file holds what it held before."""
    if is_remote(path):
        with open_file(path, "a") as f:
            f.write(text)
        return
    with _NamedFile(path, "a") as f:
        end, data = f.tell() if f.seekable() else None, text.encode()  # it may be a pipe
        try:
            while data:
                data = data[f.write(data):]
        except BaseException:
            with contextlib.suppress(OSError, TypeError):
                f.truncate(end)
            raise


def write_whole(path, text):
    """Writes str or bytes so that `path` holds all of it or what it held before."""
    with written_whole(path) as f:
        f.write(text.encode() if isinstance(text, str) else text)


@contextlib.contextmanager
def written_whole(path, temporary=None):
    """A file to write bytes to, called `temporary` until it is complete and on disk, then `path`.

    `temporary` (default: a name that nobody else uses, beside `path`) must be on the same file system.
    """
    if is_remote(path):  # an object of Google Storage appears when it is complete
        with _gfile().GFile(path, "wb") as f:
            yield f
        return
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    temporary = temporary or os.path.join(folder, PARTIAL + secrets.token_hex(8))
    try:
        with open(temporary, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            error.filename = path
        raise


@contextlib.contextmanager
def new_folder(path):
    """A folder for TensorFlow to write to: renamed to `path` when all went well, deleted when not.

    Raises UserError where `path` holds something, or another process makes it.  On gs://, where nothing can be renamed
    or locked, the folder is `path` itself: the file that others look for there is to be written last.
    """
    check_for_tensorflow(path, "the new folder")
    if is_remote(path):
        if glob(join(path, "*")):
            raise UserError(f"{path} is not empty; give a new folder")
        yield path
        return
    path = os.path.abspath(path)
    check_for_tensorflow(path, "the new folder")
    if os.path.ismount(path) or os.path.isdir(path) and os.path.samefile(path, "."):
        raise UserError(f"{path} is the current folder or a mount point, which no folder can replace; give a new folder"
                        " in it")
    place, name = os.path.split(path)
    with only_run(os.path.join(place, f".{name}.lock"), "give another folder"):
        if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path) or os.listdir(path)):
            raise UserError(f"{path} exists and is no empty folder; give a new one")
        ours = PARTIAL + name + "-"
        for left in os.listdir(place):  # by a run that was killed; the lock says that it is over
            if left.startswith(ours) and re.fullmatch("[0-9a-f]{16}", left[len(ours):]):
                shutil.rmtree(os.path.join(place, left), ignore_errors=True)
        partial = os.path.join(place, ours + secrets.token_hex(8))
        os.mkdir(partial)
        try:
            yield partial
            os.replace(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def clear(folder):
    """Removes incomplete files, no folders, that killed runs left in a local folder.  The caller must hold its lock."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.startswith(PARTIAL) and not os.path.isdir(path):  # a folder is that of new_folder, with its own lock
            os.unlink(path)


def copy(source, target):
    """Copies a file in place of what `target` held.  Raises UserError where the copy has another size."""
    _gfile().copy(source, target, overwrite=True)
    if size(target) != size(source):
        raise UserError(f"{target} has {size(target):,} bytes, {source} {size(source):,}; look for room there and run"
                        " again")


def remove(path):
    _gfile().remove(path)


@contextlib.contextmanager
def only_run(path, remedy, seconds=0):
    """Holds the lock file `path` (none on gs://).  Raises UserError if another still holds it after so many seconds."""
    if is_remote(path):
        yield
        return
    make_folder(os.path.dirname(path) or ".")
    end = time.monotonic() + seconds
    while not (held := lock(path)):
        if time.monotonic() >= end:
            raise UserError(f"another run holds {path}; wait for it, or {remedy}")
        time.sleep(0.1)
    with held:
        try:
            yield
        finally:
            if not os.path.getsize(path):  # else it was there before, and holds what is the user's
                os.unlink(path)


def lock(path):
    """The local file `path`, open and locked until it is closed; None where another process holds the lock.

    What the file holds stays as it is.  Raises UserError for a link.
    """
    if os.path.islink(path):
        raise UserError(f"{path} is a link, and a lock has to be a file of its own there; move the link elsewhere")
    try:
        file = open(path, "a")  # noqa: SIM115 (the caller closes it)
    except OSError as error:
        if error.errno in NOT_WRITABLE and not os.path.exists(path):
            error.filename = os.path.dirname(path) or "."  # which is at fault; of locks no user knows
        raise
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when we are killed
        if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):  # not one that its holder has just deleted
            return file
    file.close()
    return None
