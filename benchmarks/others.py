"""Other environments, beside Stable-Baselines3: `python benchmarks/others.py pendulum`.

Each run of ours has the settings of `settings/NAME.json`; each of Stable-Baselines3's TD3 has the
hyper-parameters that RL Baselines3 Zoo publishes (`hyperparams/td3.yml`, commit 22e3ff2). The rule
is the same for both: the greedy policy flies ten episodes now and then; where it is better than
before, a hundred fresh episodes confirm it; a run ends at the settings' target, or after the steps
of its settings, ours for each of four members. Seeds 0 to 4. `others.csv` gets a row for each run,
and what is there is not flown again.
"""

import argparse
import math
import time
from concurrent.futures import as_completed
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from tables import add_row, markdown, read_rows

from tinyevo.app.runs import Settings
from tinyevo.app.workers import worker_pool
from tinyevo.buffer import ReplayBuffer
from tinyevo.environment import find_spaces
from tinyevo.evaluate import evaluate
from tinyevo.population import create_population
from tinyevo.train import CONFIRM, EVALUATE, SCORE, Run, train

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


def fly_ours(name, seed):
    """Our run: (best agent, its confirmed mean return, steps of all members)."""
    settings = settings_of(name, seed)
    config, spaces = settings.config, find_spaces(settings.config.env_id)
    size = settings.tournament.population_size
    network = vars(settings.network)
    population = create_population(size, *spaces, settings.hp, seed, **network)
    run = Run(population, ReplayBuffer(config.memory_size, *spaces))
    run = train(run, settings.tournament, settings.mutations, config)
    return run.best, run.best_return, run.steps * size


class Greedy:
    """The policy of an agent of Stable-Baselines3, as `evaluate` asks for actions."""

    def __init__(self, agent):
        self.agent = agent

    def get_action(self, obs):
        """The greedy actions for a batch of observations."""
        return self.agent.predict(obs, deterministic=True)[0]


def fly_theirs(name, seed):
    """Their run, looked at as often as ours: (its last agent, the best confirmed mean, steps)."""
    from stable_baselines3 import TD3
    from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

    changes, most = ZOO[name]
    settings = settings_of(name, seed)
    config = settings.config
    env = gym.make(config.env_id)
    kind = OrnsteinUhlenbeckActionNoise if name == "mountain_car" else NormalActionNoise
    size = env.action_space.shape[0]
    agent = TD3(
        "MlpPolicy",
        env,
        action_noise=kind(np.zeros(size), np.full(size, NOISE[name])),
        policy_kwargs={"net_arch": [400, 300]},
        train_freq=1,
        gradient_steps=1,
        learning_rate=1e-3,
        seed=seed,
        device="cpu",
        **changes,
    )
    best, steps, look = -math.inf, 0, 0
    every = config.evo_steps * settings.tournament.population_size
    while steps < most and best < config.target:
        agent.learn(min(every, most - steps), reset_num_timesteps=False)
        steps = agent.num_timesteps
        tested, confirming = (config.derived_seed(use, look) for use in (EVALUATE, CONFIRM))
        if evaluate(Greedy(agent), config.env_id, 10, tested).mean() > best:
            returns = evaluate(Greedy(agent), config.env_id, 100, confirming)
            best = max(best, returns.mean())
        look += 1
    return Greedy(agent), best, steps


def fly(name, who, seed):
    """A row of the table."""
    torch.set_num_threads(1)
    began = time.process_time()
    fly_one = fly_ours if who == OURS else fly_theirs
    agent, confirmed, steps = fly_one(name, seed)
    processor = time.process_time() - began
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
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    rows = read_rows(PATH)
    done = {(row["environment"], row["who"], int(row["seed"])) for row in rows}
    tasks = [
        (name, who, seed) for name in options.names for seed in SEEDS for who in (OURS, THEIRS)
    ]
    with worker_pool(options.workers) as pool:
        futures = [pool.submit(fly, *task) for task in tasks if task not in done]
        for future in as_completed(futures):
            rows = add_row(PATH, COLUMNS, future.result())
    for name in options.names:
        print(f"\n{name}\n\n{report(rows, name)}")


if __name__ == "__main__":
    main()
