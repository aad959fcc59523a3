"""What images cost, and that a population learns from them: `python benchmarks/images.py`.

First a population evolves on `probes:Spot-v0` (tests/probes.py), where the rewarded action is where
a bright pixel is: a line a generation, with the processor's seconds since it began. A policy that
sees nothing gets -0.40 there at best, one that sees everything 0. Then the time of one update on
CarRacing's observations.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

from tinyevo.buffer import ReplayBuffer  # noqa: E402
from tinyevo.environment import find_spaces  # noqa: E402
from tinyevo.population import create_population  # noqa: E402
from tinyevo.td3 import TD3, HyperParams  # noqa: E402
from tinyevo.train import Run, TrainConfig, train  # noqa: E402
from train_lunar import SETTINGS  # noqa: E402

CONFIG = TrainConfig(
    env_id="probes:Spot-v0",
    num_envs=8,
    max_steps=20_000,
    evo_steps=1_000,
    updates_for="own",
    eval_episodes=100,
    target=-0.02,
)
HP = HyperParams(learn_step=2, batch_size=64, reward_scale=1.0)
NETWORK = {"channels": (8, 16), "hidden_size": (64,)}


def evolve(seed, say=print):
    """The `Run` in which a population learns where the pixel is; a line a generation."""
    began = time.process_time()
    config = replace(CONFIG, seed=seed)
    spaces = find_spaces(config.env_id)
    population = create_population(4, *spaces, HP, seed, **NETWORK)
    run = Run(population, ReplayBuffer(config.memory_size, *spaces))

    def on_generation(run):
        seconds = time.process_time() - began
        fitness = " ".join(f"{agent.fitness[-1]:6.3f}" for agent in run.population)
        say(f"{run.steps:6d} steps each {seconds:6.1f} s  {fitness}  best {run.best_return:.3f}")

    mutations = replace(SETTINGS.mutations, activation=0.2, channel_steps=(2, 4))
    return train(run, SETTINGS.tournament, mutations, config, on_generation=on_generation)


def update_seconds(batch_size, device, updates=10):
    """Seconds of one update on CarRacing's observations, in the mean of some."""
    spaces = find_spaces("CarRacing-v3")
    agent = TD3(*spaces, HyperParams(batch_size=batch_size), (128, 128), device=device)
    memory, rng = ReplayBuffer(300, *spaces, device), np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 96, 96, 3), dtype=np.uint8)
    actions, rewards = rng.uniform(0, 1, (300, 3)), rng.normal(size=300)
    memory.add(images, actions, rewards, images, rng.random(300) < 0.1)
    agent.learn(memory.sample(batch_size, rng))
    began = time.perf_counter()
    for _ in range(updates):
        agent.learn(memory.sample(batch_size, rng))
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / updates


def main():
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        run = evolve(options.seed)
    except ValueError as error:
        parser.error(str(error))
    print("learned" if run.best_return >= CONFIG.target else "not learned")
    for batch_size in (32, 256):
        seconds = update_seconds(batch_size, options.device)
        print(f"CarRacing, batch of {batch_size}: {1000 * seconds:.0f} ms an update")


if __name__ == "__main__":
    main()
