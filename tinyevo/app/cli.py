"""The command line: flags, Ctrl-C, and a one-line message for every error.

`run_program` reads the flags and calls a program with them. Errors before the run is first saved
end with exit status 2; later ones with 1 and the command that resumes.

Mirrors the tutorial's section "Resuming and reproducing".
"""

import multiprocessing
import signal
import sys
from pathlib import Path

is_program = Path(sys.argv[0]).name == "train_lunar.py" and not hasattr(sys, "ps1")  # no notebook
if multiprocessing.parent_process() or is_program:
    # While the slow imports below take their time, Ctrl-C ends the program and its workers at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import os
import re
import shlex
import subprocess
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import gymnasium as gym
import torch

from tinyevo.app.report import plain_warnings
from tinyevo.app.runs import RunFolder, Settings
from tinyevo.app.trackers import TRACKERS
from tinyevo.app.workers import STOPS, check_memory, stops_handled_by
from tinyevo.environment import can_render, make_env
from tinyevo.render import picture
from tinyevo.train import Run, with_target


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    settings: Settings
    resumed: Run | None  # the run to resume, None for a new one
    folder: RunFolder
    device: torch.device
    workers: int | str  # processes, or the address of a cluster
    film: bool  # whether to render films at the end


def run_program(program, settings, quick):
    """Call `program` with the `Options` of the command line, and handle whatever stops it.

    `settings` are those of a new run, `quick` those with the flag `--quick`.
    """
    parser = make_parser(settings, quick)
    flags = vars(parser.parse_args())
    folder = RunFolder(flags.get("resume") or flags.get("out"))
    try:
        with stops_handled_by(interrupt), closing(folder):
            prepare_process()
            kept = [name for name in ("out", "settings") if name in flags]
            if kept and "resume" in flags:
                what = f"--{kept[0]} and --resume exclude each other"
                raise ValueError(f"{what}: a run keeps its folder and its settings")
            program(read_options(flags, settings, quick, folder))
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)  # an environment may raise it too
        hint = f"; {resume_hint(folder, flags)}" if folder.begun else ""
        parser.exit(128 + number, f"stopped{hint}\n")
    except Exception as error:
        reason = explain(error, folder.begun)
        if reason is None:  # a mistake in the code, which needs the traceback
            raise
        if not folder.begun:
            parser.error(reason)
        hint = resume_hint(folder, flags)
        if isinstance(error, FloatingPointError):  # would happen again
            hint = f"results so far are in {folder}"
        parser.exit(1, f"stopped: {reason}; {hint}\n")


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that answers a mistake in one line, with exit status 2."""

    def error(self, message):
        """Say what was wrong."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def make_parser(settings, quick):
    """A parser whose result holds the flags that were given, by the name of what they set."""
    parser = OneLineParser(
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        description="Evolve a population of TD3 agents until one of them lands.",
    )

    def add(flag, kind, text, default, name=None):
        text = f"{text} (default: {default})"
        parser.add_argument(flag, dest=name, type=kind, metavar="X", help=text)

    config, size = settings.config, settings.tournament.population_size
    file = "file of all settings, such as the config.json of a run"
    add("--settings", path_name, file, "those of this program")
    add("--env", str, "Gymnasium environment", config.env_id, "env_id")
    add("--seed", number, "all randomness of the run follows from it", config.seed)
    add("--device", str, "torch device of the networks, such as cuda", "cpu")
    cores = "one per core, at most one per member; 1 on CUDA"
    add("--workers", number, "worker processes", cores)
    cluster = "address of a Dask cluster to use instead; local:4 starts four workers here"
    add("--cluster", str, cluster, "none")
    add("--pop-size", number, "members of the population", size, "population_size")
    add("--num-envs", number, "environments that a member flies side by side", config.num_envs)
    steps = "environment steps of a member"
    add("--max-steps", number, f"{steps} in all", config.max_steps)
    add("--evo-steps", number, f"{steps} in a generation", config.evo_steps)
    add("--memory-size", number, "transitions that the shared memory holds", config.memory_size)
    target = f"{config.target}; the reward_threshold of another environment"
    add("--target", float, "confirmed mean return that ends the run", target)
    add("--out", path_name, "folder of this run, new or empty", "the next runs/NNN")
    resume = "folder of a run to resume, which keeps its settings"
    add("--resume", path_name, resume, "begin a new run")
    track = "keep a second record of the run there (default: none)"
    parser.add_argument("--track", choices=TRACKERS, help=track)
    parser.add_argument(
        "--no-gif", action="store_true", help="render no films (default: render them)"
    )
    changes = ", ".join(f"{name} {new}" for name, _, new in settings.differences(quick))
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"the whole pipeline within a minute, too short to land (default: off): {changes}",
    )
    return parser


def number(text):
    """Read a number; 1e6 is a whole number too."""
    if text.isdecimal():
        return int(text)
    value = float(text)
    return int(value) if value.is_integer() else value


def path_name(text):
    """Read a path; an empty one is a mistake, often an empty variable of a shell."""
    if not text:
        raise ValueError
    return Path(text)


def prepare_process():
    """Make this process the home of a run: its threads, output and warnings."""
    torch.set_num_threads(1)  # with small networks a second thread makes torch slower
    plain_warnings()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    with suppress(AttributeError):  # IDLE's and notebooks' streams need none of it
        # Show each table at once, through a pipe too, and whatever the name of the folder.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")


def interrupt(number, frame, after=0):
    """End in order, which no other signal disturbs in the next ten seconds.

    After them one is heard again: an environment may have swallowed the first.
    """
    if time.monotonic() < after:
        return
    for other in STOPS:
        signal.signal(other, partial(interrupt, after=time.monotonic() + 10))
    stop = KeyboardInterrupt()
    stop.number = number
    raise stop


def read_options(flags, settings, quick, folder):
    """The `Options` that flags mean. Raises ValueError or OSError if they are wrong."""
    device = find_device(flags.get("device", "cpu"))
    new = quick if "quick" in flags else settings
    shorten = partial(Settings.with_differences, old=settings, new=new)
    if "resume" in flags:
        run, settings = resume_run(folder, flags, shorten, device)
    else:
        run, settings = None, new_settings(flags, settings, shorten)
    if "track" in flags:
        check_extra("track", flags["track"])
        folder.tracker = TRACKERS[flags["track"]]()
    size = settings.tournament.population_size
    workers = find_workers(flags, device, size)
    film = "no_gif" not in flags
    if film:
        check_film(settings.config.env_id)
    check_memory(workers_here(workers), size, settings.config)
    return Options(settings, run, folder, device, workers, film)


def check_film(env_id):
    """Raise ValueError unless an environment gives pictures of which a film can be made."""
    if not can_render(env_id):
        raise ValueError(f"--env {env_id} cannot be rendered: add --no-gif")
    try:
        with make_env(env_id, render_mode="rgb_array") as env:
            env.reset(seed=0)
            picture(env)
    except gym.error.Error as error:
        raise ValueError(f"{error}: add --no-gif") from error


def find_workers(flags, device, population_size):
    """How many processes, or the address of which cluster, fly the members."""
    if "cluster" in flags:
        return find_cluster(flags)
    workers = flags.get("workers", 1 if device.type == "cuda" else os.cpu_count() or 1)
    if type(workers) is not int or workers < 1:
        raise ValueError(f"--workers must be a whole number of at least 1, not {workers}")
    return min(workers, population_size, 61)  # Windows waits for no more than 61


def check_extra(flag, package):
    """Raise ValueError if the package that a flag needs is missing."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:  # a folder of that name is not the package
        raise ValueError(f"--{flag} needs an extra: pip install {package}")


def find_cluster(flags):
    """The address that the flag `--cluster` gives; ValueError if it cannot be one."""
    address = flags["cluster"]
    if "workers" in flags:
        raise ValueError("--workers and --cluster exclude each other: a cluster has its workers")
    check_extra("cluster", "distributed")
    if not re.fullmatch(r"local:[1-9]\d*|(?!local:)((tcp|tls)://)?[^/]+:\d+", address):
        raise ValueError(f"--cluster must be like host:8786 or local:4, not {address!r}")
    return address


def workers_here(workers):
    """How many processes of this machine fly members; on a cluster elsewhere none does."""
    if isinstance(workers, int):
        return workers
    where, _, count = workers.partition(":")
    return int(count) if where == "local" else 0


def new_settings(changes, settings, shorten):
    """The settings of a new run: the changes, else those of the file they name, else `settings`.

    `shorten` makes them those of a quick run, where one is asked for, before the changes. Another
    environment has a target of its own, and its own limit of an episode.
    """
    if "settings" in changes:
        settings = read_settings(changes["settings"])
    old = settings.config.env_id
    if changes.get("env_id", old) != old:
        settings = settings.changed({"target": None, "train_episode_steps": None})
    settings = shorten(settings).changed(changes)
    return replace(settings, config=with_target(settings.config))


def read_settings(path):
    """The settings in a file; ValueError, naming it, if they are wrong."""
    try:
        return Settings.from_json(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--settings {path}: {error}") from error


def resume_run(folder, changes, shorten, device):
    """The (run, settings) in a folder; where the run ends, `max_steps` or `target`, may change."""
    run, settings = folder.load(device)
    changed = shorten(settings).changed(changes)
    for name, old, new in settings.differences(changed):
        if name not in ("max_steps", "target"):
            raise ValueError(f"the run in {folder} has {name} {old}, it cannot resume with {new}")
    if changed.config.max_steps < run.steps:
        steps = changed.config.max_steps
        raise ValueError(f"the run in {folder} has flown {run.steps} steps, over max_steps {steps}")
    return run, changed


def find_device(name):
    """The torch device of a name; ValueError if it is not here."""
    try:
        torch.empty(1, device=name).cpu()  # there and back
        return torch.device(name)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise ValueError(f"--device {name} is not available here: {reason}") from error


# What torch and Python say when memory or threads are short, or output was closed.
SHORTAGES = (
    "tried to allocate",
    "out of memory",
    "bad_alloc",
    "ALLOC_FAILED",
    "can't start new thread",
    "closed file",
)


def explain(error, begun):
    """What a user needs to know of an error, in one line; None if it is a mistake in the code."""
    if isinstance(error, BrokenProcessPool):
        return "a worker process died, perhaps for lack of memory (--workers 1 needs less)"
    expected = (FloatingPointError, OSError, MemoryError, torch.OutOfMemoryError, gym.error.Error)
    expected += (UserWarning,)  # where python -W error makes it an error
    if not begun:
        expected += (ValueError,)
    vague = isinstance(error, (RuntimeError, ValueError))  # they may mean anything
    short = vague and any(words in str(error) for words in SHORTAGES)
    foreign = type(error).__module__.split(".")[0] in ("distributed", "wandb")
    if isinstance(error, expected) or short or foreign:
        return " ".join(str(error).split()) or type(error).__name__
    return None


def resume_hint(folder, flags):
    """The command that resumes the run in a folder."""
    path = os.path.join(".", str(folder)) if str(folder).startswith("-") else str(folder)
    command = [sys.argv[0], "--resume", path]
    for name in ("device", "workers", "cluster", "track"):
        if name in flags:
            command.append(f"--{name}={flags[name]}")
    if "no_gif" in flags:
        command.append("--no-gif")
    quote = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return f"resume with: python {quote(command)}"
