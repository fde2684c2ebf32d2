"""README.md and docs/: every command runs as written, every link leads somewhere, no sentence stands twice.

The notebook among them is not run here: its commands are the README's, and its outputs show that they were run.

A comment before each block of commands, which readers do not see, says what is to be done with it:

    <!-- run -->                                as it stands, in a fresh copy of the project, after the blocks before it
    <!-- run; given: my_texts, pages -->        with what a reader would have: one of GIVEN
    <!-- run; small: 8192 => 512; A => B -->    with smaller sizes: each 8192 of the block replaced by 512
    <!-- not run: a GPU -->                     and why; its options are still held against those of the programs
"""
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from configs import arguments
from configs.errors import UserError
from datasets.pages import archive_writer
from tests.helpers import pages
from tests.helpers.runs import ROOT
from tests.test_structure import tracked

README, NOTEBOOK = "README.md", "docs/quickstart.ipynb"
PAGES = [README, *(f"docs/{name}.md" for name in (
    "training", "data", "evaluation", "generating", "weights", "gpus-and-hosts", "tpu", "config", "sizes",
    "determinism", "fidelity", "limits", "differences", "architecture", "moved", "benchmarks")), NOTEBOOK]
BLOCK = re.compile(r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<body>.*?)^```$", re.M | re.S)
LONGEST_README, WIDEST_README, LONG_SENTENCE = 180, 130, 30
LARGEST_NOTEBOOK = 200_000  # bytes
BLOCK_SECONDS = 900  # for a machine that is busy
# Programs whose options are not ours to check.
FOREIGN = ("gcloud", "docker", "ray", "tensorboard", ".", "cat", "END", "export", "git")


class Block(NamedTuple):
    """Commands of a page."""
    page: str
    line: int
    mark: str  # "" where there is none
    commands: str

    @property
    def is_run(self):
        return self.mark.split(";")[0] == "run"

    def named(self, name):
        """What stands behind `name: ` in the mark, or ""."""
        found = re.search(rf"; {name}: (.*?)(?=; \w+: |$)", self.mark)
        return found[1] if found else ""


def read(page):
    """The text of a page; of the notebook its texts, and of each of its cells the commands as a block."""
    text = Path(ROOT, page).read_text()
    return "\n".join(map(as_markdown, json.loads(text)["cells"])) if page == NOTEBOOK else text


def as_markdown(cell):
    text = "".join(cell["source"])
    if cell["cell_type"] == "code":
        commands = re.findall(r"^ *!(.*\n?)", re.sub(r"\\\n *", "", text), re.M)
        text = f"<!-- not run: its outputs stand there -->\n```\n{''.join(commands).rstrip()}\n```" if commands else ""
    return f"{text}\n"


def blocks_of(page):
    """The Blocks of a page that hold commands: those without a language, but for the tree of files."""
    text = read(page)
    return [Block(page, text.count("\n", 0, found.start()) + 1, found["mark"] or "", found["body"])
            for found in BLOCK.finditer(text) if not found["language"] and not found["body"].startswith("main.py  ")]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def named(block):
    return f"{block.page}:{block.line}"


def commands_in(block):
    """The command lines, as words, without comments, here-documents, and variables set in front."""
    text = re.sub(r"<<(\w+)\n.*?^\1$", "", block.commands, flags=re.M | re.S)
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if words:
            yield words


# What the marks and the pages promise

def test_every_page_is_among_those_that_are_checked():
    assert sorted(PAGES) == sorted(path for path in tracked()
                                   if path == README or re.match(r"docs/[^/]*\.(md|ipynb)$", path))


@pytest.mark.parametrize("block", BLOCKS, ids=named)
def test_every_block_of_commands_has_a_mark(block):
    assert re.match(r"run(; (given|small): .+)*$|not run: .+$", block.mark), "say before it: run, or not run and why"
    for change in filter(None, block.named("small").split("; ")):
        assert change.split(" => ")[0] in block.commands, change
    assert set(filter(None, block.named("given").split(", "))) <= set(GIVEN)


def test_readme_fits_a_few_screens():
    lines = read(README).splitlines()
    assert len(lines) <= LONGEST_README
    assert not [line for line in lines if len(line) > WIDEST_README]


def test_readme_says_how_many_lines_there_are_to_read():
    said, = re.findall(r"about ([\d,]+) lines\s+to read, tests and benchmarks aside", read(README))
    lines = sum(len(read(path).splitlines()) for path in tracked()
                if path.endswith(".py") and not path.startswith(("tests/", "benchmarks/")))
    assert int(said.replace(",", "")) == pytest.approx(lines, rel=0.02)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", read(page))):
        path, _, heading = target.partition("#")
        if "://" in target:
            continue
        place = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        assert os.path.exists(os.path.join(ROOT, place)), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", read(place), re.M)
            assert heading in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles], target


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page):
    """In the running text: paths of ours with an ending, docs/moved.md's old names aside."""
    if page == "docs/moved.md":
        return
    for path in re.findall(r"`((?:configs|encoder|datasets|models|tools|tests|benchmarks|docs)/[\w./-]*\.\w+)`",
                           BLOCK.sub("", read(page))):
        assert os.path.exists(os.path.join(ROOT, path)), path


def sentences(page):
    """The sentences of a page, of LONG_SENTENCE characters or more, tables and blocks left out."""
    text = re.sub(r"<!--.*?-->", "", BLOCK.sub("", read(page)))
    prose = "\n".join(line for line in text.splitlines() if not re.match(r"\||#", line))
    for paragraph in re.split(r"\n\s*\n|\n\s*- ", prose):
        for sentence in re.split(r"(?<=[.:;!?])\s+", " ".join(paragraph.split())):
            if len(sentence) >= LONG_SENTENCE:
                yield sentence


def test_no_sentence_stands_twice():
    seen = {}
    for page in PAGES:
        for sentence in sentences(page):
            assert sentence not in seen, f"{page} and {seen[sentence]}: {sentence}"
            seen[sentence] = page
    assert len(seen) > 200


# The notebook

def test_commands_of_the_notebook_are_those_of_the_readme():
    """But for the clone, and texts in quotes.  The README's are run, below."""
    def without_texts(commands):
        return re.sub(r'"[^"\n]*"', '""', commands)
    found = [line for block in blocks_of(NOTEBOOK) for line in block.commands.splitlines()]
    assert not [line for line in found
                if not line.startswith("git clone ") and without_texts(line) not in without_texts(read(README))]
    from_text_to_model = next(block for block in blocks_of(README) if "new_config.py" in block.commands)
    wanted = from_text_to_model.commands.splitlines()
    assert [line for line in found if line in wanted] == wanted


def test_notebook_was_run_from_its_first_cell_to_its_last_and_its_outputs_are_small():
    """And it is as https://nbformat.readthedocs.io says of version 4.5."""
    text = Path(ROOT, NOTEBOOK).read_text()
    assert len(text) < LARGEST_NOTEBOOK
    notebook = json.loads(text)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert {cell["cell_type"] for cell in notebook["cells"]} == {"markdown", "code"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result"}
    pictures = [output["data"]["image/png"] for output in outputs if "data" in output]
    assert len(pictures) == 1
    said = "".join("".join(output.get("text", "")) for output in outputs)
    assert "done" in said and not re.search(r"error:|warning:|Traceback|\r|\033", said)


# Options, of blocks that are run and of those that are not

@functools.lru_cache(maxsize=None)
def help_of(*program):
    """What `--help` of a program of the project prints."""
    return subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True,
                          timeout=60).stdout


def check_options(program, words):
    """Holds a command against the program's parser, as far as that can be asked."""
    if program == ("main.py",):
        arguments.parse(words)
        return
    if program[-1] == "models.checkpoints":
        program, words = (*program, words[0]), words[1:]
    known = set(re.findall(r"--\w+", help_of(*program)))
    if "--" in words:  # tpu_survival: the run's own command
        check_command(words[words.index("--") + 1:])
        words = words[:words.index("--")]
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


def check_command(words):
    program, *rest = words
    if program == "python3" and rest[0] == "-m":
        check_options(("-m", rest[1]), rest[2:])
    elif program == "python3" and rest[0] != "-c":
        check_options((rest[0],), rest[1:])
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", read("Makefile"), re.M)
        assert {word for word in rest if "=" not in word} <= set(targets)
    elif program == "pip":
        assert os.path.exists(os.path.join(ROOT, rest[-1])) and rest[:-1] == ["install", "-r"]
    else:
        assert program in FOREIGN or (program, rest[0]) == ("python3", "-c"), words


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=named)
def test_options_of_every_command_exist(block):
    for words in commands_in(block):
        ends = [place for place, word in enumerate(words) if word == ">"]
        words = words[:ends[0]] if ends else words
        try:
            check_command(words)
        except UserError as error:
            raise AssertionError(f"{shlex.join(words)}: {error}")
        for path in re.findall(r"\bconfigs/\S+\.json\b", " ".join(words)):
            assert os.path.exists(os.path.join(ROOT, path)), path


# The commands themselves

def write_texts(folder):
    for number in range(40):
        text = "\n".join(" ".join(pages.paragraphs(number * 50 + i)) for i in range(6))
        (folder / f"{number}.txt").write_text(text)


def write_pages(folder):
    writer = archive_writer.Writer(str(folder), str(folder / "state" / "RS_2017-04.txt"), "RS_2017-04")
    for number in range(12):
        writer.add(number, f"http://example.org/{number}", pages.article(number).encode(), {"url": str(number)})
    writer.close()


# What a reader is taken to have: a name in the folder of the project -> how to make it.
GIVEN = {
    "my_texts": write_texts,
    "pages": write_pages,
    "wikitext-test.txt": "A text that a model is evaluated on, and that it must not have been trained on.\n" * 3,
    "lambada_test.jsonl": '{"text": "She gave him the book"}\n{"text": "He read it to the end"}\n',
    "prompts.jsonl": '{"prompt": "class", "length": 5}\n{"prompt": "def", "length": 6, "num_samples": 2}\n',
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A fresh copy of the project's files, with a link to the environment that these tests run in."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in filter(lambda path: os.path.exists(os.path.join(ROOT, path)), tracked()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.join(ROOT, path), folder / path)
        if path.startswith("requirements"):
            os.utime(folder / path, (0, 0))  # older than the environment: make has nothing to install
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def give(folder, name):
    content, place = GIVEN[name], folder / name
    if place.exists():
        return
    if isinstance(content, str):
        place.write_text(content)
    else:
        place.mkdir()
        content(place)


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in BLOCKS if block.is_run], ids=named)
def test_commands_run_as_they_stand(block, checkout):
    commands = block.commands
    for name in filter(None, block.named("given").split(", ")):
        give(checkout, name)
    for change in filter(None, block.named("small").split("; ")):
        commands = commands.replace(*change.split(" => "))
    environment = {**os.environ, "PATH": f"{checkout}/.venv/bin{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(["bash", "-e", "-c", commands], cwd=checkout, env=environment, input="class\n", text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BLOCK_SECONDS)
    assert result.returncode == 0, result.stdout[-3000:]
    assert "Traceback" not in result.stdout
