"""Joint latent-space energy-based priors for multi-layer generators: p(x|z) exp(-E(z)) p0(z) / Z over all layers of z.

Use a trained model:

    model = jlebm.load("runs/...")                    # a run's folder, or a weights file alone
    images = model.sample(range(16))                  # uint8 (16, C, H, W), image i from seed i
    images = model.reconstruct(images, keep=2)        # the two top layers kept, the others drawn from the prior
    scores = model.score(images)                      # L^{>k} of Eq. 20: anomaly and out-of-distribution scores

    load                        a trained model from its run's folder or its weights file
    save_model                  write a trained model so that `load` needs nothing else
    TrainedModel                what `load` returns: sample, reconstruct, score
    Sampler                     how images are drawn from a trained model: chain, temperature, decoding
    CONFIGURATIONS              the configuration class of each learning scheme that `load` knows; add your own

Put a joint prior on a generator of your own:

    model = jlebm.JointModel(backbone, jlebm.mlp_energy(dims=(32, 64), hidden=((100, 100), (200, 200))))

    Backbone                    the protocol that a multi-layer generator implements
    HasPushBelow                the protocol of a generator that draws lower layers below given upper ones
    PosteriorSample             latents drawn from q(z|x), with log q(z|x) and the layers' KLs
    NoEncoder                   raised by a backbone without an inference network
    Normal                      a diagonal Gaussian, of latents or of images
    Bernoulli                   binary pixels
    DiscretisedLogisticMixture  a mixture of discretised logistics, of 8-bit colours
    JointModel                  backbone and energies together; samples the prior and the posterior
    check_model                 try a model of your own on two samples: what does not fit is a sentence
    JointEnergy                 one network per layer, E(z) = sum_i E_i(z_i); lower is more likely
    mlp_energy                  perceptrons for layers of vectors
    conv_energy                 convolutional networks for layers of feature maps
    no_energy                   the Gaussian hierarchy alone
    Chain                       length, step size and space of a Langevin chain
    Trace                       keeps the log-density and gradient norm of every step of a chain
    PerImageNoise               noise in which image i depends on seed i alone: sampling
    CounterNoise                the same, made on the device: Philox
    image_noise                 either of them, by the name of its scheme
    SharedNoise                 noise of one generator for a whole batch: training
    generator                   a torch generator seeded by its role: data, initialisation, training noise, ...

Sample and look inside:

    generate                    images of either prior, one per seed, in batches
    reconstruct                 decoded posterior samples
    PartialPosterior            which layers of a posterior sample are kept, and the chains of both parts
    reconstruct_from            the upper layers of a posterior sample kept, the lower ones drawn
    scores_above                L^{>k} of Eq. 20: the upper layers from the posterior, the lower ones from the prior
    to_float                    uint8 images as floats in [-1, 1]
    to_uint8                    floats in [-1, 1] as uint8 images, rounded once

Learn:

    JointMLE                    joint maximum likelihood: short chains for posterior and prior
    Variational                 an inference network instead of posterior chains
    TwoStage                    energies alone, on a trained backbone
    Gaussian                    backbone and inference network by the ELBO, without energies
    OneUpdate                   base class of a learning scheme whose step is one update
    Trainable                   base class of a configuration that `fit` trains: model, scheme, optimiser
    TrainingConfig              steps, batch size, time budget
    Experiment                  the configuration of a model that is trained together with its prior
    OptimizerConfig             rates, penalty and averages of an Experiment
    TwoStageExperiment          the configuration of energies on a trained backbone
    EnergyOptimizer             rates, penalty and averages of a TwoStageExperiment
    EnergyConfig                base class of the energies in a TwoStageExperiment
    VectorEnergy                perceptrons for layers of vectors
    ConvEnergy                  convolutional networks for layers of feature maps
    open_run                    open the folder of a run: configuration, events, checkpoint
    LoopControl                 how `fit` reports, saves and stops
    fit                         train a run to its end, from its checkpoint if it has one

Backbones included:

    ConvBackbone                two layers of vectors below transposed convolutions
    ConvConfig                  its sizes
    LadderBackbone              a ladder of vectors with an inference network
    LadderConfig                its sizes
    TopDownBackbone             a top-down hierarchy from a vector to maps, each layer given all above it
    TopDownConfig               its sizes
    NVAE                        a deep hierarchy of feature maps
    NVAEConfig                  its sizes
    load_nvae                   read a published NVAE checkpoint, or one trained here

    UserError                   bad input, in one sentence

Images by name are in `jlebm.data`, metrics in `jlebm.evaluation`, convergence of chains in `jlebm.diagnostics`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jlebm.backbones.conv import ConvBackbone, ConvConfig
    from jlebm.backbones.ladder import LadderBackbone, LadderConfig
    from jlebm.backbones.nvae import NVAE, NVAEConfig, load_nvae
    from jlebm.backbones.protocol import Backbone, HasPushBelow, NoEncoder, PosteriorSample
    from jlebm.backbones.topdown import TopDownBackbone, TopDownConfig
    from jlebm.distributions import Bernoulli, DiscretisedLogisticMixture, Normal
    from jlebm.energies import ConvEnergy, EnergyConfig, JointEnergy, VectorEnergy, conv_energy, mlp_energy, no_energy
    from jlebm.errors import UserError
    from jlebm.experiment import Experiment, OptimizerConfig
    from jlebm.hierarchy import PartialPosterior, reconstruct_from, scores_above
    from jlebm.images import to_float, to_uint8
    from jlebm.langevin import Chain, Trace
    from jlebm.learning.gaussian import Gaussian
    from jlebm.learning.joint_mle import JointMLE
    from jlebm.learning.scheme import OneUpdate
    from jlebm.learning.trainable import Trainable, TrainingConfig
    from jlebm.learning.two_stage import EnergyOptimizer, TwoStage, TwoStageExperiment
    from jlebm.learning.variational import Variational
    from jlebm.model import JointModel
    from jlebm.preflight import check_model
    from jlebm.randomness import CounterNoise, PerImageNoise, SharedNoise, generator, image_noise
    from jlebm.run import open_run
    from jlebm.sampling import Sampler, generate, reconstruct
    from jlebm.trained import TrainedModel
    from jlebm.training import LoopControl, fit
    from jlebm.weights import CONFIGURATIONS, load, save_model

__version__ = "0.2.0"

# The module that defines each public name. A module is imported when one of its names is first used, so that
# `import jlebm` alone does not load torch. Type checkers read the block above; a test keeps both in step.
_NAMES = {
    "backbones.conv": ("ConvBackbone", "ConvConfig"),
    "backbones.ladder": ("LadderBackbone", "LadderConfig"),
    "backbones.topdown": ("TopDownBackbone", "TopDownConfig"),
    "backbones.nvae": ("NVAE", "NVAEConfig", "load_nvae"),
    "backbones.protocol": ("Backbone", "HasPushBelow", "NoEncoder", "PosteriorSample"),
    "distributions": ("Bernoulli", "DiscretisedLogisticMixture", "Normal"),
    "energies": ("ConvEnergy", "EnergyConfig", "JointEnergy", "VectorEnergy", "conv_energy", "mlp_energy", "no_energy"),
    "errors": ("UserError",),
    "experiment": ("Experiment", "OptimizerConfig"),
    "hierarchy": ("PartialPosterior", "reconstruct_from", "scores_above"),
    "images": ("to_float", "to_uint8"),
    "langevin": ("Chain", "Trace"),
    "learning.gaussian": ("Gaussian",),
    "learning.joint_mle": ("JointMLE",),
    "learning.scheme": ("OneUpdate",),
    "learning.trainable": ("Trainable", "TrainingConfig"),
    "learning.two_stage": ("EnergyOptimizer", "TwoStage", "TwoStageExperiment"),
    "learning.variational": ("Variational",),
    "model": ("JointModel",),
    "preflight": ("check_model",),
    "randomness": ("CounterNoise", "PerImageNoise", "SharedNoise", "generator", "image_noise"),
    "run": ("open_run",),
    "sampling": ("Sampler", "generate", "reconstruct"),
    "trained": ("TrainedModel",),
    "training": ("LoopControl", "fit"),
    "weights": ("CONFIGURATIONS", "load", "save_model"),
}
_HOMES = {name: f"jlebm.{module}" for module, names in _NAMES.items() for name in names}

__all__ = [
    "CONFIGURATIONS",
    "NVAE",
    "Backbone",
    "Bernoulli",
    "Chain",
    "ConvBackbone",
    "ConvConfig",
    "ConvEnergy",
    "CounterNoise",
    "DiscretisedLogisticMixture",
    "EnergyConfig",
    "EnergyOptimizer",
    "Experiment",
    "Gaussian",
    "HasPushBelow",
    "JointEnergy",
    "JointMLE",
    "JointModel",
    "LadderBackbone",
    "LadderConfig",
    "LoopControl",
    "NVAEConfig",
    "NoEncoder",
    "Normal",
    "OneUpdate",
    "OptimizerConfig",
    "PartialPosterior",
    "PerImageNoise",
    "PosteriorSample",
    "Sampler",
    "SharedNoise",
    "TopDownBackbone",
    "TopDownConfig",
    "Trace",
    "Trainable",
    "TrainedModel",
    "TrainingConfig",
    "TwoStage",
    "TwoStageExperiment",
    "UserError",
    "Variational",
    "VectorEnergy",
    "check_model",
    "conv_energy",
    "fit",
    "generate",
    "generator",
    "image_noise",
    "load",
    "load_nvae",
    "mlp_energy",
    "no_energy",
    "open_run",
    "reconstruct",
    "reconstruct_from",
    "save_model",
    "scores_above",
    "to_float",
    "to_uint8",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
