"""The benchmark's two-stage line: both sides compute the same step on any hierarchy; the floor counts one of them."""

import dataclasses

import pytest
import torch

from jlebm.backbones.nvae import NVAEConfig
from jlebm.errors import UserError
from reproduce.benchmark import deep_chain, stopwatch
from reproduce.benchmark.part import EXACT, agreed

CPU = torch.device("cpu")
SMALL = NVAEConfig(
    image_size=32,
    num_channels_enc=4,
    num_channels_dec=4,
    num_latent_scales=2,
    num_groups_per_scale=2,
    num_latent_per_group=3,
    num_preprocess_blocks=1,
    num_postprocess_blocks=1,
    num_mixture_dec=1,
)


@pytest.mark.parametrize("use_se", [True, False])
def test_both_sides_take_the_same_step(use_se: bool) -> None:
    """Two scales, with and without gates: chains agree in float64 with the same noise, to 1e-10."""
    part = deep_chain.part(dataclasses.replace(SMALL, use_se=use_se), 2, 2, CPU)
    assert part.limit == EXACT
    assert agreed(part) <= EXACT
    for ours, theirs in zip(part.ours(), part.plain(), strict=True):  # pyright: ignore
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)  # what is timed, in float32


def test_another_computation_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain side that leaves a normalisation out is not timed."""
    monkeypatch.setattr(deep_chain.Plain, "normalise", lambda self, name, input: input)
    with pytest.raises(UserError, match="two-stage chain step: ours and the plain implementation differ"):
        agreed(deep_chain.part(SMALL, 2, 1, CPU))


def test_the_floor_is_that_of_one_chain_times_the_batch() -> None:
    """What is counted for one chain is that of a batch of them; the way to the image is on the plain side alone."""
    part = deep_chain.part(SMALL, 3, 2, CPU)
    assert part.counted is not None
    counted = part.times * stopwatch.operations(part.counted)
    assert counted == pytest.approx(stopwatch.operations(part.ours), rel=1e-3)
    assert stopwatch.operations(part.plain) > 1.1 * counted


def test_published_size() -> None:
    """30 groups of 20 x 16 x 16 on a GPU (docs/facts, "Training settings")."""
    config, *_ = deep_chain.SIZES["cuda"]
    assert sum(config.groups()) == 30
    assert (config.num_latent_per_group, config.image_size // 2**config.num_preprocess_blocks) == (20, 16)
