"""Exploration noise for a batch of environments that one agent flies side by side.

A TD3 policy is deterministic, so without noise it would only ever see its own habits. Both kinds
here give one row per environment, in units of the action's half-range: 1.0 reaches from the middle
of the action space to its edge.

Mirrors the tutorial's section "Exploration noise".
Leaves out: a schedule; how much noise is right can be left to evolution (`HyperParams.expl_noise`).
Needs: nothing else.
"""

import numpy as np


class GaussianNoise:
    """Independent normal noise in every step (Fujimoto et al. 2018).

    The push of one step is forgotten in the next.
    """

    def __init__(self, num_envs, action_dim, mean, sigma):
        self.shape = (num_envs, action_dim)
        self.mean = mean
        self.sigma = sigma

    def sample(self, rng):
        """Draw the noise of one step with a `numpy.random.Generator`: (num_envs, action_dim)."""
        return rng.normal(self.mean, self.sigma, size=self.shape)

    def reset(self, mask):
        """Nothing to forget: the steps are independent."""


class OrnsteinUhlenbeckNoise:
    """A random walk that is pulled back to its mean.

    (Uhlenbeck & Ornstein 1930; used for exploration by DDPG, Lillicrap et al. 2016.) Each step
    moves x by theta (mean - x) dt + sigma sqrt(dt) N(0, 1). Neighbouring steps push the same way,
    which takes a lander somewhere instead of shaking it on the spot. If theta dt is between 0 and
    2, the standard deviation settles at sigma / sqrt(2 theta - theta^2 dt), and after about 1 /
    (theta dt) steps the walk has forgotten where it was.
    """

    def __init__(self, num_envs, action_dim, mean, sigma, theta, dt):
        self.mean = mean
        self.sigma = sigma
        self.theta = theta
        self.dt = dt
        self.x = np.full((num_envs, action_dim), mean, dtype=np.float64)

    def sample(self, rng):
        """Move the walk of every environment by one step: (num_envs, action_dim).

        `rng` is a `numpy.random.Generator`.
        """
        pull = self.theta * (self.mean - self.x) * self.dt
        push = self.sigma * self.dt**0.5 * rng.standard_normal(self.x.shape)
        self.x = self.x + pull + push
        return self.x.copy()

    def reset(self, mask):
        """Start again at the mean where `mask` (num_envs,) is true: these episodes have ended."""
        self.x[mask] = self.mean


def make_noise(kind, num_envs, action_dim, mean, sigma, theta, dt):
    """The noise of that kind, "ou" or "gaussian", else ValueError.

    `theta` and `dt` are for "ou" alone.
    """
    if kind == "ou":
        return OrnsteinUhlenbeckNoise(num_envs, action_dim, mean, sigma, theta, dt)
    if kind == "gaussian":
        return GaussianNoise(num_envs, action_dim, mean, sigma)
    raise ValueError(f"noise must be 'ou' or 'gaussian', not {kind!r}")
