"""The page: its numbers reach the run, and its run shows and writes what it found."""

import csv
import json
import re
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path

import imageio.v3 as imageio
import pytest
from common import same
from script import COUNTING, call, exit_status, files, kill_group, read_until, run, start

import train_lunar
from tinyevo import train
from tinyevo.app.film import FRAME_TIME
from tinyevo.app.plots import PICTURES
from tinyevo.app.runs import NetworkSettings, RunFolder, Settings
from tinyevo.environment import find_spaces
from tinyevo.evaluate import evaluate
from tinyevo.mutation import Mutations
from tinyevo.population import create_population
from tinyevo.td3 import TD3, HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import RENDER, SCORE, TrainConfig

WRITTEN = ["config.json", "elite.pt", "evolution.gif", "family.png", "fitness.png", "history.csv"]
WRITTEN += ["hyper_params.png", "lander.gif", "population.pt", "report.html", "scenes.pt"]
if find_spec("imageio_ffmpeg"):
    WRITTEN.insert(3, "evolution.mp4")
ALL = sorted([*WRITTEN, "run.lock"])
SWIFT = ["--workers", "1", "--out", "run"]


# The numbers


FOR_IMAGES = {"channels", "conv_bounds", "channel_bounds", "channel_steps"}  # the lander has none


def test_every_number_of_a_run_stands_on_the_page():
    source = Path(train_lunar.__file__).read_text()
    page = source[source.index("SETTINGS = ") : source.index("def main")]
    groups = (TrainConfig, NetworkSettings, HyperParams, TournamentSelection, Mutations)
    for name in {field.name for group in groups for field in fields(group)} - FOR_IMAGES:
        assert re.search(rf"^\s.*\b{name}=", page, re.M), name


def test_the_settings_of_quick_differ_in_what_makes_a_run_shorter_and_smaller_alone():
    changed = {name for name, _, _ in train_lunar.SETTINGS.differences(train_lunar.QUICK)}
    lengths = {"max_steps", "evo_steps", "train_episode_steps", "eval_steps", "confirm_episodes"}
    assert changed == {*lengths, "updates_for", "memory_size", "batch_size"}


# The wiring, in a run of a second


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def other(here, monkeypatch):
    """Settings of which none is a default, for `--quick`; they run for a moment."""
    quick = Settings(
        TrainConfig("probes:Counting-v0", 3, 4, 48, 24, memory_size=99, eval_episodes=2,
                    eval_steps=5, confirm_episodes=3, target=1e9),
        NetworkSettings((7, 5), "elu"),
        HyperParams(1e-5, 1e-6, 5, 3, 0.5, 0.7, 0.2, 3, 0.4, 0.6, 0.1),
        TournamentSelection(1, False, 3),
        Mutations(0.5, 0.1, hp_space={"tau": train_lunar.RLParameter(0.1, 0.3)}),
    )  # fmt: skip
    monkeypatch.setattr(train_lunar, "SETTINGS", quick)
    monkeypatch.setattr(train_lunar, "QUICK", quick)
    return quick


def handed_to(name, monkeypatch, *arguments):
    """What the page calls one of its functions with, at which it is stopped here."""
    calls = []

    def stop(*arguments, **options):
        calls.append((arguments, options))
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(train_lunar, name, stop)
        assert exit_status(context, "--quick", "--no-gif", "--workers", "1", *arguments) == 130
    return calls[0]


def first_run(monkeypatch, *arguments):
    """The run that the page hands to `train`."""
    (run, *_), _ = handed_to("train", monkeypatch, *arguments)
    return run


def test_the_first_population_has_the_hyper_parameters_and_the_networks_of_the_page(
    other, monkeypatch
):
    first = first_run(monkeypatch)
    assert len(first.population) == 3
    for agent in first.population:
        assert agent.hp == other.hp
        assert (agent.hidden_size, agent.activation) == ((7, 5), "elu")


def test_founders_draw_the_hyper_parameters_that_evolve_if_the_settings_say_so(other, monkeypatch):
    drawing = replace(other, config=replace(other.config, draw_hp=True))
    monkeypatch.setattr(train_lunar, "QUICK", drawing)
    drawn = {agent.hp.tau for agent in first_run(monkeypatch).population}
    assert len(drawn) == 3 and all(0.1 <= tau <= 0.3 for tau in drawn)


def test_the_first_population_follows_from_the_seed(other, monkeypatch):
    spaces = find_spaces(other.config.env_id)
    for seed in (3, 4):
        first = first_run(monkeypatch, "--seed", seed)
        network = {"hidden_size": (7, 5), "activation": "elu"}
        expected = create_population(3, *spaces, other.hp, seed, **network)
        assert all(map(same, first.population, expected))


def test_the_memory_is_empty_and_as_large_as_the_page_says(other, monkeypatch):
    memory = first_run(monkeypatch).memory
    assert len(memory) == 0 and len(memory.storage) == 99


def test_networks_and_memory_are_made_on_the_device_that_was_asked_for(other, monkeypatch):
    _, made = handed_to("create_population", monkeypatch, "--device", "cpu:0")
    assert str(made["device"]) == "cpu:0"
    (*_, device), _ = handed_to("ReplayBuffer", monkeypatch, "--device", "cpu:0")
    assert str(device) == "cpu:0"


def test_train_gets_the_settings_of_the_page(other, monkeypatch):
    (_, tournament, mutations, config), _ = handed_to("train", monkeypatch)
    assert (tournament, mutations, config) == (other.tournament, other.mutations, other.config)


def test_a_resumed_run_is_handed_on_as_it_is(other, monkeypatch):
    call(monkeypatch, "--quick", "--no-gif", *SWIFT)
    monkeypatch.setattr(train_lunar, "create_population", None)  # nobody is made
    call(monkeypatch, "--resume", "run", "--no-gif", "--workers", "1", "--max-steps", "72")
    rows = list(csv.DictReader(Path("run/history.csv").read_text().splitlines()))
    assert [row["generation"] for row in rows[::3]] == ["0", "1", "2"]


def test_the_run_is_saved_before_it_begins_and_each_generation_before_it_is_shown(
    other, monkeypatch
):
    saved = []
    save = RunFolder.save

    def spy(folder, run, settings):
        save(folder, run, settings)
        saved.append((run.generation, settings))

    def shown(run, bar):
        saved.append(f"shown {run.generation}")

    monkeypatch.setattr(train_lunar, "show_generation", shown)
    monkeypatch.setattr(RunFolder, "save", spy)
    call(monkeypatch, "--quick", "--no-gif", *SWIFT)
    assert saved == [(0, other), (1, other), "shown 1", (2, other), "shown 2"]

    saved.clear()
    longer = replace(other, config=replace(other.config, max_steps=72))
    call(monkeypatch, "--resume", "run", "--no-gif", "--workers", "1", "--max-steps", "72")
    assert saved == [(2, longer), (3, longer), "shown 3"], "new settings are kept at once"


def test_the_settings_of_who_knows_nothing_differ_from_the_pages_where_it_is_said():
    folder = Path(train_lunar.__file__).parent / "settings"
    settings = Settings.from_json((folder / "unknown.json").read_text())
    different = {name for name, _, _ in settings.differences(train_lunar.SETTINGS)}
    said = {"draw_hp", "judged_by", "restart"}
    assert different == said | {"hp_space"}
    _, readme = (folder / "README.md").read_text().split("`unknown.json` is for")
    assert all(f"`{name}`" in readme for name in said)


def test_the_score_and_the_film_are_flown_on_seeds_that_decided_nothing(other, monkeypatch, capsys):
    decided, final = [], []

    def deciding(agent, env_id, episodes, seed, max_steps):
        decided.append(seed)
        return evaluate(agent, env_id, episodes, seed, max_steps)

    def scoring(agent, env_id, episodes, seed, max_steps):
        final.append(seed)
        assert (env_id, episodes, max_steps) == ("probes:Counting-v0", 3, 5)
        return evaluate(agent, env_id, episodes, seed, max_steps)

    def filming(agent, env_id, file, episodes, seed, max_steps):
        final.append(seed)
        assert (env_id, episodes, max_steps) == ("probes:Counting-v0", 7, 5)
        return [1.0]

    monkeypatch.setattr(train, "evaluate", deciding)
    monkeypatch.setattr(train_lunar, "evaluate", scoring)

    def filming_all(folder, env_id, seed, max_steps):
        captions = [caption.split()[1] for caption, _ in folder.film()]
        assert captions == ["0", "1"], "not both generations"
        filming(None, env_id, None, 7, seed, max_steps)

    monkeypatch.setattr(train_lunar, "record_gif", filming)
    monkeypatch.setattr(train_lunar, "film_evolution", filming_all)
    monkeypatch.setattr("tinyevo.app.cli.check_film", lambda env_id: None)
    call(monkeypatch, "--quick", *SWIFT)
    assert len(decided) >= 2 * 3 + 3  # evaluations of two generations and parts of a confirmation
    assert not set(decided) & set(final)
    score, film = other.config.derived_seed(SCORE), other.config.derived_seed(RENDER)
    assert final == [score, film, film]
    assert f"seed={final[0]}" in capsys.readouterr().out


def test_the_best_confirmed_agent_is_scored_and_filmed(other, monkeypatch):
    (agent, *_), _ = handed_to("evaluate", monkeypatch, "--out", "one")
    assert same(agent, TD3.load_checkpoint("one/elite.pt"))
    monkeypatch.setattr("tinyevo.app.cli.check_film", lambda env_id: None)
    monkeypatch.setattr(train_lunar, "film_evolution", lambda *_: None)
    filmed = []
    monkeypatch.setattr(
        train_lunar, "record_gif", lambda agent, *_, **__: filmed.append(agent) or []
    )
    call(monkeypatch, "--quick", *SWIFT)
    assert same(filmed[0], TD3.load_checkpoint("run/elite.pt"))


def test_the_pictures_show_the_history_and_what_was_searched(other, monkeypatch):
    calls = []
    monkeypatch.setattr(train_lunar, "plot_evolution", lambda *arguments: calls.append(arguments))
    call(monkeypatch, "--quick", "--no-gif", *SWIFT)
    assert [picture for _, _, picture, _ in calls] == list(PICTURES)
    for history, _, _, space in calls:
        assert len(history) == 6 and space == other.mutations.hp_space


def test_the_number_of_workers_does_not_change_a_bit(other, here, monkeypatch):
    for workers in ("1", "2"):
        call(monkeypatch, "--quick", "--no-gif", "--workers", workers, "--out", workers)
    assert files(here / "1") == files(here / "2")
    assert len((here / "1" / "history.csv").read_text().splitlines()) == 1 + 2 * 3


# The script, as a user runs it


FEWER = {"num_envs": 1, "max_steps": 600, "evo_steps": 200}  # so that it takes 10 seconds


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """One run of `--quick` with fewer steps, in a folder of its own."""
    folder = tmp_path_factory.mktemp("quick")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in FEWER.items()]
    return folder / "runs" / "001", run(folder, "--quick", *flags)


def test_quick_writes_every_file_into_a_numbered_folder(quick):
    folder, done = quick
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "off a terminal there is no bar, and a good run warns of nothing"
    assert sorted(path.name for path in folder.iterdir()) == ALL
    last = done.stdout.splitlines()[-1]
    assert last == " ".join(["wrote", *(f"runs/001/{name}" for name in WRITTEN)])


def test_quick_has_three_generations_with_learning_and_mutations(quick):
    folder, _ = quick
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [int(row["generation"]) for row in rows] == [0] * 4 + [1] * 4 + [2] * 4
    assert {row["steps"] for row in rows[-4:]} == {"600"}
    assert any(row["mutation_kind"] not in ("none", "elite") for row in rows)
    assert sum(row["elite"] == "True" for row in rows) == 3
    assert TD3.load_checkpoint(folder / "elite.pt").updates >= 200


@pytest.mark.slow
def test_quick_as_it_is_does_the_same(tmp_path):
    done = run(tmp_path, "--quick")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "runs" / "001").iterdir()) == ALL
    assert done.stdout.count("\ngeneration ") == 3


def test_the_settings_are_printed_and_written(quick):
    folder, done = quick
    text = (folder / "config.json").read_text()
    assert Settings.from_json(text) == train_lunar.QUICK.changed(FEWER)
    for group in json.loads(text).values():
        for name in group:
            assert name in done.stdout
    assert "device: cpu" in done.stdout and "output: runs/001" in done.stdout


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
    agent = TD3.load_checkpoint(folder / "elite.pt")
    returns = eval(call, {"evaluate": evaluate, "agent": agent})
    assert f"{returns.mean():.2f}" == mean and f"{returns.std():.2f}" == deviation


def test_the_gif_shows_seven_episodes_and_their_returns_are_printed(quick):
    folder, done = quick
    returns = re.search(r"returns of 7 episodes rendered: (.*)", done.stdout)[1].split(", ")
    assert len([float(value) for value in returns]) == 7
    assert imageio.improps(folder / "lander.gif", index=...).n_images > 70


def test_the_film_of_the_evolution_is_small_and_short_enough_for_a_page(quick):
    film = quick[0] / "evolution.gif"
    assert film.stat().st_size < 3_000_000
    with imageio.imopen(film, "r", plugin="pillow") as file:
        times = [
            file.metadata(index=index)["duration"] for index in range(file.properties(...).n_images)
        ]
    assert 3_000 < sum(times) < 20_000
    assert sum(time > FRAME_TIME for time in times) >= 3  # a scene's end for each generation


def test_each_generation_is_shown_at_once_through_a_pipe(tmp_path):
    script = start(tmp_path, *COUNTING, "--max-steps", "1e9", *SWIFT)
    read_until(script, "best confirmed")
    assert script.poll() is None
    kill_group(script)
    script.communicate()
