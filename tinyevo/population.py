"""Make a population, and show one.

Mirrors the tutorial's section "Creating a population of agents".
Leaves out: several algorithms or tasks in one population.
Needs: td3.py, networks.py, checkpoint.py.
"""

import numpy as np
import torch

from tinyevo.td3 import TD3, HyperParams


def create_population(
    population_size,
    observation_space,
    action_space,
    hp=HyperParams(),
    hidden_size=(64, 64),
    activation="relu",
    device="cpu",
    seed=0,
):
    """`population_size` agents with the ids 0, 1, ...: alike but for their initial weights, which all follow from `seed`.

    Raises ValueError for a size below 1 and for spaces that TD3 cannot handle.
    """
    if type(population_size) is not int or population_size < 1:
        raise ValueError(f"a population needs a whole number of at least 1 agent, not {population_size!r}")
    population = []
    for slot in range(population_size):
        word = np.random.SeedSequence(seed, spawn_key=(slot,)).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(word))
        agent = TD3(observation_space, action_space, hp, hidden_size, activation, device, generator)
        agent.id = slot
        population.append(agent)
    return population


def population_table(population, elite_id=None):
    """The population as text, one line per member; the elite's line is marked with a star.

    "mean 5" is the mean of the last five fitnesses of the member's lineage.
    """
    heads = ["", "id", "parent", "mutation", "fitness", "mean 5", "train", "steps", "hidden", "activation"]
    heads += ["lr actor", "lr critic", "batch", "learn step"]
    rows = [heads]
    for agent in population:
        hp = agent.hp
        rows.append(
            [
                "*" if agent.id == elite_id else "",
                f"{agent.id}",
                "-" if agent.parent_id is None else f"{agent.parent_id}",
                agent.mutation,
                f"{agent.fitness[-1]:.1f}" if agent.fitness else "-",
                f"{np.mean(agent.fitness[-5:]):.1f}" if agent.fitness else "-",
                f"{agent.train_return:.1f}",
                f"{agent.steps:,}",
                shape_text(agent.hidden_size),
                agent.activation,
                f"{hp.lr_actor:.2g}",
                f"{hp.lr_critic:.2g}",
                f"{hp.batch_size}",
                f"{hp.learn_step}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    left = {"", "mutation", "hidden", "activation"}
    lines = []
    for row in rows:
        cells = (cell.ljust(width) if head in left else cell.rjust(width) for head, cell, width in zip(heads, row, widths))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def shape_text(hidden_size):
    """Hidden sizes as text: (64, 96) is "64x96"."""
    return "x".join(map(str, hidden_size))
