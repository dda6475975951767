"""The frozen configurations of the two-stage scheme: a backbone by the ELBO, then the energies upon it."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from jlebm.backbones.nvae.network import NVAE
from jlebm.backbones.nvae.nvae_config import NVAEConfig
from jlebm.backbones.nvae.regularisation import RegularisedNVAE
from jlebm.backbones.protocol import Backbone
from jlebm.config import Config
from jlebm.energies import conv_energy
from jlebm.errors import UserError
from jlebm.experiment import Experiment, TrainingConfig, check_adam, check_decay
from jlebm.langevin import Chain
from jlebm.model import JointModel
from reproduce.systems.system import BaselineExperiment


@dataclass(frozen=True)
class ELBOConfig:
    """The objective of stage one; the defaults are the published CIFAR-10 run's (arXiv 2007.03898)."""

    warmup_steps: int = 1
    """Updates over which the weight of the KL rises to 1."""
    least_weight: float = 1e-4
    """Its weight at the first update."""
    balanced: bool = True
    """Whether the groups' KLs are balanced during the warm-up."""
    spectral: float = 0.0
    """Weight of the convolutions' spectral norms and of the batch norms' scales, in nats an image."""
    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of the layers; densities and weights are float32 in both."""

    def __post_init__(self) -> None:
        """Refuse weights that could not be meant."""
        if not 0 < self.least_weight <= 1 or self.warmup_steps < 1 or not self.spectral >= 0:
            raise UserError(
                "elbo.least_weight must lie in (0, 1], elbo.warmup_steps be at least 1 and elbo.spectral not negative"
            )

    def kl_weight(self, step: int) -> float:
        """Return the weight of the KL at an update, linear in the step."""
        return min(1.0, max(self.least_weight, step / self.warmup_steps))


@dataclass(frozen=True)
class AdamaxConfig:
    """Adamax with a cosine schedule."""

    lr: float = 1e-2
    least_lr: float = 1e-4
    """The rate at the last step."""
    weight_decay: float = 3e-4
    largest_gradient: float | None = None
    """Norm to which a longer gradient is shortened; None for none."""
    ema_decay: float | None = 0.999

    def __post_init__(self) -> None:
        """Refuse rates that could not learn."""
        if not 0 < self.least_lr <= self.lr:
            raise UserError("the learning rates must be positive, optimizer.least_lr no larger than optimizer.lr")
        if not self.weight_decay >= 0:
            raise UserError(f"optimizer.weight_decay must not be negative, as {self.weight_decay} is")
        if self.largest_gradient is not None and not self.largest_gradient > 0:
            raise UserError(f"optimizer.largest_gradient must be positive or null, not {self.largest_gradient}")
        check_decay(self.ema_decay)


@dataclass(frozen=True)
class BackboneExperiment(Config):
    """Stage one: what the backbone is and how it learns."""

    protocol: str
    preset: str
    dataset: str
    model: NVAEConfig
    learning: Literal["backbone"] = "backbone"
    elbo: ELBOConfig = field(default_factory=ELBOConfig)
    optimizer: AdamaxConfig = field(default_factory=AdamaxConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def build(self) -> RegularisedNVAE:
        """Make the model, its weights drawn from torch's global generator."""
        return RegularisedNVAE(NVAE(self.model))


@dataclass(frozen=True)
class EnergyConfig:
    """One convolutional energy a group; the defaults are the published ones (facts, section 1.6)."""

    channels: int = 64
    units: int = 200

    def __post_init__(self) -> None:
        """Refuse a network of nothing."""
        if self.channels < 1 or self.units < 1:
            raise UserError("an energy needs at least one channel and one unit")


@dataclass(frozen=True)
class EnergyOptimizer:
    """Adam for the energies; the defaults are the published CIFAR-10 run's (facts, section 2.1)."""

    energy_lr: float = 1e-4
    beta1: float = 0.99
    beta2: float = 0.999
    weight_decay: float = 3e-5
    energy_l2: float = 0.0
    """Weight of the squared energies in the loss; the paper's is 0."""
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        """Refuse rates that could not learn."""
        if not self.energy_lr > 0:
            raise UserError("the learning rate must be positive")
        check_adam(self.beta1, self.beta2, self.energy_l2, self.weight_decay)
        check_decay(self.ema_decay)


@dataclass(frozen=True)
class TwoStageExperiment(Config):
    """Stage two: energies upon a backbone that is trained already; the defaults are the paper's CIFAR-10 run."""

    protocol: str
    preset: str
    dataset: str
    model: NVAEConfig
    backbone: str
    """What it is put upon: the digest and seed of a stage one, or the digest of a published checkpoint's weights."""
    learning: Literal["two-stage"] = "two-stage"
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    prior_chain: Chain = field(default_factory=lambda: Chain.from_two_stage_paper(20, 4e-5))
    """In training."""
    optimizer: EnergyOptimizer = field(default_factory=EnergyOptimizer)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=5_000, batch_size=64))

    def __post_init__(self) -> None:
        """Refuse a hierarchy that convolutional energies do not fit, before a backbone is trained for them."""
        side = self.model.top_side
        if side < 8 or side & (side - 1):
            raise UserError(
                f"the latents of the model are {side} pixels wide at the top; energies need 8, 16, 32, ...: "
                "choose other model.num_latent_scales or model.num_preprocess_blocks"
            )

    def build(self, backbone: Backbone) -> JointModel:
        """Put energies, their weights drawn from torch's global generator, upon a backbone."""
        return JointModel(backbone, conv_energy(backbone.latent_shapes, self.energy.channels, self.energy.units))


@dataclass(frozen=True)
class Sampler(Config):
    """How images are drawn from a trained model; the defaults are the paper's (facts, section 5)."""

    chain: Chain
    """Of the EBM prior, at test time."""
    temperature: float = 1.0
    """Multiplies every sigma of the hierarchy when noise becomes latents."""
    batch_norm: Literal["trained", "re-estimated"] = "trained"
    """Statistics of the decoder's batch norms: as training left them, or those of samples of the Gaussian prior."""
    decoding: Literal["mean", "sample"] = "mean"
    """The decoder's mean, or a draw from its distribution."""

    def __post_init__(self) -> None:
        """Refuse a temperature that is none, and one that the chain has no use for."""
        if not self.temperature >= 0:
            raise UserError(f"the temperature must not be negative, as {self.temperature} is")
        if self.temperature != 1 and self.chain.space == "latents":
            raise UserError(
                f"sampler.temperature {self.temperature:g} is of chains in whitened noise; set sampler.chain.space to "
                "'noise' or the temperature to 1"
            )

    def describe(self, chain: bool) -> str:
        """Say it in a few words, for a row of results: with its chain, or for the hierarchy alone."""
        parts = [self.chain.describe()] if chain else []
        if self.temperature != 1:
            parts.append(f"hierarchy at temperature {self.temperature:g}")
        if self.batch_norm != "trained":
            parts.append(f"batch norm {self.batch_norm}")
        return "; ".join([*parts, f"decoder's {self.decoding}"])


@dataclass(frozen=True)
class TwoStagePlan(Config):
    """A whole two-stage row: backbone, energies, sampling."""

    preset: str
    backbone: BackboneExperiment
    energies: TwoStageExperiment
    sampler: Sampler


@dataclass(frozen=True)
class Sampled(Config):
    """What the digest of a two-stage row is taken of: the energies, the backbone within them, and the sampling."""

    energies: TwoStageExperiment
    sampler: Sampler
    training_seed: int = field(default=1, metadata={"since": "0.2", "least": None})
    """Of the energies; the backbone's is in its name. Rows have the seed of their samples."""


AnyExperiment: TypeAlias = Experiment | BackboneExperiment | TwoStageExperiment | BaselineExperiment
