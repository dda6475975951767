"""Chains in whitened noise whose networks compute in bf16: what stays exact, and what rounding may do."""

import dataclasses
from pathlib import Path

import pytest
import torch

from jlebm import langevin
from jlebm.backbones.topdown import TopDownBackbone, TopDownConfig
from jlebm.densities import PriorInNoise, SomeLayers
from jlebm.energies import JointEnergy, PathMapEnergy, no_energy
from jlebm.engines.gradients import Autograd
from jlebm.engines.graphs import recordable
from jlebm.errors import UserError
from jlebm.hierarchy import PartialPosterior, reconstruct_from, resampled
from jlebm.langevin import Chain
from jlebm.latents import Latents, flatten, standard_normal_log_prob
from jlebm.model import JointModel
from jlebm.persistence import Persistence
from jlebm.randomness import SharedNoise
from tests.small import COLOURED, train_stage

CONFIG = TopDownConfig((3, 16, 16), (1, 4, 8), (8, 8, 8), (1, 1, 1), (4, 2, 2), (0, 0, 0), (0, 0, 0), 4)
CHAIN = Chain(
    6, 0.3, start="ancestral", space="noise", metropolis=True, discretisation="crank-nicolson", precision="bf16"
)
PLAIN = dataclasses.replace(CHAIN, precision="float32")
LARGEST = 0.2  # relative error through ten layers of eight bits, where a unit that changes sign changes its slope


def draws(seed: int) -> SharedNoise:
    return SharedNoise(torch.Generator().manual_seed(seed))


def model_of(config: TopDownConfig = CONFIG, seed: int = 0) -> JointModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TopDownBackbone(config)
        return JointModel(network, PathMapEnergy(6, 12).build_on(network))


MODEL = model_of()


def density(precision: str) -> PriorInNoise:
    return PriorInNoise(MODEL.backbone, MODEL.energy, precision=precision)


def test_values_and_gradients_are_rounded_ones() -> None:
    """Breaks if bf16 is not used, if a sum is taken in it, or if a gradient comes back in it."""
    eps = MODEL.noise(16, draws(1))
    (value, gradient), (exact, slope) = (
        Autograd(density(precision)).value_and_gradient(eps) for precision in ("bf16", "float32")
    )
    assert value.dtype == torch.float32
    assert {layer.dtype for layer in gradient} == {torch.float32}
    assert not torch.equal(value, exact)
    # Energies are compared without the Gaussian part, of tens of nats here and in float32.
    gaussian = standard_normal_log_prob(eps)
    assert relative(((value - gaussian)[:, None],), ((exact - gaussian)[:, None],)) < LARGEST
    ours, theirs = (tuple(map(torch.add, each, eps)) for each in (gradient, slope))
    assert relative(ours, theirs) < LARGEST


def relative(ours: Latents, theirs: Latents) -> float:
    """Return the root-mean-square of the difference over that of the second."""
    one, other = flatten(ours), flatten(theirs)
    return float((one - other).norm() / other.norm())


def test_without_energies_the_chain_is_that_of_float32() -> None:
    """Breaks if positions, noise, the Gaussian part or the acceptance are rounded: the bits are the same."""
    empty = JointModel(MODEL.backbone, no_energy(3))
    ours, theirs = (empty.sample_noise(8, chain, draws(2)) for chain in (CHAIN, PLAIN))
    assert all(map(torch.equal, ours, theirs))


class Slope(torch.nn.Module):
    """f(z) = the sum of a linear map of z, whose Gaussian is shifted by its weights."""

    def __init__(self, weights: torch.Tensor):
        super().__init__()
        self.linear = torch.nn.Linear(weights.numel(), 1, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(weights[None])

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return f of shape (batch, 1)."""
        return self.linear(z.flatten(1))


def test_a_corrected_chain_samples_the_rounded_density() -> None:
    """Breaks if the ratio mixes arithmetics: N(0, I) tilted by w . eps is N(w, I), here with weights that bf16 has."""
    config = TopDownConfig((3, 8, 8), (1, 8), (4, 4), (1, 0), (4, 0), (0, 0), (0, 0), 4)
    weights = torch.tensor([0.5, -1.0, 0.25, 0.0])
    network = model_of(config).backbone
    tilted = JointModel(network, JointEnergy([Slope(weights)]))
    chain = dataclasses.replace(CHAIN, steps=60, epsilon=0.8)
    trace = langevin.Trace()
    with torch.random.fork_rng(devices=[]):
        (end,) = langevin.run(
            tilted.noise(4_000, draws(3)),
            PriorInNoise(network, tilted.energy, precision="bf16"),
            chain,
            draws(4),
            trace,
        )
    flat = end.flatten(1)
    standard_error = 4_000**-0.5
    assert (flat.mean(0) - weights).abs().max() < 4.5 * standard_error
    assert (flat.var(0) - 1).abs().max() < 4.5 * 2**0.5 * standard_error
    accepted = torch.stack([info.accepted for info in trace.infos if info.accepted is not None]).float().mean()
    assert 0.5 < accepted < 1, "rounding shows in the acceptance, not in the samples"


def test_every_chain_in_noise_has_its_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if figures, scores or training run another arithmetic than the chain says."""
    seen: list[str] = []
    run = langevin.run

    def watched(position: Latents, log_density: object, *rest: object) -> Latents:
        prior = log_density.density if isinstance(log_density, SomeLayers) else log_density
        assert isinstance(prior, PriorInNoise)
        seen.append(prior.precision)
        return run(position, log_density, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(langevin, "run", watched)
    eps = MODEL.noise(1, draws(5))
    for chain in (CHAIN, PLAIN):
        MODEL.sample_prior(2, chain, draws(6))
        resampled(MODEL, eps, [1, 2], range(2), chain)
        next(reconstruct_from(MODEL, COLOURED, [0], PartialPosterior(2, chain, None)))
    assert seen == ["bf16"] * 3 + ["float32"] * 3
    seen.clear()
    for chain in (CHAIN, PLAIN):
        short = dataclasses.replace(chain, steps=2)
        train_stage(tmp_path, "two-stage", prior_chain=short, persistence=Persistence(20))
        assert set(seen) == {chain.precision}
        seen.clear()


def test_a_recording_is_of_one_precision() -> None:
    """Breaks if a CUDA graph that was recorded in float32 serves a chain in bf16."""
    none = no_energy(3)
    one, other = (recordable(PriorInNoise(MODEL.backbone, none, precision=name)) for name in ("bf16", "float32"))
    assert one is not None
    assert other is not None
    assert one.kind != other.kind


def test_what_a_chain_in_latents_cannot_have() -> None:
    """Breaks if a chain names an arithmetic that it does not use."""
    with pytest.raises(UserError, match="set its space to 'noise' or its precision to 'float32'"):
        Chain(4, 0.1, precision="bf16")
    assert CHAIN.describe().endswith(", Metropolis-corrected, networks in bf16")
    assert "bf16" not in PLAIN.describe()
