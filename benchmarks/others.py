"""Other environments, beside Stable-Baselines3: `python benchmarks/others.py pendulum`.

Each run of ours has the settings of `settings/NAME.json`; each of Stable-Baselines3's TD3 has the
hyper-parameters that RL Baselines3 Zoo publishes (`hyperparams/td3.yml`, commit 22e3ff2). The rule
is the same for both: the greedy policy flies ten episodes now and then; where it is better than
before, a hundred fresh episodes confirm it; a run ends at the settings' target, or after the steps
of its settings, ours for each of four members. Seeds 0 to 4. `others.csv` gets a row for each run,
and what is there is not flown again. A run that was stopped is kept under `benchmarks/runs/` and
goes on from its last look: ours as if nothing had happened, theirs with a new episode.
"""

import argparse
import json
import math
import shutil
import time
from concurrent.futures import as_completed
from contextlib import closing
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from learning import Arm, Flight, take_turns
from tables import add_row, markdown, positive, read_rows

from tinyevo import checkpoint
from tinyevo.app.runs import Settings
from tinyevo.app.workers import worker_pool
from tinyevo.evaluate import evaluate
from tinyevo.train import CONFIRM, EVALUATE, SCORE, TRAIN

HERE = Path(__file__).parent
SEEDS = range(5)
ZOO = {  # by our settings' names: what differs from Stable-Baselines3's defaults, and the steps
    "pendulum": ({"gamma": 0.98, "buffer_size": 200_000, "learning_starts": 10_000}, 20_000),
    "mountain_car": ({"batch_size": 256}, 300_000),
    "bipedal_walker": (
        {"gamma": 0.98, "buffer_size": 200_000, "learning_starts": 10_000},
        1_000_000,
    ),
}
NOISE = {"pendulum": 0.1, "mountain_car": 0.5, "bipedal_walker": 0.1}  # its strength
OURS, THEIRS = "tinyevo", "stable-baselines3"
PATH = HERE / "others.csv"
COLUMNS = (
    "environment",
    "who",
    "seed",
    "reached the target",
    "steps of all",
    "processor s",
    "confirmed",
    "in 100 fresh episodes",
)


def settings_of(name, seed):
    """Our settings for an environment."""
    settings = Settings.from_json((HERE.parent / "settings" / f"{name}.json").read_text())
    return settings.changed({"seed": seed})


def run_path(name, who, seed):
    """Where a run is kept."""
    return HERE / "runs" / f"{name}-{who}-{seed}"


def fly_ours(name, seed):
    """Our run: (best agent, its confirmed mean return, steps of all members, processor seconds)."""
    settings = settings_of(name, seed)
    flight = Flight(run_path(name, OURS, seed), Arm(), settings, 0)
    with closing(flight.folder):
        take_turns([flight], settings.tournament, settings.mutations, settings.config)
    run, seconds = flight.run, sum(cost["processor"] for cost in flight.costs)
    return run.best, run.best_return, run.steps * len(run.population), seconds


class Greedy:
    """The policy of an agent of Stable-Baselines3, as `evaluate` asks for actions."""

    def __init__(self, agent):
        self.agent = agent

    def get_action(self, obs):
        """The greedy actions for a batch of observations."""
        return self.agent.predict(obs, deterministic=True)[0]


def new_agent(name, seed, env):
    """Their agent, as RL Zoo sets it up."""
    from stable_baselines3 import TD3
    from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

    kind = OrnsteinUhlenbeckActionNoise if name == "mountain_car" else NormalActionNoise
    size = env.action_space.shape[0]
    return TD3(
        "MlpPolicy",
        env,
        action_noise=kind(np.zeros(size), np.full(size, NOISE[name])),
        policy_kwargs={"net_arch": [400, 300]},
        train_freq=1,
        gradient_steps=1,
        learning_rate=1e-3,
        seed=seed,
        device="cpu",
        **ZOO[name][0],
    )


def keep(path, agent, progress):
    """Keep their run as a folder of its own, which is whole once `progress.json` is there."""
    folder = path / str(agent.num_timesteps)
    folder.mkdir(parents=True, exist_ok=True)
    agent.save(folder / "agent.zip")
    agent.save_replay_buffer(folder / "memory.pkl")
    checkpoint.write(folder / "progress.json", json.dumps(progress).encode())
    for other in path.iterdir():
        if other != folder:
            shutil.rmtree(other)


def kept(path, env):
    """Their run as it was last kept: (agent, progress); None if there is none."""
    from stable_baselines3 import TD3

    whole = [file.parent for file in path.glob("*/progress.json")]
    if not whole:
        return None
    folder = max(whole, key=lambda folder: int(folder.name))
    agent = TD3.load(folder / "agent.zip", env, device="cpu")
    agent.load_replay_buffer(folder / "memory.pkl")
    return agent, json.loads((folder / "progress.json").read_text())


def fly_theirs(name, seed):
    """Their run, looked at as often as ours.

    Returns (its last agent, the best confirmed mean, steps, processor seconds).
    """
    settings = settings_of(name, seed)
    config, most = settings.config, ZOO[name][1]
    env, path = gym.make(config.env_id), run_path(name, THEIRS, seed)
    begun = kept(path, env)
    agent, progress = begun or (new_agent(name, seed, env), {"best": -math.inf, "seconds": 0})
    every = config.evo_steps * settings.tournament.population_size
    if begun:  # loading has set the seed of the run's beginning
        agent.set_random_seed(config.derived_seed(TRAIN, agent.num_timesteps // every))
    while agent.num_timesteps < most and progress["best"] < config.target:
        began = time.process_time()
        turn = agent.num_timesteps // every
        agent.learn(min(every, most - agent.num_timesteps), reset_num_timesteps=False)
        tested, confirming = (config.derived_seed(use, turn) for use in (EVALUATE, CONFIRM))
        look = partial(evaluate, Greedy(agent), config.env_id, max_steps=config.eval_steps)
        if look(config.eval_episodes, tested).mean() > progress["best"]:
            returns = look(config.confirm_episodes, confirming)
            progress["best"] = max(progress["best"], float(returns.mean()))
        progress["seconds"] += time.process_time() - began
        keep(path, agent, progress)
    return Greedy(agent), progress["best"], agent.num_timesteps, progress["seconds"]


def fly(name, who, seed):
    """A row of the table."""
    torch.set_num_threads(1)
    fly_one = fly_ours if who == OURS else fly_theirs
    agent, confirmed, steps, processor = fly_one(name, seed)
    config = settings_of(name, seed).config
    final = evaluate(agent, config.env_id, 100, config.derived_seed(SCORE)).mean()
    reached = "yes" if confirmed >= config.target else "no"
    numbers = (f"{processor:.0f}", f"{confirmed:.1f}", f"{final:.1f}")
    return dict(zip(COLUMNS, (name, who, seed, reached, f"{steps:,}", *numbers)))


def report(rows, name):
    """The table of RESULTS.md for one environment."""
    own = [row for row in rows if row["environment"] == name]
    own.sort(key=lambda row: (row["who"] != OURS, int(row["seed"])))
    return markdown(COLUMNS[1:], [[row[column] for column in COLUMNS[1:]] for row in own])


def main():
    """Fly what is missing, two runs at a time, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=ZOO)
    parser.add_argument("--workers", type=positive, default=2)
    options = parser.parse_args()
    rows = read_rows(PATH)
    done = {(row["environment"], row["who"], int(row["seed"])) for row in rows}
    tasks = [
        (name, who, seed) for name in options.names for seed in SEEDS for who in (OURS, THEIRS)
    ]
    with worker_pool(options.workers) as pool:
        futures = [pool.submit(fly, *task) for task in tasks if task not in done]
        for future in as_completed(futures):
            rows = add_row(PATH, COLUMNS, future.result(), ("environment", "who", "seed"))
    for name in options.names:
        print(f"\n{name}\n\n{report(rows, name)}")


if __name__ == "__main__":
    main()
