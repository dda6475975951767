"""p0 as a Markov chain of vector latents: one perceptron per layer gives the next layer's Gaussian.

p0(z) = N(z_L; 0, top_sigma^2) prod_{i<L} N(z_i; mu_i(z_{i+1}), sigma_i(z_{i+1})^2) (arXiv 2306.06323).
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jlebm.distributions import SIGMA_FLOOR, Normal, soft_clamped
from jlebm.latents import Latents, LatentShapes
from jlebm.networks import MLP, hooked, mlp, read_mlp


class GaussianMLP(nn.Module):
    """N(mu(h), sigma(h)^2), with mu and then log sigma read from one network's output."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int):
        super().__init__()
        self.network = mlp(inputs, hidden, 2 * outputs)

    def forward(self, h: Float[Tensor, "batch inputs"]) -> Normal:
        """Return the conditional distribution."""
        mean, log_sigma = self.network(h).chunk(2, dim=1)
        return Normal.from_log_sigma(mean, log_sigma, SIGMA_FLOOR)

    def plain(self) -> MLP | None:
        """Return the network's weights; None if a call computes more than the network."""
        return None if type(self) is not GaussianMLP or hooked(self) else read_mlp(self.network)


class ClampedGaussianMLP(GaussianMLP):
    """The same with mu and log sigma through NVAE's soft clamp, which keeps both within 5 of zero."""

    def forward(self, h: Float[Tensor, "batch inputs"]) -> Normal:
        """Return the conditional distribution."""
        mean, log_sigma = self.network(h).chunk(2, dim=1)
        return soft_clamped(mean, log_sigma)


class MarkovHierarchy(nn.Module):
    """The p0 of a backbone; a subclass sets `conditionals` and a `config` with the layers' sizes."""

    conditionals: nn.ModuleList
    latent_dims: tuple[int, ...]
    top_sigma: float

    @property
    def latent_shapes(self) -> LatentShapes:
        """The shape of each layer, top to bottom."""
        return tuple((dimensions,) for dimensions in self.latent_dims)

    def conditional(self, above: Sequence[Tensor], like: Tensor) -> Normal:
        """Return p0 of the layer below `above`, the layers from the top; `like` has that layer's shape."""
        if not above:
            return Normal.constant_sigma(torch.zeros_like(like), self.top_sigma)
        return self.conditionals[len(above) - 1](above[-1])

    def prior_log_prob(self, z: Latents) -> Float[Tensor, " batch"]:
        """Return log p(z_L) + sum_i log p(z_i|z_{i+1})."""
        return torch.stack([self.conditional(z[:i], layer).log_prob(layer) for i, layer in enumerate(z)]).sum(0)

    def push(self, noise: Latents, temperature: float = 1.0) -> Latents:
        """Return z = T(eps), top first; each sigma is multiplied by `temperature`."""
        return self.push_below((), noise, temperature)

    def push_below(self, given: Latents, noise: Latents, temperature: float = 1.0) -> Latents:
        """Return all layers: those given, from the top, and the lower ones from their whitened noise."""
        z = list(given)
        for eps in noise:
            z.append(self.conditional(z, eps).sample(eps, temperature))
        return tuple(z)


def markov_conditionals(
    dims: Sequence[int], hidden: tuple[int, ...], kind: type[GaussianMLP] = GaussianMLP
) -> nn.ModuleList:
    """Return the networks of p(z_i|z_{i+1}), top first, for layers of these dimensions."""
    return nn.ModuleList(kind(above, hidden, below) for above, below in itertools.pairwise(dims))
