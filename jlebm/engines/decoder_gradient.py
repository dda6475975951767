"""Closed-form gradient of log p(x|z_1) for a Gaussian whose mean is a stack of transposed convolutions.

With the mean m = tanh(a),

    d log p(x|z_1) / d a = (x - m) / sigma^2 (1 - m^2),

which goes back through the layers to z_1. Each operation is the one that autograd would do, on the same numbers, so the
bits are autograd's, except through a layer that is a product without autograd (`jlebm.backbones.layers.Doubling`). What
is saved is the graph, the log-density itself, and memory for each gradient of a ReLU.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jlebm.backbones.layers import Doubling
from jlebm.backbones.protocol import Backbone, ConvDecoder, HasConvDecoder
from jlebm.distributions import Normal
from jlebm.engines.closed_form import leaky_backward
from jlebm.latents import Latents

_tanh_backward = torch.ops.aten.tanh_backward
_convolution_backward = torch.ops.aten.convolution_backward


class DecoderLikelihood:
    """log p(x|z_1) of given images and its gradient."""

    def __init__(self, decoder: ConvDecoder, x: Float[Tensor, "batch channels height width"]):
        self.decoder, self.x = decoder, x

    @classmethod
    def of(cls, backbone: Backbone, x: Float[Tensor, "batch channels height width"]) -> "DecoderLikelihood | None":
        """Read the layers of p(x|z_1); None if it is not of this form."""
        decoder = backbone.conv_decoder() if isinstance(backbone, HasConvDecoder) else None
        return None if decoder is None else cls(decoder, x)

    @torch.no_grad()
    def gradient(self, position: Latents) -> Latents:
        """Return d log p(x|z_1) / d z_i for every layer; zero in all but the last."""
        return self._gradient(position, *self._forward(position[-1]))

    @torch.no_grad()
    def value_and_gradient(self, position: Latents) -> tuple[Float[Tensor, " batch"], Latents]:
        """Return log p(x|z_1) and its gradient for each element of the batch."""
        hidden, mean = self._forward(position[-1])
        value = Normal.constant_sigma(mean, self.decoder.sigma).log_prob(self.x)
        return value, self._gradient(position, hidden, mean)

    def _forward(self, z: Float[Tensor, "batch inputs"]) -> tuple[list[Tensor], Tensor]:
        """Return the activations below the last layer, first layer first, and the mean."""
        slope, (*layers, last) = self.decoder.slope, self.decoder.layers
        hidden = [F.leaky_relu_(self.decoder.point(z[:, :, None, None]), slope)]
        for layer in layers:
            hidden.append(F.leaky_relu_(layer(hidden[-1]), slope))
        return hidden, last(hidden[-1]).tanh_()

    def _gradient(self, position: Latents, hidden: list[Tensor], mean: Tensor) -> Latents:
        sigma = mean.new_full((), self.decoder.sigma)
        outer = _tanh_backward((self.x - mean).div_(sigma).div_(sigma), mean)
        for layer, activation in zip(self.decoder.layers[::-1], hidden[::-1], strict=True):
            outer = _through(layer, outer, activation)
            outer = leaky_backward(outer, activation, self.decoder.slope, True, grad_input=outer)
        weight = self.decoder.point.weight.permute(0, 2, 3, 1).flatten(1)
        last = torch.mm(outer.permute(0, 2, 3, 1).flatten(1), weight.t())
        return (*map(torch.zeros_like, position[:-1]), last)


def _through(layer: nn.ConvTranspose2d, outer: Tensor, inputs: Tensor) -> Tensor:
    """Backpropagate a gradient in a layer's outputs to its inputs, not to its weights."""
    if isinstance(layer, Doubling) and layer.is_a_product(inputs):
        return layer.through(outer)
    geometry = layer.stride, layer.padding, layer.dilation, True, layer.output_padding, layer.groups
    return _convolution_backward(outer, inputs, layer.weight, [0], *geometry, [True, False, False])[0]
