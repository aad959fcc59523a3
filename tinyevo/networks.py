"""A multi-layer perceptron whose architecture is data, and whose edits keep what it has learned.

Evolution needs networks that grow, shrink and change their activation in the middle of training.
Every edit here returns a new network: the surviving weights are the old ones bit for bit, new nodes
read their input through random weights but feed nothing forward yet (zero outgoing weights), and a
new layer is the identity. So growing a ReLU network does not change what it computes at that
moment; it only gives the next updates more to work with (`add_layer` says what happens to others).
The idea is that of Net2Net (Chen et al. 2016); SEARL (Franke et al. 2021) draws random weights.

Mirrors the tutorial's section "Evolvable networks".
Leaves out: convolutions, which are in images.py; recurrence and normalisation layers (what these
did to a critic on LunarLander is told in issue 468 of AgileRL).
Needs: nothing else.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {"relu": F.relu, "elu": F.elu, "gelu": F.gelu, "tanh": torch.tanh}


def check_sizes(*sizes, name="each size of a network"):
    """Raise ValueError, which calls them by `name`, unless all are whole and from 1 to 1e9."""
    for size in sizes:
        if type(size) is not int or not 1 <= size <= 1e9:
            raise ValueError(f"{name} must be whole and from 1 to 1e9, not {size!r}")


@dataclass(frozen=True)
class MLPConfig:
    """Everything that fixes the shape of an `EvolvableMLP`: the arguments of its constructor."""

    num_inputs: int
    num_outputs: int
    hidden_size: tuple = (64, 64)
    activation: str = "relu"
    output_activation: str | None = None
    ensemble_size: int = 1

    def __post_init__(self):
        self._keep_sizes("hidden_size", (64, 64))
        check_sizes(self.fan_in, self.num_outputs, self.ensemble_size)
        for name in (self.activation, self.output_activation or self.activation):
            if name not in ACTIVATIONS:
                raise ValueError(
                    f"unknown activation {name!r}, choose from {', '.join(ACTIVATIONS)}"
                )

    def _keep_sizes(self, name, example):
        """Keep the sizes of this name as a tuple; ValueError unless they are like the example."""
        sizes = getattr(self, name)
        if not isinstance(sizes, (tuple, list)) or not sizes:
            raise ValueError(f"{name} must be a tuple such as {example}, not {sizes!r}")
        check_sizes(*sizes, name=f"each of {name}")
        object.__setattr__(self, name, tuple(sizes))

    @property
    def fan_in(self):
        """Inputs of the first layer."""
        return self.num_inputs


def parameters(tensors):
    """A contiguous copy of these tensors, to be trained."""
    copies = (tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in tensors)
    return nn.ParameterList(map(nn.Parameter, copies))


def draw_layer(ensemble, fan_in, fan_out, generator):
    """The weights (ensemble, fan_in, fan_out) and biases (ensemble, 1, fan_out) of a new layer.

    Uniform within 1 / sqrt(fan_in), the default of `nn.Linear`.
    """
    shape = ensemble, fan_in + 1, fan_out
    uniform = torch.rand(shape, generator=generator, dtype=torch.float32) * 2 - 1
    return (uniform / fan_in**0.5).split([fan_in, 1], dim=1)


def add_inputs(weight, n):
    """The weights of a layer that reads `n` more inputs, and makes nothing of them yet.

    Shapes are as in `add_units`.
    """
    return F.pad(weight, [0, 0] * (weight.dim() - 2) + [0, n])


def add_units(weights, biases, layer, n, rng):
    """The weights and biases of all layers when one of them gets `n` more units, the last ones.

    A weight is (ensemble, inputs, ..., units), a bias (ensemble, 1, units); the dots are a kernel's
    rows and columns, and nothing in a perceptron. New units read their inputs through weights and
    biases as in `draw_layer`, but drawn with the `numpy.random.Generator` `rng`; the layer behind
    makes nothing of them yet. What is given is not changed.
    """
    weights, biases, old = list(weights), list(biases), weights[layer]
    fan_in = old[0, ..., 0].numel()
    uniform = rng.uniform(-1, 1, size=(len(old), fan_in + 1, n)) / fan_in**0.5
    weight, bias = torch.as_tensor(uniform).to(old).split([fan_in, 1], dim=1)
    weight = weight.reshape(*old.shape[:-1], n)
    weights[layer] = torch.cat([old, weight], dim=-1)
    biases[layer] = torch.cat([biases[layer], bias], dim=-1)
    weights[layer + 1] = add_inputs(weights[layer + 1], n)
    return weights, biases


def remove_units(weights, biases, layer, n, rng):
    """The weights and biases of all layers when one of them loses `n` units, drawn with `rng`.

    Shapes are as in `add_units`. Raises ValueError if `n` is below 0.
    """
    if n < 0:
        raise ValueError(f"{n} of a layer's units cannot be removed")
    weights, biases = list(weights), list(biases)
    keep = sorted(rng.permutation(biases[layer].shape[-1])[n:].tolist())
    weights[layer], biases[layer] = weights[layer][..., keep], biases[layer][..., keep]
    weights[layer + 1] = weights[layer + 1][:, keep]
    return weights, biases


def remove_last(weights, biases):
    """The weights and biases of all layers without the last hidden one.

    The output's weights stay with the unit of the same index; units that have no counterpart in the
    removed layer get zeros. Shapes are as in `add_units`.
    """
    *weights, removed, outgoing = weights
    *biases, _, last = biases
    width = removed.shape[1]
    outgoing = add_inputs(outgoing[:, :width], max(0, width - outgoing.shape[1]))
    return [*weights, outgoing], [*biases, last]


class EvolvableMLP(nn.Module):
    """An ensemble of perceptrons of one shape, evaluated together in one batched product per layer.

    Args:
        num_inputs, num_outputs: features in and out.
        hidden_size: nodes of each hidden layer.
        activation, output_activation: names in `ACTIVATIONS`; None as output activation is linear.
        ensemble_size: how many networks are in it, each with its own weights; 2 makes the twin
            critics of TD3.
        generator: `torch.Generator` of the initial weights; None uses torch's global one.

    Attributes:
        config: the `MLPConfig` of these arguments.
        weights: a tensor for each layer, (ensemble, fan_in, fan_out).
        biases: a tensor for each layer, (ensemble, 1, fan_out).

    Raises ValueError for invalid sizes or unknown activations.
    """

    def __init__(
        self,
        num_inputs,
        num_outputs,
        hidden_size=(64, 64),
        activation="relu",
        output_activation=None,
        ensemble_size=1,
        generator=None,
    ):
        super().__init__()
        self.config = MLPConfig(
            num_inputs, num_outputs, hidden_size, activation, output_activation, ensemble_size
        )
        self._draw_layers(generator)

    def _draw_layers(self, generator):
        """New weights and biases for every layer."""
        sizes = [self.config.fan_in, *self.config.hidden_size, self.config.num_outputs]
        layers = [
            draw_layer(self.config.ensemble_size, fan_in, fan_out, generator)
            for fan_in, fan_out in zip(sizes, sizes[1:])
        ]
        self.weights, self.biases = map(parameters, zip(*layers))

    def forward(self, obs, action=None, first_only=False):
        """Map observations (batch, features) to (batch, num_outputs).

        With actions (batch, act_dim), as a critic gets them, the inputs are both, side by side.
        Both may have a leading ensemble axis, with inputs of its own for each network. The result
        has one if there is more than one network. `first_only` evaluates the first one alone, on
        inputs that all share.
        """
        x = obs if action is None else torch.cat([obs, action], -1)  # (..., batch, fan_in)
        hidden = ACTIVATIONS[self.config.activation]
        output = ACTIVATIONS.get(self.config.output_activation)
        networks = 1 if first_only else self.config.ensemble_size
        last = len(self.weights) - 1
        x = x.expand(networks, -1, -1)  # (ensemble, batch, fan_in), not copied
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            # bias + x @ weight, for each network of the ensemble
            x = torch.baddbmm(bias[:networks], x, weight[:networks])
            activation = hidden if layer < last else output
            x = activation(x) if activation else x
        return x if networks > 1 else x[0]

    def fresh(self, generator):
        """A new network of this configuration, its weights drawn with a `torch.Generator`."""
        return type(self)(**vars(self.config), generator=generator)

    def change_activation(self, name):
        """The same weights behind another hidden activation; the output activation stays.

        Raises ValueError for an unknown name.
        """
        return self._edited(replace(self.config, activation=name), self.weights, self.biases)

    def add_layer(self):
        """One more hidden layer, behind the last one and as wide, that begins as the identity.

        Behind a ReLU this preserves the function exactly, because relu(relu(x)) = relu(x). Behind
        any other activation f the last hidden layer's output f(x) becomes f(f(x)).
        """
        width = self.config.hidden_size[-1]
        config = replace(self.config, hidden_size=(*self.config.hidden_size, width))
        identity = torch.eye(width).to(self.weights[-1])
        identity = identity.repeat(self.config.ensemble_size, 1, 1)
        weights, biases = list(self.weights), list(self.biases)
        weights.insert(-1, identity)
        biases.insert(-1, torch.zeros_like(identity[:, :1]))
        return self._edited(config, weights, biases)

    def remove_layer(self):
        """One hidden layer less: the last one goes, and the output reads the layer before it.

        Output weights stay with the node of the same index; where that layer is the wider one, the
        nodes that had no counterpart get zero outgoing weights. So it undoes `add_layer`. Raises
        ValueError if there is no other hidden layer.
        """
        config = replace(self.config, hidden_size=self.config.hidden_size[:-1])
        return self._edited(config, *remove_last(self.weights, self.biases))

    def add_nodes(self, layer, n, rng):
        """`n` more nodes in hidden layer `layer`, with random incoming and zero outgoing weights.

        They change no output, yet learn from the first update on: the gradient of an outgoing
        weight grows with the node's activity, not with the weight. `rng` is the
        `numpy.random.Generator` of the incoming weights and biases, which are drawn as those of a
        fresh network. Raises ValueError if there is no such layer.
        """
        config = self._resized("hidden_size", layer, n)
        return self._edited(config, *add_units(self.weights, self.biases, layer, n, rng))

    def remove_nodes(self, layer, n, rng):
        """`n` nodes less in hidden layer `layer`; the others keep their weights and their order.

        Which ones go is drawn with the `numpy.random.Generator` `rng`. Raises ValueError if there
        is no such layer or no node would be left.
        """
        config = self._resized("hidden_size", layer, -n)
        return self._edited(config, *remove_units(self.weights, self.biases, layer, n, rng))

    def _resized(self, name, layer, n):
        """The configuration with `n` more units in one layer of those that it lists by `name`."""
        sizes = list(getattr(self.config, name))
        if layer not in range(len(sizes)):
            raise ValueError(f"there is no layer {layer} in {name} {tuple(sizes)}")
        sizes[layer] += int(n)  # it may be a number of numpy's
        return replace(self.config, **{name: sizes})

    def _edited(self, config, weights, biases):
        """A new network of this configuration with a copy of these tensors."""
        new = copy.deepcopy(self)
        new.config = config
        new.weights, new.biases = parameters(weights), parameters(biases)
        return new
