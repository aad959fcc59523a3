"""The tutorial's exercises and its bug hunt keep their promise: an emptied body or a planted bug
turns tests red.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bugs import CATCHES
from sources import emptied

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "tutorial.md").read_text()
EXERCISES = re.findall(r"^\d+\. `([\w.]+)` in `([\w/.]+)`: `pytest ([\w/.]+)`$", TEXT, re.M)
PATCHES = sorted((ROOT / "tests" / "bugs").glob("*.patch"), key=lambda path: int(path.stem))


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


def test_there_are_exercises_for_every_part_and_twelve_bugs():
    assert len(EXERCISES) == 18
    assert [path.stem for path in PATCHES] == list(CATCHES) and len(PATCHES) == 12
    listed = re.findall(r"^\| (\d+) \| ", TEXT.partition("## Bug hunt")[2], re.M)
    assert listed == list(CATCHES)[: len(listed)] and len(listed) >= 8


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_each_bug_still_fits_the_source(patch):
    command = ["git", "apply", "--check", str(patch)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("tests", sorted({tests for *_, tests in EXERCISES}))
def test_a_copy_of_the_project_passes_the_tests_of_its_exercises(copy, tests):
    assert passes(copy, tests)


@pytest.mark.slow
@pytest.mark.parametrize("symbol, module, tests", EXERCISES)
def test_an_emptied_body_turns_its_tests_red(copy, symbol, module, tests):
    source = (copy / module).read_text()
    (copy / module).write_text(emptied(source, symbol))
    assert not passes(copy, tests)


@pytest.mark.slow
@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_a_planted_bug_is_one_line_applies_and_is_caught(copy, patch):
    changed = [line for line in patch.read_text().splitlines() if re.match(r"[+-](?![+-])", line)]
    assert [line[0] for line in changed] == ["-", "+"]
    assert passes(copy, CATCHES[patch.stem])
    subprocess.run(["git", "apply", str(patch)], cwd=copy, check=True)
    assert not passes(copy, CATCHES[patch.stem])
    subprocess.run(["git", "apply", "-R", str(patch)], cwd=copy, check=True)
