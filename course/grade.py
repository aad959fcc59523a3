"""Grades what a student handed in: `python grade.py HANDOUT SUBMISSION RESULTS`.

Of the submission it takes the modules that have tasks, `answers.toml` and the record of the bug
hunt, and lays them over a copy of the handout, so that changed tests and counters do not count. A
module that cannot be imported stays the handout's; a bug that is still planted is taken out. It
writes RESULTS as Gradescope reads it. Needs: the handout, and nothing else of the repository.

These modules run as whoever runs this, with all that they may do, in the process that counts: no
sandbox, and no proof against a module that is made to cheat. Look at a score that surprises you.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 1800  # for all tests together
SECONDS_TO_IMPORT = 120
IMPORTED = 7  # the exit status of a process that imported what it should


def grade(handout, submission):
    """The results of a submission, a dict as Gradescope reads it.

    Raises ValueError if nothing in the submission can be graded.
    """
    for folder, file in ((handout, "course/tasks.py"), (submission, "")):
        if not Path(folder, file).exists():
            raise ValueError(f"{folder} is not a {'handout' if file else 'submission'}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "folder")
        shutil.copytree(handout, folder)
        taken, notes = take(folder, root_of(submission))
        target = Path(temporary, "score.json")
        output = run_tests(folder, target)
        if not target.exists():
            raise ValueError(f"the tests did not run:\n{output[-3000:]}")
        score = json.loads(target.read_text(encoding="utf-8"))
    return results(score, taken, notes, output)


def root_of(submission):
    """The folder of a submission that holds `answers.toml`: itself, or one somewhere in it."""
    if Path(submission).is_file():
        raise ValueError(f"{submission} is a file: unpack it, and name the folder")
    places = sorted(Path(submission).rglob("answers.toml"), key=lambda path: len(path.parts))
    if not places:
        raise ValueError("there is no answers.toml: hand in the folder with its structure")
    return places[0].parent


def take(folder, submission):
    """Lay the files that count over a handout.

    Returns the names of those that were taken, and in lines what is to be said of modules.
    """
    sys.path.insert(0, str(folder / "course"))
    from hunt import heal
    from tasks import REFILLS

    modules = sorted({task.module for task in REFILLS})
    names = [*modules, "answers.toml", "course/hunt/answers.json"]
    missing = [name for name in modules if not (submission / name).is_file()]
    notes = [f"not handed in: {', '.join(missing)}"] if missing else []
    names = [name for name in names if (submission / name).is_file()]
    own = {name: (folder / name).read_bytes() for name in modules}
    for name in names:
        shutil.copyfile(submission / name, folder / name)
    modules = [name for name in modules if name in names]
    refused = {}
    if import_fault(folder, modules):  # then look at each among the handout's own
        for name in modules:
            (folder / name).write_bytes(own[name])
        for name in modules:
            shutil.copyfile(submission / name, folder / name)
            if fault := import_fault(folder, [name]):
                refused[name] = fault
                (folder / name).write_bytes(own[name])
    notes += [f"not taken: {name}, which {fault}" for name, fault in refused.items()]
    taken = [name for name in names if name not in refused]
    notes += [f"a planted bug was taken out of {name}" for name in heal(folder, taken)]
    return taken, notes


def import_fault(folder, modules):
    """Why some modules cannot be imported; "" if they can."""
    names = [name.removesuffix(".py").replace("/", ".") for name in modules]
    # A module may end the process too, so what follows says that it did not.
    code = f"import {', '.join(['os', *names])}; os._exit({IMPORTED})"
    try:
        done = run([sys.executable, "-c", code], folder, SECONDS_TO_IMPORT)
    except ValueError as error:
        return f"cannot be imported: {error}"
    if done.returncode == IMPORTED:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    place = [line for line in lines if line.startswith("File ")][-1:]
    fault = " ".join(["cannot be imported:", *(lines[-1:] or ["it ends the process"]), *place])
    return fault.replace(f"{folder}{os.sep}", "")


def run(command, folder, seconds=SECONDS):
    """Run a command in a folder, with what is in it. Raises ValueError if it takes longer."""
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"it took more than {seconds} seconds") from error


def run_tests(folder, target):
    """Run the tests of a folder, which write the score; returns what they print."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--score", str(target)]
    done = run(command, folder)
    return done.stdout + done.stderr


def results(score, taken, notes, output):
    """A score as Gradescope reads it; the output begins with what was taken, and the notes."""
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
    said = [f"graded as {score['student'] or 'nobody'}; taken: {', '.join(taken)}"]
    said += [*notes, *score["faults"]]
    text = "\n".join([*said, "", output[-20_000:]])
    return {"score": score["score"], "tests": tests, "output": text}


def main(arguments=None):
    """The command. It always writes RESULTS; it fails if nothing can be graded."""
    parser = argparse.ArgumentParser(description="Grade what a student handed in.")
    parser.add_argument("handout", type=Path, help="the folder that handout.py made")
    parser.add_argument("submission", type=Path, help="the folder that was handed in")
    parser.add_argument("results", type=Path, help="the JSON file to write")
    options = parser.parse_args(arguments)
    failed = ""
    try:
        content = grade(options.handout, options.submission)
    except (OSError, ValueError) as error:
        failed = f"grade.py: {error}"
        content = {"score": 0, "tests": [], "output": failed}
    try:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        failed = "; ".join(filter(None, (failed, f"grade.py: no results are kept: {error}")))
    if failed:
        sys.exit(failed)
    if hasattr(sys.stdout, "reconfigure"):  # students have names of all alphabets
        sys.stdout.reconfigure(errors="backslashreplace")
    print(content["output"].partition("\n\n")[0], f"score: {content['score']}", sep="\n")


if __name__ == "__main__":
    main()
