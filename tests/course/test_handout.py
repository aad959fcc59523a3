"""The student's folder: it holds every task and no solution, and its score tells what is done."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from handout import main, make, tutorial
from hunt import all_bugs
from needs import key, recorded
from solved import ROOT, STUDENT, answer, fill, find_bugs, score
from sources import blocks, body, find, only_tests, quote
from tasks import BODIES, DERIVE, PREDICT, PROJECT, REFILLS, TASKS
from variants import hunted, tasks_of

GRADED = [task for task in TASKS if task.graded]


def texts(made):
    """Every text in a folder, by its name."""
    found = {}
    for path in made.rglob("*"):
        if path.is_file():
            found[path.relative_to(made).as_posix()] = path.read_bytes().decode(errors="replace")
    return found


def test_the_table_is_sound():
    assert [task.number for task in TASKS] == list(range(1, len(TASKS) + 1))
    for student in ("", "Ada", "Grace", "Emmy"):
        mine = tasks_of(student)
        spare = [task for task in mine if task.kind == PROJECT][1:]
        assert sum(task.points for task in mine) - sum(task.points for task in spare) == 100
    for task in TASKS:
        assert task.title and task.hint and 10 <= task.minutes <= 480 and task.points > 0
        assert all(earlier < task.number for earlier in task.after)
        assert bool(task.tests) == task.graded


@pytest.mark.parametrize("task", REFILLS, ids=lambda task: task.marker)
def test_the_tests_that_decide_a_body_exist_and_are_not_slow(task):
    for test in task.tests:
        file, _, name = test.partition("::")
        node = find((ROOT / file).read_text(), name)
        assert not any("slow" in ast.unparse(decorator) for decorator in node.decorator_list)


@pytest.mark.parametrize("task", REFILLS, ids=lambda task: task.marker)
def test_a_body_is_gone_and_its_signature_and_docstring_are_there(made, task):
    text = (made / task.module).read_text()
    own = find((ROOT / task.module).read_text(), task.name)
    node = find(text, task.name)
    assert text.count(f'"task {task.number}:') == 1 and task.message in text
    assert ast.unparse(node.args) == ast.unparse(own.args)
    assert ast.get_docstring(node) == ast.get_docstring(own)
    assert task.parts or [ast.unparse(line) for line in node.body[1:]] == [
        task.message.replace('"', "'")
    ]


@pytest.mark.parametrize("task", REFILLS, ids=lambda task: task.marker)
def test_there_is_something_to_write_in_a_body(task):
    own = body((ROOT / task.module).read_text(), task.name, task.parts)
    assert len([line for line in own if line.strip() and not line.strip().startswith("#")]) >= 3


def test_no_line_of_a_solution_is_in_any_file(made):
    given = "\n".join(text for name, text in texts(made).items() if name.startswith("tinyevo/"))
    given = {line.strip() for line in given.splitlines()}
    for task in REFILLS:
        own = body((ROOT / task.module).read_text(), task.name, task.parts)
        lines = {line.strip() for line in own if len(line.strip()) > 20} - given
        lines = [line for line in lines if not line.startswith("#")]
        assert lines, f"nothing of task {task.number} can be looked for"
        for name, text in texts(made).items():
            assert not [line for line in lines if line in text], (task.number, name)


def test_every_file_of_the_package_is_in_it(made):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    names = [ROOT.joinpath(*name.split(".")) / "*.py" for name in project["packages"]]
    for package, patterns in project["package-data"].items():
        names += [ROOT.joinpath(*package.split(".")) / pattern for pattern in patterns]
    for name in names:
        found = sorted(name.parent.glob(name.name))
        assert found
        for path in found:
            assert (made / path.relative_to(ROOT)).is_file(), path


def test_no_history_and_nothing_of_the_repository_is_in_it(made):
    names = {path.name for path in made.rglob("*")}
    assert not names & {".git", "CHANGELOG.md", "bugs", "bugs.py", "lecturer.md", "handout.py"}
    assert not [name for name in names if name.endswith((".patch", ".ipynb"))]
    assert {path.suffix for path in (made / "benchmarks").rglob("*")} <= {".png", ".gif"}


def test_the_tutorial_quotes_the_folder_and_shows_signatures_alone(made):
    text = (made / "tutorial.md").read_text()
    quotes = 0
    for kind, quoted in blocks(text):
        for word in kind:
            if word.startswith("quote="):
                name = word.removeprefix("quote=")
                assert quote(made, name, "nodoc" in kind) == quoted
                quotes += 1
    assert quotes > 5 and "raise NotImplementedError" in text


def test_every_link_of_the_tutorial_leads_somewhere(made):
    text = (made / "tutorial.md").read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", text):
        assert (made / target.partition("#")[0]).exists(), target


def test_the_tutorial_names_no_file_and_no_test_that_is_not_there_without_saying_so(made):
    text = " ".join((made / "tutorial.md").read_text().split())
    tests = "".join(path.read_text() for path in made.glob("tests/*.py"))
    files = re.findall(r"(?:tests|benchmarks|settings|course)/[\w./-]*\w/?(?![\w/])", text)
    files = {name for name in files if not (made / name).exists()}
    names = {name for name in re.findall(r"\btest_\w+\b", text) if f"def {name}(" not in tests}
    names -= {path.stem for path in made.glob("tests/*.py")}
    for name in files | {name for name in names if f"/{name}.py" not in text}:
        assert text.count(name) == len(re.findall(f"{re.escape(name)}`? of the repo", text)), name
    assert files and names
    assert "xercises" not in re.sub(r"`.*?`", "", text).partition("## Learning")[0]
    assert "[Bug hunt]" not in text and "Exercises" not in text and "pip install" not in text


def test_solutions_and_lists_of_the_repository_are_dropped_from_the_tutorial(tmp_path):
    text = (
        "# A\n\n<!-- solution -->\nbecause 42\n<!-- /solution -->\nkept\n\n## Any name\n\n"
        "1. `f` in `tinyevo/td3.py`: `pytest tests/test_td3.py`\n\n## B\n\nsee [there](tests/bugs)\n"
        "\n## C\n\n*Tests:* x. *Exercises:* 12\nand 13.\n"
    )
    said = tutorial(text, tmp_path)
    assert "42" not in said and "kept" in said and "solution" not in said
    assert "Any name" not in said and "## B" not in said and "## C" in said
    assert "12" not in said and "*Tests:* x." in said


@pytest.mark.parametrize("number", range(12))
def test_every_bug_fits_a_new_folder(made, number):
    bug = all_bugs(made)[number]
    assert (made / bug["file"]).read_text().splitlines().count(bug["old"]) == 1


def test_the_bugs_cannot_be_read_at_a_glance(made):
    text = (made / "course" / "hunt" / "bugs.txt").read_text()
    for bug in all_bugs(made):
        assert bug["new"].strip() not in text and bug["old"].strip() not in text
        for name, content in texts(made).items():
            assert bug["new"] not in content.splitlines(), name


def test_only_the_tests_that_are_named_and_what_they_need_are_kept():
    text = "import a\nA = 1\nB = 2\n\n\ndef f():\n    return B\n\n\ndef test_x():\n    assert f()\n\n\n"
    text += "def g():\n    return A\n\n\n@mark\ndef test_y():\n    assert g()\n"
    kept = only_tests(text, {"test_x"})
    assert "test_x" in kept and "def f" in kept and "B = 2" in kept
    assert (
        "test_y" not in kept and "def g" not in kept and "A = 1" not in kept and "mark" not in kept
    )


@pytest.mark.parametrize("there", ["file", "full"])
def test_a_folder_that_is_not_empty_is_refused_in_one_line_and_left_alone(tmp_path, there):
    out = tmp_path / "out"
    if there == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        main([str(out)])
    assert str(stop.value) == f"handout.py: {out} is not an empty folder: name a new one"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [
        "out" if there == "file" else "mine"
    ]


def test_the_page_of_a_student_names_tasks_points_and_bugs(made):
    page = (made / "README.md").read_text()
    for task in tasks_of(STUDENT):
        assert (
            f"| {task.number} | {task.kind} | {task.title} | {task.minutes} | {task.points} |"
            in page
        )
    assert f"Your bugs are {', '.join(map(str, hunted(STUDENT)))}" in page and STUDENT in page
    assert not re.search(r"\{\w+\}", page) and max(map(len, page.splitlines())) <= 120


def test_the_page_of_a_student_can_be_pasted_and_says_what_is_flown(made):
    page = (made / "README.md").read_text()
    commands = re.search(r"^```\n(python -m venv.*?)```", page, re.S | re.M)[1]
    assert subprocess.run(["bash", "-n", "-c", commands]).returncode == 0
    assert "(see README)" not in page and "Pendulum-v1" in page
    assert '"Pendulum-v1"' in (ROOT / "course" / "record_hunt.py").read_text()


def test_every_task_comes_with_a_section_of_the_tutorial(made):
    page = (made / "README.md").read_text()
    rows = re.findall(r"^\| ([A-Z][^|]*) \| ([\d, ]+) \|$", page, re.M)
    assert all(f"\n## {title}\n" in (made / "tutorial.md").read_text() for title, _ in rows)
    assert ("Exploration noise", "3, 13, 21") in rows and len(rows) >= 8
    named = ", ".join(re.findall(r"^\| [A-Za-z][^|]* \| ([\d, ]+) \|$", page, re.M))
    assert sorted(map(int, named.split(", "))) == [task.number for task in tasks_of(STUDENT)]


def test_with_only_some_tasks_the_other_bodies_stay_and_nothing_else_is_asked(tmp_path):
    main([str(tmp_path / "out"), "--only", "16,3,4,6"])
    out = tmp_path / "out"
    holes = "".join(path.read_text() for path in out.glob("tinyevo/*.py"))
    assert set(re.findall(r'NotImplementedError\("task (\d+)', holes)) == {"3", "4", "6"}
    assert "number in (3, 4, 6, 16))\nREFILLS" in (out / "course" / "tasks.py").read_text()
    page, answers = (out / "README.md").read_text(), (out / "answers.toml").read_text()
    assert re.findall(r"^\| (\d+) \|", page, re.M) == ["3", "4", "6", "16"]
    assert "There are 15 points in all." in page
    assert re.findall(r"^\[(\w+)\]", answers, re.M) == ["task16"]
    assert "(This block needs task 6.)" in (out / "tutorial.md").read_text()
    with pytest.raises(SystemExit, match=r"handout\.py: there is no task 99"):
        main([str(tmp_path / "other"), "--only", "99"])
    for only in ("three", "3-6", "3, 6", "3,"):
        with pytest.raises(SystemExit, match=r"handout\.py: --only takes numbers of tasks, as"):
            main([str(tmp_path / "other"), "--only", only])
    assert not (tmp_path / "other").exists()


def test_a_file_of_names_makes_a_folder_for_each(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("handout.make", lambda out, student, only: made.append((out, student)))
    out, names = tmp_path / "out", tmp_path / "students.txt"
    names.write_text(f"{STUDENT}\n\n𠮷田 太郎\n")
    main([str(out), "--students", str(names)])
    assert made == [(out / "001", STUDENT), (out / "002", "𠮷田 太郎")]
    with pytest.raises(SystemExit, match="choose --student NAME or --students FILE"):
        main([str(out), "--students", str(names), "--student", "Ada"])
    for other in ("Ada", "ada"):  # whose variants are the same
        names.write_text(f"Ada\n{other}\n")
        with pytest.raises(SystemExit, match=r"handout\.py: .* has (A|a)da twice"):
            main([str(out), "--students", str(names)])


@pytest.mark.slow
def test_a_folder_with_some_tasks_gives_all_its_points_when_they_are_done(tmp_path):
    folder = tmp_path / "out"
    make(folder, STUDENT, only=(3, 4, 6, 16))
    assert set(score(folder)[0].values()) == {0}
    fill(folder, *[task for task in REFILLS if task.number in (3, 4, 6)])
    answer(folder, STUDENT)
    points, done = score(folder)
    assert points == {3: 3, 4: 3, 6: 5, 16: 4} and "score: 15 of 15 points" in done.stdout


@pytest.mark.slow
def test_a_new_folder_has_no_points_and_one_with_the_packages_own_bodies_has_all(tmp_path):
    folder = tmp_path / "out"
    make(folder, STUDENT)
    points, done = score(folder)
    assert points == {task.number: 0 for task in GRADED} and "score: 0 of 75 points" in done.stdout
    fill(folder, *REFILLS)
    answer(folder, STUDENT)
    find_bugs(folder, STUDENT)
    points, done = score(folder)
    assert points == {task.number: task.points for task in GRADED}, done.stdout
    assert done.returncode == 0 and "score: 75 of 75 points" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("task", REFILLS, ids=lambda task: task.marker)
def test_a_body_can_be_written_with_no_others_than_those_before_it(tmp_path, task):
    folder = tmp_path / "out"
    make(folder)
    before = [other for other in REFILLS if other.number in task.after]
    fill(folder, *before)
    if before:  # without any, it is red in a new folder
        assert score(folder, "-m", task.marker)[0][task.number] == 0
    fill(folder, task)
    points, done = score(folder, "-m", task.marker)
    assert re.findall(r"^task +(\d+) ", done.stdout, re.M) == [str(task.number)]
    assert points[task.number] == task.points, done.stdout
    assert sum(points.values()) == task.points
    assert f"{task.points} of {task.points} points in what was run" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    [task for task in TASKS if task.kind in (PREDICT, DERIVE)],
    ids=lambda task: task.marker,
)
def test_an_answer_needs_just_the_tasks_before_it(tmp_path, task):
    folder = tmp_path / "out"
    make(folder, STUDENT)
    answer(folder, STUDENT)
    before = [other for other in REFILLS if other.number in task.after]
    for number, missing in enumerate(before):
        other = shutil.copytree(folder, tmp_path / str(number))
        fill(other, *[body for body in REFILLS if body is not missing])
        assert score(other, "-m", task.marker)[0][task.number] < task.points, missing.number
    fill(folder, *before)
    points, done = score(folder, "-m", task.marker)
    assert points[task.number] == task.points, done.stdout


def test_all_bodies_are_named_where_they_are_needed():
    assert tuple(task.number for task in REFILLS) == BODIES
    after = {task.number: task.after for task in TASKS}
    for task in REFILLS:  # what a task needs, needs nothing more
        assert {more for other in task.after for more in after[other]} <= set(task.after)
    assert [task.number for task in TASKS if task.after == BODIES] == [20, 22, 23]
    text, needs = (ROOT / "tutorial.md").read_text(), recorded()
    for number, word in ((24, "class Climber:"), (21, "OrnsteinUhlenbeckNoise(500")):
        (block,) = [block for _, block in blocks(text) if word in block]
        assert needs[key(block)] == list(after[number])


@pytest.mark.slow
def test_an_endless_loop_is_stopped_once_and_the_score_still_comes(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    make(folder)
    fill(folder, *[task for task in REFILLS if task.number in (1, 2, 3)])
    path = folder / "tinyevo" / "train.py"
    (hole,) = [line for line in path.read_text().splitlines() if '"task 10:' in line]
    loop = hole.partition("raise")[0] + "while credit >= agent.hp.learn_step: pass"
    path.write_text(path.read_text().replace(hole, loop))
    monkeypatch.setenv("SECONDS_FOR_A_TEST", "2")
    points, done = score(folder, "-m", "task10")
    assert points[10] == 0
    assert done.stdout.count("E   Failed: stopped after 2 seconds") == 1, done.stdout


@pytest.mark.slow
def test_a_module_that_cannot_be_loaded_hides_no_task_from_the_score(tmp_path):
    folder = tmp_path / "out"
    make(folder)
    (folder / "tinyevo" / "mutation.py").write_text("def f(:\n")
    points, done = score(folder)
    assert "tests/test_mutation.py could not be loaded, see above" in done.stdout
    assert all(f"task {number:2} " in done.stdout for number in points)
    assert f"score: 0 of {sum(task.points for task in TASKS if task.graded)}" in done.stdout


@pytest.mark.slow
def test_it_is_made_from_a_fresh_clone(tmp_path):
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    command = [sys.executable, "course/handout.py", str(tmp_path / "out")]
    subprocess.run(command, cwd=tmp_path / "clone", check=True, env={"PYTHONPATH": "."})
    assert (tmp_path / "out" / "README.md").exists()


@pytest.mark.slow
def test_a_run_in_a_solved_folder_comes_to_its_end_and_leaves_all_its_files(tmp_path):
    folder = tmp_path / "out"
    make(folder)
    fill(folder, *REFILLS)
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train_lunar.py", "--quick", "--out", "runs/mine"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in (folder / "runs" / "mine").iterdir()}
    left = {"history.csv", "config.json", "elite.pt", "population.pt", "lander.gif"}
    assert names >= left | {"report.html", "fitness.png", "evolution.gif"}
