"""Which tasks each block of the tutorial needs: `python course/needs.py` writes `needs.json`.

It runs every block on a copy of the package in which the body of each task leaves a mark when it is
run. In the handout a line above a block says what it needs.
"""

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import symtable
import sys
import tempfile
import tokenize
import warnings
from pathlib import Path

from sources import blocks, span
from tasks import REFILLS

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "course" / "needs.json"
RUN = ("run", "script", "copy")  # the second word of a block that is run


def key(body):
    """The name of a block in the record: it changes with its code; comments and blanks are none."""
    tokens = tokenize.generate_tokens(io.StringIO(body).readline)
    code = "".join(token.string for token in tokens if token.type != tokenize.COMMENT)
    return hashlib.sha256(re.sub(r"\s", "", code).encode()).hexdigest()[:12]


def recorded():
    """What was recorded: for each block's key, the numbers of its tasks."""
    return json.loads(TARGET.read_text(encoding="utf-8"))


def is_run(kind):
    """Whether a block is one to run."""
    return len(kind) > 1 and kind[0] == "python" and kind[1].partition("=")[0] in RUN


def marked(root, out, marks):
    """Write a copy of the package whose bodies leave the number of their task in `marks`."""
    for path in [*root.glob("tinyevo/**/*.py"), root / "train_lunar.py"]:
        name = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        for task in REFILLS:
            if task.module == name:
                lines = text.splitlines(keepends=True)
                first, _ = span(text, task.name, task.parts)
                line = lines[first]
                mark = f'__import__("pathlib").Path({str(marks)!r}, "{task.number}").touch()\n'
                lines.insert(first, line[: len(line) - len(line.lstrip())] + mark)
                text = "".join(lines)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")


def names(code):
    """The names at the top that some code uses, and those that it gives: two sets."""
    top = symtable.symtable(code, "tutorial.md", "exec")
    tables, used = [top], set()
    for table in tables:  # grows while it is walked through
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global() or (table is top and symbol.is_referenced()):
                used.add(symbol.get_name())
    return used, {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}


def of_section(text, marks):
    """The tasks of each block of a section, as pairs of (block, set of numbers).

    A statement needs what it runs, and what gave the names that it uses.
    """
    namespace, of_names = {"__name__": "tutorial"}, {}
    for kind, body in blocks(text):
        if not is_run(kind):
            continue
        if kind[1] != "run":
            namespace, of_names = {"__name__": "__main__"}, {}
        found = set()
        for statement in ast.parse(body).body:
            code = compile(ast.Interactive([statement]), "tutorial.md", "single")
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(code, namespace)
            needed = {int(path.name) for path in marks.iterdir()}
            for path in marks.iterdir():
                path.unlink()
            used, given = names(ast.unparse(statement))
            needed = needed.union(*(of_names.get(name, set()) for name in used))
            of_names |= dict.fromkeys(given, needed)
            found |= needed
        yield body, found


def measured(text):
    """The tasks of every block of a tutorial, found by running it."""
    found, before = {}, Path.cwd()
    with tempfile.TemporaryDirectory() as temporary:
        package, marks, place = (Path(temporary, name) for name in ("package", "marks", "place"))
        marks.mkdir()
        marked(ROOT, package, marks)
        sys.path[:0] = [str(package), str(package / "tinyevo")]
        os.environ["PYTHONPATH"] = str(package)  # of the processes that a block starts
        for number, section in enumerate(re.split(r"^(?=## )", text, flags=re.M)):
            folder = place / str(number)
            folder.mkdir(parents=True)
            os.chdir(folder)
            found |= {key(body): sorted(tasks) for body, tasks in of_section(section, marks)}
        os.chdir(before)
    return found


def main(arguments):
    """The command."""
    found = measured((ROOT / "tutorial.md").read_text(encoding="utf-8"))
    target = Path(arguments[0]) if arguments else TARGET
    lines = ",\n".join(f"  {json.dumps(key)}: {tasks}" for key, tasks in found.items())
    target.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    print(f"wrote {target}: {len(found)} blocks")


if __name__ == "__main__":
    main(sys.argv[1:])
