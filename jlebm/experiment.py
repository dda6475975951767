"""The frozen configuration of a model that is trained together with its prior."""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch.optim.lr_scheduler import LambdaLR

from jlebm.backbones.conv import ConvConfig
from jlebm.backbones.kinds import BackboneConfig, backbone_of
from jlebm.backbones.protocol import Backbone
from jlebm.energies import EnergyConfig, VectorEnergy, no_energy
from jlebm.errors import UserError, nearest
from jlebm.langevin import Chain
from jlebm.learning.gaussian import Gaussian
from jlebm.learning.joint_mle import JointMLE
from jlebm.learning.trainable import Optimisation, Trainable, TrainingConfig, check_adam, check_decay
from jlebm.learning.variational import Variational
from jlebm.model import JointModel
from jlebm.objectives import ConditionalGradient

LearningName = Literal["joint-mle", "variational", "gaussian"]
LEAST_RATE = 0.01  # share of the first rate that is left at the end of a cosine
SCHEMES: dict[str, type[JointMLE] | type[Variational] | type[Gaussian]] = {
    "joint-mle": JointMLE,
    "variational": Variational,
    "gaussian": Gaussian,
}
"""The scheme of each learning, which reads and checks its own settings."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam for all networks, with one rate for the energies and one for everything else."""

    generator_lr: float = 1e-4
    energy_lr: float = 2e-5
    beta1: float = 0.9
    beta2: float = 0.999
    energy_l2: float = 0.0
    """Weight of the squared energies in the loss; the paper's is 0."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of all weights; None, as in the paper, for no average."""
    largest_gradient: float | None = field(default=None, metadata={"since": "0.2"})
    """Largest norm of the gradient, to which longer ones are clipped; None, as in the paper, for no limit."""
    lr_warmup: int = field(default=0, metadata={"since": "0.2", "least": 0})
    """Updates over which both rates rise linearly; an inference network without a clamp needs some, since its first
    gradients are those of pixels that it explains badly."""
    schedule: Literal["constant", "cosine"] = field(default="constant", metadata={"since": "0.2"})
    """The rates after the warm-up: constant, or a half cosine that ends at a hundredth of them."""

    def __post_init__(self) -> None:
        """Refuse rates that could not learn."""
        if not (self.generator_lr > 0 and self.energy_lr > 0):
            raise UserError("the learning rates must be positive")
        check_adam(self.beta1, self.beta2, self.energy_l2)
        check_decay(self.ema_decay)
        if self.largest_gradient is not None and not self.largest_gradient > 0:
            raise UserError(f"optimizer.largest_gradient must be positive or null, not {self.largest_gradient}")


@dataclass(frozen=True)
class Experiment(Trainable):
    """Configuration of a joint training; the defaults are the paper's CIFAR-10 run.

    Source: docs/facts, "Training settings".
    """

    learning: LearningName = "joint-mle"
    model: BackboneConfig = field(default_factory=ConvConfig)
    energy_hidden: tuple[tuple[int, ...], ...] = ((100, 100), (200, 200, 200))
    """Hidden units of each layer's energy, top first, () for a layer without one; empty if the prior is Gaussian or
    `energy` is set."""
    prior_chain: Chain = field(default_factory=lambda: Chain.from_joint_paper(60, 0.4))
    posterior_chain: Chain = field(default_factory=lambda: Chain.from_joint_paper(40, 0.1))
    """Chain of p(z|x) for joint maximum likelihood alone; present in all, so that schemes differ in `learning` only."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    kl_warmup: int = field(default=0, metadata={"since": "0.2", "least": 0})
    """Updates over which the weight of KL(q(z|x) | p(z)) rises to its full value; 0 for the full weight at once."""
    kl_weight: float = field(default=1.0, metadata={"since": "0.2"})
    """Full weight of the KL; 1 is the ELBO. The sibling paper's code uses 0.1, by weighting the reconstruction tenfold
    (docs/facts, "Variational learning")."""
    conditional_gradient: ConditionalGradient = field(default="exact", metadata={"since": "0.2"})
    """Gradient of the conditionals in variational learning; see `objectives.ConditionalGradient`."""
    energy: EnergyConfig | None = field(default=None, metadata={"since": "0.2"})
    """Energy networks of another kind than the perceptrons of `energy_hidden`, which is then empty."""
    free_bits: tuple[float, ...] = field(default=(), metadata={"since": "0.2"})
    """For Gaussian learning: nats of each layer's KL, top first, below which its mean over the batch is not reduced, so
    that the upper layers are used (Kingma et al., 2016, arXiv 1606.04934); empty for none."""

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
        if self.learning not in SCHEMES:
            raise UserError(f"unknown learning {self.learning!r}{nearest(self.learning, SCHEMES)}")
        if self.energy is not None and self.energy_hidden and SCHEMES[self.learning].has_energies:
            raise UserError("energy and energy_hidden name two energies; set energy_hidden to [], or energy to null")
        shapes = self.model.latent_shapes
        if self.energy is not None:
            self.energy.check_on(self.model)
        elif SCHEMES[self.learning].needs_energies or (SCHEMES[self.learning].has_energies and self.energy_hidden):
            if len(self.energy_hidden) != len(shapes):
                names = f"energy_hidden names {len(self.energy_hidden)} layers"
                raise UserError(f"{names}, model.latent_dims {len(shapes)}")
            VectorEnergy(self.energy_hidden).check(shapes)
        if not self.kl_weight > 0:
            raise UserError(f"kl_weight must be positive, and 1 for joint-mle, which has no KL, not {self.kl_weight}")
        if self.kl_warmup < 0:
            raise UserError(
                f"kl_warmup must be a number of updates, 0 for joint-mle, which has no KL, not {self.kl_warmup}"
            )
        self.scheme()  # refuses what its learning does not have

    def build(self, backbone: Backbone | None = None) -> JointModel:
        """See `Trainable`; the model builds its own backbone."""
        own = backbone_of(self.model)
        if not self.has_energies:
            return JointModel(own, no_energy(len(own.latent_shapes)))
        energy = self.energy or VectorEnergy(self.energy_hidden)
        return JointModel(own, energy.build_on(own))

    @property
    def has_energies(self) -> bool:
        """Whether a layer has an energy; without any the prior is the Gaussian hierarchy."""
        return self.energy is not None or bool(self.energy_hidden)

    def prior_sampling_chain(self) -> Chain:
        """See `Trainable`: the prior's chain of training."""
        return self.prior_chain

    def posterior_sampling_chain(self) -> Chain | None:
        """See `Trainable`; the scheme knows whether it has an inference network."""
        return self.scheme().posterior_sampling_chain()

    def scheme(self) -> JointMLE | Variational | Gaussian:
        """See `Trainable`."""
        return SCHEMES[self.learning].of(self)

    def optimisation(self, model: JointModel) -> Optimisation:
        """See `Trainable`: Adam, with one rate for the energies and one for everything else."""
        config = self.optimizer
        energy = list(model.energy.parameters())
        rest = [parameter for name, parameter in model.named_parameters() if not name.startswith("energy.")]
        groups = [{"params": rest, "lr": config.generator_lr}, {"params": energy, "lr": config.energy_lr}]
        optimizer = torch.optim.Adam(groups, betas=(config.beta1, config.beta2))
        schedule = None
        if config.lr_warmup or config.schedule != "constant":
            schedule = LambdaLR(optimizer, partial(_rate, config, self.training.steps))
        return Optimisation(optimizer, schedule, config.largest_gradient)


def _rate(config: OptimizerConfig, steps: int, step: int) -> float:
    """Return the factor of the rates at an update: the warm-up's times the schedule's."""
    risen = min(1.0, (step + 1) / (config.lr_warmup + 1))
    if config.schedule == "constant":
        return risen
    return risen * (LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2)
