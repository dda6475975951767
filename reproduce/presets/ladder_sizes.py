"""The presets of the ladder by the kind of image; datasets whose images are alike share them.

`tiny` is half a minute of training on one CPU core for model and twin: a first look, and what CI runs. `cpu` is about
five minutes of one core for the model and half of that for its twin. `budget` is for one data-centre GPU, an estimate
that has not been measured: half an hour for both.
"""

from jlebm.backbones.ladder import LadderConfig
from jlebm.experiment import Experiment, TrainingConfig
from reproduce.measuring.session import SOURCES
from reproduce.pipelines.ladder_and_twin import LadderPreset, ladder
from reproduce.pipelines.layer_panels import FIRST_LOOK

COLOUR_SIGMA = 0.15  # of p(x|z): with 0.3 colour images need no more than the upper layers
COLOUR_LR = 3e-5  # of the energies: at 1e-4, grey images' rate, the top one ran apart from update 800 on (CIFAR-10)


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
    """Return the long training, with the energies' rate of the sibling's code (facts, section 1.5)."""
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
