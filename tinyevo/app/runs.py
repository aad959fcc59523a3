"""The settings of a run, and the folder that keeps it.

No random state is saved: every seed follows from the run's seed and the number of the generation,
so a resumed run gives the same bytes as one that was not interrupted.

Mirrors the tutorial's section "Resuming and reproducing".
"""

import csv
import io
import json
import os
import sqlite3
import warnings
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path

from tinyevo import checkpoint
from tinyevo.app.scenes import film_scenes, keep_scenes, load_scenes
from tinyevo.app.trackers import record
from tinyevo.buffer import ReplayBuffer
from tinyevo.environment import find_spaces
from tinyevo.images import CNNConfig
from tinyevo.mutation import Mutations, RLParameter
from tinyevo.networks import ACTIVATIONS
from tinyevo.td3 import TD3, HyperParams, check_hp_space
from tinyevo.tournament import TournamentSelection
from tinyevo.train import Run, TrainConfig


@dataclass(frozen=True)
class NetworkSettings:
    """The networks of the first generation, policy and critics alike."""

    hidden_size: tuple = (64, 64)
    activation: str = "relu"
    channels: tuple = (8, 16, 32, 32)  # of the encoder, for images

    def __post_init__(self):
        config = CNNConfig(1, 1, **vars(self))  # which checks them
        object.__setattr__(self, "hidden_size", config.hidden_size)
        object.__setattr__(self, "channels", config.channels)


@dataclass(frozen=True)
class Settings:
    """All settings of a run, in five groups.

    Raises ValueError if mutation may lead out of what `HyperParams` or networks allow.
    """

    config: TrainConfig
    network: NetworkSettings
    hp: HyperParams
    tournament: TournamentSelection
    mutations: Mutations

    def __post_init__(self):
        check_hp_space(self.hp, self.mutations.hp_space)
        activations = list(ACTIVATIONS)
        for name in self.mutations.activations:
            if name not in activations:
                raise ValueError(f"activations has {name!r}, choose from {', '.join(activations)}")

    def changed(self, changes):
        """Settings in which fields of `config`, `tournament` and `hp` have new values, by name.

        Other names are left alone: the flags of the command line have some.
        """
        groups = {}
        for group in ("config", "tournament", "hp"):
            old = getattr(self, group)
            own = {name: value for name, value in changes.items() if hasattr(old, name)}
            groups[group] = replace(old, **own)
        return replace(self, **groups)

    def with_differences(self, old, new):
        """These settings, and where `new` differs from `old`, what `new` has."""
        groups = {}
        for group, own in vars(self).items():
            before, after = (vars(getattr(settings, group)) for settings in (old, new))
            values = {name: value for name, value in after.items() if value != before[name]}
            groups[group] = replace(own, **values)
        return Settings(**groups)

    def differences(self, other):
        """Yields (name, own value, other value) of each field that differs."""
        others = asdict(other)
        for group, values in asdict(self).items():
            for name, value in values.items():
                if value != others[group][name]:
                    yield name, value, others[group][name]

    def to_json(self):
        """All of them as JSON text."""
        return json.dumps(asdict(self), indent=2, default=lambda dtype: dtype.__name__) + "\n"

    @classmethod
    def from_json(cls, text):
        """The settings that `to_json` wrote.

        Raises ValueError, naming the field, if one is missing, unknown or wrong.
        """
        return from_plain(cls, json.loads(text), "settings")


def from_plain(kind, value, name):
    """The object of some kind, a part of `Settings`, that JSON holds as `value`.

    Raises ValueError, which calls it by its `name`, if it does not.
    """
    if is_dataclass(kind):
        return dataclass_from_plain(kind, value, name)
    if kind is dict and isinstance(value, dict):  # there is one dict, the space of a search
        return {key: from_plain(RLParameter, part, f"{name}.{key}") for key, part in value.items()}
    if kind is type:
        if value not in ("int", "float"):
            raise ValueError(f"{name} must be 'int' or 'float', not {value!r}")
        return int if value == "int" else float
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if kind in (float, float | None):
        kind = int | kind
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {getattr(kind, '__name__', kind)}, not {value!r}")
    return value


def dataclass_from_plain(kind, values, name):
    """The dataclass that JSON holds as a dict of its fields."""
    types = {field.name: field.type for field in fields(kind)}
    if not isinstance(values, dict):
        raise ValueError(f"{name} must hold {', '.join(types)}, but is {values!r}")
    for key in types:
        if key not in values:
            raise ValueError(f"{name} lacks {key}")
    for key in values:
        if key not in types:
            raise ValueError(f"{name} has {key!r}, choose from {', '.join(types)}")
    parts = {key: from_plain(types[key], part, f"{name}.{key}") for key, part in values.items()}
    try:
        return kind(**parts)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


class RunFolder:
    """The folder of one run: it is locked while this process writes into it.

    Attributes:
        path: of the folder; None until `save` chooses the next one under `runs/`.
        scenes: what the run keeps for its film, see `keep_scenes`.
        begun: whether this process has saved a run in it, from which it can be resumed.
        tracker: of `app.trackers`, told of what is saved in it; or None.
    """

    def __init__(self, path=None):
        self.path = path
        self.scenes = []
        self.begun = False
        self.tracker = None
        self._lock = None
        self._written = set()
        self._home = os.getcwd()  # an environment may go elsewhere

    def __str__(self):
        return str(self.path)

    def save(self, run, settings):
        """Write the run's files: `population.pt` first, the others are derived from it.

        A new folder is made first. Raises ValueError if it holds anything already, or if another
        run writes into it, and OSError, naming the file, if a file cannot be written.
        """
        os.chdir(self._home)
        if self._lock is None:
            self._begin()
        self._write("population.pt", checkpoint.dumps(run_state(run, settings)))
        first, self.begun = not self.begun, True
        self._write("config.json", settings.to_json().encode())
        if run.history:
            self._write("elite.pt", checkpoint.dumps(run.best.state()))
            self.scenes = keep_scenes(self.scenes, run)
            self._write("scenes.pt", checkpoint.dumps(self.scenes))
            try:
                self._write("history.csv", history_csv(run.history).encode())
            except PermissionError as error:  # on Windows, where Excel shows it
                what = "is it open elsewhere? It is written again with the next generation"
                warnings.warn(f"{error}: {what}", stacklevel=2)
        if self.tracker and first:
            self.tracker.begin(self.path, settings, run.steps)
        elif self.tracker:
            record(self.tracker, run, settings.mutations.hp_space)

    def load(self, device="cpu"):
        """The (run, settings) that `save` wrote last.

        Raises ValueError if there is none, if another run writes into the folder, if a file is
        damaged, or if the environment has changed.
        """
        file = self.path / "population.pt"
        if not file.is_file():
            raise ValueError(f"there is no run to resume in {self.path}: {file} is missing")
        self._lock = lock_folder(self.path)  # before it is read
        run, settings = checkpoint.load(file, lambda state: run_from_state(state, device))
        self.scenes = load_scenes(self.path / "scenes.pt")
        env_id = settings.config.env_id
        spaces = find_spaces(env_id)
        learned = run.population[0].observation_space, run.population[0].action_space
        if learned != spaces:
            what = f"was trained with {learned}, but {env_id} has {spaces}"
            raise ValueError(f"the run in {self.path} {what}")
        return run, settings

    @contextmanager
    def new_file(self, name):
        """A file object whose content becomes this file of the folder at the end of the block.

        Where the block lacks a package, it says so and writes no file.
        """
        content = io.BytesIO()
        try:
            yield content
        except ImportError as error:
            print(f"no {name}: {error}")
        else:
            os.chdir(self._home)
            self._write(name, content.getvalue())
            if self.tracker and name.endswith((".png", ".gif")):
                self.tracker.add_file(self.path / name)

    def film(self):
        """The scenes that were kept, as `record_evolution` takes them."""
        return film_scenes(self.scenes)

    def files(self):
        """The paths of the run's files that this process wrote."""
        os.chdir(self._home)
        return sorted(self.path / name for name in self._written)

    def close(self):
        """Let others write into the folder, and end the tracker's record."""
        if self.tracker and self.begun:
            self.tracker.close()
        if self._lock:
            self._lock.close()

    def _write(self, name, data):
        """Write one of the run's files."""
        checkpoint.write(self.path / name, data)
        self._written.add(name)

    def _begin(self):
        """Make the folder, unless it holds something, and lock it."""
        if self.path is None:
            self.path = next_folder()
        self.path.mkdir(parents=True, exist_ok=True)
        # Such files are left by a run that never began.
        old = [file.name for file in self.path.iterdir() if file.suffix not in (".lock", ".tmp")]
        if old:
            what = f"it has {min(old)}, and no run is overwritten: name a new one"
            raise ValueError(f"{self.path} is not empty: {what}")
        self._lock = lock_folder(self.path)


def next_folder():
    """Make the folder with the next number under `runs/`."""
    runs = Path("runs")
    runs.mkdir(exist_ok=True)
    while True:
        taken = [int(old.name) for old in runs.glob("*") if old.name.isdecimal()]
        path = runs / f"{max(taken, default=0) + 1:03d}"
        with suppress(FileExistsError):  # another run was faster
            path.mkdir()
            return path


def lock_folder(path):
    """Keep every other run out of a folder.

    The lock holds until the returned connection is closed or this process ends. It is SQLite's,
    the one lock of the standard library that works everywhere. Raises ValueError if another process
    has it, or if the folder cannot be written into.
    """
    lock, file = None, path / "run.lock"
    for place in (path, file):  # a lock that is only read locks nobody out
        if place.exists() and not os.access(place, os.W_OK):
            raise ValueError(f"{place} is read-only, and a run writes into its folder")
    try:
        lock = sqlite3.connect(file, timeout=0)
        lock.executescript("PRAGMA journal_mode = OFF; BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if lock:
            lock.close()
        what = "perhaps another run is writing into it"
        raise ValueError(f"{path} cannot be locked ({error}): {what}") from error
    return lock


def run_state(run, settings):
    """A run and its settings as plain data."""
    return {
        "settings": settings.to_json(),
        "population": [agent.state() for agent in run.population],
        "memory": run.memory.state(),
        "steps": run.steps,
        "best": run.best and run.best.state(),
        "best_return": run.best_return,
        "history": run.history,
    }


def run_from_state(state, device="cpu"):
    """The (run, settings) that `run_state` described."""
    population = [TD3.from_state(agent, device) for agent in state["population"]]
    spaces = population[0].observation_space, population[0].action_space
    run = Run(
        population=population,
        memory=ReplayBuffer.from_state(state["memory"], *spaces, device),
        steps=state["steps"],
        best=state["best"] and TD3.from_state(state["best"], device),
        best_return=state["best_return"],
        history=state["history"],
    )
    return run, Settings.from_json(state["settings"])


def history_csv(history):
    """The rows of a history as text of comma-separated values."""
    text = io.StringIO()
    table = csv.DictWriter(text, history[0])
    table.writeheader()
    table.writerows(history)
    return text.getvalue()
