"""Times and peaks of memory of the parts on one device, in each arithmetic and layout: a table to look at."""

import copy
import dataclasses
import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple, get_args

import torch

from jlebm.backbones.nvae import NVAE, frozen_copy
from jlebm.backbones.nvae.regularisation import RegularisedNVAE
from jlebm.energies import conv_energy
from jlebm.engines import graphs
from jlebm.engines.precision import Precision
from jlebm.langevin import Chain
from jlebm.learning.backbone import BackboneOnly
from jlebm.model import JointModel
from jlebm.randomness import SharedNoise
from jlebm.training import initial_state
from reproduce.benchmark.device_checks import Finding, noise, smaller
from reproduce.benchmark.stopwatch import once
from reproduce.cifar10 import PAPER, TWO_STAGE_BUDGET

LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


class Line(NamedTuple):
    """One part: milliseconds of one step or update, and GiB reserved while it ran (0 on a CPU)."""

    what: str
    milliseconds: float
    gib: float


def measured(what: str, part: Callable[[], object], device: torch.device, steps: int, full: bool) -> Line:
    """Time a part of `steps` steps and measure how much memory it reserves."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    once(part, device)  # a warm-up
    spent = statistics.fmean(once(part, device) for _ in range(3 if full else 1)) / steps * 1e3
    return Line(what, spent, torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else 0.0)


def two_layer(device: torch.device, full: bool) -> Iterator[Line]:
    """Yield the posterior step at the paper's sizes in each arithmetic and layout, and the prior's chain."""
    source = SharedNoise(torch.Generator(device).manual_seed(1))
    for precision in get_args(Precision):
        experiment = PAPER.experiment.override([f"model.precision={precision}"])
        if not full:
            small = dataclasses.replace(experiment.model, channels=(8, 8, 8))
            experiment = dataclasses.replace(experiment, model=small)
        for name, layout in LAYOUTS.items():
            model = initial_state(experiment, 1, device).model.to(memory_format=layout)
            x = torch.rand(100 if full else 4, 3, 32, 32, device=device) * 2 - 1
            chain = Chain(10, experiment.posterior_chain.epsilon)

            def step(model: JointModel = model, x: torch.Tensor = x, chain: Chain = chain) -> None:
                model.sample_posterior(x, chain, source)

            yield measured(f"two-layer, posterior step, {precision}, {name}", step, device, 10, full)
            if precision == "float32" and name == "contiguous":

                def whole(model: JointModel = model, chain: Chain = experiment.prior_chain) -> None:
                    model.sample_prior(100, chain, source)

                yield measured("two-layer, prior chain, recorded", whole, device, 1, full)
                with graphs.step_by_step():
                    yield measured("two-layer, prior chain, step by step", whole, device, 1, full)


def two_stage(device: torch.device, full: bool) -> Iterator[Line | Finding]:
    """Yield stage one's update and the chain's step of `budget`, and whether bf16 gives the ELBO of float32."""
    stage = TWO_STAGE_BUDGET.nvae
    assert stage is not None
    config = stage.model
    torch.manual_seed(0)
    network = RegularisedNVAE(NVAE(config if full else smaller(config))).to(device)
    network = network.to(memory_format=torch.channels_last)
    x = torch.rand(stage.training.batch_size if full else 4, 3, 32, 32, device=device) * 2 - 1
    values = {}
    for precision in ("float32", "bf16"):
        elbo = BackboneOnly(dataclasses.replace(stage.elbo, precision=precision))
        with torch.no_grad():
            values[precision] = float(elbo.update(copy.deepcopy(network), x, noise(), 100).loss())
    off = abs(values["bf16"] / values["float32"] - 1)
    yield Finding(off < 0.02, "the ELBO in bf16 is that in float32 to 2 %", f"{100 * off:.2f} %")
    source, learning = SharedNoise(torch.Generator(device).manual_seed(1)), BackboneOnly(stage.elbo)

    def update() -> None:
        network.zero_grad(set_to_none=True)
        learning.update(network, x, source, 100).loss().backward()

    yield measured(f"stage one, {len(x)} images, without its optimiser", update, device, 1, full)
    network.zero_grad(set_to_none=True)
    frozen = frozen_copy(network.backbone)
    energy, count = conv_energy(frozen.latent_shapes).to(device), 64 if full else 2
    for name, layout in LAYOUTS.items():
        model = JointModel(copy.deepcopy(frozen).to(memory_format=layout), energy)

        def steps(model: JointModel = model) -> None:
            model.sample_noise(count, Chain.from_two_stage_paper(5, 0.01), source)

        yield measured(f"stage two, chain step of {count}, {name}", steps, device, 5, full)
        with graphs.step_by_step():
            yield measured(f"stage two, chain step of {count}, {name}, step by step", steps, device, 5, full)
