"""DDPM (Ho, Jain and Abbeel, arXiv 2006.11239): a network that predicts the noise of an image at each of many levels.

x_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps, and the loss is the squared error of eps (their Eq. 14). The sampler
visits all levels, or every n-th as the sampler of a schedule with only those levels' abar (arXiv 2102.09672, section
4); with `eta` 0 it is the deterministic one of arXiv 2010.02502.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import mse_loss

from jlebm.backbones.protocol import Backbone
from jlebm.errors import UserError
from jlebm.images import clipped
from jlebm.learning.trainable import TrainingConfig
from jlebm.randomness import Noise
from reproduce.systems.system import Adam, BaselineExperiment, OneNetwork, System, flipped, hour_of
from reproduce.systems.turns import Turn, integers
from reproduce.systems.unet import UNet, UNetConfig


@dataclass(frozen=True)
class DDPMConfig(UNetConfig):
    """Network, schedule and sampler; the defaults are the paper's CIFAR-10 run."""

    timesteps: int = 1_000
    beta_first: float = 1e-4
    beta_last: float = 0.02
    flip: bool = True
    """Whether training images are mirrored at random."""
    sampler_steps: int = 1_000
    """Levels that the sampler visits, evenly spaced."""
    eta: float = 1.0
    """Scale of the sampler's noise: 1 as in the paper, 0 for a deterministic sampler."""
    variance: Literal["small", "large"] = "large"
    """Variance of a step: that of q(x_s|x_t, x), or 1 - abar_t / abar_s, which gave the paper's numbers."""

    def __post_init__(self) -> None:
        """Refuse schedules that do not exist."""
        super().__post_init__()
        if not 0 < self.beta_first <= self.beta_last < 1:
            raise UserError("model.beta_first and model.beta_last must rise within (0, 1)")
        if not 1 <= self.sampler_steps <= self.timesteps:
            raise UserError(f"model.sampler_steps must lie in 1 .. {self.timesteps}, not be {self.sampler_steps}")
        if not 0 <= self.eta <= 1:
            raise UserError(f"model.eta must lie in [0, 1], not be {self.eta}")


class Step(NamedTuple):
    """One step of the sampler, from level t to the level s before it."""

    level: int
    """t, the network's input."""
    abar: float
    before: float
    """abar of s; 1 where s is the image itself."""

    @property
    def posterior_variance(self) -> float:
        """The variance of q(x_s|x_t, x): (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s), their Eq. 7."""
        return (1 - self.before) / (1 - self.abar) * self.marginal_variance

    @property
    def marginal_variance(self) -> float:
        """The variance of q(x_t|x_s): beta_t if no level lies between."""
        return 1 - self.abar / self.before


def abars(config: DDPMConfig) -> Float[Tensor, " timesteps"]:
    """Return the products of 1 - beta up to each level, for betas that rise linearly, in float64."""
    betas = torch.linspace(config.beta_first, config.beta_last, config.timesteps, dtype=torch.float64)
    return (1 - betas).cumprod(0)


def steps(config: DDPMConfig) -> list[Step]:
    """Return the sampler's steps in their order, from the noisiest level down to the image."""
    count, last = config.sampler_steps, config.timesteps - 1
    levels = [last] if count == 1 else [round(index * last / (count - 1)) for index in range(count)]
    kept = abars(config)[levels].tolist()
    found = [Step(*each) for each in zip(levels, kept, [1.0, *kept[:-1]], strict=True)]
    return found[::-1]


class DDPM(System):
    """The network, the only part that learns."""

    def __init__(self, config: DDPMConfig):
        super().__init__()
        self.config = config
        self.network = UNet(config)
        self.register_buffer("abars", abars(config).float(), persistent=False)

    def turns(
        self,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[Turn]:
        """Yield the update of the network: the squared error of its noise at random levels."""
        if self.config.flip:
            x = flipped(x, noise)
        level = integers(noise, self.config.timesteps, x)
        (eps,) = noise((x,))
        abar = self.get_buffer("abars")[level, None, None, None]
        loss = mse_loss(self.network(abar.sqrt() * x + (1 - abar).sqrt() * eps, level), eps)
        yield Turn("network", loss, {"loss": loss})

    def draw(self, count: int, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Return images denoised from N(0, I), the estimate of x clipped to [-1, 1] at each step as in the paper."""
        config = self.config
        (x,) = noise((self.empty(count, *config.image_shape),))
        for one in steps(config):
            level = torch.full((count,), one.level, device=x.device)
            guess = (x - (1 - one.abar) ** 0.5 * self.network(x, level)) / one.abar**0.5
            guess = clipped(guess)
            eps = (x - one.abar**0.5 * guess) / (1 - one.abar) ** 0.5
            drawn = config.eta**2 * one.posterior_variance
            # With eta = 1 this is the mean of q(x_s|x_t, x) at the estimate.
            x = one.before**0.5 * guess + (1 - one.before - drawn) ** 0.5 * eps
            if drawn > 0:
                variance = drawn if config.variance == "small" else config.eta**2 * one.marginal_variance
                x = x + variance**0.5 * noise((x,))[0]
        return x


@dataclass(frozen=True)
class DDPMExperiment(BaselineExperiment):
    """Configuration of DDPM; the defaults, except the length, are the paper's CIFAR-10 run."""

    learning: Literal["ddpm"] = "ddpm"
    model: DDPMConfig = field(default_factory=DDPMConfig)
    optimizer: OneNetwork = field(default_factory=OneNetwork)

    def build(self, backbone: Backbone | None = None) -> DDPM:
        """See `BaselineExperiment`."""
        return DDPM(self.model)

    def describe_sampling(self) -> str:
        """See `BaselineExperiment`."""
        model = self.model
        return f"{model.sampler_steps} of {model.timesteps} levels, eta {model.eta:g}, {model.variance} variance"


# ---- presets

PRESETS = {
    # Patches of 2 x 2 pixels make the small sizes four times as fast.
    "tiny": DDPMExperiment(
        "tiny",
        model=DDPMConfig(
            channels=(8, 16), layers=1, attention=(), norm_groups=4, patch=2, sampler_steps=8, variance="small"
        ),
        optimizer=OneNetwork(ema_decay=0.9, network=Adam(2e-3)),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core; with few levels, sampling without noise is best (arXiv 2010.02502).
    "cpu": DDPMExperiment(
        "cpu",
        model=DDPMConfig(
            channels=(32, 64),
            layers=1,
            attention=(),
            norm_groups=8,
            patch=2,
            sampler_steps=15,
            eta=0.0,
            variance="small",
        ),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.995, network=Adam(1e-3, warmup=50)),
        training=TrainingConfig(steps=1_000, batch_size=64, budget_seconds=None),
    ),
    # Half the paper's width for 20 minutes on one data-centre GPU; not measured.
    "budget": DDPMExperiment(
        "budget",
        model=DDPMConfig(channels=(64, 128, 128, 128), sampler_steps=100, variance="small"),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.999, network=Adam(warmup=500)),
        training=TrainingConfig(steps=1_000_000, batch_size=128, budget_seconds=1200.0),
    ),
    # arXiv 2006.11239, appendix B: 35.7 M parameters, 800,000 steps on a TPU v3-8; the paper reports FID 3.17.
    "paper": DDPMExperiment(
        "paper",
        model=DDPMConfig(dropout=0.1),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.9999, network=Adam(warmup=5_000)),
        training=TrainingConfig(steps=800_000, batch_size=128),
    ),
}
PRESETS["long"] = hour_of(PRESETS["cpu"])
