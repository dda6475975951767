"""Recorded steps are the steps themselves, whatever changes between two chains; here on a tape instead of a GPU.

`tests.tape` repeats operations in the memory that they were recorded in, as a CUDA graph does, so that everything but
the three calls of `torch.cuda` is tested: what is copied, what is read where it lies, and what makes another recording.
"""

import copy
import dataclasses
import gc
import itertools
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jlebm import langevin
from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.backbones.ladder import LadderBackbone, LadderConfig
from jlebm.backbones.nvae import frozen_copy
from jlebm.densities import LogDensity, Posterior, PriorInLatents, PriorInNoise, SomeLayers
from jlebm.distributions import Normal
from jlebm.energies import JointEnergy, conv_energy, mlp_energy
from jlebm.engines import graphs
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.randomness import PerImageNoise, SharedNoise
from jlebm.sampling import Sampler, generate
from tests import tape
from tests.small import IMAGES, backbone, fit_one, ladder_experiment, train, train_stage

CHAIN = Chain(12, 0.02)  # two recordings' length of six steps
BATCH = 3
CONFIG = ConvConfig((1, 8, 8), (3, 4), channels=(6, 5), conditional_hidden=(8,))


@pytest.fixture(autouse=True)
def recordings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[None]]:
    """Record on this CPU; one entry a recording that was made."""
    made: list[None] = []

    def record(work: Callable[[], None]) -> Callable[[], None]:
        made.append(None)
        return tape.record(work)

    monkeypatch.setattr(graphs, "recorder", lambda device: record)
    monkeypatch.setattr(graphs, "_off", False)
    graphs._kept.clear()
    yield made
    graphs._kept.clear()


def conv(dtype: torch.dtype = torch.float64) -> JointModel:
    torch.manual_seed(0)
    return JointModel(ConvBackbone(CONFIG), mlp_energy((3, 4), ((6,), (6, 6)))).to(dtype)


def ladder() -> JointModel:
    torch.manual_seed(0)
    config = LadderConfig((1, 8, 8), (2, 3, 4), channels=(6, 5), conditional_hidden=(7,), features=9)
    return JointModel(LadderBackbone(config), mlp_energy((2, 3, 4), ((6,), (6,), (6, 6)))).double()


def deep() -> JointModel:
    network = frozen_copy(backbone())
    return JointModel(network, conv_energy(network.latent_shapes, 4, 6)).double()


def images(seed: int = 0) -> Tensor:
    return torch.rand(BATCH, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def prior(model: JointModel) -> PriorInLatents:
    return PriorInLatents(model.backbone, model.energy)


def posterior(model: JointModel, seed: int = 0) -> Posterior:
    return Posterior(model.backbone, model.energy, images(seed))


DENSITIES: dict[str, tuple[Callable[[], JointModel], Callable[[JointModel], LogDensity]]] = {
    "prior, written out": (conv, prior),
    "prior, by autograd": (ladder, prior),
    "posterior": (conv, posterior),
    "posterior of a ladder": (ladder, posterior),
    "noise of a deep hierarchy": (deep, lambda model: PriorInNoise(model.backbone, model.energy)),
    "released drift": (deep, lambda model: PriorInNoise(model.backbone, model.energy, "released")),
}


def of(name: str) -> tuple[JointModel, LogDensity]:
    """Return a model, which keeps the weights alive, and its density of that name."""
    model, density = DENSITIES[name]
    made = model()
    return made, density(made)


def noise() -> SharedNoise:
    return SharedNoise(torch.Generator().manual_seed(5))


def run(density: LogDensity, model: JointModel, chain: Chain = CHAIN, source=None) -> Latents:
    source = source or noise()
    return langevin.run(model.noise(BATCH, source), density, chain, source)


def step_by_step(density: LogDensity, model: JointModel, chain: Chain = CHAIN, source=None) -> Latents:
    """The same chain on a device that records nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "recorder", lambda device: None)
        return run(density, model, chain, source)


def assert_same(found: Latents, right: Latents) -> None:
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", DENSITIES)
def test_a_recorded_chain_is_the_chain(name: str, recordings: list[None]) -> None:
    """All steps and all noise, once each; a value of the recorded chain that is kept breaks the second one."""
    model, density = of(name)
    right = step_by_step(density, model)
    assert not recordings
    first = run(density, model)
    kept = [layer.clone() for layer in first]
    other = SharedNoise(torch.Generator().manual_seed(6))
    assert_same(run(density, model, source=other), step_by_step(density, model, source=_seeded(6)))
    assert_same(first, right)
    assert_same(tuple(kept), first)  # a later chain leaves the end of an earlier one alone
    assert len(recordings) == 1


def _seeded(seed: int) -> SharedNoise:
    return SharedNoise(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["prior, written out", "prior, by autograd", "posterior", "noise of a deep hierarchy"])
def test_weights_that_are_updated_in_place_are_seen(name: str, recordings: list[None]) -> None:
    """An optimiser's step or a loaded state needs no other recording; a copy of weights in one breaks it."""
    model, density = of(name)
    before = run(density, model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.2)
    after = run(density, model)
    assert_same(after, step_by_step(density, model))
    assert not torch.equal(after[0], before[0])
    assert len(recordings) == 1


def test_other_images_are_seen(recordings: list[None]) -> None:
    """The chain of another batch, as in training; images that are read where they first lay break it."""
    model = conv()
    first = run(posterior(model), model)
    density = posterior(model, seed=1)
    second = run(density, model)
    assert_same(second, step_by_step(density, model))
    assert not torch.equal(first[1], second[1])
    assert len(recordings) == 1


def test_given_latents_are_seen(recordings: list[None]) -> None:
    """Upper layers that are kept are inputs as images are."""
    model = deep()
    _, below = model.backbone.latent_shapes
    for seed in (1, 2):
        top = model.noise(BATCH, _seeded(seed))[:1]
        density = PriorInNoise(model.backbone, model.energy, given=top)
        start = (torch.randn(BATCH, *below, generator=torch.Generator().manual_seed(3), dtype=torch.float64),)
        found = langevin.run(start, density, CHAIN, noise())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(graphs, "recorder", lambda device: None)
            assert_same(found, langevin.run(start, density, CHAIN, noise()))
    assert len(recordings) == 1


def test_what_changes_a_step_makes_another_recording(recordings: list[None]) -> None:
    """Step size, temperature, batch, type and arithmetic; the length only where it is made of other pieces."""
    model = conv()
    density = prior(model)
    for chain in (CHAIN, Chain(12, 0.03), Chain(12, 0.02, temperature=0.5)):
        assert_same(run(density, model, chain), step_by_step(density, model, chain))
    assert len(recordings) == 3
    assert_same(run(density, model, Chain(36, 0.02)), step_by_step(density, model, Chain(36, 0.02)))
    count = len(recordings)
    for tf32 in (True, False, True):
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32):
            run(density, model, Chain(36, 0.02))
    assert len(recordings) == count + 1
    count = len(recordings)
    single = copy.deepcopy(model).float()
    run(PriorInLatents(single.backbone, single.energy), single)
    assert len(recordings) == count + 1
    source = noise()
    langevin.run(model.noise(BATCH + 1, source), density, CHAIN, source)
    assert len(recordings) == count + 2


def test_chains_of_any_length() -> None:
    """A graph holds a divisor of the steps: none is left over, none is taken twice, whatever was recorded before."""
    model = conv()
    density = prior(model)
    for steps in (12, 0, 1, 7, 13, 20, 12):
        chain = Chain(steps, 0.02)
        assert_same(run(density, model, chain), step_by_step(density, model, chain))


def test_the_stream_of_noise_goes_on_where_it_would() -> None:
    """After the chain the next draw is the one that follows the steps taken one by one."""
    model = conv()
    density = prior(model)
    for make in (noise, lambda: PerImageNoise("sample", range(BATCH))):
        ours, theirs = make(), make()
        run(density, model, source=ours)
        step_by_step(density, model, source=theirs)
        like = (torch.empty(BATCH, 16),)
        torch.testing.assert_close(ours(like), theirs(like), rtol=0, atol=0)


def test_what_a_density_is_makes_another_recording(recordings: list[None]) -> None:
    """The drift, and a backbone of other constants upon the same weights."""
    model = deep()
    for drift in ("exact", "released", "exact"):
        density = PriorInNoise(model.backbone, model.energy, drift)
        assert_same(run(density, model), step_by_step(density, model))
    assert len(recordings) == 2
    model = conv()
    wide = ConvBackbone(dataclasses.replace(CONFIG, top_sigma=2.0)).double()
    wide.generator, wide.conditionals = model.backbone.generator, model.backbone.conditionals  # pyright: ignore
    for one in (model.backbone, wide, model.backbone):
        density = PriorInLatents(one, model.energy)
        assert_same(run(density, model), step_by_step(density, model))
    assert len(recordings) == 4


def test_a_recording_outlives_no_module(recordings: list[None]) -> None:
    """Another module at the same place in memory, with its weights where they were, is another module."""
    model = conv()
    density = prior(model)
    run(density, model)
    ((key, entry),) = graphs._kept.items()
    graphs._kept[key] = entry._replace(owners=tuple(weakref.ref(nn.Identity()) for _ in entry.owners))
    assert_same(run(density, model), step_by_step(density, model))
    assert len(recordings) == 2


def test_weights_elsewhere_make_another_recording(recordings: list[None]) -> None:
    """Weights of another module, or moved ones; a graph goes on reading the memory that it knows."""
    model = conv()
    run(PriorInLatents(model.backbone, model.energy), model)
    model.energy.networks[0][0].weight = nn.Parameter(1.5 * model.energy.networks[0][0].weight.detach())  # pyright: ignore
    density = prior(model)
    assert_same(run(density, model), step_by_step(density, model))
    other = copy.deepcopy(model)
    density = PriorInLatents(other.backbone, other.energy)
    assert_same(run(density, other), step_by_step(density, other))
    assert len(recordings) == 3


def test_few_recordings_are_kept_and_none_keeps_its_model() -> None:
    """Each holds memory of the device; a model that is used no more is let go.

    The tape itself holds what it read, as no CUDA graph does: only what the recording itself holds is asked for.
    """
    model = conv()
    for steps in range(1, 9):
        run(PriorInLatents(model.backbone, model.energy), model, Chain(2, 0.01 * steps))
    assert len(graphs._kept) == graphs.KEPT
    energy = weakref.ref(model.energy)
    for entry in graphs._kept.values():
        assert entry.recording is not None
        entry.recording.launch = lambda: None
    del model, entry
    gc.collect()
    assert energy() is None


# ---- what is not recorded


class Counting(ConvBackbone):
    """Computes in Python what no recording would repeat: a sigma that grows with every call."""

    calls = 0

    def decode(self, z: Latents) -> Normal:
        """Return p(x|z) of a call."""
        self.calls += 1
        return Normal.constant_sigma(super().decode(z).mean, 0.3 + self.calls)


class Doubled(nn.Linear):
    """A layer that torch does not have."""

    def forward(self, input: Tensor) -> Tensor:
        """Return twice the layer's output."""
        return 2 * super().forward(input)


def test_what_may_depend_on_more_is_not_recorded(recordings: list[None]) -> None:
    """A subclass, a hook, a layer of one's own, held layers, an observer, a correction: each goes step by step."""
    model = conv()
    of_model = prior(model)
    counting = Counting(CONFIG).double()
    own = JointEnergy([nn.Sequential(Doubled(3, 1)), nn.Sequential(Doubled(4, 1))]).double()
    hooked = copy.deepcopy(model)
    hooked.energy.networks[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    start = model.noise(BATCH, noise())
    assert graphs.recordable(Posterior(counting, model.energy, images())) is None
    for density in (
        PriorInLatents(counting, model.energy),
        PriorInLatents(model.backbone, own),
        PriorInLatents(hooked.backbone, hooked.energy),
        lambda z: of_model(z),
    ):
        langevin.run(start, density, CHAIN, noise())
    langevin.run(start[:1], SomeLayers(of_model, start, (0,)), CHAIN, noise())
    langevin.run(start, of_model, CHAIN, noise(), observe=langevin.Trace())
    langevin.run(start, of_model, Chain(3, 0.02, metropolis=True), noise())
    assert not recordings
    langevin.run(start, of_model, CHAIN, noise())
    assert len(recordings) == 1


def test_what_cannot_be_recorded_goes_step_by_step_and_says_so(recordings: list[None]) -> None:
    """One warning, the right chain, and nothing is recorded any more in this process."""
    model = conv()
    density = prior(model)
    right = step_by_step(density, model)

    def reads(self: ConvBackbone) -> None:
        float(next(self.parameters()).detach().sum())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConvBackbone, "mlp_hierarchy", reads)
        with pytest.warns(UserWarning, match=r"step by step.*_local_scalar_dense"):
            found = run(density, model)
    assert_same(found, right)
    assert len(recordings) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(run(density, model), right)
        assert_same(run(density, model, Chain(12, 0.03)), step_by_step(density, model, Chain(12, 0.03)))
    assert len(recordings) == 1


def test_a_recording_that_gives_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tape that does nothing, or the last step alone, is found out before it is used."""
    model = conv()
    density = prior(model)
    right = step_by_step(density, model)
    for wrong in (lambda work: lambda: None, lambda work: lambda: (work(), work())):
        graphs._kept.clear()
        monkeypatch.setattr(graphs, "recorder", lambda device, wrong=wrong: wrong)
        with pytest.warns(UserWarning, match="other latents than the steps"):
            assert_same(run(density, model), right)


def test_a_chain_inside_an_autocast_is_not_recorded(recordings: list[None]) -> None:
    """Whoever surrounds a chain with another arithmetic gets it, step by step."""
    model = conv(torch.float32)
    density = prior(model)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(density, model)
    assert not recordings
    assert not torch.equal(found[0], run(density, model)[0])


@pytest.mark.parametrize("enabled", [True, False])
def test_weights_of_a_bf16_generator_are_seen_when_they_change(enabled: bool, recordings: list[None]) -> None:
    """A cast that an autocast around the chain keeps would be that of the first weights for ever."""
    torch.manual_seed(0)
    backbone = ConvBackbone(dataclasses.replace(CONFIG, precision="bf16"))
    model = JointModel(backbone, mlp_energy((3, 4), ((6,), (6, 6))))
    density = Posterior(backbone, model.energy, images().float())
    with torch.autocast("cpu", torch.bfloat16, enabled=False) if not enabled else nullcontext():
        run(density, model)
    with torch.no_grad():
        for parameter in backbone.generator.parameters():
            parameter.mul_(1.5)
    found, right = run(density, model), step_by_step(density, model)
    assert len(recordings) == 1
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one, other)


def test_a_recording_made_in_inference_mode_is_one_for_later(recordings: list[None]) -> None:
    """Its places can be written to outside of that mode too."""
    model = conv()
    density = prior(model)
    right = step_by_step(density, model)
    with torch.inference_mode():
        assert_same(run(density, model), right)
    assert_same(run(density, model), right)
    assert len(recordings) == 1


# ---- where chains are run


@pytest.mark.parametrize(
    "kind",
    ["joint-mle", "variational", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("ladder", "two-stage"))],
)
def test_a_training_on_recorded_chains_is_the_training(
    kind: str, recordings: list[None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights to the bit after updates of weights and of images; each kind of chain is recorded once."""

    def trained(folder: Path) -> dict[str, Tensor]:
        if kind == "two-stage":
            state = train_stage(folder, "two-stage")[1]
        elif kind == "ladder":
            state = fit_one(folder, ladder_experiment(), IMAGES)[1]
        else:
            state = train(folder, learning=kind, steps=8)[1]
        return state.learned.state_dict()

    found = trained(tmp_path / "recorded")
    assert len(recordings) == (2 if kind == "joint-mle" else 1)
    monkeypatch.setattr(graphs, "recorder", lambda device: None)
    right = trained(tmp_path / "steps")
    for name, value in right.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=f"{name} differs")


def test_samples_of_recorded_chains_are_the_samples(recordings: list[None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Image by image to the bit, the last and smaller batch included; it is a recording of its own."""
    model = conv(torch.float32)
    images = torch.cat([batch.images for batch in generate(model, "ebm-prior", range(8), Sampler(CHAIN), batch_size=3)])
    assert len(recordings) == 2
    monkeypatch.setattr(graphs, "recorder", lambda device: None)
    right = torch.cat([batch.images for batch in generate(model, "ebm-prior", range(8), Sampler(CHAIN), batch_size=8)])
    torch.testing.assert_close(images, right, rtol=0, atol=0)


# ---- what cannot be seen on a tape


def test_live_graphs_never_share_a_stream() -> None:
    """Two that do share the matrix library's workspace, which is freed with the first of them."""
    streams, live = graphs.Streams(object), []
    for _ in range(graphs.KEPT):
        live.append(streams.taken(live))
    assert len(set(map(id, live))) == graphs.KEPT
    gone = live.pop(1)
    assert streams.taken(live) is gone, "a stream is taken again, and not made for each recording"
    alone = streams.taken(())
    assert streams.taken(()) is alone
    dealt = itertools.cycle("abc")  # torch deals a device's streams in turn, and others take some of them
    few = graphs.Streams(lambda: next(dealt))
    assert [few.taken(["a"]), few.taken(["a", "b"]), few.taken(["b", "c"])] == ["b", "c", "a"]


def test_a_cpu_and_old_versions_of_torch_record_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU a launch costs next to nothing; before 2.14 a failed recording makes the allocator raise later."""
    monkeypatch.undo()
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    for version, records in (("2.11.0+cu128", False), ("2.13.1", False), ("2.14.0a0+git1", True), ("3.0.0", True)):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "__version__", version)
            assert (graphs.recorder(gpu) is graphs.Graph) == records
            assert graphs.recorder(cpu) is None


def test_the_environment_switches_recordings_off(monkeypatch: pytest.MonkeyPatch, recordings: list[None]) -> None:
    """JLEBM_GRAPHS=0 is for the owner of a GPU on which they fail; another value is refused."""
    model, density = of("posterior")
    monkeypatch.setenv("JLEBM_GRAPHS", "0")
    right = run(density, model)
    assert not recordings
    monkeypatch.setenv("JLEBM_GRAPHS", "1")
    assert_same(run(density, model), right)
    assert len(recordings) == 1
    monkeypatch.setenv("JLEBM_GRAPHS", "off")
    with pytest.raises(UserError, match="JLEBM_GRAPHS is 'off'"):
        run(density, model)


def test_two_threads_share_a_recording(recordings: list[None]) -> None:
    """They take turns: each chain is its own, though both write into the same places."""
    model, density = of("posterior")
    right = [step_by_step(density, model, source=_seeded(seed)) for seed in range(4)]
    run(density, model)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: run(density, model, source=_seeded(seed)), range(4)))
    for one, other in zip(found, right, strict=True):
        assert_same(one, other)
    assert len(recordings) == 1
