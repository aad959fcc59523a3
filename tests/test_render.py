"""render: the GIF plays at true speed and ends on the ground; the picture shows the lineage."""

import io
import sys
from types import ModuleType
from typing import ClassVar

import gymnasium as gym
import imageio.v3 as imageio
import matplotlib
import numpy as np
import pytest
from gymnasium.spaces import Box
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


class Film(gym.Env):
    """Thirteen steps, twenty a second; in the picture of step t every square of two by two pixels
    is 0 and 12 t, side by side.
    """

    observation_space = action_space = Box(-1, 1, (1,))
    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 20}
    open_ones = 0

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        Film.open_ones += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, dtype=np.float32), float(self.t), self.t == 13, False, {}

    def render(self):
        picture = np.zeros((8, 8, 3), dtype=np.uint8)
        picture[:, 1::2] = 12 * self.t
        return picture

    def close(self):
        Film.open_ones -= 1


gym.register("Film-v0", Film, disable_env_checker=True)


class Idle:
    """An agent for `Film`."""

    def get_action(self, obs):
        return np.zeros((*obs.shape[:-1], 1), dtype=np.float32)


@pytest.mark.parametrize(
    "most, steps, duration",
    [
        (150, [0, 3, 6, 9, 12, 13], 150),
        (6, [0, 3, 6, 9, 12, 13], 150),
        (5, [3, 9, 13], 300),
        (3, [3, 9, 13], 300),
        (2, [6, 13], 450),
        (1, [13], 900),
    ],
)
def test_a_film_has_every_third_step_or_fewer_counted_from_the_last_and_all_pixels_count(
    tmp_path, monkeypatch, most, steps, duration
):
    monkeypatch.setattr(render, "FRAMES", most)
    path = tmp_path / "film.gif"
    assert record_gif(Idle(), "Film-v0", path, episodes=2).tolist() == [91.0, 91.0]
    frames = imageio.imread(path, index=None)
    assert frames.shape[1:] == (4, 4, 3)
    assert (frames == frames[:, :1, :1, :1]).all()
    if most > 1:  # two equal frames in succession become one
        # Half of the pixels are 0 and half of them 12 t: together 6 t.
        assert frames[:, 0, 0, 0].tolist() == [6 * step for step in steps] * 2
        assert durations(path) == [*[duration] * (len(steps) - 1), render.PAUSE] * 2


def test_a_film_begins_again_at_its_end_and_its_environment_is_closed(tmp_path):
    path, before = tmp_path / "film.gif", Film.open_ones
    record_gif(Idle(), "Film-v0", path, episodes=2)
    assert Film.open_ones == before
    with imageio.imopen(path, "r", plugin="pillow") as file:
        assert file.metadata(index=0)["loop"] == 0  # for ever


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


@pytest.mark.parametrize(
    "picture, words",
    [
        (None, r"not of \(\) object"),
        (np.zeros((8, 8, 4), np.uint8), r"not of \(8, 8, 4\) uint8"),
        (np.zeros((8, 8), np.uint8), r"not of \(8, 8\) uint8"),
        (np.zeros((8, 8, 3)), r"not of \(8, 8, 3\) float64"),
        (np.zeros((1, 8, 3), np.uint8), r"not of \(1, 8, 3\) uint8"),
    ],
)
def test_what_is_no_picture_is_named_and_the_environment_closed(monkeypatch, picture, words):
    before = Film.open_ones
    monkeypatch.setattr(Film, "render", lambda self: picture)
    with pytest.raises(gym.error.Error, match=r"pictures of \(height, width, 3\) uint8, " + words):
        record_gif(Idle(), "Film-v0", io.BytesIO(), episodes=1)
    assert Film.open_ones == before


def test_pictures_that_change_their_size_are_named(monkeypatch):
    sized = lambda self: np.zeros((8 + 2 * self.t, 8, 3), np.uint8)  # noqa: E731
    monkeypatch.setattr(Film, "render", sized)
    with pytest.raises(gym.error.Error, match="the pictures of Film-v0 change their size"):
        record_gif(Idle(), "Film-v0", io.BytesIO(), episodes=1)


@pytest.mark.parametrize("speed", [-3, "30", np.nan, np.inf, 1e-9])
def test_a_speed_that_is_none_is_named(monkeypatch, speed):
    monkeypatch.setitem(Film.metadata, "render_fps", speed)
    with pytest.raises(gym.error.Error, match="render_fps of Film-v0 must be a number from"):
        record_gif(Idle(), "Film-v0", io.BytesIO(), episodes=1)


@pytest.mark.parametrize("speed", [0, None])
def test_an_environment_without_a_speed_is_filmed_at_thirty_steps_a_second(
    monkeypatch, tmp_path, speed
):
    monkeypatch.setitem(Film.metadata, "render_fps", speed)
    record_gif(Idle(), "Film-v0", tmp_path / "film.gif", episodes=1)
    assert durations(tmp_path / "film.gif")[0] == 100


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


FAMILY = [
    row(0, 0, None, "none", "none", -100.0, train_return=-7.0, hidden_size="64"),
    row(0, 1, None, "none", "none", 50.0, elite=True, train_return=-8.0, hidden_size="8x4"),
    row(1, 1, None, "elite", "elite", -40.0, train_return=-9.0, hidden_size="8x4"),
    row(1, 2, 0, "rl_hp", "learn_step 1 -> 2", -20.0, elite=True, hidden_size="64", learn_step=2),
]


@pytest.mark.parametrize(
    "panel, numbers",
    [
        ("fitness", [-100.0, 50.0, -40.0, -20.0]),
        ("hidden nodes", [64, 12, 12, 64]),
        ("learn_step", [1, 1, 1, 2]),
    ],
)
def test_a_panel_shows_its_number_over_steps_and_joins_parents_to_children(
    tmp_path, monkeypatch, panel, numbers
):
    figure = drawn(FAMILY, tmp_path / "evolution.png", monkeypatch)
    axes = next(axes for axes in figure.axes if axes.get_ylabel() == panel)
    points = [[member["steps"], number] for member, number in zip(FAMILY, numbers)]
    assert axes.collections[0].get_offsets().tolist() == points
    lines = {line.get_color(): line.get_xydata().tolist() for line in axes.lines}
    assert lines[render.DESCENT["color"]] == [points[0], points[3]]  # though 1 was fitter once
    births = [line.get_xydata().tolist() for line in axes.lines if line.get_color() == "0.8"]
    assert births == [[points[1], points[2]], [points[0], points[3]]]


@pytest.mark.parametrize("generations, named", [(9, {"A", "B"}), (10, {"A"})])
def test_in_a_long_run_only_the_mutations_of_the_line_of_descent_are_named(
    tmp_path, monkeypatch, generations, named
):
    history = [row(0, 0, None, "none", "none", 0.0, elite=True), row(0, 1, None, "none", "none", 0)]
    for generation in range(1, generations):
        # The elite of each generation is the child of the last; the other one has no offspring.
        id, parent = 2 * generation, 2 * generation - 2
        history.append(row(generation, id, parent, "rl_hp", "A", float(generation), elite=True))
        history.append(row(generation, id + 1, parent, "rl_hp", "B", 0.0))
    tree = drawn(history, tmp_path / "evolution.png", monkeypatch).axes[1]
    texts = [text.get_text() for text in tree.texts]
    assert {text for text in texts if text.isalpha()} == named
    assert texts.count("A") == generations - 1


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


def test_a_setting_that_matplotlib_refuses_is_told_as_if_it_were_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", Refusing("matplotlib.figure"))
    with pytest.raises(ImportError, match="matplotlib cannot be imported: backend 'foo'"):
        plot_evolution(HISTORY, io.BytesIO())


class Refusing(ModuleType):
    """As matplotlib is where MPLBACKEND names a backend that is not installed."""

    def __getattr__(self, name):
        raise ValueError("backend 'foo'")


def test_the_picture_is_the_same_whatever_settings_matplotlib_has():
    pictures = [io.BytesIO(), io.BytesIO()]
    plot_evolution(HISTORY, pictures[0])
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red"}):  # there is no TeX
        before = dict(matplotlib.rcParams)
        plot_evolution(HISTORY, pictures[1])
        assert dict(matplotlib.rcParams) == before
    assert pictures[0].getvalue() == pictures[1].getvalue()
