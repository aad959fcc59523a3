"""The notebook is the tutorial: its cells are the blocks that run, and they print what it says."""

import re
import subprocess
import sys

import pytest
from notebook import FIRST, TARGET, make
from solved import ROOT

nbformat = pytest.importorskip("nbformat", reason='pip install -e ".[course]"')
pytest.importorskip("jupytext", reason='pip install -e ".[course]"')
SAID = re.compile(r"```text output\n(.*?)```", re.S)


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_blocks_that_run_are_cells_and_all_else_is_text():
    text = "# A\n\n[x](README.md) [y](#a) [z](https://a.b)\n\n"
    text += "```python run\nx = 1\n\nx += 1\n```\n\n```text output\n2\n```\n\n"
    text += "```python script\nprint(3)\n```\n\n```python quote=a:b\ndef b(): ...\n```\n\n"
    text += "```python copy=noise.py\nimport noise\n```\n"
    notebook = make(text)
    assert code(notebook) == [FIRST, "x = 1\n\nx += 1", "%%python\nprint(3)"]
    words = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for said in ("```text output\n2\n```", "def b(): ...", "import noise"):
        assert said in words
    assert "[x](../README.md) [y](#a) [z](https://a.b)" in words


def test_the_notebook_is_made_of_the_tutorial_of_today():
    made = nbformat.writes(make((ROOT / "tutorial.md").read_text()))
    assert TARGET.read_text().rstrip() == made.rstrip(), "run: python course/notebook.py"


def test_the_first_cell_says_what_to_do_where_nothing_can_be_installed(tmp_path):
    cell = FIRST.replace('"tinyevo"', '"no_such_package"')
    done = subprocess.run(
        [sys.executable, "-c", cell], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.startswith("tinyevo is not here: upload a zip")


@pytest.mark.parametrize("place", ["above", "here", "zip"])
def test_the_first_cell_installs_the_project_that_it_finds(tmp_path, place):
    folder = tmp_path / "course"
    folder.mkdir()
    named = {"above": tmp_path / "pyproject.toml", "here": folder / "pyproject.toml"}
    named.get(place, folder / "my-tinyevo.zip").write_text("")
    cell = FIRST.replace('"tinyevo"', '"no_such_package"')
    cell = "import subprocess\nsubprocess.run = lambda command, check: print(command[-1])\n" + cell
    done = subprocess.run([sys.executable, "-c", cell], cwd=folder, capture_output=True, text=True)
    where = {"above": tmp_path, "here": folder}.get(place, folder / "my-tinyevo.zip")
    assert done.stdout == f"{where.resolve()}[plot]\n", done.stderr


@pytest.mark.slow
def test_every_cell_runs_and_prints_what_the_text_says(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason='pip install -e ".[course]"')
    notebook = make((ROOT / "tutorial.md").read_text())
    resources = {"metadata": {"path": str(ROOT / "course")}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    checked = 0
    for cell, after in zip(notebook.cells, notebook.cells[1:]):
        said = SAID.match(after.source) if after.cell_type == "markdown" else None
        if cell.cell_type == "code" and said:
            assert printed(cell) == said[1], cell.source
            checked += 1
    assert checked > 10


def printed(cell):
    """What a cell printed, the value of its last expression included."""
    parts = []
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            parts.append(output.text)
        elif output.output_type == "execute_result":
            parts.append(output.data["text/plain"] + "\n")
    return "".join(parts)
