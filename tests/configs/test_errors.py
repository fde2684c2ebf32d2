"""configs/errors.py: how scripts call themselves in their errors, what their options mean, and slips in them."""
import importlib

import pytest

from configs import arguments, commands, errors, reading
from configs.errors import UserError
from tests.test_structure import SCRIPTS


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name.split(".")[0] in ("datasets", "encoder", "tools")])
def test_wrong_arguments_name_the_script_as_it_is_called(script):
    with pytest.raises(UserError, match=f"`python3 {script.replace('.', '/')}.py --help` lists the options$"):
        importlib.import_module(script).main(["--no_such_option"])


def test_the_home_folder_stands_for_the_tilde_that_begins_an_option_unless_it_is_a_text(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    parser = errors.Parser()
    parser.add_argument("input", nargs="+")
    parser.add_argument("--exclude", action="append", default=[])
    parser.add_argument("--output_dir", default="~/out")
    parser.add_argument("--predict_text")
    parser.add_argument("--count", type=int)
    args = parser.parse_args(["~/a", "b~", "gs://b/~", "--exclude=~/c/*", "--predict_text=~/ is home", "--count", "3"])
    assert args.input == ["/home/me/a", "b~", "gs://b/~"] and args.exclude == ["/home/me/c/*"]
    assert (args.output_dir, args.predict_text, args.count) == ("/home/me/out", "~/ is home", 3)


def test_a_message_is_one_line_whatever_the_names_in_it_hold(capsys):
    assert str(UserError("runs/a\nb\r\x1b[2J\x9b\u2028 é 中 is no folder")) == (
        r"runs/a b\r\x1b[2J\x9b\u2028 é 中 is no folder")
    arguments.note("a\tb")
    arguments.warn("a\x00b")
    assert capsys.readouterr().err == "note: a\\tb\nwarning: a\\x00b\n"


@pytest.mark.parametrize("given, said", [
    (["--model", "a.json", "--predict_txt", "x"], "unknown option --predict_txt; did you mean --predict_text?"),
    (["--model", "a.json", "--top-k=3"], "unknown option --top-k; did you mean --top_k?"),
    (["-model", "a.json"], "unknown option -model; did you mean --model?"),  # and not that --model is missing
    (["--model", "a.json", "--no_such_option"], "unrecognized arguments: --no_such_option;")])
def test_an_option_with_a_slip_is_named_with_the_one_that_was_meant(given, said):
    with pytest.raises(UserError) as caught:
        arguments.parse(given)
    assert str(caught.value).startswith(said)


def test_what_is_a_value_or_belongs_to_another_command_is_no_option_with_a_slip():
    parser = errors.Parser()
    parser.add_argument("--name")
    parser.add_argument("--split_on", type=str)
    parser.add_argument("rest", nargs="*")
    found = parser.parse_args(["--nam", "a -naem b", "--split_on=--naem", "--", "--naem"])
    assert (found.name, found.split_on, found.rest) == ("a -naem b", "--naem", ["--naem"])
    both = errors.Parser()
    both.add_argument("--name")
    both.add_subparsers().add_parser("part").add_argument("--names")
    assert both.parse_args(["part", "--names", "x"]).names == "x"
    with pytest.raises(UserError, match="unknown option --nams; did you mean --names"):
        both.parse_args(["part", "--nams", "x"])


@pytest.mark.parametrize("text, shown", [
    ("\x1b[2Jfoo\r", r"\x1b[2Jfoo\r"), ("a\x9b31m\x7f\u202eb", r"a\x9b31m\x7f\u202eb"), ("über 'ü'\n中 \\ \x00",
                                                                                         r"über 'ü' 中 \ \x00"),
    ("\udcff", r"\udcff")])
def test_a_terminal_obeys_nothing_in_a_message(text, shown, capsys):
    assert str(errors.UserError(text)) == shown
    arguments.warn(text)
    arguments.note(text)
    assert commands._say(OSError(text)) == 2
    assert capsys.readouterr().err == f"warning: {shown}\nnote: {shown}\nerror: {shown}\n"


def test_a_terminal_obeys_nothing_in_a_value_of_json():
    assert reading.shown({"\x1bé": "\x9b7m\u2066"}) == r'{"\u001bé": "\x9b7m\u2066"}'
