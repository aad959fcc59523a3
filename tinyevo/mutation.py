"""Mutation: how children differ from their parents.

Every child gets at most one mutation, of a kind drawn by relative weights: none, its architecture, the weights of its
policy, its activation, or one of its hyper-parameters (SEARL, Franke et al. 2021, section 4). A kind that cannot apply,
such as another activation where only one is allowed, is drawn again among the others; `agent.mutation` says what
happened.

One rule covers the optimisers and targets: a network that was replaced gets fresh ones (all networks after a mutation
of the architecture or activation, the policy alone after one of its weights), a new number keeps everything.

Mirrors the tutorial's section "Tournament selection and mutation".
Leaves out: crossover, self-adapting mutation rates, and mutation of the noise and the algorithm themselves.
Needs: nothing else. An agent here is anything with `hp`, `set_hp`, `networks` (dict, the policy first), `set_networks`
and `mutation`, whose networks edit themselves as `EvolvableMLP` does.
"""

import copy
import math
from dataclasses import dataclass, field, fields

import torch


@dataclass(frozen=True)
class RLParameter:
    """The range of one evolvable hyper-parameter, and the two factors by which it moves.

    `dtype` is int or float. The default factors are each other's inverse: with 0.8 and 1.2 a walk would drift to its
    lower bound, because one step down and one step up lose 4 %.
    """

    min: float
    max: float
    dtype: type = float
    shrink_factor: float = 0.8
    grow_factor: float = 1.25

    def __post_init__(self):
        numbers = (self.min, self.max, self.shrink_factor, self.grow_factor)
        numeric = self.dtype in (int, float) and all(
            type(number) in (int, float) for number in numbers
        )
        ordered = (
            numeric
            and -math.inf < self.min <= self.max < math.inf
            and self.shrink_factor < 1 < self.grow_factor
        )
        if (
            not ordered
            or self.shrink_factor <= 0
            or (self.dtype is int and (self.min % 1 or self.max % 1))
        ):
            raise ValueError(
                f"a range needs min <= max (whole if int), shrink < 1 < grow, int or float, not {self}"
            )

    def mutate(self, value, rng):
        """`value` times one of the factors, within the bounds; the same value only if it can move neither way."""
        moved = [self._moved(value, factor) for factor in (self.shrink_factor, self.grow_factor)]
        moved = [new for new in moved if not math.isclose(new, value)] or [value]
        return moved[rng.integers(len(moved))]

    def _moved(self, value, factor):
        """`value` times `factor` within the bounds, as `dtype`; a whole number moves by 1 at least."""
        new = value * factor
        if self.dtype is int:
            # Rounding may undo the step (1 * 1.25 is 1 again), and then no draw would ever leave 1.
            new = max(round(new), value + 1) if factor > 1 else min(round(new), value - 1)
        return self.dtype(min(max(new, self.min), self.max))


@dataclass(frozen=True)
class Mutations:
    """Mutates a population, each member by one kind at most.

    Args:
        no_mutation, architecture, parameters, activation, rl_hp: relative weights of the kinds; they need not sum to 1.
        new_layer_prob: share of architecture mutations that add or remove a layer; the others change a layer's width.
        layer_bounds, node_bounds: fewest and most hidden layers, fewest and most nodes in each; both inclusive.
        node_steps: numbers of nodes of which one is drawn to be added or removed.
        mutation_sd: standard deviation of the noise on a policy weight w, in units of |w|.
        mutated_share: largest share of the entries of a weight matrix that one mutation touches.
        super_prob, super_sd: share of these that get noise of `super_sd` |w| instead.
        reset_prob: share of these that are drawn afresh from N(0, 1).
        activations: names to choose from.
        hp_space: which hyper-parameters evolve, and in which `RLParameter` range.
        mutate_elite: whether the elite that selection carried over is mutated too.
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
    mutated_share: float = 0.1
    super_prob: float = 0.05
    super_sd: float = 10.0
    reset_prob: float = 0.05
    activations: tuple = ("relu", "elu", "gelu", "tanh")

    def __post_init__(self):
        shares = ("new_layer_prob", "mutated_share", "super_prob", "reset_prob")
        for name in (setting.name for setting in fields(self) if setting.type is float):
            value, most = getattr(self, name), 1 if name in shares else 1e9
            if type(value) not in (int, float) or not 0 <= value <= most:
                raise ValueError(f"{name} must be a number from 0 to {most:g}, not {value!r}")
        if (
            self.no_mutation + self.architecture + self.parameters + self.activation + self.rl_hp
            == 0
        ):
            raise ValueError(
                "the weights of all kinds of mutation are 0: raise one, no_mutation for example"
            )
        if self.mutated_share == 0 or self.super_prob + self.reset_prob > 1:
            raise ValueError(
                "mutated_share must be above 0, and super_prob and reset_prob together at most 1"
            )
        for name, length in (("layer_bounds", 2), ("node_bounds", 2), ("node_steps", 0)):
            sizes = getattr(self, name)
            whole = isinstance(sizes, (tuple, list)) and all(
                type(size) is int and size >= 1 for size in sizes
            )
            if not whole or not sizes or (length and (len(sizes) != length or sizes[0] > sizes[1])):
                raise ValueError(
                    f"{name} must be whole numbers of at least 1, a bound before a larger, not {sizes!r}"
                )
        space = self.hp_space.values() if isinstance(self.hp_space, dict) else [None]
        if not all(isinstance(limits, RLParameter) for limits in space) or isinstance(
            self.activations, str
        ):
            raise ValueError(
                "hp_space must be a dict of RLParameters by name, activations a tuple of names"
            )

    def mutation(self, population, rng):
        """Mutate the agents of `population` in place, drawing with the `numpy.random.Generator` `rng`; returns them."""
        for agent in population:
            if agent.mutation != "elite" or self.mutate_elite:
                agent.mutation = self._mutate(agent, rng)
        return population

    def _mutate(self, agent, rng):
        """Draw kinds until one applies; returns what it did, in words."""
        kinds = [
            (self.no_mutation, lambda agent, rng: "none"),
            (self.architecture, self._mutate_architecture),
            (self.parameters, self._mutate_parameters),
            (self.activation, self._mutate_activation),
            (self.rl_hp, self._mutate_hp),
        ]
        kinds = [(weight, mutate) for weight, mutate in kinds if weight > 0]
        while kinds:
            total = sum(weight for weight, _ in kinds)
            _, mutate = kinds.pop(rng.choice(len(kinds), p=[weight / total for weight, _ in kinds]))
            if what := mutate(agent, rng):
                return what
        return "none"

    def _mutate_architecture(self, agent, rng):
        """One edit for all the agent's networks, so that they stay alike; or None if every size is at its bound."""
        old = next(iter(agent.networks.values())).config.hidden_size
        depth, width = self._edits(old, int(rng.choice(self.node_steps)))
        edits = (depth if rng.random() < self.new_layer_prob else width) or depth or width
        if not edits:
            return None
        name, *where = edits[rng.integers(len(edits))]
        arguments = (*where, rng) if where else ()  # an edit of depth draws nothing
        edited = {
            key: getattr(network, name)(*arguments) for key, network in agent.networks.items()
        }
        agent.set_networks(**edited)
        new = next(iter(edited.values())).config.hidden_size
        return f"architecture {'x'.join(map(str, old))} -> {'x'.join(map(str, new))}"

    def _edits(self, hidden_size, n):
        """The edits that stay in bounds: of depth, and of width by `n` nodes or by as many as there is room for."""
        (shallowest, deepest), (narrowest, widest) = self.layer_bounds, self.node_bounds
        depth, width = [], []
        if len(hidden_size) < deepest:
            depth.append(("add_layer",))
        if len(hidden_size) > shallowest:
            depth.append(("remove_layer",))
        for layer, nodes in enumerate(hidden_size):
            width += [
                ("add_nodes", layer, min(n, widest - nodes)),
                ("remove_nodes", layer, min(n, nodes - narrowest)),
            ]
        return depth, [edit for edit in width if edit[2] > 0]

    @torch.no_grad()
    def _mutate_parameters(self, agent, rng):
        """Noise on 1 to `mutated_share` of the entries of each of the policy's weight matrices; biases stay.

        Returns "parameters" with the number of weights that changed, or None if none did.
        """
        name, policy = next(iter(agent.networks.items()))
        policy = copy.deepcopy(policy)
        changed = 0
        for weight in policy.weights:
            count = rng.integers(1, math.ceil(self.mutated_share * weight.numel()), endpoint=True)
            entries = torch.as_tensor(
                rng.choice(weight.numel(), size=count, replace=False), device=weight.device
            )
            old = weight.view(-1)[entries]
            normal = torch.as_tensor(rng.standard_normal(count)).to(old)
            band = torch.as_tensor(rng.random(count))  # float64, which not every device has
            new = old + self.mutation_sd * old.abs() * normal
            new = torch.where(
                (band < self.super_prob + self.reset_prob).to(old.device), normal, new
            )
            new = torch.where(
                (band < self.super_prob).to(old.device),
                old + self.super_sd * old.abs() * normal,
                new,
            )
            weight.view(-1)[entries] = new
            changed += int((new != old).sum())
        if changed == 0:
            return None
        agent.set_networks(**{name: policy})
        return f"parameters {changed} weights"

    def _mutate_activation(self, agent, rng):
        """Another activation for all the agent's networks, their weights untouched."""
        old = next(iter(agent.networks.values())).config.activation
        others = [name for name in self.activations if name != old]
        if not others:
            return None
        new = others[rng.integers(len(others))]
        agent.set_networks(
            **{name: network.change_activation(new) for name, network in agent.networks.items()}
        )
        return f"activation {old} -> {new}"

    def _mutate_hp(self, agent, rng):
        """One hyper-parameter, drawn from those that can move; returns "name old -> new", a float to three digits."""
        for name in rng.permutation(list(self.hp_space)):
            old = getattr(agent.hp, name)
            new = self.hp_space[name].mutate(old, rng)
            if new != old:
                agent.set_hp(**{str(name): new})
                return (
                    f"{name} {old:.3g} -> {new:.3g}"
                    if isinstance(new, float)
                    else f"{name} {old} -> {new}"
                )
        return None
