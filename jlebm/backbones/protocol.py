"""The protocol that a multi-layer generator implements to carry a joint EBM prior."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from jlebm.distributions import Likelihood
from jlebm.errors import UserError
from jlebm.latents import Latents, LatentShapes
from jlebm.networks import MLP
from jlebm.randomness import Noise


class NoEncoder(Exception):
    """The backbone has no inference network; draw posterior samples with a chain."""

    def __init__(self, said: str = "the backbone has no inference network; learn with JointMLE, by posterior chains"):
        super().__init__(said)


class PosteriorSample(NamedTuple):
    """Latents drawn from q(z|x) by reparametrisation, and log q(z|x) at them."""

    latents: Latents
    log_prob: Float[Tensor, " batch"]
    kl: Float[Tensor, "layers batch"] | None = None
    """KL(q | p0) of each layer given the drawn layers above, top first; None if it has no closed form. The sum over
    layers has the expectation of log q(z|x) - log p0(z)."""


class ELBOTerms(NamedTuple):
    """The terms of the ELBO of a batch, and the latents that they were computed at."""

    log_likelihood: Float[Tensor, " batch"]
    kl: Float[Tensor, "layers batch"]
    """KL(q|p) of every layer, top first, in closed form; with flows log q - log p at the draw. One row, of all layers
    together, where q does not go from the top down."""
    latents: Latents


@runtime_checkable
class Backbone(Protocol):
    """A generator p(x|z) p0(z) with several layers of latents; usually also a `torch.nn.Module`.

    A class that sets `recordable = True` declares that its methods compute from its weights and their arguments alone,
    by the same operations for all values: on a GPU its chains then run as CUDA graphs (`jlebm.engines.graphs`). A
    subclass must declare it again.
    """

    @property
    def latent_shapes(self) -> LatentShapes:
        """The shape of each layer without the batch, top to bottom."""
        ...

    def prior_log_prob(self, z: Latents) -> Float[Tensor, " batch"]:
        """Return log p0(z), the log-density of the Gaussian hierarchy."""
        ...

    def push(self, noise: Latents, temperature: float = 1.0) -> Latents:
        """Return z = T(eps): ancestral sampling as a deterministic map of whitened noise.

        `temperature` multiplies the sigma of each conditional.
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
    """A p0 whose conditionals are Gaussians given by one perceptron each, as closed-form gradients need."""

    top_sigma: float
    """Sigma of p(z_L) = N(0, top_sigma^2)."""
    conditionals: tuple[MLP, ...]
    """The network of p(z_i|z_{i+1}), top first; its outputs are mu and then log s, with sigma = s + sigma_floor."""
    sigma_floor: float


@runtime_checkable
class HasMLPHierarchy(Protocol):
    """The protocol of a backbone whose p0 may have that form, which makes its chains faster."""

    def mlp_hierarchy(self) -> MLPHierarchy | None:
        """Return the weights of p0; None if it has another form, as in a subclass with its own `prior_log_prob`."""
        ...


class ConvDecoder(NamedTuple):
    """A p(x|z_1) whose mean is a stack of transposed convolutions, as closed-form gradients need.

    A leaky ReLU follows each layer but the last, which a tanh follows.
    """

    point: nn.ConvTranspose2d
    """The layer of a 1x1 input, z_1 itself: its weight is (inputs, outputs, height, width)."""
    layers: tuple[nn.ConvTranspose2d, ...]
    """The layers after it."""
    slope: float
    sigma: float
    """Standard deviation of every pixel."""


@runtime_checkable
class HasConvDecoder(Protocol):
    """The protocol of a backbone whose p(x|z_1) may have that form, which makes its posterior chains faster."""

    def conv_decoder(self) -> ConvDecoder | None:
        """Return the layers of p(x|z_1); None if it has another form, as in a subclass with its own `decode`."""
        ...


@runtime_checkable
class HasPushBelow(Protocol):
    """The protocol of a backbone that can draw its lower layers below given upper ones."""

    def push_below(self, given: Latents, noise: Latents, temperature: float = 1.0) -> Latents:
        """Return all layers: those given, from the top, unchanged, and the lower ones from their whitened noise.

        Without given layers this is `push`.
        """
        ...


def push_below(backbone: Backbone, given: Latents, noise: Latents) -> Latents:
    """Return all layers: those given, from the top, and the lower ones from their noise; `push` if none is given.

    Raises:
        UserError: layers are given and the backbone has no `push_below`.
    """
    if not given:
        return backbone.push(noise)
    if not isinstance(backbone, HasPushBelow):
        raise UserError(f"{type(backbone).__name__} has no push_below, which keeping its upper layers needs")
    return backbone.push_below(given, noise)


@runtime_checkable
class HasLatentShapes(Protocol):
    """The protocol of a backbone and of its configuration."""

    @property
    def latent_shapes(self) -> LatentShapes:
        """The shape of each layer without the batch, top to bottom."""
        ...


@runtime_checkable
class HasPathShapes(HasLatentShapes, Protocol):
    """The protocol of a top-down backbone, and of its configuration, that tells the shapes of its path."""

    @property
    def path_shapes(self) -> LatentShapes:
        """The shape of the path after each layer without the batch, top to bottom."""
        ...


class Redrawn(NamedTuple):
    """The layers of latents z, each drawn anew from p0 where z is kept above it."""

    path: Latents
    """The path after each layer of z, top first."""
    latents: Latents
    """Each layer drawn anew, z_i ~ p0(z_i|z_{>i})."""
    path_below: Latents
    """The path after each of these, in the place of z's own layer."""


@runtime_checkable
class HasPath(HasPathShapes, Protocol):
    """The protocol of a backbone with one path from the top to the image, to which each layer is added."""

    def path(self, z: Latents) -> Latents:
        """Return the path after each layer, top first: a function of the layer and of all above it."""
        ...

    def push_path(self, given: Latents, noise: Latents) -> tuple[Latents, Latents]:
        """Return what `push_below` returns, and the path after each layer."""
        ...

    def redrawn(self, z: Latents, noise: Latents) -> Redrawn:
        """Return each layer drawn anew from p0 given the layers of z above it, and the path with and without it."""
        ...


NO_PATH = "energies of the path need a top-down backbone (model.sides); this backbone has no path"


def path_of(backbone: Backbone) -> HasPath:
    """Return a backbone as one with a path.

    Raises:
        UserError: it has none.
    """
    if not isinstance(backbone, HasPath):
        raise UserError(NO_PATH)
    return backbone


def path_shapes_of(backbone: object) -> LatentShapes:
    """Return the shapes of the path of a backbone, or of a configuration of one.

    Raises:
        UserError: it has no path.
    """
    if not isinstance(backbone, HasPathShapes):
        raise UserError(NO_PATH)
    return backbone.path_shapes


@runtime_checkable
class HasLevels(Protocol):
    """The protocol of a backbone whose p(x|z) is of images with fewer levels per colour than those of a file."""

    def quantised(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images in [-1, 1] at the levels that p(x|z) is of."""
        ...


def log_likelihood(
    backbone: Backbone, z: Latents, x: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, " batch"]:
    """Return log p(x|z) of images in [-1, 1], at the levels that the backbone knows."""
    seen = backbone.quantised(x) if isinstance(backbone, HasLevels) else x
    return backbone.decode(z).log_prob(seen)


@runtime_checkable
class HasInferred(Protocol):
    """The protocol of a backbone whose posterior and decoder share a path, which one pass then follows."""

    def inferred(
        self, x: Float[Tensor, "batch channels height width"], noise: Noise
    ) -> tuple[PosteriorSample, Likelihood]:
        """Return what `posterior` draws, and p(x|z) at it as `decode` gives it."""
        ...


def inferred(
    backbone: Backbone, x: Float[Tensor, "batch channels height width"], noise: Noise
) -> tuple[PosteriorSample, Likelihood]:
    """Draw from q(z|x) and return the draw with p(x|z) at it, in one pass where the backbone can.

    Raises:
        NoEncoder: the backbone has no inference network.
    """
    if isinstance(backbone, HasInferred):
        return backbone.inferred(x, noise)
    sample = backbone.posterior(x, noise)
    return sample, backbone.decode(sample.latents)
