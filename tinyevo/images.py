"""Observations that are pictures: an evolvable convolutional encoder in front of the perceptron.

The first layers each halve a picture, and stay. Behind them layers come and go that keep its size,
so no edit can shrink a map of features to nothing. As in networks.py an edit returns a new network
whose surviving kernels are the old ones bit for bit, new channels feed nothing forward yet, and a
new layer is the identity: growing a ReLU network does not change what it computes at that moment.

Mirrors the tutorial's section "Images".
Leaves out: pooling, strides other than 2, kernels other than 3 x 3, and the augmentation with which
agents learn from pixels sooner (DrQ, Kostrikov et al. 2021).
Needs: networks.py, beside it in a folder `tinyevo`.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from tinyevo.networks import (
    ACTIVATIONS,
    EvolvableMLP,
    MLPConfig,
    add_units,
    check_sizes,
    draw_layer,
    parameters,
    remove_last,
    remove_units,
)


def is_image(space):
    """Whether a `Box` holds images: three axes of whole numbers from 0 to 255."""
    return len(space.shape) == 3 and space.dtype == "uint8"


def channels_first(images):
    """Images (batch, *image_shape) as (batch, channels, height, width), not copied.

    Of the first and the last axis of a shape, the shorter one is the channels: (96, 96, 3) and
    (84, 84, 4) have them last, as is usual, (3, 96, 96) first. Raises ValueError where that does
    not tell: if both are equal, or both at most 4, or if the longer one may be the channels of a
    square image, as in (8, 8, 40).
    """
    first, middle, last = images.shape[1:]
    if first == last or max(first, last) <= 4 or min(first, last) == middle:
        readings = f"{last} channels of {first} x {middle} or {first} of {middle} x {last}"
        raise ValueError(f"images of shape {(first, middle, last)} may have {readings}")
    return images.permute(0, 3, 1, 2) if last < first else images


@dataclass(frozen=True)
class CNNConfig(MLPConfig):
    """Everything that fixes the shape of an `EvolvableCNN`: the arguments of its constructor."""

    image_shape: tuple = (96, 96, 3)
    channels: tuple = (8, 16, 32, 32)
    halvings: int | None = None

    def __post_init__(self):
        self._keep_sizes("image_shape", (96, 96, 3))
        self._keep_sizes("channels", (16, 32))
        if self.halvings is None:
            object.__setattr__(self, "halvings", len(self.channels))
        if self.halvings not in range(1, len(self.channels) + 1):
            layers = f"of {len(self.channels)} layers at least 1 halves the picture, at most all"
            raise ValueError(f"{layers}, not {self.halvings!r}")
        super().__post_init__()
        if self.num_inputs != 0:
            check_sizes(self.num_inputs)

    @property
    def image_size(self):
        """Channels, height and width of an image."""
        none = torch.empty(0, *self.image_shape)  # no pictures, but of this shape
        return tuple(channels_first(none).shape[1:])

    @property
    def pixels(self):
        """Pixels of each map of features that the encoder ends with."""
        _, *sides = self.image_size
        height, width = (-(-side // 2**self.halvings) for side in sides)  # each half rounded up
        return height * width

    @property
    def features(self):
        """What the encoder gives: all pixels of all maps."""
        return self.channels[-1] * self.pixels

    @property
    def fan_in(self):
        """Inputs of the perceptron: the features, and what comes beside the picture."""
        return self.features + self.num_inputs


class EvolvableCNN(EvolvableMLP):
    """An `EvolvableMLP` behind a convolutional encoder of the image.

    Every convolution has kernels of 3 x 3 on a border of zeros. All edits of the perceptron are
    there as well, and leave the encoder as it is; `change_activation` means both.

    Args:
        num_inputs: numbers that join the features of the image, such as a critic's action: 0 or
            more.
        image_shape: of one image, with channels first or last as `channels_first` tells.
        channels: output channels of each layer of the encoder.
        halvings: how many layers, from the first, halve height and width; None for all.
        others: as for `EvolvableMLP`.

    Attributes:
        config: the `CNNConfig` of these arguments.
        kernels: a tensor for each layer of the encoder, (ensemble, channels in, 9, channels out).
        offsets: their biases, (ensemble, 1, channels out).
        weights, biases: of the perceptron.

    Raises ValueError for invalid sizes, unknown activations and ambiguous image shapes.
    """

    def __init__(self, num_inputs, num_outputs, image_shape, *, generator=None, **others):
        nn.Module.__init__(self)
        self.config = CNNConfig(num_inputs, num_outputs, image_shape=image_shape, **others)
        self._draw_layers(generator)
        depths = self.config.image_size[0], *self.config.channels
        layers = [
            draw_layer(self.config.ensemble_size, 9 * depth, width, generator)
            for depth, width in zip(depths, self.config.channels)
        ]
        kernels, offsets = zip(*layers)
        self.kernels = parameters(kernel.unflatten(1, (-1, 9)) for kernel in kernels)
        self.offsets = parameters(offsets)

    def forward(self, obs, action=None, first_only=False):
        """Map images (batch, *image_shape) of values from 0 to 255 to (batch, num_outputs).

        Actions (batch, num_inputs) join the features. All networks of an ensemble see the same
        images; what they return is as in `EvolvableMLP.forward`.
        """
        networks = 1 if first_only else self.config.ensemble_size
        x = channels_first(obs) / 255  # (batch, channels, height, width)
        x = x.repeat(1, networks, 1, 1)  # the networks of an ensemble are groups of channels
        for layer, (kernel, offset) in enumerate(zip(self.kernels, self.offsets)):
            stride = 2 if layer < self.config.halvings else 1
            kernel = kernel[:networks].permute(0, 3, 1, 2)  # (ensemble, out, in, 9)
            kernel = kernel.unflatten(3, (3, 3)).flatten(0, 1)
            offset = offset[:networks].flatten()
            x = F.conv2d(x, kernel, offset, stride, padding=1, groups=networks)
            x = ACTIVATIONS[self.config.activation](x)
        features = x.unflatten(1, (networks, -1)).flatten(2)  # (batch, ensemble, features)
        features = features.transpose(0, 1)
        if action is not None:
            action = action.expand(networks, -1, -1)
        return super().forward(features, action, first_only)

    def add_conv_layer(self):
        """One more convolution, behind the last one and as wide, that begins as the identity.

        It preserves the function where `add_layer` does.
        """
        width = self.config.channels[-1]
        config = replace(self.config, channels=(*self.config.channels, width))
        kernel = torch.zeros(self.config.ensemble_size, width, 9, width)
        kernel[:, range(width), 4, range(width)] = 1  # each channel reads the pixel of its own
        *kernels, maps = self._layers()
        kernels.append(kernel.to(maps))
        offset = torch.zeros_like(kernels[-1][:, :1, 0])
        return self._edited_encoder(config, [*kernels, maps], [*self.offsets, offset])

    def remove_conv_layer(self):
        """One convolution less: the last one goes, and the perceptron reads the layer before it.

        Its weights stay with the channel of the same index; channels that had no counterpart get
        zeros. So it undoes `add_conv_layer`. Raises ValueError if the last one halves the picture,
        because those stay.
        """
        config = replace(self.config, channels=self.config.channels[:-1])
        layers, offsets = remove_last(self._layers(), [*self.offsets, None])  # maps have no bias
        return self._edited_encoder(config, layers, offsets[:-1])

    def add_channels(self, layer, n, rng):
        """`n` more channels in a layer of the encoder, as `add_nodes` adds nodes."""
        config = self._resized("channels", layer, n)
        layers, offsets = add_units(self._layers(), self.offsets, layer, n, rng)
        return self._edited_encoder(config, layers, offsets)

    def remove_channels(self, layer, n, rng):
        """`n` channels less in a layer of the encoder, as `remove_nodes` removes nodes."""
        config = self._resized("channels", layer, -n)
        layers, offsets = remove_units(self._layers(), self.offsets, layer, n, rng)
        return self._edited_encoder(config, layers, offsets)

    def _layers(self):
        """The kernels, and the perceptron's weights on the maps: (ensemble, in, pixels, out)."""
        maps = self.weights[0][:, : self.config.features]
        return [*self.kernels, maps.unflatten(1, (self.config.channels[-1], -1))]

    def _edited_encoder(self, config, layers, offsets):
        """A new network of this configuration with a copy of these tensors."""
        *kernels, maps = layers
        beside = self.weights[0][:, self.config.features :]
        first = torch.cat([maps.flatten(1, 2), beside], dim=1)
        new = self._edited(config, [first, *self.weights[1:]], self.biases)
        new.kernels, new.offsets = parameters(kernels), parameters(offsets)
        return new
