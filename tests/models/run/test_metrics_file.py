"""metrics.jsonl: what is written is read, what is beyond a step or broken off goes, and no disk ends a training."""
import json

import numpy as np

from models.run import extras, metrics_file

LINES = [{"step": step, "time": 5.0, "loss": 9 - step / 10} for step in (10, 20, 30)]


def write(folder, text):
    (folder / metrics_file.FILE).write_text(text)
    return str(folder)


def text_of(lines):
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_entries_are_read_as_they_were_written_and_are_json_whatever_the_figures(tmp_path):
    entry = metrics_file.entry(np.int64(3), loss=np.float32(0.0006), tokens=123456789, a=float("inf"),
                               b=np.float32("nan"), c=None)
    metrics_file.append(str(tmp_path), [entry])
    metrics_file.append(str(tmp_path), [entry, entry])
    assert metrics_file.read(str(tmp_path)) == [entry] * 3
    assert {name: value for name, value in entry.items() if name != "time"} \
        == {"step": 3, "loss": 0.0006, "tokens": 123456789, "a": None, "b": None, "c": None}
    lines = (tmp_path / metrics_file.FILE).read_text().splitlines()
    assert [json.loads(line, parse_constant=lambda name: 1 / 0) for line in lines] == [entry] * 3  # no NaN of Python's


def test_lines_beyond_the_step_and_those_that_a_kill_broke_off_are_dropped(tmp_path):
    folder = write(tmp_path, text_of(LINES) + '{"step": 40, "ti')
    assert metrics_file.read(folder) == LINES
    metrics_file.cut(folder, 20)
    assert (tmp_path / metrics_file.FILE).read_text() == text_of(LINES[:2])
    metrics_file.cut(folder, 0)
    assert metrics_file.read(folder) == []


def test_the_lines_of_an_evaluation_that_is_made_again_are_dropped_and_no_others(tmp_path):
    evaluations = [{"step": step, "time": 6.0, name: 2.5} for step in (20, 30)
                   for name in ("eval_loss", "zero_shot/text/rolling/loss")]
    lines = [*LINES[:2], *evaluations[:2], LINES[2], *evaluations[2:]]
    folder = write(tmp_path, text_of(lines))
    metrics_file.cut(folder, 30)
    assert metrics_file.read(folder) == lines
    metrics_file.cut(folder, 30, evaluates=True)
    assert metrics_file.read(folder) == lines[:5]


def test_a_file_that_holds_nothing_beyond_the_step_is_left_alone_and_none_is_made(tmp_path):
    metrics_file.cut(str(tmp_path), 20)
    assert not (tmp_path / metrics_file.FILE).exists()
    folder = write(tmp_path, text_of(LINES).replace(", ", ",  "))
    before = (tmp_path / metrics_file.FILE).stat()
    metrics_file.cut(folder, 30)
    assert (tmp_path / metrics_file.FILE).stat() == before


def test_what_cannot_be_written_is_one_warning_and_no_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file")
    for _ in range(3):
        metrics_file.append(folder, LINES)
    assert capsys.readouterr().out == (f"warning: {folder}/metrics.jsonl was not written (Not a directory); the"
                                       " training goes on\n")
    with extras.written("x"):
        raise RuntimeError("two\nlines")
    assert capsys.readouterr().out == "warning: x was not written (RuntimeError: two lines); the training goes on\n"
