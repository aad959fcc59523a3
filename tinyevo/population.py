"""Make a population, and show one.

Mirrors the tutorial's section "Creating a population of agents".
Leaves out: several algorithms or tasks in one population.
Needs: td3.py, networks.py, checkpoint.py.
"""

import math
from dataclasses import asdict

import numpy as np
import torch

from tinyevo.td3 import TD3, HyperParams


def create_population(
    population_size, observation_space, action_space, hp=HyperParams(), seed=0, **network
):
    """`population_size` agents with the ids 0, 1, ...: alike but for their weights, which follow from `seed`.

    `network` is passed on to each `TD3`: `hidden_size`, `activation`, `device`. Raises ValueError for a size below 1
    and for spaces that TD3 cannot handle.
    """
    if type(population_size) is not int or population_size < 1:
        raise ValueError(
            f"a population needs a whole number of at least 1 agent, not {population_size!r}"
        )
    population = []
    for slot in range(population_size):
        word = np.random.SeedSequence(seed, spawn_key=(slot,)).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(word))
        agent = TD3(observation_space, action_space, hp, generator=generator, **network)
        agent.id = slot
        population.append(agent)
    return population


def member_row(agent):
    """What there is to know about a member, by name: its lineage, how it did, and all that evolution decides."""
    return {
        "id": agent.id,
        "parent_id": agent.parent_id,
        "mutation": agent.mutation,
        "fitness": agent.fitness[-1] if agent.fitness else math.nan,
        "train_return": agent.train_return,
        "steps": agent.steps,
        "hidden_size": "x".join(map(str, agent.hidden_size)),
        "activation": agent.activation,
        **asdict(agent.hp),
    }


LINE = "{:1} {:>4} {:>4} {:<39} {:>7} {:>7} {:>7} {:>8} {:>11} {:>5} {:>7} {:>7} {:>5} {:>2}"
HEADS = (
    "",
    "id",
    "from",
    "mutation",
    "fitness",
    "mean5",
    "train",
    "steps",
    "hidden",
    "act",
    "lr a",
    "lr c",
    "batch",
)


def population_table(population):
    """The population as text, one line per member; the fittest is marked with a star.

    "from" is the parent, "mean5" the mean of the last five fitnesses of the member's lineage, "train" the mean return
    of its training episodes, "lr a" and "lr c" the learning rates of actor and critics, "ls" the `learn_step`.
    """
    lines = [LINE.format(*HEADS, "ls")]
    best = max(population, key=lambda agent: agent.fitness[-1:])
    for agent in population:
        star, parent = (
            "*" if agent is best else "",
            "-" if agent.parent_id is None else agent.parent_id,
        )
        recent = agent.fitness[-5:] or [math.nan]
        returns = [f"{value:.1f}" for value in (recent[-1], np.mean(recent), agent.train_return)]
        network = [agent.steps, "x".join(map(str, agent.hidden_size)), agent.activation]
        numbers = [
            f"{agent.hp.lr_actor:.1e}",
            f"{agent.hp.lr_critic:.1e}",
            agent.hp.batch_size,
            agent.hp.learn_step,
        ]
        lines.append(
            LINE.format(star, agent.id, parent, agent.mutation, *returns, *network, *numbers)
        )
    return "\n".join(lines)
