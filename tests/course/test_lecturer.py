"""What the lecturer reads agrees with the table of tasks and leads to what is there."""

import re
from collections import Counter

from bugs import CATCHES
from solved import ROOT
from tasks import DERIVE, EXPLAIN, HUNT, PLOT, PREDICT, PROJECT, REFILL, TASKS

TEXT = (ROOT / "course" / "lecturer.md").read_text()


def test_the_points_of_each_kind_are_those_of_the_table():
    points = Counter()
    for task in TASKS:
        points[task.kind] += task.points
    said = re.search(
        r"100 points: (\d+) for bodies, (\d+) for predictions, (\d+) for derivations, (\d+) for the "
        r"hunt \(these (\d+) by tests\), (\d+) for the plot, (\d+)\s+for the explanation, (\d+) for",
        " ".join(TEXT.split()),
    )
    kinds = (REFILL, PREDICT, DERIVE, HUNT)
    by_tests = sum(points[kind] for kind in kinds)
    rest = [points[PLOT], points[EXPLAIN], points[PROJECT] // 2]
    assert [int(number) for number in said.groups()] == [
        *(points[kind] for kind in kinds),
        by_tests,
        *rest,
    ]
    assert by_tests + sum(rest) == 100


def test_every_command_and_link_leads_to_a_file():
    for script in re.findall(r"python (course/\w+\.py)", TEXT):
        assert (ROOT / script).is_file(), script
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", TEXT):
        assert (ROOT / "course" / target).exists(), target


def test_every_bug_has_a_line_and_there_are_ten_questions():
    assert re.findall(r"^\| (\d+) \| [a-z]", TEXT.partition("| patch |")[2], re.M) == list(CATCHES)
    assert re.findall(r"^(\d+)\. \*", TEXT, re.M) == [str(number) for number in range(1, 11)]


def test_the_rubric_of_a_project_gives_all_its_points():
    (points,) = {task.points for task in TASKS if task.kind == PROJECT}
    assert sum(map(int, re.findall(r"\((\d+) of 15\)", TEXT))) == points == 15
