"""The generator of the paper's joint-training experiments: x <- z_1 <- ... <- z_L, vectors below convolutions.

p(x|z) = N(g(z_1), sigma^2 I), p(z_i|z_{i+1}) = N(mu_i(z_{i+1}), sigma_i(z_{i+1})^2), p(z_L) = N(0, I)
(docs/facts, "Training settings"). Variational learning uses the inference network q(z_1|x) q(z_2|z_1) ...
"""

import itertools
from contextlib import nullcontext
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from jlebm.backbones.layers import Doubling, FromPoint, smallest_side
from jlebm.backbones.markov import GaussianMLP, MarkovHierarchy, markov_conditionals
from jlebm.backbones.protocol import ConvDecoder, MLPHierarchy, NoEncoder, PosteriorSample
from jlebm.distributions import SIGMA_FLOOR, Normal
from jlebm.engines.precision import Precision, in_bf16
from jlebm.errors import UserError
from jlebm.latents import Latents, LatentShapes
from jlebm.networks import SLOPE, hooked
from jlebm.randomness import Noise

RELEASED_TOP_SIGMA = 1.01  # the released code's sigma of p(z_L) is exp(0) + 0.01; the paper's is 1


@dataclass(frozen=True)
class ConvConfig:
    """Sizes of the generator; the defaults are the paper's for CIFAR-10."""

    image_shape: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width; height equals width."""
    latent_dims: tuple[int, ...] = (100, 128)
    """Dimensions of each layer, top to bottom."""
    channels: tuple[int, ...] = (1024, 512, 256)
    """Feature maps from the smallest resolution up; each one after the first doubles the resolution."""
    conditional_hidden: tuple[int, ...] = (200, 200, 200, 200)
    """Hidden units of each network of p(z_i|z_{i+1})."""
    likelihood_sigma: float = 0.3
    """Standard deviation of p(x|z), on images in [-1, 1]."""
    top_sigma: float = 1.0
    """Standard deviation of p(z_L); the released code uses `RELEASED_TOP_SIGMA`."""
    inference_network: bool = False
    """Whether to build q(z|x); variational learning needs it, maximum likelihood does not use it."""
    precision: Precision = field(default="float32", metadata={"since": "0.2"})
    """Arithmetic of the generator's convolutions and their gradients; latents, weights and densities stay float32.
    tf32 is for GPUs, since no CPU has it; bf16 for GPUs and CPUs with AMX, and slower on others (docs/performance)."""

    @property
    def latent_shapes(self) -> LatentShapes:
        """The shape of each layer of latents, top first."""
        return tuple((dimensions,) for dimensions in self.latent_dims)

    def __post_init__(self) -> None:
        """Refuse sizes that define no generator."""
        smallest_side(self.image_shape, self.channels)
        if not self.likelihood_sigma > 0 or not self.top_sigma > 0:
            raise UserError("likelihood_sigma and top_sigma must be positive")


class ConvGenerator(nn.Sequential):
    """g(z_1): transposed convolutions from 1x1 to the image, tanh at the end."""

    def __init__(self, config: ConvConfig):
        channels = config.channels
        layers: list[nn.Module] = [
            nn.Unflatten(1, (config.latent_dims[-1], 1, 1)),
            FromPoint(config.latent_dims[-1], channels[0], smallest_side(config.image_shape, channels)),
            nn.LeakyReLU(SLOPE, inplace=True),
        ]
        for before, after in itertools.pairwise(channels):
            layers += [Doubling(before, after), nn.LeakyReLU(SLOPE, inplace=True)]
        layers += [nn.ConvTranspose2d(channels[-1], config.image_shape[0], 3, padding=1), nn.Tanh()]
        super().__init__(*layers)


class ConvEncoder(nn.Module):
    """q(z_1|x): the generator's mirror image."""

    def __init__(self, config: ConvConfig):
        super().__init__()
        channels = config.channels[::-1]
        layers: list[nn.Module] = [
            nn.Conv2d(config.image_shape[0], channels[0], 3, padding=1),
            nn.LeakyReLU(SLOPE),
        ]
        for before, after in itertools.pairwise(channels):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        smallest = smallest_side(config.image_shape, channels)
        layers += [nn.Conv2d(channels[-1], 2 * config.latent_dims[-1], smallest), nn.Flatten()]
        self.network = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Normal:
        """Return q(z_1|x)."""
        mean, log_sigma = self.network(x).chunk(2, dim=1)
        return Normal.from_log_sigma(mean, log_sigma, SIGMA_FLOOR)


class ConvBackbone(MarkovHierarchy):
    """The two-layer generator of the paper, with any number of vector latents (see `Backbone` for the methods)."""

    recordable = True

    def __init__(self, config: ConvConfig):
        super().__init__()
        self.config = config
        self.latent_dims, self.top_sigma = config.latent_dims, config.top_sigma
        self.generator = ConvGenerator(config)
        self.conditionals = markov_conditionals(config.latent_dims, config.conditional_hidden)
        if config.inference_network:
            self.encoder = ConvEncoder(config)
            self.inference = markov_conditionals(config.latent_dims[::-1], config.conditional_hidden)

    @property
    def precision(self) -> Precision:
        """The arithmetic of the generator's convolutions (`jlebm.engines.precision`)."""
        return self.config.precision

    def mlp_hierarchy(self) -> MLPHierarchy | None:
        """Return p0 as the weights of its networks; None in a subclass, which may compute p0 differently."""
        networks = [each.plain() if isinstance(each, GaussianMLP) else None for each in self.conditionals]
        known = tuple(network for network in networks if network is not None)
        if type(self) is not ConvBackbone or len(known) < len(networks):
            return None
        return MLPHierarchy(self.top_sigma, known, SIGMA_FLOOR)

    def conv_decoder(self) -> ConvDecoder | None:
        """Return p(x|z_1) as the layers of its generator; None in bf16, with a hook or other layers, in a subclass."""
        layers = list(self.generator)
        convolutions = tuple(
            layer for layer in layers if isinstance(layer, nn.ConvTranspose2d) and not isinstance(layer, FromPoint)
        )
        slopes = {layer.negative_slope for layer in layers if type(layer) is nn.LeakyReLU}
        doublings = [Doubling, nn.LeakyReLU] * (len(convolutions) - 1)
        built = [nn.Unflatten, FromPoint, nn.LeakyReLU, *doublings, nn.ConvTranspose2d, nn.Tanh]
        plain = type(self) is ConvBackbone and list(map(type, layers)) == built and len(slopes) == 1
        if not plain or hooked(self.generator, *layers) or self.precision == "bf16":
            return None
        point = layers[1]
        assert isinstance(point, FromPoint)
        return ConvDecoder(point, convolutions, slopes.pop(), self.config.likelihood_sigma)

    def decode(self, z: Latents) -> Normal:
        """Return p(x|z_1) with images in [-1, 1]."""
        *layers, squash = self.generator
        mean = z[-1]
        with in_bf16(mean.device) if self.precision == "bf16" else nullcontext():
            for layer in layers:
                mean = layer(mean)
        # tanh of bf16 would round images to steps of a grey level and more.
        return Normal.constant_sigma(squash(mean.to(z[-1].dtype)), self.config.likelihood_sigma)

    def posterior(self, x: Float[Tensor, "batch channels height width"], noise: Noise) -> PosteriorSample:
        """Draw z_1 ~ q(z_1|x), then each layer above it from q(z_{i+1}|z_i).

        Raises:
            NoEncoder: the backbone was built with `inference_network=False`.
        """
        if not self.config.inference_network:
            raise NoEncoder("this backbone was built without an inference network")
        eps = noise(tuple(x.new_empty(len(x), *shape) for shape in self.latent_shapes))
        distribution = self.encoder(x)
        z = [distribution.sample(eps[-1])]
        log_prob = distribution.log_prob(z[-1])
        for network, layer_noise in zip(self.inference, reversed(eps[:-1]), strict=True):
            distribution = network(z[0])
            z.insert(0, distribution.sample(layer_noise))
            log_prob = log_prob + distribution.log_prob(z[0])
        return PosteriorSample(tuple(z), log_prob)
