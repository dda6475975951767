"""The public joint-training code's numbers, reproduced in float64: chains, losses, gradients and one Adam step."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jlebm import langevin
from jlebm.backbones.conv import RELEASED_TOP_SIGMA, ConvBackbone, ConvConfig
from jlebm.densities import Posterior, PriorInLatents
from jlebm.distributions import Normal
from jlebm.energies import mlp_energy
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.objectives import maximum_likelihood_loss

EXACT = {"rtol": 1e-9, "atol": 1e-12}


def top_first(pair: list[Tensor]) -> Latents:
    """The fixture's index 0 is the bottom layer; ours is the top."""
    return tuple(pair[::-1])


def recorded(noise: list[list[Tensor]]):
    """A noise source that replays the recorded draws in order."""
    draws = iter(noise)
    return lambda like: top_first(next(draws))


@pytest.fixture(scope="module")
def fixture() -> dict:
    path = Path(__file__).resolve().parents[2] / "shared/fixtures/joint/joint_two_layer.pt"
    local = Path(__file__).parent / "fixtures/joint_two_layer.pt"
    path = path if path.exists() else local
    return torch.load(path, weights_only=True)


def modules(model: JointModel) -> dict[str, nn.Module]:
    """Our modules under the fixture's names."""
    assert isinstance(model.backbone, ConvBackbone)
    return {
        "generator": model.backbone.generator,
        "conditional": model.backbone.conditionals[0],
        "energy_bottom": model.energy.networks[1],
        "energy_top": model.energy.networks[0],
    }


@pytest.fixture
def model(fixture: dict) -> JointModel:
    config = ConvConfig(
        latent_dims=(10, 12), channels=(32, 16, 8), conditional_hidden=(24,) * 4, top_sigma=RELEASED_TOP_SIGMA
    )
    model = JointModel(ConvBackbone(config), mlp_energy((10, 12), ((16, 16), (20, 20, 20)))).double()
    for name, module in modules(model).items():
        stored = fixture["weights_before"][name].values()
        for parameter, value in zip(module.parameters(), stored, strict=True):
            parameter.data.copy_(value)
    return model


def test_prior_chain(model: JointModel, fixture: dict) -> None:
    """A wrong sign, step-size notation, sigma or layer order moves the chain's end."""
    chain = fixture["prior_chain"]
    density = PriorInLatents(model.backbone, model.energy)
    start = top_first(chain["init"])
    f_sum, base_sum = chain["f_sum_at_init"], chain["log_base_density_sum_at_init"]
    torch.testing.assert_close(-model.energy(start).sum(), f_sum, **EXACT)
    torch.testing.assert_close(model.backbone.prior_log_prob(start).sum(), base_sum, **EXACT)
    steps = Chain.from_joint_paper(12, 0.4)
    for ours, theirs in zip(
        langevin.run(start, density, steps, recorded(chain["noise"])), top_first(chain["final"]), strict=True
    ):
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_posterior_chain(model: JointModel, fixture: dict) -> None:
    """A wrong likelihood scale or a layer that does not feel the likelihood moves the chain's end."""
    chain = fixture["posterior_chain"]
    density = Posterior(model.backbone, model.energy, fixture["x"])
    ends = langevin.run(top_first(chain["init"]), density, Chain.from_joint_paper(6, 0.1), recorded(chain["noise"]))
    for ours, theirs in zip(ends, top_first(chain["final"]), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_one_update(model: JointModel, fixture: dict) -> None:
    """The four losses, every gradient and every weight after Adam: one joint backward equals four separate ones."""
    posterior = top_first(fixture["posterior_chain"]["final"])
    prior = top_first(fixture["prior_chain"]["final"])
    losses = maximum_likelihood_loss(model, fixture["x"], posterior, prior)
    constant = 0.5 * fixture["x"][0].numel() * torch.log(torch.tensor(2 * torch.pi * 0.3**2, dtype=torch.float64))
    theirs = fixture["losses"]
    torch.testing.assert_close(losses.reconstruction - constant, theirs["generator"], **EXACT)
    # Ours is the whole hierarchy's; theirs leaves out log p(z2), which no parameter moves.
    top = Normal.constant_sigma(torch.zeros_like(prior[0]), RELEASED_TOP_SIGMA)
    top_part = top.log_prob(prior[0]).mean() - top.log_prob(posterior[0]).mean()
    torch.testing.assert_close(losses.conditional - top_part, theirs["conditional"], **EXACT)
    torch.testing.assert_close(losses.energy[0], theirs["energy_top"], **EXACT)
    torch.testing.assert_close(losses.energy[1], theirs["energy_bottom"], **EXACT)

    rates = {"generator": 1e-4, "conditional": 1e-4, "energy_bottom": 2e-5, "energy_top": 2e-5}
    groups = [{"params": module.parameters(), "lr": rates[name]} for name, module in modules(model).items()]
    optimizer = torch.optim.Adam(groups)
    losses.total().backward()
    optimizer.step()
    for name, module in modules(model).items():
        for parameter, gradient, weight in zip(
            module.parameters(),
            fixture["gradients"][name].values(),
            fixture["weights_after_one_adam_step"][name].values(),
            strict=True,
        ):
            torch.testing.assert_close(parameter.grad, gradient, **EXACT)
            torch.testing.assert_close(parameter.detach(), weight, **EXACT)
    decoded = model.backbone.decode(prior).mean.detach()
    torch.testing.assert_close(decoded, fixture["decode_of_prior_final"], **EXACT)
