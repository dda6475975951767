"""Sizes of the ladder of priors: one generator and one training time for all priors.

A prior of two layers is x <- z1 <- z2 and one of one layer x <- z1, with the same generator p(x|z1). `cpu` gives each
ten minutes of one CPU core, however many updates that is, and `long` two hours; `tiny` is a first look of as many
updates for each.
"""

import dataclasses
from dataclasses import dataclass
from typing import cast

from jlebm.backbones.conv import ConvConfig
from jlebm.errors import UserError
from jlebm.experiment import Experiment, LearningName, OptimizerConfig
from jlebm.langevin import Chain
from jlebm.learning.trainable import TrainingConfig
from reproduce.presets.extents import Size
from reproduce.presets.ladder_sizes import CONDITIONAL
from reproduce.results.prior_lines import PriorLine

PROTOCOL = "priors/1"
DATASET = "cifar10"
FALLBACK = "photos"  # for `tiny`, if CIFAR-10 cannot be found

BY_CHAINS = OptimizerConfig(generator_lr=1e-3, energy_lr=1e-3, energy_l2=1e-3, ema_decay=0.99)
# What keeps an inference network and energies together (docs/results, "With an inference network"; CIFAR-10, `cpu`).
# With the energy rate of the chains, KL(q | p) pays the network for moving to where the energies are low, faster than
# short chains of the prior follow: NaN ended the training at update 175 to 208, with clipping too, or posterior and
# prior energies were 1,000 nats apart after 250 updates. At 3e-5 they stay within 0.6 nats for 1,500 updates.
INFERRED = dataclasses.replace(BY_CHAINS, energy_lr=3e-5, largest_gradient=100.0)
# In whitened noise, whose steps do not depend on the scale of p(z1|z2).
NOISE_CHAIN = Chain(20, 0.1, start="ancestral", space="noise")


@dataclass(frozen=True)
class PriorSize(Size):
    """One size of all priors of the ladder."""

    name: str
    dims: tuple[int, int]
    """Dimensions of z2 and z1."""
    channels: dict[int, tuple[int, ...]]
    """Feature maps of the generator from the smallest resolution up, by the side of the images."""
    units: int
    """Width of the energies and of p(z1|z2), two hidden layers each."""
    prior_chain: Chain
    """Chain of a prior that is learned by posterior chains."""
    posterior_chain: Chain
    training: TrainingConfig
    warmup: int
    """Updates over which the KL's weight rises, for priors with an inference network. Both rates rise over a third of
    them: without, the first gradients drove log sigma of q(z|x) out of range at update 6."""


TINY = PriorSize(
    name="tiny",
    dims=(8, 16),
    channels={32: (16, 8, 8), 64: (16, 8, 8, 8)},
    units=32,
    prior_chain=Chain.from_joint_paper(5, 0.4),
    posterior_chain=Chain.from_joint_paper(5, 0.1),
    training=TrainingConfig(steps=30, batch_size=20),
    warmup=10,
    images=500,
    reference_images=768,
    judged=(),
    kept=False,
)

# The generator, the chains and the rates of the recipe `cifar10` at `cpu`. The clock ends every training.
CPU = PriorSize(
    name="cpu",
    dims=(32, 64),
    channels={32: (64, 32, 16), 64: (64, 48, 32, 16)},
    units=128,
    prior_chain=Chain.from_joint_paper(40, 0.4),
    posterior_chain=Chain.from_joint_paper(15, 0.1),
    training=TrainingConfig(steps=1_000_000, batch_size=50, budget_seconds=600.0),
    warmup=300,
    images=2_000,
    reference_images=10_000,
    kept=False,
)

LONG = dataclasses.replace(
    CPU, name="long", training=dataclasses.replace(CPU.training, budget_seconds=7_200.0), images=10_000
)

SIZES = {size.name: size for size in (TINY, CPU, LONG)}


def experiment_of(line: PriorLine, size: PriorSize, dataset: str, shape: tuple[int, ...]) -> Experiment:
    """Return what one prior trains.

    Args:
        line: the prior.
        size: of all priors.
        dataset: its name.
        shape: channels, height and width of its images.

    Raises:
        UserError: the size has no generator for these images.
    """
    channels, height, width = shape
    if height != width or width not in size.channels:
        sides = " and ".join(f"{side}x{side}" for side in size.channels)
        raise UserError(f"the priors have generators of {sides} pixels, and {dataset} has images of {height}x{width}")
    inferred = line.learning != "joint-mle"
    return Experiment(
        PROTOCOL,
        size.name,
        dataset,
        learning=cast(LearningName, line.learning),
        model=ConvConfig(
            (channels, height, width),
            size.dims[-line.layers :],
            size.channels[width],
            (size.units,) * 2,
            inference_network=inferred,
        ),
        energy_hidden=((size.units,) * 2,) * line.layers if line.has_energies else (),
        prior_chain=NOISE_CHAIN if inferred else size.prior_chain,
        posterior_chain=size.posterior_chain,
        optimizer=dataclasses.replace(INFERRED, lr_warmup=size.warmup // 3) if inferred else BY_CHAINS,
        training=size.training,
        kl_warmup=size.warmup if inferred else 0,
        conditional_gradient=CONDITIONAL if line.learning == "variational" else "exact",
    )
