"""What the tests of the course share: a student's folder, and how its bodies are put back."""

import json
import os
import subprocess
import sys
from pathlib import Path

from hunt import seal
from questions import right
from sources import body
from variants import hunted

STUDENT = "Ada Lovelace"
ROOT = Path(__file__).parent.parent.parent


def fill(folder, *tasks):
    """Put the package's own bodies back into the folder."""
    for task in tasks:
        path = folder / task.module
        text = path.read_text()
        (hole,) = [line for line in text.splitlines() if f'"task {task.number}:' in line]
        own = body((ROOT / task.module).read_text(), task.name, task.parts)
        path.write_text(text.replace(hole, "\n".join(own)))


def answer(folder, student):
    """Fill in the right numbers."""
    path = folder / "answers.toml"
    lines = []
    for line in path.read_text().splitlines():
        if line.endswith(' = ""'):
            key = line.partition(" ")[0]
            line = f"{key} = {right(student, key)!r}"
        lines.append(line)
    path.write_text("\n".join(lines) + "\n")


def find_bugs(folder, student):
    """Write the record of a student who found all bugs at once."""
    kept = {}
    for number in hunted(student):
        answers = [{"place": "somewhere", "why": "for a reason", "right": True}]
        kept[str(number)] = {"answers": answers, "seal": seal(folder, student, number, answers)}
    (folder / "course" / "hunt" / "answers.json").write_text(json.dumps(kept))


def score(folder, *arguments):
    """The points that pytest gives in a folder, by task."""
    target = folder / "score.json"
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--score", str(target)]
    done = subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {row["task"]: row["points"] for row in json.loads(target.read_text())["tasks"]}, done
