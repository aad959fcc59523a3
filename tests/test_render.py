"""render: the GIF plays at true speed and ends on the ground; the picture shows the lineage."""

import io
import sys

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
import pytest
from matplotlib.figure import Figure

from tinyevo import render
from tinyevo.evaluate import episode_seeds, evaluate
from tinyevo.mutation import Mutations
from tinyevo.render import plot_evolution, record_gif


class Falling:
    """An agent that fires no engine."""

    def get_action(self, obs):
        return np.zeros((*obs.shape[:-1], 2), dtype=np.float32)


LANDER = "LunarLanderContinuous-v3"


def last_frame(seed, episode):
    """How the environment looks at the end of a fall, and after how many steps that is."""
    env = gym.make(LANDER, render_mode="rgb_array")
    env.reset(seed=episode_seeds(seed, episode + 1)[-1])
    steps, ended = 0, False
    while not ended:
        _, _, terminated, truncated, _ = env.step(np.zeros(2, dtype=np.float32))
        steps, ended = steps + 1, terminated or truncated
    frame = env.render()
    env.close()
    return frame, steps


def durations(path):
    with imageio.imopen(path, "r", plugin="pillow") as file:
        return [
            file.metadata(index=index)["duration"]
            for index in range(file.properties(index=...).n_images)
        ]


def test_the_gif_shows_whole_episodes_at_true_speed_and_the_last_frame_is_the_landing(tmp_path):
    path = tmp_path / "fall.gif"
    returns = record_gif(Falling(), LANDER, path, episodes=2, seed=5)
    assert returns == pytest.approx(evaluate(Falling(), LANDER, 2, seed=5))
    frames = imageio.imread(path, index=None)
    assert frames.shape[1:] == (200, 300, 3)
    (_, first_steps), (last, last_steps) = last_frame(5, 0), last_frame(5, 1)
    half = last.reshape(200, 2, 300, 2, 3).mean(axis=(1, 3))
    assert np.abs(frames[-1] - half).mean() < 2, "the last frame is not the last step"
    flown = 20 * (first_steps + last_steps)  # milliseconds, at 50 steps a second
    assert sum(durations(path)) - 2 * render.PAUSE == pytest.approx(flown, abs=2 * 3 * 20)
    assert durations(path)[-1] >= render.PAUSE


def test_a_gif_may_be_written_into_a_file_object(tmp_path):
    with io.BytesIO() as file:
        record_gif(Falling(), LANDER, file, episodes=1, seed=5)
        assert file.getvalue().startswith(b"GIF")


def test_a_long_episode_has_fewer_frames_and_the_same_speed(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "FRAMES", 10)
    path = tmp_path / "fall.gif"
    record_gif(Falling(), LANDER, path, episodes=1, seed=5)
    last, steps = last_frame(5, 0)
    assert len(durations(path)) <= 10
    assert sum(durations(path)) - render.PAUSE == pytest.approx(20 * steps, rel=0.15)
    half = last.reshape(200, 2, 300, 2, 3).mean(axis=(1, 3))
    assert np.abs(imageio.imread(path, index=None)[-1] - half).mean() < 2


def test_half_size_is_the_mean_of_squares_of_four_pixels():
    frame = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)  # of the odd row there is nothing
    half = render._half_size(frame)
    assert half.shape == (2, 3, 3) and half.dtype == np.uint8
    for y, x in np.ndindex(2, 3):
        square = frame[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        assert half[y, x].tolist() == square.mean(axis=(0, 1)).astype(np.uint8).tolist()


def row(generation, id, parent_id, kind, mutation, fitness, elite=False, **changes):
    fixed = {
        "train_return": -50.0,
        "steps": 100 * (generation + 1),
        "hidden_size": "64x64",
        "activation": "relu",
    }
    numbers = {"lr_actor": 1e-3, "batch_size": 128, "learn_step": 1} | changes
    head = {
        "generation": generation,
        "id": id,
        "parent_id": parent_id,
        "mutation_kind": kind,
        "mutation": mutation,
        "fitness": fitness,
    }
    return {**head, **fixed, **numbers, "elite": elite}


HISTORY = [
    row(0, 0, None, "none", "none", -100.0),
    row(0, 1, None, "none", "none", -50.0, elite=True),
    row(1, 1, None, "elite", "elite", -40.0),
    row(1, 2, 0, "architecture", "architecture 64x64 -> 64x96", -20.0, elite=True),
    row(2, 2, 0, "elite", "elite", -float("inf")),
    row(2, 3, 2, "rl_hp", "learn_step 1 -> 2", 10.0, elite=True, learn_step=2),
]
NAMES = ("lr_actor", "learn_step")


def test_the_parent_of_a_row_is_one_generation_earlier_and_of_the_elite_it_is_itself():
    members = {(member["generation"], member["id"]): member for member in HISTORY}
    parents = [render._parent(member, members) for member in HISTORY[2:]]
    assert [(parent["generation"], parent["id"]) for parent in parents] == [
        (0, 1),
        (0, 0),
        (1, 2),
        (1, 2),
    ]


def drawn(history, path, monkeypatch, hyper_params=NAMES):
    """The figure that is drawn."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    plot_evolution(history, path, hyper_params)
    return figures[0]


@pytest.mark.parametrize(
    "hyper_params, panels",
    [
        (NAMES, ["learn_step"]),  # the learning rate never moved
        ({"learn_step": "a range", "batch_size": "another"}, ["learn_step"]),  # an `hp_space`
        (("batch_size",), []),  # `learn_step` moved, but was not asked for
        ((), []),
    ],
)
def test_of_the_named_hyper_parameters_those_that_moved_are_drawn(
    tmp_path, monkeypatch, hyper_params, panels
):
    axes = drawn(HISTORY, tmp_path / "evolution.png", monkeypatch, hyper_params).axes
    labels = [panel.get_ylabel() for panel in axes]
    # "" is the tree, the last the colours
    assert labels == ["fitness", "", "hidden nodes", *panels, "fitness"]


def test_every_kind_of_mutation_has_a_colour_and_a_name_of_its_own(tmp_path, monkeypatch):
    assert set(render.KINDS) == {*Mutations()._weights(), "elite"}
    colours, names = map(set, zip(*render.KINDS.values()))
    assert len(colours) == len(names) == len(render.KINDS)
    tree = drawn(HISTORY, tmp_path / "evolution.png", monkeypatch).axes[1]
    legend = {text.get_text() for text in tree.get_legend().get_texts()}
    assert legend == names | {"descent of the last elite"}


def test_the_colour_of_an_edge_follows_from_the_kind_and_not_from_the_text(tmp_path, monkeypatch):
    told = [member | {"mutation": "in other words"} for member in HISTORY]
    trees = [drawn(rows, tmp_path / "x.png", monkeypatch).axes[1] for rows in (HISTORY, told)]
    first, second = ([line.get_color() for line in tree.lines] for tree in trees)
    assert first == second


def test_the_tree_has_an_edge_for_each_birth_coloured_by_its_mutation_and_the_line_of_descent(
    tmp_path, monkeypatch
):
    tree = drawn(HISTORY, tmp_path / "evolution.png", monkeypatch).axes[1]
    places = {
        0: {0: -1, 1: 0},
        1: {1: -1, 2: 0},
        2: {2: -1, 3: 0},
    }  # by generation and id: the fittest on top
    lines = {tuple(map(tuple, line.get_xydata().tolist())): line.get_color() for line in tree.lines}
    edges = {
        ((0, places[0][1]), (1, places[1][1])): render.KINDS["elite"][0],
        ((0, places[0][0]), (1, places[1][2])): render.KINDS["architecture"][0],
        ((1, places[1][2]), (2, places[2][2])): render.KINDS["elite"][0],
        ((1, places[1][2]), (2, places[2][3])): render.KINDS["rl_hp"][0],
    }
    assert edges.items() <= lines.items()
    assert lines[((0, -1), (1, 0), (2, 0))] == render.DESCENT["color"]
    texts = {text.get_text() for text in tree.texts}
    assert {"architecture\n64x64 -> 64x96", "learn_step\n1 -> 2", "0", "1", "2", "3"} == texts


@pytest.mark.parametrize("history", [HISTORY, HISTORY[:2]])
def test_the_picture_is_drawn(tmp_path, history):
    plot_evolution(history, tmp_path / "evolution.png")
    picture = imageio.imread(tmp_path / "evolution.png")
    assert picture.shape[0] > 800 and picture.shape[1] > 800
    assert picture.std() > 10


def test_without_matplotlib_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"evolution needs matplotlib: pip install matplotlib"):
        plot_evolution(HISTORY, tmp_path / "evolution.png")
