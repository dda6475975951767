"""Closed-form gradient of the prior's log-density, for priors of plain multi-layer perceptrons.

A chain in the prior is a long sequence of small matrix products: an autograd graph, and a kernel for each operation of
its backward pass, cost more than the products. With u = (z_i - mu) / sigma, sigma = s + floor, of p(z_i|z_{i+1}),

    d log p(z_i|z_{i+1}) / d z_i   = -u / sigma
    d log p(z_i|z_{i+1}) / d mu    =  u / sigma
    d log p(z_i|z_{i+1}) / d log s =  (u^2 - 1) s / sigma

(docs/facts, "Gaussian scales"); the last two go back through the conditional's network to z_{i+1}, and every energy's
network to its own layer.

Merging the first layers of the energy and of the conditional that read the same layer costs more on a CPU than it
saves: activations in slices of a wider matrix are slower by more than the product is faster. What saves time there, to
the same bits, is a copy of each weight as the product reads it, and memory that every step writes anew (`Passes`).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jlebm.backbones.protocol import Backbone, HasMLPHierarchy
from jlebm.energies import JointEnergy, is_zero
from jlebm.latents import Latents
from jlebm.networks import MLP, Affine, hooked, read_mlp

LEAST_ROWS = 16  # smallest batch whose products have the same bits from a transposed copy of the weight (MKL, AVX-512)
MOST_INPUTS = 384  # widest product that has the same bits if its bias is added afterwards: MKL sums up as many at once
leaky_backward = torch.ops.aten.leaky_relu_backward.grad_input


class MLPPrior:
    """log p(z) = sum f_i(z_i) + log p0(z) and its gradient, with the weights at construction."""

    def __init__(
        self, energies: tuple[MLP | None, ...], conditionals: tuple[MLP, ...], top_sigma: float, sigma_floor: float
    ):
        """Take the weights of p0 and of each layer's f, top first; None for a layer without an energy."""
        self.energies, self.conditionals = energies, conditionals
        self._energies = tuple(None if f is None else Passes(f) for f in energies)
        self._conditionals = tuple(map(Passes, conditionals))
        self.top_sigma, self.sigma_floor = top_sigma, sigma_floor
        # As tensors: torch would make one of each number in each step.
        like = conditionals[0].layers[0].weight if conditionals else torch.empty(())
        self._floor, self._one = like.new_full((), sigma_floor), like.new_ones(())

    @classmethod
    def of(cls, backbone: Backbone, energy: JointEnergy) -> "MLPPrior | None":
        """Read the prior's weights; None if any part of it is not of this form, or under autocast.

        The passes write into memory of the weights' type, to which no autocast applies.
        """
        hierarchy = backbone.mlp_hierarchy() if isinstance(backbone, HasMLPHierarchy) else None
        if hierarchy is None or type(energy) is not JointEnergy or hooked(energy):
            return None
        energies = []
        for network in energy.networks:
            f = read_mlp(network)
            if not is_zero(network) and (f is None or f.outputs != 1):
                return None
            energies.append(None if f is None else _detached(f))
        weights = [f.layers[0].weight for f in (*filter(None, energies), *hierarchy.conditionals)]
        if any(torch.is_autocast_enabled(weight.device.type) for weight in weights):
            return None
        conditionals = tuple(map(_detached, hierarchy.conditionals))
        return cls(tuple(energies), conditionals, hierarchy.top_sigma, hierarchy.sigma_floor)

    def gradient(self, position: Latents) -> Latents:
        """Return d log p / d z_i for every layer."""
        with torch.no_grad():
            return self._gradient(position, None)

    @torch.no_grad()
    def value_and_gradient(self, position: Latents) -> tuple[Float[Tensor, " batch"], Latents]:
        """Return log p, up to log Z, and its gradient for each element of the batch."""
        terms: list[Tensor] = []
        gradient = self._gradient(position, terms)
        return torch.stack(terms).sum(0), gradient

    def _gradient(self, position: Latents, terms: list[Tensor] | None) -> Latents:
        """Return the gradient, and append the terms of the log-density to `terms` if it is given."""
        top = position[0]
        gradient = [top / -(self.top_sigma**2)]
        if terms is not None:
            terms.append(_log_normal(top / self.top_sigma, top.new_full((), self.top_sigma)))
        for index, (f, z) in enumerate(zip(self._energies, position, strict=True)):
            if f is not None:
                hidden, last = f.forward(z), f.network.layers[-1]
                if terms is not None:
                    terms.append(F.linear(hidden, *last)[:, 0])
                f.backward(last.weight.expand(z.shape[0], -1), gradient[index])
            if index < len(self._conditionals):
                conditional = self._conditionals[index]
                parameters = conditional.outputs(conditional.forward(z))
                gradient.append(self._conditional(parameters, position[index + 1], terms))
                conditional.backward(conditional.hidden_gradient(parameters), gradient[index])
        return tuple(gradient)

    def _conditional(self, parameters: Tensor, z: Tensor, terms: list[Tensor] | None) -> Tensor:
        """Return d log p(z|parameters) / d z; overwrite `parameters` by their gradient."""
        mean, log_s = parameters.chunk(2, dim=1)
        s = log_s.exp()
        sigma = s + self._floor
        u = (z - mean).div_(sigma)
        if terms is not None:
            terms.append(_log_normal(u, sigma))
        torch.div(u, sigma, out=mean)
        torch.mul(u.square_().sub_(self._one), s.div_(sigma), out=log_s)
        return mean.neg()


def _log_normal(u: Tensor, sigma: Tensor) -> Tensor:
    """Return the log-density at mu + sigma u for each element of the batch."""
    return u.square().mul_(0.5).add_(sigma.log()).add_(0.5 * math.log(2 * math.pi)).sum(1).neg_()


def _detached(network: MLP) -> MLP:
    return MLP(tuple(Affine(layer.weight.detach(), layer.bias.detach()) for layer in network.layers), network.slope)


class Passes:
    """Forward and backward passes through one network, in memory that every pass writes anew."""

    def __init__(self, network: MLP):
        self.network = network
        self._rows = -1  # of the batch that there is memory for
        self._up: list[Product] = []  # products of the forward pass, first layer first; the last one gives the outputs
        self._down: list[Tensor] = []  # gradients in the hidden activations, first layer first

    def forward(self, z: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch hidden"]:
        """Return the last hidden activations, until the next pass."""
        if self._rows != z.shape[0]:
            self._make_room(z)
        hidden, slope = z, self.network.slope
        for product in self._up[:-1]:
            hidden = F.leaky_relu_(product(hidden), slope)
        return hidden

    def outputs(self, hidden: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch outputs"]:
        """Return the outputs from the last hidden activations, until the next pass."""
        return self._up[-1](hidden)

    def hidden_gradient(self, outer: Float[Tensor, "batch outputs"]) -> Float[Tensor, "batch hidden"]:
        """Backpropagate a gradient in the outputs to the last hidden activations."""
        return torch.mm(outer, self.network.layers[-1].weight, out=self._down[-1])

    def backward(self, outer: Float[Tensor, "batch hidden"], gradient: Float[Tensor, "batch inputs"]) -> None:
        """Backpropagate a gradient in the last hidden activations to z, and add it to `gradient`.

        A leaky ReLU's output has the sign of its input, so its derivative is read from the output.
        """
        slope = self.network.slope
        for index in range(len(self._down) - 1, -1, -1):
            place, weight = self._down[index], self.network.layers[index].weight
            outer = leaky_backward(outer, self._up[index].place, slope, True, grad_input=place)
            outer = torch.mm(outer, weight, out=self._down[index - 1]) if index else gradient.addmm_(outer, weight)

    @torch.inference_mode(False)  # a later pass may be in another mode
    def _make_room(self, z: Tensor) -> None:
        self._rows = z.shape[0]
        copied = z.device.type == "cpu" and self._rows >= LEAST_ROWS
        layers = self.network.layers
        self._up = [Product.of(layer, z.new_empty(self._rows, len(layer.bias)), copied) for layer in layers]
        self._down = [torch.empty_like(product.place) for product in self._up[:-1]]


class Product(NamedTuple):
    """One layer of a forward pass: `inputs` @ `across` + `bias`, written to `place`."""

    bias: Tensor
    across: Float[Tensor, "inputs outputs"]
    place: Float[Tensor, "batch outputs"]
    added: bool
    """Whether the bias is added afterwards, which saves copying it first."""

    @classmethod
    def of(cls, layer: Affine, place: Tensor, copied: bool) -> "Product":
        """Lay out a layer's weight; copied or not, and the bias added or not, the bits are the same."""
        across = layer.weight.t()
        added = copied and 1 < len(across) <= MOST_INPUTS  # a single product and the bias are rounded once, together
        return cls(layer.bias, across.contiguous() if copied else across, place, added)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Multiply."""
        if self.added:
            return torch.mm(inputs, self.across, out=self.place).add_(self.bias)
        return torch.addmm(self.bias, inputs, self.across, out=self.place)
