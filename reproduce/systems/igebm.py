"""IGEBM (Du and Mordatch, arXiv 1903.08689): an energy of pixels, sampled by chains from a replay buffer."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor

from jlebm.backbones.protocol import Backbone
from jlebm.learning.trainable import TrainingConfig
from jlebm.randomness import Noise
from reproduce.systems.pixel_energy import BufferedEnergy, PixelEnergyConfig
from reproduce.systems.system import Adam, BaselineExperiment, OneNetwork, hour_of
from reproduce.systems.turns import Turn


@dataclass(frozen=True)
class IGEBMConfig(PixelEnergyConfig):
    """The defaults are the public CIFAR-10 chains converted to images in [-1, 1] (docs/facts, "Other systems").

    There, images are in [0, 1], a step is 10 times the gradient, which is clipped to 0.01, and its noise is 0.005: the
    same move of an image is twice as long here, and its gradient half as large.
    """

    energy_l2: float = 1.0
    """Weight of the squared energies in the loss."""


class IGEBM(BufferedEnergy):
    """The energy and its buffer."""

    config: IGEBMConfig

    def turns(
        self,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[Turn]:
        """Yield the update of the energy: lower at data, higher at the chains' ends, all near zero."""
        samples = self.chain(self.starts(x, noise), self.config.chain_steps, noise)
        self.keep(samples)
        loss, energies = self.contrast(x, samples, self.config.energy_l2)
        yield Turn("network", loss, {"loss": loss, **energies})


@dataclass(frozen=True)
class IGEBMExperiment(BaselineExperiment):
    """Configuration of IGEBM."""

    learning: Literal["igebm"] = "igebm"
    model: IGEBMConfig = field(default_factory=IGEBMConfig)
    optimizer: OneNetwork = field(default_factory=lambda: OneNetwork(network=Adam(1e-4, beta1=0.0)))

    def build(self, backbone: Backbone | None = None) -> IGEBM:
        """See `BaselineExperiment`."""
        return IGEBM(self.model)

    def describe_sampling(self) -> str:
        """See `BaselineExperiment`."""
        return f"{self.model.sampling_steps} steps of size {self.model.step_size:g} from the {self.model.sampled_from}"


# ---- presets

PRESETS = {
    "tiny": IGEBMExperiment(
        "tiny",
        model=IGEBMConfig(channels=(8, 16), stem=2, chain_steps=10, buffer=256, sampling_steps=10),
        optimizer=OneNetwork(ema_decay=0.9, network=Adam(1e-3, beta1=0.0)),
        training=TrainingConfig(steps=61, batch_size=16),
    ),
    # Five minutes on one CPU core, with chains of a third of the published length. The buffer is so small that each
    # place is overwritten twenty times; in a larger one most chains would still be close to their initial noise.
    "cpu": IGEBMExperiment(
        "cpu",
        model=IGEBMConfig(channels=(16, 32, 64), stem=2, chain_steps=20, buffer=2_000, sampling_steps=40),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.99, network=Adam(5e-4, beta1=0.0)),
        training=TrainingConfig(steps=1_300, batch_size=32),
    ),
    # 20 minutes on one data-centre GPU at half the published width; not measured.
    "budget": IGEBMExperiment(
        "budget",
        model=IGEBMConfig(channels=(64, 128, 128)),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.999, network=Adam(1e-4, beta1=0.0)),
        training=TrainingConfig(steps=1_000_000, batch_size=128, budget_seconds=1200.0),
    ),
    # arXiv 1903.08689: 60 steps, 5 % restarts, Adam 1e-4; the paper reports IS 6.78 and FID 38.2 for ten models
    # together; this is one. Its number of updates is chosen here.
    "paper": IGEBMExperiment(
        "paper",
        training=TrainingConfig(steps=60_000, batch_size=128),
    ),
}
PRESETS["long"] = hour_of(PRESETS["cpu"], replace(PRESETS["cpu"].model, buffer=10_000))
