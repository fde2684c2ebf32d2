"""Documents of which something must be said: how many, the first of them by name, and what to do about them.

Workers find them one by one, and hand over {what: [count, the first numbers]}, which JSON takes.
"""
import bisect
import json

from configs.errors import printable
from datasets import documents
from encoder import bpe

NAMED, FIELDS_SHOWN = 5, 8
SPLIT = f"; if it parts documents, give --split_on '{bpe.END_OF_TEXT}'"
MARKED = "marked"  # holds <|endoftext|>, and may be several documents
MARKED_LINE = "marked_line"  # the same of a line of JSON, which is not cut


def note(found, what, number, count=1):
    """Adds a document to `found`, as one or as `count`."""
    entry = found.setdefault(what, [0, []])
    entry[0] += count
    if number not in entry[1]:
        bisect.insort(entry[1], number)
        del entry[1][NAMED:]


def note_marks(found, index, number, text):
    """Notes in `found` how often <|endoftext|> stands in the text of a document."""
    marks = text.count(bpe.END_OF_TEXT)
    if marks:
        note(found, MARKED_LINE if documents.is_line(index, number) else MARKED, number, marks)


def merged(several):
    """One such dict out of several."""
    total = {}
    for found in several:
        for what, (count, numbers) in found.items():
            for number in numbers:
                note(total, what, number, 0)
            total[what][0] += count
    return total


def described(found, index):
    """Yields a line for each kind of document that `found` counts in the Index."""
    words = {documents.OTHER_ENCODING: _other_encoding, documents.PACKED: _packed, documents.BAD_LINE: _bad_lines,
             documents.NO_OBJECT: _no_objects, MARKED: _marked, MARKED_LINE: _marked_line}
    for what, describe in words.items():
        if what in found:
            yield describe(*found[what], index)


def marked_whole(count, numbers, index):
    """The line on documents, `count` and the first numbers, that are compared as one although they may be several."""
    return f"{bpe.END_OF_TEXT} stands in {many(count, 'document')}, compared whole: "\
           f"{_names(numbers, index, count > len(numbers))}{SPLIT}"


def many(count, noun):
    """`1 line`, `2 lines`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _names(numbers, index, more):
    return printable(", ".join(documents.identity(index, number) for number in numbers)) + ", ..." * more


def _other_encoding(count, numbers, index):
    given = index.reading.encoding
    tried = f"UTF-8, UTF-16 or {given}" if given else "UTF-8 or UTF-16"
    remedy = "another --encoding" if given else "--encoding NAME, for instance cp1252, or --encoding detect"
    return f"{many(count, 'document')} left out that could not be read as {tried}: "\
           f"{_names(numbers, index, count > len(numbers))}; give {remedy}, or leave out with --exclude what is no "\
           "text, such as what holds NUL bytes"


def _packed(count, numbers, index):
    return f"{many(count, 'document')} left out that begin as packed files (gzip, zip ...) or pictures do: "\
           f"{_names(numbers, index, count > len(numbers))}; unpack them, or leave them out with --exclude"


def _bad_lines(count, numbers, index):
    key, fields = index.reading.text_key, {}
    for number in numbers:
        fields.update(documents.fields(index, number))
    texts = [name for name, value in fields.items() if isinstance(value, str) and name != key]
    twice = fields.get(key) is documents.TWICE
    why = ", which is given twice" if twice else ", which is no text"
    names = [f"{name!r}{why * (name == key)}" for name in fields]
    there = f"keys there are {', '.join(names[:FIELDS_SHOWN])}{', ...' * (len(names) > FIELDS_SHOWN)}" if names else \
        "there are no keys"
    remedy = f"; give --text_key {max(texts, key=lambda name: len(fields[name]))}" if texts and not twice else ""
    return f"{many(count, 'line')} left out without a text in {key!r}: "\
           f"{_names(numbers, index, count > len(numbers))}; {there}{remedy}"


def _no_objects(count, numbers, index):
    example = json.dumps({index.reading.text_key: "..."}, ensure_ascii=False)
    return f"{many(count, 'line')} left out without a JSON object: {_names(numbers, index, count > len(numbers))}; "\
           f"each line must be one such as {example}, and end in \\n, not in \\r alone"


def _marked(count, numbers, index):
    return f"{_marks(count, numbers, index)}{SPLIT}"


def _marked_line(count, numbers, index):
    return f"{_marks(count, numbers, index)}; if it parts documents, give each a line of its own"


def _marks(count, numbers, index):
    return f"{bpe.END_OF_TEXT} stands {many(count, 'time')} in {_names(numbers, index, len(numbers) == NAMED)}, and "\
           "is read as any other text"
