"""The rules that keep the house walkable: what stands where, and who may import whom."""
import ast
import os
import re
import subprocess
import sys

import pytest

from configs import schema
from tests.helpers.runs import ROOT

PACKAGES = ("configs", "encoder", "datasets", "models", "tools")
# Scripts, which nobody imports.
SCRIPTS = ("main", "datasets.create_tfrecords", "datasets.dedup", "datasets.download", "datasets.extract_text",
           "datasets.make_corpus", "datasets.run_newspaper_extract", "datasets.verify_tfrecords", "encoder.train",
           "models.checkpoints.__main__", "tools.backup_checkpoint",
           "tools.doctor", "tools.download_model", "tools.new_config", "tools.plot", "tools.tpu_survival",
           "tools.verify_resume", "tools.zero_shot")
# Each floor may import itself and those before it.  models.core: what lies in models/ itself and in models/cpu/.
FLOORS = ("configs", "encoder", "datasets", "inputs", "models.core", "models.checkpoints", "models.run", "tools",
          "main")
# What a floor may not import although it stands higher.
EXCEPT = {"models.core": ("encoder", "datasets", "inputs"), "models.checkpoints": ("datasets", "inputs"),
          "inputs": ("encoder",)}
# A script may read what stands beside its floor.
ALSO = {"encoder.train": ("datasets.cleaning", "datasets.cutting", "datasets.documents", "datasets.encodings",
                          "datasets.left_out", "datasets.plans"),
        "models.checkpoints.convert": ("datasets.fitting", "datasets.vocabularies", "datasets.window_order")}
WITHOUT_TENSORFLOW = ("configs", "encoder", "datasets", "models.weights", "models.checkpoints.state_file",
                      "models.run.cost", "models.run.extras", "models.run.loss_picture", "models.run.metrics_file",
                      "models.run.plan", "models.run.room", "tools.doctor", "tools.new_config", "tools.plot",
                      "tools.tpu_survival")
EXPECTED_AT_THE_TOP = {"main.py", "inputs.py", "README.md", "LICENSE", "Makefile", "Dockerfile", "pyproject.toml",
                       "configs", "encoder", "datasets", "models", "tools", "docs", "benchmarks", "tests", ".ci",
                       ".gitignore", ".dockerignore"}


def tracked():
    """Paths of all files of the project."""
    return subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True,
                          check=True, capture_output=True).stdout.split()


def sources():
    """{module: its syntax tree} of the product."""
    found = {}
    for path in tracked():
        if path.endswith(".py") and path.split("/")[0].split(".")[0] in (
                *PACKAGES, "main", "inputs") and os.path.exists(os.path.join(ROOT, path)):
            with open(os.path.join(ROOT, path)) as f:
                tree = ast.parse(f.read())
            if tree.body or not path.endswith("__init__.py"):
                found[path[:-3].replace("/__init__", "").replace("/", ".")] = tree
    return found


SOURCES = sources()


def names_in(nodes):
    """Modules that these statements import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in SOURCES else node.module
                      for alias in node.names}
    return found


def imports_at_once(module):
    """Modules that importing this one imports: those at its top level, not those inside its functions."""
    return names_in(SOURCES[module].body)


def imports_of(module):
    """Modules that this one imports anywhere."""
    return names_in(ast.walk(SOURCES[module]))


def floor_of(module):
    for floor in FLOORS:
        if module == floor or module.startswith(floor + "."):
            return floor
    return "models.core" if module.startswith("models") else None


def reached_from(module):
    """All modules that come in with this one."""
    reached, wanted = set(), [module]
    while wanted:
        for name in imports_at_once(wanted.pop()) - reached:
            reached.add(name)
            if name in SOURCES:
                wanted.append(name)
    return reached


def test_the_top_level_holds_what_the_design_names():
    there = {path.split("/")[0] for path in tracked()}
    there = {name for name in there if not name.startswith("requirements")}
    assert there <= EXPECTED_AT_THE_TOP, there - EXPECTED_AT_THE_TOP


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_run_one_way(module):
    floor = floor_of(module)
    for name in imports_of(module):
        other = floor_of(name)
        if other is None or name in ALSO.get(module, ()):
            continue
        assert FLOORS.index(other) <= FLOORS.index(floor), f"{module} imports {name}, which stands above it"
        assert other not in EXCEPT.get(floor, ()), f"{module} imports {name}"


def test_no_circle():
    """Of modules, imports inside of functions included."""
    state = {}

    def visit(module, path):
        if state.get(module) == "done":
            return
        assert module not in path, " -> ".join([*path[path.index(module):], module])
        for name in sorted(imports_of(module) & set(SOURCES)):
            visit(name, [*path, module])
        state[module] = "done"
    for module in sorted(SOURCES):
        visit(module, [])


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_tensorflow_is_not_imported_where_it_need_not_be(module):
    if module.startswith(WITHOUT_TENSORFLOW):
        reached = {name for name in reached_from(module) if name.split(".")[0].startswith("tensorflow")}
        assert not reached, f"{module} imports {sorted(reached)}"


@pytest.mark.slow
def test_tensorflow_does_not_come_in_by_a_library_either():
    names = [name for name in SOURCES if name.startswith(WITHOUT_TENSORFLOW)]
    code = (f"import importlib, sys; [importlib.import_module(name) for name in {names}]; "
            "sys.exit('tensorflow' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def private_touches(module):
    """What the module uses of TensorFlow that is not public."""
    private = re.compile(r"tensorflow\.(python|core|compiler)|tensorflow_estimator")
    found = set(filter(private.match, imports_of(module)))
    names = {alias.asname or alias.name.split(".")[0] for node in ast.walk(SOURCES[module])
             if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names
             if "tensorflow" in (getattr(node, "module", None) or alias.name)}
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in names and root.id != "NamedTuple":
                found.add(f"{root.id}...{node.attr}")
    return found


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_private_parts_of_tensorflow_are_touched_in_few_places(module):
    """Around a run, all in workarounds.py; of the network, where it is used, with the reason beside it."""
    if module not in ("models.run.workarounds", "models.replicas", "models.cpu.compiled", "models.cpu.onednn"):
        assert not private_touches(module)


def test_nobody_imports_a_script_or_the_tools():
    for module in SOURCES:
        assert not imports_of(module) & set(SCRIPTS), module
        if not module.startswith("tools"):
            above = {name for name in imports_of(module) if name.split(".")[0] in ("tools", "benchmarks", "tests")}
            assert not above, module


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


def test_table_of_the_config_page_is_that_of_the_schema():
    with open(os.path.join(ROOT, "docs", "config.md")) as f:
        assert schema.markdown() in f.read(), "print(configs.schema.markdown()) gives what must stand there"


def test_the_tree_in_the_docs_names_every_file_once():
    with open(os.path.join(ROOT, "docs", "architecture.md")) as f:
        tree = f.read().split("## The files")[1].split("```")[1]
    named = re.findall(r"^(\S+\.py|\S+\.sh)\s", tree, re.M)
    existing = [module.replace(".", "/") + ".py" for module in SOURCES]
    existing = [path if path in tracked() else path[:-3] + "/__init__.py" for path in existing]
    existing += [path for path in tracked() if path.startswith("tools/") and path.endswith(".sh")]
    assert sorted(named) == sorted(existing)
