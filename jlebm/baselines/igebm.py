"""IGEBM (Du and Mordatch, arXiv 1903.08689): an energy of pixels, its samples chains that go on in a replay buffer."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor

from jlebm.backbones.base import Backbone
from jlebm.baselines.base import Adam, BaselineExperiment, OneNetwork, Turn
from jlebm.baselines.pixel_energy import BufferedEnergy, PixelEnergyConfig
from jlebm.randomness import Noise


@dataclass(frozen=True)
class IGEBMConfig(PixelEnergyConfig):
    """The defaults are the public CIFAR-10 chains (facts, section 4), converted to images in [-1, 1].

    There, images are in [0, 1], a step is 10 times the gradient, which is clipped to 0.01, and its noise is 0.005: the
    same move of an image is twice as long here, and its gradient half as large.
    """

    energy_l2: float = 1.0
    """Weight of the squared energies in the loss."""


class IGEBM(BufferedEnergy):
    """The energy and the buffer."""

    config: IGEBMConfig

    def turns(
        self,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[Turn]:
        """Yield the one move: energies of data down, those of the chains' ends up, all of them near zero."""
        samples = self.chain(self.starts(x, noise), self.config.chain_steps, noise)
        self.keep(samples)
        data, made = self.network(x), self.network(samples)
        loss = (data - made).mean() + self.config.energy_l2 * (data.square() + made.square()).mean()
        figures = {"loss": loss, "energy_data": data.mean(), "energy_samples": made.mean()}
        yield Turn("network", loss, {name: value.detach() for name, value in figures.items()})


@dataclass(frozen=True)
class IGEBMExperiment(BaselineExperiment):
    """A row of IGEBM."""

    learning: Literal["igebm"] = "igebm"
    model: IGEBMConfig = field(default_factory=IGEBMConfig)
    optimizer: OneNetwork = field(default_factory=lambda: OneNetwork(network=Adam(1e-4, beta1=0.0)))

    def build(self, backbone: Backbone | None = None) -> IGEBM:
        """See `BaselineExperiment`."""
        return IGEBM(self.model)

    def describe_sampling(self) -> str:
        """See `BaselineExperiment`."""
        return f"{self.model.sampling_steps} steps of size {self.model.step_size:g} from the {self.model.sampled_from}"
