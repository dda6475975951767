"""BigGAN (Brock, Donahue and Simonyan, arXiv 1809.11096): a class-conditional GAN of residual networks.

The generator's batch norms take their gains and biases from the class's embedding and from a chunk of z of their own;
the discriminator adds to its logit the projection of its features on the class's embedding (arXiv 1802.05637); the
loss is the hinge; all weights but plain batch norm's are divided by their largest singular value (arXiv 1802.05957).
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import relu

from jlebm.backbones.layers import smallest_side
from jlebm.backbones.protocol import Backbone
from jlebm.errors import UserError
from jlebm.learning.trainable import TrainingConfig
from jlebm.randomness import Noise
from reproduce.systems.normed import DiscriminatorBlock, GeneratorBlock, normed
from reproduce.systems.system import Adam, Adversaries, BaselineExperiment, System, flipped, hour_of
from reproduce.systems.turns import Turn, integers


@dataclass(frozen=True)
class BigGANConfig:
    """Networks and training; the defaults are those of the authors' PyTorch code for CIFAR-10.

    The chunks of z and the shared class embedding are the exception: they are the paper's for larger images.
    """

    image_shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10
    latent_dim: int = 128
    """Dimension of z, which is cut into one chunk for the generator's input and one for each of its blocks."""
    embedding_dim: int = 128
    """Dimension of a class's embedding in the generator."""
    generator_channels: tuple[int, ...] = (256, 256, 256, 256)
    """Feature maps from the smallest resolution up; each but the first is a block that doubles the resolution."""
    discriminator_channels: tuple[int, ...] = (256, 256, 256, 256)
    """Feature maps of the discriminator's blocks."""
    halvings: int = 2
    """Number of the first blocks that halve the resolution."""
    discriminator_steps: int = 4
    """Updates of the discriminator per update of the generator; they split the batch."""
    norm_momentum: float = 0.1
    """Momentum of the batch norms' running statistics, which sampling uses."""
    flip: bool = False
    """Whether training images are mirrored at random."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no networks."""
        smallest_side(self.image_shape, self.generator_channels)
        if self.latent_dim % len(self.generator_channels):
            raise UserError(
                f"model.latent_dim {self.latent_dim} cannot be cut into {len(self.generator_channels)} chunks"
            )
        if not 0 <= self.halvings <= len(self.discriminator_channels) or self.image_shape[1] % 2**self.halvings:
            raise UserError(f"model.halvings {self.halvings} do not fit the images or the discriminator's blocks")
        if min(self.classes, self.embedding_dim, self.discriminator_steps) < 1 or not 0 < self.norm_momentum <= 1:
            raise UserError("model.classes, embedding_dim, discriminator_steps and norm_momentum must be positive")


class Generator(nn.Module):
    """Generator: z and a class to an image."""

    def __init__(self, config: BigGANConfig):
        super().__init__()
        channels = config.generator_channels
        chunk = config.latent_dim // len(channels)
        side = smallest_side(config.image_shape, channels)
        self.chunk, self.shape = chunk, (channels[0], side, side)
        self.embedding = nn.Embedding(config.classes, config.embedding_dim)
        self.start = normed(nn.Linear(chunk, channels[0] * side**2))
        self.blocks = nn.ModuleList(
            GeneratorBlock(before, after, chunk + config.embedding_dim, config.norm_momentum)
            for before, after in itertools.pairwise(channels)
        )
        self.last_norm = nn.BatchNorm2d(channels[-1], momentum=config.norm_momentum)
        self.last = normed(nn.Conv2d(channels[-1], config.image_shape[0], 3, padding=1))

    def forward(
        self, z: Float[Tensor, "batch latent"], classes: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images in [-1, 1]."""
        first, *chunks = z.split(self.chunk, dim=1)
        embedded = self.embedding(classes)
        h = self.start(first).unflatten(1, self.shape)
        for block, chunk in zip(self.blocks, chunks, strict=True):
            h = block(h, torch.cat((embedded, chunk), dim=1))
        return torch.tanh(self.last(relu(self.last_norm(h))))


class Discriminator(nn.Module):
    """Discriminator: an image and a class to a logit."""

    def __init__(self, config: BigGANConfig):
        super().__init__()
        channels = (config.image_shape[0], *config.discriminator_channels)
        self.blocks = nn.Sequential(
            *(
                DiscriminatorBlock(before, after, halves=index < config.halvings, first=index == 0)
                for index, (before, after) in enumerate(itertools.pairwise(channels))
            )
        )
        self.linear = normed(nn.Linear(channels[-1], 1))
        self.embedding = normed(nn.Embedding(config.classes, channels[-1]))

    def features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Return the features that the class's embedding is projected on."""
        return relu(self.blocks(x)).sum((2, 3))

    def forward(
        self, x: Float[Tensor, "batch channels height width"], classes: Int64[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """Return the logit."""
        features = self.features(x)
        return self.linear(features)[:, 0] + (self.embedding(classes) * features).sum(1)


class BigGAN(System):
    """Generator and discriminator."""

    def __init__(self, config: BigGANConfig):
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
        """Yield the discriminator's updates, each on its share of the batch, then the generator's."""
        if labels is None:
            raise UserError("biggan learns from classes; train it on a dataset that has them")
        if self.config.flip:
            x = flipped(x, noise)
        shares = self.config.discriminator_steps
        parts = list(zip(x.chunk(shares), labels.chunk(shares), strict=True))
        for images, classes in parts:
            with torch.no_grad():
                samples, drawn = self._sampled(len(images), noise)
            on_data, on_samples = self.discriminator(images, classes), self.discriminator(samples, drawn)
            loss = relu(1 - on_data).mean() + relu(1 + on_samples).mean()
            figures = {"loss_discriminator": loss, "logit_data": on_data.mean(), "logit_samples": on_samples.mean()}
            yield Turn("discriminator", loss, figures)
        loss = -self.discriminator(*self._sampled(len(parts[0][0]), noise)).mean()
        yield Turn("generator", loss, {"loss_generator": loss})

    def _sampled(
        self, count: int, noise: Noise
    ) -> tuple[Float[Tensor, "batch channels height width"], Int64[Tensor, " batch"]]:
        """Return images and their classes, all equally likely."""
        (z,) = noise((self.empty(count, self.config.latent_dim),))
        classes = integers(noise, self.config.classes, z)
        return self.generator(z, classes), classes

    def draw(self, count: int, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Return generated images, each of a class drawn at random."""
        return self._sampled(count, noise)[0]


@dataclass(frozen=True)
class BigGANExperiment(BaselineExperiment):
    """Configuration of BigGAN."""

    learning: Literal["biggan"] = "biggan"
    model: BigGANConfig = field(default_factory=BigGANConfig)
    optimizer: Adversaries = field(
        default_factory=lambda: Adversaries(
            ema_decay=0.9999, generator=Adam(2e-4, beta1=0.0), discriminator=Adam(2e-4, beta1=0.0)
        )
    )

    def build(self, backbone: Backbone | None = None) -> BigGAN:
        """See `BaselineExperiment`."""
        return BigGAN(self.model)


# ---- presets

PRESETS = {
    # The batch norms' statistics are averaged over as many steps as the weights, in every preset.
    "tiny": BigGANExperiment(
        "tiny",
        model=BigGANConfig(
            latent_dim=16,
            embedding_dim=8,
            generator_channels=(16, 16, 8, 8),
            discriminator_channels=(8, 16, 16),
            discriminator_steps=2,
        ),
        optimizer=Adversaries(ema_decay=0.9, generator=Adam(1e-3, beta1=0.0), discriminator=Adam(3e-4, beta1=0.0)),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core.
    "cpu": BigGANExperiment(
        "cpu",
        model=BigGANConfig(
            latent_dim=64,
            embedding_dim=32,
            generator_channels=(64, 64, 32, 16),
            discriminator_channels=(16, 32, 64, 64),
            halvings=3,
            discriminator_steps=2,
            norm_momentum=0.02,
            flip=True,
        ),
        optimizer=Adversaries(ema_decay=0.98, generator=Adam(4e-4, beta1=0.0), discriminator=Adam(4e-4, beta1=0.0)),
        training=TrainingConfig(steps=1_300, batch_size=64),
    ),
    # Half the published width for 20 minutes on one data-centre GPU; not measured.
    "budget": BigGANExperiment(
        "budget",
        model=BigGANConfig(
            generator_channels=(128, 128, 128, 128),
            discriminator_channels=(128, 128, 128, 128),
            discriminator_steps=2,
            norm_momentum=0.001,
            flip=True,
        ),
        optimizer=Adversaries(ema_decay=0.999, generator=Adam(2e-4, beta1=0.0), discriminator=Adam(2e-4, beta1=0.0)),
        training=TrainingConfig(steps=1_000_000, batch_size=128, budget_seconds=1200.0),
    ),
    # arXiv 1809.11096 and the authors' PyTorch script for CIFAR-10: 500 epochs, four discriminator updates of 50
    # images each. Table 2 reports IS 9.22 and FID 14.73, given the classes.
    "paper": BigGANExperiment(
        "paper",
        model=BigGANConfig(norm_momentum=0.0001),
        training=TrainingConfig(steps=125_000, batch_size=200),
    ),
}
PRESETS["long"] = hour_of(PRESETS["cpu"])
