"""Makes a student's folder: `python course/handout.py OUT [--student NAME]`.

It holds the package without the bodies that are tasks, the tutorial without their quotations and
without solutions, the tests that decide, and nothing else: no solution, no history.
"""

import argparse
import json
import re
import shutil
import sys
import textwrap
import tomllib
from pathlib import Path

import bugs
from answers import names_in, print_all_alphabets
from hunt import refuse_planted
from needs import is_run, key, recorded
from questions import QUESTIONS, asked
from sources import BLOCK, SOLUTION, emptied, only_tests, requoted
from tasks import BODIES, DERIVE, EXPLAIN, HUNT, PLOT, PREDICT, PROJECT, REFILL, REFILLS, TASKS
from variants import hunted, tasks_of

ROOT = Path(__file__).parent.parent
# What a student's folder needs of the course.
COURSE = ("tasks.py", "variants.py", "answers.py", "questions.py", "hunt.py")
IGNORED = (".venv/", "__pycache__/", "*.egg-info/", "runs/", ".pytest_cache/")
IGNORED += ("course/hunt/planted.json", "course/hunt/bug-*.png", "course/hunt/bug-*.txt")
LAST = "REFILLS = "  # the last line of tasks.py
ONLY = "TASKS = tuple(task for task in TASKS if task.number in {})\n"
NOBODYS = "This folder is nobody's own."
PYTEST = """[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = [".", "tests", "course"]
addopts = "--strict-markers --continue-on-collection-errors -q --tb=short -rN"
filterwarnings = ["error", "ignore:builtin type:DeprecationWarning"]

# An editor that formats must leave the package's lines as they are: a bug is one of them.
[tool.black]
line-length = 100

[tool.ruff]
line-length = 100
"""


def make(out, student="", root=ROOT, only=()):
    """Make the folder `out` for a student. Raises ValueError if there is something in it.

    With `only`, these tasks are all there are, and the bodies of the others stay.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder: name a new one")
    refuse_planted(root)
    if unknown := set(only) - {task.number for task in TASKS}:
        raise ValueError(f"there is no task {', '.join(map(str, sorted(unknown)))}")
    holes = [task for task in REFILLS if not only or task.number in only]
    mine = [task for task in tasks_of(student) if not only or task.number in only]
    copy_package(root, out, holes)
    copy_tests(root, out, holes)
    copy_course(root, out, only)
    text = (root / "tutorial.md").read_text(encoding="utf-8")
    write(out / "tutorial.md", tutorial(text, out, holes))
    copy_pictures(root, out)
    write(out / "README.md", readme(student, mine, text))
    write(out / "answers.toml", answers_toml(student, mine))
    write(out / ".gitignore", "\n".join(IGNORED) + "\n")
    project = (root / "pyproject.toml").read_text(encoding="utf-8").partition("[tool.ruff]")[0]
    write(out / "pyproject.toml", project + PYTEST)


def write(path, text):
    """Write a text file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")  # some are scripts for Linux


def package_data(root):
    """The files beside the modules that the package cannot do without, as pyproject.toml lists."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["package-data"]
    return [
        path
        for package, patterns in listed.items()
        for pattern in patterns
        for path in root.joinpath(*package.split(".")).glob(pattern)
    ]


def copy_package(root, out, holes):
    """The package with holes, and what runs it."""
    paths = [*root.glob("tinyevo/**/*.py"), *package_data(root)]
    paths += [root / "train_lunar.py", root / "LICENSE"]
    for path in paths:
        name = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        for task in holes:
            if task.module == name:
                text = emptied(text, task.name, task.parts, task.message)
        write(out / name, text)


def copy_tests(root, out, holes):
    """The tests that decide, and what they share."""
    for name in ("common.py", "probes.py", "conftest.py"):
        write(out / "tests" / name, (root / "tests" / name).read_text(encoding="utf-8"))
    chosen = {}
    for task in holes:
        for test in task.tests:
            name, _, function = test.partition("::")
            chosen.setdefault(name, set()).add(function)
    for name, functions in chosen.items():
        write(out / name, only_tests((root / name).read_text(encoding="utf-8"), functions))


def copy_course(root, out, only=()):
    """What counts, asks and plants; with `only`, the table of tasks has no others."""
    for name in COURSE:
        text = (root / "course" / name).read_text(encoding="utf-8")
        if name == "tasks.py" and only:
            text = text.replace(LAST, f"{ONLY.format(tuple(sorted(only)))}{LAST}")
        write(out / "course" / name, text)
    for path in (root / "course" / "hunt").glob("*.csv"):
        write(out / "course" / "hunt" / path.name, path.read_text(encoding="utf-8"))
    write(out / "course" / "hunt" / "bugs.txt", bugs.packed(root))
    student = root / "course" / "student"
    write(out / "conftest.py", (student / "conftest.py").read_text(encoding="utf-8"))
    write(out / "tests" / "test_answers.py", (student / "test_answers.py").read_text("utf-8"))


def tutorial(text, out, holes=REFILLS):
    """The tutorial as a student gets it.

    Its quotations are those of the folder `out`, and it says which block needs which of the bodies
    that are missing, `holes`.
    """
    text = requoted(needing(SOLUTION.sub("", text), holes), out)
    sections = re.split(r"^(?=## )", text, flags=re.M)
    sections = [section for section in sections if not of_the_repository(section)]
    template = (ROOT / "course" / "student" / "dependencies.md").read_text(encoding="utf-8")
    for place, section in enumerate(sections):
        if section.startswith("## Dependencies\n"):
            sections[place] = template.replace("{bodies}", listed([task.number for task in holes]))
    text = re.sub(r"\s*\*Exercises?:\*[^.]*\.", "", "".join(sections))
    text = re.sub(r"(their\s+module),\s+tests\s+and\s+exercises", r"\1 and tests", text)
    return text.rstrip() + "\n\nThe tasks are in README.md.\n"


def needing(text, holes):
    """A tutorial with a line above each block that needs bodies which are missing.

    Raises ValueError for a block that was never recorded.
    """
    needs, missing = recorded(), [task.number for task in holes]

    def above(match):
        if not is_run(match["info"].split()):
            return match[0]
        if key(match["body"]) not in needs:
            raise ValueError("the tutorial's blocks have changed: run course/needs.py")
        tasks = [number for number in needs[key(match["body"])] if number in missing]
        return f"*(This block needs {listed(tasks)}.)*\n\n{match[0]}" if tasks else match[0]

    return BLOCK.sub(above, text)


def listed(tasks):
    """Numbers of tasks in words: "task 3", "tasks 4 and 5"."""
    if not tasks:
        return "no task"
    *first, last = map(str, tasks)
    return f"tasks {', '.join(first)} and {last}" if first else f"task {last}"


def of_the_repository(section):
    """Whether a section is the repository's own list of exercises or bugs."""
    ladder = re.search(r"^\d+\. `[\w.]+` in `[\w/.]+`: `pytest ", section, re.M)
    return bool(ladder) or "tests/bugs" in section


def copy_pictures(root, out):
    """Copy the pictures that the tutorial shows, and mend what it says of things that are not here.

    A link to a section that is not here becomes its words, or goes if it stands in a list of a
    table. Of a file or a test it says that it is one of the repository.
    """
    path = out / "tutorial.md"
    text = path.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    anchors = {"#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    def kept(match):
        target, words = match["target"], match["words"]
        if target.startswith("http") or target in anchors:
            return match[0]
        if target.startswith("#"):
            return "" if match["after"] else words
        if match["picture"] and (root / target).is_file():
            (out / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / target, out / target)
        if (out / target.partition("#")[0]).exists():
            return match[0]
        told = f"{target} of the repository"
        return (told if "/" in words else f"{words} ({told})") + (match["after"] or "")

    link = r"(?P<picture>!?)\[(?P<words>[^\]]*)\]\((?P<target>[^)\s]+)\)(?P<after>, (?=.*\|$))?"
    text = re.sub(link, kept, text, flags=re.M)
    tests = "".join(file.read_text(encoding="utf-8") for file in out.glob("tests/*.py"))

    def told(match):
        name = match["name"]
        here = f"def {name}(" in tests if "." not in name else (out / name).exists()
        return match[0] if here else f"{match[0]} of the repository"

    span = r"`(?P<name>test_\w+|(?:tests|benchmarks|settings|course)/[\w./-]+)`"
    path.write_text(re.sub(span, told, text), encoding="utf-8")


def readme(student, mine, text):
    """The page that a student reads first, of the student's tasks and the tutorial's text."""
    template = (Path(__file__).parent / "student" / "README.md").read_text(encoding="utf-8")
    rows = ["| task | kind | what | minutes | points | after |", "|---|---|---|---|---|---|"]
    for task in mine:
        after = numbers([other for other in mine if other.number in task.after])
        after = "all bodies" if task.after == BODIES else after
        cells = (task.number, task.kind, task.title, task.minutes, task.points, after)
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    bugs_here = hunted(student)
    yours = f"Your bugs are {', '.join(map(str, bugs_here))}; the other nine are for practice."
    hunts, left = paragraphs(mine, HUNT), [task for task in mine if not task.graded]
    words = {
        "variant": whose(student, mine),
        "reading": reading(mine, text),
        "table": "\n".join(rows),
        "refill": paragraphs(mine, REFILL),
        "answers": paragraphs(mine, PREDICT, DERIVE),
        "hunt": f"{hunts}\n\n{yours}" if hunts else "Here, all bugs are for practice.",
        "open": paragraphs(left, PLOT, EXPLAIN, PROJECT) or "Here, there are none.",
        "bug": str(bugs_here[0]),
    }
    for name, value in words.items():
        template = template.replace("{" + name + "}", value)
    return template


def reading(mine, text):
    """Which tasks come with which section of a tutorial, as a table.

    A task comes with the first section that ends with its module.
    """
    rows, left = ["| section of the tutorial | tasks |", "|---|---|"], list(mine)
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        modules = re.findall(r"^\*Module:\* \[.*?\]\((.*?)\)", section, re.M)
        here = [task for task in left if task.module in modules]
        left = [task for task in left if task not in here]
        if here:
            rows.append(f"| {section.splitlines()[0]} | {numbers(here)} |")
    if left:
        rows.append(f"| the rest, when you have read it | {numbers(left)} |")
    return "\n".join(rows)


def numbers(tasks):
    """The numbers of some tasks, in words."""
    return ", ".join(str(task.number) for task in tasks)


def answers_toml(student, mine):
    """The file that a student fills in, with the questions in it."""
    name = json.dumps(student.strip(), ensure_ascii=False)
    lines = ["# Your answers. A number with a decimal point goes in the place of the two quotation"]
    lines += ["# marks: x = 0.25. The brackets say how exact it must be.", ""]
    lines += ["# whose questions these are; leave it", f"student = {name}"]
    for task in mine:
        if task.kind in (PREDICT, DERIVE):
            lines += ["", f"[{task.marker}]  # {task.title}"]
            for key in task.tests:
                lines += [f"# {line}" for line in asked(student, key).splitlines()]
                lines.append(f"# ({exactness(key)})")
                lines.append(f'{key} = ""')
    return "\n".join(lines) + "\n"


def exactness(key):
    """How exact the answer to a question must be, in words."""
    share = QUESTIONS[key].tolerance
    return f"off by at most {100 * share:.1f} %" if share else "a whole number"


def whose(student, mine):
    """Whose variant it is, in a sentence, and what the tasks are worth."""
    mine_projects = [task for task in mine if task.kind == PROJECT]
    points = sum(task.points for task in mine)
    points -= sum(task.points for task in mine_projects[1:])  # one of them counts
    whose = f"This folder is that of {student.strip()}." if student.strip() else NOBODYS
    if len(mine_projects) > 1:
        whose += " Of the two projects, your lecturer says which one you do."
    elif mine_projects:
        whose += f" Your project is task {mine_projects[0].number}."
    return f"{whose} There are {points} points in all."


def paragraphs(tasks, *kinds):
    """What some kinds of tasks ask for."""
    return "\n\n".join(paragraph(task) for task in tasks if task.kind in kinds)


def paragraph(task):
    """What a task asks for, and its hint."""
    where = f" `{task.name}` in `{task.module}`." if task.name else ""
    title = task.title if task.title.endswith("?") else f"{task.title}."
    text = f" {task.text}" if task.text else ""
    return textwrap.fill(
        f"**Task {task.number}: {title}**{where}{text} *Hint:* {task.hint}",
        width=120,
        break_long_words=False,
        break_on_hyphens=False,
    )


def main(arguments=None):
    """The command."""
    parser = argparse.ArgumentParser(description="Make a student's folder.")
    parser.add_argument("out", help="the folder to make; it must be new or empty")
    parser.add_argument("--student", default="", help="whose variant; without it, everybody's")
    what = (
        "a file with a name in each line: OUT gets a folder for each, called by its line's number"
    )
    parser.add_argument("--students", metavar="FILE", help=what)
    what = "the numbers of all tasks there are to be, as 3,4,16; the other bodies stay"
    parser.add_argument("--only", default="", metavar="NUMBERS", help=what)
    options = parser.parse_args(arguments)
    print_all_alphabets()
    try:
        if not re.fullmatch(r"(\d+(,\d+)*)?", options.only):
            raise ValueError(f"--only takes numbers of tasks, as 3,4,16, not {options.only!r}")
        only = tuple(map(int, re.findall(r"\d+", options.only)))
        for out, student in folders(options):
            make(out, student, only=only)
            print(f"wrote {out}{f' for {student}' if student else ''}; begin with its README.md")
    except (OSError, ValueError) as error:
        sys.exit(f"handout.py: {error}")


def folders(options):
    """The folders to make, as pairs of (path, student)."""
    if options.students is None:
        return [(Path(options.out), options.student)]
    if options.student:
        raise ValueError("choose --student NAME or --students FILE")
    names = names_in(options.students)
    return [(Path(options.out, f"{number:03}"), name) for number, name in enumerate(names, 1)]


if __name__ == "__main__":
    main()
