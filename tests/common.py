"""What several test files need: small agents, batches and runs, and ways to compare them."""

import numpy as np
import probes  # noqa: F401  registers the environments
import torch
from gymnasium.spaces import Box

from tinyevo.buffer import Batch, ReplayBuffer
from tinyevo.environment import find_spaces
from tinyevo.mutation import Mutations, RLParameter
from tinyevo.population import create_population
from tinyevo.td3 import TD3, HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import Run, TrainConfig, train

OBSERVATIONS = Box(-np.inf, np.inf, (3,))
ACTIONS = Box(
    np.array([-1.0, 0.0], dtype=np.float32), np.array([1.0, 10.0], dtype=np.float32)
)  # not symmetric

# A run of three generations that takes a fraction of a second.
TINY = TrainConfig(
    env_id="probes:Counting-v0",
    num_envs=3,
    max_steps=90,
    evo_steps=30,
    updates_for="own",
    memory_size=1000,
    eval_episodes=2,
    confirm_episodes=3,
    target=1e9,
)
SMALL = HyperParams(
    lr_actor=1e-4, batch_size=8, learn_step=1, reward_scale=1.0, tau=0.005, expl_noise=0.1
)
MUTATIONS = Mutations(
    hp_space={"learn_step": RLParameter(1, 4, int), "lr_actor": RLParameter(1e-4, 1e-2)},
    node_bounds=(4, 16),
    node_steps=(2,),
)


def make_agent(seed=0, **arguments):
    """A small agent whose weights follow from `seed`."""
    arguments = {"hidden_size": (8, 8), **arguments}
    return TD3(OBSERVATIONS, ACTIONS, generator=torch.Generator().manual_seed(seed), **arguments)


def make_batch(size=16, seed=0):
    """A random batch for `make_agent`."""
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.as_tensor(ACTIONS.low), torch.as_tensor(ACTIONS.high)
    return Batch(
        obs=torch.randn(size, 3, generator=generator),
        action=low + (high - low) * torch.rand(size, 2, generator=generator),
        reward=torch.randn(size, 1, generator=generator),
        next_obs=torch.randn(size, 3, generator=generator),
        terminated=torch.rand(size, 1, generator=generator) < 0.3,
    )


def learn(agent, updates=4, seed=0):
    """Some updates that follow from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    for number in range(updates):
        agent.learn(make_batch(seed=seed + number), generator)
    return agent


def setup(config=TINY, size=3, hp=SMALL, capacity=None):
    """A population and an empty memory for a configuration; `Run(*setup())` is a new run."""
    spaces = find_spaces(config.env_id)
    population = create_population(size, *spaces, hp, config.seed, hidden_size=(8,))
    return population, ReplayBuffer(capacity or config.memory_size, *spaces)


def run(config=TINY, size=3, mutations=MUTATIONS, start=None, options=None, **arguments):
    """The `Run` to which `train` leads from `start`; without one, from `setup`'s.

    `options` are keyword arguments of `train`, `arguments` those of `setup`.
    """
    start = start or Run(*setup(config, size, **arguments))
    tournament = TournamentSelection(2, True, len(start.population))
    return train(start, tournament, mutations, config, **options or {})


def text(run):
    """A run as text, to compare runs bit for bit."""
    agents = run.population if run.best is None else [*run.population, run.best]
    states = [flat(agent.state()) for agent in agents]
    numbers = run.steps, run.best_return, run.history
    return str((states, flat(run.memory.state()), *numbers))


def flat(state, name=""):
    """A state as one flat dict of its leaves, tensors as nested lists, NaN as text: equal agents
    give equal dicts.
    """
    if isinstance(state, dict):
        return {
            key: leaf
            for part, value in state.items()
            for key, leaf in flat(value, f"{name}.{part}").items()
        }
    if isinstance(state, (list, tuple)):
        return {
            key: leaf
            for index, value in enumerate(state)
            for key, leaf in flat(value, f"{name}.{index}").items()
        }
    if isinstance(state, torch.Tensor):
        return {name: str(state.tolist())}
    return {name: str(state)}


def same(agent, other):
    """Whether two agents are equal bit for bit, in everything."""
    return flat(agent.state()) == flat(other.state())


def tensors(agent):
    """Every tensor that makes an agent."""
    for name, network in agent.networks.items():
        yield from network.parameters()
        yield from agent.targets[name].parameters()
        for moments in agent.optimizers[name].state.values():
            yield from moments.values()
