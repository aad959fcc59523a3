"""A wrong call raises ValueError with one line that says what is wrong and what to do."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from common import ACTIONS, OBSERVATIONS, make_agent
from gymnasium.spaces import Box, Discrete

from tinyevo.buffer import ReplayBuffer
from tinyevo.mutation import Mutations, RLParameter
from tinyevo.networks import EvolvableMLP
from tinyevo.population import create_population
from tinyevo.td3 import TD3, HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import Run, TrainConfig, train, with_target

WEIGHTS = ["no_mutation", "architecture", "parameters", "activation", "rl_hp"]
LIBRARY_CALLS = [
    *[
        (partial(TrainConfig, **{name: 0}), name)
        for name in ("num_envs", "max_steps", "evo_steps", "memory_size")
    ],
    *[
        (partial(TrainConfig, **{name: 0}), name)
        for name in ("eval_episodes", "confirm_episodes", "eval_steps")
    ],
    (partial(TrainConfig, seed="0"), "seed"),
    (partial(TrainConfig, num_envs=True), "num_envs"),
    (partial(TrainConfig, num_envs="8"), "num_envs"),
    (partial(TrainConfig, evo_steps=2), "evo_steps"),
    (partial(TrainConfig, max_steps=1e6), "max_steps"),
    (partial(TrainConfig, learning_delay=-1), "learning_delay"),
    (partial(TrainConfig, train_episode_steps=0), "train_episode_steps"),
    (partial(TrainConfig, eval_steps=1.5), "eval_steps"),
    (partial(TrainConfig, eval_episodes=1e9), "eval_episodes"),
    (partial(TrainConfig, noise="pink"), "noise must be 'ou' or 'gaussian'"),
    (partial(TrainConfig, noise_mean=math.nan), "noise_mean"),
    (partial(TrainConfig, noise_theta=math.inf), "noise_theta"),
    (partial(TrainConfig, noise_dt=-1.0), "noise_dt"),
    (
        partial(TrainConfig, noise_dt=14.0),
        "noise_dt must be a number from 0 to 1, not 14.0",
    ),  # the walk would explode
    (partial(TrainConfig, noise_dt="1"), "noise_dt"),
    *[(partial(TrainConfig, target=target), "target") for target in ("1", True, math.nan, -2e9)],
    *[(partial(HyperParams, **{name: -1}), name) for name in vars(HyperParams())],
    *[(partial(HyperParams, **{name: math.nan}), name) for name in vars(HyperParams())],
    *[(partial(HyperParams, **{name: "1"}), name) for name in vars(HyperParams())],
    (partial(HyperParams, batch_size=0), "batch_size"),
    (partial(HyperParams, learn_step=0.5), "learn_step"),
    (partial(HyperParams, gamma=1.1), "gamma"),
    (partial(HyperParams, lr_actor=math.inf), "lr_actor"),
    *[(partial(Mutations, **{name: -0.1}), name) for name in WEIGHTS],
    *[(partial(Mutations, **{name: math.nan}), name) for name in WEIGHTS],
    (partial(Mutations, **dict.fromkeys(WEIGHTS, 0)), "weights of all kinds of mutation are 0"),
    (partial(Mutations, architecture="often"), "architecture"),
    (partial(Mutations, new_layer_prob=2), "new_layer_prob"),
    (partial(Mutations, mutation_sd=-1), "mutation_sd"),
    (partial(Mutations, mutated_share=0), "mutated_share"),
    (partial(Mutations, super_prob=math.nan), "super_prob"),
    (partial(Mutations, super_prob=0.7, reset_prob=0.7), "super_prob"),
    (partial(Mutations, super_sd=None), "super_sd"),
    (partial(Mutations, layer_bounds=(3, 1)), "layer_bounds"),
    (partial(Mutations, layer_bounds=2), "layer_bounds"),
    (partial(Mutations, node_bounds=(0, 256)), "node_bounds"),
    (partial(Mutations, node_bounds=(16, 256, 512)), "node_bounds"),
    (partial(Mutations, node_steps=()), "node_steps"),
    (partial(Mutations, node_steps=(16.5,)), "node_steps"),
    (partial(Mutations, activations="relu"), "activations"),
    (partial(Mutations, hp_space={"learn_step": (1, 16)}), "hp_space"),
    (partial(Mutations, hp_space=None), "hp_space"),
    (partial(RLParameter, 2, 1), "max must be a number from 2 to 1000000000.0, not 1"),
    (partial(RLParameter, 0, math.inf), "max must be"),
    (partial(RLParameter, math.nan, 1), "min must be"),
    (partial(RLParameter, "0", "1"), "min must be a number from -1000000000.0"),
    (partial(RLParameter, 0, 1, dtype=str), "int or float"),
    (partial(RLParameter, 1.5, 16, int), "a range of int has whole ends, not 1.5 and 16"),
    (partial(RLParameter, 1, 16.5, int), "a range of int has whole ends, not 1 and 16.5"),
    (partial(RLParameter, 0, 1, shrink_factor=1), "shrink_factor"),
    (partial(RLParameter, 0, 1, grow_factor=math.nan), "grow_factor"),
    (partial(RLParameter, 0, 1, grow_factor=1), "grow_factor"),
    *[
        (partial(TournamentSelection, tournament_size=size), "tournament_size")
        for size in (0, -1, 1.5, "2", None)
    ],
    *[
        (partial(TournamentSelection, population_size=size), "population_size")
        for size in (0, 1e9, math.nan)
    ],
    (lambda: TournamentSelection().select([], np.random.default_rng(0)), "evaluate them first"),
    (
        lambda: TournamentSelection().select([make_agent()], np.random.default_rng(0)),
        "evaluate them first",
    ),
    (
        partial(EvolvableMLP, 3, 0),
        "each size of a network must be whole and from 1 to 1e9, not 0",
    ),
    (partial(EvolvableMLP, 3, 1, hidden_size=()), "hidden_size must be a tuple such as (64, 64)"),
    (partial(EvolvableMLP, 3, 1, hidden_size=64), "hidden_size must be a tuple such as (64, 64)"),
    (partial(EvolvableMLP, 3, 1, hidden_size=(8, 0)), "whole and from 1 to 1e9, not 0"),
    (partial(EvolvableMLP, 3, 1, activation="sine"), "unknown activation 'sine', choose from relu"),
    (partial(EvolvableMLP, 3, 1, output_activation="sine"), "unknown activation 'sine'"),
    (
        lambda: EvolvableMLP(3, 1).add_nodes(5, 1, np.random.default_rng(0)),
        "no layer 5 in hidden_size",
    ),
    (lambda: EvolvableMLP(3, 1).remove_nodes(0, 64, np.random.default_rng(0)), "not 0"),
    (
        lambda: EvolvableMLP(3, 1).remove_nodes(0, -2, np.random.default_rng(0)),
        "-2 of a layer's units",
    ),
    (lambda: EvolvableMLP(3, 1, (8,)).remove_layer(), "hidden_size"),
    (lambda: EvolvableMLP(3, 1).change_activation("sine"), "unknown activation"),
    (
        partial(TD3, OBSERVATIONS, Discrete(2)),
        "TD3 needs actions that are vectors, not Discrete(2)",
    ),
    (partial(TD3, OBSERVATIONS, Box(-np.inf, np.inf, (2,))), "finite bounds"),
    (partial(TD3, OBSERVATIONS, Box(-3e38, 3e38, (2,))), "whose difference fits into float32"),
    (partial(TD3, OBSERVATIONS, Box(-6e4, 6e4, (2,), np.float16)), "and their dtype"),
    (partial(TD3, OBSERVATIONS, Box(-3, 3, (2,), dtype=int)), "real actions"),
    (partial(TD3, Box(0, 1, (8, 8, 3)), ACTIONS), "observations that are vectors, or images of"),
    (partial(TD3, Box(0, 255, (8, 8, 8), np.uint8), ACTIONS), "8 channels of 8 x 8 or 8 of 8 x 8"),
    (lambda: make_agent().set_hp(batch_size=0), "batch_size"),
    (partial(create_population, 0, OBSERVATIONS, ACTIONS), "at least 1 agent"),
    (partial(create_population, 2.0, OBSERVATIONS, ACTIONS), "at least 1 agent"),
    *[
        (partial(ReplayBuffer, size, OBSERVATIONS, ACTIONS), "capacity")
        for size in (0, -1, 2.5, "10", None)
    ],
    (
        lambda: ReplayBuffer(9, OBSERVATIONS, ACTIONS).sample(4, np.random.default_rng(0)),
        "the memory is empty",
    ),
    (
        lambda: train(Run([], None), TournamentSelection(), Mutations(), TrainConfig()),
        "the run has 0 agents, but the tournament makes 4",
    ),
    (
        lambda: with_target(TrainConfig("Pendulum-v1")),
        "Pendulum-v1 has no reward_threshold: choose a target (--target)",
    ),
]


@pytest.mark.parametrize("wrong, words", LIBRARY_CALLS)
def test_a_wrong_call_raises_a_value_error_of_one_line(wrong, words):
    with pytest.raises(ValueError) as caught:
        wrong()
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_who_adds_a_hyper_parameter_has_the_others_checked_too():
    # As with `from __future__ import annotations`, the kind of the new one is a string.
    names = {"alpha": 0.2, "__annotations__": {"alpha": "float"}}
    extended = dataclass(frozen=True)(type("Extended", (HyperParams,), names))
    assert extended(alpha=0.5, gamma=0.9).alpha == 0.5
    with pytest.raises(ValueError, match="gamma must be a number from 0 to 1, not 2"):
        extended(gamma=2)
    strings = {name: kind.__name__ for name, kind in HyperParams.__annotations__.items()}
    copied = type("Copied", (HyperParams,), {"__annotations__": strings})
    assert dataclass(frozen=True)(copied)(lr_actor=0.5).lr_actor == 0.5
