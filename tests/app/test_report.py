"""What a run tells: one table for each generation, and lines that name the best agent."""

import io
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from common import TINY, make_agent, run, setup
from tqdm import tqdm

import train_lunar
from tinyevo.app import report
from tinyevo.app.report import population_table
from tinyevo.td3 import HyperParams
from tinyevo.train import Run

HP = HyperParams(lr_actor=1e-4, lr_critic=1e-3, batch_size=128, learn_step=1)


def test_the_table_has_a_line_for_each_member_with_all_that_evolution_decides():
    fittest, child = make_agent(hp=HP), make_agent(hp=HP)
    fittest.fitness, fittest.train_return = [-300.0, 10.0, 20.0, 30.0, 40.0, 50.0], -12.34
    fittest.steps = 123456
    child.id, child.parent_id, child.fitness = 17, 0, [1.0, -99.9]
    child.mutation_kind, child.mutation = "rl_hp", "learn_step 1 -> 2"
    child.set_hp(lr_actor=2.5e-4, batch_size=77, learn_step=2)
    heads, first, second = population_table([fittest, child]).splitlines()
    expected = (
        ("id from mutation fitness mean5 train steps hidden act lr a lr c batch ls", heads),
        ("* 0 - none 50.0 30.0 -12.3 123456 8x8 relu 1.0e-04 1.0e-03 128 1", first),
        ("17 0 learn_step 1 -> 2 -99.9 -49.5 nan 0 8x8 relu 2.5e-04 1.0e-03 77 2", second),
    )
    for words, line in expected:
        assert " ".join(line.split()) == words
    ends = heads.index("fitness") + 7, first.index("50.0") + 4, second.index("-99.9") + 5
    assert len(set(ends)) == 1, "columns are aligned"
    assert max(map(len, (heads, first, second))) <= 130


def test_the_star_goes_by_the_last_fitness_alone():
    population = [make_agent(seed) for seed in range(2)]
    population[0].fitness, population[1].fitness = [200.0, 200.0, 10.0], [-300.0, -300.0, 20.0]
    _, first, second = population_table(population).splitlines()
    assert (first[0], second[0]) == (" ", "*")


def test_the_table_shows_a_population_that_was_never_evaluated():
    line = population_table([make_agent()]).splitlines()[1]
    assert line.split()[-10:-7] == ["nan", "nan", "nan"]


def test_the_longest_text_of_a_mutation_keeps_the_columns_aligned():
    first, second = make_agent(), make_agent()
    second.mutation = "architecture 256x256x256 -> 256x256x192"
    assert len({len(line) for line in population_table([first, second]).splitlines()}) == 1


def test_a_generation_is_told_by_its_table_its_best_and_who_diverged(capsys):
    done = run()
    done.population[1].fitness[-1] = -np.inf
    done.population[2].fitness[-1] = 9.0
    with tqdm(file=io.StringIO()) as bar:
        report.show_generation(done, bar)
        assert bar.postfix == f"confirmed={done.best_return:.0f}, fitness=9"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"diverged, excluded from selection: agent {done.population[1].id}"
    assert lines[2] == "generation 2"
    assert lines[3:-1] == population_table(done.population).splitlines()
    best = f"agent {done.best.id} after {done.best.steps} steps"
    assert lines[-1] == f"best confirmed: {best}, mean return {done.best_return:.1f}"


def test_the_score_is_told_with_the_call_that_gives_it_again(capsys):
    done = run()
    report.show_score(done, TINY, 5, np.array([1.0, 2.0, 6.0]))
    *_, call, mean = capsys.readouterr().out.splitlines()
    assert call == "evaluate(agent, 'probes:Counting-v0', episodes=3, seed=5, max_steps=None)"
    assert mean == "mean return 3.00 +- 2.16, from 1.0 to 6.0"


def test_the_film_is_told_by_the_returns_of_its_episodes(capsys):
    report.show_film(np.array([1.25, -300.0]))
    assert capsys.readouterr().out == "returns of 2 episodes rendered: 1.2, -300.0\n"


def told(capsys, run, **changes):
    """What is told of a run with these settings before it goes on."""
    settings = train_lunar.QUICK.changed({"max_steps": 90, **changes})
    place = {"device": "cpu", "workers": 2, "folder": "runs/001"}
    report.show_settings(run, SimpleNamespace(settings=settings, **place))
    return capsys.readouterr().out


def test_a_new_run_is_told_by_its_settings_and_where_it_goes(capsys):
    text = told(capsys, Run(*setup()), num_envs=3)
    assert "num_envs 3, max_steps 90" in " ".join(text.split())
    assert text.endswith("device: cpu, workers: 2, output: runs/001\n")
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    "max_steps, target, over",
    [
        (90, 1e9, "--max-steps"),
        (96, 1e9, None),
        (96, 0.0, "--target"),
        (90, 0.0, "--max-steps and --target"),
    ],
)
def test_a_resumed_run_is_told_by_where_it_stands_and_whether_it_is_finished(
    capsys, max_steps, target, over
):
    done = run()
    text = told(capsys, done, max_steps=max_steps, target=target, num_envs=3)
    line = f"resumed after generation 2, best confirmed mean return {done.best_return:.1f}\n"
    assert line in text
    if over:
        assert text.endswith(f"this run is finished; a larger {over} continues it\n")
    else:
        assert "finished" not in text


@pytest.mark.parametrize(
    "message, line",
    [
        ("evo_steps is short", "warning: evo_steps is short\n"),
        ("\x1b[33mWARN: not within\n  the space\x1b[0m", "warning: not within the space\n"),
    ],
)
def test_a_warning_is_one_line_without_colours(monkeypatch, message, line):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # and back again
    report.plain_warnings()
    assert warnings.formatwarning(UserWarning(message), UserWarning, "file.py", 1) == line


def test_the_call_that_gives_the_score_again_has_the_limit_of_evaluations_not_of_training(capsys):
    config = replace(TINY, eval_steps=7, train_episode_steps=5)
    report.show_score(run(), config, 5, np.array([1.0]))
    assert "episodes=1, seed=5, max_steps=7)\n" in capsys.readouterr().out


def test_the_best_agent_is_told_by_its_own_steps_though_the_run_went_on():
    done = run()
    best = done.best.clone()
    best.id, best.steps = 7, 30
    assert done.steps == 90
    assert report.best_agent(replace(done, best=best)) == "agent 7 after 30 steps"
