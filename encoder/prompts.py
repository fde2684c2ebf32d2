"""Reads the texts to continue, and how to continue each, from the command line and from files."""
import collections
import difflib

from configs import reading
from configs.errors import UserError
from configs.generation import OPTIONS, check
from encoder import bpe

LINES_SUFFIX = ".jsonl"
# A text to continue, and one value for each of OPTIONS; `stop` is a tuple of texts, `seed` may be None.  `where` begins
# the messages about it.
Prompt = collections.namedtuple("Prompt", ("text", *OPTIONS, "stop", "where"),
                                defaults=(*(option.default for option in OPTIONS.values()), (), "the prompt"))


def make(text, given):
    """The Prompt of the str `text` with `given`, a checked dict of its other fields, before the defaults.

    Line ends, marks of byte order and Unicode's form become those of the documents that a model was trained on
    (datasets/documents.py, datasets/cleaning.py).
    """
    prompt = Prompt(bpe.tidy(reading.without_marks(text)), **given)
    return prompt._replace(stop=tuple(sorted(set(map(bpe.tidy, prompt.stop)))))


def read(path, given):
    """List of Prompts in a file, local or gs://: of each line of a .jsonl, else of the whole text.

    `given` are options, checked, for all that a line does not set itself.
    """
    text = reading.read_text(path, "a text or a .jsonl to --predict_file")
    if not path.lower().endswith(LINES_SUFFIX):
        if not text.strip():
            raise UserError(f"--predict_file {path} is empty; write the text to continue into it")
        return [make(text, {**given, "where": path})]
    prompts = [_parse_line(line, f"{path}, line {number}", given)
               for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not prompts:
        raise UserError(f'--predict_file {path} is empty; write a line {{"prompt": "..."}} for each text to continue')
    return prompts


def _parse_line(line, where, given):
    try:
        values = reading.parse(line)
    except ValueError as error:
        raise UserError(f'{where}: no valid JSON ({error}); a line must be an object like {{"prompt": "..."}}')
    if not isinstance(values, dict) or not isinstance(values.get("prompt"), str):
        raise UserError(f'{where}: holds {reading.shown(values)}, but must be an object with a text in "prompt"')
    options = {**given, "where": where}
    for name, value in values.items():
        if name in OPTIONS or name == "stop":
            options[name] = check(name, value, f'{where}: "{name}"')
        elif name != "prompt":
            near = difflib.get_close_matches(name, ["prompt", "stop", *OPTIONS], n=1)
            hint = f'did you mean "{near[0]}"?' if near else "known are prompt, stop, " + ", ".join(OPTIONS)
            raise UserError(f'{where}: unknown option "{name}"; {hint}')
    return make(values["prompt"], options)
