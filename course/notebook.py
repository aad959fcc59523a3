"""Makes `course/tutorial.ipynb` of `tutorial.md`: `python course/notebook.py`.

A block that is to be run becomes a cell of code, one that is a script a cell that runs in a process
of its own, and everything else stays text: what is quoted is for reading. The first cell installs
what is missing, on Colab too. Needs the extra `course`.
"""

import re
import sys
from pathlib import Path

from sources import BLOCK

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "course" / "tutorial.ipynb"
FIRST = """# Run this cell first: it installs what is missing, and goes into an empty folder.
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

if find_spec("tinyevo") is None or find_spec("matplotlib") is None:
    places = [path for path in (Path(".."), Path()) if (path / "pyproject.toml").exists()]
    places += sorted(Path().glob("*tinyevo*.zip"))  # on Colab: upload a zip of the project
    if not places:
        raise SystemExit("tinyevo is not here: upload a zip of it as tinyevo.zip, run this again")
    what = f"{places[0].resolve()}[plot]"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", what], check=True)
os.chdir(tempfile.mkdtemp())
if "get_ipython" in globals():
    get_ipython().ast_node_interactivity = "all"  # a cell shows each value, as a prompt does"""


def make(text, root=ROOT):
    """The notebook of a tutorial's text, without outputs."""
    import jupytext
    import nbformat

    notebook = jupytext.reads(linked(BLOCK.sub(as_cell, text), root), fmt="md")
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FIRST))
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # a random one would change the file each time
        cell.metadata = {}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def as_cell(match):
    """A block of the tutorial as jupytext reads it."""
    kind, body = match["info"].split(), match["body"]
    if kind[:2] == ["python", "run"]:
        return f"```python\n{body}```"
    if kind[:2] == ["python", "script"]:
        return f"```python\n%%python\n{body}```"
    if kind[:1] == ["python"]:
        return f"```py\n{body}```"
    return match[0]


def linked(text, root):
    """Links to files of the repository as they are from the notebook's folder."""

    def anew(match):
        path = match["target"].partition("#")[0]
        return f"](../{match['target']})" if path and (root / path).exists() else match[0]

    return re.sub(r"\]\((?P<target>[^)\s]+)\)", anew, text)


def main():
    """The command."""
    try:
        import nbformat

        notebook = make((ROOT / "tutorial.md").read_text(encoding="utf-8"))
    except ImportError as error:
        sys.exit(f'notebook.py: {error.name} is not installed: pip install -e ".[course]"')
    nbformat.write(notebook, TARGET)
    print(f"wrote {TARGET.relative_to(ROOT)}: {len(notebook.cells)} cells")


if __name__ == "__main__":
    main()
