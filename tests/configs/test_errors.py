"""configs/errors.py: how scripts call themselves in their errors."""
import importlib

import pytest

from configs.errors import UserError
from tests.test_structure import SCRIPTS


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name.split(".")[0] in ("datasets", "encoder", "tools")])
def test_wrong_arguments_name_the_script_as_it_is_called(script):
    with pytest.raises(UserError, match=f"`python3 {script.replace('.', '/')}.py --help` lists the options$"):
        importlib.import_module(script).main(["--no_such_option"])
