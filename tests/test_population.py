"""A population: made from one seed, each member told in one row."""

import math
from dataclasses import asdict

import pytest
import torch
from common import ACTIONS, OBSERVATIONS, flat, same
from gymnasium.spaces import Discrete

from tinyevo.mutation import RLParameter
from tinyevo.population import create_population, member_row
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
            and agent.mutation_kind == agent.mutation == "none"
            and agent.fitness == []
            and agent.steps == 0
        )


def test_one_seed_makes_one_population_and_another_seed_another():
    first, second, third = create(seed=1), create(seed=1), create(seed=2)
    assert all(map(same, first, second))
    assert not any(map(same, first, third))


def test_founders_may_draw_hyper_parameters_each_its_own():
    space = {"lr_actor": RLParameter(1e-4, 1e-2), "learn_step": RLParameter(1, 16, int)}
    drawn, alike = create(3, seed=1, drawn_from=space), create(3, seed=1)
    for name, limits in space.items():
        values = [getattr(agent.hp, name) for agent in drawn]
        assert len(set(values)) == 3 and all(limits.min <= x <= limits.max for x in values)
        assert all(type(value) is limits.dtype for value in values)
    assert drawn[0].optimizers["actor"].param_groups[0]["lr"] == drawn[0].hp.lr_actor
    assert {agent.hp.lr_critic for agent in drawn} == {HyperParams().lr_critic}
    for one, other in zip(drawn, alike):
        assert flat(one.state()["networks"]) == flat(other.state()["networks"])
    assert all(map(same, drawn, create(4, seed=1, drawn_from=space)))
    assert drawn[0].hp != create(1, seed=2, drawn_from=space)[0].hp


def test_a_member_does_not_depend_on_the_size_and_neighbouring_seeds_share_none():
    assert all(map(same, create(2), create(4)))
    actors = [
        str(flat(agent.networks["actor"].state_dict()))
        for seed in range(5)
        for agent in create(4, seed=seed)
    ]
    assert len(set(actors)) == 20


def test_neighbouring_seeds_draw_no_hyper_parameter_twice():
    space = {"lr_actor": RLParameter(1e-4, 1e-2)}
    drawn = [
        agent.hp.lr_actor for seed in range(5) for agent in create(4, seed=seed, drawn_from=space)
    ]
    assert len(set(drawn)) == 20


def test_no_global_generator_is_read():
    state = torch.get_rng_state()
    create()
    assert torch.equal(torch.get_rng_state(), state)


def test_agents_share_nothing():
    first, second = create(2)
    first.set_hp(gamma=0.1)
    first.fitness.append(1.0)
    assert second.hp == HyperParams() and second.fitness == []


@pytest.mark.parametrize("size", [0, -1, 2.0, "4", None])
def test_a_population_of_nobody_is_refused(size):
    with pytest.raises(ValueError, match=f"a population has at least 1 agent, not {size!r}"):
        create(size)


@pytest.mark.parametrize("name, limits, words", [
    ("lr", RLParameter(0.1, 0.2), "hp_space has 'lr', choose from lr_actor, lr_critic, "),
    ("batch_size", RLParameter(8, 64), "hp_space.batch_size: batch_size must be a whole number"),
    ("gamma", RLParameter(0.5, 2), "hp_space.gamma: gamma must be a number from 0 to 1, not 2.0"),
])  # fmt: skip
def test_a_range_that_hyper_parameters_do_not_allow_is_refused(name, limits, words):
    with pytest.raises(ValueError, match=words):
        create(2, drawn_from={name: limits})


def test_spaces_that_td3_cannot_handle_are_refused():
    with pytest.raises(ValueError, match="vectors"):
        create_population(2, OBSERVATIONS, Discrete(2))


def test_a_row_names_the_lineage_the_returns_and_all_that_evolution_decides():
    (agent,) = create(1, hidden_size=(6, 4), activation="elu")
    assert math.isnan(member_row(agent)["fitness"]), "never evaluated"
    agent.id, agent.parent_id, agent.steps = 7, 3, 800
    agent.mutation_kind, agent.mutation = "activation", "activation relu -> elu"
    agent.fitness, agent.train_return = [1.0, 2.5], -4.0
    row = {
        "id": 7,
        "parent_id": 3,
        "mutation_kind": "activation",
        "mutation": "activation relu -> elu",
        "fitness": 2.5,
        "train_return": -4.0,
    }
    row |= {"steps": 800, "hidden_size": "6x4", "activation": "elu", **asdict(agent.hp)}
    assert member_row(agent) == row and list(member_row(agent)) == list(row)
