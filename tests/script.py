"""How tests run the script: in this process, or as a user does, in a process of its own, with the
probe environments in reach.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import train_lunar
from tinyevo.app.cli import run_program

ROOT = Path(__file__).parent.parent
SCRIPT = [sys.executable, str(ROOT / "train_lunar.py")]
PROBES = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
SMALL = ["--quick", "--max-steps", "240", "--evo-steps", "80", "--no-gif"]
COUNTING = [*SMALL, "--env", "probes:Counting-v0", "--pop-size", "3", "--target", "200"]
STOPS = (signal.SIGINT, signal.SIGTERM)


def call(monkeypatch, *arguments):
    """Run the script in this process, to its end; its warnings are not shown."""
    monkeypatch.setattr(sys, "argv", ["train_lunar.py", *map(str, arguments)])
    with undisturbed(), warnings.catch_warnings(action="ignore"):
        run_program(train_lunar.main, train_lunar.SETTINGS, train_lunar.QUICK)


def exit_status(monkeypatch, *arguments):
    """The same for a script that something stops."""
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, *arguments)
    return stopped.value.code


@contextmanager
def undisturbed():
    """Undo what a script does to the process that it runs in."""
    handlers = [signal.getsignal(number) for number in STOPS]
    form = warnings.formatwarning
    try:
        yield
    finally:
        warnings.formatwarning = form
        for number, handler in zip(STOPS, handlers):
            signal.signal(number, handler)


def run(folder, *arguments, **options):
    """Run the script in a folder, to its end."""
    pipes = {"capture_output": True, "text": True, "timeout": 300, "env": os.environ | PROBES}
    return subprocess.run([*SCRIPT, *map(str, arguments)], cwd=folder, **pipes | options)


def start(folder, *arguments, **options):
    """Start the script in a folder, in a process group of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes |= {"start_new_session": True, "env": os.environ | PROBES}
    return subprocess.Popen([*SCRIPT, *map(str, arguments)], cwd=folder, **pipes | options)


def read_until(script, beginning):
    """Read the script's output up to a line that begins so, for five minutes at most."""
    lines = []
    deadline = threading.Timer(300, kill_group, [script])
    deadline.start()
    try:
        for line in script.stdout:
            lines.append(line)
            if line.startswith(beginning):
                return lines
    finally:
        deadline.cancel()
    raise AssertionError(f"the script never said {beginning!r}: {lines} {script.stderr.read()}")


def complaints(errors):
    """What a script wrote to stderr, but for its warnings."""
    lines = errors.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("warning: "))


def kill_group(script):
    """Kill everything that a started script has left, if anything."""
    script.kill()
    with suppress(ProcessLookupError, AttributeError):  # Windows has no groups
        os.killpg(script.pid, signal.SIGKILL)


def group_ends(script, seconds=60):
    """Whether all processes of a started script are gone within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(script.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def children(pid):
    """The pids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def files(folder):
    """The contents of a run's files, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}
