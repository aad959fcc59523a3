"""Does evolution pay? `python benchmarks/learning.py` (days; stop it, and it resumes).

`PROTOCOL.md` beside this file says which questions are asked of which arms, with which seeds, and
how they are answered; it was written before the runs. An arm is data, in `ARMS`. Each run is kept
under `benchmarks/runs/` after every generation. `learning.csv` gets a row for each run that ended.
From it alone, `python benchmarks/learning.py --report` prints the tables of RESULTS.md and draws
its pictures. Needs the extras `bench` and `plot`.
"""

import argparse
import csv
import io
import json
import math
import sys
import time
from concurrent.futures import as_completed
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from tinyevo import checkpoint
from tinyevo.app.plots import blank_figure
from tinyevo.app.runs import RunFolder, Settings
from tinyevo.app.workers import worker_pool
from tinyevo.buffer import ReplayBuffer
from tinyevo.environment import Guarded, find_spaces
from tinyevo.evaluate import evaluate
from tinyevo.mutation import Mutations
from tinyevo.population import create_population
from tinyevo.td3 import TD3
from tinyevo.tournament import TournamentSelection
from tinyevo.train import SCORE, Run, train

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from train_lunar import SETTINGS as PAGE  # noqa: E402

# What the arm "evolution" of each question flies; of its rivals, each differs in what `ARMS` says.
SETTINGS = {
    "G": PAGE,
    "U": Settings.from_json((HERE.parent / "settings" / "unknown.json").read_text()),
}

STEPS = 300_000  # training steps of all members together
SEEDS = {"G": range(100, 120), "U": range(120, 140)}  # the settings were chosen on others
NONE = Mutations(no_mutation=1, architecture=0, parameters=0, activation=0, rl_hp=0)


@dataclass(frozen=True)
class Arm:
    """What is flown."""

    size: int = 4  # members that share a memory
    copies: int = 1  # such runs side by side, of which the first landing counts
    mutation: bool = True
    selection: bool = True
    members_counted: int | None = None  # members whose steps pay for updates; None: all there are


ARMS = {
    "evolution": Arm(),
    "no mutation": Arm(mutation=False),
    "no selection": Arm(mutation=False, selection=False),
    "four independent": Arm(size=1, copies=4),
    "single": Arm(size=1),
    "single, all updates": Arm(size=1, members_counted=4),
}
PICTURES = {  # of the share that landed: the arms in each
    "population": ("evolution", "no mutation", "no selection"),
    "rivals": ("evolution", "four independent", "single", "single, all updates"),
}
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73")  # after Okabe and Ito, for all eyes
QUESTIONS = {"G": "from good hyper-parameters", "U": "from unknown ones"}
COLUMNS = (
    "question",
    "arm",
    "seed",
    "landed",
    "steps",  # training steps of all members together, at the landing or the end
    "flights",  # all environment steps, those of evaluation and confirmation included
    "updates",  # gradient steps of all members together
    "processor",  # seconds, of all members together
    "clock",  # seconds, computed: of the slowest member of each generation, a core for each
    "confirmed",  # the best confirmed mean return
    "final",  # that agent's mean return in 100 further episodes
)


class NoSelection(TournamentSelection):
    """Everybody goes on as they are."""

    def select(self, population, rng):
        """The elite, and copies of all members."""
        return self.elite(population).clone(), [agent.clone() for agent in population]


def new_run(arm, settings, copy):
    """The first generation of a run; copy k has the agent that member k of a population is.

    So the rivals' agents have the hyper-parameters of one member each, drawn or not.
    """
    config = settings.config
    spaces = find_spaces(config.env_id)
    space = settings.mutations.hp_space if config.draw_hp else {}
    network = vars(settings.network)
    population = create_population(4, *spaces, settings.hp, config.seed, space, **network)
    members = population if arm.size == 4 else [population[copy]]
    return Run(members, ReplayBuffer(config.memory_size, *spaces))


class Meter:
    """Counts what a run costs, as the `map` of its training."""

    def __init__(self, costs, members_counted):
        self.costs = costs  # by name: "flights", "processor", "clock"
        self.members_counted = members_counted

    def __call__(self, function, *arguments):
        """The results of a function for all of the arguments, one after another."""
        if self.members_counted and "members_counted" in function.keywords:
            function = partial(function, members_counted=self.members_counted)
        results, seconds = [], []
        for task in zip(*arguments):
            began = time.process_time()
            results.append(function(*task))
            seconds.append(time.process_time() - began)
        self.costs["processor"] += sum(seconds)
        self.costs["clock"] += max(seconds)
        return results


@contextmanager
def counted(costs):
    """Count every step of every environment and every update of every agent, in this process."""
    originals = Guarded.step, TD3.learn

    def step(env, action):
        costs["flights"] += 1
        return originals[0](env, action)

    def learn(agent, batch, generator=None):
        costs["updates"] += 1
        return originals[1](agent, batch, generator)

    Guarded.step, TD3.learn = step, learn
    try:
        yield
    finally:
        Guarded.step, TD3.learn = originals


class Flight:
    """One of the runs of an arm, from where it was left, and what each of its generations cost."""

    def __init__(self, path, arm, settings, copy):
        self.folder, self.settings, self.arm = RunFolder(path), settings, arm
        self.ledger = path.with_suffix(".json")
        self.costs = json.loads(self.ledger.read_text()) if self.ledger.exists() else []
        begun = (path / "population.pt").exists()
        self.run = self.folder.load()[0] if begun else new_run(arm, settings, copy)
        del self.costs[self.run.generation :]  # of a generation that was not kept

    def go_on(self, tournament, mutations, until):
        """Fly up to so many steps of a member, and keep the run with what that cost."""
        costs = {"flights": 0, "updates": 0, "processor": 0.0, "clock": 0.0}
        limit = replace(self.settings.config, max_steps=until)
        with counted(costs):
            meter = Meter(costs, self.arm.members_counted)
            self.run = train(self.run, tournament, mutations, limit, meter)
        self.costs.append(costs)
        # First the costs, so that no generation is ever kept without them.
        self.ledger.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write(self.ledger, json.dumps(self.costs).encode())
        self.folder.save(self.run, self.settings)


def take_turns(flights, tournament, mutations, config):
    """Fly, a generation each in turn, until one has landed or all have flown their steps.

    Returns whether one has landed.
    """
    while True:
        steps = [flight.run.steps for flight in flights]
        landed = any(flight.run.best_return >= config.target for flight in flights)
        if min(steps) == max(steps) and (landed or steps[0] >= config.max_steps):
            return landed
        until = min(min(steps) + config.evo_steps, config.max_steps)
        flights[steps.index(min(steps))].go_on(tournament, mutations, until)


def fly_arm(question, name, seed):
    """One run of an arm, from where it was left, to its landing or its last step; its row."""
    torch.set_num_threads(1)
    arm, settings = ARMS[name], SETTINGS[question]
    config = replace(settings.config, seed=seed, max_steps=STEPS // (arm.size * arm.copies))
    settings = replace(settings, config=config)
    choose = TournamentSelection if arm.selection else NoSelection
    tournament = choose(**{**vars(settings.tournament), "population_size": arm.size})
    mutations = settings.mutations if arm.mutation else NONE
    path = HERE / "runs" / f"{question}-{name.replace(' ', '-').replace(',', '')}-{seed}"
    flights = [Flight(path / str(copy), arm, settings, copy) for copy in range(arm.copies)]
    with ExitStack() as stack:
        for flight in flights:
            stack.enter_context(closing(flight.folder))
        landed = take_turns(flights, tournament, mutations, config)

    best = max((flight.run for flight in flights), key=lambda run: run.best_return)
    turns = list(zip(*(flight.costs for flight in flights)))  # of all copies, by generation
    costs = {key: sum(cost[key] for turn in turns for cost in turn) for key in turns[0][0]}
    episodes = {"episodes": 100, "seed": config.derived_seed(SCORE)}
    final = evaluate(best.best, config.env_id, **episodes).mean()
    return {
        "question": question,
        "arm": name,
        "seed": seed,
        "landed": landed,
        "steps": sum(flight.run.steps for flight in flights) * arm.size,
        "flights": costs["flights"],
        "updates": costs["updates"],
        "processor": round(costs["processor"], 1),
        "clock": round(sum(max(cost["clock"] for cost in turn) for turn in turns), 1),
        "confirmed": round(best.best_return, 2),
        "final": round(float(final), 2),
    }


def read_rows():
    """The rows of `learning.csv`, with their types."""
    if not (HERE / "learning.csv").exists():
        return []
    with (HERE / "learning.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["landed"] = row["landed"] == "True"
        for name in ("seed", "steps", "flights", "updates"):
            row[name] = int(row[name])
        for name in ("processor", "clock", "confirmed", "final"):
            row[name] = float(row[name])
    return rows


def write_rows(rows):
    """Write `learning.csv`, in the order of questions, arms and seeds."""
    names = list(ARMS)
    rows.sort(key=lambda row: (row["question"], names.index(row["arm"]), row["seed"]))
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    checkpoint.write(HERE / "learning.csv", text.getvalue().encode())


def report(rows):
    """The tables of RESULTS.md, as text: what each arm needs, and how evolution compares.

    Only arms of which all seeds have flown are compared: whoever tests on the way finds something.
    """
    lines = []
    for question, title in QUESTIONS.items():
        arms = by_arm(rows, question, ARMS)
        if not arms:
            continue
        lines += [f"### {question}: {title}", "", *arm_table(arms)]
        complete = {name: own for name, own in arms.items() if len(own) == len(SEEDS[question])}
        if "evolution" in complete and len(complete) > 1:
            lines += ["", *rival_table(complete)]
        lines += [""]
    return "\n".join(lines)


def by_arm(rows, question, names):
    """The rows of each of these arms that has some."""
    arms = {
        name: [row for row in rows if (row["question"], row["arm"]) == (question, name)]
        for name in names
    }
    return {name: own for name, own in arms.items() if own}


def arm_table(arms):
    """A row for each arm: landings, medians with intervals, and every seed."""
    heads = ("arm", "landed", "steps, median (95 %)", "all flights", "updates", "processor s")
    heads += ("clock s", "final return", "steps of each seed")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, rows in arms.items():
        landed = [row for row in rows if row["landed"]]
        middle = steps_text(median(landing_steps(rows)))
        if len(rows) >= 5:  # an interval from fewer says nothing
            low, high = median_interval(landing_steps(rows))
            middle += f" ({low} to {high})"
        cells = [name, f"{len(landed)} of {len(rows)}", middle]
        cells += [f"{median([row[key] for row in rows]):,.0f}" for key in ("flights", "updates")]
        cells += [f"{median([row[key] for row in rows]):,.0f}" for key in ("processor", "clock")]
        cells.append(f"{median([row['final'] for row in rows]):.0f}")
        each = [
            f"{row['seed']}: {steps_text(step)}" for row, step in zip(rows, landing_steps(rows))
        ]
        cells.append(", ".join(each))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def rival_table(arms):
    """A row for each rival of evolution: the p-values of the three tests of the protocol."""
    lines = [
        "| evolution against | steps (log-rank) | share landed (Fisher) | final (Mann-Whitney) |",
        "|---|---|---|---|",
    ]
    own = arms["evolution"]
    for name, rows in arms.items():
        if name != "evolution":
            values = [f"{test(own, rows):.3g}" for test in (logrank, fisher, mannwhitney)]
            lines.append(f"| {name} | {' | '.join(values)} |")
    return lines


def landing_steps(rows):
    """The steps to the landing of each run, infinity where it did not land."""
    return [row["steps"] if row["landed"] else math.inf for row in rows]


def steps_text(steps):
    """A number of steps as text, a dash for no landing."""
    return "-" if math.isinf(steps) else f"{steps:,.0f}"


def median_interval(values, draws=10_000):
    """The 95 % bootstrap interval of a median, as text."""
    rng = np.random.default_rng(0)
    samples = rng.choice(values, size=(draws, len(values)))
    medians = np.sort(np.median(samples, axis=1))  # of infinities too
    return tuple(steps_text(medians[int(share * draws)]) for share in (0.025, 0.975))


def logrank(own, rival):
    """The p-value of a log-rank test of the steps to a landing; runs without one are censored."""
    from scipy import stats

    samples = []
    for rows in (own, rival):
        ended = [row["steps"] for row in rows if row["landed"]]
        cut = [row["steps"] for row in rows if not row["landed"]]
        samples.append(stats.CensoredData(uncensored=ended, right=cut))
    return stats.logrank(*samples).pvalue


def fisher(own, rival):
    """The p-value of Fisher's exact test of the share that landed."""
    from scipy import stats

    counts = [
        [sum(row["landed"] is ended for row in rows) for ended in (True, False)]
        for rows in (own, rival)
    ]
    return stats.fisher_exact(counts).pvalue


def mannwhitney(own, rival):
    """The p-value of a Mann-Whitney test of the final returns."""
    from scipy import stats

    return stats.mannwhitneyu([row["final"] for row in own], [row["final"] for row in rival]).pvalue


def draw_pictures(rows):
    """Draw `PICTURES` of each question, 16 to 9: `learning-G-population.png` and so on."""
    for question in {row["question"] for row in rows}:
        for name, arms in PICTURES.items():
            with blank_figure(12.8, 7.2) as figure:
                draw_survival(figure.subplots(), by_arm(rows, question, arms))
                figure.savefig(HERE / f"learning-{question}-{name}.png", dpi=100)


def draw_survival(axes, arms):
    """The share of each arm's runs that landed, over steps; an arm's name is at its line's end."""
    ends = []
    for colour, (name, rows) in zip(COLOURS, arms.items()):
        steps = sorted(row["steps"] for row in rows if row["landed"])
        shares = [100 * count / len(rows) for count in range(len(steps) + 1)]
        x, y = [0, *steps, STEPS], [*shares, shares[-1]]
        axes.step(x, y, where="post", color=colour, linewidth=4)
        ends.append((y[-1], name, colour))
    # Names of lines that end together go below each other.
    height = math.inf
    for share, name, colour in sorted(ends, key=lambda end: -end[0]):
        height = min(share, height - 6)
        axes.text(STEPS * 1.01, height, name, color=colour, va="center")
    axes.set(xlabel="training steps of all members", ylabel="landed, % of the seeds", ylim=(0, 103))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def main():
    """Fly what is missing, two runs at a time, and write a row for each as it ends."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--questions", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", help="(default: all of each question)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--report", action="store_true", help="fly nothing")
    args = parser.parse_args()
    rows = read_rows()
    done = {(row["question"], row["arm"], row["seed"]) for row in rows}
    tasks = [
        (question, arm, seed)
        for question in args.questions
        for seed in args.seeds or SEEDS[question]
        for arm in args.arms
    ]
    tasks = [task for task in tasks if task not in done and not args.report]
    if tasks:
        with worker_pool(args.workers) as pool:  # whose workers end with this process
            futures = [pool.submit(fly_arm, *task) for task in tasks]
            for future in as_completed(futures):
                row = future.result()
                rows = [*read_rows(), row]  # anew, for another process may have added some
                write_rows(rows)
                print(row, flush=True)
    print(report(rows))
    draw_pictures(rows)


if __name__ == "__main__":
    main()
