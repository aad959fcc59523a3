"""Makes what two graders need: `python course/autograder.py OUT`.

OUT/gradescope holds the files of a Gradescope autograder, and OUT/gradescope.zip is what one
uploads. OUT/classroom is a template repository for GitHub Classroom: the handout with a workflow
that has a step for each task that tests decide.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from handout import make, write
from tasks import TASKS

SETUP = """#!/usr/bin/env bash
# Runs once, when Gradescope builds the image: a Python that the package takes, and its packages.
set -euo pipefail
root=${AUTOGRADER:-/autograder}
python=
for name in python3.13 python3.12 python3.11; do
    if "$name" -c "import ensurepip" 2>/dev/null; then # Ubuntu's own may lack it
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    apt-get update
    apt-get install -y python3.12-venv || apt-get install -y python3.11-venv
    python=$(command -v python3.12 || command -v python3.11)
fi
"$python" -m venv "$root/venv"
# A CPU build of torch is enough and much smaller; pytorch.org has the command. Put it here.
"$root/venv/bin/pip" install --quiet -e "$root/source/handout[test]"
"""
RUN = """#!/usr/bin/env bash
# Runs for each submission.
set -euo pipefail
root=${AUTOGRADER:-/autograder}
python=$root/venv/bin/python
[ -x "$python" ] || python=python3
cd "$root/source"
results=$root/results/results.json
"$python" grade.py handout "$root/submission" "$results" || [ -s "$results" ]
"""
WORKFLOW = """name: Autograding Tests
'on':
- push
- repository_dispatch
permissions:
  checks: write
  actions: read
  contents: read
jobs:
  run-autograding-tests:
    runs-on: ubuntu-latest
    if: github.actor != 'github-classroom[bot]'
    steps:
    - name: Checkout code
      uses: actions/checkout@v4
    - name: Python
      uses: actions/setup-python@v5
      with:
        python-version: '3.12'
    - name: Install
      run: pip install -e '.[test]'
"""
STEP = """    - name: {name}
      id: {task.marker}
      uses: classroom-resources/autograding-command-grader@v1
      with:
        test-name: {name}
        setup-command: ''
        command: pytest -m {task.marker}
        timeout: 10
        max-score: {task.points}
"""
REPORT = """    - name: Autograding Reporter
      uses: classroom-resources/autograding-grading-reporter@v1
      env:
{results}
      with:
        runners: {runners}
"""


def workflow():
    """The text of the workflow."""
    graded = [task for task in TASKS if task.graded]
    results = [
        f'        {task.marker.upper()}_RESULTS: "${{{{steps.{task.marker}.outputs.result}}}}"'
        for task in graded
    ]
    report = REPORT.format(
        results="\n".join(results), runners=",".join(task.marker for task in graded)
    )
    steps = [
        STEP.format(task=task, name=json.dumps(f"task {task.number}: {task.title}"))
        for task in graded
    ]
    return WORKFLOW + "".join(steps) + report


def gradescope(out):
    """Write the files of the autograder, and their archive."""
    make(out / "handout")
    for name, text in (("setup.sh", SETUP), ("run_autograder", RUN)):
        write(out / name, text)
        (out / name).chmod(0o755)
    shutil.copyfile(Path(__file__).parent / "grade.py", out / "grade.py")
    shutil.make_archive(str(out), "zip", out)


def classroom(out):
    """Write the template repository."""
    make(out)
    write(out / ".github" / "workflows" / "classroom.yml", workflow())


def main(arguments=None):
    """The command."""
    parser = argparse.ArgumentParser(description="Make the files of two autograders.")
    parser.add_argument("out", help="the folder to make; it must be new or empty")
    out = Path(parser.parse_args(arguments).out)
    try:
        gradescope(out / "gradescope")
        classroom(out / "classroom")
    except (OSError, ValueError) as error:
        sys.exit(f"autograder.py: {error}")
    print(f"wrote {out}: upload gradescope.zip, or push classroom/ as a template repository")


if __name__ == "__main__":
    main()
