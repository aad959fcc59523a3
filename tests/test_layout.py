"""The shape of the package: who imports whom, how long it may be, what can be copied alone."""

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    path.stem: path for path in sorted((ROOT / "tinyevo").glob("*.py")) if path.stem != "__init__"
}

ARROWS = {
    "networks": set(),
    "noise": set(),
    "buffer": set(),
    "checkpoint": set(),
    "td3": {"networks", "checkpoint"},
    "population": {"td3"},
    "tournament": set(),
    "mutation": set(),
    "environment": set(),
    "evaluate": {"environment"},
    "workers": set(),
    "result": {"td3", "buffer", "checkpoint"},
    "train": {"population", "noise", "environment", "evaluate", "result", "workers"},
    "render": set(),
}
LEAVES = [name for name, imported in ARROWS.items() if not imported]


def imports(path):
    """The modules of the package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {
                alias.name.partition(".")[2]
                for alias in node.names
                if alias.name.startswith("tinyevo")
            }
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "tinyevo":
                found |= {alias.name for alias in node.names}
            elif node.module.startswith("tinyevo."):
                found.add(node.module.removeprefix("tinyevo."))
    return found


def code_lines(text):
    """How many lines hold code: no blank ones, no comments, no docstrings."""
    documentation = set()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node) is not None
        ):
            documentation |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    skipped = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - documentation)


def needs(name):
    """The files that a module's docstring says must travel with it."""
    text = ast.get_docstring(ast.parse(MODULES[name].read_text()))
    return set(re.findall(r"(\w+)\.py", re.search(r"^Needs: (.*)", text, re.S | re.M)[1]))


def test_code_lines_are_counted_as_said():
    text = '"""Module.\n\nMore."""\n\n# comment\nx = (1,\n\n     2)  # why\n'
    text += 'def f():\n    """Doc."""\n    return """a\nb"""\n'
    assert code_lines(text) == 5  # x, 2), def, return and its second line


def test_the_modules_import_each_other_as_drawn_and_in_no_other_way():
    assert {name: imports(path) for name, path in MODULES.items()} == ARROWS


@pytest.mark.parametrize("name", ["README.md", "tutorial.md", "benchmarks/RESULTS.md"])
def test_no_blank_is_left_in_a_text(name):
    assert not re.findall(r"@[A-Z]+@", (ROOT / name).read_text())


def test_nothing_is_re_exported():
    assert code_lines((ROOT / "tinyevo" / "__init__.py").read_text()) == 0


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_longer_than_150_lines_of_code(name):
    assert code_lines(MODULES[name].read_text()) <= 150


def test_the_package_is_less_than_1000_lines_of_code_and_the_script_less_than_300():
    # Some 80 of the script's lines are settings, one to a line on its first screen.
    assert sum(code_lines(path.read_text()) for path in MODULES.values()) < 1000
    assert code_lines((ROOT / "train_lunar.py").read_text()) < 300


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_mirrors_leaves_out_and_needs(name):
    text = ast.get_docstring(ast.parse(MODULES[name].read_text()))
    assert "Leaves out: " in text and "\nNeeds: " in text
    assert "Mirrors the tutorial's section" in text
    closure, waiting = set(), set(ARROWS[name])
    while waiting:
        closure |= waiting
        waiting = set().union(*(ARROWS[needed] for needed in waiting)) - closure
    assert needs(name) == closure


def python(folder, code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_each_leaf_module_imports_alone_from_an_empty_folder(tmp_path):
    for name in LEAVES:
        (tmp_path / f"copied_{name}.py").write_text(MODULES[name].read_text())
    lines = ["import sys", "sys.modules['tinyevo'] = None"]  # any import of the package fails
    done = python(tmp_path, "\n".join(lines + [f"import copied_{name}" for name in LEAVES]))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [name for name in MODULES if name not in LEAVES])
def test_a_module_imports_with_the_files_that_it_needs_and_no_others(name, tmp_path):
    package = tmp_path / "tinyevo"
    package.mkdir()
    (package / "__init__.py").touch()
    for copied in {name} | needs(name):
        (package / f"{copied}.py").write_text(MODULES[copied].read_text())
    done = python(tmp_path, f"import tinyevo.{name}; print(tinyevo.{name}.__file__)")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout


def test_the_core_dependencies_are_exactly_five_and_the_package_imports_without_any_extra(tmp_path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[\w-]+(\[\w+\])?", line)[0] for line in project["dependencies"]}
    assert names == {"torch", "gymnasium[box2d]", "numpy", "imageio", "tqdm"}
    lines = [
        "import sys",
        "for name in ('matplotlib', 'wandb', 'dask', 'pytest'): sys.modules[name] = None",
    ]
    done = python(tmp_path, "\n".join(lines + [f"import tinyevo.{name}" for name in MODULES]))
    assert done.returncode == 0, done.stderr
