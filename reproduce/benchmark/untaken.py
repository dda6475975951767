"""Kernels and arithmetic that a CPU does not use by default, timed beside those that it does.

Plain is what ours does, and ours the alternative, so that a ratio above one would be a gain:

- products of the prior's chain through oneDNN instead of MKL, by torch's own switch
- layers in bf16 instead of float32, which CPUs with AVX512-BF16 or AMX multiply without emulation: of the generator, of
  stage one, and of all networks of a two-stage chain (`Chain.precision`)
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from jlebm.densities import Posterior, PriorInNoise
from jlebm.devices import layout
from jlebm.engines import products
from jlebm.engines.gradients import Autograd, field_of
from jlebm.experiment import Experiment
from jlebm.latents import flatten, map_latents
from jlebm.learning.backbone import BackboneExperiment
from jlebm.model import JointModel
from jlebm.training import initial_state
from reproduce.benchmark.part import SEED, Part, noise, relative
from reproduce.benchmark.speed import Workload
from reproduce.celeba64 import LONG_CHAINS
from reproduce.cifar10 import TWO_STAGE_CPU
from reproduce.presets.staged import TwoStagePreset

PRODUCTS, LAYERS = "prior chain through oneDNN beside MKL", "layers in bf16 beside float32"
SAME_TO_BF16 = 0.05  # bf16 has eight bits: a hundredth, and sums of them
SAME_THROUGH_A_HIERARCHY = 0.1  # the energies' gradient, through some fifteen layers of such sums
CPU = torch.device("cpu")


def parts(workloads: tuple[Workload, ...]) -> Iterator[Part]:
    """Yield the lines of a CPU: those through oneDNN only where its products have the error of float32."""
    for workload in workloads if products.is_exact() else ():
        yield through_onednn(workload)
    for workload in workloads:
        yield posterior_gradient(workload)
    assert TWO_STAGE_CPU.nvae is not None
    yield stage_one(TWO_STAGE_CPU.nvae)
    yield deep_chain(LONG_CHAINS)


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


def deep_chain(preset: TwoStagePreset) -> Part:
    """Return the line of a step of the two-stage chain through the hierarchy and its energies, as they are made."""
    plan, batch = preset.plan, preset.batch_size
    network = initial_state(plan.backbone, SEED, CPU).model.backbone.eval().requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        energy = plan.energies.energy.build_on(network).requires_grad_(False).to(memory_format=layout(CPU))
    eps = JointModel(network, energy).noise(batch, noise(CPU))
    one, other = (Autograd(PriorInNoise(network, energy, precision=name)) for name in ("float32", "bf16"))

    def agreement() -> float:
        # The energies' part alone: the Gaussian one is in float32 and much larger. In the mean, since a unit near zero
        # may change its sign, and so its slope.
        theirs, ours = (flatten(map_latents(torch.add, each.gradient(eps), eps)) for each in (one, other))
        return float((ours - theirs).norm() / theirs.norm())

    setting = f"step of the two-stage chain, batch {batch}, the sizes of its {plan.preset} preset"
    own, half = (partial(each.value_and_gradient, eps) for each in (one, other))
    return Part(LAYERS, setting, own, half, agreement, SAME_THROUGH_A_HIERARCHY, {}, None)


def _update(experiment: BackboneExperiment, x: Tensor) -> Callable[[], Tensor]:
    model, scheme = initial_state(experiment, SEED, CPU).model, experiment.scheme()

    def update() -> Tensor:
        model.zero_grad(set_to_none=True)
        loss = scheme.update(model, x, noise(CPU)).loss()
        loss.backward()
        return loss.detach()

    return update
