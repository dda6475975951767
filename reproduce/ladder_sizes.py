"""The presets of the ladder by the kind of image; datasets whose images are alike share them."""

from jlebm.backbones.ladder import LadderConfig
from jlebm.experiment import TrainingConfig
from reproduce.hierarchical import FIRST_LOOK
from reproduce.ladder import LadderPreset, ladder


def grey28(dataset: str) -> dict[str, LadderPreset]:
    """Return the presets of 28x28 grey images, which no Inception judges: three layers of 8, 16 and 32 latents."""
    tiny = LadderConfig((1, 28, 28), (4, 8, 16), (24, 16, 8), (64, 64), 128, likelihood_sigma=0.2)
    full = LadderConfig(likelihood_sigma=0.2)
    large = LadderConfig(channels=(256, 128, 64), conditional_hidden=(256, 256), features=512, likelihood_sigma=0.2)
    return {
        # Half a minute of training on one CPU core for both: a first look, and what CI runs.
        "tiny": LadderPreset(
            ladder(dataset, "tiny", tiny, TrainingConfig(200, 32), kl_warmup=60, energy_units=64, ema_decay=0.98),
            images=400,
            extent=FIRST_LOOK,
        ),
        "cpu": LadderPreset(ladder(dataset, "cpu", full, TrainingConfig(4_000, 64), kl_warmup=1_000), images=5_000),
        "budget": LadderPreset(
            ladder(dataset, "budget", large, TrainingConfig(40_000, 128), kl_warmup=8_000), images=10_000
        ),
    }
