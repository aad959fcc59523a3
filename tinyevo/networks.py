"""A multi-layer perceptron whose architecture is data, and whose edits return a new network that keeps its knowledge.

Evolution needs networks that can grow, shrink and change their activation in the middle of training. Every edit here
works on a copy: the surviving weights are the old ones bit for bit, new nodes read their input through random weights
but feed nothing forward yet (zero outgoing weights), and a new layer is the identity. So growing a ReLU network does
not change what it computes at that moment; it only gives the next updates more to work with (`add_layer` says what
happens to others). The idea is that of Net2Net (Chen et al. 2016); SEARL (Franke et al. 2021) draws random weights.

Mirrors the tutorial's section "Creating a population of agents".
Leaves out: convolutions, recurrence and normalisation layers (for what layer norm does to a critic on LunarLander,
see issue 468 of AgileRL).
Needs: nothing else.
"""

import copy
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {"relu": F.relu, "elu": F.elu, "gelu": F.gelu, "tanh": torch.tanh}


@dataclass(frozen=True)
class MLPConfig:
    """Everything that fixes the shape of an `EvolvableMLP`; the fields are its constructor's arguments."""

    num_inputs: int
    num_outputs: int
    hidden_size: tuple = (64, 64)
    activation: str = "relu"
    output_activation: str | None = None
    ensemble_size: int = 1

    def __post_init__(self):
        if not isinstance(self.hidden_size, (tuple, list)):
            raise ValueError(
                f"hidden_size must be a tuple, such as (64, 64), not {self.hidden_size!r}"
            )
        object.__setattr__(self, "hidden_size", tuple(self.hidden_size))
        sizes = [self.num_inputs, *self.hidden_size, self.num_outputs, self.ensemble_size]
        if not self.hidden_size or not all(type(size) is int and size >= 1 for size in sizes):
            raise ValueError(
                f"a network needs a hidden layer or more, and whole sizes from 1 up, not {asdict(self)}"
            )
        for name in (self.activation, self.output_activation or self.activation):
            if name not in ACTIVATIONS:
                raise ValueError(
                    f"unknown activation {name!r}, choose from {', '.join(ACTIVATIONS)}"
                )


class EvolvableMLP(nn.Module):
    """An ensemble of `ensemble_size` perceptrons of one shape, evaluated together in one batched product per layer.

    Args:
        num_inputs, num_outputs: features in and out.
        hidden_size: nodes of each hidden layer.
        activation, output_activation: names in `ACTIVATIONS`; an output activation of None means linear.
        ensemble_size: how many networks live in it, each with weights of its own; 2 makes the twin critics of TD3.
        generator: `torch.Generator` of the initial weights; None uses torch's global one.

    Raises ValueError for sizes and names that make no network.
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
            self.weights.append(nn.Parameter(weight.clone()))  # (ensemble, fan_in, fan_out)
            self.biases.append(nn.Parameter(bias.clone()))  # (ensemble, 1, fan_out)

    def forward(self, x, first_only=False):
        """Map (batch, num_inputs) to (batch, num_outputs), with a leading ensemble axis if there is more than one.

        `first_only` asks nothing of the ensemble but its first network.
        """
        hidden = ACTIVATIONS[self.config.activation]
        output = ACTIVATIONS.get(self.config.output_activation)
        layers = [
            (w[:1], b[:1]) if first_only else (w, b) for w, b in zip(self.weights, self.biases)
        ]
        x = x.expand(len(layers[0][0]), -1, -1)  # (ensemble, batch, num_inputs), not copied
        for layer, (weight, bias) in enumerate(layers):
            x = torch.baddbmm(bias, x, weight)  # bias + x @ weight, for each of the ensemble
            activation = hidden if layer < len(layers) - 1 else output
            x = activation(x) if activation else x
        return x if len(x) > 1 else x[0]

    def change_activation(self, name):
        """The same weights behind another hidden activation; the output activation stays."""
        return self._edited(replace(self.config, activation=name), self.weights, self.biases)

    def add_layer(self):
        """One more hidden layer, as wide as the last one and behind it, that begins as the identity.

        Behind a ReLU this preserves the function exactly, because relu(relu(x)) = relu(x). Behind any other
        activation f the last hidden layer's output f(x) becomes f(f(x)).
        """
        width = self.config.hidden_size[-1]
        config = replace(self.config, hidden_size=(*self.config.hidden_size, width))
        identity = torch.eye(width, device=self.weights[-1].device).repeat(
            self.config.ensemble_size, 1, 1
        )
        weights, biases = list(self.weights), list(self.biases)
        weights.insert(-1, identity)
        biases.insert(-1, torch.zeros_like(identity[:, :1]))
        return self._edited(config, weights, biases)

    def remove_layer(self):
        """One hidden layer less: the last one goes, and the output reads the layer before it.

        Output weights stay with the node of the same index; where that layer is the wider one, the nodes that had no
        counterpart get zero outgoing weights. So `remove_layer` undoes `add_layer`.
        """
        config = replace(self.config, hidden_size=self.config.hidden_size[:-1])
        width, removed = config.hidden_size[-1], self.config.hidden_size[-1]
        weights, biases = list(self.weights), list(self.biases)
        del weights[-2], biases[-2]
        weights[-1] = F.pad(weights[-1][:, :width], (0, 0, 0, max(0, width - removed)))
        return self._edited(config, weights, biases)

    def add_nodes(self, layer, n, rng):
        """`n` more nodes in hidden layer `layer`, with random incoming and zero outgoing weights.

        They change no output, yet learn from the first update on: the gradient of an outgoing weight grows with the
        node's activity, not with the weight. `rng` is the `numpy.random.Generator` of the incoming weights and
        biases, which are drawn as those of a fresh network.
        """
        config = self._resized(layer, n)
        weights, biases = list(self.weights), list(self.biases)
        ensemble, fan_in, _ = weights[layer].shape
        uniform = torch.as_tensor(rng.uniform(-1, 1, size=(ensemble, fan_in + 1, n)) / fan_in**0.5)
        weight, bias = uniform.to(weights[layer]).split([fan_in, 1], dim=1)
        weights[layer] = torch.cat([weights[layer], weight], dim=2)
        biases[layer] = torch.cat([biases[layer], bias], dim=2)
        weights[layer + 1] = F.pad(weights[layer + 1], (0, 0, 0, n))
        return self._edited(config, weights, biases)

    def remove_nodes(self, layer, n, rng):
        """`n` nodes less in hidden layer `layer`, chosen by `rng`; the others keep their weights and their order."""
        if n < 0:
            raise ValueError(f"{n} nodes cannot be removed")
        config = self._resized(layer, -n)
        weights, biases = list(self.weights), list(self.biases)
        keep = sorted(rng.permutation(self.config.hidden_size[layer])[n:].tolist())
        weights[layer], biases[layer] = weights[layer][:, :, keep], biases[layer][:, :, keep]
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
        new.weights = nn.ParameterList(nn.Parameter(tensor.detach().clone()) for tensor in weights)
        new.biases = nn.ParameterList(nn.Parameter(tensor.detach().clone()) for tensor in biases)
        return new
