"""See it: a GIF of an agent flying, and a picture of what evolution found.

Mirrors the tutorial's sections "Saving test episodes as a GIF" and "Reading a run".
Leaves out: sound, video files and live windows.
Needs: nothing else; `plot_evolution` needs matplotlib. An agent here is anything with `get_action(observation)`.
"""

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np

STRIDE = 3  # environment steps from one frame of the GIF to the next
FRAMES = 150  # most frames of one episode; a longer one shows fewer per second, at the same speed
PAUSE = 800  # milliseconds for which an episode's last frame stands still


def record_gif(agent, env_id, path, episodes=7, seed=0):
    """Fly `episodes` greedy episodes into a GIF at true speed and half size; returns their returns: (episodes,).

    Their starts follow from `seed`. Each episode ends with the frame of its last step.
    """
    env = gym.make(env_id, render_mode="rgb_array")
    step_time = 1000 / env.metadata["render_fps"]  # milliseconds
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
        raise ImportError("the picture of evolution needs matplotlib: pip install 'tinyevo[plot]'") from error

    generations = {}
    for row in history:
        generations.setdefault(row["generation"], {})[row["id"]] = row
    births = [(_parent(row, generations), row) for row in history if row["generation"] > 0]
    line = _line_of_descent(history, generations)
    names = _evolved(history)

    figure = Figure(figsize=(13, 12), layout="constrained")
    fitness, tree, *numbers = figure.subplot_mosaic(
        [["fitness"] * len(names), ["tree"] * len(names), names], height_ratios=[3, 4, 2.5]
    ).values()
    _plot_fitness(fitness, history, births, line)
    _plot_family_tree(figure, tree, history, births, line)
    for axes, name in zip(numbers, names):
        _plot_number(axes, name, history, births, line)
    figure.savefig(path, dpi=90)


KINDS = {  # of mutation: their colours, by the first word of what `agent.mutation` says
    "none": "0.65",
    "elite": "0.2",
    "architecture": "tab:blue",
    "parameters": "tab:purple",
    "activation": "tab:green",
    "hyper-parameter": "tab:red",
}
DESCENT = {"color": "orange", "linewidth": 7, "alpha": 0.45, "solid_capstyle": "round", "zorder": 0}


def _kind(row):
    word = row["mutation"].split()[0]
    if word in ("add_layer", "remove_layer", "add_nodes", "remove_nodes"):
        return "architecture"
    return word if word in KINDS else "hyper-parameter"


def _parent(row, generations):
    """The row, one generation earlier, of a member's parent; for the elite, of itself."""
    before = generations[row["generation"] - 1]
    return before[row["id"]] if row["id"] in before else before[row["parent_id"]]


def _line_of_descent(history, generations):
    """The rows from the last elite back to its first ancestor, oldest first."""
    line = [next(row for row in reversed(history) if row["elite"])]
    while line[0]["generation"] > 0:
        line.insert(0, _parent(line[0], generations))
    return line


def _evolved(history):
    """The numbers to draw: the members' nodes, and every hyper-parameter that differs somewhere."""
    names = list(history[0])
    names = names[names.index("activation") + 1 : names.index("elite")]
    return ["nodes", *(name for name in names if len({row[name] for row in history}) > 1)]


def _plot_fitness(axes, history, births, line):
    for parent, child in births:
        xy = [[row["steps"], row["fitness"]] for row in (parent, child)]
        axes.plot(*zip(*xy), color="0.8", linewidth=1, zorder=1)
    axes.plot([row["steps"] for row in line], [row["fitness"] for row in line], **DESCENT)
    axes.scatter([row["steps"] for row in history], [row["fitness"] for row in history], s=14, color="0.3", zorder=2)
    axes.set(ylabel="fitness (mean return)", xlabel="environment steps of a member")
    axes.set_title("Fitness of every member; lines join parent and child, the broad one leads to the last elite")
    axes.grid(alpha=0.3)


def _plot_family_tree(figure, axes, history, births, line):
    place = {}
    for row in history:
        slots = [key for key in place if key[0] == row["generation"]]
        place[row["generation"], row["id"]] = (row["generation"], -len(slots))

    def at(row):
        return place[row["generation"], row["id"]]

    axes.plot(*zip(*map(at, line)), **DESCENT)
    for parent, child in births:
        axes.plot(*zip(at(parent), at(child)), color=KINDS[_kind(child)], linewidth=1.8, zorder=1)
    few = history[-1]["generation"] <= 12
    for row in history if few else line:
        if _kind(row) not in ("none", "elite"):
            x, y = at(row)
            axes.text(x - 0.12, y + 0.12, row["mutation"].replace(" ", "\n", 1), fontsize=6.5, ha="right", va="bottom")
    dots = axes.scatter(
        *zip(*map(at, history)), c=[row["fitness"] for row in history], s=170, cmap="RdYlGn", edgecolors="0.3", zorder=2
    )
    for row in history:
        axes.text(*at(row), row["id"], fontsize=6.5, ha="center", va="center", zorder=3)
    figure.colorbar(dots, ax=axes, label="fitness", pad=0.01)
    for kind, color in KINDS.items():
        axes.plot([], [], color=color, linewidth=1.8, label=kind)
    axes.legend(ncols=len(KINDS), loc="upper center", bbox_to_anchor=(0.5, 0), frameon=False)
    axes.set_title("Family tree: a column is a generation, an edge is coloured by what mutated, a number is an id")
    axes.set_axis_off()


def _plot_number(axes, name, history, births, line):
    def value(row):
        return sum(map(int, row["hidden_size"].split("x"))) if name == "nodes" else row[name]

    for parent, child in births:
        axes.plot([parent["steps"], child["steps"]], [value(parent), value(child)], color="0.8", linewidth=1, zorder=1)
    axes.plot([row["steps"] for row in line], [value(row) for row in line], **DESCENT)
    axes.scatter([row["steps"] for row in history], [value(row) for row in history], s=8, color="0.3", zorder=2)
    if name.startswith("lr_"):
        axes.set_yscale("log")
    axes.set_title("hidden nodes" if name == "nodes" else name, fontsize=10)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
