"""What differs from student to student: everything here follows from the student's name.

The empty name is the variant that all share.
"""

import hashlib
import unicodedata

import numpy as np
from tasks import PROJECT, TASKS

BUGS = 12


def plain(student):
    """A name without what does not count: case, outer blanks, how an accent is encoded."""
    return unicodedata.normalize("NFC", student.strip().casefold())


def rng(student, use):
    """A `numpy.random.Generator` for one use of chance in a student's variant."""
    digest = hashlib.sha256(f"{plain(student)}/{use}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8]))


def constants(student, key, choices):
    """One of the choices for each constant of a question: a dict by name."""
    drawn = rng(student, key)
    return {name: values[drawn.integers(len(values))] for name, values in choices.items()}


def bug_of(student, number):
    """Which patch of `tests/bugs` is this student's bug `number`: both from 1."""
    return int(rng(student, "bugs").permutation(BUGS)[number - 1]) + 1


def hunted(student):
    """The numbers of the three bugs that a student hunts for points."""
    return sorted((rng(student, "hunted").permutation(BUGS)[:3] + 1).tolist())


def projects(student):
    """The open project of a student; both, to choose from, if there is no name."""
    all_projects = [task for task in TASKS if task.kind == PROJECT]
    if not student.strip() or not all_projects:
        return all_projects
    return [all_projects[rng(student, "project").integers(len(all_projects))]]


def tasks_of(student):
    """The tasks of a student."""
    mine = projects(student)
    return [task for task in TASKS if task.kind != PROJECT or task in mine]
