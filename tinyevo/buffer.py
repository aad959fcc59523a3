"""The ring of transitions that the whole population writes into and learns from.

Off-policy learning does not depend on who collected a transition, so every agent learns from
everybody's experience; that is what makes a population of TD3 agents affordable (SEARL, Franke et
al. 2021).

Mirrors the tutorial's section "Experience replay".
Leaves out: prioritised replay and n-step returns.
Needs: nothing else.
"""

from typing import NamedTuple

import numpy as np
import torch


class Batch(NamedTuple):
    """Transitions for one update: tensors on the training device, in the environment's units."""

    obs: torch.Tensor  # (batch, *obs_shape)
    action: torch.Tensor  # (batch, act_dim)
    reward: torch.Tensor  # (batch, 1)
    next_obs: torch.Tensor  # (batch, *obs_shape)
    terminated: torch.Tensor  # (batch, 1) bool; a time limit is not a termination


class ReplayBuffer:
    """A ring of the last `capacity` transitions, allocated once.

    The storage is one numpy array with a record per transition: a structured scalar whose fields
    are those of `Batch`, without the batch axis. So a sample is one gather, a copy of the buffer is
    a copy, and it travels to another process by value. Observations and actions have the dtypes of
    their spaces, rewards are float32.

    Args:
        capacity: how many transitions fit, at least 1, else ValueError.
        observation_space, action_space: the `Box`es of one environment.
        device: where `sample` puts its tensors.

    Attributes:
        storage: the records, (capacity,).
        counter: transitions ever added. `len(memory)` is how many are stored now.
    """

    def __init__(self, capacity, observation_space, action_space, device="cpu"):
        if type(capacity) is not int or capacity < 1:
            raise ValueError(f"capacity must be a whole number of at least 1, not {capacity!r}")
        record = [
            ("obs", observation_space.dtype, observation_space.shape),
            ("action", action_space.dtype, action_space.shape),
            ("reward", np.float32, (1,)),
            ("next_obs", observation_space.dtype, observation_space.shape),
            ("terminated", np.bool_, (1,)),
        ]
        self.storage = np.zeros(capacity, dtype=np.dtype(record, align=True))
        self.counter = 0
        self.device = device

    def __len__(self):
        return min(self.counter, len(self.storage))

    def add(self, obs, action, reward, next_obs, terminated):
        """Append a batch of transitions, over the oldest ones if the ring is full.

        Of a batch larger than the capacity, the last rows are kept.

        Args:
            obs, next_obs: (batch, *obs_shape).
            action: (batch, act_dim), in the environment's units.
            reward, terminated: (batch,).

        Raises ValueError for observations and actions of other shapes.
        """
        records = np.zeros(len(reward), dtype=self.storage.dtype)
        for name, values in {"obs": obs, "action": action, "next_obs": next_obs}.items():
            # Without this, numpy would give all rows one observation that lacks the batch axis.
            if np.shape(values) != records[name].shape:
                what = f"{name} must be {records[name].shape}, not {np.shape(values)}"
                raise ValueError(f"{what}, for {len(reward)} rewards")
            records[name] = values
        records["reward"][:, 0] = reward
        records["terminated"][:, 0] = terminated
        self.extend(records)

    def extend(self, records):
        """Append records of another buffer (as `latest` gives them): (batch,).

        Of more records than fit, the last are kept.
        """
        kept = records[-len(self.storage) :]
        first = self.counter + len(records) - len(kept)
        self.storage[(first + np.arange(len(kept))) % len(self.storage)] = kept
        self.counter += len(records)

    def latest(self, n):
        """The last `n` records added (or all there are, if fewer), oldest first: (n,)."""
        n = min(n, len(self))
        return self.storage[(self.counter - n + np.arange(n)) % len(self.storage)]

    def sample(self, batch_size, rng):
        """Draw a `Batch` of `batch_size` transitions uniformly, with replacement.

        `rng` is a `numpy.random.Generator`. Raises ValueError if the memory is empty.
        """
        if self.counter == 0:
            raise ValueError("the memory is empty: add transitions before you sample")
        rows = self.storage[rng.integers(len(self), size=batch_size)]
        return Batch(*(torch.from_numpy(rows[name]).to(self.device) for name in Batch._fields))

    def state(self):
        """Everything in it, copied as plain data; `ReplayBuffer.from_state` is the way back."""
        rows = self.storage[: len(self)]  # in the ring's own order, which decides what a seed draws
        records = {name: torch.from_numpy(rows[name].copy()) for name in rows.dtype.names}
        return {"capacity": len(self.storage), "counter": self.counter, "records": records}

    @classmethod
    def from_state(cls, state, observation_space, action_space, device="cpu"):
        """The memory that `state` describes; it shares nothing with `state`."""
        memory = cls(state["capacity"], observation_space, action_space, device)
        memory.counter = state["counter"]
        for name, values in state["records"].items():
            memory.storage[name][: len(memory)] = values.numpy()
        return memory
