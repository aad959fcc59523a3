"""The lander, seen as a camera sees it: small pictures in place of its eight numbers.

    python train_lunar.py --settings benchmarks/pixels.json

An action holds for four steps, in which a falling lander moves by about a pixel. The last three
pictures are the channels of an observation, so that speed can be seen.
"""

from typing import ClassVar

import gymnasium as gym
import numpy as np

HELD = 4  # steps of the lander for each action
PICTURES = 3  # in an observation
BLOCK = 8  # pixels, high and wide, of which one is made; a picture of the lander has 400 x 600


class LanderPixels(gym.Wrapper):
    """LunarLanderContinuous-v3 from pixels; an observation has the last picture last."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 50 / HELD}

    def __init__(self, render_mode="rgb_array"):
        super().__init__(gym.make("LunarLanderContinuous-v3", render_mode="rgb_array"))
        shape = 400 // BLOCK, 600 // BLOCK, PICTURES
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)

    def reset(self, *, seed=None, options=None):
        """Begin an episode, as if it had stood still before."""
        _, info = self.env.reset(seed=seed, options=options)
        self.pictures = [self._picture()] * PICTURES
        return np.stack(self.pictures, -1), info

    def step(self, action):
        """Hold an action for some steps, or to the end of the episode; rewards are summed."""
        total = 0.0
        for _ in range(HELD):
            _, reward, terminated, truncated, info = self.env.step(action)
            total += reward
            if terminated or truncated:
                break
        self.pictures = [*self.pictures[1:], self._picture()]
        return np.stack(self.pictures, -1), total, terminated, truncated, info

    def _picture(self):
        """How colourful what is rendered is: (height, width) of uint8; sky and ground are not."""
        rendered = self.env.render()
        colour = rendered.max(-1) - rendered.min(-1)
        blocks = colour.reshape(colour.shape[0] // BLOCK, BLOCK, -1, BLOCK)
        return blocks.mean((1, 3)).astype(np.uint8)


gym.register("LanderPixels-v0", LanderPixels)
