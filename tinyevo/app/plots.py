"""See what evolution found: pictures of a run's fitness, its family tree and its hyper-parameters.

They need matplotlib. What can be clicked on is in report.html.

Mirrors the tutorial's section "Reading a run".
"""

import math
from contextlib import contextmanager

PICTURES = ("fitness", "family", "hyper_params")
KINDS = {  # of mutation: the colour and the name of each; after Okabe and Ito, for all eyes
    "none": ("#CCCCCC", "none"),
    "elite": ("#000000", "elite"),
    "architecture": ("#0072B2", "architecture"),
    "parameters": ("#CC79A7", "parameters"),
    "activation": ("#009E73", "activation"),
    "rl_hp": ("#D55E00", "hyper-parameter"),
    "restart": ("#F0E442", "restart"),
    "spared": ("#56B4E9", "spared"),
}
WINNER = {"color": "black", "linewidth": 4, "zorder": 2, "label": "the winner's line"}
BIRTH = {"color": "0.75", "linewidth": 1.2, "zorder": 1}
LOOK = {
    "font.size": 16,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "legend.frameon": False,
}


def plot_evolution(history, path, picture="fitness", hyper_params=()):
    """Draw one of `PICTURES` of a run's history, 16 to 9.

    "fitness" is that of all members over their steps, "family" the family tree, "hyper_params" the
    size of the networks and those of the columns named `hyper_params` that ever changed. In each,
    the line of descent of the last elite, the winner, is picked out. `history` is that of a `Run`
    with at least one generation; `path` names a file or is a binary file object. Raises
    ImportError if matplotlib is missing, or its settings are wrong.
    """
    members = {(row["generation"], row["id"]): row for row in history}
    births = [(_parent(row, members), row) for row in history if row["generation"] > 0]
    winner = [next(row for row in reversed(history) if row["elite"])]
    while winner[0]["generation"] > 0:
        winner.insert(0, _parent(winner[0], members))

    names = ["fitness"]
    if picture == "hyper_params":
        moved = [name for name in hyper_params if len({row[name] for row in history}) > 1]
        names = ["hidden nodes", *moved]
    columns = math.ceil(len(names) ** 0.5)
    grid = -(-len(names) // columns), columns
    with blank_figure(12.8, 7.2) as figure:
        if picture == "family":
            _plot_family(figure, history, births, winner)
        else:
            for place, name in enumerate(names, 1):
                _plot_column(figure.add_subplot(*grid, place), name, history, births, winner)
        figure.savefig(path, dpi=100)


@contextmanager
def blank_figure(width, height):
    """A matplotlib figure, in inches, in large type, whatever the user has set.

    Raises ImportError if matplotlib is missing, or its settings are wrong.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        what = "the picture of evolution needs matplotlib"
        raise ImportError(f"{what}: pip install matplotlib") from error
    except ValueError as error:  # of a setting, such as a notebook's MPLBACKEND
        raise ImportError(f"matplotlib cannot be imported: {error}") from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(LOOK)
        yield Figure(figsize=(width, height), layout="constrained")


def _parent(row, members):
    """The row, one generation earlier, of a member's parent; for the elite, of itself."""
    before = row["generation"] - 1
    return members.get((before, row["id"])) or members[before, row["parent_id"]]


def _plot_column(axes, name, history, births, winner):
    """A column of the history over the steps of the members, lines from parent to child."""

    def at(row):
        nodes = sum(map(int, row["hidden_size"].split("x")))
        return row["steps"], nodes if name == "hidden nodes" else row[name]

    for pair in births:
        axes.plot(*zip(*map(at, pair)), **BIRTH)
    axes.plot(*zip(*map(at, winner)), **WINNER)
    axes.scatter(*zip(*map(at, history)), s=25, color="0.5", zorder=3)
    axes.set(xlabel="steps of a member", title=name)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if name == "fitness":
        axes.legend()
        return
    axes.locator_params(axis="x", nbins=3)  # more would touch: there are other panels beside it
    values = sorted({at(row)[1] for row in history})
    if values[0] > 0:
        axes.set_yscale("log")  # as mutations multiply
    shown = values[:: -(-len(values) // 6)]
    axes.set_yticks(shown, [f"{value:.3g}" for value in shown])
    axes.minorticks_off()


def _plot_family(figure, history, births, winner):
    """A column for each generation, in it a dot for each member, the fittest on top.

    The winner's line has ids; the other members have them where there is room.
    """
    ranking = sorted(history, key=lambda row: (row["generation"], -row["fitness"]))
    generations = history[-1]["generation"] + 1
    size = len(history) // generations
    place = {(row["generation"], row["id"]): index % size for index, row in enumerate(ranking)}

    def at(row):
        return row["generation"], -place[row["generation"], row["id"]]

    axes = figure.subplots()
    occurring = {row["mutation_kind"] for row in history}
    for kind, (_, name) in KINDS.items():
        if kind in occurring:
            axes.plot([], [], **_edge(kind), linewidth=4, label=name)
    for pair in births:
        width = 6 if pair[1] in winner else 2
        axes.plot(*zip(*map(at, pair)), **_edge(pair[1]["mutation_kind"]), linewidth=width)
    is_roomy = size <= 12 and generations <= 20  # else ids would cover each other
    named = history if is_roomy else winner
    axes.scatter(*zip(*map(at, history)), s=300 if is_roomy else 40, color="0.85", zorder=2)
    ring = {"color": "white", "edgecolors": "black", "linewidths": 3}
    axes.scatter(*zip(*map(at, winner)), s=600, zorder=3, **ring)
    for row in named:
        axes.text(*at(row), row["id"], ha="center", va="center", zorder=4, fontsize=14)
    for row in winner:
        x, y = at(row)
        if row["mutation_kind"] not in ("none", "elite", "spared"):
            axes.plot([x, x], [y, 0.4], color="0.6", linestyle=":", zorder=0)
            text = f"{row['id']}: {row['mutation']}"
            axes.text(x, 0.4, text, rotation=25, va="bottom", fontsize=14)
    axes.set(
        xlabel="generation (broad: the line of the winner)", ylabel="the fittest on top", yticks=[]
    )
    axes.locator_params(axis="x", integer=True)
    figure.legend(loc="outside lower center", ncols=6, fontsize=14, handlelength=1.5)


def _edge(kind):
    """How an edge of the family tree looks: dashed where a member was merely carried over."""
    dashes = (0, (2, 1)) if kind in ("elite", "spared") else "-"
    return {"color": KINDS[kind][0], "linestyle": dashes, "zorder": 1}
