"""The rules that keep the house walkable: one direction of imports, and a README that agrees with the code."""
import ast
import os
import re

import pytest

from configs import schema

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGES = ("configs", "datasets", "encoder", "models", "tools")
# A command stands above the house, wherever its file lies: nobody imports it, so that models.checkpoints may know the
# vocabulary that goes with the weights.
COMMANDS = ("main", "datasets.create_tfrecords", "datasets.dedup", "datasets.download", "datasets.extract_text",
            "datasets.make_corpus", "datasets.run_newspaper_extract", "datasets.verify_tfrecords", "encoder.train",
            "models.checkpoints", "tools.backup_checkpoint", "tools.download_model", "tools.tpu_survival",
            "tools.verify_resume")
# Who may not import what, directly or through others of the project.
FORBIDDEN = {
    "configs": ("tensorflow", "models", "inputs", "encoder", "datasets", "training", "estimator"),
    "encoder": ("tensorflow", "models", "inputs", "training", "estimator"),
    "datasets": ("tensorflow", "models", "inputs", "training", "estimator"),
    "models": ("inputs", "encoder", "datasets", "corpus", "training", "estimator", "generation"),
    "inputs": ("models", "training", "estimator"),
    "corpus": ("tensorflow", "models"),
    "plan": ("tensorflow",),
    "storage": ("tensorflow",),
    "cloud_tpu": ("tensorflow",),
    "tools.tpu_survival": ("tensorflow",),
    "tpu_names": ("tensorflow", "models"),
}


def sources():
    """{module: its syntax tree} of the product."""
    found = {}
    folders = [("", ROOT)] + [(package + ".", os.path.join(ROOT, package)) for package in PACKAGES]
    for prefix, folder in folders:
        for name in sorted(os.listdir(folder)):
            if name.endswith(".py") and name != "__init__.py":
                with open(os.path.join(folder, name)) as f:
                    found[prefix + name[:-3]] = ast.parse(f.read())
    return found


SOURCES = sources()


def imports_of(module):
    """Modules that importing this one imports: those at its top level, not those inside its functions."""
    found = set()
    for node in SOURCES[module].body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in SOURCES else node.module
                      for alias in node.names}
    return found


def reached_from(module):
    """All modules that come in with this one."""
    reached, wanted = set(), [module]
    while wanted:
        for name in imports_of(wanted.pop()) - reached:
            reached.add(name)
            if name in SOURCES:
                wanted.append(name)
    return reached


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_run_one_way(module):
    for start, forbidden in FORBIDDEN.items():
        if (module == start or module.startswith(start + ".")) and module != "models.checkpoints":
            reached = {name for name in reached_from(module) if name.split(".")[0] in forbidden}
            assert not reached, f"{module} imports {sorted(reached)}"


def test_nobody_imports_a_command():
    for module in SOURCES:
        assert not imports_of(module) & set(COMMANDS), module


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_importing_a_module_does_nothing(module):
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign,
               ast.AnnAssign)
    for node in SOURCES[module].body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        guard = isinstance(node, ast.If) and ("__name__" in ast.dump(node.test) or "__package__" in ast.dump(node.test))
        assert isinstance(node, allowed) or docstring or guard, f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_every_module_says_its_job(module):
    assert ast.get_docstring(SOURCES[module])


def readme():
    with open(os.path.join(ROOT, "README.md")) as f:
        return f.read()


def test_config_table_of_the_readme_is_that_of_the_schema():
    assert schema.markdown() in readme(), "print(configs.schema.markdown()) gives what must stand there"


def test_file_tree_of_the_readme_names_every_file_once():
    tree = readme().split("## The files")[1].split("```")[1]
    named = re.findall(r"^(\S+\.py|\S+\.sh)\s", tree, re.M)
    existing = [module.replace(".", "/") + ".py" for module in SOURCES]
    existing += ["tools/" + name for name in os.listdir(os.path.join(ROOT, "tools")) if name.endswith(".sh")]
    assert sorted(named) == sorted(existing)
