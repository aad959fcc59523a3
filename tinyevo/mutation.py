"""Mutation: how children differ from their parents.

Every child gets at most one mutation, of a kind drawn by relative weights: none, its architecture,
the weights of its policy, its activation, or one of its hyper-parameters (SEARL, Franke et al.
2021, section 4). A sixth kind, a restart, makes a newcomer of it: all hyper-parameters that evolve
move, and fresh networks learn from what everybody has seen. What was learned early, from little
experience, can keep a network from learning better (Nikishin et al. 2022). A kind that cannot
apply, such as another activation where only one is allowed, is drawn again among the others;
`agent.mutation_kind` and `agent.mutation` say what happened.

One rule covers the optimisers and targets: a network that was replaced gets fresh ones (all
networks after a restart or a mutation of the architecture or activation, after one of the weights
the policy alone), a new hyper-parameter keeps everything.

Mirrors the tutorial's section "Tournament selection and mutation".
Leaves out: crossover, self-adapting mutation rates, and mutation of the noise and the algorithm.
Needs: nothing else. An agent here is anything with `hp`, `set_hp`, `networks` (a dict with the
policy under "actor"), `set_networks`, `hidden_size`, `channels`, `activation`, `fitness`,
`mutation_kind` and `mutation`, whose networks edit themselves as `EvolvableMLP` and `EvolvableCNN`.
"""

import copy
import math
from dataclasses import dataclass, field
from operator import methodcaller

import torch


def check_range(name, value, low, high):
    """Raise ValueError unless `value` is a number from `low` to `high`."""
    if type(value) not in (int, float) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low} to {high}, not {value!r}")


def whole_numbers(name, sizes):
    """These sizes as a tuple; ValueError unless they are whole numbers of at least 1."""
    if not isinstance(sizes, (tuple, list)) or not sizes:
        raise ValueError(f"{name} must be a tuple of whole numbers, not {sizes!r}")
    if not all(type(size) is int and size >= 1 for size in sizes):
        raise ValueError(f"{name} must be whole numbers of at least 1, not {sizes!r}")
    return tuple(sizes)


@dataclass(frozen=True)
class RLParameter:
    """The range of one evolvable hyper-parameter, and the two factors by which it moves.

    `dtype` is int or float; the range of an int has whole ends, not below 0. `min` is at most
    `max`, and both are at most 1e9; `shrink_factor` is from 0.001 to 0.999, `grow_factor` from
    1.001 to 1000; else ValueError. The default factors are each other's inverse: with 0.8 and 1.2 a
    walk would drift to its lower bound, because one step down and one step up lose 4 %.
    """

    min: float
    max: float
    dtype: type = float
    shrink_factor: float = 0.8
    grow_factor: float = 1.25

    def __post_init__(self):
        if self.dtype not in (int, float):
            raise ValueError(f"the dtype of a range must be int or float, not {self.dtype!r}")
        check_range("min", self.min, 0 if self.dtype is int else -1e9, 1e9)
        check_range("max", self.max, self.min, 1e9)
        if self.dtype is int and (self.min % 1 or self.max % 1):
            raise ValueError(f"a range of int has whole ends, not {self.min} and {self.max}")
        check_range("shrink_factor", self.shrink_factor, 0.001, 0.999)
        check_range("grow_factor", self.grow_factor, 1.001, 1000)

    def draw(self, rng):
        """A value from this range, log-uniform: the guess of somebody who knows nothing.

        `rng` is a `numpy.random.Generator`. Raises ValueError if the range has 0 or less in it.
        """
        if self.min <= 0:
            raise ValueError(f"a range to draw from is above 0, not {self.min} to {self.max}")
        value = math.exp(rng.uniform(math.log(self.min), math.log(self.max)))
        return self._within(round(value) if self.dtype is int else value)

    def mutate(self, value, rng):
        """`value` times one of the factors, within the bounds.

        The same value only if both factors lead back to it: where `min` equals `max` or, for a
        float, at 0 in a range that holds it. `rng` is a `numpy.random.Generator`.
        """
        moved = [self._moved(value, factor) for factor in (self.shrink_factor, self.grow_factor)]
        moved = [new for new in moved if not math.isclose(new, value)] or [value]
        return moved[rng.integers(len(moved))]

    def _moved(self, value, factor):
        """`value` times `factor` within the bounds, as `dtype`; a whole number moves by 1 at least.

        Rounding alone may undo a step (1 * 1.25 is 1 again), and then no draw would ever leave 1.
        """
        new = value * factor
        if self.dtype is int and factor > 1:
            new = max(round(new), value + 1)
        elif self.dtype is int:
            new = min(round(new), value - 1)
        return self._within(new)

    def _within(self, value):
        """The value of this range that is nearest, as `dtype`."""
        return self.dtype(min(max(value, self.min), self.max))


RANGES = {  # of the settings of `Mutations`, both ends included
    "no_mutation": (0, 1e9),
    "architecture": (0, 1e9),
    "parameters": (0, 1e9),
    "activation": (0, 1e9),
    "rl_hp": (0, 1e9),
    "restart": (0, 1e9),
    "new_layer_prob": (0, 1),
    "mutation_sd": (0, 1e9),
    "mutated_share": (1e-9, 1),
    "super_prob": (0, 1),
    "super_sd": (0, 1e9),
    "reset_prob": (0, 1),
}


@dataclass(frozen=True)
class Mutations:
    """Mutates a population, each member by one kind at most.

    Args:
        no_mutation, architecture, parameters, activation, rl_hp, restart: relative weights of the
            kinds; they need not sum to 1. Newcomers need `TournamentSelection.judged_by` to be
            spared until they have learned.
        new_layer_prob: probability that a mutation of the architecture adds or removes a layer;
            the others change a layer's width. If the bounds allow none of the one sort, the other
            is used, unless its probability is 0.
        layer_bounds, node_bounds: fewest and most hidden layers, fewest and most nodes in each;
            both inclusive.
        node_steps: numbers of nodes of which one is drawn to be added or removed.
        conv_bounds, channel_bounds, channel_steps: the same for the convolutions and channels of an
            agent that sees images. Layers that halve the picture stay, whatever the bounds.
        mutation_sd: standard deviation of the noise on a policy weight w, in units of |w|.
        mutated_share: largest share of the entries of a weight matrix that one mutation touches,
            rounded up to whole entries.
        super_prob, super_sd: probability that such an entry gets noise of `super_sd` |w| instead.
        reset_prob: probability that it is drawn afresh from N(0, 1).
        activations: names to choose from.
        hp_space: which hyper-parameters evolve, by name, and in which `RLParameter` range.
        mutate_elite: whether the elite that selection carried over is mutated too.

    Raises ValueError for numbers outside the ranges in `RANGES`, for weights that are all 0, for
    `super_prob` and `reset_prob` that are together above 1, and for bounds and steps that are not
    whole or below 1.
    """

    no_mutation: float = 0.4
    architecture: float = 0.2
    new_layer_prob: float = 0.2
    parameters: float = 0.2
    activation: float = 0.2
    rl_hp: float = 0.2
    mutation_sd: float = 0.1
    hp_space: dict = field(default_factory=dict)
    mutate_elite: bool = False
    layer_bounds: tuple = (1, 3)
    node_bounds: tuple = (16, 256)
    node_steps: tuple = (16, 32, 64)
    conv_bounds: tuple = (1, 5)
    channel_bounds: tuple = (8, 64)
    channel_steps: tuple = (4, 8, 16)
    mutated_share: float = 0.1
    super_prob: float = 0.05
    super_sd: float = 10.0
    reset_prob: float = 0.05
    activations: tuple = ("relu", "elu", "gelu", "tanh")
    restart: float = 0.0

    def __post_init__(self):
        for name, (low, high) in RANGES.items():
            check_range(name, getattr(self, name), low, high)
        check_range("super_prob + reset_prob", self.super_prob + self.reset_prob, 0, 1)
        bounds_of = ("layer_bounds", "node_bounds", "conv_bounds", "channel_bounds")
        for name in (*bounds_of, "node_steps", "channel_steps"):
            object.__setattr__(self, name, whole_numbers(name, getattr(self, name)))
        for name in bounds_of:
            bounds = getattr(self, name)
            if len(bounds) != 2 or bounds[0] > bounds[1]:
                raise ValueError(f"{name} must be (fewest, most), not {bounds}")
        if not self._kinds():
            raise ValueError("the weights of all kinds of mutation are 0: raise one of them")
        if not isinstance(self.activations, (tuple, list)):
            raise ValueError(f"activations must be a tuple of names, not {self.activations!r}")
        object.__setattr__(self, "activations", tuple(self.activations))
        if not isinstance(self.hp_space, dict):
            raise ValueError(f"hp_space must be a dict of RLParameter by name, not {self.hp_space}")
        for name, limits in self.hp_space.items():
            if not isinstance(limits, RLParameter):
                raise ValueError(f"hp_space[{name!r}] must be an RLParameter, not {limits!r}")

    def _kinds(self):
        """The kinds of mutation: of each its name, its weight above 0, and what does it."""
        kinds = [
            ("none", self.no_mutation, lambda agent, rng: "none"),
            ("architecture", self.architecture, self._mutate_architecture),
            ("parameters", self.parameters, self._mutate_parameters),
            ("activation", self.activation, self._mutate_activation),
            ("rl_hp", self.rl_hp, self._mutate_hp),
            ("restart", self.restart, self._restart),
        ]
        return [kind for kind in kinds if kind[1] > 0]

    def mutate(self, population, rng):
        """Mutate the agents of `population` in place, and return them.

        Those that selection spared stay as they are, and so does the elite unless `mutate_elite`.
        `rng` is the `numpy.random.Generator` of all draws. Raises ValueError if a hyper-parameter
        leaves the ranges of the agent's.
        """
        unchanged = {"spared"} if self.mutate_elite else {"elite", "spared"}
        for agent in population:
            if agent.mutation_kind not in unchanged:
                agent.mutation_kind, agent.mutation = self._mutate(agent, rng)
        return population

    def _mutate(self, agent, rng):
        """Draw kinds until one applies; returns its name, and in words what it did."""
        kinds = self._kinds()
        while kinds:
            weights = [weight for _, weight, _ in kinds]
            shares = [weight / sum(weights) for weight in weights]
            kind, _, operator = kinds.pop(rng.choice(len(kinds), p=shares))
            what = operator(agent, rng)
            if what:
                return kind, what
        return "none", "none"

    def _mutate_architecture(self, agent, rng):
        """One edit for all the agent's networks, so that they stay alike.

        Returns "architecture old -> new", or None if no edit of an allowed sort stays in bounds.
        """
        old = _architecture(agent)
        width, depth = self._width_edits(agent, rng), self._depth_edits(agent)
        first, second = (depth, width) if rng.random() < self.new_layer_prob else (width, depth)
        edits = first or (second if 0 < self.new_layer_prob < 1 else [])
        if not edits:
            return None
        _replace_networks(agent, edits[rng.integers(len(edits))])
        return f"architecture {old} -> {_architecture(agent)}"

    def _depth_edits(self, agent):
        """The edits of the number of layers that stay in bounds: functions of a network."""
        moves = _moves(len(agent.hidden_size), self.layer_bounds)
        edits = [methodcaller(f"{way}_layer") for way, _ in moves]
        if agent.channels:
            fewest, most = self.conv_bounds
            bounds = max(fewest, agent.networks["actor"].config.halvings), most
            moves = _moves(len(agent.channels), bounds)
            edits += [methodcaller(f"{way}_conv_layer") for way, _ in moves]
        return edits

    def _width_edits(self, agent, rng):
        """The edits of a layer's width that stay in bounds: functions of a network.

        By a number of units drawn from the steps, or by as many as there is room for.
        """
        sorts = [("nodes", agent.hidden_size, self.node_bounds, self.node_steps)]
        if agent.channels:
            sorts.append(("channels", agent.channels, self.channel_bounds, self.channel_steps))
        edits = []
        for units, sizes, bounds, steps in sorts:
            n = int(rng.choice(steps))
            for layer, size in enumerate(sizes):
                for way, count in _moves(size, bounds, n):
                    edits.append(methodcaller(f"{way}_{units}", layer, count, rng))
        return edits

    @torch.no_grad()
    def _mutate_parameters(self, agent, rng):
        """Add noise to at least 1 and at most `mutated_share` of each weight matrix of the policy.

        Biases stay. Returns how many weights changed, in words, or None if none did.
        """
        policy = copy.deepcopy(agent.networks["actor"])
        changed = 0
        for weight in (*policy.weights, *getattr(policy, "kernels", ())):
            most = math.ceil(self.mutated_share * weight.numel())
            count = rng.integers(1, most, endpoint=True)
            entries = rng.choice(weight.numel(), size=count, replace=False)
            entries = torch.as_tensor(entries, device=weight.device)
            old = weight.view(-1)[entries]
            new = self._perturbed(old, rng)
            weight.view(-1)[entries] = new
            changed += int((new != old).sum())
        if changed == 0:
            return None
        agent.set_networks(actor=policy)
        return f"parameters {changed} weights"

    def _perturbed(self, old, rng):
        """`old` with noise; each entry draws which of the three kinds (normal, super, reset)."""
        normal = torch.as_tensor(rng.standard_normal(len(old))).to(old)
        band = torch.as_tensor(rng.random(len(old)))  # float64, which not every device has
        is_super = band < self.super_prob
        is_reset = ~is_super & (band < self.super_prob + self.reset_prob)
        sd = torch.where(is_super, self.super_sd, self.mutation_sd).to(old)
        return torch.where(is_reset.to(old.device), normal, old + sd * old.abs() * normal)

    def _mutate_activation(self, agent, rng):
        """Another activation for all the agent's networks, their weights untouched."""
        old = agent.activation
        others = [name for name in self.activations if name != old]
        if not others:
            return None
        new = others[rng.integers(len(others))]
        _replace_networks(agent, methodcaller("change_activation", new))
        return f"activation {old} -> {new}"

    def _mutate_hp(self, agent, rng):
        """One hyper-parameter, drawn from those that can move; returns "name old -> new"."""
        for name in rng.permutation(list(self.hp_space)).tolist():
            old = getattr(agent.hp, name)
            new = self.hp_space[name].mutate(old, rng)
            if new != old:
                agent.set_hp(**{name: new})
                return f"{name} {_short(old)} -> {_short(new)}"
        return None

    def _restart(self, agent, rng):
        """Fresh networks of the same architecture, and every hyper-parameter moved."""
        moved = {}
        for name, limits in self.hp_space.items():
            moved[name] = limits.mutate(getattr(agent.hp, name), rng)
        agent.set_hp(**moved)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        _replace_networks(agent, methodcaller("fresh", generator))
        agent.fitness = []
        return "restart"


def _replace_networks(agent, edit):
    """Put what `edit` makes of each of the agent's networks in its place, so they stay alike."""
    agent.set_networks(**{name: edit(network) for name, network in agent.networks.items()})


def _moves(size, bounds, n=1):
    """The ways in which a size may move, and by how much: `n`, or as far as there is room."""
    fewest, most = bounds
    moves = [("add", min(n, most - size)), ("remove", min(n, size - fewest))]
    return [(way, count) for way, count in moves if count > 0]


def _architecture(agent):
    """An agent's hidden sizes as text, such as "64x64"; behind its channels, as "16x32+64x64"."""
    sizes = [part for part in (agent.channels, agent.hidden_size) if part]
    return "+".join("x".join(map(str, part)) for part in sizes)


def _short(value):
    """A hyper-parameter as text, a float to three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
