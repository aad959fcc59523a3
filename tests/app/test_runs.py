"""Settings and the folder of a run: both come back as they were, or they are refused by name."""

import csv
import errno
import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from common import MUTATIONS, TINY, flat, make_agent, run, setup, text
from script import ROOT

import train_lunar
from tinyevo import checkpoint
from tinyevo.app.runs import (
    NetworkSettings,
    RunFolder,
    Settings,
    history_csv,
    lock_folder,
    next_folder,
)
from tinyevo.environment import episode_limit
from tinyevo.mutation import Mutations, RLParameter
from tinyevo.td3 import TD3, HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import Run

SETTINGS = Settings(
    TINY, NetworkSettings((8,)), HyperParams(), TournamentSelection(2, True, 3), MUTATIONS
)


@pytest.fixture(scope="module")
def done():
    """A run of three generations."""
    return run()


@pytest.fixture
def folder(tmp_path):
    """A run's folder that does not exist yet."""
    with closing(RunFolder(tmp_path / "run")) as folder:
        yield folder


def load(path):
    """The (run, settings) in a folder, which is left unlocked."""
    with closing(RunFolder(path)) as folder:
        return folder.load()


# Settings


def with_field(group, name, value):
    """The settings as JSON, with one field changed."""
    plain = json.loads(SETTINGS.to_json())
    plain[group][name] = value
    return json.dumps(plain)


def without_field(group, name):
    """The settings as JSON, with one field left out."""
    plain = json.loads(SETTINGS.to_json())
    del plain[group][name]
    return json.dumps(plain)


@pytest.mark.parametrize("settings", [SETTINGS, train_lunar.SETTINGS, train_lunar.QUICK])
def test_settings_come_back_from_json_equal_and_of_the_same_types(settings):
    back = Settings.from_json(settings.to_json())
    assert back == settings and repr(back) == repr(settings)  # which tells 1 from 1.0
    assert back.to_json() == settings.to_json()
    assert type(back.network.hidden_size) is tuple and type(back.mutations.node_steps) is tuple
    assert back.mutations.hp_space["learn_step"].dtype is int


def test_json_holds_every_setting_by_its_name():
    plain = json.loads(train_lunar.SETTINGS.to_json())
    assert list(plain) == ["config", "network", "hp", "tournament", "mutations"]
    for group, values in plain.items():
        assert values.keys() == asdict(getattr(train_lunar.SETTINGS, group)).keys()
    expected = {"min": 1, "max": 16, "dtype": "int", "shrink_factor": 0.8, "grow_factor": 1.25}
    assert plain["mutations"]["hp_space"]["learn_step"] == expected


@pytest.mark.parametrize(
    "group, name, value, words",
    [
        ("config", "seed", "0", "settings.config.seed must be int, not '0'"),
        ("config", "seed", True, "settings.config: seed must be a whole number"),
        ("config", "env_id", 5, "settings.config.env_id must be str, not 5"),
        ("config", "target", "1", "settings.config.target must be int | float | None, not '1'"),
        ("hp", "gamma", None, "settings.hp.gamma must be int | float, not None"),
        ("config", "eval_steps", "all", "settings.config.eval_steps must be int | None, not 'all'"),
        ("config", "evo_steps", -1, "settings.config: evo_steps must be"),
        ("config", "noise_dt", float("nan"), "settings.config: noise_dt must be"),
        ("config", "surprise", 1, "settings.config has 'surprise', choose from env_id, seed, "),
        ("network", "hidden_size", 64, "settings.network.hidden_size must be tuple, not 64"),
        ("network", "hidden_size", [[]], "settings.network: each of hidden_size must be whole"),
        ("network", "activation", [], "settings.network.activation must be str, not []"),
        ("network", "activation", "sine", "settings.network: unknown activation 'sine'"),
        ("hp", "gamma", 2, "settings.hp: gamma must be a number from 0 to 1, not 2"),
        ("hp", "batch_size", 8.5, "settings.hp.batch_size must be int, not 8.5"),
        ("tournament", "elitism", "no", "settings.tournament.elitism must be bool, not 'no'"),
        ("mutations", "mutate_elite", 1, "settings.mutations.mutate_elite must be bool, not 1"),
        ("mutations", "layer_bounds", [3, 1], "settings.mutations: layer_bounds must be"),
        ("mutations", "activations", ["sine"], "settings: activations has 'sine', choose from"),
        ("mutations", "activations", [[]], "settings: activations has [], choose from relu"),
        ("mutations", "hp_space", [], "settings.mutations.hp_space must be dict, not []"),
        ("mutations", "hp_space", {"tau": 1}, "settings.mutations.hp_space.tau must hold min, max"),
        ("mutations", "hp_space", {"tau": {"min": 0}}, "settings.mutations.hp_space.tau lacks max"),
    ],
)
def test_a_wrong_field_of_json_settings_is_named_in_one_line(group, name, value, words):
    with pytest.raises(ValueError) as caught:
        Settings.from_json(with_field(group, name, value))
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "limits, words",
    [
        ({"dtype": "str"}, ".dtype must be 'int' or 'float', not 'str'"),
        ({"dtype": []}, ".dtype must be 'int' or 'float', not []"),
        ({"min": 2, "max": 1}, ": max must be a number from 2 "),
        ({"step": 1}, " has 'step', choose from min, max, "),
    ],
)
def test_a_wrong_range_of_a_search_is_named_with_its_hyper_parameter(limits, words):
    space = json.loads(SETTINGS.to_json())["mutations"]["hp_space"]
    space["learn_step"] |= limits
    with pytest.raises(ValueError) as caught:
        Settings.from_json(with_field("mutations", "hp_space", space))
    assert str(caught.value).startswith(f"settings.mutations.hp_space.learn_step{words}")


def test_a_missing_field_of_json_settings_is_named():
    for group, values in json.loads(SETTINGS.to_json()).items():
        for name in values:
            with pytest.raises(ValueError, match=rf"^settings\.{group} lacks {name}$"):
                Settings.from_json(without_field(group, name))


@pytest.mark.parametrize("foreign", ["", "x", "[]", "5", "null", "{}", '{"config": 1}'])
def test_foreign_json_raises_a_value_error_of_one_line(foreign):
    with pytest.raises(ValueError) as caught:
        Settings.from_json(foreign)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, space, words",
    [
        ("lr", RLParameter(1e-4, 1e-2), "hp_space has 'lr', choose from lr_actor, "),
        (
            "gamma",
            RLParameter(0.9, 1.5),
            "hp_space.gamma: gamma must be a number from 0 to 1, not 1.5",
        ),
        ("tau", RLParameter(-0.5, 1), "tau must be a number from 0 to 1, not -0.5"),
        ("batch_size", RLParameter(8, 512), "batch_size must be a whole number"),
    ],
)
def test_a_search_space_that_leads_nowhere_is_refused_with_the_settings(name, space, words):
    with pytest.raises(ValueError, match=words):
        replace(SETTINGS, mutations=Mutations(hp_space={name: space}))


def test_an_activation_that_no_network_has_is_refused_with_the_settings():
    with pytest.raises(ValueError, match="activations has 'sine', choose from relu, elu"):
        replace(SETTINGS, mutations=Mutations(activations=("relu", "sine")))
    with pytest.raises(ValueError, match="unknown activation 'sine'"):
        NetworkSettings(activation="sine")
    with pytest.raises(ValueError, match="hidden_size must be a tuple"):
        NetworkSettings(hidden_size=64)


@pytest.mark.parametrize("file", sorted((ROOT / "settings").glob("*.json")), ids=lambda f: f.stem)
def test_the_settings_for_other_occasions_can_be_read_and_let_each_fly_whole_episodes(file):
    settings = Settings.from_json(file.read_text())
    assert settings.to_json() == file.read_text()
    config = settings.config
    assert config.target is not None
    limit = config.train_episode_steps or episode_limit(config.env_id)
    assert config.evo_steps // config.num_envs >= limit


def test_settings_cannot_be_assigned_to():
    with pytest.raises(AttributeError):
        SETTINGS.config = TINY
    with pytest.raises(AttributeError):
        SETTINGS.network.activation = "elu"


def test_changes_go_into_config_tournament_and_hp_by_name_and_other_names_are_none_of_theirs():
    changes = {"seed": 7, "population_size": 5, "gamma": 0.5, "device": "cuda", "channels": (4,)}
    changed = SETTINGS.changed(changes)
    assert changed.config == replace(TINY, seed=7)
    assert changed.tournament == replace(SETTINGS.tournament, population_size=5)
    assert changed.hp == replace(SETTINGS.hp, gamma=0.5)
    assert (changed.network, changed.mutations) == (SETTINGS.network, SETTINGS.mutations)


def test_differences_are_the_fields_that_differ_with_both_values():
    assert list(SETTINGS.differences(SETTINGS)) == []
    other = replace(SETTINGS.changed({"seed": 7}), hp=HyperParams(gamma=0.5))
    assert list(SETTINGS.differences(other)) == [("seed", 0, 7), ("gamma", 0.99, 0.5)]


# A run in its folder


def test_a_run_comes_back_from_its_folder_as_it_was(folder, done):
    folder.save(done, SETTINGS)
    folder.close()
    back, settings = load(folder.path)
    assert text(back) == text(done) and settings == SETTINGS
    assert back.best_return == done.best_return and back.generation == done.generation == 3
    before = (folder.path / "population.pt").read_bytes()
    again = RunFolder(folder.path.with_name("again"))
    with closing(again):
        again.save(back, settings)
    assert (again.path / "population.pt").read_bytes() == before


def test_a_run_can_be_saved_before_its_first_generation(folder, done):
    folder.save(Run(*setup()), SETTINGS)
    folder.close()
    assert sorted(os.listdir(folder.path)) == ["config.json", "population.pt", "run.lock"]
    back, _ = load(folder.path)
    assert back.best is None and back.best_return == -float("inf") and len(back.memory) == 0
    assert text(run(start=back)) == text(done)


def test_a_run_interrupted_after_any_generation_and_resumed_from_its_file_ends_bit_for_bit_alike(
    tmp_path,
):
    kept = []
    expected = run(options={"on_generation": kept.append})
    for number, state in enumerate(kept):
        with closing(RunFolder(tmp_path / str(number))) as folder:
            folder.save(state, SETTINGS)
        back, _ = load(folder.path)
        assert text(run(start=back)) == text(expected)
    assert len(kept) == 3


def test_the_files_beside_the_checkpoint_say_what_is_in_it(folder, done):
    done = replace(done, best=done.population[1])  # which it may be, as any other
    folder.save(done, SETTINGS)
    assert (folder.path / "config.json").read_text() == SETTINGS.to_json()
    elite = TD3.load_checkpoint(folder.path / "elite.pt")
    assert flat(elite.state()) == flat(done.best.state())
    rows = list(csv.DictReader((folder.path / "history.csv").read_text().splitlines()))
    assert rows == [
        {name: "" if value is None else str(value) for name, value in row.items()}
        for row in done.history
    ]


def test_saving_changes_nothing(folder, done):
    before = text(done)
    folder.save(done, SETTINGS)
    assert text(done) == before


def test_a_run_has_begun_once_it_is_saved(folder):
    assert not folder.begun
    folder.save(Run(*setup()), SETTINGS)
    assert folder.begun
    folder.close()
    with closing(RunFolder(folder.path)) as other:
        other.load()
        assert not other.begun  # what is wrong with a resumed run is refused and changes nothing


def test_a_resumed_run_lives_on_the_device_that_was_asked_for(folder, done):
    folder.save(done, SETTINGS)
    folder.close()
    device = torch.device("cpu:0")  # another one than "cpu", and everywhere
    with closing(RunFolder(folder.path)) as other:
        back, _ = other.load(device)
    devices = [agent.device for agent in [*back.population, back.best]]
    assert devices == [device] * 4 and back.memory.device == device


def test_a_folder_without_a_run_says_which_file_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"no run to resume in .*: .*population\.pt is missing"):
        RunFolder(tmp_path).load()
    assert os.listdir(tmp_path) == []


def test_a_file_of_something_else_is_refused_by_name(folder, done):
    folder.save(done, SETTINGS)
    folder.close()
    path = folder.path / "population.pt"
    state = checkpoint.load(path)
    for name in state:
        checkpoint.save({key: value for key, value in state.items() if key != name}, path)
        with pytest.raises(ValueError, match=rf"cannot load .*population\.pt: .*'{name}'"):
            load(folder.path)
    make_agent().save_checkpoint(path)
    with pytest.raises(ValueError, match=r"cannot load .*population\.pt: it holds something else"):
        load(folder.path)


def narrow_memory(state):
    records = state["memory"]["records"]
    records["obs"] = records["obs"][:, :2]


def other_network(state):
    state["population"][0]["networks"]["actor"]["config"]["hidden_size"] = [9]


@pytest.mark.parametrize("damage", [narrow_memory, other_network])
def test_agents_and_memory_that_do_not_fit_together_are_refused(folder, damage, done):
    folder.save(done, SETTINGS)
    folder.close()
    state = checkpoint.load(folder.path / "population.pt")
    damage(state)
    checkpoint.save(state, folder.path / "population.pt")
    with pytest.raises(ValueError, match=r"cannot load .*population\.pt"):
        load(folder.path)


def test_a_run_of_an_environment_that_has_changed_since_is_refused_with_both_spaces(folder, done):
    folder.save(done, replace(SETTINGS, config=replace(TINY, env_id="probes:Ticking-v0")))
    folder.close()
    with pytest.raises(
        ValueError, match=r"was trained with \(Box\(-inf.*but probes:Ticking-v0 has \(Box"
    ):
        load(folder.path)


# Its folder


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    with closing(RunFolder(tmp_path)) as folder, pytest.raises(ValueError, match="is not empty"):
        folder.save(Run(*setup()), SETTINGS)
    assert os.listdir(tmp_path) == ["notes.txt"] and not folder.begun


def test_what_a_run_that_never_began_has_left_is_no_obstacle(tmp_path):
    (tmp_path / "run.lock").touch()
    (tmp_path / "population.pt.tmp").touch()
    with closing(RunFolder(tmp_path)) as folder:
        folder.save(Run(*setup()), SETTINGS)
        assert folder.begun


def test_without_a_name_a_run_takes_the_next_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "007").mkdir(parents=True)
    (tmp_path / "runs" / "best").mkdir()
    with closing(RunFolder()) as folder:
        folder.save(Run(*setup()), SETTINGS)
        assert str(folder) == str(Path("runs", "008"))


def test_two_runs_never_share_a_numbered_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [next_folder().name for _ in range(3)] == ["001", "002", "003"]
    looks = iter([[], [Path("runs/003")]])  # another run takes 001 right after the first look
    monkeypatch.setattr(Path, "glob", lambda *arguments: next(looks))
    assert next_folder().name == "004"


def test_a_link_to_nowhere_in_place_of_runs_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="runs"):
        next_folder()


LOCK = "import sys; from pathlib import Path; from tinyevo.app.runs import lock_folder; "
LOCK += "lock = lock_folder(Path(sys.argv[1])); print('locked', flush=True); input()"


def test_a_lock_keeps_other_processes_out_and_ends_with_its_process_however_that_ends(tmp_path):
    command, env = (
        [sys.executable, "-c", LOCK, str(tmp_path)],
        os.environ | {"PYTHONPATH": str(ROOT)},
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(
            ValueError, match=r"cannot be locked \(.*\): perhaps another run is writing into it"
        ):
            lock_folder(tmp_path)
        other.kill()
    with closing(lock_folder(tmp_path)):
        pass


def test_what_could_not_be_locked_is_closed(tmp_path, monkeypatch):
    connection = Mock()
    connection.executescript.side_effect = sqlite3.OperationalError("database is locked")
    monkeypatch.setattr(sqlite3, "connect", lambda *arguments, **options: connection)
    with pytest.raises(ValueError, match="database is locked"):
        lock_folder(tmp_path)
    connection.close.assert_called_once()


def test_a_run_is_locked_before_it_is_read(folder, done, monkeypatch):
    folder.save(done, SETTINGS)
    folder.close()
    read = checkpoint.load

    def read_locked(file, build):
        with pytest.raises(ValueError, match="cannot be locked"):
            lock_folder(folder.path)
        return read(file, build)

    monkeypatch.setattr(checkpoint, "load", read_locked)
    load(folder.path)


def test_a_checkpoint_that_cannot_be_written_leaves_the_other_files_and_no_run_has_begun(
    folder, done, monkeypatch
):
    def full(path, data):
        raise OSError("no space")

    with monkeypatch.context() as context:
        context.setattr(checkpoint, "write", full)
        with pytest.raises(OSError, match="no space"):
            folder.save(done, SETTINGS)
    assert not folder.begun and os.listdir(folder.path) == ["run.lock"]


def test_a_table_that_somebody_holds_open_does_not_end_the_run(folder, done, monkeypatch):
    write = checkpoint.write

    def held(path, data):
        if path.name == "history.csv":
            raise PermissionError(errno.EACCES, "Access is denied", str(path))
        write(path, data)

    with monkeypatch.context() as context:
        context.setattr(checkpoint, "write", held)
        with pytest.warns(UserWarning, match=r"history.csv'?: is it open elsewhere\?"):
            folder.save(done, SETTINGS)
    kept = "config.json", "elite.pt", "population.pt", "scenes.pt"
    assert [path.name for path in folder.files()] == sorted(kept)
    folder.save(done, SETTINGS)
    assert (folder.path / "history.csv").read_bytes() == history_csv(done.history).encode()


@pytest.mark.parametrize("place", ["", "run.lock"])
def test_what_can_only_be_read_is_not_taken_for_locked(tmp_path, monkeypatch, place):
    lock_folder(tmp_path).close()
    closed = tmp_path / place
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed)
    with pytest.raises(ValueError, match=f"^{re.escape(str(closed))} is read-only"):
        lock_folder(tmp_path)


def test_a_closed_folder_is_free_for_others(tmp_path):
    with closing(lock_folder(tmp_path)), pytest.raises(ValueError, match="cannot be locked"):
        lock_folder(tmp_path)
    lock_folder(tmp_path).close()
    with pytest.raises(ValueError, match="cannot be locked"):
        lock_folder(tmp_path / "nowhere")


def test_two_objects_of_one_folder_are_two_writers(folder, done):
    folder.save(done, SETTINGS)
    with (
        closing(RunFolder(folder.path)) as other,
        pytest.raises(ValueError, match="cannot be locked"),
    ):
        other.load()
    folder.save(done, SETTINGS)  # as often as the first one likes


def test_a_run_stays_in_its_folder_when_an_environment_goes_elsewhere(tmp_path, monkeypatch, done):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "away" / "away").mkdir(parents=True)
    with closing(RunFolder(Path("run"))) as folder:
        os.chdir("away")
        folder.save(done, SETTINGS)
        os.chdir("away")
        with folder.new_file("film.gif") as file:
            os.chdir("away")
            file.write(b"film")
        os.chdir("away")
        assert "film.gif" in [path.name for path in folder.files()]
    assert (tmp_path / "run" / "elite.pt").exists()
    assert list((tmp_path / "away").rglob("*")) == [tmp_path / "away" / "away"]


def test_a_new_file_takes_its_content_at_the_end_and_needs_no_package_that_is_missing(
    folder, capsys
):
    folder.save(Run(*setup()), SETTINGS)
    with folder.new_file("picture.png") as file:
        file.write(b"picture")
        assert not (folder.path / "picture.png").exists()
    assert (folder.path / "picture.png").read_bytes() == b"picture"
    with folder.new_file("film.gif") as file:
        file.write(b"half a film")
        raise ImportError("pip install something")
    assert capsys.readouterr().out == "no film.gif: pip install something\n"
    with pytest.raises(ZeroDivisionError), folder.new_file("film.gif") as file:
        raise ZeroDivisionError
    names = [path.name for path in folder.files()]
    assert names == ["config.json", "picture.png", "population.pt"]
