"""Presets of the ladder by kind of image; datasets with similar images share them.

`tiny` is half a minute of training on one CPU core for model and twin: a first look, and what CI runs. `cpu` is about
five minutes of one core for the model and half of that for its twin. `long`, of grey images, is half an hour for a
deeper model, whose scores above k have five layers to choose from. `budget` is about 20 minutes for both on an A100,
with convolutions in TF32: an estimate from counted operations (docs/gpu); not measured.
"""

import dataclasses
from dataclasses import dataclass, field

from jlebm.backbones.ladder import LadderConfig
from jlebm.experiment import Experiment, OptimizerConfig
from jlebm.langevin import Chain
from jlebm.learning.trainable import TrainingConfig
from reproduce.presets.extents import FIRST_LOOK, SOURCES, WHOLE, Extent, Size

COLOUR_SIGMA = 0.15  # sigma of p(x|z); with 0.3, colour images use the upper layers only
COLOUR_LR = (
    3e-5  # rate of the energies; at 1e-4, the rate for grey images, the top one diverged from update 800 (CIFAR-10)
)
# Chain of the prior, in training and afterwards. With a step of 0.02 the top layer's energy diverged (MNIST).
CHAIN = Chain(20, 0.1, start="ancestral", space="noise")
# p0's conditionals follow only the posterior half of their gradient. With the prior half as well, energies and
# conditionals diverged: on CIFAR-10 at update 791 with an energy rate of 3e-5, where without it the energies' means
# stay within 4 nats of each other for all 1,200 updates; on MNIST from update 850 at 1e-4 and from 1,600 at 3e-5.
CONDITIONAL = "posterior"
ENERGY_L2 = 3e-3
ADAM = OptimizerConfig(generator_lr=1e-3, energy_lr=1e-4, energy_l2=ENERGY_L2, ema_decay=0.995)


@dataclass(frozen=True)
class LadderPreset(Size):
    """One size of the ladder: what is trained, once with the EBM prior and once without, and how it is measured."""

    experiment: Experiment
    """Configuration with the EBM prior; `twin_of` gives the twin's."""
    judged: tuple[str, ...] = field(default=(), kw_only=True)
    """Sources whose images go through Inception: none for grey images."""
    extent: Extent = WHOLE
    """How much is drawn for the figures."""


@dataclass(frozen=True)
class Updates:
    """Length of a variational training."""

    steps: int
    batch_size: int
    warmup: int
    """Updates over which the weight of the KL rises to its full value."""


def ladder(
    dataset: str,
    preset: str,
    model: LadderConfig,
    length: Updates,
    optimizer: OptimizerConfig = ADAM,
    energy_units: int = 200,
) -> Experiment:
    """Return the experiment with an EBM prior; each layer's energy has two hidden layers of `energy_units`."""
    return Experiment(
        f"{dataset}-ladder/1",
        preset,
        dataset,
        learning="variational",
        model=model,
        energy_hidden=((energy_units, energy_units),) * len(model.latent_dims),
        prior_chain=CHAIN,
        optimizer=optimizer,
        training=TrainingConfig(length.steps, length.batch_size),
        kl_warmup=length.warmup,
        conditional_gradient=CONDITIONAL,
    )


def twin_of(experiment: Experiment) -> Experiment:
    """Return the configuration of the twin: the same training with a Gaussian prior."""
    without = {"energy_hidden": (), "energy": None, "conditional_gradient": "exact"}
    return dataclasses.replace(experiment, learning="gaussian", **without)


def grey28(dataset: str) -> dict[str, LadderPreset]:
    """Return the presets for 28x28 grey images: layers of 8, 16 and 32 latents, five at `long`, without Inception."""
    large = LadderConfig(channels=(256, 128, 64), conditional_hidden=(256, 256), features=512)
    deep = LadderConfig(latent_dims=(8, 8, 16, 16, 32))
    # With uncorrected chains and a rate of 1e-4 the energies of five layers diverged at update 1,081 (Fashion-MNIST).
    slowing = dataclasses.replace(ADAM, energy_lr=3e-5, schedule="cosine")
    long = ladder(dataset, "long", deep, Updates(6_000, 64, warmup=1_500), slowing)
    corrected = dataclasses.replace(CHAIN, metropolis=True, discretisation="crank-nicolson")
    return {
        "tiny": _tiny(dataset, LadderConfig((1, 28, 28), (4, 8, 16), (24, 16, 8), (64, 64), features=128)),
        "cpu": LadderPreset(ladder(dataset, "cpu", LadderConfig(), Updates(1_200, 64, warmup=300)), images=2_000),
        "long": LadderPreset(dataclasses.replace(long, prior_chain=corrected), images=2_000),
        "budget": LadderPreset(_budget(dataset, large, 128), images=10_000),
    }


def colour32(dataset: str, reference_images: int = 10_000) -> dict[str, LadderPreset]:
    """Return the presets for 32x32 colour images: layers of 16, 32 and 64 latents.

    Args:
        dataset: its name.
        reference_images: training images that `cpu` compares its samples with.
    """
    sizes = ((24, 16, 8), (96, 48, 24), (512, 256, 128))
    return _colour(dataset, 32, ((8, 16, 32), (16, 32, 64)), sizes, (64, 128), reference_images)


def colour64(dataset: str, reference_images: int) -> dict[str, LadderPreset]:
    """Return the presets for 64x64 colour images: four layers of 16 to 64 latents; figures join the upper two.

    Args:
        dataset: its name.
        reference_images: training images that `cpu` compares its samples with.
    """
    sizes = ((24, 16, 8, 8), (96, 64, 32, 16), (512, 256, 128, 64))
    return _colour(dataset, 64, ((8, 8, 16, 32), (16, 24, 32, 64)), sizes, (32, 64), reference_images)


def _colour(
    dataset: str,
    side: int,
    dims: tuple[tuple[int, ...], tuple[int, ...]],
    channels: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    batch_sizes: tuple[int, int],
    reference_images: int,
) -> dict[str, LadderPreset]:
    """Return presets for colour images; `dims` are those of `tiny` and of the others, `channels` those of all three."""
    fewer, full = dims
    shape, sigma = (3, side, side), COLOUR_SIGMA
    small = LadderConfig(shape, fewer, channels[0], (64, 64), features=128, likelihood_sigma=sigma)
    middle = LadderConfig(shape, full, channels[1], likelihood_sigma=sigma)
    large = LadderConfig(shape, full, channels[2], (256, 256), features=512, likelihood_sigma=sigma)
    return {
        "tiny": _tiny(dataset, small),
        "cpu": LadderPreset(
            ladder(dataset, "cpu", middle, Updates(1_200, batch_sizes[0], warmup=300), _adam(COLOUR_LR)),
            images=1_000,
            reference_images=reference_images,
            judged=SOURCES,
        ),
        "budget": LadderPreset(_budget(dataset, large, batch_sizes[1]), images=10_000, judged=SOURCES),
    }


def _adam(energy_lr: float) -> OptimizerConfig:
    return dataclasses.replace(ADAM, energy_lr=energy_lr)


def _budget(dataset: str, model: LadderConfig, batch_size: int) -> Experiment:
    """Return the long training, with the energy rate of the sibling's code (docs/facts, "Variational learning")."""
    in_tf32 = dataclasses.replace(model, precision="tf32")
    return ladder(dataset, "budget", in_tf32, Updates(30_000, batch_size, warmup=6_000), _adam(2e-6))


def _tiny(dataset: str, model: LadderConfig) -> LadderPreset:
    # So few updates need a weaker penalty and a shorter average than `ADAM` has.
    optimizer = dataclasses.replace(ADAM, energy_l2=1e-3, ema_decay=0.98)
    experiment = ladder(dataset, "tiny", model, Updates(200, 32, warmup=60), optimizer, energy_units=64)
    return LadderPreset(experiment, images=400, kept=False, extent=FIRST_LOOK)
