"""The environments that agents learn and are evaluated in: side by side, and none of them trusted blindly.

Mirrors the tutorial's section "Creating the environment".
Leaves out: environments in processes of their own; for ones as cheap as LunarLander the messages cost more than they
save (`SyncVectorEnv` is 4 to 5 times faster than `AsyncVectorEnv` there).
Needs: nothing else.
"""

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class Guarded(gym.Wrapper):
    """An environment that ends the run where it fails, before the failure reaches a memory or a fitness.

    Raises `gymnasium.error.Error`, naming the environment and the step of the episode, if the environment raises, or
    answers with an observation or a reward that is not finite.
    """

    def reset(self, **arguments):
        """Begin an episode: (obs, info)."""
        self.taken = 0  # steps
        return self._call(self.env.reset, **arguments)

    def step(self, action):
        """Go one step on: (obs, reward, terminated, truncated, info)."""
        self.taken += 1
        answer = self._call(self.env.step, action)
        self._require_finite("reward", answer[1])
        return answer

    def _call(self, function, *arguments, **named):
        try:
            answer = function(*arguments, **named)
        except Exception as error:
            raise self._failure(f"raised {error!r}") from error
        self._require_finite("observation", answer[0])
        return answer

    def _require_finite(self, name, value):
        if not np.isfinite(value).all():
            raise self._failure(f"returned the {name} {value}")

    def _failure(self, what):
        return gym.error.Error(f"the environment {self.env.spec.id} {what} in step {self.taken} of an episode")


def make_env(env_id, max_episode_steps=None):
    """One `Guarded` environment; `max_episode_steps` takes the place of its own limit of an episode's length."""
    return Guarded(gym.make(env_id, max_episode_steps=max_episode_steps))


def make_envs(env_id, num_envs, max_episode_steps=None):
    """Environments side by side that start the next episode in the very step in which one ends."""
    makers = [lambda: make_env(env_id, max_episode_steps)] * num_envs
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)


def successors(next_obs, infos):
    """What the actions really led to: where an episode ended, `next_obs` already shows the next one's beginning."""
    if "final_obs" not in infos:
        return next_obs
    ended = infos["_final_obs"]
    next_obs = next_obs.copy()
    next_obs[ended] = np.stack(infos["final_obs"][ended])
    return next_obs
