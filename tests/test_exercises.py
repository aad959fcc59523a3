"""The tutorial's exercises and its bug hunt keep their promise: an emptied body or a planted bug
turns tests red.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "tutorial.md").read_text()
EXERCISES = re.findall(r"^\d+\. `([\w.]+)` in `([\w/.]+)`: `pytest ([\w/.]+)`$", TEXT, re.M)
PATCHES = sorted((ROOT / "tests" / "bugs").glob("*.patch"))
CATCHES = {  # the test that catches each bug
    "1": "tests/test_train.py::test_there_is_one_update_for_every_learn_step_steps",
    "2": "tests/test_mutation.py",
    "3": "tests/test_td3.py",
    "4": "tests/test_tournament.py",
    "5": "tests/test_tournament.py::test_nothing_is_shared_between_the_elite_the_offspring_and_their_parents",
    "6": "tests/test_train.py::test_no_stored_transition_crosses_an_episode",
    "7": "tests/test_train.py::test_no_stored_transition_crosses_an_episode",
    "8": "tests/test_td3.py",
    "9": "tests/test_mutation.py",
}


@pytest.fixture
def copy(tmp_path):
    """A copy of the project to break."""
    ignored = shutil.ignore_patterns(
        ".git", "__pycache__", "runs", "mutants", "*.egg-info", ".venv"
    )
    shutil.copytree(ROOT, tmp_path / "copy", ignore=ignored)
    return tmp_path / "copy"


def passes(folder, tests):
    """Whether some tests of a copy pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", tests]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 1), (
        done.stdout + done.stderr
    )  # 1: a test failed; anything else is another trouble
    return done.returncode == 0


def empty(path, symbol):
    """Leave nothing of a function's body but its docstring."""
    text = path.read_text()
    node = ast.parse(text)
    for part in symbol.split("."):
        node = next(child for child in node.body if getattr(child, "name", None) == part)
    first = node.body[1 if ast.get_docstring(node) is not None else 0]
    lines = text.splitlines(keepends=True)
    lines[first.lineno - 1 : node.end_lineno] = [" " * first.col_offset + "pass\n"]
    path.write_text("".join(lines))


def test_there_are_exercises_for_every_part_and_eight_bugs():
    assert len(EXERCISES) == 18 and len(PATCHES) == len(CATCHES) >= 8
    assert [path.stem for path in PATCHES] == list(CATCHES)
    assert re.findall(r"^\| (\d) \| ", TEXT.partition("## Bug hunt")[2], re.M) == list(CATCHES)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_each_bug_still_fits_the_source(patch):
    command = ["git", "apply", "--check", str(patch)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("symbol, module, tests", EXERCISES)
def test_an_emptied_body_turns_its_tests_red_and_its_own_body_green(copy, symbol, module, tests):
    before = (copy / module).read_text()
    empty(copy / module, symbol)
    assert not passes(copy, tests)
    (copy / module).write_text(before)
    assert passes(copy, tests)


@pytest.mark.slow
@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_a_planted_bug_is_one_line_applies_and_is_caught(copy, patch):
    changed = [line for line in patch.read_text().splitlines() if re.match(r"[+-](?![+-])", line)]
    assert [line[0] for line in changed] == ["-", "+"]
    assert passes(copy, CATCHES[patch.stem])
    subprocess.run(["git", "apply", str(patch)], cwd=copy, check=True)
    assert not passes(copy, CATCHES[patch.stem])
    subprocess.run(["git", "apply", "-R", str(patch)], cwd=copy, check=True)
