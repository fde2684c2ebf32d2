"""Why a file could not be read or written, local or on Google Storage, and what helps."""
import errno
import os
import re

ANSWERS = {"401": "no or outdated credentials", "403": "no permission", "404": "no such bucket or object"}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What goes wrong with a file through no fault of the program, and what helps.
REMEDIES = {
    errno.ENOSPC: "make room there and run again",
    errno.EDQUOT: "make room within the quota and run again",
    errno.EFBIG: "allow larger files (`ulimit -f`, or another file system) and run again",
    errno.EACCES: "choose another path, or allow this account to use it",
    errno.EPERM: "choose another path, or allow this account to use it",
    errno.EROFS: "choose a path that can be written",
    errno.EISDIR: "give the path of a file",
    errno.ENOTDIR: "choose a path in a folder",
    errno.ENOENT: "check the path",
    errno.EEXIST: "choose another path, or move elsewhere what is there",
    errno.ENOTEMPTY: "choose another path, or move elsewhere what is there",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "look into the system's log (`dmesg`) for its reason",
    errno.EMFILE: "allow more open files (`ulimit -n`), or have fewer things done at a time",
    errno.ENFILE: "end other programs, which hold more files open than this machine allows",
    errno.EBUSY: "end what uses it and run again",
}
NO_REMEDY = "check the path, the space left there and what this account may do"


def cause(error):
    """Why a file could not be read or written, in a few words, from the system's or TensorFlow's error."""
    return getattr(error, "strerror", None) or blame(error) or str(error).splitlines()[0]


def no_room(error):
    """The number of FULL that an error of TensorFlow tells of; None for another error."""
    return next((number for number in FULL if os.strerror(number) in str(error)), None)


def remedy(error):
    """What helps where a file could not be read or written, in a few words, from the system's or TensorFlow's error."""
    number = getattr(error, "errno", None) or next(
        (number for number in REMEDIES if os.strerror(number) in str(error)), None)
    return REMEDIES.get(number, NO_REMEDY)


def blame(error):
    """What is wrong with a path, in a few words, from an error of TensorFlow; None where it is about something else."""
    text = str(error)
    if not type(error).__module__.startswith("tensorflow") and type(error) not in (
            RuntimeError, IndexError):  # as the writer of TensorBoard's files raises
        return None
    local = re.search(rf"(\S+); ({'|'.join(map(os.strerror, REMEDIES))})", text)
    if local:
        return ": ".join(local.groups())
    if full := no_room(error):
        return os.strerror(full)
    path = re.search(r"gs://[^\s'\",;]*", text)
    answer = re.search(r"HTTP response code (\d+)", text)
    broken = re.search(r"libcurl code \d+ meaning '([^']*)'", text)
    if not path:
        return None
    if answer:
        what = f"Google Storage answers {answer.group(1)}, {ANSWERS.get(answer.group(1), 'again and again')}"
    else:
        what = f"Google Storage cannot be reached, {broken.group(1)}" if broken else text.splitlines()[0]
    return f"{path.group()}: {what}"
