"""The key to one student's variant: `python course/key.py "Ada Lovelace"`.

It prints the right numbers, as the package computes them (some by simulation), by how much an
answer may be off, and which patch of `tests/bugs` each bug is, with its line. Nothing of this is in
a student's folder, but whoever has the folder can compute the numbers.
"""

import argparse
import sys
from pathlib import Path

from answers import print_all_alphabets
from bugs import read
from hunt import refuse_planted
from questions import QUESTIONS, given, right
from tasks import DERIVE, PREDICT
from variants import BUGS, bug_of, hunted, projects, tasks_of

ROOT = Path(__file__).parent.parent


def key(student):
    """The lines of a student's key."""
    lines = [f"student: {student.strip() or 'nobody'}"]
    lines += [f"project: task {task.number}" for task in projects(student)]
    for task in tasks_of(student):
        for name in task.tests if task.kind in (PREDICT, DERIVE) else ():
            words = ", ".join(f"{word}={value}" for word, value in given(student, name).items())
            value = f"{right(student, name):.5g}"
            if QUESTIONS[name].tolerance:
                value += f" +- {QUESTIONS[name].tolerance:.1%}"
            lines.append(f"task {task.number} {name:9} {value:17} {words}")
    bugs = read(ROOT)
    for number in range(1, BUGS + 1):
        patch = bug_of(student, number)
        counts = "counts" if number in hunted(student) else "      "
        bug = bugs[patch - 1]
        lines.append(f"bug {number:2} {counts} {patch:2}.patch {bug['file']}: {bug['new'].strip()}")
    return lines


def main(arguments=None):
    """The command."""
    parser = argparse.ArgumentParser(description="The right answers of one student's variant.")
    parser.add_argument("student", nargs="?", default="", help="the name; without it, everybody's")
    student = parser.parse_args(arguments).student
    print_all_alphabets()
    try:
        refuse_planted(ROOT)  # with a bug the package would compute other numbers
    except ValueError as error:
        sys.exit(f"key.py: {error}")
    print("\n".join(key(student)))


if __name__ == "__main__":
    main()
