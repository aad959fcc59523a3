"""render: the GIF plays at true speed and ends on the ground."""

import io
from typing import ClassVar

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
import pytest
from gymnasium.spaces import Box

from tinyevo import render
from tinyevo.evaluate import episode_seeds, evaluate
from tinyevo.render import record_gif


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


def test_an_episode_may_be_cut_short_and_its_last_frame_is_its_last_step(tmp_path):
    path = tmp_path / "film.gif"
    returns = record_gif(Idle(), "Film-v0", path, episodes=1, max_steps=5)
    assert returns.tolist() == [1 + 2 + 3 + 4 + 5]
    assert imageio.imread(path, index=None)[:, 0, 0, 0].tolist() == [0, 6 * 3, 6 * 5]


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


def test_true_speed_is_kept_where_a_frame_lasts_no_whole_hundredths_of_a_second(
    monkeypatch, tmp_path
):
    monkeypatch.setitem(Film.metadata, "render_fps", 125)  # three steps take 24 milliseconds
    record_gif(Idle(), "Film-v0", tmp_path / "film.gif", episodes=1)
    assert durations(tmp_path / "film.gif")[:-1] == [20, 30, 20, 30, 20]


def test_no_frame_is_so_short_that_players_slow_it_down(monkeypatch, tmp_path):
    monkeypatch.setitem(Film.metadata, "render_fps", 500)  # ten steps take 20 milliseconds
    record_gif(Idle(), "Film-v0", tmp_path / "film.gif", episodes=1)
    assert durations(tmp_path / "film.gif") == [20, 20, 800]


def test_half_size_is_the_mean_of_squares_of_four_pixels():
    frame = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)  # of the odd row there is nothing
    half = render._half_size(frame)
    assert half.shape == (2, 3, 3) and half.dtype == np.uint8
    for y, x in np.ndindex(2, 3):
        square = frame[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        assert half[y, x].tolist() == square.mean(axis=(0, 1)).astype(np.uint8).tolist()
