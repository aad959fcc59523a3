"""Grades what a student handed in: `python grade.py HANDOUT SUBMISSION RESULTS`.

Of the submission it takes the modules that have tasks, `answers.toml` and the record of the bug
hunt, and lays them over a copy of the handout: nothing else that was changed there counts, no test
and no score. It writes RESULTS as Gradescope reads it. Needs: the handout, and nothing else of the
repository.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 1800  # for all tests together


def grade(handout, submission):
    """The results of a submission, a dict as Gradescope reads it.

    Raises ValueError if nothing in the submission can be graded.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "folder")
        shutil.copytree(handout, folder)
        taken = take(folder, root_of(submission))
        target = Path(temporary, "score.json")
        output = run_tests(folder, target)
        if not target.exists():
            raise ValueError(f"the tests did not run:\n{output[-3000:]}")
        score = json.loads(target.read_text(encoding="utf-8"))
    return results(score, taken, output)


def root_of(submission):
    """The folder of a submission that holds `answers.toml`: itself, or one in it."""
    places = [Path(submission), *sorted(path for path in Path(submission).glob("*/"))]
    for place in places:
        if (place / "answers.toml").is_file():
            return place
    raise ValueError("there is no answers.toml: hand in the folder with its structure")


def take(folder, submission):
    """Lay the files that count over a handout; returns their names."""
    sys.path.insert(0, str(folder / "course"))
    from tasks import REFILLS

    names = sorted({task.module for task in REFILLS})
    names += ["answers.toml", "course/hunt/answers.json"]
    taken = [name for name in names if (submission / name).is_file()]
    for name in taken:
        shutil.copyfile(submission / name, folder / name)
    return taken


def run_tests(folder, target):
    """Run the tests of a folder, which write the score; returns what they print."""
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--score", str(target)]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"the tests took more than {SECONDS} seconds") from error
    return done.stdout + done.stderr


def results(score, taken, output):
    """A score as Gradescope reads it."""
    tests = []
    for row in score["tasks"]:
        full = row["points"] == row["of"]
        tests.append(
            {
                "name": f"task {row['task']}: {row['title']}",
                "score": row["points"],
                "max_score": row["of"],
                "status": "passed" if full else "failed",
            }
        )
    who = f"graded as {score['student'] or 'nobody'}; taken: {', '.join(taken)}"
    return {"score": score["score"], "tests": tests, "output": f"{who}\n\n{output[-20_000:]}"}


def main(arguments):
    """The command. It always writes RESULTS, also if nothing can be graded."""
    handout, submission, target = map(Path, arguments)
    try:
        content = grade(handout, submission)
    except ValueError as error:
        content = {"score": 0, "tests": [], "output": f"grade.py: {error}"}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(content["output"].splitlines()[0], f"score: {content['score']}", sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
