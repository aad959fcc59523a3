"""See it: a GIF of an agent flying.

Mirrors the tutorial's section "Saving test episodes as a GIF".
Leaves out: sound, video files and live windows.
Needs: evaluate.py, environment.py, beside it in a folder `tinyevo`. An agent here is anything
with `get_action(batch of observations)`.
"""

import math

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np

from tinyevo.environment import make_env
from tinyevo.evaluate import episode_seeds, rollout

STRIDE = 3  # environment steps from one frame of the GIF to the next, at least
SHORTEST = 20  # milliseconds of a frame; players show shorter ones at a speed of their own
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
        stride = max(STRIDE, math.ceil(SHORTEST / step_time))
        for episode, start in enumerate(episode_seeds(seed, episodes)):
            flight = []
            steps = rollout(agent, [env], [start])
            for step, (_, reward, terminated, truncated) in enumerate(steps):
                returns[episode] += reward
                if step % stride == 0 or terminated or truncated:
                    flight.append(_half_size(picture(env)))

            # Thin a long flight from its end, so that the last frame stays.
            every = -(-len(flight) // FRAMES)
            flight = flight[::-every][::-1]
            frames += flight
            durations += [every * stride * step_time] * (len(flight) - 1) + [PAUSE]
    check_same_size(env_id, frames)
    ends = np.round(np.cumsum(durations) / 10) * 10  # a GIF counts in hundredths of a second
    durations = np.diff(ends, prepend=0).tolist()
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


def check_same_size(env_id, pictures):
    """Raise `gymnasium.error.Error` if the pictures of an environment change their size."""
    if len({picture.shape for picture in pictures}) > 1:
        raise gym.error.Error(f"the pictures of {env_id} change their size, as a GIF's must not")


def _half_size(frame):
    """Average squares of two by two pixels: (height, width, 3) uint8 to half of each."""
    height, width, _ = frame.shape
    frame = frame[: height // 2 * 2, : width // 2 * 2].astype(np.uint16)  # room for sums of four
    rows = frame[::2] + frame[1::2]
    return ((rows[:, ::2] + rows[:, 1::2]) // 4).astype(np.uint8)
