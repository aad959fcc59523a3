"""What limits the size of a population: `python benchmarks/scale.py` (some minutes, one process).

One generation of 4, 8 and 16 members is flown, from the page's hyper-parameters and from drawn
ones. A generation ends when its slowest member does, so the table says how long the others wait
where each has a core to itself, what is done between two generations, by one process for all, and
how many bytes travel. From these, a generation of 1,000 members on 250 machines of four cores is
computed, not measured.
"""

import argparse
import pickle
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from learning import draw_hp  # noqa: E402

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


@dataclass(frozen=True)
class Generation:
    """What one generation took."""

    members: list  # processor seconds of each, its evaluation included
    rest: float  # of the main process: copies, sharing, selection, mutation, the file of the run
    agent: int  # bytes of a member on its way
    records: int  # bytes of what a member experienced

    @property
    def waiting(self):
        """The share of the cores' time that passes in waiting for the slowest member."""
        return 1 - statistics.mean(self.members) / max(self.members)


def fly(size, drawn, steps, seed=0):
    """The `Generation` of a new population of this size."""
    config = replace(SETTINGS.config, evo_steps=steps, max_steps=steps, seed=seed)
    spaces = find_spaces(config.env_id)
    network = vars(SETTINGS.network)
    population = create_population(size, *spaces, SETTINGS.hp, seed, **network)
    if drawn:
        for agent in population:
            agent.set_hp(**draw_hp(SETTINGS.mutations.hp_space, seed, agent.id))
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
    total = time.process_time() - began
    return Generation(seconds[:size], total - sum(seconds), *sent)


def describe(size, drawn, done):
    """A row of the table."""
    cells = [f"{size}", "drawn" if drawn else "the page's"]
    cells += [f"{value:.1f}" for value in (statistics.mean(done.members), max(done.members))]
    cells += [f"{done.waiting:.0%}", f"{done.rest:.2f}"]
    cells += [f"{done.agent / 1e6:.2f}", f"{done.records / 1e6:.2f}"]
    return f"| {' | '.join(cells)} |"


def cluster(done, size):
    """Where a generation's time goes on the computed cluster: (what, seconds) each.

    The drawn population of `size` stands for all: its mean and its slowest member, what is done
    between generations in proportion to the members. Each process gets the memory once.
    """
    mean, slowest = statistics.mean(done.members), max(done.members)
    rounds = MEMBERS / (MACHINES * CORES)
    through = MEMBERS * (2 * done.agent + done.records)
    return {
        "a member flies, in the mean": rounds * mean,
        "it waits for the slowest": rounds * (slowest - mean),
        "the memory reaches every process of a machine": CORES * MEMBERS * done.records / BANDWIDTH,
        "members and experience pass through the main process": through / BANDWIDTH,
        "the main process works": done.rest * MEMBERS / size,
    }


def main():
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=SETTINGS.config.evo_steps)
    options = parser.parse_args()
    heads = ("members", "hyper-parameters", "mean s", "slowest s", "waiting", "rest s")
    heads += ("agent MB", "experience MB")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for drawn in (False, True):
        for size in SIZES:
            done = fly(size, drawn, options.steps)
            print(describe(size, drawn, done), flush=True)
    print(f"\n{MEMBERS} members on {MACHINES} machines of {CORES} cores, computed:\n")
    print("| | s |\n|---|---|")
    for what, seconds in cluster(done, size).items():
        print(f"| {what} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
