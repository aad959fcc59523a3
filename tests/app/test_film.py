"""film: all members of a generation fly in one picture, the elite in front, at a bounded cost."""

import gc
import io
import itertools
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace
from typing import ClassVar

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
import pytest
from gymnasium.spaces import Box

from tinyevo.app import film
from tinyevo.app.film import film_evolution, record_evolution

SIZE = 40  # of a picture
SKY = (0, 0, 0)
GROUND = (250, 240, 230)  # the lower half
DOT = (100, 200, 40)


def row_of(step):
    """Where the dot begins in this step."""
    return 5 * step % 16


class Dots(gym.Env):
    """A square of four by four pixels in the column that the action says, in the row `row_of` the
    step; it ends after `last` steps, or after as many as the second component of the action says.
    """

    observation_space = Box(-99, 99, (1,))
    action_space = Box(np.float32([0, 0]), np.float32([10, 1000]))
    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 20}
    open_ones = 0
    last = 12

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        Dots.open_ones += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start = int(self.np_random.integers(100))
        self.t, self.column = 0, 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action):
        self.t += 1
        self.column = int(action[0])
        ended = self.t >= min(Dots.last, action[1])
        return np.full(1, self.t, dtype=np.float32), float(self.start), ended, False, {}

    def render(self):
        picture = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
        picture[SIZE // 2 :] = GROUND
        row = row_of(self.t)
        picture[row : row + 4, 4 * self.column : 4 * self.column + 4] = DOT
        return picture

    def close(self):
        Dots.open_ones -= 1


gym.register("Dots-v0", Dots, disable_env_checker=True)


class Member:
    """It flies in one column, for some steps."""

    def __init__(self, column, steps=1000, diverges_after=None):
        self.action = np.float32([column, steps])
        self.left = diverges_after

    def get_action(self, obs):
        assert len(obs) == 1
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise FloatingPointError
        return self.action[np.newaxis]


def filmed(*scenes, seed=0, **options):
    """The frames of a film, and their durations in milliseconds."""
    file = io.BytesIO()
    record_evolution([(f"{number} scene", agents) for number, agents in enumerate(scenes)],
                     "Dots-v0", file, seed, **options)  # fmt: skip
    frames = imageio.imread(file.getvalue(), index=None, extension=".gif")
    with imageio.imopen(file.getvalue(), "r", plugin="pillow", extension=".gif") as gif:
        count = gif.properties(index=...).n_images
        return frames, [gif.metadata(index=index)["duration"] for index in range(count)]


def colour(frame, column, row):
    """The colour of a frame in the middle of a column, so many pixels from the top."""
    return frame[row, 4 * column + 2].astype(int)


def near(colour, other):
    """Whether two colours are alike; a GIF has no more than 256 of them."""
    return np.abs(colour - np.array(other)).max() <= 8


def test_the_elite_is_solid_and_in_front_and_the_others_are_ghosts_over_the_background():
    frames, _ = filmed([Member(2), Member(5), Member(5), Member(2), Member(7)])
    frame = frames[0]  # after the first step
    assert near(colour(frame, 2, 6), DOT), "the elite is not in front of a ghost at its place"
    assert near(colour(frame, 7, 6), [film.GHOST * part for part in DOT])
    assert near(colour(frame, 5, 6), DOT), "two ghosts of a half do not add up"
    assert near(colour(frame, 0, 6), SKY) and near(colour(frame, 9, 6), SKY)
    assert near(colour(frame, 0, 30), GROUND)


def test_what_moves_is_not_taken_for_background_though_it_is_where_a_dot_was_before():
    frames, _ = filmed([Member(2)], [Member(2)])
    for frame in frames:
        assert sum(near(colour(frame, 2, row), DOT) for row in range(SIZE // 2)) == 4


def test_a_scene_ends_with_the_elite_and_who_has_ended_stays():
    frames, durations = filmed([Member(2, 9), Member(5, 4), Member(7, 1000)])
    assert len(frames) == len(durations) == 4  # after the steps 1, 4, 7 and 9
    for frame, step in zip(frames, [1, 4, 7, 9]):
        assert near(colour(frame, 2, row_of(step)), DOT)
    for frame in frames[1:]:
        assert near(colour(frame, 5, row_of(4)), [film.GHOST * part for part in DOT])
    assert durations == [90, 90, 90, 90 + film.PAUSE]


def test_a_member_that_diverges_goes_no_further():
    frames, _ = filmed([Member(2, 9), Member(5, 9, diverges_after=2), Member(7, 9, 0)])
    assert near(colour(frames[0], 5, row_of(1)), [film.GHOST * part for part in DOT])
    assert near(colour(frames[-1], 5, row_of(1)), [film.GHOST * part for part in DOT])
    for frame in frames:
        assert all(near(colour(frame, 7, row), SKY) for row in range(SIZE // 2))


def test_every_generation_has_its_scene_and_its_caption():
    frames, durations = filmed([Member(1)], [Member(3)], [Member(8)])
    ends = [index for index, duration in enumerate(durations) if duration > film.FRAME_TIME]
    assert len(ends) == 3 and ends[-1] == len(frames) - 1
    captions = []
    for end, column in zip(ends, (1, 3, 8)):
        assert near(colour(frames[end], column, row_of(12)), DOT)
        captions.append(frames[end][SIZE:, : SIZE * 3 // 4].tobytes())
    assert len(set(captions)) == 3


def test_bars_show_the_action_of_the_elite_from_the_middle_of_its_range():
    strip = np.full((60, 200, 3), 255, dtype=np.uint8)
    box = Box(np.float32([-1, 0, 0]), np.float32([1, 10, 10]))
    bars = film.draw_bars(strip, np.float32([1, 2.5, 5]), box)
    track = bars[:, 150:194]
    blue = (track == film.BLUE).all(axis=2)
    grey = (track == film.GREY).all(axis=2)
    rows = [blue[start : start + 20].any(axis=0) for start in (0, 20, 40)]
    assert rows[0].tolist() == [False] * 22 + [True] * 22  # to the upper end
    assert rows[1].tolist() == [False] * 11 + [True] * 11 + [False] * 22  # half way to the lower
    assert not rows[2].any()
    assert (blue | grey).sum(axis=0).tolist() == [(blue | grey)[:, 0].sum()] * 44
    assert (strip == 255).all(), "the strip was changed"


def test_an_action_that_cannot_move_has_its_bar_at_the_lower_end():
    strip = np.full((20, 200, 3), 255, dtype=np.uint8)
    box = Box(np.float32([0.5]), np.float32([0.5]))
    blue = (film.draw_bars(strip, np.float32([0.5]), box) == film.BLUE).all(axis=2).any(axis=0)
    assert blue[150:194].tolist() == [True] * 22 + [False] * 22


def test_however_long_the_flights_are_a_film_is_bounded_and_the_last_elite_is_seen_to_its_end(
    monkeypatch,
):
    monkeypatch.setattr(Dots, "last", 1001)
    scenes = [[Member(1)], [Member(3)], [Member(8, 999)]]
    frames, durations = filmed(*scenes)
    assert len(frames) <= film.FRAMES
    assert 14_000 <= sum(durations) <= 20_000
    assert near(colour(frames[-1], 8, row_of(999)), DOT)


@pytest.mark.parametrize("last", [227, 228, 229, 256, 284])
def test_the_end_of_the_last_flight_has_a_frame_left_whatever_its_length(last, monkeypatch):
    monkeypatch.setattr(Dots, "last", 1001)
    frames, _ = filmed(*[[Member(1)]] * 5, [Member(8, last)])
    assert len(frames) <= film.FRAMES and near(colour(frames[-1], 8, row_of(last)), DOT)


def test_each_of_very_many_scenes_has_two_frames():
    assert len(filmed(*[[Member(1)]] * 100)[0]) <= 200


def test_the_start_is_the_one_that_suits_the_last_elite_best(monkeypatch):
    starts = []
    reset = Dots.reset

    def spy(self, *, seed=None, options=None):
        result = reset(self, seed=seed)
        starts.append(self.start)
        return result

    monkeypatch.setattr(Dots, "reset", spy)
    for seed in range(5):
        starts.clear()
        filmed([Member(1), Member(2)], [Member(3)], seed=seed)
        tried, flown = starts[: film.STARTS], starts[film.STARTS :]
        assert set(flown) == {max(tried)}  # the reward of a step
    assert len(set(tried)) > 1


def test_the_start_suits_the_last_elite_and_not_the_first(monkeypatch):
    starts, reset, step = [], Dots.reset, Dots.step

    def spy(self, *, seed=None, options=None):
        result = reset(self, seed=seed)
        starts.append(self.start)
        return result

    def rewarded(self, action):  # a large start is good on the right, and bad on the left
        obs, reward, *rest = step(self, action)
        return obs, reward * float(action[0] - 5), *rest

    monkeypatch.setattr(Dots, "reset", spy)
    monkeypatch.setattr(Dots, "step", rewarded)
    filmed([Member(1)], [Member(8)])
    tried, flown = starts[: film.STARTS], starts[film.STARTS :]
    assert set(flown) == {max(tried)} != {min(tried)}


def test_equal_agents_make_equal_bytes_and_environments_are_closed():
    files, before = [io.BytesIO(), io.BytesIO()], Dots.open_ones
    for file in files:
        record_evolution([("text", [Member(2), Member(5)])], "Dots-v0", file, 3)
    assert files[0].getvalue() == files[1].getvalue()
    assert Dots.open_ones == before


def test_a_film_may_be_one_picture():
    frames, durations = filmed([Member(2)], max_steps=1)
    assert len(frames) == 1 and durations == [film.FRAME_TIME + film.PAUSE]


def test_a_flight_that_a_limit_cuts_off_is_seen_to_its_last_step():
    frames, _ = filmed([Member(2)], max_steps=6)
    assert len(frames) == 3  # after the steps 1, 4 and 6
    assert near(colour(frames[-1], 2, row_of(6)), DOT)


def test_pictures_that_change_their_size_are_named_and_the_environment_closed(monkeypatch):
    before = Dots.open_ones
    sized = lambda self: np.zeros((8 + 2 * self.t, 8, 3), np.uint8)  # noqa: E731
    monkeypatch.setattr(Dots, "render", sized)
    with pytest.raises(gym.error.Error, match="the pictures of Dots-v0 change their size"):
        filmed([Member(2)])
    assert Dots.open_ones == before


def test_pictures_of_another_size_than_the_first_environments_are_named(monkeypatch):
    calm, sizes = Dots.reset, itertools.count()

    def reset(self, **options):
        self.size = getattr(self, "size", next(sizes))
        return calm(self, **options)

    shown = lambda self: np.zeros((8 + 2 * self.size, 8, 3), np.uint8)  # noqa: E731
    monkeypatch.setattr(Dots, "reset", reset)
    monkeypatch.setattr(Dots, "render", shown)
    with pytest.raises(gym.error.Error, match="the pictures of Dots-v0 change their size"):
        filmed([Member(2), Member(5)])


def test_a_fault_of_the_environment_is_told_as_it_is(monkeypatch):
    monkeypatch.setattr(Dots, "render", lambda self: 1 / 0)
    with pytest.raises(gym.error.Error, match="ZeroDivisionError"):
        filmed([Member(2)])


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install matplotlib"):
        filmed([Member(2)])


SCENES = [("one", [Member(1, 3)]), ("two", [Member(2, 9)])]


def filmed_run(monkeypatch, *missing):
    """The bytes of the films that a run gets whose scenes are `SCENES`, by the file's name."""
    files = {}

    @contextmanager
    def new_file(name):
        files[name] = io.BytesIO()
        yield files[name]

    monkeypatch.setattr(film, "find_spec", lambda name: name not in missing and find_spec(name))
    film_evolution(SimpleNamespace(new_file=new_file, film=lambda: SCENES), "Dots-v0", 5, 1000)
    return {name: file.getvalue() for name, file in files.items()}


def test_a_run_is_filmed_as_a_gif(monkeypatch):
    file = io.BytesIO()
    record_evolution(SCENES, "Dots-v0", file, 5)
    assert filmed_run(monkeypatch, "imageio_ffmpeg") == {"evolution.gif": file.getvalue()}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # imageio leaves pipes open as it reads
def test_with_ffmpeg_also_as_an_mp4_of_the_same_pictures_that_plays_as_long(monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    films = filmed_run(monkeypatch)
    frames = imageio.imread(films["evolution.gif"], index=None, extension=".gif")
    with imageio.imopen(films["evolution.gif"], "r", plugin="pillow") as gif:
        times = [gif.metadata(index=index)["duration"] for index in range(len(frames))]
    video = imageio.imread(films["evolution.mp4"], extension=".mp4", plugin="FFMPEG")
    expected = np.repeat(frames, np.round(np.array(times) / film.FRAME_TIME).astype(int), axis=0)
    assert len(video) == len(expected) and video.shape[1:] == expected.shape[1:]
    assert np.abs(video.astype(float) - expected).mean() < 8
    rate = imageio.immeta(films["evolution.mp4"], extension=".mp4", plugin="FFMPEG")["fps"]
    assert len(video) / rate == pytest.approx(sum(times) / 1000, rel=0.05)
    gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # imageio leaves pipes open as it reads
def test_an_mp4_of_odd_sides_lacks_a_row_and_a_column_and_nothing_is_warned_of(caplog):
    pytest.importorskip("imageio_ffmpeg")
    gif, video = io.BytesIO(), io.BytesIO()
    picture = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    imageio.imwrite(gif, [picture, 255 - picture], extension=".gif", duration=film.FRAME_TIME)
    film.write_mp4(gif.getvalue(), video)
    (width, height) = imageio.immeta(video.getvalue(), extension=".mp4", plugin="FFMPEG")["size"]
    assert (width, height) == (46, 32) and not caplog.records
    gc.collect()


def test_a_run_is_filmed_with_the_scenes_the_seed_and_the_limit_that_it_has(monkeypatch):
    calls = []
    monkeypatch.setattr(film, "record_evolution", lambda *arguments: calls.append(arguments))
    filmed_run(monkeypatch)
    ((scenes, env_id, _, seed, limit),) = calls
    assert (scenes, env_id, seed, limit) == (SCENES, "Dots-v0", 5, 1000)


def test_a_gif_that_could_not_be_made_is_not_made_an_mp4_of(monkeypatch):
    monkeypatch.setattr(film, "record_evolution", lambda *arguments: None)
    assert filmed_run(monkeypatch) == {"evolution.gif": b""}


def test_ffmpeg_that_does_not_work_is_told_as_a_package_that_is_missing(monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "no/such/ffmpeg")
    with pytest.raises(ImportError, match=r"^imageio's ffmpeg does not work: .*no/such/ffmpeg"):
        filmed_run(monkeypatch)
