"""Closed-form gradient of the prior's log-density, for priors of plain multi-layer perceptrons.

A chain in the prior is a long sequence of small matrix products: an autograd graph, and a kernel for each operation of
its backward pass, cost more than the products. With u = (z_i - mu) / sigma, sigma = s + floor, of p(z_i|z_{i+1}),

    d log p(z_i|z_{i+1}) / d z_i   = -u / sigma
    d log p(z_i|z_{i+1}) / d mu    =  u / sigma
    d log p(z_i|z_{i+1}) / d log s =  (u^2 - 1) s / sigma

(docs/facts, "Gaussian scales"); the last two go back through the conditional's network to z_{i+1}, and every energy's
network to its own layer.

Merging the first layers of the energy and of the conditional that read the same layer costs more on a CPU than it
saves: activations in slices of a wider matrix are slower by more than the product is faster.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jlebm.backbones.protocol import Backbone, HasMLPHierarchy
from jlebm.energies import JointEnergy, is_zero
from jlebm.latents import Latents
from jlebm.networks import MLP, Affine, read_mlp

_leaky_backward = torch.ops.aten.leaky_relu_backward


class MLPPrior:
    """log p(z) = sum f_i(z_i) + log p0(z) and its gradient, with the weights at construction."""

    def __init__(
        self, energies: tuple[MLP | None, ...], conditionals: tuple[MLP, ...], top_sigma: float, sigma_floor: float
    ):
        """Take the weights of p0 and of each layer's f, top first; None for a layer without an energy."""
        self.energies, self.conditionals = energies, conditionals
        self.top_sigma, self.sigma_floor = top_sigma, sigma_floor

    @classmethod
    def of(cls, backbone: Backbone, energy: JointEnergy) -> "MLPPrior | None":
        """Read the prior's weights; None if any part of it is not of this form."""
        hierarchy = backbone.mlp_hierarchy() if isinstance(backbone, HasMLPHierarchy) else None
        if hierarchy is None or type(energy) is not JointEnergy or energy._forward_hooks:
            return None
        energies = []
        for network in energy.networks:
            f = read_mlp(network)
            if not is_zero(network) and (f is None or f.outputs != 1):
                return None
            energies.append(None if f is None else _detached(f))
        conditionals = tuple(map(_detached, hierarchy.conditionals))
        return cls(tuple(energies), conditionals, hierarchy.top_sigma, hierarchy.sigma_floor)

    @torch.no_grad()
    def gradient(self, position: Latents) -> Latents:
        """Return d log p / d z_i for every layer."""
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
        for index, (f, z) in enumerate(zip(self.energies, position, strict=True)):
            if f is not None:
                hidden = _forward(f, z)
                if terms is not None:
                    terms.append(F.linear(hidden[-1], *f.layers[-1])[:, 0])
                outer = f.layers[-1].weight.expand(len(z), -1)
                gradient[index] = _backward(f, outer, hidden, gradient[index])
            if index < len(self.conditionals):
                conditional = self.conditionals[index]
                hidden = _forward(conditional, z)
                parameters = F.linear(hidden[-1], *conditional.layers[-1])
                gradient.append(self._conditional(parameters, position[index + 1], terms))
                outer = parameters @ conditional.layers[-1].weight
                gradient[index] = _backward(conditional, outer, hidden, gradient[index])
        return tuple(gradient)

    def _conditional(self, parameters: Tensor, z: Tensor, terms: list[Tensor] | None) -> Tensor:
        """Return d log p(z|parameters) / d z; overwrite `parameters` by their gradient."""
        mean, log_s = parameters.chunk(2, dim=1)
        s = log_s.exp()
        sigma = s + self.sigma_floor
        u = (z - mean).div_(sigma)
        if terms is not None:
            terms.append(_log_normal(u, sigma))
        torch.div(u, sigma, out=mean)
        torch.mul(u.square().sub_(1), s.div_(sigma), out=log_s)
        return mean.neg()


def _log_normal(u: Tensor, sigma: Tensor) -> Tensor:
    """Return the log-density at mu + sigma u for each element of the batch."""
    return -(0.5 * u.square() + sigma.log() + 0.5 * math.log(2 * math.pi)).sum(1)


def _detached(network: MLP) -> MLP:
    return MLP(tuple(Affine(layer.weight.detach(), layer.bias.detach()) for layer in network.layers), network.slope)


def _forward(network: MLP, z: Tensor) -> list[Tensor]:
    """Return the activations of every hidden layer."""
    activations = [z]
    for layer in network.layers[:-1]:
        activations.append(F.leaky_relu_(F.linear(activations[-1], *layer), network.slope))
    return activations[1:]


def _backward(network: MLP, outer: Tensor, hidden: list[Tensor], gradient: Tensor) -> Tensor:
    """Backpropagate the gradient from the last activations to z, and add it to `gradient`.

    A leaky ReLU's output has the sign of its input, so its derivative is read from the output.
    """
    outer = _leaky_backward(outer, hidden[-1], network.slope, True)
    for layer, activation in zip(network.layers[-2:0:-1], hidden[-2::-1], strict=True):
        outer = outer @ layer.weight
        _leaky_backward.grad_input(outer, activation, network.slope, True, grad_input=outer)
    return torch.addmm(gradient, outer, network.layers[0].weight)
