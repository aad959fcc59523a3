"""Gives each test the name of its task, stops endless loops, and counts the points."""

import json
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from answers import faults, name_in, read_answers
from hunt import planted_file, read_json
from tasks import REFILL, TASKS
from variants import tasks_of

ROOT = Path(__file__).parent
# For one test: an endless loop ends here, where the system has an alarm.
SECONDS = int(os.environ.get("SECONDS_FOR_A_TEST", 60))
wanted = defaultdict(set)  # the tests that decide each task
ran, passed, endless, unloaded, ended = set(), set(), set(), [], {}


def pytest_addoption(parser):
    """`--score FILE` writes the points as JSON."""
    parser.addoption("--score", metavar="FILE", help="write the points of each task as JSON")


def pytest_configure(config):
    """A marker for each task. While a bug is planted no test tells where it is."""
    planted = read_json(planted_file(ROOT))
    if planted:
        what = "find it by its table, not by the tests; --restore takes it out"
        raise pytest.UsageError(f"bug {planted['number']} is planted: {what}")
    for task in TASKS:
        config.addinivalue_line("markers", f"{task.marker}: {task.title}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark each test with its task, before `-m` chooses among them."""
    for item in items:
        for task in TASKS:
            if decides(item, task):
                item.add_marker(task.marker)
                wanted[task].add(item.nodeid)


def pytest_collectreport(report):
    """Remember which files of tests could not be loaded."""
    if report.failed:
        unloaded.append(report.nodeid)


def decides(item, task):
    """Whether a test is one of those that decide a task."""
    if task.kind == REFILL:
        return item.nodeid.partition("[")[0] in task.tests
    return getattr(item.obj, "task", None) == task.number


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Stop a test that takes too long, and begin no other one of its task."""
    task = next((task for task, tests in wanted.items() if item.nodeid in tests), None)
    if task in endless:
        pytest.fail("not begun, because another test of this task did not end")
    if not hasattr(signal, "SIGALRM"):
        return (yield)

    def stop(number, frame):
        endless.add(task)
        pytest.fail(f"stopped after {SECONDS} seconds: is there an endless loop?")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def pytest_runtest_logreport(report):
    """Remember what ran and what passed."""
    if report.when == "call":
        ran.add(report.nodeid)
        if report.passed:
            passed.add(report.nodeid)


def points(task):
    """The points of a task: for a body all or none, for answers a share for each right one."""
    right, among = len(wanted[task] & passed), len(wanted[task])
    if not among or (task.kind == REFILL and right < among):
        return 0
    return task.points * right // among


def pytest_terminal_summary(terminalreporter, config):
    """Print the score, and write it if asked to."""
    write = terminalreporter.write_line
    terminalreporter.section("score")
    try:
        answers = read_answers(ROOT / "answers.toml")
    except ValueError as error:
        answers = {}
        write(str(error))
    for fault in faults(answers):
        write(fault)
    student = name_in(answers)
    mine = tasks_of(student)
    graded = [task for task in mine if task.graded]
    for name in unloaded:
        write(f"{name} could not be loaded, see above: its tests count as not passed")
    shown = [task for task in graded if wanted[task] & ran] or graded
    if unloaded and not config.getoption("markexpr"):
        shown = graded
    for task in shown:
        tests = f"{len(wanted[task] & passed)} of {len(wanted[task])} tests"
        write(f"task {task.number:2}  {points(task):2} of {task.points:2}  {tests:15} {task.title}")
    score, most = sum(map(points, graded)), sum(task.points for task in graded)
    if shown != graded:
        part = sum(task.points for task in shown)
        write(f"score: {score} of {part} points in what was run; `pytest` alone runs all")
    else:
        write(f"score: {score} of {most} points; the open tasks are your lecturer's to grade")
    path = config.getoption("--score")
    if path:
        rows = [
            {"task": task.number, "title": task.title, "points": points(task), "of": task.points}
            for task in graded
        ]
        content = {"student": student, "score": score, "of": most, "tasks": rows}
        content["faults"] = faults(answers)
        Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def pytest_sessionfinish(exitstatus):
    """Remember how it ended."""
    ended["status"] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """End at once when the score is written, so that nothing that was imported has a last word."""
    if config.getoption("--score") and "status" in ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended["status"])
