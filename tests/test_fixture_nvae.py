"""The public NVAE's numbers from its published checkpoint format, in float64: latents, densities, KLs, samples."""

import argparse
from pathlib import Path

import pytest
import torch

from jlebm.backbones.nvae import NVAE, load_nvae
from jlebm.backbones.protocol import Backbone
from jlebm.errors import UserError
from jlebm.randomness import SharedNoise
from tests.public_numbers import NVAES, in_order, nvae

EXACT = {"rtol": 1e-9, "atol": 1e-11}
SMALL = "mnist_bernoulli"


@pytest.fixture(params=NVAES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[NVAE, dict]:
    """A network in float64 and its expected numbers."""
    path, expected = nvae(request.param, tmp_path)
    return load_nvae(path).double(), expected


@torch.no_grad()
def test_posterior_pass(case: tuple[NVAE, dict]) -> None:
    """Latents after the flows, log q, log p, the KL of each group; a mask or a clamp in the wrong place breaks it."""
    network, expected = case
    x, eps = 2 * expected["x"] - 1, in_order(expected["posterior_eps"])
    sample = network.posterior(x, lambda like: eps)
    for ours, theirs in zip(sample.latents, in_order(expected["posterior_z"]), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)
    torch.testing.assert_close(sample.log_prob, expected["log_q"], **EXACT)
    torch.testing.assert_close(network.prior_log_prob(sample.latents), expected["log_p"], **EXACT)
    terms = network.elbo_terms(x, eps)
    torch.testing.assert_close(terms.kl, expected["kl_all"], **EXACT)
    torch.testing.assert_close(terms.log_likelihood, expected["log_prob_x"].flatten(1).sum(1), **EXACT)
    assert all(torch.equal(a, b) for a, b in zip(terms.latents, sample.latents, strict=True))


@torch.no_grad()
def test_decoder(case: tuple[NVAE, dict]) -> None:
    """The decoder's parameters and the log-probability of every pixel under its distribution; the mixture's mean."""
    network, expected = case
    z, x = in_order(expected["posterior_z"]), 2 * expected["x"] - 1
    torch.testing.assert_close(network.decoder_parameters(z), expected["logits"], **EXACT)
    likelihood = network.decode(z)
    torch.testing.assert_close(likelihood.log_prob_terms(x), expected["log_prob_x"], **EXACT)
    torch.testing.assert_close(likelihood.log_prob(x), expected["log_prob_x"].flatten(1).sum(1), **EXACT)
    if "decoder_mean" in expected:
        torch.testing.assert_close((likelihood.mean + 1) / 2, expected["decoder_mean"], **EXACT)
    assert likelihood.mean.shape == x.shape


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_prior_samples(case: tuple[NVAE, dict], temperature: float) -> None:
    """Latents and images of the prior; the public code draws the top group in float32, the others follow it exactly."""
    network, expected = case
    if f"prior_eps_t{temperature}" not in expected:
        pytest.skip("not recorded for this network")
    eps, z = (in_order(expected[f"prior_{kind}_t{temperature}"]) for kind in ("eps", "z"))
    eps, z = tuple(part.double() for part in eps), tuple(part.double() for part in z)
    pushed = network.push(eps, temperature)
    for ours, theirs in zip(pushed, z, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    exact_top = (z[0] / (1.01 * temperature), *eps[1:])
    for ours, theirs in zip(network.push(exact_top, temperature), z, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)
    torch.testing.assert_close(network.decoder_parameters(z), expected[f"prior_logits_t{temperature}"], **EXACT)


@torch.no_grad()
def test_push_and_density_agree_by_change_of_variables(case: tuple[NVAE, dict]) -> None:
    """Log p0(T(eps)) + sum log sigma = log N(eps; 0, I): the prior in whitened noise is exact on a deep hierarchy."""
    network, _ = case
    noise = SharedNoise(torch.Generator().manual_seed(0))
    eps = noise(tuple(torch.empty(2, *shape, dtype=torch.float64) for shape in network.latent_shapes))
    log_det = torch.zeros(2, dtype=torch.float64)
    for step, _ in network.top_down(2, lambda step: step.prior.sample(eps[step.group])):
        log_det += step.prior.sigma.log().flatten(1).sum(1)
    normal = sum(torch.distributions.Normal(0.0, 1.0).log_prob(part).flatten(1).sum(1) for part in eps)
    torch.testing.assert_close(network.prior_log_prob(network.push(eps)) + log_det, normal, rtol=1e-11, atol=1e-9)
    assert isinstance(network, Backbone)


# ---- loading is safe and strict


class Hostile:
    """A pickle that would write a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


def change(tmp_path: Path, edit) -> Path:
    path, _ = nvae(SMALL, tmp_path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda c: c["state_dict"].pop("stem.bias"), "lacks the parameter 'stem.bias' of shape"),
        (lambda c: c["state_dict"].update(extra=torch.zeros(1)), "has the parameter 'extra'"),
        (lambda c: c["state_dict"].update({"stem.bias": torch.zeros(3)}), "'stem.bias' of .* has shape \\(3,\\)"),
        (lambda c: c["state_dict"]["stem.bias"].fill_(float("nan")), "'stem.bias' of .* is not finite"),
        (lambda c: c.pop("args"), "not a published NVAE checkpoint"),
        (lambda c: setattr(c["args"], "arch_instance", "res_elu"), "the cells 'res_elu'"),
        (lambda c: setattr(c["args"], "dataset", "pictures"), "names? the dataset 'pictures'"),
        (lambda c: delattr(c["args"], "num_channels_enc"), "lack 'num_channels_enc'"),
    ],
)
def test_an_unfit_checkpoint_is_a_sentence(tmp_path: Path, edit, sentence: str) -> None:
    """What is missing, left over, misshapen, not finite or of another architecture is named."""
    with pytest.raises(UserError, match=sentence):
        load_nvae(change(tmp_path, edit))


def test_a_hostile_pickle_is_never_executed(tmp_path: Path) -> None:
    """Nothing but tensors, containers and Namespace is built from the file."""
    path, trace = tmp_path / "hostile.pt", tmp_path / "trace"
    torch.save({"state_dict": {}, "args": Hostile(trace)}, path)
    with pytest.raises(UserError, match="cannot be read as a checkpoint of tensors and args alone"):
        load_nvae(path)
    assert not trace.exists()


def test_a_file_that_is_cut_short_or_missing_is_a_sentence(tmp_path: Path) -> None:
    """Half a download names the file."""
    path, _ = nvae(SMALL, tmp_path)
    whole = path.read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.pt cannot be read"):
        load_nvae(path)
    with pytest.raises(UserError, match="there is no checkpoint"):
        load_nvae(tmp_path / "nothing.pt")


def test_older_args_get_the_defaults_of_their_time(tmp_path: Path) -> None:
    """Entries that came later may be missing where the default says the same."""

    def forget(content: dict) -> None:
        for name in ("ada_groups", "min_groups_per_scale", "num_nf", "res_dist", "use_se"):
            delattr(content["args"], name)

    assert load_nvae(change(tmp_path, forget)).config == load_nvae(nvae(SMALL, tmp_path)[0]).config
