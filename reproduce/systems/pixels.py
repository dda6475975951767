"""Independent pixels at four sizes that differ in their length alone; means and spreads stand after a second or two."""

from jlebm.baselines.base import Adam, OneNetwork
from jlebm.baselines.pixels import PixelsExperiment
from jlebm.experiment import TrainingConfig
from reproduce.systems import DATASET, PROTOCOL


def _preset(name: str, steps: int, batch_size: int, ema_decay: float, budget_seconds: float | None) -> PixelsExperiment:
    return PixelsExperiment(
        PROTOCOL,
        name,
        DATASET,
        optimizer=OneNetwork(ema_decay=ema_decay, network=Adam(0.02)),
        training=TrainingConfig(steps=steps, batch_size=batch_size, budget_seconds=budget_seconds),
    )


PRESETS = {
    "tiny": _preset("tiny", 101, 16, 0.9, None),
    "cpu": _preset("cpu", 2_000, 64, 0.99, None),
    "budget": _preset("budget", 5_000, 64, 0.99, 1200.0),
    "paper": _preset("paper", 5_000, 64, 0.99, None),  # of none: every paper's images should be nearer than these
}
