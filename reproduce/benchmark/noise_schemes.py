"""The noise of sampled images by its two schemes: a torch generator for each image, and Philox (docs/noise)."""

import math

import torch

from jlebm.backbones.nvae import NVAE
from jlebm.latents import LatentShapes
from jlebm.philox import by_operations, normals
from jlebm.randomness import CounterNoise, PerImageNoise, role_word, series
from reproduce.benchmark.part import Part, relative
from reproduce.cifar10 import CPU, PAPER, TWO_STAGE_BUDGET, TWO_STAGE_CPU

METRIC = "noise of images"


def sizes() -> tuple[tuple[str, LatentShapes, int, int], ...]:
    """Return the name, the layers' shapes, the images and the draws of each line."""
    deep = []
    for preset in (TWO_STAGE_CPU, TWO_STAGE_BUDGET):
        assert preset.nvae is not None
        with torch.device("meta"):
            shapes = NVAE(preset.nvae.model).latent_shapes
        deep.append((f"two-stage, {preset.plan.preset}", shapes, preset.batch_size, 2))
    vectors = [
        (f"two-layer, {one.preset}", one.model.latent_shapes, 500, 20) for one in (CPU.experiment, PAPER.experiment)
    ]
    return *vectors, *deep


def settings() -> list[str]:
    """Return the setting of each line."""
    return [
        f"philox/1 beside generator/1, {count} x {sum(map(math.prod, shapes))}, {draws} draws, {name}"
        for name, shapes, count, draws in sizes()
    ]


def parts(device: torch.device) -> list[Part]:
    """Return the lines; plain is generator/1 and ours philox/1, other numbers of the same distribution.

    Nothing is compared but philox/1 with itself: its bits on this device must be those of torch's operations on a CPU.
    """
    found = []
    for (_, shapes, count, draws), setting in zip(sizes(), settings(), strict=True):
        like = tuple(torch.empty(count, *shape, device=device) for shape in shapes)
        plain, ours = PerImageNoise("sample", range(count)), CounterNoise("sample", range(count))

        def agreement(size: int = sum(map(math.prod, shapes))) -> float:
            seeds = torch.arange(3)
            here = normals(seeds.to(device), role_word("sample"), range(2), size)
            return relative((here.cpu(),), (by_operations(seeds, role_word("sample"), range(2), size),))

        found.append(
            Part(
                METRIC,
                setting,
                lambda like=like, source=plain, draws=draws: list(series(source, like, draws)),
                lambda like=like, source=ours, draws=draws: list(series(source, like, draws)),
                agreement,
                0.0,
                {},
                None,
            )
        )
    return found
