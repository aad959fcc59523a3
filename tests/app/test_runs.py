"""A run in a file: it comes back bit for bit, and goes on as if nothing had happened."""

import os
from dataclasses import replace

import numpy as np
import probes  # noqa: F401  registers the environments
import pytest
import torch
from common import flat, make_agent, same
from test_train import TINY, run, setup, text

from tinyevo import checkpoint
from tinyevo.mutation import Mutations
from tinyevo.result import TrainResult
from tinyevo.tournament import TournamentSelection
from tinyevo.train import train

SELECTION = TournamentSelection(2, True, 3)
MUTATIONS = Mutations(node_bounds=(4, 16), node_steps=(2,))


def straight(config=TINY):
    """An uninterrupted run."""
    return train(*setup(config), SELECTION, MUTATIONS, config)


def interrupted(path, generation, config=TINY):
    """The same run, stopped after a generation and continued from the file that was written then."""

    def save(result):
        if len(result.fitnesses) == generation:
            result.save_checkpoint(path)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(*setup(config), SELECTION, MUTATIONS, config, on_generation=save)
    result = TrainResult.load_checkpoint(path)
    return train(result.population, result.memory, SELECTION, MUTATIONS, config, resume=result)


def test_a_run_comes_back_from_its_file_as_it_was(tmp_path):
    result, memory = run()
    result.settings = {"config": {"seed": 0}, "note": "anything plain"}
    result.save_checkpoint(tmp_path / "population.pt")
    back = TrainResult.load_checkpoint(tmp_path / "population.pt")
    assert all(
        same(agent, other) for agent, other in zip(back.population, result.population, strict=True)
    )
    assert same(back.elite, result.elite)
    for name in ("steps", "confirmed", "fitnesses", "history", "settings"):
        assert getattr(back, name) == getattr(result, name), name
    assert back.memory.counter == memory.counter and np.array_equal(
        back.memory.storage, memory.storage
    )
    back.save_checkpoint(tmp_path / "again.pt")
    assert (tmp_path / "again.pt").read_bytes() == (tmp_path / "population.pt").read_bytes()


def test_a_run_can_be_kept_before_its_first_generation(tmp_path):
    TrainResult(*setup()).save_checkpoint(tmp_path / "population.pt")
    result = TrainResult.load_checkpoint(tmp_path / "population.pt")
    assert result.elite is None and result.confirmed == -np.inf and len(result.memory) == 0
    assert text(
        train(result.population, result.memory, SELECTION, MUTATIONS, TINY, resume=result)
    ) == text(straight())


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_an_interrupted_run_goes_on_to_the_same_end_bit_for_bit(tmp_path, generation):
    result, expected = interrupted(tmp_path / "population.pt", generation), straight()
    assert text(result) == text(expected)
    result.save_checkpoint(tmp_path / "one.pt")
    expected.save_checkpoint(tmp_path / "two.pt")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_so_does_one_whose_memory_is_full_and_wraps(tmp_path):
    config = replace(TINY, memory_size=100)
    result, expected = interrupted(tmp_path / "population.pt", 2, config), straight(config)
    assert text(result) == text(expected) and np.array_equal(
        result.memory.storage, expected.memory.storage
    )


def test_a_finished_run_has_nothing_left_to_do():
    result, calls = straight(), []
    before = text(result)
    again = train(
        result.population,
        result.memory,
        SELECTION,
        MUTATIONS,
        TINY,
        on_generation=calls.append,
        resume=result,
    )
    assert text(again) == before and calls == []
    again = train(
        result.population,
        result.memory,
        SELECTION,
        MUTATIONS,
        replace(TINY, target=0.0),
        resume=result,
    )
    assert text(again) == before


def test_a_finished_run_goes_on_with_more_steps_as_if_it_had_always_had_them():
    result, longer = straight(), replace(TINY, max_steps=150)
    result = train(result.population, result.memory, SELECTION, MUTATIONS, longer, resume=result)
    assert text(result) == text(straight(longer)) and result.steps == 150


def test_steps_go_on_where_an_uneven_last_generation_left_off():
    result, longer = straight(replace(TINY, max_steps=45)), replace(TINY, max_steps=90)
    result = train(result.population, result.memory, SELECTION, MUTATIONS, longer, resume=result)
    assert [row["steps"] for row in result.history[::3]] == [30, 45, 75, 90]


def test_a_run_may_go_on_on_another_device(tmp_path):
    TrainResult(*setup()).save_checkpoint(tmp_path / "population.pt")
    result = TrainResult.load_checkpoint(tmp_path / "population.pt", torch.device("cpu"))
    assert (
        {agent.device for agent in result.population}
        == {result.memory.device}
        == {torch.device("cpu")}
    )


def test_a_file_of_something_else_is_refused_by_name(tmp_path):
    path = tmp_path / "population.pt"
    make_agent().save_checkpoint(path)
    with pytest.raises(ValueError, match=r"cannot load .*population\.pt: it holds something else"):
        TrainResult.load_checkpoint(path)
    TrainResult(*setup()).save_checkpoint(path)
    state = checkpoint.load(path)
    for name in state:
        checkpoint.save(
            {key: value for key, value in state.items() if key != name} | {"surprise": 1}, path
        )
        with pytest.raises(
            ValueError, match=r"cannot load .*population\.pt: it holds something else"
        ):
            TrainResult.load_checkpoint(path)
    assert os.listdir(tmp_path) == ["population.pt"]


def test_agents_and_memory_that_do_not_fit_together_are_refused(tmp_path):
    path = tmp_path / "population.pt"
    run()[0].save_checkpoint(path)
    state = checkpoint.load(path)
    state["memory"]["records"]["obs"] = state["memory"]["records"]["obs"][:, :2]
    checkpoint.save(state, path)
    with pytest.raises(ValueError, match=r"cannot load .*population\.pt"):
        TrainResult.load_checkpoint(path)
    state = checkpoint.load(path)
    state["population"][0]["networks"]["actor"]["config"]["hidden_size"] = [9]
    checkpoint.save(state, path)
    with pytest.raises(ValueError, match=r"cannot load .*population\.pt"):
        TrainResult.load_checkpoint(path)


def test_saving_changes_nothing(tmp_path):
    result, _ = run()
    before = text(result), flat(result.memory.state())
    result.save_checkpoint(tmp_path / "population.pt")
    assert (text(result), flat(result.memory.state())) == before
