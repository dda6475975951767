"""What a hierarchical generator has to offer so that a joint EBM prior can be put on it."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from jlebm.distributions import Likelihood
from jlebm.errors import UserError
from jlebm.latents import Latents, LatentShapes
from jlebm.networks import MLP
from jlebm.randomness import Noise


class NoEncoder(Exception):
    """The backbone has no inference network: posterior samples come from a chain."""


class PosteriorSample(NamedTuple):
    """Latents drawn from q(z|x) by reparametrisation, and log q(z|x) at them."""

    latents: Latents
    log_prob: Float[Tensor, " batch"]
    kl: Float[Tensor, "layers batch"] | None = None
    """KL of each layer's q from its p0, both given the layers above as they were drawn, top first; None where it has no
    closed form. Their sum has the expectation of log q(z|x) - log p0(z)."""


class ELBOTerms(NamedTuple):
    """What the ELBO of a batch is made of, and the latents it is at."""

    log_likelihood: Float[Tensor, " batch"]
    kl: Float[Tensor, "layers batch"]
    """KL(q|p) of every layer, top first: the closed form; with flows log q - log p at the draw."""
    latents: Latents


@runtime_checkable
class Backbone(Protocol):
    """A generator p(x|z) p0(z) with several layers of latents; usually also a `torch.nn.Module`.

    A class that sets `recordable = True` says that its methods compute from its weights and their arguments alone, by
    the same operations whatever the values: on a GPU its chains are then recorded once and launched at once
    (`jlebm.engines.graphs`). A subclass has to say so again.
    """

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

    def decode(self, z: Latents) -> Likelihood:
        """Return p(x|z), images in [-1, 1] of shape (batch, channels, height, width)."""
        ...

    def posterior(self, x: Float[Tensor, "batch channels height width"], noise: Noise) -> PosteriorSample:
        """Draw from q(z|x).

        Raises:
            NoEncoder: the backbone has no inference network.
        """
        ...


class MLPHierarchy(NamedTuple):
    """A p0 in which every conditional is a Gaussian that one perceptron gives: what closed-form gradients need."""

    top_sigma: float
    """p(z_L) = N(0, top_sigma^2)."""
    conditionals: tuple[MLP, ...]
    """The network of p(z_i|z_{i+1}), top first; its outputs are mu and then log s, with sigma = s + sigma_floor."""
    sigma_floor: float


@runtime_checkable
class HasMLPHierarchy(Protocol):
    """A backbone whose p0 may be of that form. None of the general code asks for it: it is a way to be faster."""

    def mlp_hierarchy(self) -> MLPHierarchy | None:
        """Return the weights of p0; None where it has another form, as in a subclass with a `prior_log_prob`."""
        ...


@runtime_checkable
class HasPushBelow(Protocol):
    """A backbone that goes on below given layers: what keeping some layers and drawing those under them needs."""

    def push_below(self, given: Latents, noise: Latents, temperature: float = 1.0) -> Latents:
        """Return all layers: those given, from the top, unchanged, and the ones below them from their whitened noise.

        With nothing given it is `push`.
        """
        ...


def push_below(backbone: Backbone, given: Latents, noise: Latents) -> Latents:
    """Return z with the layers given, from the top, and those below them from their noise; `push` where none is given.

    Raises:
        UserError: layers are given, and the backbone has no `push_below`.
    """
    if not given:
        return backbone.push(noise)
    if not isinstance(backbone, HasPushBelow):
        raise UserError(f"{type(backbone).__name__} has no push_below, which keeping its upper layers needs")
    return backbone.push_below(given, noise)
