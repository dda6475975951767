"""Kernels and arithmetic that a CPU does not use by default, timed beside those that it does.

Plain is what ours does, and ours the alternative, so that a ratio above one would be a gain:

- products of the prior's chain through oneDNN instead of MKL, by torch's own switch
- layers in bf16 instead of float32, which CPUs with AVX512-BF16 or AMX multiply without emulation
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from jlebm.densities import Posterior
from jlebm.engines import products
from jlebm.engines.gradients import field_of
from jlebm.experiment import Experiment
from jlebm.learning.backbone import BackboneExperiment
from jlebm.training import initial_state
from reproduce.benchmark.part import SEED, Part, noise, relative
from reproduce.benchmark.speed import Workload
from reproduce.cifar10 import TWO_STAGE_CPU

PRODUCTS, LAYERS = "prior chain through oneDNN beside MKL", "layers in bf16 beside float32"
METRICS = (PRODUCTS, LAYERS)
SAME_TO_BF16 = 0.05  # bf16 has eight bits: a hundredth, and sums of them
CPU = torch.device("cpu")


def parts(workloads: tuple[Workload, ...]) -> Iterator[Part]:
    """Yield the lines of a CPU: those through oneDNN only where its products have the error of float32."""
    for workload in workloads if products.is_exact() else ():
        yield through_onednn(workload)
    for workload in workloads:
        yield posterior_gradient(workload)
    assert TWO_STAGE_CPU.nvae is not None
    yield stage_one(TWO_STAGE_CPU.nvae)


def through_onednn(workload: Workload) -> Part:
    """Return the line of the prior's chain with its products sent to oneDNN."""
    experiment = workload.experiment
    model, chain, batch = initial_state(experiment, SEED, CPU).model, experiment.prior_chain, workload.batch
    first, second = (torch.randn(batch, batch, generator=torch.Generator().manual_seed(n)) for n in (1, 2))

    def switched() -> None:
        with products.through_onednn():
            model.sample_prior(batch, chain, noise(CPU))

    def agreement() -> float:
        return relative((products.product(first, second).double(),), (first.double() @ second.double(),))

    setting = f"{chain.steps} steps, batch {batch}, {workload.size}"
    own = lambda: model.sample_prior(batch, chain, noise(CPU))  # noqa: E731
    return Part(PRODUCTS, setting, own, switched, agreement, products.EXACT, {}, None)


def posterior_gradient(workload: Workload) -> Part:
    """Return the line of a gradient of log p(z|x): the generator's layers forward and backward."""
    experiment = workload.experiment
    half = experiment.override(["model.precision=bf16"])
    x = torch.rand(workload.few, *experiment.model.image_shape, generator=torch.Generator().manual_seed(2)) * 2 - 1
    own, other = (_gradient(one, x) for one in (experiment, half))
    setting = f"gradient of log p(z|x), batch {workload.few}, {workload.size}"
    return Part(LAYERS, setting, own, other, lambda: relative((other(),), (own(),)), SAME_TO_BF16, {}, None)


def _gradient(experiment: Experiment, x: Tensor) -> Callable[[], Tensor]:
    model = initial_state(experiment, SEED, CPU).model
    z, field = model.noise(len(x), noise(CPU)), field_of(Posterior(model.backbone, model.energy, x))
    return lambda: field.gradient(z)[-1]


def stage_one(experiment: BackboneExperiment) -> Part:
    """Return the line of an update of stage one, forward and backward."""
    batch = experiment.training.batch_size
    x = torch.rand(batch, *experiment.model.image_shape, generator=torch.Generator().manual_seed(2)) * 2 - 1
    half = replace(experiment, elbo=replace(experiment.elbo, precision="bf16"))
    own, other = (_update(one, x) for one in (experiment, half))
    setting = f"update of stage one, batch {batch}, the sizes of its {experiment.preset} preset"
    return Part(LAYERS, setting, own, other, lambda: relative((other(),), (own(),)), SAME_TO_BF16, {}, None)


def _update(experiment: BackboneExperiment, x: Tensor) -> Callable[[], Tensor]:
    model, scheme = initial_state(experiment, SEED, CPU).model, experiment.scheme()

    def update() -> Tensor:
        model.zero_grad(set_to_none=True)
        loss = scheme.update(model, x, noise(CPU)).loss()
        loss.backward()
        return loss.detach()

    return update
