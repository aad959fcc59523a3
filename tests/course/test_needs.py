"""What a block of the tutorial needs was found by running it, and a student's folder keeps to it."""

import json
import os
import re
import subprocess
import sys

import pytest
from handout import listed, tutorial
from needs import is_run, key, recorded
from solved import ROOT
from sources import BLOCK, blocks
from tasks import REFILLS

TEXT = (ROOT / "tutorial.md").read_text()
PROMPT = """
import ast, contextlib, io, json, os, sys, tempfile, warnings

said = []
for section in json.load(open(sys.argv[1])):
    os.chdir(tempfile.mkdtemp())
    namespace = {}
    for name, body in section:
        namespace["__name__"] = name
        out, faults = io.StringIO(), []
        for statement in ast.parse(body).body:
            code = compile(ast.Interactive([statement]), "tutorial.md", "single")
            with contextlib.redirect_stdout(out), warnings.catch_warnings(action="ignore"):
                try:
                    exec(code, namespace)
                except Exception as error:
                    faults.append(f"{type(error).__name__}: {error}")
        said.append([out.getvalue(), faults])
json.dump(said, open(sys.argv[1], "w"))
"""


def test_every_block_of_the_tutorial_is_recorded_and_no_other():
    found = {key(body) for kind, body in blocks(TEXT) if is_run(kind)}
    assert found == set(recorded()), "run: python course/needs.py"


def test_a_block_keeps_its_name_when_a_comment_changes_and_not_when_its_code_does():
    name = key('x = 1  # one\n\nprint(f"{x} #")\n')
    assert name == key('x = 1\nprint(f"{x} #")  # said\n')
    assert name != key('x = 2\nprint(f"{x} #")\n') and name != key('x = 1\nprint(f"{x}")\n')


def test_a_line_above_a_block_names_the_bodies_that_are_missing_for_it(tmp_path):
    (toy,) = [match for match in BLOCK.finditer(TEXT) if "class Climber:" in match["body"]]
    assert recorded()[key(toy["body"])] == [4, 5]
    assert "*(This block needs tasks 4 and 5.)*\n\n```" in tutorial(toy[0], tmp_path)
    four = [task for task in REFILLS if task.number == 4]
    assert "*(This block needs task 4.)*\n\n```" in tutorial(toy[0], tmp_path, four)
    assert "This block" not in tutorial(toy[0], tmp_path, [])
    with pytest.raises(ValueError, match=r"run course/needs\.py"):
        tutorial("```python run\nx = 1\n```\n", tmp_path)
    assert listed([4, 5, 6]) == "tasks 4, 5 and 6"


@pytest.mark.slow
def test_what_is_recorded_is_what_the_blocks_run(tmp_path):
    command = [sys.executable, "course/needs.py", str(tmp_path / "needs.json")]
    subprocess.run(command, cwd=ROOT, check=True)
    assert json.loads((tmp_path / "needs.json").read_text()) == recorded()


@pytest.mark.slow
def test_in_a_new_folder_just_the_blocks_that_need_a_body_fail_and_the_others_print_what_is_said(
    made, tmp_path
):
    """Each section as at a prompt, which goes on after an error."""
    sections, rest = [], []
    for text in re.split(r"^(?=## )", (made / "tutorial.md").read_text(), flags=re.M):
        sections.append([])
        found = [*BLOCK.finditer(text), None]
        for match, after in zip(found, found[1:]):
            if is_run(match["info"].split()) and "copy=" not in match["info"]:
                needing = "(This block needs" in text[: match.start()].splitlines()[-2]
                said = after["body"] if after and after["info"] == "text output" else None
                name = "__main__" if " script" in match["info"] else "tutorial"
                sections[-1].append((name, match["body"]))
                rest.append((needing, said))
    path = tmp_path / "sections.json"
    path.write_text(json.dumps(sections))
    environment = os.environ | {"PYTHONPATH": str(made), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", PROMPT, str(path)], env=environment, check=True)
    bodies = [body for section in sections for _, body in section]
    assert len(bodies) > 20 and {needing for needing, _ in rest} == {True, False}
    for body, (printed, faults), (needing, said) in zip(bodies, json.loads(path.read_text()), rest):
        assert bool(faults) == needing, (body, faults)
        assert needing or said in (None, printed), body
