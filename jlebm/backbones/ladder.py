"""A ladder of vector latents: deterministic bottom-up, stochastic top-down, with every layer connected to the image.

p0 is that of `MarkovHierarchy`, p(z_L) = N(0, I) and p(z_i|z_{i+1}) by one perceptron per layer. The image depends on
all layers, as in BIVA and NVAE: a deterministic path of transposed convolutions leads from the smallest feature maps to
the pixels. z_L enters at its start and each lower layer further on, so that the bottom layer controls only what the
last few convolutions can draw.

Inference is that of the ladder VAE (Sonderby et al., 2016, arXiv 1602.02282): a bottom-up path without noise proposes a
Gaussian for every layer, and from the top down q(z_i|z_{i+1}, x) is proportional to the proposal times p(z_i|z_{i+1}).
It is narrower than both and its mean lies between theirs. Here the top layer does the same; the paper's top q is the
proposal alone.

Every mu and log sigma, of proposals and of p0, passes NVAE's soft clamp, and proposals are read from normalised
features, where the ladder VAE has batch norms. Without both, the first updates at a rate of 1e-3 drove the proposals'
sigma beyond 1e10, which leaves a layer without a gradient, and p0's sigma until T(eps) was not finite (MNIST, before
the thirtieth update).

Learning with an inference network makes p(z_i|z_{i+1}) sharp, and the clamp does not prevent it: log sigma above -5
still allows a sigma far too small for the step sizes of the paper's chains in z. A chain in whitened noise is not
affected, since its base density is N(0, I) for every sigma; use that chain with this backbone. Because of the clamp, p0
is not a plain perceptron's output and has no closed-form gradient (`HasMLPHierarchy`).
"""

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jlebm.backbones.layers import FromPoint, smallest_side
from jlebm.backbones.markov import ClampedGaussianMLP, MarkovHierarchy, markov_conditionals
from jlebm.backbones.protocol import NoEncoder, PosteriorSample
from jlebm.distributions import Bernoulli, Likelihood, Normal
from jlebm.engines.precision import Precision, in_bf16
from jlebm.errors import UserError
from jlebm.latents import Latents, LatentShapes
from jlebm.networks import SLOPE
from jlebm.randomness import Noise


@dataclass(frozen=True)
class LadderConfig:
    """Sizes of the ladder; the defaults are for 28x28 grey images."""

    image_shape: tuple[int, int, int] = (1, 28, 28)
    """Channels, height and width; height equals width."""
    latent_dims: tuple[int, ...] = (8, 16, 32)
    """Dimensions of each layer, top to bottom."""
    channels: tuple[int, ...] = (64, 32, 16)
    """Feature maps from the smallest resolution up; each one after the first doubles the resolution."""
    conditional_hidden: tuple[int, ...] = (128, 128)
    """Hidden units of each network of p(z_i|z_{i+1})."""
    features: int = 256
    """Width of the bottom-up path above the convolutions."""
    likelihood: Literal["normal", "bernoulli"] = "normal"
    """Kind of p(x|z): a Gaussian with one sigma, or Bernoulli pixels for grey images, whose grey levels weight both."""
    likelihood_sigma: float = 0.3
    """Standard deviation of a Gaussian p(x|z), on images in [-1, 1]."""
    precision: Precision = field(default="float32", metadata={"since": "0.2"})
    """Arithmetic of the decoder's layers and their gradients, as in `jlebm.backbones.conv.ConvConfig`."""
    inference_network: bool = field(default=True, metadata={"since": "0.3"})
    """Whether to build q(z|x); without it the ladder learns by posterior chains, as `ConvConfig` does."""

    @property
    def latent_shapes(self) -> LatentShapes:
        """The shape of each layer of latents, top first."""
        return tuple((dimensions,) for dimensions in self.latent_dims)

    def __post_init__(self) -> None:
        """Refuse sizes that define no ladder."""
        smallest_side(self.image_shape, self.channels)
        if len(self.latent_dims) < 2 or min(self.latent_dims) < 1:
            raise UserError(f"a ladder needs at least two layers of one dimension or more, not {self.latent_dims}")
        if not self.likelihood_sigma > 0:
            raise UserError(f"likelihood_sigma must be positive, not {self.likelihood_sigma}")
        if self.likelihood == "bernoulli" and self.image_shape[0] != 1:
            raise UserError(f"binary pixels are for grey images, not for {self.image_shape[0]} channels; use 'normal'")

    def entry_levels(self) -> tuple[int, ...]:
        """Return where each layer enters the decoder, top first: indices into `channels`, spread from the first on."""
        layers = len(self.latent_dims)
        return tuple(index * len(self.channels) // layers for index in range(layers))


class LadderDecoder(nn.Module):
    """The decoder, from all layers to the image's parameters: a Gaussian's mean before tanh, or pixel logits."""

    def __init__(self, config: LadderConfig):
        super().__init__()
        channels, side = config.channels, smallest_side(config.image_shape, config.channels)
        self.levels = config.entry_levels()
        self.entries = nn.ModuleList(
            FromPoint(dim, channels[level], side) for dim, level in zip(config.latent_dims, self.levels, strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1) for before, after in itertools.pairwise(channels)
        )
        self.mix = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in channels)
        self.image = nn.Conv2d(channels[-1], config.image_shape[0], 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise weights so that a layer's maps keep their variance on the way to the image (He et al., 2015).

        Torch's default shrinks it at every convolution: the upper layers hardly reach the image at first, and their KL
        collapses to zero for good before the decoder learns to use them (MNIST, within 160 updates).
        """
        after_leaky_relu = (1 + SLOPE**2) / 2
        for module in self.modules():
            if isinstance(module, FromPoint):
                seen = float(module.in_channels)
            elif isinstance(module, nn.ConvTranspose2d):  # each output sees 2 x 2 of its 4 x 4 weights
                seen = after_leaky_relu * 4 * module.in_channels
            elif isinstance(module, nn.Conv2d) and module is not self.image:
                seen = after_leaky_relu * 9 * module.in_channels
            else:
                continue
            nn.init.normal_(module.weight, std=seen**-0.5)

    def forward(self, z: Latents) -> Float[Tensor, "batch channels height width"]:
        """Return the parameters of p(x|z), one number per colour and pixel."""
        state = None
        for level, mix in enumerate(self.mix):
            parts = [] if state is None else [self.up[level - 1](state)]
            for entry, its_level, layer in zip(self.entries, self.levels, z, strict=True):
                if its_level == level:
                    maps = entry(layer[:, :, None, None])
                    parts.append(F.interpolate(maps, scale_factor=2.0**level, mode="bilinear") if level else maps)
            state = F.leaky_relu(mix(F.leaky_relu(torch.stack(parts).sum(0), SLOPE)), SLOPE)
        return self.image(state)


class BottomUp(nn.Module):
    """The deterministic bottom-up path, which proposes a Gaussian for every layer."""

    def __init__(self, config: LadderConfig):
        super().__init__()
        channels, side = config.channels[::-1], smallest_side(config.image_shape, config.channels)
        layers: list[nn.Module] = [nn.Conv2d(config.image_shape[0], channels[0], 3, padding=1), nn.LeakyReLU(SLOPE)]
        for before, after in itertools.pairwise(channels):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        layers += [nn.Flatten(), nn.Linear(channels[-1] * side**2, config.features), nn.LeakyReLU(SLOPE)]
        self.trunk = nn.Sequential(*layers)
        upwards = config.latent_dims[::-1]
        self.steps = nn.ModuleList(nn.Linear(config.features, config.features) for _ in upwards[1:])
        self.norms = nn.ModuleList(nn.LayerNorm(config.features) for _ in upwards)
        self.proposals = nn.ModuleList(ClampedGaussianMLP(config.features, (), dim) for dim in upwards)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Sequence[Normal]:
        """Return each layer's proposal, top first."""
        state = self.trunk(x)
        proposed: list[Normal] = []
        for index, (norm, proposal) in enumerate(zip(self.norms, self.proposals, strict=True)):
            if index:
                state = state + F.leaky_relu(self.steps[index - 1](state), SLOPE)
            proposed.insert(0, proposal(norm(state)))
        return proposed


class LadderBackbone(MarkovHierarchy):
    """A ladder of vector latents, usually with an inference network; `Backbone` documents the methods."""

    top_sigma = 1.0
    recordable = True

    def __init__(self, config: LadderConfig):
        super().__init__()
        self.config = config
        self.latent_dims = config.latent_dims
        self.decoder = LadderDecoder(config)
        self.conditionals = markov_conditionals(config.latent_dims, config.conditional_hidden, ClampedGaussianMLP)
        if config.inference_network:
            self.bottom_up = BottomUp(config)

    @property
    def precision(self) -> Precision:
        """The arithmetic of the decoder (`jlebm.engines.precision`)."""
        return self.config.precision

    def decode(self, z: Latents) -> Likelihood:
        """Return p(x|z) with images in [-1, 1]."""
        with in_bf16(z[-1].device) if self.precision == "bf16" else nullcontext():
            parameters = self.decoder(z)
        parameters = parameters.to(z[-1].dtype)
        if self.config.likelihood == "bernoulli":
            return Bernoulli(parameters)
        return Normal.constant_sigma(torch.tanh(parameters), self.config.likelihood_sigma)

    def posterior(self, x: Float[Tensor, "batch channels height width"], noise: Noise) -> PosteriorSample:
        """Draw z_L ~ q(z_L|x), then each layer below it from q(z_i|z_{i+1}, x).

        Raises:
            NoEncoder: the ladder was built with `inference_network=False`.
        """
        if not self.config.inference_network:
            raise NoEncoder("this ladder was built without an inference network")
        eps = noise(tuple(x.new_empty(len(x), *shape) for shape in self.latent_shapes))
        z: list[Tensor] = []
        log_probs, kl = [], []
        for proposal, layer_noise in zip(self.bottom_up(x), eps, strict=True):
            prior = self.conditional(z, layer_noise)
            q = prior.product(proposal)
            z.append(q.sample(layer_noise))
            log_probs.append(q.log_prob(z[-1]))
            kl.append(q.kl(prior))
        return PosteriorSample(tuple(z), torch.stack(log_probs).sum(0), torch.stack(kl))
