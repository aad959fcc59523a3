"""How tests run the script: as a user does, in a process of its own, with the probe environments in
reach.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import train_lunar

ROOT = Path(__file__).parent.parent
SCRIPT = [sys.executable, str(ROOT / "train_lunar.py")]
PROBES = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
SMALL = ["--quick", "--max-steps", "240", "--evo-steps", "80", "--no-gif"]
COUNTING = [*SMALL, "--env", "probes:Counting-v0", "--pop-size", "3"]


def run(folder, *arguments, **options):
    """Run the script in a folder, to its end."""
    options = {
        "capture_output": True,
        "text": True,
        "timeout": 300,
        "env": os.environ | PROBES,
        **options,
    }
    return subprocess.run([*SCRIPT, *map(str, arguments)], cwd=folder, **options)


def call(monkeypatch, *arguments):
    """Run the script in this process."""
    monkeypatch.setattr(sys, "argv", ["train_lunar.py", *arguments])
    train_lunar.main()


def start(folder, *arguments, **options):
    """Start the script in a folder, in a process group of its own."""
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "start_new_session": True,
    }
    options = pipes | {"env": os.environ | PROBES} | options
    return subprocess.Popen([*SCRIPT, *map(str, arguments)], cwd=folder, **options)


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
