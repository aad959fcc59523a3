"""TD3, one agent of the population: it acts, learns, is cloned, and exposes what evolution changes.

Twin Delayed Deep Deterministic policy gradient (Fujimoto, van Hoof & Meger 2018, algorithm 1) is
DDPG with three changes against over-estimated values: the target uses the smaller of two critics,
the policy is updated less often than the critics, and noise on the target action keeps the policy
from exploiting a narrow peak of a critic.

Mirrors the tutorial's sections "TD3 overview" and "Defining hyper-parameters".
Leaves out: discrete actions, weight decay, and any schedule (evolution is the schedule).
Needs: networks.py, images.py, checkpoint.py, beside it in a folder `tinyevo`.
"""

import copy
import math
from dataclasses import asdict, dataclass, replace
from typing import get_type_hints

import numpy as np
import torch
from gymnasium.spaces import Box
from torch.nn import functional as F
from torch.optim import Adam

from tinyevo import checkpoint
from tinyevo.images import EvolvableCNN, is_image
from tinyevo.networks import EvolvableMLP


def check_ranges(settings, ranges):
    """Raise ValueError unless each of these fields of a dataclass is in its range (low, high).

    A field annotated as int takes whole numbers alone, one annotated as float takes both kinds.
    """
    kinds = get_type_hints(type(settings))
    for name, (low, high) in ranges.items():
        value, kind = getattr(settings, name), kinds[name]
        if type(value) not in (int, kind) or not low <= value <= high:
            words = "a whole number" if kind is int else "a number"
            raise ValueError(f"{name} must be {words} from {low} to {high}, not {value!r}")


@dataclass(frozen=True)
class HyperParams:
    """The hyper-parameters of one agent.

    Evolution may change any of them; `TD3.set_hp` puts a change in force. The defaults are those
    that the repository's results report. Raises ValueError outside the ranges in `RANGES`.
    """

    lr_actor: float = 5e-4  # step size of Adam for the policy
    lr_critic: float = 1e-3  # step size of Adam for both critics
    batch_size: int = 256  # transitions in one update
    learn_step: int = 2  # environment steps per update, as the caller counts them
    gamma: float = 0.99  # discount of the future, per environment step
    reward_scale: float = 0.1  # factor on rewards in the critics' target
    tau: float = 0.01  # soft target update: target += tau * (network - target)
    policy_freq: int = 2  # critic updates per update of the policy and the targets
    policy_noise: float = 0.2  # target smoothing: standard deviation, in half-ranges of the action
    noise_clip: float = 0.5  # target smoothing: largest deviation, in half-ranges of the action
    expl_noise: float = 0.3  # exploration: sigma, in half-ranges of the action

    def __post_init__(self):
        check_ranges(self, RANGES)


RANGES = {  # of hyper-parameters, both ends included
    "lr_actor": (0, 1),
    "lr_critic": (0, 1),
    "batch_size": (1, 1_000_000),
    "learn_step": (1, 1_000_000),
    "gamma": (0, 1),
    "reward_scale": (0, 1_000_000),
    "tau": (0, 1),
    "policy_freq": (1, 1_000_000),
    "policy_noise": (0, 1000),
    "noise_clip": (0, 1000),
    "expl_noise": (0, 1000),
}


def check_hp_space(hp, hp_space):
    """Raise ValueError unless `hp` has what evolves, and may have both ends of each range.

    `hp_space` is a dict of `RLParameter` by name.
    """
    for name, limits in hp_space.items():
        if name not in vars(hp):
            raise ValueError(f"hp_space has {name!r}, choose from {', '.join(vars(hp))}")
        for end in (limits.min, limits.max):
            try:
                replace(hp, **{name: limits.dtype(end)})
            except ValueError as error:
                raise ValueError(f"hp_space.{name}: {error}") from error


def check_spaces(observation_space, action_space):
    """Raise ValueError for spaces that TD3 cannot handle."""
    if not isinstance(action_space, Box) or len(action_space.shape) != 1:
        raise ValueError(f"TD3 needs actions that are vectors, not {action_space}")
    is_box = isinstance(observation_space, Box)
    if not is_box or not (len(observation_space.shape) == 1 or is_image(observation_space)):
        what = "observations that are vectors, or images of uint8"
        raise ValueError(f"TD3 needs {what}, not {observation_space}")
    for name, space in (("observations", observation_space), ("actions", action_space)):
        if space.dtype.itemsize > 8:  # torch has no wider ones
            raise ValueError(f"TD3 needs {name} of at most 64 bits, not {space}")
    low, high = action_space.low, action_space.high
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = [np.float32(high) - np.float32(low), high - low]
    if action_space.dtype.kind != "f" or not np.isfinite(sizes).all():
        what = "real actions with finite bounds whose difference fits into float32 and their dtype"
        raise ValueError(f"TD3 needs {what}, not {action_space}")


RECORD = (  # what a checkpoint keeps of an agent beside its spaces, hyper-parameters and networks
    "id",
    "parent_id",
    "mutation_kind",
    "mutation",
    "fitness",
    "train_return",
    "steps",
    "updates",
)


class TD3:
    """One agent.

    Args:
        observation_space, action_space: of one environment. Observations are vectors, or images of
            uint8; the action box must be finite.
        hp: its `HyperParams`.
        hidden_size, activation: of the policy and of the critics alike.
        channels: of the encoder's layers, for images; they are not used for vectors.
        device: where its tensors live, for example "cpu" or "cuda".
        generator: `torch.Generator` of the initial weights; None uses torch's global one.

    Attributes:
        networks, targets, optimizers: dicts with the keys "actor" and "critic"; the critic is an
            ensemble of two.
        hidden_size, activation: of the hidden layers, alike in all networks.
        channels: of the encoder's layers, alike in all networks; () for vectors.
        id, parent_id: of this agent and of its parent (None in the first generation).
        mutation_kind: what set it apart from its parent: "none", "architecture", "parameters",
            "activation", "rl_hp" or "restart"; or that it went on: "elite" or "spared".
        mutation: the same in words, with what it changed: "lr_actor 0.0005 -> 0.000625".
        fitness: one mean evaluation return per generation of its lineage since the last restart.
        train_return: mean return of the training episodes that ended in its last generation; NaN
            if none did.
        steps, updates: environment steps and gradient steps of its lineage. A generation in which
            it diverged adds no steps.

    What `state` does not list stays behind when an agent is saved or goes to another process.
    Raises ValueError for spaces that TD3 cannot handle, and for networks that cannot be made.
    """

    def __init__(
        self,
        observation_space,
        action_space,
        hp=HyperParams(),
        hidden_size=(64, 64),
        activation="relu",
        channels=(8, 16, 32, 32),
        device="cpu",
        generator=None,
    ):
        check_spaces(observation_space, action_space)
        self.observation_space, self.action_space = observation_space, action_space
        self.hp, self.device = hp, torch.device(device)
        self.id, self.parent_id = 0, None
        self.mutation_kind, self.mutation = "none", "none"
        self.fitness, self.train_return = [], math.nan
        self.steps, self.updates = 0, 0

        edges = np.float32([action_space.low, action_space.high])
        self.low, self.high = torch.as_tensor(edges, device=self.device)  # (act_dim,) each
        self.half_range = (self.high - self.low) / 2
        self.middle = self.high / 2 + self.low / 2  # their sum may not fit

        obs_dim, act_dim = observation_space.shape[0], action_space.shape[0]
        shape = {"hidden_size": hidden_size, "activation": activation, "generator": generator}
        make = EvolvableMLP
        if is_image(observation_space):
            obs_dim, make = 0, EvolvableCNN
            shape |= {"image_shape": observation_space.shape, "channels": channels}
        self.networks, self.targets, self.optimizers = {}, {}, {}
        self.set_networks(
            actor=make(obs_dim, act_dim, output_activation="tanh", **shape),
            critic=make(obs_dim + act_dim, 1, ensemble_size=2, **shape),
        )

    def set_networks(self, **networks):
        """Replace networks by name ("actor", "critic").

        These get a fresh target copy and a fresh optimiser, the others keep theirs.
        """
        for name, network in networks.items():
            step_size = getattr(self.hp, f"lr_{name}")
            network = network.to(self.device)
            self.networks[name] = network
            self.targets[name] = copy.deepcopy(network).requires_grad_(False)
            self.optimizers[name] = Adam(network.parameters(), lr=step_size, fused=True)
            self.hidden_size = network.config.hidden_size
            self.activation = network.config.activation
            self.channels = getattr(network.config, "channels", ())

    def set_hp(self, **changes):
        """Put new hyper-parameters in force, by name.

        Networks and the optimisers' moments stay as they are. Raises ValueError outside the ranges
        of `HyperParams`.
        """
        self.hp = replace(self.hp, **changes)
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = getattr(self.hp, f"lr_{name}")

    @torch.no_grad()
    def get_action(self, obs):
        """The greedy action: numpy in, numpy out, in the environment's units.

        Takes one observation (*obs_shape) or a batch (batch, *obs_shape) and returns (act_dim,) or
        (batch, act_dim). Raises FloatingPointError if an action is not finite, because the policy
        diverged: an environment may take NaN for an action like any other.
        """
        obs = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        single = obs.dim() == len(self.observation_space.shape)
        batch = obs[None] if single else obs
        action = self._policy(self.networks["actor"], batch).cpu().numpy()
        if not np.isfinite(action).all():
            raise FloatingPointError("the policy diverged: its action is not finite")
        box = self.action_space
        # Rounding may step over an edge.
        action = np.clip(action.astype(box.dtype), box.low, box.high)
        return action[0] if single else action

    def learn(self, batch, generator=None):
        """One update: the critics always, the policy and all targets every `policy_freq` updates.

        `batch` is a `Batch`, which is not changed. `generator` is the `torch.Generator` (on the
        agent's device) of the smoothing noise; None uses the global one. Returns the losses,
        detached, by network: "critic", and "actor" when it moved.
        """
        obs, action, reward, next_obs, terminated = (tensor.float() for tensor in batch)
        actor, critic, hp = self.networks["actor"], self.networks["critic"], self.hp
        self.updates += 1

        with torch.no_grad():
            # Smooth the target policy: similar actions should have similar values.
            noise = torch.empty_like(action).normal_(generator=generator)
            noise = (noise * hp.policy_noise).clamp(-hp.noise_clip, hp.noise_clip)
            next_action = self._policy(self.targets["actor"], next_obs) + noise * self.half_range
            next_action = next_action.clamp(self.low, self.high)  # (batch, act_dim)

            # Use the smaller of the two critics; nothing follows a termination.
            q1, q2 = self.targets["critic"](next_obs, next_action)
            future = hp.gamma * (1 - terminated) * torch.minimum(q1, q2)
            target = hp.reward_scale * reward + future  # (batch, 1)

        # Move both critics towards the same target.
        q1, q2 = critic(obs, action)  # (batch, 1) each
        losses = {"critic": F.mse_loss(q1, target) + F.mse_loss(q2, target)}
        self._descend("critic", losses["critic"])

        if self.updates % hp.policy_freq == 0:
            # Update the policy: raise the first critic's value of its actions.
            q1 = critic(obs, self._policy(actor, obs), first_only=True)
            losses["actor"] = -q1.mean()
            self._descend("actor", losses["actor"])

            # Let every target follow its network slowly.
            with torch.no_grad():
                for name, network in self.networks.items():
                    targets = list(self.targets[name].parameters())
                    torch._foreach_lerp_(targets, list(network.parameters()), hp.tau)

        return {name: loss.detach() for name, loss in losses.items()}

    def _policy(self, actor, obs):
        """An actor's output in (-1, 1), stretched to the action box: (batch, act_dim)."""
        return self.middle + self.half_range * actor(obs)

    def _descend(self, name, loss):
        """One optimiser step of one network, which computes no gradients of any other."""
        parameters = self.optimizers[name].param_groups[0]["params"]  # all of the network's
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters)):
            parameter.grad = gradient
        self.optimizers[name].step()

    def is_finite(self):
        """Whether all its weights are finite.

        A NaN policy can look fit: LunarLander takes NaN for "engines off".
        """
        networks = self.networks.values()
        return all(weight.isfinite().all() for each in networks for weight in each.parameters())

    def clone(self):
        """An agent that is equal in everything, optimiser moments included, and shares nothing."""
        twin = object.__new__(type(self))
        vars(twin).update(copy.deepcopy(vars(self)))
        return twin

    def state(self):
        """Everything that makes this agent, copied as plain data; tensors are on the CPU.

        `TD3.from_state` is the way back.
        """
        boxes = (self.observation_space, self.action_space)
        state = {
            "spaces": [[torch.tensor(box.low), torch.tensor(box.high)] for box in boxes],
            "hp": asdict(self.hp),
            "record": {name: getattr(self, name) for name in RECORD},
            "networks": {},
        }
        for name, network in self.networks.items():
            state["networks"][name] = {
                "config": asdict(network.config),
                "weights": network.state_dict(),
                "target": self.targets[name].state_dict(),
                "moments": list(self.optimizers[name].state_dict()["state"].values()),
            }
        return checkpoint.copied(state)

    def __reduce__(self):
        # To another process an agent travels as bytes: torch would share its tensors instead.
        return _from_bytes, (type(self), checkpoint.dumps(self.state()), str(self.device))

    @classmethod
    def from_state(cls, state, device="cpu"):
        """The agent that `state` describes, on any device; it shares nothing with `state`."""
        state = checkpoint.copied(state)
        edges = [np.stack(ends) for ends in state["spaces"]]  # (2, *shape): low and high
        boxes = [Box(*ends, dtype=ends.dtype) for ends in edges]
        # A generator, for torch's global one is not to move; the weights are replaced below.
        agent = cls(*boxes, HyperParams(**state["hp"]), device=device, generator=torch.Generator())
        for name, saved in state["networks"].items():
            make = type(agent.networks[name])
            network = make(**saved["config"], generator=torch.Generator())
            network.load_state_dict(saved["weights"])
            agent.set_networks(**{name: network})
            agent.targets[name].load_state_dict(saved["target"])
            optimizer = agent.optimizers[name]
            moments = dict(enumerate(saved["moments"]))
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        for name in RECORD:
            setattr(agent, name, state["record"][name])
        return agent

    def save_checkpoint(self, path):
        """Write this agent to a file, whole or not at all."""
        checkpoint.save(self.state(), path)

    @classmethod
    def load_checkpoint(cls, path, device="cpu"):
        """The agent in a file that `save_checkpoint` wrote; ValueError if it is anything else."""
        return checkpoint.load(path, lambda state: cls.from_state(state, device))


def _from_bytes(cls, data, device):
    return cls.from_state(checkpoint.loads(data), device)
