"""bf16 in the decoder against float32, along whole chains: what a preset's arithmetic has to pass before it is used."""

import dataclasses

import pytest
import torch
from torch import Tensor

from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.densities import Posterior
from jlebm.energies import mlp_energy
from jlebm.langevin import Chain, run
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.randomness import SharedNoise

CHAINS = 256  # of each arithmetic
WATCHED = (0, 4, 9, 19, 39)  # steps of the chain
EQUIVALENT = 0.01  # standard deviations by which bf16 may shift the mean of a figure
CONFIG = ConvConfig((3, 16, 16), (6, 10), channels=(24, 16), conditional_hidden=(16, 16))


def models() -> tuple[JointModel, JointModel]:
    """Return one model in both arithmetics, its decoder as sharp as a trained one's."""
    torch.manual_seed(0)
    full = JointModel(ConvBackbone(CONFIG), mlp_energy(CONFIG.latent_dims, ((16, 16), (16, 16))))
    with torch.no_grad():
        for parameter in full.backbone.generator.parameters():
            parameter.mul_(2.0)
    half = JointModel(ConvBackbone(dataclasses.replace(CONFIG, precision="bf16")), full.energy)
    half.backbone.load_state_dict(full.backbone.state_dict())
    return full, half


def figures(model: JointModel, judge: JointModel, x: Tensor) -> dict[tuple[str, int], Tensor]:
    """Run posterior chains of one arithmetic; return energies and reconstruction errors by step, judged in float32."""
    noise, seen = SharedNoise(torch.Generator().manual_seed(1)), {}

    def watch(index: int, position: Latents, info) -> None:
        if index in WATCHED:
            with torch.no_grad():
                seen["energy", index] = judge.energy(position).sum(1)
                seen["reconstruction", index] = (judge.backbone.decode(position).mean - x).square().flatten(1).mean(1)

    start = model.noise(len(x), noise)
    run(start, Posterior(model.backbone, model.energy, x), Chain.from_joint_paper(max(WATCHED) + 1, 0.1), noise, watch)
    return seen


def apart(first: dict[tuple[str, int], Tensor], second: dict[tuple[str, int], Tensor]) -> float:
    """Bound how far the mean of any figure at any step is shifted, in standard deviations of that figure over chains.

    The chains are paired by their noise; the bound is the shift seen plus three standard errors of it, so that too few
    chains fail the test and never pass it.
    """
    shifts = []
    for key, values in first.items():
        difference = second[key] - values
        error = difference.std() / len(values) ** 0.5
        shifts.append(float((difference.mean().abs() + 3 * error) / values.std()))
    return max(shifts)


def images(model: JointModel) -> Tensor:
    """Return images that the decoder can make."""
    with torch.no_grad():
        z = model.sample_gaussian(CHAINS, SharedNoise(torch.Generator().manual_seed(9)))
        return model.backbone.decode(z).mean


def test_chains_in_bf16_are_equivalent_to_those_in_float32() -> None:
    """Energies and reconstruction errors along 40 steps; a drift of rounding errors that add up breaks it."""
    full, half = models()
    x = images(full)
    assert apart(figures(full, full, x), figures(half, full, x)) < EQUIVALENT


def test_the_test_sees_a_wrong_arithmetic() -> None:
    """A decoder whose images are a tenth too bright before its tanh does not pass for float32."""
    full, half = models()
    x = images(full)
    with torch.no_grad():
        half.backbone.generator[-2].bias.add_(0.1)
    assert apart(figures(full, full, x), figures(half, full, x)) > 3 * EQUIVALENT


def test_only_the_decoder_is_in_bf16() -> None:
    """Latents, gradients, images and densities come back as float32, and bf16 was used at all."""
    full, half = models()
    x = images(full)[:4]
    z = full.noise(4, SharedNoise(torch.Generator().manual_seed(3)))
    leaves = tuple(layer.requires_grad_() for layer in z)
    value = Posterior(half.backbone, half.energy, x)(leaves)
    gradient = torch.autograd.grad(value.sum(), leaves)
    assert {value.dtype, half.backbone.decode(z).mean.dtype, *(layer.dtype for layer in gradient)} == {torch.float32}
    with torch.no_grad():
        difference = (full.backbone.decode(z).mean - half.backbone.decode(z).mean).abs().max()
    assert 1e-5 < float(difference) < 0.1
    torch.testing.assert_close(full.backbone.prior_log_prob(z), half.backbone.prior_log_prob(z), rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_weights_are_trained_in_float32(precision: str) -> None:
    """The gradient of every weight is float32, whatever the decoder computes in."""
    model = models()[precision == "bf16"]
    x = images(model)[:2]
    z = model.noise(2, SharedNoise(torch.Generator().manual_seed(3)))
    (-Posterior(model.backbone, model.energy, x)(z).mean()).backward()
    assert {parameter.grad.dtype for parameter in model.parameters() if parameter.grad is not None} == {torch.float32}
