"""The bug hunt: a bug is planted unseen, named and repaired before a test decides, and taken out."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys

import hunt
import pytest
from hunt import answer, bugs, is_found, is_green, main, plant, restore, the_bug
from record_hunt import COLUMNS
from solved import ROOT, STUDENT, fill
from tasks import REFILLS
from variants import BUGS, bug_of, hunted

NUMBER = 4
WHY = "it does the wrong thing in every single step"


@pytest.fixture
def folder(made, tmp_path):
    ignored = shutil.ignore_patterns("benchmarks", "*.png", "*.gif", "__pycache__")
    return shutil.copytree(made, tmp_path / "out", ignore=ignored)


@pytest.fixture
def tests(monkeypatch):
    """Stands in for the test that catches a bug; whether it is green is up to `green`."""
    seen = {"green": True, "runs": 0}

    def run(root, bug):
        seen["runs"] += 1
        return seen["green"]

    monkeypatch.setattr(hunt, "is_green", run)
    return seen


def package(folder):
    return {path: path.read_text() for path in (folder / "tinyevo").rglob("*.py")}


def place(folder, number=NUMBER):
    """Where a planted bug is, as an answer says it."""
    bug = the_bug(folder, STUDENT, number)
    lines = (folder / bug["file"]).read_text().splitlines()
    return f"{bug['file']}:{lines.index(bug['new']) + 1}"


def repair(folder, number=NUMBER):
    bug = the_bug(folder, STUDENT, number)
    path = folder / bug["file"]
    path.write_text(path.read_text().replace(bug["new"] + "\n", bug["old"] + "\n"))


def test_a_bug_is_one_line_and_is_taken_out_again(folder):
    for number in range(1, BUGS + 1):
        before = package(folder)
        plant(folder, STUDENT, number)
        after = package(folder)
        (path,) = [path for path in before if before[path] != after[path]]
        lines = zip(before[path].splitlines(), after[path].splitlines(), strict=True)
        assert sum(old != new for old, new in lines) == 1
        assert restore(folder, STUDENT) == number and package(folder) == before
    assert restore(folder, STUDENT) is None


def test_what_was_written_in_the_meantime_stays_when_a_bug_is_taken_out(folder):
    plant(folder, STUDENT, NUMBER)
    path = folder / the_bug(folder, STUDENT, NUMBER)["file"]
    path.write_text(path.read_text() + "# mine\n")
    restore(folder, STUDENT)
    assert path.read_text().endswith("# mine\n")


def test_there_is_one_bug_at_a_time(folder):
    plant(folder, STUDENT, NUMBER)
    before = package(folder)
    with pytest.raises(ValueError, match="bug 4 is planted already"):
        plant(folder, STUDENT, 5)
    assert package(folder) == before


def test_a_bug_whose_line_was_changed_is_refused(folder):
    path = folder / the_bug(folder, STUDENT, NUMBER)["file"]
    path.write_text("x = 1\n")
    with pytest.raises(ValueError, match="does not fit"):
        plant(folder, STUDENT, NUMBER)
    assert path.read_text() == "x = 1\n" and restore(folder, STUDENT) is None


def test_the_place_and_a_repair_are_a_right_answer(folder, tests):
    plant(folder, STUDENT, NUMBER)
    where = place(folder)
    repair(folder)
    assert answer(folder, STUDENT, NUMBER, where, WHY)[0]
    assert is_found(folder, STUDENT, NUMBER) and not is_found(folder, STUDENT, 5)
    assert restore(folder, STUDENT) is None


@pytest.mark.parametrize("fault", ["place", "no repair", "wrong repair"])
def test_a_place_without_a_repair_and_a_repair_without_a_place_are_wrong(folder, tests, fault):
    plant(folder, STUDENT, NUMBER)
    where = place(folder)
    file, _, line = where.partition(":")
    if fault == "place":
        where = f"{file}:{int(line) + 1}"
    if fault != "no repair":
        repair(folder)
    tests["green"] = fault != "wrong repair"
    right, said = answer(folder, STUDENT, NUMBER, where, WHY)
    assert not right and "answers left: 1" in said
    assert not is_found(folder, STUDENT, NUMBER)


def test_nobody_gets_there_by_guessing(folder, tests):
    """Every line of a file as an answer: two are heard, and the test never runs."""
    plant(folder, STUDENT, NUMBER)
    file = the_bug(folder, STUDENT, NUMBER)["file"]
    heard = 0
    for line in range(1, len((folder / file).read_text().splitlines()) + 1):
        try:
            answer(folder, STUDENT, NUMBER, f"{file}:{line}", WHY)
            heard += 1
        except ValueError as error:
            assert "had its 2 answers" in str(error)
    repair(folder)
    with pytest.raises(ValueError, match="had its 2 answers"):
        answer(folder, STUDENT, NUMBER, f"{file}:1", WHY)
    assert heard == 2 and tests["runs"] == 0 and not is_found(folder, STUDENT, NUMBER)


def test_a_record_that_was_written_by_hand_does_not_count(folder, tests):
    plant(folder, STUDENT, NUMBER)
    answer(folder, STUDENT, NUMBER, "tinyevo/td3.py:1", WHY)
    path = folder / "course" / "hunt" / "answers.json"
    kept = json.loads(path.read_text())
    kept["4"]["answers"][0]["right"] = True
    path.write_text(json.dumps(kept))
    assert not is_found(folder, STUDENT, NUMBER)


def test_an_answer_of_another_student_does_not_count(folder, tests):
    plant(folder, STUDENT, NUMBER)
    where = place(folder)
    repair(folder)
    answer(folder, STUDENT, NUMBER, where, WHY)
    assert not is_found(folder, "Grace Hopper", NUMBER)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "say which bug, from 1 to 12"),
        (["13"], "say which bug, from 1 to 12"),
        (["4", "--answer", "tinyevo/td3.py:3", "--why", WHY], "bug 4 is not planted"),
    ],
)
def test_a_command_that_makes_no_sense_is_one_line(folder, arguments, said):
    with pytest.raises(SystemExit) as stop:
        main(arguments, folder)
    assert str(stop.value) == f"hunt.py: {said}"


def test_an_answer_says_where_and_why(folder):
    plant(folder, STUDENT, NUMBER)
    for where, why, said in (("here", WHY, "no place"), ("tinyevo/td3.py:3", "wrong", "--why")):
        with pytest.raises(ValueError, match=said):
            answer(folder, STUDENT, NUMBER, where, why)
    assert not (folder / "course" / "hunt" / "answers.json").exists()


def test_the_command_shows_the_curve_and_neither_place_nor_line(folder, capsys):
    for name in ("healthy", str(bug_of(STUDENT, NUMBER))):
        path = folder / "course" / "hunt" / f"{name}.csv"
        path.write_text("generation,fitness,updates,value\n0,-1.5,7,3\n1,-1,9,4\n")
    main([str(NUMBER)], folder)
    assert (folder / "course" / "hunt" / "bug-4.png").stat().st_size > 1000
    said = capsys.readouterr().out
    bug = the_bug(folder, STUDENT, NUMBER)
    assert said.count("-1.5") == 2 and "bug 4 is planted" in said
    assert bug["file"] not in said and bug["new"].strip() not in said
    main(["--restore"], folder)
    assert "bug 4 is taken out" in capsys.readouterr().out


def test_every_student_has_all_bugs_in_another_order_and_hunts_for_three():
    orders = {tuple(bug_of(name, n) for n in range(1, 13)) for name in ("", "Ada", "Grace", "Emmy")}
    assert len(orders) == 4 and all(sorted(order) == list(range(1, 13)) for order in orders)
    assert all(len(set(hunted(name))) == 3 for name in ("", "Ada", "Grace"))
    assert hunted("Ada ") == hunted("ada")


def test_every_bug_and_the_healthy_package_are_recorded():
    names = {path.stem for path in (ROOT / "course" / "hunt").glob("*.csv")}
    assert names == {"healthy", *(str(number) for number in range(1, BUGS + 1))}


def test_a_body_that_is_missing_is_told_from_a_wrong_repair(folder):
    bug = the_bug(folder, STUDENT, NUMBER)
    bug = {**bug, "tests": "def test_x():\n    raise NotImplementedError('task 3')\n"}
    with pytest.raises(ValueError, match="still missing"):
        is_green(folder, bug)


@pytest.mark.slow
def test_the_tests_that_catch_the_bugs_are_green_in_a_finished_folder(folder, tmp_path):
    fill(folder, *REFILLS)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for number, bug in enumerate(bugs(folder), 1):
        (hidden / f"test_bug{number}.py").write_text(bug["tests"])
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{folder / 'tests'}"}
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, str(hidden)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_bug_is_red_until_it_is_repaired(folder):
    fill(folder, *REFILLS)
    plant(folder, STUDENT, NUMBER)
    bug = the_bug(folder, STUDENT, NUMBER)
    where = place(folder)
    assert not is_green(folder, bug)
    repair(folder)
    assert answer(folder, STUDENT, NUMBER, where, WHY)[0]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "course" / "hunt").glob("*.csv")), ids=lambda path: path.stem
)
def test_a_recorded_table_tells_every_member_of_every_generation(path):
    assert path.stem == "healthy" or int(path.stem) in range(1, BUGS + 1)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert [row["generation"] for row in rows] == [str(g) for g in range(8) for _ in range(4)]
    for row in rows:
        assert all(math.isfinite(float(row[name])) for name in ("fitness", "updates", "value"))
