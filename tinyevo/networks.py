"""A multi-layer perceptron whose architecture is data, and whose edits keep what it has learned.

Evolution needs networks that grow, shrink and change their activation in the middle of training.
Every edit here returns a new network: the surviving weights are the old ones bit for bit, new nodes
read their input through random weights but feed nothing forward yet (zero outgoing weights), and a
new layer is the identity. So growing a ReLU network does not change what it computes at that
moment; it only gives the next updates more to work with (`add_layer` says what happens to others).
The idea is that of Net2Net (Chen et al. 2016); SEARL (Franke et al. 2021) draws random weights.

Mirrors the tutorial's section "Evolvable networks".
Leaves out: convolutions, recurrence and normalisation layers (for what layer norm does to a critic
on LunarLander, see issue 468 of AgileRL).
Needs: nothing else.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {"relu": F.relu, "elu": F.elu, "gelu": F.gelu, "tanh": torch.tanh}


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
        if not isinstance(self.hidden_size, (tuple, list)) or not self.hidden_size:
            raise ValueError(
                f"hidden_size must be a tuple such as (64, 64), not {self.hidden_size!r}"
            )
        object.__setattr__(self, "hidden_size", tuple(self.hidden_size))
        for size in (self.num_inputs, *self.hidden_size, self.num_outputs, self.ensemble_size):
            if type(size) is not int or size < 1:
                raise ValueError(f"the sizes of a network are whole and at least 1, not {size!r}")
        for name in (self.activation, self.output_activation or self.activation):
            if name not in ACTIVATIONS:
                raise ValueError(
                    f"unknown activation {name!r}, choose from {', '.join(ACTIVATIONS)}"
                )


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
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        sizes = [num_inputs, *self.config.hidden_size, num_outputs]
        for fan_in, fan_out in zip(sizes, sizes[1:]):
            # The default of `nn.Linear`: uniform within 1 / sqrt(fan_in).
            uniform = torch.rand(ensemble_size, fan_in + 1, fan_out, generator=generator) * 2 - 1
            weight, bias = (uniform / fan_in**0.5).split([fan_in, 1], dim=1)
            self.weights.append(nn.Parameter(weight.clone()))
            self.biases.append(nn.Parameter(bias.clone()))

    def forward(self, x, first_only=False):
        """Map (batch, num_inputs) to (batch, num_outputs).

        The result has a leading ensemble axis if there is more than one network. `first_only`
        evaluates the first network of the ensemble alone.
        """
        hidden = ACTIVATIONS[self.config.activation]
        output = ACTIVATIONS.get(self.config.output_activation)
        networks = 1 if first_only else self.config.ensemble_size
        last = len(self.weights) - 1
        x = x.expand(networks, -1, -1)  # (ensemble, batch, num_inputs), not copied
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            # bias + x @ weight, for each network of the ensemble
            x = torch.baddbmm(bias[:networks], x, weight[:networks])
            activation = hidden if layer < last else output
            x = activation(x) if activation else x
        return x if networks > 1 else x[0]

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
        identity = torch.eye(width, device=self.weights[-1].device)
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
        width, removed = config.hidden_size[-1], self.config.hidden_size[-1]
        weights, biases = list(self.weights), list(self.biases)
        del weights[-2], biases[-2]
        outgoing = weights[-1][:, :width]
        weights[-1] = F.pad(outgoing, (0, 0, 0, max(0, width - removed)))
        return self._edited(config, weights, biases)

    def add_nodes(self, layer, n, rng):
        """`n` more nodes in hidden layer `layer`, with random incoming and zero outgoing weights.

        They change no output, yet learn from the first update on: the gradient of an outgoing
        weight grows with the node's activity, not with the weight. `rng` is the
        `numpy.random.Generator` of the incoming weights and biases, which are drawn as those of a
        fresh network. Raises ValueError if there is no such layer.
        """
        config = self._resized(layer, n)
        weights, biases = list(self.weights), list(self.biases)
        ensemble, fan_in, _ = weights[layer].shape
        uniform = rng.uniform(-1, 1, size=(ensemble, fan_in + 1, n)) / fan_in**0.5
        incoming = torch.as_tensor(uniform).to(weights[layer])
        weight, bias = incoming.split([fan_in, 1], dim=1)
        weights[layer] = torch.cat([weights[layer], weight], dim=2)
        biases[layer] = torch.cat([biases[layer], bias], dim=2)
        weights[layer + 1] = F.pad(weights[layer + 1], (0, 0, 0, n))
        return self._edited(config, weights, biases)

    def remove_nodes(self, layer, n, rng):
        """`n` nodes less in hidden layer `layer`; the others keep their weights and their order.

        Which ones go is drawn with the `numpy.random.Generator` `rng`. Raises ValueError if there
        is no such layer or no node would be left.
        """
        if n < 0:
            raise ValueError(f"{n} nodes cannot be removed")
        config = self._resized(layer, -n)
        weights, biases = list(self.weights), list(self.biases)
        keep = sorted(rng.permutation(self.config.hidden_size[layer])[n:].tolist())
        weights[layer] = weights[layer][:, :, keep]
        biases[layer] = biases[layer][:, :, keep]
        weights[layer + 1] = weights[layer + 1][:, keep]
        return self._edited(config, weights, biases)

    def _resized(self, layer, n):
        """The configuration with `n` more nodes in hidden layer `layer`."""
        hidden_size = list(self.config.hidden_size)
        if layer not in range(len(hidden_size)):
            raise ValueError(f"there is no hidden layer {layer} in {self.config.hidden_size}")
        hidden_size[layer] += n
        return replace(self.config, hidden_size=hidden_size)

    def _edited(self, config, weights, biases):
        """A new network of this configuration with a copy of these tensors."""
        new = copy.deepcopy(self)
        new.config = config
        new.weights = nn.ParameterList(nn.Parameter(weight.detach().clone()) for weight in weights)
        new.biases = nn.ParameterList(nn.Parameter(bias.detach().clone()) for bias in biases)
        return new
