"""Chains that go on from update to update, and step sizes that travel with the energies."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import jlebm
from jlebm import checkpoints, langevin
from jlebm.backbones.topdown import TopDownBackbone
from jlebm.densities import PriorInNoise
from jlebm.energies import MapEnergy
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.learning.noise_contrast import NoiseContrastUpdate, logistic_loss
from jlebm.learning.scheme import ContrastiveUpdate
from jlebm.learning.step_sizes import Adaptation
from jlebm.learning.trainable import TrainingConfig
from jlebm.learning.two_stage import EnergyOptimizer, MixedUpdate, TwoStage, TwoStageExperiment
from jlebm.persistence import Persistence, PersistentChains
from jlebm.randomness import SharedNoise
from jlebm.run import open_run
from jlebm.sampling import Sampler
from jlebm.training import LoopControl, TrainState, fit, initial_state
from jlebm.weights import save_model
from tests.small import IMAGES
from tests.test_backbones_topdown import CONFIG
from tests.test_training import assert_same

CPU = torch.device("cpu")
SHAPES = ((3,), (2, 4, 4))
ADAPTED = Chain(4, 0.5, start="ancestral", space="noise", discretisation="crank-nicolson", sizes="adapted")
LEARNED = TwoStageExperiment(
    "toy/1",
    "toy",
    "toy",
    CONFIG,
    backbone="toy",
    energy=MapEnergy(4, 6),
    prior_chain=ADAPTED,
    optimizer=EnergyOptimizer(1e-2, beta1=0.9, ema_decay=0.5, largest_gradient=5.0),
    training=TrainingConfig(12, 8),
    adaptation=Adaptation(acceptance=0.9999, every=1),
    persistence=Persistence(24, restarts=0.2),
)


def backbone() -> TopDownBackbone:
    torch.manual_seed(4)
    return TopDownBackbone(CONFIG).eval().requires_grad_(False)


def images() -> np.ndarray:
    return IMAGES[:, :, :8, :8]


def trained(runs: Path, experiment: TwoStageExperiment = LEARNED, stop_after: int | None = None) -> TrainState:
    control = LoopControl(stop=lambda step: step == stop_after)
    with open_run(runs, experiment, 1) as run:
        return fit(run, images(), CPU, control, backbone())


def noise(seed: int) -> SharedNoise:
    return SharedNoise(torch.Generator().manual_seed(seed))


def test_every_chain_has_its_turn() -> None:
    """Breaks if some chains were taken twice as often: an update's are the next ones, and no chain is taken twice."""
    chains = PersistentChains(Persistence(12), SHAPES, CPU)
    seen = torch.cat([chains.chosen(step, 4) for step in range(6)])
    assert torch.equal(torch.bincount(seen), torch.full((12,), 2))
    assert torch.equal(chains.chosen(5, 4), torch.tensor([8, 9, 10, 11]))


def test_a_chain_goes_on_where_it_ended_or_begins_anew() -> None:
    """Breaks if a layer restarts without the others, or the share of restarts is another than asked for."""
    chains = PersistentChains(Persistence(4_000, restarts=0.3), SHAPES, CPU)
    indices = chains.chosen(0, 4_000)
    ends = tuple(torch.full((4_000, *shape), 7.0) for shape in SHAPES)
    chains.keep(indices, ends)
    begun = chains.begin(indices, noise(1))
    same = [(layer == 7).flatten(1).all(1) for layer in begun]
    assert torch.equal(same[0], same[1])
    assert not (begun[0][~same[0]] == 7).any()
    assert abs(float((~same[0]).double().mean()) - 0.3) < 4 * (0.3 * 0.7 / 4_000) ** 0.5
    assert abs(float(begun[1][~same[1]].std()) - 1) < 0.02
    # Which chains begin anew says nothing of where: their first number, too, has mean 0.
    anew = begun[0][~same[0]]
    assert (anew.mean(0).abs() < 5 / len(anew) ** 0.5).all()
    whole, none = (PersistentChains(Persistence(9, share), SHAPES, CPU) for share in (1.0, 0.0))
    for layer, start in zip(none.begin(none.chosen(0, 9), noise(2)), none.noise, strict=True):
        assert torch.equal(layer, start)
    for layer, start in zip(whole.begin(whole.chosen(0, 9), noise(2)), whole.noise, strict=True):
        assert not (layer == start).any()


@pytest.mark.slow
def test_half_and_half_is_the_whole_bitwise(tmp_path: Path) -> None:
    """Breaks if a checkpoint leaves out a chain, a step size or its average."""
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "halves", stop_after=5)
    halves = trained(tmp_path / "halves")
    assert_same(whole, halves)
    assert whole.chains is not None
    assert halves.chains is not None
    for ours, theirs in zip(whole.chains.noise, halves.chains.noise, strict=True):
        assert torch.equal(ours, theirs)


def test_the_chains_of_an_update_are_kept(tmp_path: Path) -> None:
    """Breaks if chains were run and not kept, or more than those of the update moved."""
    before = trained(tmp_path / "few", dataclasses.replace(LEARNED, training=TrainingConfig(1, 8)))
    after = trained(tmp_path / "more", dataclasses.replace(LEARNED, training=TrainingConfig(2, 8)))
    assert before.chains is not None
    assert after.chains is not None
    for ours, theirs in zip(before.chains.noise, after.chains.noise, strict=True):
        moved = (ours != theirs).flatten(1).any(1)
        assert torch.equal(moved.nonzero()[:, 0], torch.arange(8, 16))


@pytest.mark.slow
def test_step_sizes_travel_with_the_weights(tmp_path: Path) -> None:
    """Breaks if a file of weights forgot the sizes that its chains were trained with, or sampled with one for all."""
    state = trained(tmp_path)
    model = state.evaluated_model()
    sizes = model.energy.step_sizes
    assert sizes is not None
    assert len(sizes.unique()) > 1, "then the test says nothing"
    assert not torch.equal(sizes, torch.full_like(sizes, 0.5))
    with open_run(tmp_path, LEARNED, 1) as run:
        header = run.header() | {"step": state.step, "weights": "ema"}
    save_model(tmp_path / "weights.safetensors", model, header, Sampler(ADAPTED))
    loaded = jlebm.load(tmp_path / "weights.safetensors")
    assert torch.equal(loaded.model.energy.step_sizes, sizes)
    names = checkpoints.load_weights(tmp_path / "weights.safetensors")[0]
    assert not any("chains" in name for name in names), "the chains of a training are no part of the weights"
    found = loaded.sample(range(3))
    model.energy.step_sizes = torch.full_like(sizes, 1e-6)
    assert not np.array_equal(found, loaded.sample(range(3), chain=Chain(4, 1e-6, start="ancestral", space="noise")))


def test_sizes_are_probed_at_every_third_update() -> None:
    """Breaks if `every` were ignored: the sizes would follow single batches, and each update cost a probe."""
    third = dataclasses.replace(LEARNED, adaptation=Adaptation(acceptance=0.9999, every=3))
    state = initial_state(third, 1, CPU, backbone())
    scheme, source, x = third.scheme(), noise(3), torch.rand(8, 1, 8, 8) * 2 - 1
    probed = []
    for step in range(7):
        before = state.model.energy.step_sizes.clone()
        scheme.update(state.model, x, source, step)
        probed.append(not torch.equal(before, state.model.energy.step_sizes))
    assert probed == [True, False, False, True, False, False, True]


def test_a_chains_epsilon_cuts_off_larger_sizes() -> None:
    """Breaks if a chain with adapted sizes ignored its epsilon, "the largest": a smaller one would change nothing."""
    state = initial_state(LEARNED, 1, CPU, backbone())
    state.model.energy.step_sizes.copy_(torch.tensor([0.02, 0.5, 0.3, 0.1])[: len(state.model.energy.step_sizes)])
    density = PriorInNoise(state.model.backbone, state.model.energy)
    kept = state.model.energy.step_sizes.tolist()
    layers = len(kept)
    assert langevin.sizes_of(density, ADAPTED, layers) == tuple(kept), "the chain that it was trained with"
    small = dataclasses.replace(ADAPTED, epsilon=0.25)
    assert langevin.sizes_of(density, small, layers) == tuple(min(size, 0.25) for size in kept)
    ends = [state.model.sample_prior(3, chain, noise(5)) for chain in (ADAPTED, small)]
    assert not torch.equal(ends[0][1], ends[1][1])


def test_both_losses_are_added(tmp_path: Path) -> None:
    """Breaks if the gradient were that of one loss alone, or the logistic loss were of the chains' ends."""
    equal = dataclasses.replace(ADAPTED, sizes="equal")
    mixed = dataclasses.replace(LEARNED, persistence=None, adaptation=None, prior_chain=equal, noise_contrast=0.7)
    state, x = initial_state(mixed, 1, CPU, backbone()), torch.rand(8, 1, 8, 8) * 2 - 1
    gradients = []
    for experiment in (mixed, dataclasses.replace(mixed, noise_contrast=0.0)):
        update = experiment.scheme().update(state.model, x, noise(3), 1)
        gradients.append(torch.autograd.grad(update.loss(), list(state.learned.parameters())))
    both = mixed.scheme().update(state.model, x, noise(3), 1)
    assert isinstance(both, MixedUpdate)
    source = noise(3)  # the same draws: of the chain's start and steps, of the encoder, and of p0
    state.model.sample_prior(8, mixed.prior_chain, source)
    posterior = state.model.backbone.posterior(x, source).latents
    positive, negative = (state.model.energy(z).sum(1) for z in (posterior, state.model.sample_gaussian(8, source)))
    logistic = -(torch.sigmoid(-positive).log().mean() + torch.sigmoid(negative).log().mean())
    alone = torch.autograd.grad(logistic, list(state.learned.parameters()))
    for added, chains, contrast in zip(*gradients, alone, strict=True):
        torch.testing.assert_close(added, chains + 0.7 * contrast, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(both.figures()["noise_contrast"], logistic.detach())
    torch.testing.assert_close(both.figures()["loss"], both.loss().detach())
    assert {"accuracy", "energy_prior/z1", "energy_posterior/z4"} <= both.figures().keys()


def test_chains_at_every_fifth_update(tmp_path: Path) -> None:
    """Breaks if an update between two by chains moves a chain, or has another loss than noise contrast alone."""
    decaying = dataclasses.replace(LEARNED.optimizer, energy_l2=0.3)
    sparse = dataclasses.replace(LEARNED, noise_contrast=0.7, chains_every=5, optimizer=decaying)
    state = initial_state(sparse, 1, CPU, backbone())
    x, kept = torch.rand(8, 1, 8, 8) * 2 - 1, state.model.chains
    assert kept is not None
    before = [layer.clone() for layer in kept.noise]
    scheme, source = sparse.scheme(), SharedNoise(torch.Generator().manual_seed(3), 0, 1)
    assert isinstance(scheme, TwoStage)
    between = scheme.update(state.model, x, source, 4)
    assert isinstance(between, NoiseContrastUpdate)
    assert all(torch.equal(one, other) for one, other in zip(before, kept.noise, strict=True))
    positive, negative = between.positive.sum(1), between.negative.sum(1)
    squares = sum(each.square().sum(1).mean() for each in (between.positive, between.negative))
    expected = 0.7 * logistic_loss(positive, negative) + sparse.optimizer.energy_l2 * squares
    torch.testing.assert_close(between.loss(), expected)
    for update in (0, 5, 10):  # each by other chains: the first eight of 24, the next, the last
        assert isinstance(scheme.update(state.model, x, source, update), MixedUpdate)
    assert not any(bool((one == other).flatten(1).all(1).any()) for one, other in zip(before, kept.noise, strict=True))
    whole = trained(tmp_path / "whole", sparse)
    trained(tmp_path / "parts", sparse, stop_after=7)
    assert_same(whole, trained(tmp_path / "parts", sparse))
    assert sparse.digest() != LEARNED.digest()


def test_noise_contrast_ends_before_the_last_update(tmp_path: Path) -> None:
    """Breaks if an update after its end still classified, ran no chains, or took chains out of their turn."""
    ending = dataclasses.replace(LEARNED, noise_contrast=0.7, chains_every=5, contrast_updates=6)
    state = initial_state(ending, 1, CPU, backbone())
    x, kept = torch.rand(8, 1, 8, 8) * 2 - 1, state.model.chains
    assert kept is not None
    scheme, source = ending.scheme(), noise(3)
    kinds, turns = [], []
    for step in range(9):
        before = [layer.clone() for layer in kept.noise]
        kinds.append(type(scheme.update(state.model, x, source, step)))
        moved = torch.stack([(one != other).flatten(1).any(1) for one, other in zip(before, kept.noise, strict=True)])
        turns.append(moved.any(0).nonzero().flatten().tolist())
    between, chains = NoiseContrastUpdate, ContrastiveUpdate
    assert kinds == [MixedUpdate, *[between] * 4, MixedUpdate, *[chains] * 3]
    first, second, third = (list(range(8 * turn, 8 * turn + 8)) for turn in range(3))
    assert turns == [first, [], [], [], [], second, third, first, second]
    plain = dataclasses.replace(LEARNED, noise_contrast=0.0).scheme().update(state.model, x, noise(4), 12)
    ended = scheme.update(state.model, x, noise(4), 13)  # the same turn of the same chains
    assert ended.figures().keys() == plain.figures().keys()
    whole = trained(tmp_path / "whole", ending)
    trained(tmp_path / "parts", ending, stop_after=5)  # before the end of noise contrast, and after it
    trained(tmp_path / "parts", ending, stop_after=8)
    assert_same(whole, trained(tmp_path / "parts", ending))
    assert ending.digest() != dataclasses.replace(ending, contrast_updates=None).digest()


def test_a_checkpoint_of_other_chains_is_refused(tmp_path: Path) -> None:
    """Breaks if chains that a run does not have were loaded, or lacking ones drawn anew without a word."""
    trained(tmp_path, stop_after=5)
    with open_run(tmp_path, LEARNED, 1) as run:
        state = checkpoints.load(run.checkpoint, LEARNED.digest(), 1)
        del state["chains"]
        checkpoints.save(run.checkpoint, state, LEARNED.digest(), 1)
    with pytest.raises(UserError, match="'chains'"):
        trained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"persistence": Persistence(25)}, "must be a multiple of training.batch_size"),
        ({"prior_chain": dataclasses.replace(ADAPTED, sizes="equal")}, "or neither"),
        ({"adaptation": None}, "or neither"),
        ({"adaptation": Adaptation(least=0.6)}, r"least, 0\.6, must not be above the largest step size"),
        ({"adaptation": Adaptation(every=3), "noise_contrast": 1.0, "chains_every": 2}, "multiples of one another"),
        ({"persistence": None, "training": TrainingConfig(12, 8, parts=2)}, "set training.parts to 1, not 2"),
        ({"estimator": "noise-contrast"}, "noise contrast runs no chains"),
        ({"chains_every": 5}, "give noise_contrast a weight"),
        ({"chains_every": 3, "noise_contrast": 1.0}, "chains_every must divide 10"),
        ({"chains_every": 0}, "chains_every must divide 10"),
        ({"contrast_updates": 6}, "give noise_contrast a weight"),
        ({"contrast_updates": 0, "noise_contrast": 1.0}, "between 0 and training.steps, 12"),
        ({"contrast_updates": 12, "noise_contrast": 1.0}, "between 0 and training.steps, 12"),
        (
            {"prior_chain": Chain(3, 0.1), "adaptation": None},
            "set prior_chain.space to 'noise'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], sentence: str) -> None:
    """Breaks if a setting were ignored: each of these would train something else than it says."""
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(LEARNED, **changes)  # pyright: ignore


def test_digests_without_these_settings_stay() -> None:
    """Breaks if a configuration of before had another digest: its runs and rows would be lost."""
    plain = dataclasses.replace(
        LEARNED, prior_chain=Chain(4, 0.5, start="ancestral", space="noise"), adaptation=None, persistence=None
    )
    names = plain.to_json()
    assert not names.keys() & {"adaptation", "persistence"}
    assert not names["prior_chain"].keys() & {"discretisation", "sizes"}
    assert TwoStageExperiment.from_json(LEARNED.to_json()) == LEARNED
