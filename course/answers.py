"""Reads what a student wrote into `answers.toml`, as far as it can be read."""

import sys
import tomllib
from pathlib import Path

from variants import plain


class Fault(str):
    """Why a line cannot be read; it stands in the place of the line's value."""


def read_answers(path):
    """The answers, a dict as TOML has them, with a `Fault` for each value that is none.

    Raises ValueError for a file that cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return line_by_line(text)


def line_by_line(text):
    """The answers in a text of which some line is wrong."""
    answers = section = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            read = tomllib.loads(line)
        except tomllib.TOMLDecodeError:
            key, _, value = line.partition("=")
            what = f"line {number} of answers.toml cannot be read: {line.strip()}"
            value = value.partition("#")[0].strip()
            if "," in value:
                what += " (write a decimal point)"
            elif value.startswith("."):
                what += f" (write 0{value})"
            section[key.strip()] = Fault(what)
            continue
        if line.lstrip().startswith("["):
            (name,) = read
            if not isinstance(answers.get(name), dict):  # a value of this name gives way
                answers[name] = {}
            section = answers[name]
        else:
            section.update(read)
    return answers


def name_in(answers):
    """The student's name in some answers; "" without one."""
    name = answers.get("student", "")
    return "" if isinstance(name, Fault) else str(name)


def faults(answers):
    """The faults in some answers, in order."""
    sections = [answers, *(section for section in answers.values() if isinstance(section, dict))]
    return [str(v) for section in sections for v in section.values() if isinstance(v, Fault)]


def print_all_alphabets():
    """Let names be printed whatever the output's encoding is: what it lacks becomes an escape."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def names_in(path):
    """The students' names in a text file that has one in each line.

    Raises ValueError if it cannot be read, or if a name is there twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    plain_names = list(map(plain, names))
    twice = {name for name in names if plain_names.count(plain(name)) > 1}
    if twice or not names:
        raise ValueError(f"{path} has {f'{min(twice)} twice' if twice else 'no names'}")
    return names
