"""Scaling of each part: the same code at several sizes, each about four times the previous one."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.energies import mlp_energy
from jlebm.experiment import Experiment
from jlebm.langevin import Chain
from jlebm.model import JointModel
from jlebm.sampling import Sampler, generate, write
from reproduce.benchmark.part import noise


class Point(NamedTuple):
    """One size of one part."""

    metric: str
    setting: str
    run: Callable[[], object]


def points(paper: Experiment, small: Experiment, device: torch.device, scratch: Path) -> Iterator[Point]:
    """Yield the sizes at which prior chain, posterior chain and sampling are timed.

    Args:
        paper: experiment at the paper's sizes, for the prior chain.
        small: experiment that samples thousands of images in seconds, for the rest.
        device: device that is timed.
        scratch: a folder for samples.
    """
    chain = paper.prior_chain
    model = _prior(tuple(shape[0] for shape in paper.model.latent_shapes), device)
    for batch in (25, 100, 400, 1600):
        yield Point("prior chain by batch size", f"batch {batch}", _sample(model, batch, chain, device))
    for steps in (15, 60, 240, 960):
        longer = dataclasses.replace(chain, steps=steps)
        yield Point("prior chain by length", f"{steps} steps, batch 100", _sample(model, 100, longer, device))
    for width in (64, 256, 1024):
        wide = _prior((width, width), device)
        label = f"{width} dimensions a layer, batch 100"
        yield Point("prior chain by latent width", label, _sample(wide, 100, _short(chain), device))
    for layers in (2, 4, 8):
        deep = _prior((100,) * layers, device)
        label = f"{layers} layers of 100, batch 100"
        yield Point("prior chain by number of layers", label, _sample(deep, 100, _short(chain), device))

    decoder = small.build().to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    one_step = Chain(5, small.posterior_chain.epsilon)
    for batch in (10, 40, 160):
        x = torch.rand(batch, *small.model.image_shape, device=device) * 2 - 1
        yield Point(
            "posterior chain by batch size",
            f"5 steps, batch {batch}, the sizes of {small.preset}",
            lambda x=x: decoder.sample_posterior(x, one_step, noise(device)),
        )
    for count in (500, 2000, 8000):
        yield Point(
            "sampling by number of images, to a file",
            f"{count} images, the sizes of {small.preset}",
            lambda count=count: write(
                scratch / "scale.npy", generate(decoder, "ebm-prior", range(count), Sampler(small.prior_chain)), count
            ),
        )


def _short(chain: Chain) -> Chain:
    # Untrained networks that are much wider than the paper's need a smaller step to stay finite; the cost is the same.
    return dataclasses.replace(chain, steps=20, epsilon=1e-3)


def _prior(dims: tuple[int, ...], device: torch.device) -> JointModel:
    """Return a model with the paper's prior networks for any layers, and an unused decoder."""
    backbone = ConvBackbone(ConvConfig(latent_dims=dims, channels=(4, 4, 4)))
    return JointModel(backbone, mlp_energy(dims, ((200, 200, 200),) * len(dims))).to(device)


def _sample(model: JointModel, count: int, chain: Chain, device: torch.device) -> Callable[[], object]:
    return lambda: model.sample_prior(count, chain, noise(device))
