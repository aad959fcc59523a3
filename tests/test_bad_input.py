"""What is wrong is answered in one line that says what and what to do, and nothing is written or
lost.

On the command line the exit status is 2; the library raises ValueError with the same sentence.
"""

import math
import os
from functools import partial

import numpy as np
import probes  # noqa: F401  registers the environments
import pytest
from common import ACTIONS, OBSERVATIONS, make_agent
from gymnasium.spaces import Box, Discrete
from script import call

from tinyevo.buffer import ReplayBuffer
from tinyevo.mutation import Mutations, RLParameter
from tinyevo.networks import EvolvableMLP
from tinyevo.population import create_population
from tinyevo.td3 import TD3, HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import TrainConfig, train

COMMAND_LINES = [
    (["--env", "LunarLanderContinuous-v2"], "v3"),
    (["--env", "LunarLander-v3"], "finite bounds"),
    (["--env", "Nonsense-v0"], "Nonsense"),
    (["--env", "nonsense:Nonsense-v0"], "nonsense"),
    (["--env", ""], "--env"),
    (["--env", "x" * 5000], "--env"),
    (["--env", "probes:Aim-v0"], "cannot be rendered: add --no-gif"),
    (["--env", "probes:Buttons-v0", "--no-gif"], "finite bounds"),
    (["--env"], "--env"),
    (["--device", "cuda:99"], "--device cuda:99 is not available"),
    (["--device", "meta"], "--device meta is not available"),
    (["--device", "toaster"], "--device toaster is not available"),
    (["--device", "0.5"], "--device 0.5 is not available"),
    (["--device", ""], "--device"),
    (["--seed", "-1"], "seed must be a whole number from 0 to inf, not -1"),
    (["--seed", "0.5"], "seed must be a whole number from 0 to inf, not 0.5"),
    (["--seed", "x"], "--seed"),
    (["--seed", "nan"], "seed must be"),
    (["--seed", "inf"], "seed must be"),
    (["--seed", ""], "--seed"),
    (["--max-steps", "0"], "max_steps must be a whole number from 8 to inf, not 0"),
    (["--max-steps", "7"], "max_steps must be a whole number from 8 to inf, not 7"),
    (["--max-steps=-1e6"], "max_steps"),
    (["--max-steps", "8.5"], "max_steps"),
    (["--max-steps", "many"], "--max-steps"),
    (["--max-steps", "nan"], "max_steps"),
    (["--max-steps", "inf"], "max_steps"),
    (["--max-steps", "1e999"], "max_steps"),
    (["--max-steps", ""], "--max-steps"),
    (["--evo-steps", "0"], "evo_steps must be a whole number from 8 to inf, not 0"),
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
    (["--target", "nan"], "target must be a number from -1000000000.0 to 1000000000.0, not nan"),
    (["--target=-inf"], "target must be a number"),
    (["--target", "high"], "--target"),
    (["--target", ""], "--target"),
    (["--targ", "5"], "--targ"),
    (["--out", "full"], "full is not empty"),
    (["--out", "file"], "file"),
    (["--out", "file/run"], "file"),
    (["--out", "x" * 5000], "name too long"),
    (["--out", ""], "--out"),
    (["--resume", "full"], "full/population.pt is missing"),
    (["--resume", "file"], "file/population.pt is missing"),
    (["--resume", "nowhere"], "nowhere/population.pt is missing"),
    (["--resume", ""], "--resume"),
    (["--resume", "full", "--out", "other"], "--out and --resume exclude each other"),
    (["--quick=1"], "--quick"),
    (["--no-gif", "no"], "no"),
    (["surprise"], "surprise"),
    ([""], "unrecognized"),
]

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
    (partial(TrainConfig, eval_episodes=10**9), "eval_episodes"),
    (partial(TrainConfig, noise="pink"), "noise must be 'ou' or 'gaussian'"),
    (partial(TrainConfig, noise_mean=math.nan), "noise_mean"),
    (partial(TrainConfig, noise_theta=math.inf), "noise_theta"),
    (partial(TrainConfig, noise_dt=-1.0), "noise_dt"),
    (
        partial(TrainConfig, noise_dt=14.0),
        "noise_dt must be a number from 0 to 1, not 14.0",
    ),  # the walk would explode
    (partial(TrainConfig, noise_dt="1"), "noise_dt"),
    (partial(TrainConfig, target=None), "target"),
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
    (partial(RLParameter, 2, 1), "min <= max"),
    (partial(RLParameter, 0, math.inf), "min <= max"),
    (partial(RLParameter, "0", "1"), "min <= max"),
    (partial(RLParameter, 0, 1, dtype=str), "int or float"),
    (partial(RLParameter, 1.5, 16, int), "whole if int"),
    (partial(RLParameter, 1, 16.5, int), "whole if int"),
    (partial(RLParameter, 0, 1, shrink_factor=1), "shrink"),
    (partial(RLParameter, 0, 1, grow_factor=math.nan), "shrink"),
    *[
        (partial(TournamentSelection, tournament_size=size), "tournament_size")
        for size in (0, -1, 1.5, "2", None)
    ],
    *[
        (partial(TournamentSelection, population_size=size), "population_size")
        for size in (0, 10**9, math.nan)
    ],
    (lambda: TournamentSelection().select([], np.random.default_rng(0)), "evaluate them first"),
    (
        lambda: TournamentSelection().select([make_agent()], np.random.default_rng(0)),
        "evaluate them first",
    ),
    (partial(EvolvableMLP, 3, 0), "whole sizes from 1 up"),
    (partial(EvolvableMLP, 3, 1, hidden_size=()), "a hidden layer or more"),
    (partial(EvolvableMLP, 3, 1, hidden_size=(8, 0)), "whole sizes"),
    (partial(EvolvableMLP, 3, 1, hidden_size=64), "hidden_size"),
    (partial(EvolvableMLP, 3, 1, activation="sine"), "unknown activation 'sine', choose from relu"),
    (lambda: EvolvableMLP(3, 1).add_nodes(5, 1, np.random.default_rng(0)), "no hidden layer 5"),
    (lambda: EvolvableMLP(3, 1).remove_nodes(0, 64, np.random.default_rng(0)), "whole sizes"),
    (
        lambda: EvolvableMLP(3, 1).remove_nodes(0, -2, np.random.default_rng(0)),
        "-2 nodes cannot be removed",
    ),
    (lambda: EvolvableMLP(3, 1, (8,)).remove_layer(), "a hidden layer or more"),
    (lambda: EvolvableMLP(3, 1).change_activation("sine"), "unknown activation"),
    (partial(TD3, OBSERVATIONS, Discrete(2)), "finite bounds"),
    (partial(TD3, OBSERVATIONS, Box(-np.inf, np.inf, (2,))), "finite bounds"),
    (partial(TD3, Box(0, 255, (8, 8, 3), np.uint8), ACTIONS), "vectors"),
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
        lambda: train([], None, TournamentSelection(), None, TrainConfig()),
        "0 agents are given, but the tournament makes 4",
    ),
]


@pytest.mark.parametrize("arguments, words", COMMAND_LINES)
def test_a_wrong_command_line_gets_one_line_exit_status_2_and_writes_nothing(
    tmp_path, monkeypatch, capsys, arguments, words
):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "history.csv").write_text("precious")
    (tmp_path / "file").write_text("precious")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, *arguments)
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1 and words in captured.err
    assert sorted(os.listdir(tmp_path)) == ["file", "full"] and os.listdir(tmp_path / "full") == [
        "history.csv"
    ]
    assert (
        (tmp_path / "full" / "history.csv").read_text()
        == (tmp_path / "file").read_text()
        == "precious"
    )


@pytest.mark.parametrize("wrong, words", LIBRARY_CALLS)
def test_a_wrong_call_raises_a_value_error_of_one_line(wrong, words):
    with pytest.raises(ValueError) as caught:
        wrong()
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_there_are_enough_of_them():
    assert len(COMMAND_LINES) + len(LIBRARY_CALLS) >= 60
