"""Does evolution pay? `python benchmarks/learning.py` (days; stop it, and it resumes).

`PROTOCOL.md` beside this file says which questions are asked of which arms, with which seeds, and
how they are answered; it was written before the runs. An arm is data, in `ARMS`. Each run is kept
under `benchmarks/runs/` after every generation. `learning.csv` gets a row for each run that ended.
From it alone, `python benchmarks/learning.py --report` prints the tables of RESULTS.md and draws
its pictures. Needs the extras `bench` and `plot`.
"""

import argparse
import json
import math
import sys
import time
from concurrent.futures import as_completed
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from statistics import median

import numpy as np
import tables
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
MEMBERS = 4  # of a population, and of agents that fly side by side
SEEDS = {"G": range(100, 120), "U": range(120, 140)}  # the settings were chosen on others
NONE = Mutations(no_mutation=1, architecture=0, parameters=0, activation=0, rl_hp=0)


@dataclass(frozen=True)
class Arm:
    """What is flown."""

    size: int = MEMBERS  # that share a memory
    copies: int = 1  # such runs side by side, of which the first landing counts
    mutation: bool = True
    selection: bool = True
    members_counted: int | None = None  # members whose steps pay for updates; None: all there are


ARMS = {
    "evolution": Arm(),
    "no mutation": Arm(mutation=False),
    "no selection": Arm(mutation=False, selection=False),
    "four independent": Arm(size=1, copies=MEMBERS),
    "single": Arm(size=1),
    "single, all updates": Arm(size=1, members_counted=MEMBERS),
}
PICTURES = {  # of the share that landed: the arms in each
    "population": ("evolution", "no mutation", "no selection"),
    "rivals": ("evolution", "four independent", "single", "single, all updates"),
}
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73")  # after Okabe and Ito, for all eyes
QUESTIONS = {"G": "from good hyper-parameters", "U": "from unknown ones"}
COSTS = (  # what is counted in each generation
    "flights",  # all environment steps, those of evaluation and confirmation included
    "updates",  # gradient steps of all members together
    "processor",  # seconds, of all members together
    "clock",  # seconds, computed: of the slowest member of each generation, a core for each
)
COLUMNS = (
    "question",
    "arm",
    "seed",
    "landed",
    "steps",  # training steps of all members together, at the landing or the end
    *COSTS,
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
    population = create_population(MEMBERS, *spaces, settings.hp, config.seed, space, **network)
    members = population if arm.size == MEMBERS else [population[copy]]
    return Run(members, ReplayBuffer(config.memory_size, *spaces))


class Meter:
    """Counts what a run costs, as the `map` of its training."""

    def __init__(self, costs, members_counted):
        self.costs = costs  # by name, see `COSTS`
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
        self.folder, self.arm = RunFolder(path), arm
        self.ledger = path.with_suffix(".json")
        self.costs = json.loads(self.ledger.read_text()) if self.ledger.exists() else []
        # Side by side, each flies starts and noise of its own.
        seed = settings.config.seed if arm.copies == 1 else copy_seed(settings.config.seed, copy)
        self.settings = replace(settings, config=replace(settings.config, seed=seed))
        if (path / "population.pt").exists():
            self.run, kept = self.folder.load()
            if kept != self.settings:
                raise ValueError(f"{path} was begun with other settings: remove it")
        else:
            self.run = new_run(arm, settings, copy)
            # At once, for that locks the folder: no other process writes this run's costs.
            self.folder.save(self.run, self.settings)
        if len(self.costs) < self.run.generation:
            raise ValueError(f"{self.ledger} lacks what some generations cost: remove {path}")
        del self.costs[self.run.generation :]  # of a generation that was not kept
        self.diverged = False

    def go_on(self, tournament, mutations):
        """Fly a generation, and keep the run with what that cost."""
        costs, config = dict.fromkeys(COSTS, 0), self.settings.config
        until = min(self.run.steps + config.evo_steps, config.max_steps)
        try:
            with counted(costs):
                meter = Meter(costs, self.arm.members_counted)
                limit = replace(config, max_steps=until)
                self.run = train(self.run, tournament, mutations, limit, meter)
        except FloatingPointError:
            self.diverged = True
            return
        self.costs.append(costs)
        # First the costs, so that no generation is ever kept without them.
        self.ledger.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write(self.ledger, json.dumps(self.costs).encode())
        self.folder.save(self.run, self.settings)


def copy_seed(seed, copy):
    """The seed of one of several runs side by side."""
    return int(np.random.SeedSequence([seed, copy]).generate_state(1)[0])


def take_turns(flights, tournament, mutations, config):
    """Fly, a generation each in turn, until one has landed or all have flown their steps.

    Who diverges flies no further. Returns whether one has landed.
    """
    while True:
        landed = any(flight.run.best_return >= config.target for flight in flights)
        sound = [flight for flight in flights if not flight.diverged]
        steps = [flight.run.steps for flight in sound]
        level = not sound or min(steps) == max(steps)
        if level and (landed or not sound or steps[0] >= config.max_steps):
            return landed
        sound[steps.index(min(steps))].go_on(tournament, mutations)


def fly_arm(question, name, seed):
    """One run of an arm, from where it was left, to its landing or its last step; its row."""
    torch.set_num_threads(1)
    arm, settings = ARMS[name], SETTINGS[question]
    agents = arm.size * arm.copies
    look = settings.config.evo_steps * MEMBERS // agents  # after as many steps of all in each arm
    config = replace(settings.config, seed=seed, evo_steps=look, max_steps=STEPS // agents)
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
    # The costs of all copies, by generation; of one that diverged there are no more.
    zeros = dict.fromkeys(COSTS, 0)
    turns = list(zip_longest(*(flight.costs for flight in flights), fillvalue=zeros))
    costs = {name: sum(cost[name] for turn in turns for cost in turn) for name in COSTS}
    steps = sum(flight.run.steps for flight in flights) * arm.size
    episodes = {"episodes": 100, "seed": config.derived_seed(SCORE)}
    agent = best.best or best.population[0]  # who diverged in the first generation has no best
    final = evaluate(agent, config.env_id, **episodes).mean()
    return {
        "question": question,
        "arm": name,
        "seed": seed,
        "landed": landed,
        "steps": steps if landed else STEPS,
        "flights": costs["flights"],
        "updates": costs["updates"],
        "processor": round(costs["processor"], 1),
        "clock": round(sum(max(cost["clock"] for cost in turn) for turn in turns), 1),
        "confirmed": round(best.best_return, 2),
        "final": round(float(final), 2),
    }


def read_rows():
    """The rows of `learning.csv`, with their types."""
    rows = tables.read_rows(HERE / "learning.csv")
    for row in rows:
        row["landed"] = row["landed"] == "True"
        for name in ("seed", "steps", "flights", "updates"):
            row[name] = int(row[name])
        for name in ("processor", "clock", "confirmed", "final"):
            row[name] = float(row[name])
    return rows


def key(row):
    """Which run a row is of."""
    return row["question"], row["arm"], row["seed"]


def write_rows(rows):
    """Write `learning.csv`, in the order of questions, arms and seeds."""
    names = list(ARMS)
    rows.sort(key=lambda row: (row["question"], names.index(row["arm"]), row["seed"]))
    tables.write_rows(HERE / "learning.csv", COLUMNS, rows)


def report(rows):
    """The tables of RESULTS.md, as text: what each arm needs, and how evolution compares.

    They are compared when all seeds of all arms have flown: tests on the way find what is not
    there.
    """
    lines = []
    for question, title in QUESTIONS.items():
        arms = by_arm(rows, question, ARMS)
        if not arms:
            continue
        lines += [f"### {question}: {title}", "", *arm_table(arms)]
        flown = [{row["seed"] for row in own} == set(SEEDS[question]) for own in arms.values()]
        if len(arms) == len(ARMS) and all(flown):
            lines += ["", *rival_table(arms)]
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
        middle = steps_text(median(landing_costs(rows)))
        if len(rows) >= 5:  # an interval from fewer says nothing
            low, high = median_interval(landing_costs(rows))
            middle += f" ({low} to {high})"
        cells = [name, f"{len(landed)} of {len(rows)}", middle]
        least = "" if len(landed) == len(rows) else ">= "  # who did not land would need more
        cells += [f"{least}{median([row[name] for row in rows]):,.0f}" for name in COSTS]
        cells.append(f"{median([row['final'] for row in rows]):.0f}")
        each = [
            f"{row['seed']}: {steps_text(step)}" for row, step in zip(rows, landing_costs(rows))
        ]
        cells.append(", ".join(each))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def rival_table(arms):
    """A row for each rival of evolution: the tests of the protocol, and how often it is ahead."""
    counts = ("steps", "updates", "clock")
    heads = ["evolution against", *(f"{count} (log-rank)" for count in counts)]
    heads += ["share landed (Fisher)", "final (Mann-Whitney)"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    own = arms["evolution"]
    for name, rows in arms.items():
        if name != "evolution":
            cells = [name]
            for count in counts:
                share, low, high = share_sooner(own, rows, count)
                pairs = f"sooner in {share:.0%} of pairs, {low:.0%} to {high:.0%}"
                statistic, p = logrank(own, rows, count)
                place = "level"
                if statistic != 0:
                    place = "ahead" if statistic > 0 else "behind"
                cells.append(f"{place}, {p:.3g} ({pairs})")
            cells += [f"{test(own, rows):.3g}" for test in (fisher, mannwhitney)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def share_sooner(own, rival, count, draws=2000):
    """In which share of all pairs of runs the first one landed with less: (share, low, high).

    Two that landed with as much, or not at all, count as a half. The ends are of a 95 % bootstrap
    interval.
    """
    ours, theirs = (np.array(landing_costs(rows, count)) for rows in (own, rival))
    sooner = (ours[:, None] < theirs) + 0.5 * (ours[:, None] == theirs)  # a row for each of ours
    rng = np.random.default_rng(0)
    rows, columns = (rng.integers(size, size=(draws, size)) for size in sooner.shape)
    means = np.sort([sooner[np.ix_(*pair)].mean() for pair in zip(rows, columns)])
    return sooner.mean(), *(means[int(share * draws)] for share in (0.025, 0.975))


def landing_costs(rows, name="steps"):
    """What the landing of each run cost, infinity where it did not land."""
    return [row[name] if row["landed"] else math.inf for row in rows]


def steps_text(steps):
    """A number of steps as text, a dash for no landing."""
    return "-" if math.isinf(steps) else f"{steps:,.0f}"


def median_interval(values, draws=10_000):
    """The 95 % bootstrap interval of a median, as text."""
    rng = np.random.default_rng(0)
    samples = rng.choice(values, size=(draws, len(values)))
    medians = np.sort(np.median(samples, axis=1))  # of infinities too
    return tuple(steps_text(medians[int(share * draws)]) for share in (0.025, 0.975))


def logrank(own, rival, count="steps"):
    """A log-rank test of the steps, or of other costs, to a landing: (statistic, p-value).

    Runs without one are censored. The statistic is above 0 if `own` lands sooner, and 0 where
    nobody lands.
    """
    from scipy import stats

    if not any(row["landed"] for row in (*own, *rival)):
        return 0.0, 1.0
    samples = []
    for rows in (own, rival):
        ended = [row[count] for row in rows if row["landed"]]
        cut = [row[count] for row in rows if not row["landed"]]
        samples.append(stats.CensoredData(uncensored=ended, right=cut))
    result = stats.logrank(*samples)
    return result.statistic, result.pvalue


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
    parser.add_argument("--workers", type=tables.positive, default=2, help="processes (default: 2)")
    parser.add_argument("--report", action="store_true", help="fly nothing")
    args = parser.parse_args()
    unknown = set(args.seeds or ()).difference(*map(SEEDS.get, args.questions))
    if unknown:
        parser.error(f"no question that is asked has the seed {min(unknown)}")
    rows = read_rows()
    done = set(map(key, rows))
    tasks = [
        (question, arm, seed)
        for question in args.questions
        for seed in args.seeds or SEEDS[question]
        if seed in SEEDS[question]
        for arm in args.arms
    ]
    tasks = [task for task in tasks if task not in done and not args.report]
    if tasks:
        with worker_pool(args.workers) as pool:  # whose workers end with this process
            futures = [pool.submit(fly_arm, *task) for task in tasks]
            for future in as_completed(futures):
                row = future.result()
                # Anew, for another process may have added some, and this one too.
                rows = [other for other in read_rows() if key(other) != key(row)] + [row]
                write_rows(rows)
                print(row, flush=True)
    print(report(rows))
    draw_pictures(rows)


if __name__ == "__main__":
    main()
