"""See it: a GIF of an agent flying, and a picture of what evolution found.

Mirrors the tutorial's sections "Saving test episodes as a GIF" and "Reading a run".
Leaves out: sound, video files and live windows.
Needs: nothing else; `plot_evolution` needs matplotlib. An agent here is anything with `get_action(observation)`.
"""

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np

KINDS = {  # of mutation, with their colours
    "none": "0.65",
    "elite": "0.2",
    "architecture": "tab:blue",
    "parameters": "tab:purple",
    "activation": "tab:green",
    "hyper-parameter": "tab:red",
}
DESCENT = {"color": "orange", "linewidth": 7, "alpha": 0.45, "solid_capstyle": "round", "zorder": 0}
LABEL = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
STRIDE = 3  # environment steps from one frame of the GIF to the next
FRAMES = 150  # most frames of one episode; a longer one shows fewer per second, at the same speed
PAUSE = 800  # milliseconds for which an episode's last frame stands still


def record_gif(agent, env_id, path, episodes=7, seed=0):
    """Fly `episodes` greedy episodes into a GIF at true speed and half size; returns their returns: (episodes,).

    Their starts follow from `seed`. Each episode ends with the frame of its last step.
    """
    env = gym.make(env_id, render_mode="rgb_array")
    step_time = 1000 / env.metadata.get("render_fps", 30)  # milliseconds
    frames, durations, returns = [], [], np.zeros(episodes)
    for episode, start in enumerate(np.random.SeedSequence(seed).generate_state(episodes).tolist()):
        flight = []
        obs, _ = env.reset(seed=start)
        steps, ended = 0, False
        while not ended:
            if steps % STRIDE == 0:
                flight.append(_half_size(env.render()))
            obs, reward, terminated, truncated, _ = env.step(agent.get_action(obs))
            returns[episode] += reward
            steps, ended = steps + 1, terminated or truncated
        flight.append(_half_size(env.render()))

        # Thin a long flight from its end, so that the last frame stays.
        every = -(-len(flight) // FRAMES)
        flight = flight[::-every][::-1]
        frames += flight
        durations += [every * STRIDE * step_time] * (len(flight) - 1) + [PAUSE]
    env.close()
    imageio.imwrite(path, frames, extension=".gif", duration=durations, loop=0)
    return returns


def _half_size(frame):
    """Average squares of two by two pixels: (height, width, 3) to (height // 2, width // 2, 3), uint8."""
    height, width = frame.shape[0] // 2, frame.shape[1] // 2
    squares = frame[: height * 2, : width * 2].reshape(height, 2, width, 2, 3)
    return squares.mean(axis=(1, 3)).astype(np.uint8)


def plot_evolution(history, path):
    """Draw a run's history (the rows of `TrainResult.history`) as a picture: fitness, family tree, hyper-parameters.

    The line of descent of the last elite is picked out. Raises ImportError if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "the picture of evolution needs matplotlib: pip install matplotlib"
        ) from error

    members = {(row["generation"], row["id"]): row for row in history}
    births = [(_parent(row, members), row) for row in history if row["generation"] > 0]
    descent = [next(row for row in reversed(history) if row["elite"])]
    while descent[0]["generation"] > 0:
        descent.insert(0, _parent(descent[0], members))
    columns = list(history[0])
    numbers = columns[
        columns.index("activation") + 1 : columns.index("elite")
    ]  # the hyper-parameters
    names = ["hidden nodes"] + [name for name in numbers if len({row[name] for row in history}) > 1]

    figure = Figure(figsize=(13, 12), layout="constrained")
    panels = figure.subplot_mosaic(
        [["fitness"] * len(names), ["tree"] * len(names), names], height_ratios=[3, 4, 2.5]
    )
    for name in ("fitness", *names):
        _plot_number(panels[name], name, history, births, descent)
    _plot_family_tree(panels["tree"], history, births, descent)
    figure.savefig(path, dpi=90)


def _parent(row, members):
    """The row, one generation earlier, of a member's parent; for the elite, of itself."""
    before = row["generation"] - 1
    return members.get((before, row["id"])) or members[before, row["parent_id"]]


def _plot_number(axes, name, history, births, descent):
    """A number of all members over their steps, lines from parent to child."""

    def at(row):
        nodes = sum(map(int, row["hidden_size"].split("x")))
        return row["steps"], nodes if name == "hidden nodes" else row[name]

    for parent, child in births:
        axes.plot(*zip(at(parent), at(child)), color="0.8", linewidth=1, zorder=1)
    axes.plot(*zip(*map(at, descent)), **DESCENT)
    axes.scatter(*zip(*map(at, history)), s=10, color="0.3", zorder=2)
    axes.set(xlabel="environment steps of a member", ylabel=name)
    axes.grid(alpha=0.3)


def _plot_family_tree(axes, history, births, descent):
    """A column for each generation, in it a node for each member, the fittest on top."""
    ranking = sorted(history, key=lambda row: (row["generation"], -row["fitness"]))
    size = len(history) // (history[-1]["generation"] + 1)
    place = {(row["generation"], row["id"]): -(index % size) for index, row in enumerate(ranking)}

    def at(row):
        return row["generation"], place[row["generation"], row["id"]]

    axes.plot(*zip(*map(at, descent)), **DESCENT)
    for parent, child in births:
        kind = child["mutation"].split()[0]
        axes.plot(
            *zip(at(parent), at(child)),
            color=KINDS.get(kind, KINDS["hyper-parameter"]),
            linewidth=1.8,
            zorder=1,
        )
    named = (
        history if history[-1]["generation"] <= 8 else descent
    )  # all mutations, if there is room
    for row in named:
        if row["mutation"] not in ("none", "elite"):
            x, y = at(row)
            text = row["mutation"].replace(" ", "\n", 1)
            axes.text(x, y - 0.2, text, fontsize=7, ha="center", va="top", bbox=LABEL, zorder=2)
    fitness = [row["fitness"] for row in history]
    dots = axes.scatter(
        *zip(*map(at, history)), c=fitness, s=230, cmap="RdYlGn", edgecolors="0.3", zorder=3
    )
    axes.figure.colorbar(dots, ax=axes, label="fitness", pad=0.01, aspect=30)
    for row in history:
        axes.text(*at(row), row["id"], fontsize=7, ha="center", va="center", zorder=4)
    for kind, color in KINDS.items():
        axes.plot([], [], color=color, linewidth=1.8, label=kind)
    axes.plot([], [], **DESCENT, label="descent of the last elite")
    axes.legend(ncols=len(KINDS) + 1, loc="upper center", bbox_to_anchor=(0.5, 0), frameon=False)
    axes.set_title(
        "family tree: a column for each generation, the fittest on top; an edge's colour is what mutated"
    )
    axes.set_ylim(0.5 - size, 0.3)
    axes.set_axis_off()
