"""The graders: their files are what Gradescope and GitHub Classroom read, and they give the score."""

import json
import os
import re
import shutil
import subprocess
import zipfile

import pytest
from autograder import main, workflow
from grade import grade, import_fault, results, root_of, take
from grade import main as grade_main
from hunt import swap, the_bug
from solved import STUDENT, answer, fill
from tasks import REFILLS, TASKS
from variant import main as variant_main
from variant import matches
from variants import BUGS

DIVIDES = (
    'cannot be imported: ZeroDivisionError: division by zero File "mine.py", line 1, in <module>'
)
GRADED = [task for task in TASKS if task.graded]


def copied(made, to):
    """A copy of a student's folder without its pictures."""
    ignored = shutil.ignore_patterns("benchmarks", "*.png", "*.gif", "__pycache__")
    return shutil.copytree(made, to, ignore=ignored)


def test_only_what_counts_is_taken_from_a_submission(made, tmp_path, monkeypatch):
    monkeypatch.setattr("grade.import_fault", lambda folder, modules: "")
    folder, submission = copied(made, tmp_path / "folder"), copied(made, tmp_path / "in")
    for name in ("tinyevo/buffer.py", "tinyevo/checkpoint.py", "tests/test_buffer.py"):
        (submission / name).write_text("# mine\n")
    (submission / "conftest.py").write_text("# mine\n")
    (submission / "tinyevo" / "noise.py").unlink()
    taken, notes = take(folder, submission)
    assert notes == ["not handed in: tinyevo/noise.py"]
    changed = [path for path in folder.rglob("*.py") if path.read_text() == "# mine\n"]
    assert [path.name for path in changed] == ["buffer.py"]
    assert "tinyevo/noise.py" not in taken and "answers.toml" in taken
    assert (folder / "tinyevo" / "noise.py").exists()


def test_a_submission_is_found_in_a_folder_of_its_own_too(made, tmp_path):
    copied(made, tmp_path / "zip" / "Ada")
    assert root_of(tmp_path / "zip") == tmp_path / "zip" / "Ada"
    (tmp_path / "zip").rename(tmp_path / "deeper")  # as Moodle gives it
    assert root_of(tmp_path) == tmp_path / "deeper" / "Ada"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no answers\.toml"):
        root_of(tmp_path / "empty")
    (tmp_path / "in.zip").touch()
    with pytest.raises(ValueError, match=r"in\.zip is a file: unpack it"):
        root_of(tmp_path / "in.zip")


def test_a_bug_that_was_left_planted_is_taken_out_and_told(made, tmp_path, monkeypatch):
    monkeypatch.setattr("grade.import_fault", lambda folder, modules: "")
    folder, submission = copied(made, tmp_path / "folder"), copied(made, tmp_path / "in")
    modules = {path: path.read_text() for path in (folder / "tinyevo").glob("*.py")}
    for number in range(1, BUGS + 1):
        bug = the_bug(submission, "", number)
        swap(submission, bug["file"], bug["old"], bug["new"])
        taken, notes = take(folder, submission)
        told = [f"a planted bug was taken out of {bug['file']}"] if bug["file"] in taken else []
        assert notes == told
        assert {path: path.read_text() for path in modules} == modules
        swap(submission, bug["file"], bug["new"], bug["old"])


def test_a_module_in_another_encoding_is_taken_as_python_takes_it(made, tmp_path, monkeypatch):
    monkeypatch.setattr("grade.import_fault", lambda folder, modules: "")
    folder, submission = copied(made, tmp_path / "folder"), copied(made, tmp_path / "in")
    path = submission / "tinyevo" / "mutation.py"
    text = "# -*- coding: latin-1 -*-\n# größer\n" + path.read_text()
    path.write_text(text, encoding="latin-1")
    taken, notes = take(folder, submission)
    assert "tinyevo/mutation.py" in taken and not notes


def test_results_are_what_gradescope_reads():
    rows = [
        {"task": 1, "title": "a", "points": 2, "of": 2},
        {"task": 2, "title": "b", "points": 1, "of": 3},
    ]
    score = {"student": "Ada", "score": 3, "of": 5, "tasks": rows, "faults": ["line 9"]}
    content = results(score, ["x"], ["not taken: y.py, which is wrong"], "said")
    assert content["score"] == 3 == sum(test["score"] for test in content["tests"])
    assert [test["status"] for test in content["tests"]] == ["passed", "failed"]
    assert [test["max_score"] for test in content["tests"]] == [2, 3]
    said = "graded as Ada; taken: x\nnot taken: y.py, which is wrong\nline 9\n\nsaid"
    assert content["output"] == said


def test_the_workflow_has_a_step_for_each_task_and_reports_all_of_them():
    yaml = pytest.importorskip("yaml", reason='pip install -e ".[course]"')
    parsed = yaml.safe_load(workflow())
    assert parsed["on"] == ["push", "repository_dispatch"]
    (job,) = parsed["jobs"].values()
    steps = [step for step in job["steps"] if "id" in step]
    assert [step["id"] for step in steps] == [task.marker for task in GRADED]
    for step, task in zip(steps, GRADED):
        assert step["with"]["command"] == f"pytest -m {task.marker}"
        assert step["with"]["max-score"] == task.points
    report = job["steps"][-1]
    assert report["with"]["runners"].split(",") == [task.marker for task in GRADED]
    for task in GRADED:
        name = f"{task.marker.upper()}_RESULTS"
        assert report["env"][name] == f"${{{{steps.{task.marker}.outputs.result}}}}"


def test_both_are_made_and_the_archive_has_its_files_at_the_top(tmp_path):
    main([str(tmp_path / "out")])
    names = zipfile.ZipFile(tmp_path / "out" / "gradescope.zip").namelist()
    assert {"setup.sh", "run_autograder", "grade.py", "handout/answers.toml"} <= set(names)
    for name in ("setup.sh", "run_autograder"):
        path = tmp_path / "out" / "gradescope" / name
        assert os.access(path, os.X_OK)
        assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
    assert (tmp_path / "out" / "classroom" / ".github" / "workflows" / "classroom.yml").exists()
    assert (tmp_path / "out" / "classroom" / "README.md").exists()
    with pytest.raises(SystemExit, match=r"autograder\.py: .* is not an empty folder"):
        main([str(tmp_path / "out")])


def test_a_submission_without_answers_is_told_so(made, tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="hand in the folder"):
        grade(made, tmp_path / "in")


@pytest.mark.parametrize("wrong", ["handout", "submission"])
def test_a_wrong_path_is_one_line_and_results_are_written(made, tmp_path, wrong):
    paths = {"handout": str(made), "submission": str(made), wrong: str(tmp_path / "none")}
    with pytest.raises(SystemExit) as stop:
        grade_main([paths["handout"], paths["submission"], str(tmp_path / "results.json")])
    said = f"grade.py: {tmp_path / 'none'} is not a {wrong}"
    assert str(stop.value) == said
    content = json.loads((tmp_path / "results.json").read_text())
    assert content == {"score": 0, "tests": [], "output": said}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x = 1\n", ""),
        ("while True: pass\n", "cannot be imported: it took more than 3 seconds"),
        ("import sys\nsys.exit()\n", "cannot be imported: it ends the process"),
        ("1 / 0\n", DIVIDES),
    ],
)
def test_what_is_wrong_with_a_module_is_said(text, fault, tmp_path, monkeypatch):
    monkeypatch.setattr("grade.SECONDS_TO_IMPORT", 3)
    (tmp_path / "mine.py").write_text(text)
    assert import_fault(tmp_path, ["mine.py"]) == fault


@pytest.mark.slow
def test_a_module_that_cannot_be_imported_is_left_out_alone_and_said(made, tmp_path):
    folder, submission = copied(made, tmp_path / "folder"), copied(made, tmp_path / "in")
    (submission / "tinyevo" / "noise.py").write_text("x = 1\ndef f(:\n")
    path = submission / "tinyevo" / "buffer.py"
    path.write_text(path.read_text() + "# mine\n")
    taken, (note,) = take(folder, submission)
    assert "tinyevo/noise.py" not in taken
    said = "not taken: tinyevo/noise.py, which cannot be imported: "
    assert re.fullmatch(said + 'SyntaxError: .* File "tinyevo/noise.py", line 2', note)
    assert (folder / "tinyevo" / "noise.py").read_text() == (
        made / "tinyevo" / "noise.py"
    ).read_text()
    assert (folder / "tinyevo" / "buffer.py").read_text().endswith("# mine\n")


@pytest.mark.slow
def test_a_broken_module_a_broken_answer_and_a_hook_cost_no_more_than_themselves(made, tmp_path):
    submission = copied(made, tmp_path / "in")
    fill(submission, *REFILLS)
    answer(submission, STUDENT)
    path = submission / "answers.toml"
    text = re.sub(r"^noise = .*$", "noise = 0,198", path.read_text(), flags=re.M)
    path.write_text(re.sub(r"^(growth = )(.*)$", r'\1"\2"', text, flags=re.M))
    (submission / "tinyevo" / "evaluate.py").write_text("def rollout(:\n")
    hook = "import atexit, sys\n\nfor place, word in enumerate(sys.argv):\n"
    hook += "    if word == '--score':\n"
    hook += "        atexit.register(lambda: open(sys.argv[place + 1], 'w').write('{}'))\n"
    path = submission / "tinyevo" / "buffer.py"
    path.write_text(path.read_text() + hook)
    content = grade(made, submission)
    lost = [test["name"] for test in content["tests"] if test["score"] < test["max_score"]]
    assert [int(re.search(r"\d+", name)[0]) for name in lost] == [11, 13, 15, 20]
    head = content["output"].partition("\n\n")[0]
    assert f"graded as {STUDENT}" in head and "not taken: tinyevo/evaluate.py" in head
    assert re.search(r"line \d+ of answers.toml cannot be read: noise = 0,198 \(write a dec", head)
    assert "write the number without quotation marks: growth = " in content["output"]


@pytest.mark.slow
def test_the_script_that_gradescope_runs_gives_the_right_score(tmp_path):
    main([str(tmp_path / "out")])
    root = tmp_path / "autograder"
    shutil.copytree(tmp_path / "out" / "gradescope", root / "source")
    submission = copied(root / "source" / "handout", root / "submission")
    done = [task for task in REFILLS if task.number in (1, 3, 4)]
    fill(submission, *done)
    (submission / "conftest.py").write_text("raise SystemExit  # mine\n")
    environment = os.environ | {"AUTOGRADER": str(root)}
    subprocess.run([str(root / "source" / "run_autograder")], env=environment, check=True)
    content = json.loads((root / "results" / "results.json").read_text())
    assert content["score"] == sum(task.points for task in done)
    full = {test["name"] for test in content["tests"] if test["score"] == test["max_score"]}
    assert full == {f"task {task.number}: {task.title}" for task in done}
    assert sum(test["max_score"] for test in content["tests"]) == sum(t.points for t in GRADED)


@pytest.mark.slow
def test_an_answer_tells_whose_variant_it_solves(made, tmp_path, capsys):
    folder = copied(made, tmp_path / "out")
    answer(folder, STUDENT)
    path = folder / "answers.toml"
    path.write_text(path.read_text().replace(f'student = "{STUDENT}"', 'student = "Charles"'))
    (tmp_path / "class.txt").write_text(f"Charles\n\n{STUDENT}\nGrace Hopper\n")
    variant_main([str(path), str(tmp_path / "class.txt")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "the file says: Charles" and lines[1] == f"  9 of 9  {STUDENT}"
    assert all(int(line.split()[0]) < 7 for line in lines[2:])


def test_nothing_filled_in_solves_nobodys_variant():
    assert matches({"student": "x", "task12": {"updates": ""}}, ["Ada"]) == [(0, "Ada")]


def test_an_answers_file_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"variant\.py: cannot read"):
        variant_main([str(tmp_path / "none.toml"), str(tmp_path / "none.txt")])
