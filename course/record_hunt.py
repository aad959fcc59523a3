"""Records what each planted bug does to learning: `python course/record_hunt.py [BUG ...]`.

For each bug, and for the healthy package (bug 0), a population of four learns to swing up a
pendulum from one seed, in a copy of the package that holds the bug. What a member is and does in
each generation goes into `course/hunt/BUG.csv`; a student sees it beside `healthy.csv`. All fly by
the same settings, which are chosen so that every bug shows. An update for every third step of four
environments leaves credit over. Training and evaluation stop after 100 steps, so that time limits
are frequent. The critic learns ten times faster than the policy. Mutations are frequent, and whole
numbers begin small. And besides the run itself the members and the memory are probed (`again`,
`stride`, `smoothing`, `ends`, `jump`). Takes about half a minute for each, in one process.
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import bugs
from hunt import COLUMNS

ROOT = Path(__file__).parent.parent


def settings():
    """How the population flies: arguments of `TrainConfig`, `HyperParams`, and `Mutations`."""
    from tinyevo.mutation import RLParameter

    config = {
        "env_id": "Pendulum-v1",
        "seed": 0,
        "num_envs": 4,
        "max_steps": 10_000,
        "evo_steps": 1_000,
        "updates_for": "own",
        "noise": "gaussian",
        "train_episode_steps": 100,
        "eval_episodes": 10,
        "eval_steps": 100,
        "confirm_episodes": 1,
        "target": 0.0,
    }
    hp = {
        "lr_actor": 3e-4,
        "lr_critic": 3e-3,
        "batch_size": 64,
        "learn_step": 3,
        "gamma": 0.97,
        "tau": 0.02,
        "expl_noise": 0.2,
    }
    mutations = {
        "no_mutation": 0.2,
        "architecture": 0.2,
        "new_layer_prob": 0.7,
        "parameters": 0.0,
        "activation": 0.25,
        "rl_hp": 0.35,
        "layer_bounds": (2, 4),
        "node_bounds": (16, 64),
        "node_steps": (16,),
        "hp_space": {
            "lr_critic": RLParameter(1e-3, 1e-2),
            "learn_step": RLParameter(2, 16, int),
        },
    }
    return config, hp, mutations


def fly(path):
    """Fly one population with the package that is imported, and write its table."""
    import torch

    from tinyevo.buffer import ReplayBuffer
    from tinyevo.environment import find_spaces
    from tinyevo.mutation import Mutations
    from tinyevo.population import create_population
    from tinyevo.td3 import HyperParams
    from tinyevo.tournament import TournamentSelection
    from tinyevo.train import Run, TrainConfig, train

    torch.manual_seed(0)  # only a bug reads the global generator
    config, hp, mutations = settings()
    config, hp, mutations = TrainConfig(**config), HyperParams(**hp), Mutations(**mutations)
    spaces = find_spaces(config.env_id)
    run = Run(
        create_population(4, *spaces, hp, hidden_size=(32, 32)), ReplayBuffer(100_000, *spaces)
    )
    rows = []

    def record(run):
        memory = probed_memory(run.memory)
        rows.extend(cells(agent, run, config) | memory for agent in run.population)

    train(run, TournamentSelection(2, True, 4), mutations, config, on_generation=record)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def cells(agent, run, config):
    """What the table tells of a member in a run, but for the memory: a dict."""
    from tinyevo.evaluate import evaluate

    again = evaluate(agent, config.env_id, 20, run.generation, config.eval_steps).mean()
    value, stride, smoothing = probed_update(agent, run.memory)
    return {
        "generation": run.generation - 1,
        "id": agent.id,
        "parent": agent.parent_id,
        "mutation": agent.mutation,
        "fitness": f"{agent.fitness[-1]:.1f}",
        "again": f"{again:.1f}",
        "train": f"{agent.train_return:.1f}",
        "learn_step": agent.hp.learn_step,
        "updates": agent.updates,
        "activation": agent.activation,
        "value": f"{value:.1f}",
        "stride": f"{stride:.3f}",
        "smoothing": f"{smoothing:.3f}",
    }


def probed_update(agent, memory):
    """What one update of a copy of an agent shows: its critic's value, stride and smoothing."""
    import numpy as np
    import torch

    agent, batch = agent.clone(), memory.sample(256, np.random.default_rng(0))
    critic, target = agent.networks["critic"], agent.targets["critic"]
    with torch.no_grad():
        value = critic(batch.obs, batch.action).mean().item() / agent.hp.reward_scale
    policy = agent.targets["actor"](batch.next_obs).detach()  # in half-ranges
    before = [weight.detach().clone() for weight in critic.parameters()]
    asked = []
    target.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[1]))
    agent.learn(batch, torch.Generator().manual_seed(0))
    smoothing = ((asked[0] - agent.middle) / agent.half_range - policy).abs().mean().item()
    moves = [(new - old).abs() for new, old in zip(critic.parameters(), before)]
    stride = torch.cat([move.ravel() for move in moves]).mean().item() / agent.hp.lr_critic
    return value, stride, smoothing


def probed_memory(memory):
    """What the transitions of a memory show: how many end an episode, and the largest jump."""
    import numpy as np

    stored = memory.latest(len(memory))
    jumps = np.linalg.norm(stored["next_obs"] - stored["obs"], axis=1)
    return {"ends": stored["terminated"].sum(), "jump": f"{jumps.max():.1f}"}


def record(number, folder):
    """Record one bug, 0 for none, in a copy of the package that is in a folder of its own."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(ROOT / "tinyevo", Path(copy, "tinyevo"))
        if number:
            bug = bugs.read(ROOT)[number - 1]
            path = Path(copy, bug["file"])
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(bug["old"] + "\n", bug["new"] + "\n"), encoding="utf-8")
        target = folder / ("healthy.csv" if number == 0 else f"{number}.csv")
        environment = os.environ | {"PYTHONPATH": copy, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--fly", str(target)]
        subprocess.run(command, cwd=copy, env=environment, check=True)


def main(arguments):
    """The command."""
    if arguments[:1] == ["--fly"]:
        return fly(arguments[1])
    numbers = [str(number) for number in range(len(bugs.CATCHES) + 1)]
    if unknown := set(arguments) - set(numbers):
        sys.exit(f"record_hunt.py: there is no bug {min(unknown)}, only 0 to {numbers[-1]}")
    for number in map(int, arguments or numbers):
        record(number, ROOT / "course" / "hunt")
        print(f"recorded bug {number}" if number else "recorded the healthy package", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
