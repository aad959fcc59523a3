"""The command line: flags, one line for every fault, and what a run that is stopped says."""

import csv
import io
import os
import re
import shutil
import signal
import sys
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import probes
import pytest
import torch
from script import COUNTING, STOPS, call, exit_status, files, undisturbed
from test_checkpoint import FOREIGN

import train_lunar
from tinyevo import checkpoint
from tinyevo.app import cli
from tinyevo.app.runs import NetworkSettings, RunFolder, Settings
from tinyevo.app.workers import stops_handled_by
from tinyevo.td3 import HyperParams

# Torch's MemoryError, shortened
TORCH = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
HINT = "resume with: python train_lunar.py --resume run --workers=1 --no-gif\n"
RUN = [*COUNTING, "--workers", "1", "--out", "run"]
RESUME = ["--resume", "run", "--no-gif", "--workers", "1"]
FLAGS = [
    *["env", "seed", "device", "workers", "pop-size", "num-envs", "max-steps", "evo-steps"],
    *["target", "out", "resume", "no-gif", "quick", "settings", "memory-size", "cluster"],
    "track",
]
AT_0 = ["--target", "0"]
COMMAND_LINES = [
    (["--env", "LunarLanderContinuous-v2"], "no environment 'LunarLanderContinuous-v2' here: "),
    (["--env", "LunarLander-v3"], "TD3 needs actions that are vectors, not Discrete(4)"),
    (["--env", "Nonsense-v0"], "there is no environment 'Nonsense-v0' here: "),
    (["--env", "nonsense:Nonsense-v0"], "no environment 'nonsense:Nonsense-v0' here: "),
    (["--env", ""], "there is no environment '' here: "),
    (["--env", "x" * 5000], "there is no environment 'xxx"),
    (["--env", "probes:Quitting-v0"], "there is no environment 'probes:Quitting-v0' here: "),
    ([*AT_0, "--env", "probes:Vast-v0", "--no-gif"], "whose difference fits into float32"),
    ([*AT_0, "--env", "probes:Aim-v0"], "cannot be rendered: add --no-gif"),
    ([*AT_0, "--env", "probes:Buttons-v0", "--no-gif"], "are vectors, not Discrete(3)"),
    ([*AT_0, "--env", "probes:Unbounded-v0", "--no-gif"], "actions with finite bounds whose"),
    ([*AT_0, "--env", "probes:Listed-v0", "--no-gif"], "observations that are vectors"),
    (["--env", "Pendulum-v1"], "Pendulum-v1 has no reward_threshold: choose a target (--target)"),
    (["--quick", "--env", "probes:Aim-v0"], "probes:Aim-v0 has no reward_threshold: choose a"),
    (["--env", "CarRacing-v3", "--memory-size", "1e9"], "GB, and this machine has"),
    (["a word\nand another"], "unrecognized arguments: a word and another"),
    (["--env"], "--env"),
    (["--device", "cuda:99"], "--device cuda:99 is not available"),
    (["--device", "meta"], "--device meta is not available"),
    (["--device", "toaster"], "--device toaster is not available"),
    (["--device", "0.5"], "--device 0.5 is not available"),
    (["--device", "hpu"], "--device hpu is not available"),
    (["--device", "xla"], "--device xla is not available"),
    (["--device", ""], "--device"),
    (["--seed", "-1"], "seed must be a whole number from 0 to inf, not -1"),
    (["--seed", "0.5"], "seed must be a whole number from 0 to inf, not 0.5"),
    (["--seed", "x"], "--seed"),
    (["--seed", "nan"], "seed must be"),
    (["--seed", "inf"], "seed must be"),
    (["--seed", ""], "--seed"),
    (["--max-steps", "0"], "max_steps must be a whole number from 4 to inf, not 0"),
    (["--max-steps", "3"], "max_steps must be a whole number from 4 to inf, not 3"),
    (["--max-steps=-1e6"], "max_steps"),
    (["--max-steps", "8.5"], "max_steps"),
    (["--max-steps", "many"], "--max-steps"),
    (["--max-steps", "nan"], "max_steps"),
    (["--max-steps", "inf"], "max_steps"),
    (["--max-steps", "1e999"], "max_steps"),
    (["--max-steps", ""], "--max-steps"),
    (["--evo-steps", "0"], "evo_steps must be a whole number from 4 to inf, not 0"),
    (["--evo-steps", "-8"], "evo_steps"),
    (["--evo-steps", "0.5"], "evo_steps"),
    (["--evo-steps", "nan"], "evo_steps"),
    (["--evo-steps", "inf"], "evo_steps"),
    (["--evo-steps", "ten"], "--evo-steps"),
    (["--num-envs", "0"], "num_envs must be a whole number from 1 to 1000, not 0"),
    (["--num-envs", "-1"], "num_envs"),
    (["--num-envs", "1.5"], "num_envs"),
    (["--num-envs", "1e9"], "num_envs must be a whole number from 1 to 1000, not 1000000000"),
    (["--num-envs", "inf"], "num_envs"),
    (["--num-envs", "nan"], "num_envs"),
    (["--num-envs", "some"], "--num-envs"),
    (["--pop-size", "0"], "population_size must be a whole number from 1 to 1000, not 0"),
    (["--pop-size", "-4"], "population_size"),
    (["--pop-size", "2.5"], "population_size"),
    (["--pop-size", "1e9"], "population_size must be a whole number from 1 to 1000"),
    (["--pop-size", "nan"], "population_size"),
    (["--pop-size", "inf"], "population_size"),
    (["--pop-size", "four"], "--pop-size"),
    (["--workers", "0"], "--workers must be a whole number of at least 1, not 0"),
    (["--workers", "-2"], "--workers"),
    (["--workers", "1.5"], "--workers"),
    (["--workers", "nan"], "--workers"),
    (["--workers", "inf"], "--workers"),
    (["--workers", "all"], "--workers"),
    *[
        (["--cluster", text], f"--cluster must be like host:8786 or local:4, not '{text}'")
        for text in ("", "local:", "local:0", "local:x", "local:-1", "host", "host:x", ":8786")
    ],
    (["--track", "mlflow"], "invalid choice: 'mlflow' (choose from "),
    (["--cluster", "local:2", "--workers", "2"], "--workers and --cluster exclude each other: a"),
    (["--target", "nan"], "target must be None or a number from -1e9 to 1e9, not nan"),
    (["--target=-inf"], "target must be None or a number"),
    (["--target", "high"], "--target"),
    (["--target", ""], "--target"),
    (["--targ", "5"], "--targ"),
    (["--settings", "nowhere.json"], "No such file or directory: 'nowhere.json'"),
    (["--settings", "full"], "full"),
    (["--settings", "file"], "--settings file: Expecting value"),
    (["--settings", "full/history.csv"], "--settings full/history.csv: Expecting value"),
    (["--settings", ""], "--settings"),
    (["--out", "full"], "full is not empty"),
    (["--out", "file"], "file"),
    (["--out", "file/run"], "file"),
    (["--out", "x" * 5000], "name too long"),
    (["--out", ""], "--out"),
    (["--resume", "full"], "full/population.pt is missing"),
    (["--resume", "file"], "file/population.pt is missing"),
    (["--resume", "nowhere"], "nowhere/population.pt is missing"),
    (["--resume", ""], "--resume"),
    (["--resume", "full", "--out", "x"], "--out and --resume exclude each other: a run keeps its"),
    (["--resume", "full", "--settings", "x"], "--settings and --resume exclude each other: a run"),
    (["--quick=1"], "--quick"),
    (["--no-gif", "no"], "no"),
    (["surprise"], "surprise"),
    ([""], "unrecognized"),
]


@pytest.fixture(autouse=True, scope="module")
def swift():
    """Let `--quick` take a fraction of a second."""
    page = train_lunar.QUICK
    config = replace(page.config, eval_episodes=2, confirm_episodes=3)
    hp = replace(page.hp, batch_size=8, learn_step=8)
    with pytest.MonkeyPatch.context() as context:
        quick = Settings(config, NetworkSettings((8,)), hp, page.tournament, page.mutations)
        context.setattr(train_lunar, "QUICK", quick)
        page = replace(quick, config=train_lunar.SETTINGS.config)
        context.setattr(train_lunar, "SETTINGS", page)
        context.setattr(train_lunar, "plot_evolution", draft)
        yield


def draft(history, file, picture, space):
    """A picture that takes no time."""
    file.write(f"{history} {picture} {space}".encode())


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def straight(tmp_path_factory, swift):
    """The folder of a run of three generations that nobody disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        call(monkeypatch, *RUN)
    return folder / "run"


@pytest.fixture
def begun(straight, here):
    """The same, as `run` in the working folder."""
    shutil.copytree(straight, here / "run")
    return here / "run"


# Flags


def test_a_number_is_read_to_its_last_digit():
    assert cli.number("9007199254740993") == 9007199254740993
    assert cli.number("1e6") == 1_000_000 and type(cli.number("1e6")) is int
    assert cli.number("1.5") == 1.5


@pytest.mark.parametrize("arguments, words", COMMAND_LINES)
def test_a_wrong_command_line_gets_one_line_exit_status_2_and_writes_nothing(
    here, monkeypatch, capsys, arguments, words
):
    (here / "full").mkdir()
    (here / "full" / "history.csv").write_text("precious")
    (here / "file").write_text("precious")
    assert exit_status(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("train_lunar.py: ")
    assert captured.err.count("\n") == 1 and words in captured.err
    assert sorted(os.listdir(here)) == ["file", "full"]
    assert os.listdir(here / "full") == ["history.csv"]
    assert (here / "full" / "history.csv").read_text() == "precious"
    assert (here / "file").read_text() == "precious"


def test_help_shows_every_flag_and_its_default(monkeypatch, capsys):
    assert exit_status(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    assert set(re.findall(r"--([\w-]+)", text)) == {*FLAGS, "help"}
    for flag in FLAGS:
        assert re.search(rf"--{flag}\b[^-]*?\(default:", text, re.S), flag
    quick = "max_steps 2400, evo_steps 800, updates_for own, memory_size 10000"
    assert quick in " ".join(text.split())


@pytest.fixture(autouse=True)
def every_extra(monkeypatch):
    """Let the command line find the packages of all extras that no test takes away."""
    there = SimpleNamespace(origin="somewhere")
    monkeypatch.setattr(cli, "find_spec", lambda name: sys.modules.get(name, name) and there)


def options(flags, settings=None, folder=None):
    """What flags mean for the page's settings."""
    settings = settings or train_lunar.SETTINGS
    return cli.read_options({"no_gif": True} | flags, settings, train_lunar.QUICK, folder)


def test_without_flags_a_run_has_the_settings_of_the_page():
    assert options({}).settings == train_lunar.SETTINGS
    assert options({"quick": True}).settings == train_lunar.QUICK
    assert options({}).resumed is None and options({}).device == torch.device("cpu")


def test_flags_win_over_quick():
    settings = options({"quick": True, "evo_steps": 800, "population_size": 6}).settings
    config = replace(train_lunar.QUICK.config, evo_steps=800)
    tournament = replace(train_lunar.QUICK.tournament, population_size=6)
    assert settings == replace(train_lunar.QUICK, config=config, tournament=tournament)


def test_quick_changes_settings_of_every_group():
    page = train_lunar.SETTINGS
    mutations = replace(page.mutations, activation=0.5)
    quick = replace(page, network=NetworkSettings((8,)), mutations=mutations)
    assert cli.read_options({"quick": True, "no_gif": True}, page, quick, None).settings == quick


WALKER = {"env_id": "probes:Capped-v0", "seed": 5, "target": 3.0, "train_episode_steps": 3}


@pytest.fixture
def walker(here):
    """A file of settings of which the page has hardly one."""
    page = replace(train_lunar.SETTINGS, hp=HyperParams(gamma=0.5)).changed(WALKER)
    (here / "walker.json").write_text(page.to_json())
    return page


def test_a_file_replaces_the_settings_of_the_page_and_quick_and_flags_win_over_it(walker, here):
    flags = {"settings": here / "walker.json"}
    assert options(flags).settings == walker
    changes = {"seed": 6, "target": 2.0, "population_size": 9}
    assert options(flags | changes).settings == walker.changed(changes)
    lengths = {name: new for name, _, new in train_lunar.SETTINGS.differences(train_lunar.QUICK)}
    assert lengths["train_episode_steps"] == 200 and "env_id" not in lengths
    assert options(flags | {"quick": True}).settings == walker.changed(lengths)
    both = flags | changes | {"quick": True, "max_steps": 4000}
    assert options(both).settings == walker.changed(lengths | changes | {"max_steps": 4000})


def test_the_settings_that_a_run_wrote_begin_the_same_run_again(begun, straight, monkeypatch):
    arguments = ["--no-gif", "--workers", "1", "--out", "again"]
    call(monkeypatch, "--settings", "run/config.json", *arguments)
    assert files(begun.with_name("again")) == files(straight)


def test_another_environment_has_a_target_of_its_own_and_its_own_limit_of_an_episode(walker, here):
    capped = options({"env_id": "probes:Capped-v0"}).settings.config
    assert (capped.target, capped.train_episode_steps) == (2.5, None)
    quick = options({"env_id": "probes:Capped-v0", "quick": True}).settings.config
    assert (quick.target, quick.train_episode_steps) == (2.5, 200)
    chosen = options({"env_id": "probes:Capped-v0", "target": 9.0}).settings.config
    assert (chosen.target, chosen.train_episode_steps) == (9.0, None)
    flags = {"settings": here / "walker.json", "env_id": "LunarLanderContinuous-v3"}
    lander = options(flags).settings.config
    assert (lander.target, lander.train_episode_steps, lander.seed) == (200, None, 5)
    same = options({"env_id": "LunarLanderContinuous-v3"}).settings
    assert same == train_lunar.SETTINGS


def test_a_target_that_a_file_leaves_open_is_the_environments_own(walker, here):
    (here / "open.json").write_text(walker.changed({"target": None}).to_json())
    config = options({"settings": here / "open.json"}).settings.config
    assert config == replace(walker.config, target=2.5)


@pytest.mark.parametrize(
    "write, words",
    [
        (lambda text: text.replace('"gamma"', '"surprise"'), "settings.hp lacks gamma"),
        (lambda text: text.replace('"seed": 5', '"seed": "5"'), "settings.config.seed must be int"),
        (lambda text: text.replace("0.5", "2", 1), "gamma must be a number from 0 to 1, not 2"),
        (lambda text: text.replace('"target": 3.0', '"target": NaN'), "target must be None or a"),
        (lambda text: text[:99], "Expecting"),
        (lambda text: "[" * 100_000, "recursion"),
        (lambda text: "5", "settings must hold config, network, hp, tournament, mutations"),
        (lambda text: "\x00", "Expecting value"),
        (lambda text: "\udcff", "decode byte 0xff"),
    ],
)
def test_a_damaged_or_foreign_file_of_settings_is_refused_by_name_in_one_line(
    walker, here, monkeypatch, capsys, write, words
):
    text = write(walker.to_json())
    (here / "file.json").write_bytes(text.encode(errors="surrogateescape"))
    assert exit_status(monkeypatch, "--settings", "file.json") == 2
    error = capsys.readouterr().err
    assert error.startswith("train_lunar.py: --settings file.json: ") and words in error
    assert error.count("\n") == 1 and sorted(os.listdir(here)) == ["file.json", "walker.json"]


def test_there_are_never_more_workers_than_members_nor_than_windows_can_wait_for(monkeypatch):
    assert options({"workers": 3}).workers == 3
    assert options({"workers": 9}).workers == 4
    assert options({"workers": 99, "population_size": 100}).workers == 61
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert options({}).workers == 2
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert options({}).workers == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(cli, "find_device", torch.device)
    assert options({"device": "cuda"}).workers == 1  # they would all need its memory


def test_a_cluster_has_workers_of_its_own():
    assert options({"cluster": "tcp://host:8786"}).workers == "tcp://host:8786"
    assert options({"cluster": "local:4"}).workers == "local:4"


def test_the_memory_is_checked_for_the_workers_that_are_on_this_machine(monkeypatch):
    checked = []
    monkeypatch.setattr(cli, "check_memory", lambda count, *_: checked.append(count))
    for flags in ({"workers": 3}, {"cluster": "local:4"}, {"cluster": "tcp://host:8786"}):
        options(flags)
    assert checked == [3, 4, 0]


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match="--cluster needs an extra: pip install distributed"):
        options({"cluster": "local:4"})
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="--track needs an extra: pip install wandb"):
        options({"track": "wandb"})


def test_a_folder_that_is_called_as_a_package_is_not_taken_for_it(tmp_path, monkeypatch):
    (tmp_path / "a_tracker").mkdir()  # as W&B leaves one where it was used
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cli, "find_spec", find_spec)
    with pytest.raises(ValueError, match="--track needs an extra: pip install a_tracker"):
        cli.check_extra("track", "a_tracker")


def test_no_gif_renders_nothing_and_needs_no_environment_that_can():
    assert not options({"env_id": "probes:Aim-v0", "target": 0.0}).film
    flags = {"env_id": "LunarLanderContinuous-v3"}
    assert cli.read_options(flags, train_lunar.SETTINGS, train_lunar.QUICK, None).film


def test_the_hint_is_a_command_that_a_shell_reads_back_whatever_the_name_of_the_folder(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["my folder/train_lunar.py"])
    monkeypatch.setattr(os, "name", "posix")
    hint = cli.resume_hint("it's mine", {"device": "cuda", "no_gif": True})
    command = "'my folder/train_lunar.py' --resume 'it'\"'\"'s mine' --device=cuda --no-gif"
    assert hint == f"resume with: python {command}"
    hint = cli.resume_hint("run", {"track": "wandb", "cluster": "host:8786"})
    assert hint.endswith("--resume run --cluster=host:8786 --track=wandb")
    assert cli.resume_hint("run", {"workers": 1}).endswith("--resume run --workers=1")
    assert "--resume ./-x" in cli.resume_hint("-x", {}), "a flag"


# Where it runs


def test_it_runs_where_standard_output_is_no_file(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # as in IDLE
    assert exit_status(monkeypatch, "--max-steps", "0") == 2


def test_it_runs_where_standard_output_and_error_are_closed(here, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    call(monkeypatch, *RUN, "--max-steps", "80")
    sys.stdout.close()
    sys.stderr.close()
    assert (here / "run" / "elite.pt").exists()


def test_a_folder_of_any_name_can_be_printed(here, monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    call(monkeypatch, *RUN[:-1], "日本", "--max-steps", "80")
    assert b"output: \\u65e5\\u672c\n" in narrow.buffer.getvalue()


def test_when_it_ends_ctrl_c_and_sigterm_do_what_they_did_before(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_lunar.py", "--workers", "0"])
    with undisturbed():
        for number in STOPS:
            signal.signal(number, mine)
        with pytest.raises(SystemExit):
            cli.run_program(train_lunar.main, train_lunar.SETTINGS, train_lunar.QUICK)
        assert [signal.getsignal(number) for number in STOPS] == [mine, mine]


def mine(number, frame):
    """The handler of whoever calls the program, such as a notebook."""


def test_during_the_slow_imports_ctrl_c_ends_the_script_but_no_program_that_imports_it(monkeypatch):
    before_the_imports, _ = Path(cli.__file__).read_text().split("import argparse")

    def handler():
        with undisturbed():
            signal.signal(signal.SIGINT, mine)
            exec(before_the_imports, {})
            return signal.getsignal(signal.SIGINT)

    monkeypatch.setattr(sys, "argv", ["somewhere/train_lunar.py"])
    assert handler() is signal.SIG_DFL
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)  # a notebook's %run
    assert handler() is mine
    monkeypatch.delattr(sys, "ps1")
    monkeypatch.setattr(sys, "argv", ["other.py"])
    assert handler() is mine


# Stopping


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_before_the_run_has_begun_says_stopped_and_no_more(
    here, monkeypatch, capsys, number
):
    monkeypatch.setattr(train_lunar, "find_spaces", lambda env_id: signal.raise_signal(number))
    assert exit_status(monkeypatch, *RUN) == 128 + number
    assert capsys.readouterr() == ("", "stopped\n") and os.listdir(here) == []


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_as_early_as_the_program_answers_it_says_stopped(monkeypatch, capsys, number):
    monkeypatch.setattr(cli, "plain_warnings", lambda: signal.raise_signal(number))
    assert exit_status(monkeypatch, *RUN) == 128 + number
    assert capsys.readouterr() == ("", "stopped\n")


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_in_a_run_names_the_command_that_resumes_it(
    here, straight, monkeypatch, capsys, number
):
    with monkeypatch.context() as context:
        context.setattr(train_lunar, "show_generation", lambda *_: signal.raise_signal(number))
        assert exit_status(context, *RUN) == 128 + number
    assert capsys.readouterr().err == f"stopped; {HINT}"
    call(monkeypatch, *RESUME)
    assert files(here / "run") == files(straight)


def test_a_second_signal_does_not_disturb_the_end(monkeypatch):
    def twice(env_id):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(train_lunar, "find_spaces", twice)
    assert exit_status(monkeypatch, *RUN) == 128 + signal.SIGINT


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_that_an_environment_swallows_is_not_the_last_that_is_heard(monkeypatch, number):
    times = [100.0]
    monkeypatch.setattr(cli.time, "monotonic", lambda: times[-1])
    with stops_handled_by(cli.interrupt):
        for later in (0, 20, 20):
            times.append(times[-1] + later)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            for other in STOPS:
                signal.raise_signal(other)


# Faults


@pytest.mark.parametrize(
    "fault, words",
    [
        ("raise", "raised RuntimeError('the engine is on fire')"),
        ("exit", "raised SystemExit(3)"),
        ("reward nan", "returned the reward nan"),
        ("list", "said that its reward has shape (), but returned (1,)"),
        ("observation inf", "returned the observation ["),
        ("shape", "said that its observation has shape (3,), but returned (2,)"),
    ],
)
def test_an_environment_that_fails_is_named_and_once_repaired_the_run_resumes(
    here, straight, monkeypatch, capsys, fault, words
):
    faulty = [*RUN, "--env", "probes:Faulty-v0"]
    (here / "fault").write_text(fault)
    assert exit_status(monkeypatch, *faulty) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"stopped: the environment Faulty-v0 {words}")
    assert error.endswith(f" in step 4 of an episode; {HINT}") and error.count("\n") == 1
    (here / "fault").unlink()
    call(monkeypatch, *RESUME)
    for name in ("history.csv", "elite.pt"):
        assert (here / "run" / name).read_bytes() == (straight / name).read_bytes()


def test_an_environment_that_raises_a_keyboard_interrupt_stops_the_run_as_ctrl_c_does(
    here, monkeypatch, capsys
):
    (here / "fault").write_text("interrupt")
    assert exit_status(monkeypatch, *RUN, "--env", "probes:Faulty-v0") == 130
    assert capsys.readouterr().err == f"stopped; {HINT}"


def test_a_fault_that_takes_many_lines_is_told_in_one(monkeypatch, capsys):
    assert exit_status(monkeypatch, *RUN, "--env", "probes:Wide-v0") == 1
    error = capsys.readouterr().err
    assert error.startswith("stopped: the environment Wide-v0 returned the observation [nan nan ")
    assert (
        error.endswith(f"nan], not finite in float32, in step 1 of an episode; {HINT}")
        and error.count("\n") == 1
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no more"),
        torch.OutOfMemoryError("no more"),
        RuntimeError(TORCH),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        type("AcceleratorError", (RuntimeError,), {})("CUDA error: out of memory"),
        RuntimeError("can't start new thread"),
        ValueError("I/O operation on closed file."),
        OSError("no space"),
        gym.error.Error("a fault"),
        UserWarning("of short slices"),
        type("UsageError", (Exception,), {"__module__": "wandb.errors"})("no key"),
    ],
)
def test_a_fault_of_the_surroundings_is_answered_with_one_line(monkeypatch, capsys, error):
    assert stopped_by(error, monkeypatch) == 1
    assert capsys.readouterr().err == f"stopped: {error}; {HINT}"


def test_a_fault_without_words_is_named_by_its_kind(monkeypatch, capsys):
    assert stopped_by(MemoryError(), monkeypatch) == 1  # as Python raises it
    assert capsys.readouterr().err == f"stopped: MemoryError; {HINT}"


def test_a_worker_that_died_is_answered_with_what_may_help(monkeypatch, capsys):
    assert stopped_by(cli.BrokenProcessPool("abruptly"), monkeypatch) == 1
    words = "a worker process died, perhaps for lack of memory (--workers 1 needs less)"
    assert capsys.readouterr().err == f"stopped: {words}; {HINT}"


def test_a_run_whose_members_all_diverged_is_not_resumed_but_looked_at(monkeypatch, capsys):
    assert stopped_by(FloatingPointError("all members diverged"), monkeypatch) == 1
    assert capsys.readouterr().err == "stopped: all members diverged; results so far are in run\n"


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, TypeError, KeyError])
def test_a_mistake_in_the_code_keeps_its_traceback(monkeypatch, kind):
    with pytest.raises(kind, match="shapes"):
        stopped_by(kind("shapes cannot be multiplied"), monkeypatch)


def stopped_by(error, monkeypatch):
    """The exit status of the script if training raises this."""

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(train_lunar, "train", fail)
    return exit_status(monkeypatch, *RUN)


# Resuming


def test_a_finished_run_says_so_and_nothing_changes(begun, straight, monkeypatch, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in begun.iterdir()}
    call(monkeypatch, *RESUME)
    words = "this run is finished; a larger --max-steps continues it\n"
    assert words in capsys.readouterr().out
    assert files(begun) == files(straight)
    assert {path.name: path.stat().st_mtime_ns for path in begun.iterdir()} == before


def test_what_follows_from_the_checkpoint_is_made_again(begun, straight, monkeypatch):
    (begun / "history.csv").write_text("somebody's notes")
    (begun / "elite.pt").unlink()
    (begun / "family.png").unlink()
    call(monkeypatch, *RESUME)
    assert files(begun) == files(straight)


def test_a_run_resumes_with_more_steps_as_if_it_had_always_had_them(
    here, straight, monkeypatch, capsys
):
    call(monkeypatch, *RUN, "--max-steps", "160")
    call(monkeypatch, *RESUME, "--max-steps", "240")
    assert "resumed after generation 1, best confirmed mean return " in capsys.readouterr().out
    assert files(here / "run") == files(straight)


def test_a_target_that_has_been_reached_ends_the_run_and_a_larger_one_resumes_it(
    here, straight, monkeypatch
):
    call(monkeypatch, *RUN, "--target=-1e6")
    rows = list(csv.DictReader((here / "run" / "history.csv").read_text().splitlines()))
    assert {row["generation"] for row in rows} == {"0"}
    call(monkeypatch, *RESUME, "--target", "200")
    assert files(here / "run") == files(straight)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--seed", "7"], "the run in run has seed 0, it cannot resume with 7"),
        (["--pop-size", "5"], "the run in run has population_size 3, it cannot resume with 5"),
        (["--env", "Nonsense-v0"], "has env_id probes:Counting-v0, it cannot resume with Nonsense"),
        (["--num-envs", "8"], "the run in run has num_envs 4, it cannot resume with 8"),
        (["--evo-steps", "88"], "the run in run has evo_steps 80, it cannot resume with 88"),
        (["--quick"], "the run in run has evo_steps 80, it cannot resume with 800"),
        (["--max-steps", "80"], "the run in run has flown 240 steps, over max_steps 80"),
        (["--max-steps", "inf"], "max_steps must be a whole number"),
        (["--workers", "0"], "--workers must be"),
        (["--device", "cuda:99"], "--device cuda:99 is not available"),
    ],
)
def test_a_run_that_is_resumed_with_something_else_is_refused(
    begun, straight, monkeypatch, capsys, arguments, words
):
    assert words in refused(monkeypatch, capsys, *arguments)
    assert files(begun) == files(straight)


def refused(monkeypatch, capsys, *arguments):
    """The one line with which the script refuses to resume a run."""
    assert exit_status(monkeypatch, *RESUME, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_a_film_of_pictures_that_fail_is_refused_before_the_training(monkeypatch, capsys):
    monkeypatch.setattr(probes.Spot, "render", lambda self: np.zeros((8, 8)))
    arguments = ["--env", "probes:Spot-v0", "--target", "1", "--out", "new"]
    assert exit_status(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert "uint8, not of (8, 8) float64: add --no-gif" in error and error.count("\n") == 1
    assert not Path("new").exists()


def test_a_film_of_what_cannot_be_rendered_is_refused(begun, monkeypatch, capsys):
    assert exit_status(monkeypatch, "--resume", "run") == 2
    words = "--env probes:Counting-v0 cannot be rendered: add --no-gif"
    assert capsys.readouterr().err == f"train_lunar.py: {words}\n"


def test_a_run_of_an_environment_that_has_changed_since_is_refused(begun, monkeypatch, capsys):
    change_settings(begun, lambda text: text.replace("Counting-v0", "Ticking-v0"))
    error = refused(monkeypatch, capsys)
    assert "the run in run was trained with (Box(-inf, inf, (3,)" in error
    assert "but probes:Ticking-v0 has (Box(-1.0, 1.0, (1,)" in error


def change_settings(folder, change):
    """Rewrite the settings in a run's checkpoint."""
    state = checkpoint.load(folder / "population.pt")
    checkpoint.save(state | {"settings": change(state["settings"])}, folder / "population.pt")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda text: "{}", "settings lacks config"),
        (lambda text: text.replace('"gamma"', '"surprise"'), "settings.hp lacks gamma"),
        (lambda text: text.replace('"gamma": 0.99', '"gamma": 2'), "gamma must be a number"),
        (lambda text: text[:-9], "Expecting"),
        (lambda text: {"config": {}}, "it holds something else"),
    ],
)
def test_a_run_whose_settings_are_not_of_this_program_is_refused(
    begun, monkeypatch, capsys, change, words
):
    change_settings(begun, change)
    error = refused(monkeypatch, capsys)
    assert error.startswith("train_lunar.py: cannot load run/population.pt: ") and words in error


@pytest.mark.parametrize("write", FOREIGN)
def test_a_foreign_checkpoint_is_refused_with_one_line_untouched(here, monkeypatch, capsys, write):
    (here / "run").mkdir()
    write(here / "run" / "population.pt")
    before = files(here / "run")
    assert "cannot load run/population.pt: " in refused(monkeypatch, capsys)
    assert files(here / "run") == before and os.listdir(here) == ["run"]


@pytest.mark.parametrize(
    "form, version",
    [("tinyevo-1", "tinyevo 0.1.0"), ("tinyevo-99", "another version of tinyevo")],
)
def test_a_run_of_another_version_is_refused_naming_it(begun, monkeypatch, capsys, form, version):
    state = checkpoint.load(begun / "population.pt")
    with monkeypatch.context() as context:
        context.setattr(checkpoint, "FORMAT", form)
        checkpoint.save(state, begun / "population.pt")
    formats = f"its format is '{form}', of {version}; this version reads 'tinyevo-2'"
    expected = f"train_lunar.py: cannot load run/population.pt: {formats}\n"
    assert refused(monkeypatch, capsys) == expected


def test_a_folder_in_which_another_run_writes_is_refused(begun, straight, monkeypatch, capsys):
    other = RunFolder(begun)
    run, settings = other.load()
    other.save(run, settings)
    error = refused(monkeypatch, capsys)
    assert error.startswith("train_lunar.py: run cannot be locked (")
    assert error.endswith("): perhaps another run is writing into it\n")
    assert exit_status(monkeypatch, *RUN) == 2
    words = "run is not empty: it has config.json, and no run is overwritten"
    assert words in capsys.readouterr().err
    other.close()
    call(monkeypatch, *RESUME)
    assert files(begun) == files(straight)


def test_a_run_is_resumed_on_the_device_that_was_asked_for(begun):
    flags = {"resume": begun, "device": "cpu:0"}
    with closing(RunFolder(begun)) as folder:
        resumed = options(flags, folder=folder).resumed
    devices = {agent.device for agent in [*resumed.population, resumed.best]}
    assert devices == {resumed.memory.device} == {torch.device("cpu:0")}


def test_the_program_takes_one_thread_of_torch():
    torch.set_num_threads(3)
    try:
        with undisturbed():
            cli.prepare_process()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)


def test_the_default_that_help_shows_is_that_of_the_page(monkeypatch, capsys):
    exit_status(monkeypatch, "--help")
    text = " ".join(capsys.readouterr().out.split())
    page = train_lunar.SETTINGS
    expected = {name: getattr(page.config, name) for name in ("seed", "num_envs", "max_steps")}
    expected |= {name: getattr(page.config, name) for name in ("evo_steps", "memory_size")}
    expected |= {"env": page.config.env_id, "pop_size": page.tournament.population_size}
    for name, value in expected.items():
        flag = name.replace("_", "-")
        assert re.search(rf"--{flag} X [^(]*\(default: {value}\)", text), flag
