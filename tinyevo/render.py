"""See it: a GIF of an agent flying, and a picture of what evolution found.

Mirrors the tutorial's sections "Saving test episodes as a GIF" and "Reading a run".
Leaves out: sound, video files and live windows.
Needs: evaluate.py, environment.py; `plot_evolution` needs matplotlib. An agent here is anything
with `get_action(batch of observations)`.
"""

import math
from contextlib import contextmanager

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np

from tinyevo.environment import make_env
from tinyevo.evaluate import episode_seeds, rollout

KINDS = {  # of mutation: the colour and the name of each
    "none": ("0.65", "none"),
    "elite": ("0.2", "elite"),
    "architecture": ("tab:blue", "architecture"),
    "parameters": ("tab:purple", "parameters"),
    "activation": ("tab:green", "activation"),
    "rl_hp": ("tab:red", "hyper-parameter"),
}
DESCENT = {
    "color": "orange",
    "linewidth": 7,
    "alpha": 0.45,
    "solid_capstyle": "round",
    "zorder": 0,
}
LABEL = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
STRIDE = 3  # environment steps from one frame of the GIF to the next
FRAMES = 150  # most frames of one episode; a longer one shows fewer per second, at the same speed
PAUSE = 800  # milliseconds for which an episode's last frame stands still


def record_gif(agent, env_id, path, episodes=7, seed=0, max_steps=None):
    """Fly `episodes` greedy episodes into a GIF at true speed and half size.

    Returns their returns: (episodes,). Their starts follow from `seed`. Each episode ends with the
    frame of its last step; `max_steps` replaces the environment's own limit of its length. `path`
    names a file or is a binary file object. Raises as `evaluate` does, and `gymnasium.error.Error`
    if the environment gives no pictures.
    """
    frames, durations, returns = [], [], np.zeros(episodes)
    with make_env(env_id, max_steps, render_mode="rgb_array") as env:
        step_time = 1000 / _frames_per_second(env)  # milliseconds
        for episode, start in enumerate(episode_seeds(seed, episodes)):
            flight = []
            steps = rollout(agent, [env], [start])
            for step, (_, reward, terminated, truncated) in enumerate(steps):
                returns[episode] += reward
                if step % STRIDE == 0 or terminated or truncated:
                    flight.append(_half_size(picture(env)))

            # Thin a long flight from its end, so that the last frame stays.
            every = -(-len(flight) // FRAMES)
            flight = flight[::-every][::-1]
            frames += flight
            durations += [every * STRIDE * step_time] * (len(flight) - 1) + [PAUSE]
    check_sizes(env_id, frames)
    imageio.imwrite(path, frames, extension=".gif", duration=durations, loop=0)
    return returns


def _frames_per_second(env):
    """The speed of an environment: 30 if it does not say."""
    speed = env.metadata.get("render_fps") or 30
    if not isinstance(speed, (int, float)) or not 0.1 <= speed < math.inf:
        name = env.spec.id
        raise gym.error.Error(f"the render_fps of {name} must be a number from 0.1, not {speed!r}")
    return speed


def picture(env):
    """What an environment shows: (height, width, 3) uint8, two pixels high and wide at least.

    Raises `gymnasium.error.Error` for any other kind of picture.
    """
    frame = np.asarray(env.render())
    fits = frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
    if not fits or min(frame.shape) < 2:
        what = f"{frame.shape} {frame.dtype}"
        raise gym.error.Error(f"a GIF needs pictures of (height, width, 3) uint8, not of {what}")
    return frame


def check_sizes(env_id, pictures):
    """Raise `gymnasium.error.Error` if the pictures of an environment change their size."""
    if len({picture.shape for picture in pictures}) > 1:
        raise gym.error.Error(f"the pictures of {env_id} change their size, as a GIF's must not")


def _half_size(frame):
    """Average squares of two by two pixels: (height, width, 3) uint8 to half of each."""
    height, width = frame.shape[0] // 2, frame.shape[1] // 2
    squares = frame[: height * 2, : width * 2].reshape(height, 2, width, 2, 3)
    return squares.mean(axis=(1, 3)).astype(np.uint8)


def plot_evolution(history, path, hyper_params=()):
    """Draw a run's history as a picture: fitness, family tree, hyper-parameters.

    `history` is that of a `Run` with at least one generation; `path` names a file or is a binary
    file object; `hyper_params` are the names of the columns that are drawn, of
    which those that never change are left out. The line of descent of the last elite is picked out.
    Raises ImportError if matplotlib is missing, or its settings are wrong.
    """
    with blank_figure(13, 12, layout="constrained") as figure:
        _plot_history(figure, history, hyper_params)
        figure.savefig(path, dpi=90)


@contextmanager
def blank_figure(width, height, **options):
    """A matplotlib figure, in inches, that looks the same whatever the user has set.

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
        yield Figure(figsize=(width, height), **options)


def _plot_history(figure, history, hyper_params):
    """Fill the picture of evolution."""
    members = {(row["generation"], row["id"]): row for row in history}
    births = [(_parent(row, members), row) for row in history if row["generation"] > 0]
    descent = [next(row for row in reversed(history) if row["elite"])]
    while descent[0]["generation"] > 0:
        descent.insert(0, _parent(descent[0], members))
    moving = [name for name in hyper_params if len({row[name] for row in history}) > 1]
    names = ["hidden nodes", *moving]

    rows = [["fitness"] * len(names), ["tree"] * len(names), names]
    panels = figure.subplot_mosaic(rows, height_ratios=[3, 4, 2.5])
    for name in ("fitness", *names):
        _plot_column(panels[name], name, history, births, descent)
    _plot_family_tree(panels["tree"], history, births, descent)


def _parent(row, members):
    """The row, one generation earlier, of a member's parent; for the elite, of itself."""
    before = row["generation"] - 1
    return members.get((before, row["id"])) or members[before, row["parent_id"]]


def _plot_column(axes, name, history, births, descent):
    """A column of the history over the steps of the members, lines from parent to child."""

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
    generations = history[-1]["generation"] + 1
    size = len(history) // generations
    place = {(row["generation"], row["id"]): index % size for index, row in enumerate(ranking)}

    def at(row):
        return row["generation"], -place[row["generation"], row["id"]]

    axes.plot(*zip(*map(at, descent)), **DESCENT)
    for parent, child in births:
        color, _ = KINDS[child["mutation_kind"]]
        axes.plot(*zip(at(parent), at(child)), color=color, linewidth=1.8, zorder=1)
    named = history if generations <= 9 else descent  # all mutations, if there is room
    for row in named:
        if row["mutation_kind"] not in ("none", "elite"):
            x, y = at(row)
            text = row["mutation"].replace(" ", "\n", 1)
            axes.text(x, y - 0.2, text, fontsize=7, ha="center", va="top", bbox=LABEL, zorder=2)
    dots = axes.scatter(
        *zip(*map(at, history)),
        c=[row["fitness"] for row in history],
        s=230,
        cmap="RdYlGn",
        edgecolors="0.3",
        zorder=3,
    )
    axes.figure.colorbar(dots, ax=axes, label="fitness", pad=0.01, aspect=30)
    for row in history:
        axes.text(*at(row), row["id"], fontsize=7, ha="center", va="center", zorder=4)
    for color, name in KINDS.values():
        axes.plot([], [], color=color, linewidth=1.8, label=name)
    axes.plot([], [], **DESCENT, label="descent of the last elite")
    place_below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "frameon": False}
    axes.legend(ncols=len(KINDS) + 1, **place_below)
    what = "a column for each generation, the fittest on top; an edge's colour is what mutated"
    axes.set_title(f"family tree: {what}")
    axes.set_ylim(0.5 - size, 0.3)
    axes.set_axis_off()
