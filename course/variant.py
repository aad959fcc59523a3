"""Whose variant does an answer solve? `python course/variant.py answers.toml students.txt`.

`students.txt` has a name in each line, as `handout.py --student` got them. For each student it
counts how many of the numbers are right for that student's questions: all or nearly all for the one
whose they are, some by chance for others, because constants are drawn from few.
"""

import argparse
import sys
from pathlib import Path

from answers import name_in, names_in, print_all_alphabets, read_answers
from hunt import refuse_planted
from questions import QUESTIONS, fits

ROOT = Path(__file__).parent.parent


def numbers(answers):
    """The numbers of an answers file, by the key of their question."""
    sections = [section for section in answers.values() if isinstance(section, dict)]
    found = {key: value for section in sections for key, value in section.items()}
    return {key: value for key, value in found.items() if key in QUESTIONS and value != ""}


def matches(answers, students):
    """How many numbers are right for each student, the most first: a list of (count, name)."""
    given = numbers(answers)
    counts = [
        (sum(fits(value, name, key) for key, value in given.items()), name) for name in students
    ]
    return sorted(counts, key=lambda pair: -pair[0])


def main(arguments=None):
    """The command."""
    parser = argparse.ArgumentParser(description="Whose variant does an answer solve?")
    parser.add_argument("answers", help="an answers.toml that was handed in")
    parser.add_argument("students", help="a text file with a student's name in each line")
    options = parser.parse_args(arguments)
    print_all_alphabets()
    try:
        refuse_planted(ROOT)  # with a bug the package would compute other numbers
        answers = read_answers(options.answers)
        names = names_in(options.students)
    except ValueError as error:
        sys.exit(f"variant.py: {error}")
    print(f"the file says: {name_in(answers) or 'nobody'}")
    for count, name in matches(answers, names):
        print(f"{count:3} of {len(numbers(answers))}  {name}")


if __name__ == "__main__":
    main()
