"""The environments that agents learn and are evaluated in, side by side, each guarded.

Mirrors the tutorial's section "Creating the environment".
Leaves out: environments in processes of their own; for ones as cheap as LunarLander the messages
cost more than they save.
Needs: nothing else.
"""

import warnings
from collections.abc import Container
from contextlib import contextmanager

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class Guarded(gym.Wrapper):
    """Turns whatever an environment does wrong into one error, before a memory or fitness sees it.

    Raises `gymnasium.error.Error`, naming the environment and the step of the episode, if the
    environment raises anything but KeyboardInterrupt, or if it returns an observation or a reward
    that is not finite in float32 or has another shape or kind than it says. What it returns is
    copied, and so is the action: it may write into its own arrays and into those that it is given.
    Its infos are left out: nobody here reads them, and they may be anything. Observations that are
    no arrays, such as a `Dict` or a `Tuple` of spaces, are flattened into vectors.
    """

    taken = 0  # steps of the episode
    closed = False

    def __init__(self, env):
        if not isinstance(env.observation_space, gym.spaces.Box):
            if holds_image(env.observation_space):
                what = f"observations with images in them, {env.observation_space}"
                raise gym.error.Error(f"{what}, cannot be flattened: choose one image by a wrapper")
            env = gym.wrappers.FlattenObservation(env)
        super().__init__(env)

    def reset(self, *, seed=None, options=None):
        """Begin an episode: (obs, info)."""
        self.taken = 0
        with self._guard():
            obs, _ = self.env.reset(seed=seed, options=options)
        return self._checked_obs(obs), {}

    def step(self, action):
        """Take a step: (obs, reward, terminated, truncated, info)."""
        self.taken += 1
        with self._guard():
            obs, reward, terminated, truncated, _ = self.env.step(np.array(action))
            terminated, truncated = bool(terminated), bool(truncated)
        obs, reward = self._checked_obs(obs), self._checked("reward", reward, (), np.float64)
        return obs, reward.item(), terminated, truncated, {}

    def render(self):
        """A picture of the environment, as its render mode says."""
        with self._guard("when it was rendered"):
            return self.env.render()

    def close(self):
        """Let it go, once. A failure loses nothing, so it is no more than a warning."""
        if self.closed:
            return
        self.closed = True
        try:
            with self._guard("when it was closed"):
                self.env.close()
        except gym.error.Error as error:
            warnings.warn(str(error), stacklevel=2)

    @contextmanager
    def _guard(self, where=None):
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # an environment is anybody's code
            raise self._fault(f"raised {described(error)}", where) from error

    def _checked_obs(self, obs):
        space = self.observation_space
        return self._checked("observation", obs, space.shape, space.dtype)

    def _checked(self, name, value, shape, dtype):
        """A copy of a value as an array; refuse another shape or kind, and what is not finite."""
        try:
            with np.errstate(over="ignore"):
                given = np.array(value)
                array = given.astype(dtype, casting="same_kind", copy=False)
                if array.dtype.kind in "iu" and (array != given).any():
                    raise OverflowError("it wrapped around")  # as `same_kind` lets it
                single = array.astype(np.float32, copy=False)  # as memory and networks hold it
        except Exception as error:  # nor is it known what it returns
            what = f"returned the {name} {described(value)}, which is not of {np.dtype(dtype)}"
            raise self._fault(what) from error
        if array.shape != shape:
            raise self._fault(f"said that its {name} has shape {shape}, but returned {array.shape}")
        if not np.isfinite(single).all():
            raise self._fault(f"returned the {name} {value}, not finite in float32,")
        return array

    def _fault(self, what, where=None):
        name = getattr(self.env.spec, "id", self.env)
        where = where or f"in step {self.taken} of an episode"
        return gym.error.Error(f"the environment {name} {what} {where}")


def holds_image(space):
    """Whether a `Dict` or a `Tuple` of spaces has an image of uint8 in it."""
    parts = getattr(space, "spaces", ())
    parts = parts.values() if isinstance(parts, dict) else parts
    return any(
        holds_image(part) or (part.dtype == np.uint8 and len(part.shape or ()) == 3)
        for part in parts
    )


def described(value):
    """What an environment raised or returned: its `repr`, if it has one; of an array its kind."""
    if isinstance(value, np.ndarray):
        return f"array {value.shape} of {value.dtype}"
    try:
        return repr(value)
    except BaseException:
        return f"{type(value).__name__} without a repr"


def make_env(env_id, max_episode_steps=None, **arguments):
    """One `Guarded` environment.

    `max_episode_steps` replaces the environment's own limit of an episode's length; the other
    arguments are the environment's own, such as `render_mode`. Raises `gymnasium.error.Error` if it
    cannot be made.
    """
    try:
        return Guarded(gym.make(env_id, max_episode_steps=max_episode_steps, **arguments))
    except (KeyboardInterrupt, gym.error.Error):
        raise
    except BaseException as error:
        what = f"the environment {env_id} raised {described(error)} when it was made"
        raise gym.error.Error(what) from error


def make_envs(env_id, num_envs, max_episode_steps=None):
    """Environments side by side; each starts its next episode in the step in which one ends.

    Raises `gymnasium.error.Error` if they cannot be made, or if their spaces differ.
    """
    makers = [lambda: make_env(env_id, max_episode_steps)] * num_envs
    try:
        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    except RuntimeError as error:
        what = f"the spaces of the environment {env_id} differ each time that it is made"
        raise gym.error.Error(what) from error


def find_spaces(env_id):
    """The observation and the action space of an environment; ValueError if there is none."""
    with _open(env_id) as env:
        return env.observation_space, env.action_space


def can_render(env_id):
    """Whether an environment gives pictures; ValueError if there is none."""
    with _open(env_id) as env:
        modes = env.metadata.get("render_modes")
        return isinstance(modes, Container) and "rgb_array" in modes


def episode_limit(env_id):
    """The environment's own limit of an episode's length in steps, or None; ValueError if there is
    no such environment.
    """
    with _open(env_id) as env:
        return env.spec.max_episode_steps


def reward_threshold(env_id):
    """The mean return from which an environment counts as solved, or None; ValueError if there is
    no such environment.
    """
    with _open(env_id) as env:
        threshold = env.spec.reward_threshold
        return threshold.item() if isinstance(threshold, np.number) else threshold


def _open(env_id):
    """An environment that is only looked at."""
    try:
        with warnings.catch_warnings(action="ignore"):  # gym warns before it raises; once is enough
            return make_env(env_id)
    except gym.error.Error as error:
        raise ValueError(f"there is no environment {env_id!r} here: {error}") from error


def successors(next_obs, infos):
    """The observations that the actions really led to: (num_envs, *obs_shape).

    Where an episode ended in this step, `next_obs` already shows the beginning of the next one, and
    the final observation is in `infos`, as `AutoresetMode.SAME_STEP` leaves it (after another mode,
    nothing is replaced). `next_obs` is not changed. Raises KeyError if `infos` holds final
    observations without their mask.
    """
    if "final_obs" in infos:
        ended = infos["_final_obs"]  # (num_envs,) bool
        next_obs = next_obs.copy()
        next_obs[ended] = np.stack(infos["final_obs"][ended])
    return next_obs
