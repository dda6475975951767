"""PixelCNN at its four sizes."""

from jlebm.baselines.base import Adam, OneNetwork
from jlebm.baselines.pixelcnn import PixelCNNConfig, PixelCNNExperiment
from jlebm.experiment import TrainingConfig
from reproduce.systems import DATASET, PROTOCOL

PRESETS = {
    "tiny": PixelCNNExperiment(
        PROTOCOL,
        "tiny",
        DATASET,
        model=PixelCNNConfig(channels=8, layers=2, hidden=16, bits=4),
        optimizer=OneNetwork(ema_decay=0.9, network=Adam(3e-3)),
        training=TrainingConfig(steps=101, batch_size=8),
    ),
    # Five minutes on one CPU core, of colours of 6 bits.
    "cpu": PixelCNNExperiment(
        PROTOCOL,
        "cpu",
        DATASET,
        model=PixelCNNConfig(channels=32, layers=4, hidden=48, bits=6),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.99, network=Adam(2e-3, warmup=50)),
        training=TrainingConfig(steps=1_800, batch_size=16),
    ),
    # 20 minutes on one data-centre GPU; not measured.
    "budget": PixelCNNExperiment(
        PROTOCOL,
        "budget",
        DATASET,
        model=PixelCNNConfig(channels=96, layers=10, hidden=256),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.999, network=Adam(5e-4, warmup=500)),
        training=TrainingConfig(steps=1_000_000, batch_size=64, budget_seconds=1200.0),
    ),
    # arXiv 1601.06759: 15 layers of 128 channels, 7x7 and then 3x3, 256 levels. Its optimiser is RMSProp and its layers
    # are not gated; batch, rate and length are set here. The table's FID is 65.93.
    "paper": PixelCNNExperiment(
        PROTOCOL,
        "paper",
        DATASET,
        optimizer=OneNetwork(largest_gradient=1.0, network=Adam(3e-4)),
        training=TrainingConfig(steps=300_000, batch_size=16),
    ),
}
