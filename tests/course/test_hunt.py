"""The bug hunt: a bug is planted unseen, named and repaired before a test decides, and taken out."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys

import hunt
import pytest
from handout import make
from hunt import (
    COLUMNS,
    PANELS,
    all_bugs,
    answer,
    is_found,
    is_green,
    main,
    plant,
    restore,
    the_bug,
)
from matplotlib.figure import Figure
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
        assert restore(folder) == number and package(folder) == before
    assert restore(folder) is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("stop", [0, 1])
def test_a_stop_while_a_bug_is_planted_damages_no_file_and_it_can_be_taken_out(
    folder, monkeypatch, stop, error
):
    before, replace, replaced = package(folder), os.replace, []

    def stopped(old, new):
        if len(replaced) == stop:
            raise error
        replaced.append(new)
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stopped)
        with pytest.raises(error):
            plant(folder, STUDENT, NUMBER)
    assert package(folder) == before
    assert restore(folder) == (NUMBER if stop else None)
    assert package(folder) == before and not list(folder.rglob("*.new"))
    plant(folder, STUDENT, NUMBER)
    assert restore(folder) == NUMBER


def test_no_file_tells_where_a_planted_bug_is(folder):
    plant(folder, STUDENT, NUMBER)
    kept = json.loads((folder / "course" / "hunt" / "planted.json").read_text())
    assert kept.keys() == {"student", "number", "place", "lines"} and kept["number"] == NUMBER
    assert len(kept["place"]) == 64 and ":" not in kept["place"]  # a seal, not a line
    files = {path.relative_to(folder).as_posix() for path in folder.glob("tinyevo/*.py")}
    assert kept["lines"].keys() == files
    assert "course/hunt/planted.json" in (folder / ".gitignore").read_text()


def test_a_bug_is_taken_out_whatever_name_answers_toml_has_since(folder):
    before = package(folder)
    main(["1"], folder)
    path = folder / "answers.toml"
    named = path.read_text()
    path.write_text(named.replace(f'student = "{STUDENT}"', f'student = "{STUDENT}'))
    with pytest.raises(SystemExit, match=f'another name: put student = "{STUDENT}" back'):
        main(["1", "--answer", "tinyevo/noise.py:1", "--why", WHY], folder)
    main(["--restore"], folder)
    assert package(folder) == before
    path.write_text(named)


def test_what_was_written_in_the_meantime_stays_when_a_bug_is_taken_out(folder):
    plant(folder, STUDENT, NUMBER)
    path = folder / the_bug(folder, STUDENT, NUMBER)["file"]
    path.write_text(path.read_text() + "# mine\n")
    restore(folder)
    assert path.read_text().endswith("# mine\n")


def test_while_a_bug_is_planted_the_folders_tests_do_not_tell_where(folder):
    plant(folder, STUDENT, NUMBER)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 4 and "bug 4 is planted: find it by its table" in done.stderr


def test_a_bug_that_is_planted_in_the_clone_is_in_no_students_folder(tmp_path):
    state = tmp_path / "clone" / "course" / "hunt" / "planted.json"
    state.parent.mkdir(parents=True)
    state.write_text('{"number": 4}')
    with pytest.raises(ValueError, match="bug 4 is planted here: take it out"):
        make(tmp_path / "out", STUDENT, root=tmp_path / "clone")
    assert not (tmp_path / "out").exists()


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
    assert path.read_text() == "x = 1\n" and restore(folder) is None


def test_the_place_and_a_repair_are_a_right_answer(folder, tests):
    plant(folder, STUDENT, NUMBER)
    where = place(folder)
    repair(folder)
    assert answer(folder, STUDENT, NUMBER, where, WHY)[0]
    assert is_found(folder, STUDENT, NUMBER) and not is_found(folder, STUDENT, 5)
    assert restore(folder) is None


def test_a_place_is_the_same_however_its_path_is_written(folder, tests):
    plant(folder, STUDENT, NUMBER)
    where = place(folder)
    repair(folder)
    assert answer(folder, STUDENT, NUMBER, str(folder.resolve() / where), WHY)[0]
    assert is_found(folder, STUDENT, NUMBER)


@pytest.mark.parametrize("above", [0, 1, 2, 3])
def test_lines_that_were_added_hide_no_place(folder, tests, above):
    plant(folder, STUDENT, NUMBER)
    file, _, line = place(folder).partition(":")
    repair(folder)
    lines = (folder / file).read_text().splitlines()
    lines = [*["# mine"] * above, *lines, *["# mine"] * (3 - above)]
    (folder / file).write_text("\n".join(lines) + "\n")
    assert answer(folder, STUDENT, NUMBER, f"{file}:{int(line) + above}", WHY)[0]


def test_a_bug_whose_line_was_edited_is_not_said_to_be_out(folder):
    plant(folder, STUDENT, NUMBER)
    bug = the_bug(folder, STUDENT, NUMBER)
    path, before = folder / bug["file"], package(folder)
    path.write_text(path.read_text().replace(bug["new"] + "\n", bug["new"] + "  # hm\n"))
    with pytest.raises(ValueError, match="its line was changed; undo that first"):
        restore(folder)
    path.write_text(before[path])
    assert restore(folder) == NUMBER


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
        path.write_text("\n".join([",".join(COLUMNS), "0,7,,none," + "-1.5," * 10 + "8"]))
    main([str(NUMBER)], folder)
    assert (folder / "course" / "hunt" / "bug-4.png").stat().st_size > 1000
    said = capsys.readouterr().out
    bug = the_bug(folder, STUDENT, NUMBER)
    assert said.count("-1.5") == 20 and "bug 4 is planted" in said
    assert (folder / "course" / "hunt" / "bug-4.txt").read_text() in said
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
    for number, bug in enumerate(all_bugs(folder), 1):
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


def recorded(name):
    """A recorded table, its numbers as such where they are needed."""
    path = ROOT / "course" / "hunt" / f"{name}.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    return [row | {name: float(row[name]) for name in PANELS} for row in rows]


@pytest.mark.parametrize("name", ["healthy", *range(1, BUGS + 1)])
def test_a_recorded_table_tells_every_member_of_every_generation(name):
    rows = recorded(name)
    assert tuple(rows[0]) == tuple(COLUMNS)
    assert [row["generation"] for row in rows] == [str(g) for g in range(10) for _ in "four"]
    assert all(math.isfinite(row[measure]) for row in rows for measure in PANELS)


def parents(rows):
    """Pairs of a parent's row, one generation before, and its child's; the elite's is its own."""
    at = {(int(row["generation"]), row["id"]): row for row in rows}
    pairs = []
    for row in rows:
        before = int(row["generation"]) - 1
        whose = row["id"] if row["mutation"] == "elite" else row["parent"]
        if (before, whose) in at:
            pairs.append((at[before, whose], row))
    return pairs


def moves(rows, name):
    """What a table says of mutations of one kind: (its row, old, new), as text."""
    told = ((row, row["mutation"].split()) for row in rows)
    return [(row, words[1], words[3]) for row, words in told if words[0] == name]


def layers(text):
    return text.count("x") + 1


def fittest(rows):
    """Of each generation but the last, the largest fitness and that of who was carried over."""
    elites = [before["fitness"] for before, row in parents(rows) if row["mutation"] == "elite"]
    most = [max(row["fitness"] for row in rows[at : at + 4]) for at in range(0, len(rows) - 4, 4)]
    return list(zip(most, elites, strict=True))


def too_few_updates(rows):
    return any(row["updates"] < 1000 // 3 for row in rows[:4])


def no_whole_number_grows(rows):
    steps = [(int(old), int(new)) for _, old, new in moves(rows, "learn_step")]
    return steps != [] and all(old > new for old, new in steps)


def a_critic_slows_down(rows):
    return any(row["stride"] < 0.025 for row in rows)


def another_than_the_fittest_is_carried_over(rows):
    return any(most > elite + 100 for most, elite in fittest(rows))


def two_members_have_one_id(rows):
    return len({(row["generation"], row["id"]) for row in rows}) < len(rows)


def a_pendulum_terminates(rows):
    return any(row["ends"] > 0 for row in rows)


def a_pendulum_leaps(rows):
    return any(row["jump"] > 2 for row in rows)


def smoothing_is_half(rows):
    return all(row["smoothing"] < 0.08 for row in rows)


def an_activation_stays(rows):
    changes = moves(rows, "activation")
    return changes != [] and all(row["activation"] == old != new for row, old, new in changes)


def a_new_layer_forgets(rows):
    added = [id(row) for row, old, new in moves(rows, "architecture") if layers(new) > layers(old)]
    return any(row["again"] < before["again"] - 200 for before, row in parents(rows)
               if id(row) in added)  # fmt: skip


def fitness_is_luck(rows):
    return any(row["fitness"] > -5 and row["again"] < -100 for row in rows)


def twins_fly_alike(rows):
    same = [(row["generation"], row["fitness"], row["again"], row["train"]) for row in rows]
    return len(set(same)) < len(same)


SYMPTOMS = [  # of the bugs in their order: the column that shows it, and how
    ("updates", too_few_updates),
    ("learn_step", no_whole_number_grows),
    ("stride", a_critic_slows_down),
    ("fitness", another_than_the_fittest_is_carried_over),
    ("id", two_members_have_one_id),
    ("ends", a_pendulum_terminates),
    ("jump", a_pendulum_leaps),
    ("smoothing", smoothing_is_half),
    ("activation", an_activation_stays),
    ("again", a_new_layer_forgets),
    ("fitness", fitness_is_luck),
    ("train", twins_fly_alike),
]


@pytest.mark.parametrize("number, column, symptom", [(n, *s) for n, s in enumerate(SYMPTOMS, 1)])
def test_every_bug_shows_a_symptom_that_the_healthy_table_has_not(number, column, symptom):
    rows, healthy = recorded(number), recorded("healthy")
    assert [row[column] for row in rows] != [row[column] for row in healthy]
    assert symptom(rows) and not symptom(healthy)


@pytest.mark.parametrize("number, column", [(n, s[0]) for n, s in enumerate(SYMPTOMS, 1)])
def test_the_lecturer_reads_which_column_shows_a_bug(number, column):
    text = (ROOT / "course" / "lecturer.md").read_text()
    (line,) = re.findall(rf"^\| {number} \| [a-z].*$", text.partition("| patch |")[2], re.M)
    assert f"`{column}`" in line.split(" | ")[2]


def test_in_the_picture_equal_runs_lie_on_each_other(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    rows = recorded("healthy")
    hunt.draw({"healthy": rows, "planted": rows}, tmp_path / "x.png")
    for panel in figures[0].axes:
        dots, line, other_dots, other_line = (item.get_xydata() for item in panel.lines)
        assert len(dots) == 40 and (dots == other_dots).all() and (line == other_line).all()
    looks = {(item.get_marker(), item.get_linewidth()) for item in figures[0].axes[0].lines}
    assert len(looks) == 4, "colour alone tells them apart"
