"""What a hierarchical generator has to offer so that a joint EBM prior can be put on it."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from jlebm.distributions import Normal
from jlebm.latents import Latents, LatentShapes
from jlebm.randomness import Noise


class NoEncoder(Exception):
    """The backbone has no inference network: posterior samples come from a chain."""


class PosteriorSample(NamedTuple):
    """Latents drawn from q(z|x) by reparametrisation, and log q(z|x) at them."""

    latents: Latents
    log_prob: Float[Tensor, " batch"]


@runtime_checkable
class Backbone(Protocol):
    """A generator p(x|z) p0(z) with several layers of latents; usually also a `torch.nn.Module`."""

    @property
    def latent_shapes(self) -> LatentShapes:
        """The shape of each layer without the batch, top to bottom."""
        ...

    def prior_log_prob(self, z: Latents) -> Float[Tensor, " batch"]:
        """Return log p0(z), the Gaussian hierarchy's log-density."""
        ...

    def push(self, noise: Latents, temperature: float = 1.0) -> Latents:
        """Return z = T(eps): ancestral sampling as a deterministic map of whitened noise.

        Each conditional's sigma is multiplied by `temperature`.
        """
        ...

    def decode(self, z: Latents) -> Normal:
        """Return p(x|z), images in [-1, 1] of shape (batch, channels, height, width)."""
        ...

    def posterior(self, x: Float[Tensor, "batch channels height width"], noise: Noise) -> PosteriorSample:
        """Draw from q(z|x).

        Raises:
            NoEncoder: the backbone has no inference network.
        """
        ...
