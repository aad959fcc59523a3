"""What the lecturer reads agrees with the table of tasks and leads to what is there."""

import io
import re
import sys
from collections import Counter
from statistics import NormalDist

import hunt
import key as key_script
import pytest
import record_hunt
import variant
from bugs import CATCHES
from key import key
from questions import QUESTIONS
from solved import ROOT
from tasks import DERIVE, EXPLAIN, HUNT, PLOT, PREDICT, PROJECT, REFILL, TASKS
from variants import BUGS, bug_of, hunted

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


def test_while_a_bug_is_planted_no_right_number_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(hunt, "planted_file", lambda root: tmp_path / "planted.json")
    (tmp_path / "planted.json").write_text('{"number": 12}')
    for script, arguments in (key_script, []), (variant, ["answers.toml", "students.txt"]):
        with pytest.raises(SystemExit, match="bug 12 is planted here: take it out"):
            script.main(arguments)


def test_a_key_is_printed_whatever_the_outputs_encoding_lacks(monkeypatch):
    monkeypatch.setattr(key_script, "key", lambda student: [f"student: {student}"])
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="cp1252"))
    key_script.main(["Łukasz Żak"])
    sys.stdout.flush()
    assert output.getvalue().rstrip() == rb"student: \u0141ukasz \u017bak"


@pytest.mark.parametrize("number", ["13", "-1", "first"])
def test_a_bug_that_there_is_not_is_not_recorded(number):
    with pytest.raises(SystemExit, match=f"there is no bug {number}, only 0 to 12"):
        record_hunt.main([number])


def test_the_rubric_of_a_project_gives_all_its_points():
    (points,) = {task.points for task in TASKS if task.kind == PROJECT}
    assert sum(map(int, re.findall(r"\((\d+) of 15\)", TEXT))) == points == 15


MINUTES = {task.number: task.minutes for task in TASKS}


def groups(text):
    """The tasks that a text names with their minutes, as (numbers, minutes): "3, 4 (40)"."""
    found = re.findall(r"((?:\d+, )*\d+) \((\d+)\)", text)
    return [([int(number) for number in numbers.split(", ")], int(said)) for numbers, said in found]


def section(title):
    """A section of the lecturer's page."""
    return re.search(rf"^## {title}.*?(?=^## |\Z)", TEXT, re.M | re.S)[0]


def test_the_plan_has_every_task_once_and_its_hours_are_those_of_the_table():
    plan = section("Two weeks")
    (project,) = {task.minutes for task in TASKS if task.kind == PROJECT}
    assert f"the project ({project})" in plan
    for numbers, said in groups(plan):
        assert sum(MINUTES[number] for number in numbers) == said
    named = sorted(number for numbers, _ in groups(plan) for number in numbers)
    assert named == [task.number for task in TASKS if task.kind != PROJECT]
    hours = (project + sum(said for _, said in groups(plan))) / 60
    last = (project + sum(said for _, said in groups(plan.partition("| 4 |")[2]))) / 60
    assert f"{hours:.0f} hours of tasks at home" in plan
    assert f"{last:.0f} of the {hours:.0f} hours fall after session 4" in plan


def test_a_task_is_planned_after_those_that_it_needs():
    rows = re.findall(r"^\| (\d) \|.*$", section("Two weeks"), re.M)
    session = {}
    for line in section("Two weeks").splitlines():
        if line.startswith(tuple(f"| {row} |" for row in rows)):
            session |= dict.fromkeys((n for numbers, _ in groups(line) for n in numbers), line[2])
    for task in TASKS:
        if task.kind != PROJECT:
            assert all(session[before] <= session[task.number] for before in task.after)


def test_a_session_has_ninety_minutes_and_an_afternoon_four_hours_and_tasks_fit_their_slots():
    for title, total in (("Session 1", 90), ("One afternoon", 240)):
        rows = re.findall(r"^\| (\d+) \| (.*)$", section(title), re.M)
        assert sum(int(minutes) for minutes, _ in rows) == total
        for minutes, what in rows:
            for numbers, said in groups(what):
                assert sum(MINUTES[number] for number in numbers) == said <= int(minutes)
    only = re.search(r"--only ([\d,]+)", section("One afternoon"))[1].split(",")
    named = [number for numbers, _ in groups(section("One afternoon")) for number in numbers]
    assert sorted(named) == sorted(map(int, only))


def test_every_slide_stands_with_the_section_that_shows_it():
    tutorial = (ROOT / "tutorial.md").read_text()
    shown = {}
    for text in re.split(r"^## ", tutorial, flags=re.M)[1:]:
        found = re.findall(r"course/slides/(\w+)\.svg", text)
        shown |= dict.fromkeys(found, text.splitlines()[0])
    rows = re.findall(r"^\| \[(\w+)\]\(slides/\1\.svg\) \| (.*?) \| [1-4] \|$", TEXT, re.M)
    assert dict(rows) == shown and len(rows) == len(shown)
    slides = {path.stem for path in (ROOT / "course" / "slides").glob("*.svg")}
    assert set(shown) == slides


def test_the_key_has_every_number_and_every_bug_of_a_student(monkeypatch):
    monkeypatch.setattr("key.right", lambda student, name: 0.25)
    lines = "\n".join(key("Ada"))
    for task in TASKS:
        if task.kind in (PREDICT, DERIVE):
            assert all(f"task {task.number} {name}" in lines for name in task.tests)
    for number in range(1, BUGS + 1):
        counts = "counts" if number in hunted("Ada") else "      "
        assert f"bug {number:2} {counts} {bug_of('Ada', number):2}.patch" in lines


def test_the_mean_largest_of_some_normal_numbers_is_what_the_page_says():
    normal, step = NormalDist(), 0.001
    line = section("Grading").partition("| 19 |")[2].partition("|")[0]
    said = re.findall(r"(\d\.\d+) for (\d+)", line)
    assert [int(n) for _, n in said] == list(QUESTIONS["curse"].choices["members"])
    for value, n in said:
        places = [step * number for number in range(-6000, 6001)]
        mean = sum(x * int(n) * normal.pdf(x) * normal.cdf(x) ** (int(n) - 1) for x in places)
        assert round(mean * step, 3) == float(value)
