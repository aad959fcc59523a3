"""Records what each planted bug does to learning: `python course/record_hunt.py [BUG ...]`.

For each bug, and for the healthy package (bug 0), a population of four learns to swing up a
pendulum from one seed, in a copy of the package that holds the bug. What a member is and does in
each generation goes into `course/hunt/BUG.csv`; a student sees it beside `healthy.csv`. The
settings are chosen so that many bugs show in a few minutes: four environments and an update for
every fifth step, so that credit is left over; much mutation; fitness of five episodes. Some bugs
show nothing here, because nothing diverges or nobody uses what they break: then the two tables are
equal, which is a finding too. Takes about a minute for each, in one process.
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import bugs

ROOT = Path(__file__).parent.parent
COLUMNS = ("generation", "id", "parent", "mutation", "fitness", "train", "updates", "value")


def fly(path):
    """Fly one population with the package that is imported, and write its table."""
    import numpy as np
    import torch

    from tinyevo.buffer import ReplayBuffer
    from tinyevo.environment import find_spaces
    from tinyevo.mutation import Mutations, RLParameter
    from tinyevo.population import create_population
    from tinyevo.td3 import HyperParams
    from tinyevo.tournament import TournamentSelection
    from tinyevo.train import Run, TrainConfig, train

    torch.manual_seed(0)  # only a bug reads the global generator
    config = TrainConfig(
        "Pendulum-v1",
        num_envs=4,
        max_steps=16_000,
        evo_steps=2_000,
        noise="gaussian",
        eval_episodes=5,
        confirm_episodes=1,
        target=0.0,
    )
    hp = HyperParams(
        lr_actor=1e-3, batch_size=64, learn_step=5, gamma=0.95, tau=0.02, expl_noise=0.2
    )
    space = {
        "lr_actor": RLParameter(1e-4, 1e-2),
        "lr_critic": RLParameter(1e-4, 1e-2),
        "learn_step": RLParameter(1, 16, int),
    }
    mutations = Mutations(
        no_mutation=0.2,
        architecture=0.2,
        new_layer_prob=0.5,
        parameters=0.1,
        activation=0.2,
        rl_hp=0.4,
        node_bounds=(16, 64),
        node_steps=(16,),
        hp_space=space,
    )
    spaces = find_spaces(config.env_id)
    population = create_population(4, *spaces, hp, hidden_size=(32, 32))
    rows = []

    def record(run):
        batch = run.memory.sample(256, np.random.default_rng(0))
        pairs = torch.cat([batch.obs, batch.action], -1).float()
        for agent in run.population:
            with torch.no_grad():
                value = agent.networks["critic"](pairs).mean().item() / hp.reward_scale
            cells = (run.generation - 1, agent.id, agent.parent_id, agent.mutation)
            numbers = (f"{number:.1f}" for number in (agent.fitness[-1], agent.train_return))
            rows.append((*cells, *numbers, agent.updates, f"{value:.1f}"))

    selection = TournamentSelection(2, True, 4)
    train(
        Run(population, ReplayBuffer(100_000, *spaces)),
        selection,
        mutations,
        config,
        on_generation=record,
    )
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


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
    for number in map(int, arguments or range(len(bugs.CATCHES) + 1)):
        record(number, ROOT / "course" / "hunt")
        print(f"recorded bug {number}" if number else "recorded the healthy package", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
