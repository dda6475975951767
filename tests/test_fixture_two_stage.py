"""Stage two of the public code on its NVAE, in float64: both drifts of the noise chain, losses and gradients."""

from pathlib import Path

import pytest
import torch
from torch import nn

from jlebm import langevin
from jlebm.backbones.nvae import NVAE, load_nvae
from jlebm.densities import PriorInNoise
from jlebm.distributions import CLAMP, SIGMA_FLOOR
from jlebm.energies import conv_energy
from jlebm.errors import UserError
from jlebm.langevin import Chain, StepInfo
from jlebm.latents import Latents, standard_normal_log_prob
from jlebm.objectives import contrastive_loss
from tests.public_numbers import CHURCH, WHOLE, in_order, kept, nvae

EXACT = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture(params=["cifar10_gaussian", CHURCH])
def case(request: pytest.FixtureRequest, tmp_path: Path):
    """The backbone, the energies and the recorded numbers."""
    name = request.param
    found = kept(f"two_stage_{name}")
    if found is not None:
        recorded, metadata = found
        recorded |= {key: float(value) for key, value in metadata.items()}
    elif (WHOLE / "two_stage" / f"{name}.pt").exists():
        recorded = torch.load(WHOLE / "two_stage" / f"{name}.pt", weights_only=True)
    else:
        pytest.skip(f"{name} is too large to be kept in the repository")
    backbone = load_nvae(nvae(name, tmp_path)[0]).double().requires_grad_(False)
    energy = conv_energy(backbone.latent_shapes, int(recorded["nef"]), int(recorded["ndf"])).double()
    for network, state in zip(energy.networks, in_order(recorded["energies"]), strict=True):
        theirs = iter(ordered(state))
        for parameter in network.parameters():
            parameter.data.copy_(next(theirs))
        assert next(theirs, None) is None
    return backbone, energy, recorded


def round_top_sigma(backbone: NVAE) -> None:
    """Make the top's sigma what the public sampler computes in float32, 1.01 rounded: a difference of 1e-8."""
    parameters = backbone._prior_parameters
    sigma = torch.tensor(1.01, dtype=torch.float64).float().double()

    def rounded(group: int, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_sigma = parameters(group, state)
        if group > 0:
            return mean, log_sigma
        return mean, log_sigma + CLAMP * torch.atanh((sigma - SIGMA_FLOOR).log() / CLAMP)

    backbone._prior_parameters = rounded  # type: ignore[method-assign]


def ordered(state: dict) -> list[torch.Tensor]:
    """Return an energy's tensors in the order of its layers: convolutions, linear layers, the output."""

    def place(name: str) -> tuple:
        block, layer, kind = name.split(".")
        return block != "conv2d", layer == "out", layer, kind != "weight"

    return [state[name] for name in sorted(state, key=place)]


@pytest.mark.parametrize("drift", ["exact", "released"])
def test_chain_in_whitened_noise(case, drift: str) -> None:
    """Every step's energy and base log-density, where the chain ends, and the image there."""
    backbone, energy, recorded = case
    round_top_sigma(backbone)
    chain = Chain.from_two_stage_paper(int(recorded["steps"]), float(recorded["h"]))
    draws = iter([in_order(noise) for noise in in_order(recorded["noise"])])
    expected = recorded[drift]
    density = PriorInNoise(backbone, energy, drift)  # type: ignore[arg-type]
    start, seen = in_order(recorded["eps_init"]), []

    def watch(index: int, position: Latents, info: StepInfo) -> None:
        seen.append(info.log_density)

    end = langevin.run(start, density, chain, lambda like: next(draws), watch)
    for ours, theirs in zip(end, in_order(expected["final_eps"]), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)
    z = backbone.push(end)
    for ours, theirs in zip(z, in_order(expected["final_z"]), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)
    torch.testing.assert_close(backbone.decoder_parameters(z), expected["final_logits"], **EXACT)
    if drift == "released":
        torch.testing.assert_close(torch.stack(seen), expected["f_per_step"] + expected["log_p_per_step"], **EXACT)
    else:
        with torch.no_grad():
            f = -energy(backbone.push(start)).sum(1)
            first = PriorInNoise(backbone, energy)(start)
        torch.testing.assert_close(f, expected["f_per_step"][0], **EXACT)
        torch.testing.assert_close(first, f + standard_normal_log_prob(start), **EXACT)


def test_losses_and_gradients(case) -> None:
    """E(z+) - E(z-) of each group, and the gradient of every weight of every energy."""
    _, energy, recorded = case
    positive, negative = in_order(recorded["positive_z"]), in_order(recorded["released"]["final_z"])
    losses = contrastive_loss(energy, positive, negative).energy
    torch.testing.assert_close(losses, recorded["losses"], **EXACT)
    losses.sum().backward()
    for network, gradients in zip(energy.networks, in_order(recorded["gradients"]), strict=True):
        for parameter, theirs in zip(network.parameters(), ordered(gradients), strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, theirs, **EXACT)


def test_published_size() -> None:
    """331,545 parameters for each of the 30 groups of 20 x 16 x 16 (docs/facts, "Two-stage training")."""
    energy = conv_energy(((20, 16, 16),))
    assert sum(parameter.numel() for parameter in energy.parameters()) == 331_545
    assert isinstance(energy.networks[0], nn.Sequential)


@pytest.mark.parametrize("shape", [(4, 4, 4), (4, 12, 12), (4, 8, 16), (100,)])
def test_latents_that_do_not_halve_are_refused(shape: tuple[int, ...]) -> None:
    """A shape that has no way down to 4x4 is said."""
    with pytest.raises(UserError, match="cannot be halved down to 4x4"):
        conv_energy((shape,))
