"""The public joint-training code's numbers, reproduced in float64: chains, losses, gradients and one Adam step."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
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


def top_first(pair: dict[str, Tensor]) -> Latents:
    """The fixture's index 0 is the bottom layer; ours is the top."""
    return pair["1"], pair["0"]


def recorded(noise: dict[str, dict[str, Tensor]]):
    """A noise source that replays the recorded draws in order."""
    draws = iter([noise[str(step)] for step in range(len(noise))])
    return lambda like: top_first(next(draws))


@pytest.fixture(scope="module")
def fixture() -> dict:
    """The recorded run as nested dictionaries; lists became dictionaries of their indices on the way into the file."""
    nested: dict = {}
    for path, value in load_file(Path(__file__).parent / "fixtures/joint_two_layer.safetensors").items():
        *above, name = path.split("/")
        place = nested
        for part in above:
            place = place.setdefault(part, {})
        place[name] = value
    return nested


def in_order(stored: dict[str, Tensor]) -> list[Tensor]:
    """The tensors of one network as its layers follow each other, weight before bias ("out" is the last layer)."""
    return [stored[name] for name in sorted(stored, key=lambda name: (".out." in name, name.replace("bias", "zbias")))]


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
        for parameter, value in zip(module.parameters(), in_order(fixture["weights_before"][name]), strict=True):
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
            in_order(fixture["gradients"][name]),
            in_order(fixture["weights_after_one_adam_step"][name]),
            strict=True,
        ):
            torch.testing.assert_close(parameter.grad, gradient, **EXACT)
            torch.testing.assert_close(parameter.detach(), weight, **EXACT)
    decoded = model.backbone.decode(prior).mean.detach()
    torch.testing.assert_close(decoded, fixture["decode_of_prior_final"], **EXACT)
