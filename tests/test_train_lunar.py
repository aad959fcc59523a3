"""The script, as a user runs it."""

import csv
import io
import json
import os
import re
import sys
from pathlib import Path

import imageio.v3 as imageio
import pytest
import torch
from script import COUNTING, SMALL, call, files, kill_group, read_until, run, start

import train_lunar
from tinyevo.evaluate import evaluate
from tinyevo.mutation import Mutations, RLParameter
from tinyevo.td3 import TD3

# Torch's MemoryError, shortened
TORCH = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
WRITTEN = {"config.json", "elite.pt", "evolution.png", "history.csv", "lander.gif", "population.pt"}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """One run of `--quick`, in a folder of its own."""
    folder = tmp_path_factory.mktemp("quick")
    return folder, run(folder, "--quick")


def test_quick_writes_every_file_into_a_numbered_folder(quick):
    folder, done = quick
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", (
        "off a terminal there is no progress bar, and a good run warns of nothing"
    )
    names = {path.name for path in (folder / "runs" / "001").iterdir()}
    assert names == {
        "config.json",
        "elite.pt",
        "evolution.png",
        "history.csv",
        "lander.gif",
        "population.pt",
        "run.lock",
    }
    for name in names - {"run.lock"}:
        assert f"runs/001/{name}" in done.stdout


def test_quick_has_three_generations_with_learning_and_mutations(quick):
    folder, _ = quick
    rows = list(csv.DictReader((folder / "runs/001/history.csv").read_text().splitlines()))
    assert [int(row["generation"]) for row in rows] == [0] * 4 + [1] * 4 + [2] * 4
    assert {row["steps"] for row in rows[-4:]} == {"4800"}
    assert any(row["mutation"] not in ("none", "elite") for row in rows)
    assert sum(row["elite"] == "True" for row in rows) == 3
    assert TD3.load_checkpoint(folder / "runs/001/elite.pt").updates > 500


def test_the_settings_are_printed_and_written(quick):
    folder, done = quick
    settings = json.loads((folder / "runs/001/config.json").read_text())
    assert settings["config"]["max_steps"] == 4800 and settings["config"]["seed"] == 0
    assert settings["tournament"]["population_size"] == 4
    for group in settings.values():
        for name in group:
            assert name in done.stdout
    assert "device: cpu" in done.stdout and "runs/001" in done.stdout


def test_a_table_for_each_generation_has_a_line_for_each_member(quick):
    _, done = quick
    tables = re.findall(
        r"generation (\d+)\n.*?id +from +mutation.*\n((?:.*\n){4})best confirmed: agent \d+",
        done.stdout,
    )
    assert [number for number, _ in tables] == ["0", "1", "2"]
    assert all(sum(line.startswith("*") for line in lines.splitlines()) == 1 for _, lines in tables)


def test_the_saved_agent_flies_the_printed_seed_to_the_printed_return(quick):
    folder, done = quick
    call = re.search(r"^evaluate\(agent, .*\)$", done.stdout, re.M)[0]
    mean, deviation = re.search(r"mean return (\S+) \+- ([\d.]+), from", done.stdout).groups()
    agent = TD3.load_checkpoint(folder / "runs/001/elite.pt")
    returns = eval(call, {"evaluate": evaluate, "agent": agent})
    assert f"{returns.mean():.2f}" == mean and f"{returns.std():.2f}" == deviation


def test_the_gif_shows_seven_episodes_and_their_returns_are_printed(quick):
    folder, done = quick
    returns = re.search(r"returns of 7 whole episodes rendered: (.*)", done.stdout)[1].split(", ")
    assert len([float(value) for value in returns]) == 7
    assert imageio.improps(folder / "runs/001/lander.gif", index=...).n_images > 70


def test_the_number_of_workers_does_not_change_a_bit(tmp_path):
    for workers in ("1", "2"):
        done = run(tmp_path, *COUNTING, "--workers", workers, "--out", workers)
        assert done.returncode == 0, done.stderr
    for name in ("history.csv", "elite.pt", "config.json", "population.pt"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert len((tmp_path / "1" / "history.csv").read_text().splitlines()) == 1 + 3 * 3


def test_a_run_goes_on_with_more_steps_as_if_it_had_always_had_them(tmp_path):
    assert run(tmp_path, *COUNTING, "--max-steps", "160", "--out", "run").returncode == 0
    done = run(tmp_path, "--resume", "run", "--max-steps", "240", "--workers", "1", "--no-gif")
    assert done.returncode == 0 and "resumed after generation 1" in done.stdout
    assert run(tmp_path, *COUNTING, "--out", "straight").returncode == 0
    assert files(tmp_path / "run") == files(tmp_path / "straight")


def test_each_generation_is_shown_at_once_through_a_pipe(tmp_path):
    script = start(tmp_path, *COUNTING, "--max-steps", "1e9", "--out", "run")
    read_until(script, "best confirmed")
    assert script.poll() is None
    kill_group(script)
    script.communicate()


def test_two_runs_never_share_a_numbered_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [train_lunar.make_folder(None).name for _ in range(3)] == ["001", "002", "003"]
    looks = iter([[], [Path("runs/003")]])  # another run takes 001 right after the first look
    monkeypatch.setattr(Path, "glob", lambda *arguments: next(looks))
    assert train_lunar.make_folder(None).name == "004"


def test_a_link_to_nowhere_in_place_of_runs_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="runs"):
        train_lunar.make_folder(None)


def test_it_runs_where_standard_output_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # as in IDLE
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, "--max-steps", "0")


def test_a_seed_is_read_to_the_last_digit():
    assert train_lunar.number("9007199254740993") == 9007199254740993
    assert train_lunar.number("1e6") == 1_000_000 and type(train_lunar.number("1e6")) is int
    assert train_lunar.number("1.5") == 1.5


def test_flags_win_over_quick_and_folders_are_numbered_on(tmp_path):
    (tmp_path / "runs" / "007").mkdir(parents=True)
    done = run(
        tmp_path,
        *SMALL,
        "--env",
        "probes:Aim-v0",
        "--num-envs",
        "4",
        "--seed",
        "5",
        "--target=-1e6",
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "runs/008/config.json").read_text())["config"]
    assert (config["max_steps"], config["num_envs"], config["seed"], config["eval_steps"]) == (
        240,
        4,
        5,
        200,
    )
    assert len((tmp_path / "runs/008/history.csv").read_text().splitlines()) == 1 + 4, (
        "the target ends the run"
    )
    assert not (tmp_path / "runs/008/lander.gif").exists()


@pytest.mark.parametrize(
    "name, space, words",
    [
        ("lr", RLParameter(1e-4, 1e-2), "'lr'"),
        ("gamma", RLParameter(0.9, 1.5), "gamma must be"),
        ("batch_size", RLParameter(8, 512), "batch_size must be"),
    ],
)
def test_a_search_space_that_leads_nowhere_is_refused_at_once(
    tmp_path, monkeypatch, capsys, name, space, words
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_lunar, "MUTATIONS", Mutations(hp_space={name: space}))
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch)
    assert words in capsys.readouterr().err and os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "error", [MemoryError("no more"), torch.OutOfMemoryError("no more"), RuntimeError(TORCH)]
)
def test_memory_that_runs_out_is_answered_with_one_line_whoever_asked_for_it(
    tmp_path, monkeypatch, capsys, error
):
    assert stopped_by(error, tmp_path, monkeypatch) == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"stopped: {error}; go on with: python ") and errors.count("\n") == 1


def test_a_mistake_in_the_code_keeps_its_traceback(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="shapes"):
        stopped_by(RuntimeError("shapes cannot be multiplied"), tmp_path, monkeypatch)


def stopped_by(error, folder, monkeypatch):
    """The exit status of the script if training raises this."""

    def fail(*arguments):
        raise error

    monkeypatch.setattr(train_lunar, "train", fail)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, "--quick", "--workers", "1", "--out", str(folder / "run"))
    return stopped.value.code


def test_a_mistake_ends_the_process_with_status_2_too(tmp_path):
    done = run(tmp_path, "--env", "LunarLanderContinuous-v2")
    assert (
        done.returncode == 2 and len(done.stderr.splitlines()) == 1 and os.listdir(tmp_path) == []
    )


def test_help_shows_every_flag_and_its_default(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="0"):
        call(monkeypatch, "--help")
    text = capsys.readouterr().out
    flags = [
        "env",
        "seed",
        "device",
        "workers",
        "pop-size",
        "num-envs",
        "max-steps",
        "evo-steps",
        "target",
        "out",
    ]
    flags += ["resume", "no-gif", "quick"]
    for flag in flags:
        assert re.search(rf"--{flag}\b[^-]*?\(default:", text, re.S), flag
