"""Whether the numbers in `answers.toml` are right, and which bugs were found.

What is right is what the package does in this folder, so the tasks that a question names must be
done first.
"""

from pathlib import Path

import pytest
from answers import Fault, name_in, read_answers
from hunt import is_found
from tasks import DERIVE, HUNT, PREDICT, TASKS
from variants import hunted

ROOT = Path(__file__).parent.parent
ANSWERS = read_answers(ROOT / "answers.toml")
STUDENT = name_in(ANSWERS)


def answered(task, key):
    """The test of one answer."""

    def test():
        from questions import asked, fits  # here, because a module in the package may be broken

        answer = ANSWERS.get(task.marker, {}).get(key, "")
        if answer == "":
            pytest.fail(f"there is no answer yet to: {asked(STUDENT, key)}")
        if isinstance(answer, Fault):
            pytest.fail(answer)
        if isinstance(answer, str):
            pytest.fail(f"write the number without quotation marks: {key} = {answer}")
        if not fits(answer, STUDENT, key):
            bodies = ", ".join(map(str, task.after))
            first = f" (which must first be right in tasks {bodies})" if bodies else ""
            what = f"{answer!r} is not what the package does{first}"
            pytest.fail(f"{what}: {asked(STUDENT, key)}")

    return test


def found(place):
    """The test of one bug."""

    def test():
        number = hunted(STUDENT)[place]
        if not is_found(ROOT, STUDENT, number):
            pytest.fail(f"bug {number} is not found yet: python course/hunt.py {number}")

    return test


for task in TASKS:
    for place, key in enumerate(task.tests if task.kind in (PREDICT, DERIVE, HUNT) else ()):
        made = found(place) if task.kind == HUNT else answered(task, key)
        made.task = task.number
        globals()[f"test_{task.marker}_{key}"] = made
