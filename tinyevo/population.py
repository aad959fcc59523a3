"""Make a population, and describe a member as a row of a table.

Mirrors the tutorial's section "Creating a population of agents".
Leaves out: several algorithms or tasks in one population.
Needs: td3.py, networks.py, images.py, checkpoint.py, beside it in a folder `tinyevo`.
"""

import math
from dataclasses import asdict, replace

import numpy as np
import torch

from tinyevo.td3 import TD3, HyperParams, check_hp_space


def create_population(
    population_size,
    observation_space,
    action_space,
    hp=HyperParams(),
    seed=0,
    drawn_from=None,
    **network,
):
    """A list of `population_size` agents with the ids 0, 1, ..., alike but for their weights.

    The hyper-parameters that `drawn_from` names are not those of `hp`: each agent draws its own
    from that `RLParameter`. They and the weights follow from `seed`. `network` is passed on to each
    `TD3`: `hidden_size`, `activation`, `channels`, `device`. Raises ValueError for a size below 1,
    for ranges that `HyperParams` does not allow, and as `TD3` does.
    """
    if type(population_size) is not int or population_size < 1:
        raise ValueError(f"a population has at least 1 agent, not {population_size!r}")
    drawn_from = drawn_from or {}
    check_hp_space(hp, drawn_from)
    population = []
    for slot in range(population_size):
        # A generator each, so that drawing hyper-parameters does not change the weights.
        word = np.random.SeedSequence(seed, spawn_key=(slot,)).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(word))
        rng = np.random.default_rng([seed, slot])
        drawn = {name: limits.draw(rng) for name, limits in drawn_from.items()}
        own = replace(hp, **drawn)
        agent = TD3(observation_space, action_space, own, generator=generator, **network)
        agent.id = slot
        population.append(agent)
    return population


def member_row(agent):
    """A member as a row of a table: a dict.

    Its keys: `id`, `parent_id`, `mutation_kind`, `mutation` (lineage); `fitness` and
    `train_return` of its last generation (NaN before the first); `steps` of its lineage;
    `hidden_size` (as text, such as "64x64"), `activation`; and each hyper-parameter. With images
    also `channels`, as text.
    """
    row = {
        "id": agent.id,
        "parent_id": agent.parent_id,
        "mutation_kind": agent.mutation_kind,
        "mutation": agent.mutation,
        "fitness": agent.fitness[-1] if agent.fitness else math.nan,
        "train_return": agent.train_return,
        "steps": agent.steps,
        "hidden_size": "x".join(map(str, agent.hidden_size)),
        "activation": agent.activation,
        **asdict(agent.hp),
    }
    if agent.channels:
        row["channels"] = "x".join(map(str, agent.channels))
    return row
