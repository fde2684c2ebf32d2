"""Which files the inputs name: files, folders with all below, globs of either; what is left out is counted by kind."""
import fnmatch
import glob
import os
import re
import stat

from configs import storage
from configs.errors import UserError
from datasets import packed

TEXT_SUFFIXES, LINES_SUFFIXES = (".txt", ".py", ".md", ".markdown"), (".jsonl", *packed.SUFFIXES)
SUFFIXES = (*TEXT_SUFFIXES, *LINES_SUFFIXES)
# Kinds of what is left out; all others are endings.
WITHOUT_ENDING, LINK, BROKEN_LINK, NO_FILE = "without ending", "link to a folder", "link to nowhere", "no regular file"
KINDS_SHOWN = 6


def is_lines(name):
    """Whether each line of the file is a document."""
    return name.lower().endswith(LINES_SUFFIXES)


def find(inputs, excluded, option, left_out):
    """Yields (root, path below it, os.stat) of every file to read, sorted within each input, nothing twice.

    `excluded` is that of `matcher`.  `left_out`, {kind: [files, the first]}, gets what is not read.  `option`: what
    errors call `inputs`.  Raises UserError.
    """
    matches = {}  # absolute path -> [path, root, whether it was given by name]
    for pattern in inputs:
        for path, root in _expand(pattern, option):
            given = matches.setdefault(os.path.abspath(path), [path, os.path.abspath(root), False])
            given[2] = given[2] or path == pattern
    named = {absolute for absolute, (_, _, by_name) in matches.items() if by_name}
    for absolute, (path, root, by_name) in matches.items():
        if _held_by_another(absolute, matches, by_name):
            continue
        relative = os.path.relpath(path, root)
        if os.path.isdir(path):
            yield from _walk(path, root, excluded, named, left_out)
        elif not excluded(relative):
            yield from _if_readable(root, relative, named, left_out)


def check_there(inputs, option):
    """Raises UserError where one of `inputs` names nothing that is read."""
    for pattern in inputs:
        _expand(pattern, option)


def check_outside(path, inputs, exclude, option):
    """Raises UserError where the file `path` of `option` lies in a folder of `inputs` and would be read as a text."""
    excluded = matcher(exclude)
    for folder in filter(os.path.isdir, inputs):
        relative = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
        if relative.split(os.sep)[0] != os.pardir and relative.lower().endswith(SUFFIXES) and not excluded(relative):
            raise UserError(f"{option} {path} lies in --input {folder}, and would be read as a text; give a file"
                            " elsewhere, or leave it out with --exclude")


def matcher(patterns):
    """A function of the path below the root: whether one of the globs `patterns` excludes it."""
    if not patterns:
        return lambda relative: False
    matches = re.compile("|".join(fnmatch.translate(pattern.rstrip("/")) for pattern in patterns)).match

    def excluded(relative):
        # The leading slash lets `*/idlelib/*` match at the root as well.
        return bool(matches(relative) or matches("/" + relative) or any(map(matches, relative.split("/"))))
    return excluded


def described(left_out):
    """What was left out, in words: `3 .html (a.html, ...), 1 link to a folder (old)`, and how to have it read."""
    kinds = sorted(left_out.items(), key=lambda item: (-item[1][0], item[0]))
    parts = [f"{count:,} {kind} ({first}{', ...' if count > 1 else ''})" for kind, (count, first) in
             kinds[:KINDS_SHOWN]]
    rest = sum(count for _, (count, _) in kinds[KINDS_SHOWN:])
    parts += [f"{rest:,} of {len(kinds) - KINDS_SHOWN} other kinds"] if rest else []
    by_name = [words for kind, words in ((WITHOUT_ENDING, "texts without ending"), (LINK, "links"))
               if kind in left_out]
    return ", ".join(parts) + (f"; give {' and '.join(by_name)} by name" if by_name else "")


def _expand(pattern, option):
    """[(path, root)]: a folder is its own root; the root of a glob is what stands before its first wildcard."""
    if "://" in pattern:
        raise UserError(f"{option} {pattern}: text is read from local files only, copy it here first")
    if os.path.isdir(pattern):
        return [(pattern, pattern)]
    if os.path.exists(pattern):
        if not pattern.lower().endswith(SUFFIXES) and _ending(pattern) != WITHOUT_ENDING:
            raise UserError(f"{option} {pattern}: only {', '.join(SUFFIXES)} and files without ending are read; if it "
                            "is plain text, rename it to end in .txt")
        return [(pattern, os.path.dirname(pattern) or ".")]
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise UserError(f"{option} {pattern}: no such file or folder{storage.looked_for_in(pattern)}")
    root = os.path.dirname(re.split(r"[*?\[]", pattern)[0]) or "."
    return [(path, root) for path in matches]


def _held_by_another(absolute, found, by_name):
    """Whether a folder of `found` holds the path; one `by_name` that lies behind a link is not read with the folder."""
    while absolute != os.path.dirname(absolute):
        if by_name and os.path.islink(absolute) and os.path.isdir(absolute):
            return False
        absolute = os.path.dirname(absolute)
        if absolute in found:
            return True
    return False


def _walk(path, root, excluded, named, left_out):
    """Yields (root, path below it, os.stat) of the files below the folder `path`; `named`: paths given by name."""
    for folder, subfolders, names in os.walk(path, onerror=_raise):
        below = os.path.relpath(folder, root)
        below = "" if below == "." else below
        subfolders[:] = sorted(name for name in subfolders if not excluded(os.path.join(below, name)))
        for name in subfolders:
            place = os.path.join(below, name)
            if os.path.islink(os.path.join(root, place)) and os.path.join(root, place) not in named:
                _leave_out(left_out, LINK, place)
        for name in sorted(names):
            relative = os.path.join(below, name)
            if not excluded(relative):
                yield from _if_readable(root, relative, named, left_out)


def _if_readable(root, relative, named, left_out):
    """Yields (root, relative, os.stat) of a file, or counts it where it is not read."""
    path = os.path.join(root, relative)
    if not relative.lower().endswith(SUFFIXES) and path not in named:
        return _leave_out(left_out, _ending(relative), relative)
    try:
        facts = os.stat(path)
    except OSError:
        return _leave_out(left_out, BROKEN_LINK, relative)
    if not stat.S_ISREG(facts.st_mode):
        return _leave_out(left_out, NO_FILE, relative)
    yield root, relative, facts


def _leave_out(left_out, kind, relative):
    left_out.setdefault(kind, [0, relative])[0] += 1


def _ending(name):
    return os.path.splitext(name)[1].lower() or WITHOUT_ENDING


def _raise(error):
    raise error
