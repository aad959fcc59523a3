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
    """`population_size` agents with the ids 0, 1, ...: alike but for their weights, which follow from `seed`.

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

    "from" is the parent, "mean5" the mean of the last five fitnesses of the member's lineage, "train" the mean return
    of its training episodes, "lr a" and "lr c" the learning rates of actor and critics, "ls" the `learn_step`.
    """
    heads = ("", "id", "from", "mutation", "fitness", "mean5", "train", "steps", "hidden", "act", "lr a", "lr c")
    rows = [(*heads, "batch", "ls")]
    for agent in population:
        rows.append(
            (
                "*" if agent.id == elite_id else " ",
                str(agent.id),
                "-" if agent.parent_id is None else str(agent.parent_id),
                agent.mutation,
                f"{agent.fitness[-1]:.1f}" if agent.fitness else "-",
                f"{np.mean(agent.fitness[-5:]):.1f}" if agent.fitness else "-",
                f"{agent.train_return:.1f}",
                str(agent.steps),
                "x".join(map(str, agent.hidden_size)),
                agent.activation,
                f"{agent.hp.lr_actor:.1e}",
                f"{agent.hp.lr_critic:.1e}",
                str(agent.hp.batch_size),
                str(agent.hp.learn_step),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)
