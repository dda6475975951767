"""The adversarial EBM at its four sizes."""

from jlebm.baselines.adversarial_ebm import AdversarialEBMConfig, AdversarialEBMExperiment
from jlebm.baselines.base import Adam, OneNetwork
from jlebm.experiment import TrainingConfig
from reproduce.systems import DATASET, PROTOCOL

PRESETS = {
    # Patches of 2 x 2 pixels make the small sizes four times as fast. Fewer steps are longer: the way is what counts.
    "tiny": AdversarialEBMExperiment(
        PROTOCOL,
        "tiny",
        DATASET,
        model=AdversarialEBMConfig(
            channels=(8, 16),
            blocks=1,
            norm_groups=4,
            patch=2,
            steps=3,
            grow_every=25,
            step_size=1.0,
            data_steps=1,
            sampler_steps=3,
            sampler_step_size=1.0,
        ),
        optimizer=OneNetwork(network=Adam(2e-3, beta1=0.0, beta2=0.99)),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core.
    "cpu": AdversarialEBMExperiment(
        PROTOCOL,
        "cpu",
        DATASET,
        model=AdversarialEBMConfig(
            channels=(32, 64),
            blocks=1,
            patch=2,
            steps=8,
            grow_every=130,
            step_size=1.0,
            data_steps=1,
            sampler_steps=10,
            sampler_step_size=1.0,
        ),
        training=TrainingConfig(steps=1_300, batch_size=32),
    ),
    # For 20 minutes on one data-centre GPU; not measured.
    "budget": AdversarialEBMExperiment(
        PROTOCOL,
        "budget",
        DATASET,
        model=AdversarialEBMConfig(channels=(64, 128, 256), blocks=1, steps=15, grow_every=500, step_size=0.4),
        training=TrainingConfig(steps=1_000_000, batch_size=64, budget_seconds=1200.0),
    ),
    # arXiv 2012.06568 and its public code: 26 levels of five epochs of 32 images, a ResNet-50 and 80 Million Tiny
    # Images for the network and the starts here. Table 2 reports IS 9.10 and FID 13.21.
    "paper": AdversarialEBMExperiment(
        PROTOCOL,
        "paper",
        DATASET,
        training=TrainingConfig(steps=202_800, batch_size=32),
    ),
}
