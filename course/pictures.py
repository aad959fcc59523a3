"""The pictures of the course, 16 to 9, as SVG and PNG: `python course/pictures.py FOLDER`.

What can be computed is computed, with the package itself; what was measured is read from a file.
Large type, and colours that colour-blind readers tell apart. Needs matplotlib (the extra `plot`).
"""

import argparse
import csv
import itertools
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tinyevo.app.plots import KINDS  # noqa: E402
from tinyevo.networks import EvolvableMLP  # noqa: E402
from tinyevo.noise import GaussianNoise, OrnsteinUhlenbeckNoise  # noqa: E402
from tinyevo.tournament import TournamentSelection  # noqa: E402

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#999999"
PALE = "#E8F1F8"
HISTORY = ROOT / "benchmarks" / "history-0.1.0.csv"
MEASURED = ROOT / "benchmarks" / "learning.csv"
ARMS = {  # that are drawn: by their name in the file, the one in the tutorial, and where it stands
    "U evolution": ("evolution", (170, 0.99)),
    "U single, all updates": ("single, all updates", (165, 0.755)),
    "U four independent": ("four independent", (218, 0.5)),
    "U single": ("single", (240, 0.34)),
}
LOOK = {
    "font.size": 20,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 3,
    "svg.hashsalt": "tinyevo",  # so that the same picture is the same file
}


# What is drawn


def agent_and_environment(figure):
    """The loop of an agent and its environment."""
    axes = blank(figure)
    box(axes, 0.05, 0.36, 0.3, 0.28, "agent", "its policy says\nwhat to do")
    box(axes, 0.65, 0.36, 0.3, 0.28, "environment", "gravity, engines,\nthe ground")
    arrow(axes, (0.2, 0.66), (0.8, 0.66), -0.35)
    arrow(axes, (0.8, 0.34), (0.2, 0.34), -0.35)
    axes.text(0.5, 0.95, "action", ha="center", size=28, color=BLUE, weight="bold")
    axes.text(0.5, 0.885, "how hard each engine pushes", ha="center")
    axes.text(0.5, 0.075, "observation and reward", ha="center", size=28, color=BLUE, weight="bold")
    axes.text(0.5, 0.015, "where it is now, and how good that was", ha="center")
    axes.text(0.5, 0.5, "one step", ha="center", va="center", size=24)


def lander(figure):
    """The lander with what it sees, what it does, and what it is paid for."""
    env = gym.make("LunarLanderContinuous-v3", render_mode="rgb_array")
    env.reset(seed=4)
    for step in range(70):
        env.step(np.float32([0.5 if step > 45 else 0, 0]))
    picture = env.render()
    env.close()
    axes = figure.add_axes([0.02, 0.3, 0.5, 0.68])
    axes.imshow(picture)
    axes.set_axis_off()
    axes = blank(figure)
    seen = ["x, y: place, the pad is (0, 0)", "vx, vy: speed", "tilt, and how fast it turns"]
    seen += ["left leg, right leg: on the ground?"]
    done = ["main engine: off up to 0,", "then from 50 % to 100 %"]
    done += ["side engines: off from -0.5 to 0.5,", "then from 50 % to 100 %"]
    texts = [(0.98, "8 observations", seen), (0.65, "2 actions, from -1 to 1", done)]
    for top, head, lines in texts:
        axes.text(0.54, top, head, size=25, weight="bold", color=BLUE, va="top")
        for number, line in enumerate(lines):
            axes.text(0.54, top - 0.075 - 0.06 * number, line, size=21, va="top")
    axes.text(0.54, 0.31, "reward", size=25, weight="bold", color=BLUE, va="top")
    paid = ["nearer, slower, upright: +", "a leg on the ground: +10 (lifted: -10)"]
    paid += ["fuel: -0.3 and -0.03 a step", "at rest +100, crashed -100"]
    for number, line in enumerate(paid):
        axes.text(0.54, 0.235 - 0.058 * number, line, size=21, va="top")
    dead_zones(figure.add_axes([0.05, 0.09, 0.42, 0.17]))


def dead_zones(axes):
    """A bar for each action: grey where the engine is off."""
    for row, (name, off) in enumerate({"main": [(-1, 0)], "side": [(-0.5, 0.5)]}.items()):
        axes.barh(-row, 2, left=-1, height=0.6, color=BLUE)
        for low, high in off:
            axes.barh(-row, high - low, left=low, height=0.6, color="#CCCCCC")
            axes.text((low + high) / 2, -row, "off", ha="center", va="center", size=18)
        axes.text(-1.08, -row, name, ha="right", va="center", size=18)
    axes.set(xlim=(-1.35, 1.05), yticks=[], xticks=[-1, -0.5, 0, 0.5, 1])
    axes.tick_params(labelsize=18)
    axes.spines[["left"]].set_visible(False)


NOISES = {  # by name: a class, and its mean, sigma and the rest
    "OU, sigma 0.3, dt 1": (OrnsteinUhlenbeckNoise, 0.0, 0.3, 0.15, 1.0),
    "Gaussian, sigma 0.57": (GaussianNoise, 0.0, 0.57),
    "OU, sigma 0.1, dt 0.01 (often copied)": (OrnsteinUhlenbeckNoise, 0.0, 0.1, 0.15, 0.01),
}


def noise_walks(name, walks=1, steps=300, seed=0):
    """Walks of one of `NOISES` side by side, each from its mean: (steps, walks)."""
    kind, *settings = NOISES[name]
    process, rng = kind(walks, 1, *settings), np.random.default_rng(seed)
    return np.array([process.sample(rng)[:, 0] for _ in range(steps)])


def firing(walks):
    """The share of steps in which a side engine fires, and the mean length of a burst in steps."""
    fires = np.abs(walks) > 0.5  # (steps, walks)
    bursts = fires[0].sum() + (fires[1:] & ~fires[:-1]).sum()
    return fires.mean(), fires.sum() / max(bursts, 1)


def noise(figure):
    """Three kinds of exploration around a policy that does nothing, and the dead zone."""
    for axes, name, colour in zip(
        figure.subplots(3, sharex=True, sharey=True), NOISES, (BLUE, ORANGE, GREEN)
    ):
        share, length = firing(noise_walks(name, walks=2000))
        path = noise_walks(name, steps=200, seed=3)
        axes.axhspan(-0.5, 0.5, color="#E4E4E4")
        axes.plot(path, color=colour, linewidth=2.5)
        what = f"fires in {100 * share:.0f} % of steps, in bursts of {length:.1f} steps"
        axes.set_title(
            f"{name}: a side engine {what if share > 0.001 else 'as good as never fires'}",
            loc="left",
            size=20,
        )
        axes.set(ylim=(-2.2, 2.2), yticks=[-0.5, 0.5], xlim=(0, len(path)), ylabel="noise")
    axes.set_xlabel("step (grey: the side engines' dead zone; shares of 2,000 walks of 300 steps)")


def overestimation_curves(updates=400, actions=10, gamma=0.9, rate=0.1, runs=300):
    """What one and what two critics believe the best action to be worth; in truth it is 0.

    One state, actions whose rewards are N(0, 1) and which all lead back to it. Returns (updates,)
    for one critic and for two, of which the smaller counts.
    """
    rng = np.random.default_rng(0)
    believed = []
    for critics in (1, 2):
        q = np.zeros((critics, runs, actions))
        curve = []
        for _ in range(updates):
            best = q[0].argmax(axis=1)
            future = q[:, np.arange(runs), best].min(axis=0)  # (runs,)
            rewards = rng.normal(
                size=(critics, runs, actions)
            )  # each critic has a batch of its own
            q += rate * (rewards + gamma * future[:, np.newaxis] - q)
            curve.append(future.mean())
        believed.append(np.array(curve))
    return believed


def overestimation(figure):
    """Over-estimation with one critic and with two."""
    axes = figure.subplots()
    one, two = overestimation_curves()
    for curve, colour, name in ((one, ORANGE, "one critic"), (two, BLUE, "the smaller of two")):
        axes.plot(curve, color=colour, linewidth=5)
        axes.text(len(curve) * 1.01, curve[-1], name, color=colour, va="center", weight="bold")
    axes.axhline(0, color="black", linestyle="--")
    axes.text(len(one) * 1.01, 0, "the truth", va="center" if abs(two[-1]) > 0.4 else "bottom")
    axes.set(
        xlabel="updates", ylabel="believed value of the best action", xlim=(0, len(one) * 1.38)
    )
    axes.set_title(
        "Ten actions, each worth 0, with noisy rewards: the largest belief is too large", size=20
    )
    axes.set_xticks([0, 100, 200, 300, 400])


def autoreset(figure):
    """What the steps after an episode's end return, in two modes of Gymnasium."""
    axes = blank(figure)
    end, ignored = "+100, terminated", "0, action ignored"
    stored = "a naive loop stores s8 → s0, which never happened"
    found = 'the last observation, s8, is in infos["final_obs"]'
    rows = [
        (0.7, "NEXT_STEP: " + stored, ["s7", "s8", "s0", "s1"], [end, ignored], 2),
        (0.26, "SAME_STEP: " + found, ["s7", "s0", "s1", "s2"], [end, ""], 1),
    ]
    for y, head, states, said, odd in rows:
        axes.text(0.03, y + 0.23, head, size=20, weight="bold")
        for index, state in enumerate(states):
            x = 0.05 + 0.24 * index
            colour = "#F6D9C6" if index == odd else PALE
            look = {"facecolor": colour, "edgecolor": "black", "linewidth": 2}
            axes.add_patch(Rectangle((x, y - 0.04), 0.17, 0.2, **look))
            axes.text(x + 0.085, y + 0.06, state, ha="center", va="center", size=28)
            if index == odd:
                axes.text(x + 0.085, y + 0.125, "new episode", ha="center", va="center", size=18)
            if index:
                arrow(axes, (x - 0.07, y + 0.06), (x, y + 0.06), 0)
        for index, word in enumerate(said, 1):
            axes.text(0.135 + 0.24 * index, y - 0.08, word, ha="center", va="center")
    axes.text(
        0.03, 0.03, "orange: the first observation of the next episode, where a loop goes wrong"
    )


def growth(figure):
    """The weights into and out of a hidden layer that grew from 8 nodes to 12."""
    import torch

    network = EvolvableMLP(8, 4, (8,), generator=torch.Generator().manual_seed(1))
    grown = network.add_nodes(0, 4, np.random.default_rng(1))
    panels = [
        ("into the layer (new columns: random)", "input", "hidden node", (7.5, -0.5), (4, 8)),
        ("out of the layer (new rows: 0)", "hidden node", "output", (-0.5, 7.5), (4, 4)),
    ]
    grid = figure.subplots(1, 2, width_ratios=[12, 8])
    for axes, weights, (title, down, across, corner, size) in zip(grid, grown.weights, panels):
        matrix = weights[0].detach().numpy()  # (inputs, outputs), as in the code
        image = axes.imshow(matrix, cmap="PuOr", vmin=-0.4, vmax=0.4)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=GREEN, linewidth=6))
        ticks = [[0, 7, 8, 11] if length == 12 else [0, length - 1] for length in matrix.shape]
        axes.set(xlabel=across, ylabel=down, yticks=ticks[0], xticks=ticks[1])
        axes.set_title(title, size=20)
    bar = figure.colorbar(image, ax=figure.axes, shrink=0.8, ticks=[-0.4, 0, 0.4])
    bar.set_label("weight")


def member(id, fitness):
    """What a tournament needs to know of an agent."""
    agent = SimpleNamespace(id=id, parent_id=None, fitness=[fitness], founder=id)
    agent.is_finite = lambda: True
    agent.mutation_kind = agent.mutation = "none"

    def clone():
        twin = member(agent.id, agent.fitness[-1])
        twin.founder = agent.founder
        return twin

    agent.clone = clone
    return agent


def selection_probabilities(size=4, rivals=2, draws=4000):
    """The probability to become the parent of a child, for each rank: by formula, and counted."""
    formula = [
        math.comb(size - rank, rivals - 1) / math.comb(size, rivals) for rank in range(1, size + 1)
    ]
    population = [member(id, -float(id)) for id in range(size)]  # the member 0 is the fittest
    selection = TournamentSelection(rivals, False, 1000)
    rng, counts = np.random.default_rng(0), np.zeros(size)
    for _ in range(draws // 1000):
        for child in selection.select(population, rng)[1]:
            counts[child.parent_id] += 1
    return np.array(formula), counts / counts.sum()


def selection(figure):
    """Who becomes a parent: the formula against the package, for three sizes of a tournament."""
    for axes, rivals in zip(figure.subplots(1, 3, sharey=True), (1, 2, 4)):
        formula, counted = selection_probabilities(rivals=rivals)
        axes.bar(range(1, 5), counted, color=PALE, edgecolor=BLUE, linewidth=2, label="4,000 draws")
        axes.plot(range(1, 5), formula, "o", color=ORANGE, markersize=14, label="formula")
        axes.set_title(f"tournaments of {rivals}", size=22)
        axes.set(xlabel="rank (1: the fittest)", xticks=[1, 2, 3, 4])
    figure.axes[0].set_ylabel("share of the places fought for\n(the elite's own place not counted)")
    figure.axes[0].legend()


def founders_left(generations=12, populations=400, heritable=False):
    """How many founders of 4 have descendants, in the mean, after each generation.

    The fitness is chance alone, or, if it is heritable, mostly that of the founder.
    """
    rng, left = np.random.default_rng(0), np.zeros(generations + 1)
    tournament = TournamentSelection(2, True, 4)
    for _ in range(populations):
        members = [member(id, 0.0) for id in range(4)]
        worth = rng.normal(size=4) * (2 if heritable else 0)
        left[0] += 4
        for generation in range(1, generations + 1):
            for one in members:
                one.fitness = [worth[one.founder] + rng.normal()]
            members = tournament.select(members, rng)[1]
            left[generation] += len({one.founder for one in members})
    return left / populations


def takeover(figure):
    """How soon all members descend from one founder, though nobody is better."""
    axes = figure.subplots()
    for heritable, colour, look, name in (
        (False, ORANGE, "s--", "fitness is pure chance"),
        (True, BLUE, "o-", "founders differ"),
    ):
        left = founders_left(heritable=heritable)
        axes.plot(left, look, color=colour, markersize=11, label=name)
    axes.axhline(1, color="black", linewidth=1)
    axes.set(
        xlabel="generation",
        ylabel="founders with descendants",
        yticks=[1, 2, 3, 4],
        ylim=(0.8, 4.2),
    )
    axes.set_title("One founder takes over within a few generations, also by luck alone", size=21)
    axes.legend()


def changes_by_kind(history):
    """The fitness of each child minus that of its parent one generation before, by kind."""
    fitness = {(row["generation"], row["id"]): float(row["fitness"]) for row in history}
    changes = {kind: [] for kind in KINDS}
    for row in history:
        before = str(int(row["generation"]) - 1)
        parent = fitness.get((before, row["id"]), fitness.get((before, row["parent_id"])))
        if parent is not None:
            changes[row["mutation_kind"]].append(float(row["fitness"]) - parent)
    return changes


def mutation_effects(figure, histories=(HISTORY,)):
    """What a mutation does to fitness, by its kind."""
    changes = {kind: [] for kind in KINDS}
    for path in histories:
        for kind, values in changes_by_kind(read(path)).items():
            changes[kind] += values
    changes = {kind: values for kind, values in changes.items() if values}
    whose = "a run of version 0.1.0, seed 0" if HISTORY in histories else "the runs given"
    axes, rng = figure.subplots(), np.random.default_rng(0)
    axes.axhline(0, color="black", linewidth=1.5)
    for place, (kind, values) in enumerate(changes.items()):
        colour, _ = KINDS[kind]
        spread = place + rng.uniform(-0.15, 0.15, len(values))
        axes.scatter(spread, values, s=130, color=colour, edgecolors="black", zorder=2)
        if len(values) >= 5:  # the median of fewer tells nothing
            axes.hlines(np.median(values), place - 0.3, place + 0.3, color="black", linewidth=5)
    names = [
        f"{KINDS[kind][1].replace('-', '-' + chr(10))}\n({len(values)})"
        for kind, values in changes.items()
    ]
    axes.set_xticks(range(len(changes)), names, size=17)
    axes.set(
        xlabel="what mutated (number of members)",
        ylabel="change of fitness",
        xlim=(-0.5, len(changes) - 0.5),
    )
    axes.set_title(
        "Fitness minus the parent's, or an elite's own, one generation before\n"
        f"({whose}; bar: the median of five or more)",
        size=20,
    )


def arm_name(row):
    """The arm of a row of a benchmark."""
    return " ".join(filter(None, (row.get("question"), row["arm"])))


def landed_share(rows, target=200.0):
    """By arm, the (steps, share of seeds that had landed by then), each a list.

    Where a table has several questions, an arm is called by both, "G evolution".
    """
    shares = {}
    for arm, group in itertools.groupby(sorted(rows, key=arm_name), arm_name):
        group = list(group)
        seeds = {row["seed"] for row in group}
        landings = {}
        for row in group:
            if float(row["confirmed"] or "-inf") >= target:
                landings[row["seed"]] = min(landings.get(row["seed"], math.inf), int(row["steps"]))
        steps = sorted(landings.values())
        most = max(int(row["steps"]) for row in group)
        shares[arm] = (
            [0, *steps, most],
            [*(np.arange(len(steps) + 1) / len(seeds)), len(steps) / len(seeds)],
        )
    return shares


def landings(figure, measured=MEASURED, arms=ARMS):
    """Which share of the seeds had landed after how many steps, for arms of a benchmark."""
    axes, rows = figure.subplots(), read(measured)
    shares = landed_share(rows)
    shown = [arm for arm in arms if arm in shares] or list(shares)[:6]
    styles = zip((BLUE, ORANGE, GREEN, PINK, "black", GREY), ("-", "--", "-.", ":", "-", "--"))
    for arm, (colour, style) in zip(shown, styles):
        steps, share = shares[arm]
        name, place = arms.get(arm, (arm, (steps[-1] / 1000, share[-1])))
        axes.step(np.array(steps) / 1000, share, colour, where="post", linestyle=style, linewidth=5)
        axes.text(*place, name, color=colour, weight="bold", va="center", size=18)
    seeds = {row["seed"] for row in rows if arm_name(row) == shown[0]}
    axes.set(xlabel="thousand environment steps of all members", ylim=(-0.03, 1.03))
    axes.set_ylabel(f"share of {len(seeds)} seeds that landed")


PICTURES = [
    agent_and_environment,
    lander,
    noise,
    overestimation,
    autoreset,
    growth,
    selection,
    takeover,
    mutation_effects,
    landings,
]


# How it is drawn


def blank(figure):
    """Axes over the whole figure, from 0 to 1, in which nothing is drawn yet."""
    axes = figure.add_axes([0, 0, 1, 1])
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()
    return axes


def box(axes, x, y, width, height, head, text):
    """A box with a head and a text."""
    shape = FancyBboxPatch(
        (x, y),
        width,
        height,
        boxstyle="round,pad=0.01",
        facecolor=PALE,
        edgecolor=BLUE,
        linewidth=3,
    )
    axes.add_patch(shape)
    axes.text(
        x + width / 2, y + height * 0.68, head, ha="center", va="center", size=30, weight="bold"
    )
    axes.text(x + width / 2, y + height * 0.28, text, ha="center", va="center")


def arrow(axes, start, end, bend):
    """An arrow from one point to another."""
    style = {"arrowstyle": "-|>", "mutation_scale": 34, "linewidth": 4, "color": "black"}
    axes.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **style))


def read(path):
    """The rows of a file of comma-separated values."""
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def draw(picture, folder, **data):
    """Draw one of `PICTURES` into a folder, as SVG and PNG."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(LOOK)
        free = picture in (agent_and_environment, lander, autoreset)
        figure = Figure(figsize=(12.8, 7.2), layout=None if free else "constrained")
        picture(figure, **data)
        for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 100})):
            figure.savefig(Path(folder) / f"{picture.__name__}.{kind}", **options)


def main():
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--histories", nargs="+", type=Path, default=[HISTORY], help="history.csv of runs"
    )
    parser.add_argument(
        "--measured", type=Path, default=MEASURED, help="a table of benchmarks/learning.py"
    )
    arguments = parser.parse_args()
    data = {
        mutation_effects: {"histories": arguments.histories},
        landings: {"measured": arguments.measured},
    }
    try:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        for picture in PICTURES:
            draw(picture, arguments.folder, **data.get(picture, {}))
    except OSError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
