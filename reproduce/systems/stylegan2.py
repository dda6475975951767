"""StyleGAN2 (Karras et al., arXiv 1912.04958) as arXiv 2006.06676 sets it for CIFAR-10, without its augmentation.

z goes through a mapping network to w; each convolution's inputs are scaled by a style, linear in w, and its outputs
divided by the norm that the scaled weights have; noise is added to each pixel; the image is a sum over resolutions.
The discriminator has no shortcuts; it sees the variation within the batch and is penalised by the squared gradient at
data (R1) every sixteenth step. Path length regularisation and style mixing are not used.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import conv2d, softplus

from jlebm.backbones.layers import smallest_side
from jlebm.backbones.protocol import Backbone
from jlebm.errors import UserError
from jlebm.learning.trainable import TrainingConfig
from jlebm.randomness import Noise
from reproduce.systems.modulated import FLOOR, Linear, ModulatedConv, StyledLayer, Weight, activated, blurred, doubled
from reproduce.systems.system import Adam, Adversaries, BaselineExperiment, System, flipped, hour_of
from reproduce.systems.turns import Turn

R1_EVERY = 16  # steps between two penalties, as in the public code


@dataclass(frozen=True)
class StyleGAN2Config:
    """Networks and penalty; the defaults are the public code's configuration for CIFAR-10."""

    image_shape: tuple[int, int, int] = (3, 32, 32)
    latent_dim: int = 512
    """Dimension of z and of w."""
    mapping_layers: int = 2
    mapping_rate: float = 0.01
    """Ratio of the mapping network's learning rate to the others'."""
    generator_channels: tuple[int, ...] = (512, 512, 512, 512)
    """Feature maps from the smallest resolution up; each but the first doubles the resolution."""
    discriminator_channels: tuple[int, ...] = (512, 512, 512, 512)
    """Feature maps from the image down; each but the first halves the resolution."""
    r1_weight: float = 0.01
    """Weight of half the squared gradient of the logit at training images."""
    r1_every: int = R1_EVERY
    """Steps between penalties, whose weight is multiplied by it."""
    flip: bool = False
    """Whether training images are mirrored at random."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no networks."""
        for channels in (self.generator_channels, self.discriminator_channels):
            smallest_side(self.image_shape, channels)
        if min(self.latent_dim, self.mapping_layers, self.r1_every) < 1:
            raise UserError("model.latent_dim, mapping_layers and r1_every must be positive")
        if not self.mapping_rate > 0 or self.r1_weight < 0:
            raise UserError("model.mapping_rate must be positive, model.r1_weight not negative")


class Generator(nn.Module):
    """Generator: z and the noise of each layer, one at the smallest resolution, two at each other, to an image."""

    def __init__(self, config: StyleGAN2Config):
        super().__init__()
        channels, latent = config.generator_channels, config.latent_dim
        side = smallest_side(config.image_shape, channels)
        self.mapping = nn.ModuleList(Linear(latent, latent, config.mapping_rate) for _ in range(config.mapping_layers))
        self.constant = nn.Parameter(torch.randn(channels[0], side, side))
        widths = [channels[0], *(each for each in channels[1:] for _ in range(2))]
        pairs = itertools.pairwise((channels[0], *widths))
        self.layers = nn.ModuleList(StyledLayer(before, after, latent) for before, after in pairs)
        colours = config.image_shape[0]
        self.to_image = nn.ModuleList(ModulatedConv(each, colours, 1, latent, demodulated=False) for each in channels)
        self.bias = nn.Parameter(torch.zeros(colours, 1, 1))
        self.noise_sides = [side, *(side * 2**index for index in range(1, len(channels)) for _ in range(2))]

    def forward(
        self, z: Float[Tensor, "batch latent"], *noise: Float[Tensor, "batch 1 _ _"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images, mostly in [-1, 1]."""
        w = z * (z.square().mean(1, keepdim=True) + FLOOR).rsqrt()
        for layer in self.mapping:
            w = activated(layer(w))
        h = self.layers[0](self.constant.expand(len(z), -1, -1, -1), w, noise[0])
        image = self.to_image[0](h, w)
        for index, to_image in enumerate(self.to_image[1:]):
            first, second = 2 * index + 1, 2 * index + 2
            h = self.layers[first](doubled(h), w, noise[first])
            h = self.layers[second](h, w, noise[second])
            image = doubled(image) + to_image(h, w)
        return image + self.bias


class Discriminator(nn.Module):
    """Discriminator: an image within its batch to a logit."""

    def __init__(self, config: StyleGAN2Config):
        super().__init__()
        channels, last = config.discriminator_channels, config.discriminator_channels[-1]
        side = smallest_side(config.image_shape, channels)
        self.from_image = Weight(channels[0], config.image_shape[0], 1, 1)
        pairs = [pair for before, after in itertools.pairwise(channels) for pair in ((before, before), (before, after))]
        self.convolutions = nn.ModuleList(Weight(after, before, 3, 3) for before, after in [*pairs, (last + 1, last)])
        widths = [channels[0], *(after for _, after in pairs), last]
        self.biases = nn.ParameterList(torch.zeros(each, 1, 1) for each in widths)
        self.hidden, self.logit = Linear(last * side**2, last), Linear(last, 1)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
        """Return logits, which also depend on the other images of the batch."""
        h = activated(conv2d(x, self.from_image()) + self.biases[0])
        *convolutions, last = self.convolutions
        for index, weight in enumerate(convolutions):
            even = index % 2 == 0
            h = conv2d(h, weight(), padding=1) if even else conv2d(blurred(h), weight(), stride=2)
            h = activated(h + self.biases[index + 1])
        variation = (h.var(0, correction=0) + FLOOR).sqrt().mean()
        h = torch.cat((h, variation.expand(len(h), 1, *h.shape[2:])), dim=1)
        h = activated(conv2d(h, last(), padding=1) + self.biases[-1])
        return self.logit(activated(self.hidden(h.flatten(1))))[:, 0]


class StyleGAN2(System):
    """Generator and discriminator."""

    def __init__(self, config: StyleGAN2Config):
        super().__init__()
        self.config = config
        self.generator, self.discriminator = Generator(config), Discriminator(config)

    def turns(
        self,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[Turn]:
        """Yield the updates of generator and discriminator, and of its penalty if one is due."""
        config = self.config
        if config.flip:
            x = flipped(x, noise)
        loss = softplus(-self.discriminator(self.draw(len(x), noise))).mean()
        yield Turn("generator", loss, {"loss_generator": loss})
        with torch.no_grad():
            samples = self.draw(len(x), noise)
        on_data, on_samples = self.discriminator(x), self.discriminator(samples)
        loss = softplus(-on_data).mean() + softplus(on_samples).mean()
        figures = {"loss_discriminator": loss, "logit_data": on_data.mean(), "logit_samples": on_samples.mean()}
        yield Turn("discriminator", loss, figures)
        if step % config.r1_every == 0:
            # The same values again: a curve has one at every recorded step.
            yield Turn("discriminator", config.r1_every * self.r1(x), figures)

    def r1(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, ""]:
        """Return the R1 penalty: r1_weight / 2 times the mean squared gradient of the logits at x."""
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.discriminator(leaf).sum(), leaf, create_graph=True)
        return 0.5 * self.config.r1_weight * gradient.square().flatten(1).sum(1).mean()

    def draw(self, count: int, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Return images generated from z of N(0, I), without truncation."""
        sides = self.generator.noise_sides
        z, *pixels = noise(
            (self.empty(count, self.config.latent_dim), *(self.empty(count, 1, side, side) for side in sides))
        )
        return self.generator(z, *pixels)


@dataclass(frozen=True)
class StyleGAN2Experiment(BaselineExperiment):
    """Configuration of StyleGAN2."""

    learning: Literal["stylegan2"] = "stylegan2"
    model: StyleGAN2Config = field(default_factory=StyleGAN2Config)
    optimizer: Adversaries = field(default_factory=Adversaries)

    def build(self, backbone: Backbone | None = None) -> StyleGAN2:
        """See `BaselineExperiment`."""
        return StyleGAN2(self.model)


# ---- presets


def adversaries(lr: float, ema_decay: float) -> Adversaries:
    """Return the paper's optimisers; the discriminator's rate makes up for the updates that its penalty adds."""
    share = R1_EVERY / (R1_EVERY + 1)
    return Adversaries(
        ema_decay=ema_decay,
        generator=Adam(lr, beta1=0.0, beta2=0.99),
        discriminator=Adam(lr * share, beta1=0.0, beta2=0.99**share),
    )


PRESETS = {
    "tiny": StyleGAN2Experiment(
        "tiny",
        model=StyleGAN2Config(latent_dim=16, generator_channels=(16, 16, 8, 8), discriminator_channels=(8, 8, 16, 16)),
        optimizer=adversaries(2.5e-3, ema_decay=0.9),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core.
    "cpu": StyleGAN2Experiment(
        "cpu",
        model=StyleGAN2Config(
            latent_dim=64,
            generator_channels=(64, 64, 32, 16),
            discriminator_channels=(16, 32, 64, 64),
            flip=True,
        ),
        optimizer=adversaries(2.5e-3, ema_decay=0.99),
        training=TrainingConfig(steps=1_800, batch_size=32),
    ),
    # A quarter of the published width for 20 minutes on one data-centre GPU; not measured.
    "budget": StyleGAN2Experiment(
        "budget",
        model=StyleGAN2Config(
            latent_dim=256,
            generator_channels=(256, 256, 128, 128),
            discriminator_channels=(128, 128, 256, 256),
            flip=True,
        ),
        optimizer=adversaries(2.5e-3, ema_decay=0.999),
        training=TrainingConfig(steps=1_000_000, batch_size=64, budget_seconds=1200.0),
    ),
    # arXiv 2006.06676 and its public code's configuration for CIFAR-10: 100 million images of 64 a step, the variation
    # of 32 of them looked at together; the average halves in 500,000 images. Table 2 reports IS 8.99 and FID 9.9.
    "paper": StyleGAN2Experiment(
        "paper",
        optimizer=adversaries(2.5e-3, ema_decay=0.5 ** (64 / 500_000)),
        training=TrainingConfig(steps=1_562_500, batch_size=64),
    ),
}
PRESETS["long"] = hour_of(PRESETS["cpu"])
