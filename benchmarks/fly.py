"""How well agents fly, and how their flights end: `python benchmarks/fly.py runs/001/elite.pt ...`.

Flies each agent on the same 1,000 episodes, which no run of `train_lunar.py` uses, and prints a row
of a table for it.
"""

import argparse
from pathlib import Path

import numpy as np

from tinyevo.app.workers import worker_pool
from tinyevo.environment import find_spaces, make_env
from tinyevo.evaluate import episode_seeds, rollout
from tinyevo.td3 import TD3

ENV_ID, EPISODES, PARTS, SEED = "LunarLanderContinuous-v3", 1000, 10, 1_000_000


def load(path):
    """The agent in a file; ValueError if it is none that flies here."""
    agent = TD3.load_checkpoint(path)
    if (agent.observation_space, agent.action_space) != find_spaces(ENV_ID):
        raise ValueError(f"the agent in {path} is not one of {ENV_ID}")
    return agent


def fly(agent, part):
    """Some of the episodes: their returns, and how each ended."""
    seeds = episode_seeds(SEED + part, EPISODES // PARTS)
    envs = [make_env(ENV_ID) for _ in seeds]
    returns, ends = np.zeros(len(seeds)), [""] * len(seeds)
    for index, reward, terminated, truncated in rollout(agent, envs, seeds):
        returns[index] += reward
        if terminated:
            # LunarLander says -100 for a crash (or for flying out of sight), 100 for a landing.
            ends[index] = "crash" if reward == -100 else "landing"
        elif truncated:
            ends[index] = "time limit"
    return returns, ends


def main():
    """A row for each agent."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("agents", nargs="+", type=Path, help="files that save_checkpoint wrote")
    paths = parser.parse_args().agents
    try:
        agents = [load(path) for path in paths]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print("| agent | mean | lowest | crashes | time limits | return 200 or more |")
    print("|---|---|---|---|---|---|")
    with worker_pool(2) as pool:
        for path, agent in zip(paths, agents):
            try:
                parts = list(pool.map(fly, [agent] * PARTS, range(PARTS)))
            except FloatingPointError as error:
                parser.error(f"{path}: {error}")
            returns, ends = map(np.concatenate, zip(*parts))
            row = [path, f"{returns.mean():.1f} +- {returns.std():.1f}", f"{returns.min():.1f}"]
            row += [(ends == "crash").sum(), (ends == "time limit").sum()]
            row.append(f"{(returns >= 200).mean():.1%}")
            print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
