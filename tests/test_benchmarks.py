"""The benchmarks: arms differ in what they say, and what the texts say is what was measured."""

import csv
import importlib.util
import itertools
import json
import math
import re
import shutil
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from common import TINY, same

from tinyevo.app.plots import blank_figure

ROOT = Path(__file__).parent.parent


def benchmark(name, monkeypatch):
    """A script of `benchmarks/` as a module."""
    path = ROOT / "benchmarks" / f"{name}.py"
    monkeypatch.syspath_prepend(path.parent)  # one imports another
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def learning(monkeypatch):
    """`benchmarks/learning.py` as a module."""
    return benchmark("learning", monkeypatch)


def words(path):
    """A text of the repository, its line breaks as blanks."""
    return " ".join((ROOT / path).read_text().split())


def rows(arm, steps, question="G"):
    """A row for each number of steps to a landing; None is a run that did not land."""
    costs = {"flights": 10, "updates": 20, "processor": 3.0, "clock": 1.0, "confirmed": 0.0}
    return [
        {
            "question": question,
            "arm": arm,
            "seed": seed,
            "landed": step is not None,
            "steps": step or 300_000,
            "final": 100.0 if step else -100.0,
            **costs,
        }
        for seed, step in enumerate(steps)
    ]


def test_a_run_that_did_not_land_counts_as_later_than_any(learning):
    steps = [10_000, None, 30_000, 20_000, None]
    table = "\n".join(learning.arm_table({"single": rows("single", steps)}))
    assert "| single | 3 of 5 | 30,000 (10,000 to -) | >= 10 | >= 20 | >= 3 | >= 1 | 100 |" in table
    assert "0: 10,000, 1: -, 2: 30,000, 3: 20,000, 4: -" in table


def test_fewer_than_five_seeds_get_no_interval(learning):
    table = "\n".join(learning.arm_table({"single": rows("single", [10_000] * 4)}))
    assert "| single | 4 of 4 | 10,000 | 10 | 20 | 3 | 1 | 100 |" in table


def test_the_share_that_landed_is_compared_by_fishers_exact_test(learning):
    own, rival = rows("evolution", [1] * 4), rows("single", [None] * 4)
    assert learning.fisher(own, rival) == pytest.approx(2 / math.comb(8, 4))


def test_steps_are_compared_by_a_log_rank_test_in_which_other_runs_are_censored(learning):
    own, rival = rows("evolution", [1, 2, 3, 4, 5, 6]), rows("single", [7, 8, 9, 10, 11, None])
    statistic, p = learning.logrank(own, rival)
    assert statistic > 0 and p < 0.01
    assert learning.logrank(rival, own) == (pytest.approx(-statistic), pytest.approx(p))
    assert learning.logrank(own, own) == (pytest.approx(0), pytest.approx(1))
    nobody = rows("single", [None, None])
    assert learning.logrank(nobody, nobody) == (0, 1)


def test_a_report_has_a_table_of_arms_and_a_table_of_rivals(learning, monkeypatch):
    own, rival = rows("evolution", [1, 2, 3]), rows("single", [7, 8, None])
    text = learning.report(own + rival)
    assert text.count("| evolution | 3 of 3 |") == 1 and text.count("| single | 2 of 3 |") == 1
    assert "| evolution against | " not in text, "not all seeds have flown"
    monkeypatch.setattr(learning, "SEEDS", {"G": range(3)})
    assert "| evolution against | " not in learning.report(own + rival), "nor all arms"
    monkeypatch.setattr(learning, "ARMS", {"evolution": None, "single": None})
    text = learning.report(own + rival)
    assert "| evolution against | " in text and "### U" not in text
    assert "| single | ahead, " in text
    own, rival = rows("evolution", [None] * 3), rows("single", [None] * 3)
    assert "| single | level, 1 (" in learning.report(own + rival)
    assert re.search(r"\| ahead, [\d.]+ \(sooner in 100% of pairs, 100% to 100%\)", text)  # steps
    assert "(sooner in 67% of pairs, " in text  # in updates, of which all made as many


def test_the_tables_of_whether_evolution_pays_are_what_was_measured(learning):
    results, flown = (ROOT / "benchmarks" / "RESULTS.md").read_text(), learning.read_rows()
    assert f"\n\n{learning.report(flown)}\n" in results
    assert all(row["seed"] in learning.SEEDS[row["question"]] for row in flown)


def test_what_is_said_of_unknown_hyper_parameters_is_what_was_measured(learning):
    arms = learning.by_arm(learning.read_rows(), "U", learning.ARMS)
    lines = learning.arm_table(arms)
    table = "\n".join("|".join(line.split("|")[:6]) + "|" for line in lines)  # what compares
    assert "| updates |" in table and f"\n\n{table}\n\n" in (ROOT / "tutorial.md").read_text()

    def shares(*pairs):
        own = arms["evolution"]
        values = [learning.share_sooner(own, arms[arm], count) for arm, count in pairs]
        return [tuple(f"{100 * value:.0f}" for value in three) for three in values]

    def said(path, begin, end, pattern):
        text = words(path)
        return re.findall(pattern, text[text.index(begin) : text.index(end)])

    fours, single = "four independent", "single, all updates"
    updates = [(fours, "updates"), (single, "updates")]
    part = ("**Fewer steps of", "**By the clock")
    measured = [share for share, *_ in shares((single, "steps"), *updates, (single, "flights"))]
    assert said("tutorial.md", *part, r"(\d+) %") == measured
    part = ("In question U,", "Question U was begun")
    steps = [(fours, "steps"), (single, "steps"), ("single", "steps")]
    measured = shares(*updates, *steps, (single, "flights"))
    assert said("benchmarks/RESULTS.md", *part, r"(\d+) % \((\d+) to (\d+)\)") == measured


@pytest.mark.parametrize("question", ["G", "U"])
def test_a_rival_has_the_agent_that_a_member_of_the_population_is(learning, question):
    settings, arms = learning.SETTINGS[question], learning.ARMS
    members = learning.new_run(arms["evolution"], settings, 0).population
    for copy in range(4):
        (rival,) = learning.new_run(arms["four independent"], settings, copy).population
        assert same(rival, members[copy])
    assert len({str(agent.hp) for agent in members}) == {"G": 1, "U": 4}[question]
    assert learning.new_run(arms["single"], settings, 0).population[0].hp == members[0].hp


def test_a_survival_curve_rises_at_each_landing_and_names_do_not_cover_each_other(learning):
    arms = {
        "evolution": rows("evolution", [10_000, 20_000]),
        "single": rows("single", [50_000, None]),
        "four independent": rows("four independent", [None, 40_000]),
    }
    with blank_figure(12.8, 7.2) as figure:
        axes = figure.subplots()
        learning.draw_survival(axes, arms)
    curves = [line.get_xydata().tolist() for line in axes.lines]
    assert curves[0] == [[0, 0], [10_000, 50], [20_000, 100], [300_000, 100]]
    assert curves[1] == [[0, 0], [50_000, 50], [300_000, 50]]
    heights = [text.get_position()[1] for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == ["evolution", "single", "four independent"]
    assert heights == [100, 50, 44]


@pytest.fixture
def tiny(learning, tmp_path, monkeypatch):
    """`benchmarks/learning.py` whose runs take a moment, in a folder of their own."""
    config = replace(TINY, memory_size=100, updates_for="everybody")
    page = learning.SETTINGS["G"]
    network, hp = replace(page.network, hidden_size=(8,)), replace(page.hp, batch_size=8)
    settings = replace(page, config=config, network=network, hp=hp)
    monkeypatch.setattr(learning, "SETTINGS", {"G": settings})
    monkeypatch.setattr(learning, "STEPS", 120)
    monkeypatch.setattr(learning, "HERE", tmp_path)
    return learning


@pytest.mark.parametrize("arm", ["evolution", "four independent", "single, all updates"])
def test_an_arm_flies_its_steps_and_its_costs_are_counted(tiny, arm):
    row = tiny.fly_arm("G", arm, 3)
    assert row["steps"] == 120 and not row["landed"] and list(row) == list(tiny.COLUMNS)
    updates = {"evolution": 4 * 60, "four independent": 60, "single, all updates": 4 * 60}
    assert row["updates"] == updates[arm]
    assert row["flights"] > 120
    assert tiny.fly_arm("G", arm, 3)["flights"] == row["flights"], "an ended run flies nothing"


def test_agents_side_by_side_fly_other_starts_with_other_noise(tiny, tmp_path):
    arm, settings = tiny.ARMS["four independent"], tiny.SETTINGS["G"]
    flights = [tiny.Flight(tmp_path / str(copy), arm, settings, copy) for copy in range(4)]
    assert len({flight.settings.config.seed for flight in flights}) == 4
    alone = tiny.Flight(tmp_path / "alone", tiny.ARMS["single"], settings, 0)
    assert alone.settings.config.seed == settings.config.seed


def test_all_arms_are_looked_at_after_as_many_steps_of_all(tiny, tmp_path):
    looks = {}
    for arm in tiny.ARMS:
        tiny.fly_arm("G", arm, 3)
        (folder,) = tmp_path.glob("runs/*")
        agents = tiny.ARMS[arm].size * tiny.ARMS[arm].copies
        settings = json.loads((folder / "0" / "config.json").read_text())
        looks[arm] = settings["config"]["evo_steps"] * agents
        shutil.rmtree(folder)
    assert set(looks.values()) == {4 * TINY.evo_steps}


def test_an_agent_that_diverges_counts_as_one_that_did_not_land(tiny, monkeypatch):
    train, calls = tiny.train, itertools.count()

    def diverging(*arguments):
        if next(calls) == 1:
            raise FloatingPointError("all members diverged")
        return train(*arguments)

    monkeypatch.setattr(tiny, "STEPS", 240)
    monkeypatch.setattr(tiny, "train", diverging)
    row = tiny.fly_arm("G", "four independent", 3)  # the second of four diverges at once
    assert row["steps"] == 240 and not row["landed"] and row["updates"] == 3 * 30
    monkeypatch.setattr(tiny, "train", train)
    calls = itertools.count(1)
    monkeypatch.setattr(tiny, "train", diverging)
    row = tiny.fly_arm("G", "single", 3)
    assert row["steps"] == 240 and not row["landed"] and row["updates"] == 0


def test_costs_that_are_missing_are_not_taken_for_none(tiny, tmp_path):
    tiny.fly_arm("G", "single", 3)
    (tmp_path / "runs" / "G-single-3" / "0.json").unlink()
    with pytest.raises(ValueError, match="lacks what some generations cost"):
        tiny.fly_arm("G", "single", 3)


def test_a_run_does_not_go_on_with_other_settings(tiny, monkeypatch):
    tiny.fly_arm("G", "single", 3)
    hp = replace(tiny.SETTINGS["G"].hp, gamma=0.5)
    monkeypatch.setattr(tiny, "SETTINGS", {"G": replace(tiny.SETTINGS["G"], hp=hp)})
    with pytest.raises(ValueError, match="G-single-3/0 was begun with other settings: remove it"):
        tiny.fly_arm("G", "single", 3)


def test_a_run_is_locked_from_its_beginning_so_nobody_else_writes_its_costs(tiny, tmp_path):
    arguments = tmp_path / "run", tiny.ARMS["evolution"], tiny.SETTINGS["G"], 0
    first = tiny.Flight(*arguments)
    with pytest.raises(ValueError, match="perhaps another run is writing into it"):
        tiny.Flight(*arguments)
    first.folder.close()


def test_a_run_that_two_processes_flew_has_one_row(tiny, tmp_path, monkeypatch):
    row = tiny.fly_arm("G", "single", 100)
    monkeypatch.setattr(tiny, "worker_pool", lambda workers: ThreadPoolExecutor(1))

    def fly_arm(*task):
        tiny.write_rows([row])  # as another process does meanwhile
        return row

    monkeypatch.setattr(tiny, "fly_arm", fly_arm)
    monkeypatch.setattr(tiny, "draw_pictures", lambda rows: None)
    monkeypatch.setattr("sys.argv", ["-", "--questions", "G", "--arms", "single", "--seeds", "100"])
    tiny.main()
    assert tiny.read_rows() == [row]
    row = {"who": "SB3", "seed": 3, "steps": 10}
    for seed in (3, 4, 3):
        rows = tiny.tables.add_row(
            tmp_path / "rows.csv", tuple(row), {**row, "seed": seed}, ("who", "seed")
        )
    assert [row["seed"] for row in rows] == ["4", 3]


@pytest.mark.parametrize("flags, rule", [("--workers 0", "at least 1, not 0"),
                                         ("--seeds 7 100", "has the seed 7")])  # fmt: skip
def test_flags_that_make_no_flight_are_refused_in_one_line(
    learning, monkeypatch, capsys, flags, rule
):
    monkeypatch.setattr("sys.argv", ["-", *flags.split()])
    with pytest.raises(SystemExit):
        learning.main()
    assert rule in capsys.readouterr().err


@pytest.mark.parametrize("arm, stop", [("evolution", 1), ("four independent", 0),
                                       ("four independent", 5)])  # fmt: skip
def test_a_stop_in_a_save_changes_neither_an_arm_nor_its_costs(
    tiny, arm, stop, tmp_path, monkeypatch
):
    monkeypatch.setattr(tiny, "STEPS", 240)  # two generations
    undisturbed, save, saves = tiny.fly_arm("G", arm, 3), tiny.RunFolder.save, itertools.count()

    def stopped(folder, run, settings):
        if next(saves) == stop:
            raise KeyboardInterrupt
        save(folder, run, settings)

    monkeypatch.setattr(tiny, "HERE", tmp_path / "stopped")
    monkeypatch.setattr(tiny.RunFolder, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        tiny.fly_arm("G", arm, 3)
    row = tiny.fly_arm("G", arm, 3)
    for name in ("steps", "flights", "updates", "confirmed", "final"):
        assert row[name] == undisturbed[name]


def test_what_a_camera_sees_of_the_lander_is_small_and_recent_and_an_action_holds(monkeypatch):
    pixels = benchmark("pixels", monkeypatch)
    lander = gym.make("LunarLanderContinuous-v3")
    lander.reset(seed=3)
    with gym.make("LanderPixels-v0") as env:
        obs, _ = env.reset(seed=3)
        assert env.observation_space.contains(obs) and obs.shape == (50, 75, 3)
        assert (obs[..., 0] == obs[..., 2]).all(), "it stood still before"
        action = np.array([1, 0.7], dtype=np.float32)
        seen, reward, *_ = env.step(action)
        assert reward == pytest.approx(sum(lander.step(action)[1] for _ in range(pixels.HELD)))
        assert (seen[..., :2] == obs[..., 1:]).all() and (seen[..., 2] != obs[..., 2]).any()
        total, terminated = 0.0, False
        while not terminated:
            seen, reward, terminated, *_ = env.step(action)
            total += reward
    assert total < -50, "it crashes"


@pytest.fixture
def look(monkeypatch):
    """A function of (mean fitness, mean confirmed): `peers.Look` looks at such an agent."""
    peers = benchmark("peers", monkeypatch)
    looking, flights = peers.Look(0), []
    looking.start()

    def look_at(fitness, confirmed, steps=0, policy=None):
        def evaluate(policy, env_id, episodes, seed):
            flights.append((episodes, seed))
            return np.full(episodes, fitness if episodes == 10 else confirmed)

        monkeypatch.setattr(peers, "evaluate", evaluate)
        looking(policy, steps)
        return looking

    look_at.flights, look_at.peers = flights, peers
    return look_at


def test_other_programs_are_confirmed_where_they_are_better_than_before_on_fresh_episodes(look):
    assert look(-100.0, -50.0).best == -50
    assert look(-60.0, 999.0).best == -50, "not better than what was confirmed: not looked at twice"
    assert look(-40.0, -70.0).best == -50, "a lucky one does not take the place of a better one"
    assert [episodes for episodes, _ in look.flights] == [10, 100, 10, 10, 100]
    assert len({seed for _, seed in look.flights}) == 5


def test_the_best_confirmed_policy_of_other_programs_is_kept(look):
    look(-100.0, -50.0, 5_000, "good")
    assert look(-40.0, -70.0, 10_000, "lucky").policy == "good"
    assert look(-60.0, 999.0, 15_000, "worse").policy == "good"
    kept = look(-30.0, -20.0, 20_000, "better")
    assert (kept.policy, kept.best, kept.steps) == ("better", -20, 20_000)


def test_a_program_has_landed_at_a_confirmed_mean_of_200(look):
    look(190.0, 199.0)
    with pytest.raises(look.peers.Ended):
        look(201.0, 200.0)


def test_a_program_that_does_not_land_has_40_minutes(look, monkeypatch):
    assert look.peers.MINUTES == 40
    monkeypatch.setattr(look.peers, "MINUTES", 0)
    with pytest.raises(look.peers.Ended):
        look(-300.0, -300.0)


def test_the_table_of_other_environments_is_what_was_measured(monkeypatch):
    others = benchmark("others", monkeypatch)
    rows, results = others.read_rows(others.PATH), (ROOT / "benchmarks" / "RESULTS.md").read_text()
    for name in {row["environment"] for row in rows}:
        assert f"\n\n{others.report(rows, name)}\n\n" in results


def test_what_is_said_of_scale_is_what_was_measured_and_what_is_computed_from_it(monkeypatch):
    scale = benchmark("scale", monkeypatch)
    with (ROOT / "benchmarks" / "scale.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    results, tutorial = (ROOT / "benchmarks" / "RESULTS.md").read_text(), words("tutorial.md")
    assert all(f"\n\n{table}\n\n" in results for table in scale.report(rows))

    for whose, pattern in (("the page's", r"(\d+) to (\d+) % of the cores' time"),
                           ("drawn", r"and (\d+) to (\d+) % if these are drawn")):  # fmt: skip
        waiting = [int(row["waiting"].strip("%")) for row in rows
                   if row["hyper-parameters"] == whose]  # fmt: skip
        assert re.search(pattern, tutorial).groups() == (str(min(waiting)), str(max(waiting)))
    seconds = list(scale.computed(rows[-1]).values())
    parts = (*seconds[:3], sum(seconds[3:]))
    said = (
        r"(\d+) seconds to fly, (\d+) to wait, (\d+) until the memory is everywhere, and (\d+) in"
    )
    assert re.search(said, tutorial).groups() == tuple(f"{part:.0f}" for part in parts)


ARMS_OF_0_1_0 = {  # in `learning-0.1.0.csv`: what the tutorial calls them
    "default": "the script of then: a population of four",
    "no mutation": "a population of four, no mutation",
    "a single TD3": "a single TD3",
    "a single TD3, a quarter of the updates": "a single TD3, a quarter of the updates (`learn_step` 8)",
    "memory of 10,000": "a memory of 10,000",
    "original exploration": "the often-copied exploration (sigma 0.1, `dt` 0.01)",
    "Gaussian exploration": "Gaussian exploration, as strong as the script's (sigma 0.57)",
    "bad numbers": "from bad hyper-parameters: a population of four",
    "bad numbers, no mutation": "from bad hyper-parameters: a population of four, no mutation",
    "bad numbers, factors of 2": "from bad hyper-parameters: a population of four whose hyper-parameters change by factors of 2",
    "bad numbers, updates for everybody's steps": "from bad hyper-parameters: a population of four, updates for everybody's steps",
    "bad numbers, a single TD3": "from bad hyper-parameters: a single TD3",
    "drawn numbers": "from drawn hyper-parameters: a population of four",
    "drawn numbers, no mutation": "from drawn hyper-parameters: a population of four, no mutation",
    "drawn numbers, a single TD3": "from drawn hyper-parameters: a single TD3",
}


def test_what_version_0_1_0_needed_is_told_as_it_was_measured(learning):
    landings = {arm: [math.inf] * 5 for arm in ARMS_OF_0_1_0}
    with (ROOT / "benchmarks" / "learning-0.1.0.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if float(row["confirmed"]) >= 200:
                steps = landings[row["arm"]]
                steps[int(row["seed"])] = min(steps[int(row["seed"])], int(row["steps"]))
    in_results, in_tutorial = [], []
    for arm, steps in landings.items():
        median, *each = map(learning.steps_text, (statistics.median(steps), *steps))
        landed = f"{5 - steps.count(math.inf)} of 5"
        in_results.append(f"| {landed} | {median} | {' | '.join(each)} |")
        in_tutorial.append(f"| {ARMS_OF_0_1_0[arm]} | {landed} | {median} |")
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    tutorial = (ROOT / "tutorial.md").read_text()
    assert sorted(re.findall(r"^\| .+ (\| \d of 5 \| .+ \|)$", results, re.M)) == sorted(in_results)
    assert sorted(re.findall(r"^\| .+ \| \d of 5 \| .+ \|$", tutorial, re.M)) == sorted(in_tutorial)
