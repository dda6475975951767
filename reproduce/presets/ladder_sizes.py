"""The presets of the ladder by the kind of image; datasets whose images are alike share them.

`tiny` is half a minute of training on one CPU core for model and twin: a first look, and what CI runs. `cpu` is about
five minutes of one core for the model and half of that for its twin. `budget` is for one data-centre GPU, an estimate
that has not been measured: half an hour for both.
"""

import dataclasses
from dataclasses import dataclass

from jlebm.backbones.ladder import LadderConfig
from jlebm.experiment import Experiment, OptimizerConfig
from jlebm.langevin import Chain
from jlebm.learning.trainable import TrainingConfig
from reproduce.presets.extents import FIRST_LOOK, SOURCES, WHOLE, Extent

COLOUR_SIGMA = 0.15  # of p(x|z): with 0.3 colour images need no more than the upper layers
COLOUR_LR = 3e-5  # of the energies: at 1e-4, grey images' rate, the top one ran apart from update 800 on (CIFAR-10)
# Of the prior, in training and after it. With a step of 0.02 the top layer's energy ran away (MNIST).
CHAIN = Chain(20, 0.1, start="ancestral", space="noise")
# p0's conditionals follow the posterior's half of their gradient alone. With the prior's half too the energies and the
# conditionals ran apart: CIFAR-10's ended at update 791 at a rate of 3e-5 for the energies, where this way their means
# stay within 4 nats of each other for all 1,200; MNIST's went from update 850 on at 1e-4 and from 1,600 on at 3e-5.
CONDITIONAL = "posterior"
ENERGY_LR = 1e-4
ENERGY_L2 = 3e-3


@dataclass(frozen=True)
class LadderPreset:
    """One size of the recipe: what is trained, twice, and how many images it is measured on."""

    experiment: Experiment
    """Of the model with the EBM prior; the twin's is `twin_of` it."""
    images: int
    """Sampled from each prior."""
    reference_images: int | None = None
    """Training images that the samples are held against; None for all."""
    judged: tuple[str, ...] = ()
    """The sources whose images go through Inception: of colour alone."""
    extent: Extent = WHOLE
    """Of the figures."""


def ladder(
    dataset: str,
    preset: str,
    model: LadderConfig,
    training: TrainingConfig,
    kl_warmup: int,
    energy_units: int = 200,
    generator_lr: float = 1e-3,
    energy_lr: float = ENERGY_LR,
    energy_l2: float = ENERGY_L2,
    ema_decay: float | None = 0.995,
) -> Experiment:
    """Put the experiment of a model with an EBM prior together; energies have two hidden layers each."""
    return Experiment(
        f"{dataset}-ladder/1",
        preset,
        dataset,
        learning="variational",
        model=model,
        energy_hidden=((energy_units, energy_units),) * len(model.latent_dims),
        prior_chain=CHAIN,
        optimizer=OptimizerConfig(generator_lr, energy_lr, energy_l2=energy_l2, ema_decay=ema_decay),
        training=training,
        kl_warmup=kl_warmup,
        conditional_gradient=CONDITIONAL,
    )


def twin_of(experiment: Experiment) -> Experiment:
    """Return the same training without energies."""
    without = {"energy_hidden": (), "energy": None, "conditional_gradient": "exact"}
    return dataclasses.replace(experiment, learning="gaussian", **without)


def grey28(dataset: str) -> dict[str, LadderPreset]:
    """Return the presets of 28x28 grey images, which no Inception judges: three layers of 8, 16 and 32 latents."""
    large = LadderConfig(channels=(256, 128, 64), conditional_hidden=(256, 256), features=512)
    return {
        "tiny": _tiny(dataset, LadderConfig((1, 28, 28), (4, 8, 16), (24, 16, 8), (64, 64), features=128)),
        "cpu": LadderPreset(
            ladder(dataset, "cpu", LadderConfig(), TrainingConfig(1_200, 64), kl_warmup=300), images=2_000
        ),
        "budget": LadderPreset(_budget(dataset, large, 128), images=10_000),
    }


def colour32(dataset: str, reference_images: int = 10_000) -> dict[str, LadderPreset]:
    """Return the presets of 32x32 images: three layers of 16, 32 and 64 latents.

    Args:
        dataset: its name.
        reference_images: training images that `cpu` holds its samples against.
    """
    sizes = ((24, 16, 8), (96, 48, 24), (512, 256, 128))
    return _colour(dataset, 32, ((8, 16, 32), (16, 32, 64)), sizes, (64, 128), reference_images)


def colour64(dataset: str, reference_images: int) -> dict[str, LadderPreset]:
    """Return the presets of 64x64 images: four layers of 16 to 64 latents, the upper two of which figures join.

    Args:
        dataset: its name.
        reference_images: training images that `cpu` holds its samples against.
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
    """Return presets of colour images from the latents of `tiny` and of the others, and the channels of all three."""
    fewer, full = dims
    shape, sigma = (3, side, side), COLOUR_SIGMA
    small = LadderConfig(shape, fewer, channels[0], (64, 64), features=128, likelihood_sigma=sigma)
    middle = LadderConfig(shape, full, channels[1], likelihood_sigma=sigma)
    large = LadderConfig(shape, full, channels[2], (256, 256), features=512, likelihood_sigma=sigma)
    return {
        "tiny": _tiny(dataset, small),
        "cpu": LadderPreset(
            ladder(
                dataset,
                "cpu",
                middle,
                TrainingConfig(1_200, batch_sizes[0]),
                kl_warmup=300,
                energy_lr=COLOUR_LR,
            ),
            images=1_000,
            reference_images=reference_images,
            judged=SOURCES,
        ),
        "budget": LadderPreset(_budget(dataset, large, batch_sizes[1]), images=10_000, judged=SOURCES),
    }


def _budget(dataset: str, model: LadderConfig, batch_size: int) -> Experiment:
    """Return the long training, with the energies' rate of the sibling's code (docs/facts, "Variational learning")."""
    training = TrainingConfig(30_000, batch_size)
    return ladder(dataset, "budget", model, training, kl_warmup=6_000, energy_lr=2e-6)


def _tiny(dataset: str, model: LadderConfig) -> LadderPreset:
    # So few updates take a lighter hold than `ladder` has.
    experiment = ladder(
        dataset,
        "tiny",
        model,
        TrainingConfig(200, 32),
        kl_warmup=60,
        energy_units=64,
        energy_l2=1e-3,
        ema_decay=0.98,
    )
    return LadderPreset(experiment, images=400, extent=FIRST_LOOK)
