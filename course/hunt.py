"""Bug hunt: plants a bug that you do not see, and shows what it does to learning.

    python course/hunt.py 4                                    plant bug 4, show its curve
    python course/hunt.py 4 --answer tinyevo/FILE.py:LINE --why "..."    name it, after repairing it
    python course/hunt.py --restore                            take it out again

A bug is one line. An answer is right if it names the line that was planted, if that line has been
repaired, and if the test that catches the bug is green then. So nobody gets there by guessing
lines. There are two answers for each bug. While one is planted, the folder's `pytest` runs nothing.
"""

import argparse
import base64
import contextlib
import csv
import hashlib
import hmac
import json
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

from answers import name_in, read_answers
from variants import BUGS, bug_of, plain

ROOT = Path(__file__).parent.parent
ANSWERS = 2  # for each bug
COLUMNS = {  # what a recorded table tells of a member in a generation
    "generation": "of the run, from 0",
    "id": "the member",
    "parent": "the member whose child it is",
    "mutation": "what sets it apart from its parent; elite: it was carried over",
    "fitness": "by which selection goes, after this generation's training",
    "again": "its mean return in 20 other episodes, for comparison",
    "train": "its mean return in this generation's training",
    "learn_step": "its environment steps per update; a generation has 1,000 steps",
    "updates": "of it and of all its ancestors, together",
    "activation": "of its networks",
    "value": "the mean of what its critic believes 256 remembered actions to be worth",
    "stride": "how far one update moves a weight of its critic, in learning rates, in the mean",
    "smoothing": "how far a target's next action is from the policy's, in half-ranges, in the mean",
    "ends": "how many transitions in the memory are marked as terminated (a pendulum never does)",
    "jump": "the longest way in the memory from an observation to its successor",
}
PANELS = ("fitness", "again", "train", "updates", "value", "stride", "smoothing", "ends", "jump")


def all_bugs(root):
    """All bugs, from the student's folder or from the repository."""
    path = Path(root, "course", "hunt", "bugs.txt")
    if path.exists():
        return json.loads(zlib.decompress(base64.b64decode(path.read_text(encoding="utf-8"))))
    import bugs

    return bugs.read(root)


def the_bug(root, student, number):
    """A student's bug by its number."""
    return all_bugs(root)[bug_of(student, number) - 1]


def read_json(path):
    """What a JSON file holds; an empty dict if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path, text):
    """Replace a file by a text: at any moment, and on a full disk, it is the old or the new one."""
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def planted_file(root):
    """The file that tells that a bug is planted, as long as it is."""
    return Path(root, "course", "hunt", "planted.json")


def refuse_planted(root):
    """Raise ValueError if a bug is planted."""
    planted = read_json(planted_file(root))
    if planted:
        number = planted["number"]
        raise ValueError(f"bug {number} is planted here: take it out (hunt.py --restore)")


def plant(root, student, number):
    """Plant a bug. Raises ValueError if there is one already, or if its line is not as it was."""
    state = planted_file(root)
    if state.exists():
        planted = read_json(state)["number"]
        raise ValueError(f"bug {planted} is planted already: --restore takes it out")
    bug = the_bug(root, student, number)
    lines = Path(root, bug["file"]).read_text(encoding="utf-8").splitlines()
    if lines.count(bug["old"]) != 1:
        raise ValueError(f"bug {number} does not fit: its line in the package was changed")
    place = f"{bug['file']}:{lines.index(bug['old']) + 1}"
    mark = seal(root, student, number, place)  # tells whether, and not which
    planted = {"student": student, "number": number, "place": mark, "lines": line_counts(root)}
    write(state, json.dumps(planted))  # first, so that what is planted can always be taken out
    swap(root, bug["file"], bug["old"], bug["new"])


def restore(root):
    """Take the planted bug out. Returns its number, or None if there is none.

    Raises ValueError if its line was changed into another one than it was.
    """
    state = planted_file(root)
    if not state.exists():
        return None
    planted = read_json(state)
    number = planted["number"]
    bug = the_bug(root, planted["student"], number)  # whatever answers.toml now says
    gone = swap(root, bug["file"], bug["new"], bug["old"])
    lines = Path(root, bug["file"]).read_text(encoding="utf-8").splitlines()
    if not gone and bug["old"] not in lines:
        raise ValueError(f"bug {number}: its line was changed; undo that first, or repair it")
    state.unlink()
    return number


def swap(root, file, old, new):
    """Put one line in the place of another one; returns whether that one was there once."""
    path = Path(root, file)
    lines = path.read_text(encoding="utf-8").splitlines()
    if lines.count(old) != 1:
        return False
    lines[lines.index(old)] = new
    write(path, "\n".join(lines) + "\n")
    return True


def heal(root, files):
    """Take every bug out of some files of a folder; returns the names of those that had one."""
    healed = []
    for bug in all_bugs(root):
        file = bug["file"]
        if file not in files:
            continue
        with contextlib.suppress(UnicodeDecodeError):  # into such a file none was planted
            lines = Path(root, file).read_text(encoding="utf-8").splitlines()
            if bug["old"] not in lines and swap(root, file, bug["new"], bug["old"]):
                healed.append(file)
    return healed


def line_counts(root):
    """How many lines each file of the package has."""
    return {
        path.relative_to(root).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in sorted(Path(root, "tinyevo").glob("*.py"))
    }


def answer(root, student, number, place, why):
    """Judge an answer, and keep it; returns (whether it is right, what to say).

    Raises ValueError if there is nothing to judge.
    """
    state = planted_file(root)
    record = Path(root, "course", "hunt", "answers.json")
    planted = read_json(state)
    if planted.get("number") != number:
        raise ValueError(f"bug {number} is not planted")
    if len(why.split()) < 5:
        raise ValueError("say with --why, in a sentence, what the line does wrong")
    file, _, line = place.rpartition(":")
    path, home = Path(root, file).resolve(), Path(root).resolve()
    if not line.isdigit() or not path.is_file() or not path.is_relative_to(home):
        raise ValueError(f"{place!r} is no place: write tinyevo/FILE.py:LINE")
    file = path.relative_to(home).as_posix()
    if plain(planted["student"]) != plain(student):
        whose = json.dumps(planted["student"], ensure_ascii=False)
        raise ValueError(f"answers.toml had another name: put student = {whose} back")
    kept = read_json(record)
    before = kept.get(str(number), {"answers": []})
    if len(before["answers"]) >= ANSWERS:
        raise ValueError(f"bug {number} had its {ANSWERS} answers: --restore takes it out")
    bug = the_bug(root, student, number)
    repaired = bug["new"] not in Path(root, bug["file"]).read_text(encoding="utf-8").splitlines()
    place = f"{file}:{int(line)}"
    # Of the lines that were added or taken away, any number may be above it.
    added = line_counts(root).get(file, 0) - planted["lines"].get(file, 0)
    shifts = range(min(0, added), max(0, added) + 1)
    places = [f"{file}:{int(line) - shift}" for shift in shifts]
    named = planted["place"] in [seal(root, student, number, each) for each in places]
    right = named and repaired and is_green(root, bug)
    answers = [*before["answers"], {"place": place, "why": why, "right": right}]
    kept[str(number)] = {"answers": answers, "seal": seal(root, student, number, answers)}
    write(record, json.dumps(kept, indent=2) + "\n")
    if right:
        state.unlink()
        return True, "right: with your repair the test that catches it is green"
    left = ANSWERS - len(answers)
    return False, f"wrong: another place, or the repair is not one; answers left: {left}"


def is_green(root, bug):
    """Whether the test that catches a bug passes. Raises ValueError if a body is missing for it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "test_bug.py")
        path.write_text(bug["tests"], encoding="utf-8")
        paths = [str(Path(root)), str(Path(root, "tests"))]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
        command += ["--rootdir", folder, "-c", os.devnull]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if "NotImplementedError" in done.stdout:
        raise ValueError("the test that catches it needs a body that is still missing")
    if done.returncode not in (0, 1):
        raise ValueError(f"the test does not run:\n{done.stdout[-2000:]}")
    return done.returncode == 0


def seal(root, student, number, content):
    """A mark that says that what is kept of a bug, answers or a place, is what was written."""
    what = json.dumps([plain(student), number, content]).encode()
    key = json.dumps(all_bugs(root)[0]["tests"]).encode()
    return hmac.new(key, what, hashlib.sha256).hexdigest()


def is_found(root, student, number):
    """Whether a student found a bug."""
    kept = read_json(Path(root, "course", "hunt", "answers.json")).get(str(number))
    if not kept or kept["seal"] != seal(root, student, number, kept["answers"]):
        return False
    return any(answer["right"] for answer in kept["answers"][:ANSWERS])


def curves(root, student, number):
    """What was recorded of a healthy population and of one with the bug, as text.

    It is also put into a file, and drawn where matplotlib is installed.
    """
    folder = Path(root, "course", "hunt")
    paths = {
        "healthy": folder / "healthy.csv",
        "planted": folder / f"{bug_of(student, number)}.csv",
    }
    if not all(path.exists() for path in paths.values()):
        return "no curves are recorded here (course/record_hunt.py in the repository records them)"
    runs = {}
    for name, path in paths.items():
        with path.open(newline="", encoding="utf-8") as file:
            runs[name] = list(csv.DictReader(file))
    lines = [f"{name}: {what}" for name, what in COLUMNS.items()] + [""]
    lines += [line for name in runs for line in (name, *table(runs[name]), "")]
    file = folder / f"bug-{number}.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    lines.append(f"the tables, which may be wider than this window, are also in {file}")
    with contextlib.suppress(ImportError):
        lines.append(f"drawn in {draw(runs, folder / f'bug-{number}.png')}")
    return "\n".join(lines)


def draw(runs, path):
    """A picture of recorded runs: a panel for each measure, a mark for each member.

    The marks of the one fit into those of the other, so where the runs are equal it is seen.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    healthy = {"color": "#0072B2", "marker": "o", "markersize": 11, "linewidth": 4, "alpha": 0.5}
    planted = {"color": "#D55E00", "marker": "x", "markersize": 6, "linewidth": 1.5}
    with rc_context({"font.size": 16}):
        figure = Figure(figsize=(16, 9), layout="constrained")
        for panel, measure in zip(figure.subplots(3, 3, sharex=True).flat, PANELS):
            for (name, rows), look in zip(runs.items(), (healthy, planted)):
                points = [(float(row["generation"]), float(row[measure])) for row in rows]
                highest = dict(sorted(points))  # the largest of each generation comes last
                panel.plot(*zip(*points), **look | {"linestyle": ""}, label=name)
                panel.plot(highest.keys(), highest.values(), **look | {"marker": ""})
            panel.set_title(measure)
        names = figure.axes[0].get_legend_handles_labels()
        figure.legend(*names, loc="outside upper center", ncols=2)
        figure.supxlabel("generation (a mark for each member; the line leads through the highest)")
        figure.savefig(path, dpi=100)
    return path


def table(rows):
    """Recorded rows as the lines of a table, under their names."""
    names = list(rows[0])
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in names]
    lines = [names, *([row[name] for name in names] for row in rows)]
    return ["  ".join(map(str.rjust, line, widths)) for line in lines]


def main(arguments=None, root=ROOT):
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("number", nargs="?", type=int, help=f"which bug, from 1 to {BUGS}")
    parser.add_argument("--answer", metavar="FILE:LINE", help="where the bug is")
    parser.add_argument("--why", default="", help="what it does wrong, in a sentence")
    parser.add_argument("--restore", action="store_true", help="take the planted bug out")
    options = parser.parse_args(arguments)
    try:
        print(run(options, Path(root)))
    except (OSError, ValueError) as error:
        sys.exit(f"hunt.py: {error}")


def run(options, root):
    """Do what the command says; returns what to print."""
    answers = root / "answers.toml"
    student = name_in(read_answers(answers)) if answers.exists() else ""
    if options.restore:
        number = restore(root)
        return "nothing is planted" if number is None else f"bug {number} is taken out"
    if options.number not in range(1, BUGS + 1):
        raise ValueError(f"say which bug, from 1 to {BUGS}")
    if options.answer:
        return answer(root, student, options.number, options.answer, options.why)[1]
    plant(root, student, options.number)
    what = "repair its line, then name it with --answer; --restore takes it out"
    return f"{curves(root, student, options.number)}\nbug {options.number} is planted: {what}"


if __name__ == "__main__":
    main()
