"""A population: made from one seed, shown as one table."""

import math
from dataclasses import asdict

import pytest
import torch
from common import ACTIONS, OBSERVATIONS, flat, same
from gymnasium.spaces import Discrete

from tinyevo.population import create_population, member_row, population_table
from tinyevo.td3 import HyperParams


def create(size=3, **arguments):
    return create_population(size, OBSERVATIONS, ACTIONS, **{"hidden_size": (8, 8), **arguments})


def test_members_differ_in_their_initial_weights_and_in_nothing_else():
    population = create(3, hp=HyperParams(gamma=0.5), hidden_size=(6, 4), activation="gelu")
    weights = {str(flat(agent.state()["networks"])) for agent in population}
    assert len(weights) == 3
    assert [agent.id for agent in population] == [0, 1, 2]
    for agent in population:
        assert (
            agent.hp == HyperParams(gamma=0.5)
            and agent.hidden_size == (6, 4)
            and agent.activation == "gelu"
        )
        assert (
            agent.parent_id is None
            and agent.mutation == "none"
            and agent.fitness == []
            and agent.steps == 0
        )


def test_one_seed_makes_one_population_and_another_seed_another():
    first, second, third = create(seed=1), create(seed=1), create(seed=2)
    assert all(map(same, first, second))
    assert not any(map(same, first, third))


def test_a_member_does_not_depend_on_the_size_and_neighbouring_seeds_share_none():
    assert all(map(same, create(2), create(4)))
    actors = [
        str(flat(agent.networks["actor"].state_dict()))
        for seed in range(5)
        for agent in create(4, seed=seed)
    ]
    assert len(set(actors)) == 20


def test_no_global_generator_is_read():
    state = torch.get_rng_state()
    create()
    assert torch.equal(torch.get_rng_state(), state)


def test_agents_share_nothing():
    first, second = create(2)
    first.set_hp(gamma=0.1)
    first.fitness.append(1.0)
    assert second.hp.gamma == 0.99 and second.fitness == []


@pytest.mark.parametrize("size", [0, -1, 2.0, "4", None])
def test_a_population_of_nobody_is_refused(size):
    with pytest.raises(ValueError, match="whole number of at least 1"):
        create(size)


def test_spaces_that_td3_cannot_handle_are_refused():
    with pytest.raises(ValueError, match="vectors"):
        create_population(2, OBSERVATIONS, Discrete(2))


def test_the_table_has_a_line_for_each_member_with_all_that_evolution_decides():
    population = create(2)
    population[0].fitness, population[0].train_return = (
        [-300.0, 10.0, 20.0, 30.0, 40.0, 50.0],
        -12.34,
    )
    population[0].steps = 123456
    child = population[1]
    child.id, child.parent_id, child.mutation, child.fitness = (
        17,
        0,
        "learn_step 1 -> 2",
        [1.0, -99.9],
    )
    child.set_hp(lr_actor=2.5e-4, batch_size=77, learn_step=2)
    heads, first, second = population_table(population).splitlines()
    expected = (
        ("id from mutation fitness mean5 train steps hidden act lr a lr c batch ls", heads),
        ("* 0 - none 50.0 30.0 -12.3 123456 8x8 relu 1.0e-04 1.0e-03 128 1", first),
        ("17 0 learn_step 1 -> 2 -99.9 -49.5 nan 0 8x8 relu 2.5e-04 1.0e-03 77 2", second),
    )
    for words, line in expected:
        assert " ".join(line.split()) == words
    assert heads.index("fitness") + 7 == first.index("50.0") + 4 == second.index("-99.9") + 5, (
        "columns are aligned"
    )
    assert max(map(len, (heads, first, second))) <= 130


def test_the_table_shows_a_population_that_was_never_evaluated():
    line = population_table(create(1)).splitlines()[1]
    assert line.split()[-10:-7] == ["nan", "nan", "nan"]


def test_a_row_names_the_lineage_the_returns_and_all_that_evolution_decides():
    (agent,) = create(1, hidden_size=(6, 4), activation="elu")
    assert math.isnan(member_row(agent)["fitness"]), "never evaluated"
    agent.id, agent.parent_id, agent.mutation, agent.steps = 7, 3, "activation relu -> elu", 800
    agent.fitness, agent.train_return = [1.0, 2.5], -4.0
    row = {
        "id": 7,
        "parent_id": 3,
        "mutation": "activation relu -> elu",
        "fitness": 2.5,
        "train_return": -4.0,
    }
    row |= {"steps": 800, "hidden_size": "6x4", "activation": "elu", **asdict(agent.hp)}
    assert member_row(agent) == row and list(member_row(agent)) == list(row)
