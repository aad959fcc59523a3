"""What several test files need: small agents and batches, and ways to compare them."""

import numpy as np
import torch
from gymnasium.spaces import Box

from tinyevo.buffer import Batch
from tinyevo.td3 import TD3

OBSERVATIONS = Box(-np.inf, np.inf, (3,))
ACTIONS = Box(
    np.array([-1.0, 0.0], dtype=np.float32), np.array([1.0, 10.0], dtype=np.float32)
)  # not symmetric


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
