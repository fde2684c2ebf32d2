"""configs/errors.py: how scripts call themselves in their errors, and what their options mean."""
import importlib

import pytest

from configs import errors
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
