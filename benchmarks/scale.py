"""What limits the size of a population: `python benchmarks/scale.py` (some minutes, one process).

One generation of 4, 8 and 16 members is flown, from the page's hyper-parameters and from drawn
ones, with updates for each one's own steps: a thousand members cannot afford them for everybody's.
A generation ends when its slowest member does, so the table says how long the others wait where
each has a core to itself, what is done between two generations, by one process for all, and how
many bytes travel. From these, a generation of 1,000 members on 250 machines of four cores is
computed, not measured.
"""

import argparse
import pickle
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from tables import markdown, write_rows  # noqa: E402

from tinyevo.app.runs import run_state  # noqa: E402
from tinyevo.buffer import ReplayBuffer  # noqa: E402
from tinyevo.checkpoint import dumps  # noqa: E402
from tinyevo.environment import find_spaces  # noqa: E402
from tinyevo.population import create_population  # noqa: E402
from tinyevo.train import Run, breed, train  # noqa: E402
from train_lunar import SETTINGS  # noqa: E402

SIZES = (4, 8, 16)
MEMBERS, MACHINES, CORES = 1_000, 250, 4  # of the computed cluster
BANDWIDTH = 125e6  # bytes a second, of each machine's network: 1 Gbit/s
WHOSE = {False: "the page's", True: "drawn"}
COLUMNS = (
    "members",
    "hyper-parameters",
    "mean s",  # of processor, of a member with its evaluation
    "slowest s",
    "waiting",  # the share of the cores' time until the slowest member has flown
    "rest s",  # of the main process: copies, sharing, selection, mutation, the file of the run
    "agent MB",  # on its way
    "experience MB",
)


def fly(size, drawn, steps):
    """What one generation of a new population of this size takes: a row of the table."""
    changes = {"evo_steps": steps, "max_steps": steps, "num_envs": 8, "updates_for": "own"}
    config = replace(SETTINGS.config, **changes)
    spaces = find_spaces(config.env_id)
    network = vars(SETTINGS.network)
    space = SETTINGS.mutations.hp_space if drawn else {}
    population = create_population(size, *spaces, SETTINGS.hp, config.seed, space, **network)
    seconds, sent = [], []

    def timed(function, *arguments):
        results = []
        for task in zip(*arguments):
            began = time.process_time()
            results.append(function(*task))
            seconds.append(time.process_time() - began)
        if len(results) == size and not sent:  # the flights; the confirmation comes after them
            sent.extend(len(pickle.dumps(part)) for part in results[0])
        return results

    run = Run(population, ReplayBuffer(size * config.evo_steps, *spaces))
    tournament = replace(SETTINGS.tournament, population_size=size)
    began = time.process_time()
    run = train(run, tournament, SETTINGS.mutations, config, timed)
    breed(run, tournament, SETTINGS.mutations, config)
    dumps(run_state(run, replace(SETTINGS, config=config, tournament=tournament)))
    rest = time.process_time() - began - sum(seconds)
    mean, slowest = statistics.mean(seconds[:size]), max(seconds[:size])
    agent, experience = (f"{part / 1e6:.2f}" for part in sent)
    numbers = (f"{mean:.1f}", f"{slowest:.1f}", f"{1 - mean / slowest:.0%}", f"{rest:.2f}")
    return dict(zip(COLUMNS, (size, WHOSE[drawn], *numbers, agent, experience)))


def computed(row):
    """Where a generation's time goes on the cluster: a dict of seconds by what they go to.

    The population of `row` stands for all: its mean and its slowest member; what one process does
    is in proportion to the members. Each process gets the memory once.
    """
    mean, slowest = float(row["mean s"]), float(row["slowest s"])
    agent, experience = (1e6 * float(row[name]) for name in ("agent MB", "experience MB"))
    rounds = MEMBERS / (MACHINES * CORES)
    return {
        "a member flies, in the mean": rounds * mean,
        "it waits for the slowest": rounds * (slowest - mean),
        "the memory reaches every process of a machine": CORES * MEMBERS * experience / BANDWIDTH,
        "members and experience pass through the main process": MEMBERS
        * (2 * agent + experience)
        / BANDWIDTH,
        "the main process works": float(row["rest s"]) * MEMBERS / int(row["members"]),
    }


def report(rows):
    """Both tables of RESULTS.md: what was measured, and what is computed from the last row."""
    seconds = [(what, f"{value:.0f}") for what, value in computed(rows[-1]).items()]
    return markdown(COLUMNS, [row.values() for row in rows]), markdown(("", "s"), seconds)


def main():
    """Fly, write `scale.csv`, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=SETTINGS.config.evo_steps)
    options = parser.parse_args()
    try:
        rows = [fly(size, drawn, options.steps) for drawn in (False, True) for size in SIZES]
    except ValueError as error:
        parser.error(str(error))
    write_rows(HERE / "scale.csv", COLUMNS, rows)
    print(*report(rows), sep="\n\n")


if __name__ == "__main__":
    main()
