"""What evolution buys, and what exploration buys: `python benchmarks/learning.py` (hours; stop it, and it goes on).

Each arm is the settings of `train_lunar.py` but for what `ARMS` says, and is run with the same seeds and the same
number of environment steps, summed over its population. Runs are kept under `benchmarks/runs/` after every generation;
a second call goes on where the first one stopped. Writes `learning.csv` and `learning.png` beside this file and prints
two tables.
"""

import argparse
import csv
import math
import statistics
import sys
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from tinyevo.buffer import ReplayBuffer
from tinyevo.mutation import Mutations
from tinyevo.population import create_population
from tinyevo.result import TrainResult
from tinyevo.train import train
from tinyevo.workers import worker_pool

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import train_lunar as script  # noqa: E402  its settings are the default arm

NO_MUTATION = Mutations(no_mutation=1, architecture=0, parameters=0, activation=0, rl_hp=0)
BOLD = replace(  # numbers move by factors of 2 instead of 1.25
    script.MUTATIONS,
    hp_space={
        name: replace(x, shrink_factor=0.5, grow_factor=2.0)
        for name, x in script.MUTATIONS.hp_space.items()
    },
)
BAD = {
    "lr_actor": 1e-4,
    "batch_size": 64,
    "learn_step": 8,
}  # numbers that nobody tuned: it learns too little
# What each changes: of the configuration, of the hyper-parameters, the mutations, the size of the
# population;
ARMS = {
    # "drawn" gives each member of the first generation hyper-parameters of its own, from
    # `draw_numbers`
    "default": {},
    "a single TD3": {"size": 1},  # that is the elite, which is never mutated
    "a single TD3, a quarter of the updates": {"size": 1, "hp": {"learn_step": 8}},
    "no mutation": {"mutations": NO_MUTATION},
    "original exploration": {"config": {"noise_dt": 0.01}, "hp": {"expl_noise": 0.1}},
    "Gaussian exploration": {
        "config": {"noise": "gaussian"},
        "hp": {"expl_noise": 0.57},
    },  # as strong as the default
    "memory of 10,000": {"config": {"memory_size": 10_000}},
    "bad numbers": {"hp": BAD},  # the population, with mutation
    "bad numbers, factors of 2": {"hp": BAD, "mutations": BOLD},
    "bad numbers, updates for everybody's steps": {
        "hp": BAD | {"learn_step": 2}
    },  # as many as the single TD3 makes
    "bad numbers, a single TD3": {"hp": BAD, "size": 1},
    "bad numbers, no mutation": {"hp": BAD, "mutations": NO_MUTATION},
    "drawn numbers": {"drawn": True},
    "drawn numbers, a single TD3": {"drawn": True, "size": 1},
    "drawn numbers, no mutation": {"drawn": True, "mutations": NO_MUTATION},
}
PANELS = {  # of the picture: how the names of its arms begin, and its title
    "": "from the numbers of train_lunar.py",
    "bad numbers": f"from bad numbers: {BAD}",
    "drawn numbers": "from numbers drawn at random for each member",
}


def draw_numbers(seed, slot):
    """A value of every evolvable hyper-parameter, log-uniform over its range: the guess of somebody who knows nothing.

    A single TD3 has the numbers of the population's first member.
    """
    rng, numbers = np.random.default_rng([seed, slot]), {}
    for name, space in script.MUTATIONS.hp_space.items():
        value = math.exp(rng.uniform(math.log(space.min), math.log(space.max)))
        numbers[name] = round(value) if space.dtype is int else value
    return numbers


def run_arm(arm, seed, steps):
    """One run of an arm, from where it was left; returns its rows of the table, and its history."""
    torch.set_num_threads(1)
    changes = ARMS[arm]
    size, mutations = (
        changes.get("size", script.TOURNAMENT.population_size),
        changes.get("mutations", script.MUTATIONS),
    )
    config = replace(script.CONFIG, seed=seed, max_steps=steps // size, **changes.get("config", {}))
    hp = replace(script.HP, **changes.get("hp", {}))
    path = HERE / "runs" / f"{arm.replace(' ', '-')}-{seed}.pt"
    if path.exists():
        result = TrainResult.load_checkpoint(path)
    else:
        with gym.make(config.env_id) as env:
            spaces = env.observation_space, env.action_space
        population = create_population(size, *spaces, hp, seed, **script.NETWORK)
        for agent in population if changes.get("drawn") else ():
            agent.set_hp(**draw_numbers(seed, agent.id))
        result = TrainResult(population, ReplayBuffer(config.memory_size, *spaces), {"rows": []})

    def on_generation(result):
        best = max(result.fitnesses[-1])
        row = {
            "arm": arm,
            "seed": seed,
            "steps": size * result.steps,
            "fitness": best,
            "confirmed": result.confirmed,
        }
        result.settings["rows"].append(row)
        result.save_checkpoint(path)

    tournament = replace(script.TOURNAMENT, population_size=size)
    train(
        result.population, result.memory, tournament, mutations, config, None, on_generation, result
    )
    return result.settings["rows"], result.history


def summarize(rows, target):
    """A line for each arm: how many seeds landed, and after how many steps."""
    print(
        "\n| arm | seeds that landed | steps to it, summed, median | each seed | best confirmed mean, median |"
    )
    print("|---|---|---|---|---|")
    for arm in ARMS:
        ends = list(
            {row["seed"]: row for row in rows if row["arm"] == arm}.values()
        )  # the last row of each seed
        if not ends:
            continue
        landed = [row["steps"] for row in ends if row["confirmed"] >= target]
        each = ", ".join(f"{row['steps']:,}" if row["confirmed"] >= target else "-" for row in ends)
        middle = statistics.median([*landed, *[float("inf")] * (len(ends) - len(landed))])
        best = statistics.median(row["confirmed"] for row in ends)
        print(f"| {arm} | {len(landed)} of {len(ends)} | {middle:,.0f} | {each} | {best:.0f} |")


def compare_with_parents(histories):
    """A line for each kind of mutation: the children's fitness after their generation, minus their parents' before."""
    print("\n| mutation | children | difference, median | share that fell |")
    print("|---|---|---|---|")
    differences = {}
    for history in histories:
        fitness = {(row["generation"], row["id"]): row["fitness"] for row in history}
        for row in history:
            kind = row["mutation"].split()[0]
            if row["generation"] > 0 and kind != "elite":
                difference = row["fitness"] - fitness[row["generation"] - 1, row["parent_id"]]
                kind = "a hyper-parameter" if kind in script.MUTATIONS.hp_space else kind
                differences.setdefault(kind, []).append(difference)
    for kind, values in differences.items():
        fell = sum(value < 0 for value in values) / len(values)
        print(f"| {kind} | {len(values)} | {statistics.median(values):+.0f} | {fell:.0%} |")


def find_takeover(history):
    """The first generation in which everybody descends from the same member of generation 0; None if there is none."""
    founder, left = {}, {}
    for row in history:
        founder.setdefault(row["id"], founder.get(row["parent_id"], row["id"]))
        left.setdefault(row["generation"], set()).add(founder[row["id"]])
    return next((generation for generation, founders in left.items() if len(founders) == 1), None)


def draw(rows, target, steps):
    """Best confirmed mean return over steps: the median of the seeds, their range, and where each landed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 16), layout="constrained")
    panels = dict(zip(PANELS, figure.subplots(len(PANELS))))
    for arm in ARMS:
        axes = panels.get(arm.split(",")[0], panels[""])
        colour = f"C{len(axes.lines)}"
        runs = {}
        for row in rows:
            if row["arm"] == arm:
                runs.setdefault(row["seed"], []).append(row)
        if not runs:
            continue
        grid = sorted({row["steps"] for run in runs.values() for row in run} | {steps})
        curves = [
            [max((r["confirmed"] for r in run if r["steps"] <= x), default=-300) for x in grid]
            for run in runs.values()
        ]
        columns = list(zip(*curves))
        axes.plot(
            grid,
            [statistics.median(column) for column in columns],
            color=colour,
            label=arm,
            linewidth=2,
        )
        axes.fill_between(
            grid, list(map(min, columns)), list(map(max, columns)), color=colour, alpha=0.08
        )
        ends = [run[-1] for run in runs.values() if run[-1]["confirmed"] >= target]
        axes.scatter(
            [end["steps"] for end in ends],
            [end["confirmed"] for end in ends],
            color=colour,
            zorder=3,
        )
    for axes, title in zip(panels.values(), PANELS.values()):
        axes.axhline(target, color="0.4", linestyle="--", linewidth=1)
        axes.set(
            xlabel="environment steps, summed over the population",
            ylabel="best confirmed mean return",
        )
        axes.set(
            xlim=(0, steps),
            ylim=(-200, 300),
            title=f"{title} (median and range over seeds; dots: landed)",
        )
        if axes.has_data():
            axes.legend(loc="lower right")
        axes.grid(alpha=0.3)
    figure.savefig(HERE / "learning.png", dpi=90)


def main():
    """Run what is missing, two at a time, then write, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="default: 0 1 2 3 4"
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="default: all")
    parser.add_argument(
        "--steps", type=int, default=300_000, help="summed over the population (default: 300000)"
    )
    args = parser.parse_args()
    (HERE / "runs").mkdir(exist_ok=True)
    tasks = [(arm, seed) for seed in args.seeds for arm in args.arms]
    rows, histories = [], {arm: {} for arm in args.arms}
    with worker_pool(2) as pool:  # whose workers end with this process, however it ends
        futures = {pool.submit(run_arm, *task, args.steps): task for task in tasks}
        for future in as_completed(futures):
            (arm, seed), (run, history) = futures[future], future.result()
            rows += run
            histories[arm][seed] = history
            print(arm, seed, run[-1], flush=True)
        pool.shutdown()  # in order: each worker's progress bar holds a semaphore
    rows.sort(key=lambda row: (list(ARMS).index(row["arm"]), row["seed"], row["steps"]))
    with (HERE / "learning.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    draw(rows, script.CONFIG.target, args.steps)
    summarize(rows, script.CONFIG.target)
    compare_with_parents(histories.get("default", {}).values())
    print("\n| arm | generation from which all descend from one founder, each seed |\n|---|---|")
    for arm, runs in histories.items():
        print(f"| {arm} | {', '.join(str(find_takeover(runs[seed])) for seed in args.seeds)} |")


if __name__ == "__main__":
    main()
