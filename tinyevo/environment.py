"""The environments that agents learn and are evaluated in: side by side, and none of them trusted blindly.

Mirrors the tutorial's section "Creating the environment".
Leaves out: environments in processes of their own; for ones as cheap as LunarLander the messages cost more than they
save.
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

    taken = 0  # steps of the episode

    def reset(self, **arguments):
        """Begin an episode: (obs, info)."""
        self.taken = 0
        return self._call(("observation",), self.env.reset, **arguments)

    def step(self, action):
        """Go one step on: (obs, reward, terminated, truncated, info)."""
        self.taken += 1
        return self._call(("observation", "reward"), self.env.step, action)

    def _call(self, parts, function, *arguments, **named):
        """What a function of the environment answers, of which the first `parts` must be finite."""
        try:
            answer = function(*arguments, **named)
        except Exception as error:
            raise self._failure(f"raised {error!r}") from error
        with np.errstate(over="ignore"):
            for name, value in zip(parts, answer):
                if not np.isfinite(
                    np.asarray(value, np.float32)
                ).all():  # as memory and networks hold it
                    raise self._failure(f"returned the {name} {value}")
        return answer

    def _failure(self, what):
        name = getattr(self.env.spec, "id", self.env)
        return gym.error.Error(f"the environment {name} {what} in step {self.taken} of an episode")


def make_env(env_id, max_episode_steps=None):
    """One `Guarded` environment; `max_episode_steps` takes the place of its own limit of an episode's length."""
    return Guarded(gym.make(env_id, max_episode_steps=max_episode_steps))


def make_envs(env_id, num_envs, max_episode_steps=None):
    """Environments side by side that start the next episode in the very step in which one ends."""
    makers = [lambda: make_env(env_id, max_episode_steps)] * num_envs
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)


def successors(next_obs, infos):
    """What the actions really led to: where an episode ended, `next_obs` already shows the next one's beginning."""
    if "final_obs" in infos:
        ended, next_obs = infos["_final_obs"], next_obs.copy()
        next_obs[ended] = np.stack(infos["final_obs"][ended])
    return next_obs
