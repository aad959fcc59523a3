"""Tiny environments of which everything is known; their ids are `probes:NAME-v0`."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Sequence, Tuple

from tinyevo.app.workers import count_steps


class Counting(gym.Env):
    """Episodes of 1 to 9 steps, reward 1 a step. An observation is (episode's own number, steps so
    far, its length).
    """

    observation_space = Box(-np.inf, np.inf, (3,))
    action_space = Box(np.array([-1, 0], dtype=np.float32), np.array([1, 10], dtype=np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number, self.length, self.t = (
            self.np_random.random(),
            int(self.np_random.integers(1, 10)),
            0,
        )
        return self._obs(), {}

    def step(self, action):
        assert self.action_space.contains(action), (
            f"{action!r} of {action.dtype} is not in {self.action_space}"
        )
        assert self.t < self.length, "stepped past the end of an episode"
        self.t += 1
        return self._obs(), 1.0, self.t == self.length, False, {}

    def _obs(self):
        return np.array([self.number, self.t, self.length], dtype=np.float32)


class Ticking(gym.Env):
    """Reward 1 a step, for ever, or until the episode terminates after `life` steps; the
    observation says nothing.
    """

    observation_space = Box(-1, 1, (1,))
    action_space = Box(-1, 1, (1,))

    def __init__(self, life=None):
        self.life = life

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, dtype=np.float32), 1.0, self.t == self.life, False, {}


class Aim(gym.Env):
    """One step: the observation is a number x in [0, 1], the best action on [2, 12] is 4 + 6 x, its
    reward is 0.
    """

    observation_space = Box(0, 1, (1,))
    action_space = Box(2, 12, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.random(1, dtype=np.float32)
        return self.x.copy(), {}

    def step(self, action):
        return self.x.copy(), -float(((action - 4 - 6 * self.x) ** 2).sum()) / 10, True, False, {}


class Spot(gym.Env):
    """One step: the best action is where the bright pixel of an image of 12 x 12 is from left, -1,
    to right, 1; its reward is 0.
    """

    observation_space = Box(0, 255, (12, 12, 1), np.uint8)
    action_space = Box(-1, 1, (1,))
    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        row, self.column = self.np_random.integers(12, size=2)
        self.image = np.zeros((12, 12, 1), dtype=np.uint8)
        self.image[row, self.column] = 255
        return self.image.copy(), {}

    def step(self, action):
        aim = self.column / 5.5 - 1
        return self.image.copy(), -float((action[0] - aim) ** 2), True, False, {}

    def render(self):
        return self.image.repeat(8, 0).repeat(8, 1).repeat(3, 2)


class Faulty(Counting):
    """Like `Counting`, until a file named `fault` in the working folder says what goes wrong in
    every fourth step: what is returned instead, as "reward nan" or "observation inf", or a name.
    """

    def step(self, action):
        obs, reward, *rest = super().step(action)
        fault = Path("fault").read_text() if self.t == 4 and Path("fault").exists() else ""
        if fault == "raise":
            raise RuntimeError("the engine is on fire")
        if fault == "exit":
            sys.exit(3)
        if fault == "interrupt":
            raise KeyboardInterrupt("the pilot has had enough")
        if fault == "list":
            reward = np.array([reward])
        if fault == "shape":
            obs = obs[:2]
        if fault == "warn":
            gym.logger.warn("the engine is hot")
        kind, _, value = fault.partition(" ")
        if kind == "observation":
            obs[1] = float(value)
        if kind == "reward":
            reward = float(value)
        return obs, reward, *rest


class Fatal(Counting):
    """Like `Counting`, until a file named `kill` in the working folder ends the process that finds
    it in the fourth step of an episode. It takes the file along.
    """

    def step(self, action):
        result = super().step(action)
        with suppress(FileNotFoundError):
            if self.t == 4:
                Path("kill").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return result


class Wide(Ticking):
    """An observation whose text takes several lines, and is not finite."""

    observation_space = Box(-np.inf, np.inf, (200,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(200, dtype=np.float32), {}

    def step(self, action):
        return np.full(200, np.nan, dtype=np.float32), 1.0, False, False, {}


class Mixed(Counting):
    """What `Counting` shows, as a `Dict`, and a button that is pressed in every second step."""

    observation_space = Dict({"button": Discrete(2), "count": Counting.observation_space})

    def _obs(self):
        return {"button": np.int64(self.t % 2), "count": super()._obs()}


class Paired(Mixed):
    """The same as a `Tuple`."""

    observation_space = Tuple([Counting.observation_space, Discrete(2)])

    def _obs(self):
        return super()._obs()["count"], super()._obs()["button"]


class Listed(Counting):
    """Observations of any length, which no vector holds."""

    observation_space = Sequence(Box(-1, 1, (1,)))

    def _obs(self):
        return (np.zeros(1, dtype=np.float32),) * self.t


class Buttons(Counting):
    """Actions that TD3 cannot take."""

    action_space = Discrete(3)


class Unbounded(Counting):
    """Actions without an end."""

    action_space = Box(-np.inf, np.inf, (2,))


class Vast(Counting):
    """Actions whose range overflows float32."""

    action_space = Box(-3e38, 3e38, (2,))


class Quitting(Counting):
    """Exits when it is made."""

    def __init__(self):
        sys.exit(3)


def look(shared, steps):
    """A task for a cluster, which takes a moment and reports some steps."""
    time.sleep(1)
    count_steps(steps)
    return os.getpid(), len(shared)


if "SLOW_SAVES" in os.environ:  # the disk takes its time
    fast = os.fsync
    os.fsync = lambda file: (time.sleep(0.05), fast(file))[1]

gym.register("Counting-v0", Counting, max_episode_steps=10)  # which it never reaches
gym.register("Free-v0", Counting)
gym.register("Capped-v0", Counting, max_episode_steps=4, reward_threshold=2.5)
gym.register("Ticking-v0", Ticking, max_episode_steps=5)
gym.register("Mortal-v0", Ticking, max_episode_steps=2, kwargs={"life": 1})
gym.register("Aim-v0", Aim, max_episode_steps=2)
gym.register("Faulty-v0", Faulty)
gym.register("Spot-v0", Spot, max_episode_steps=2)
gym.register("Fatal-v0", Fatal)
gym.register("Wide-v0", Wide)
gym.register("Mixed-v0", Mixed)
gym.register("Paired-v0", Paired)
gym.register("Listed-v0", Listed)
gym.register("Buttons-v0", Buttons)
gym.register("Unbounded-v0", Unbounded)
gym.register("Vast-v0", Vast)
gym.register("Quitting-v0", Quitting)
