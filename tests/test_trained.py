"""Trained models from their files: the samples of their recipes to the bit, one sentence for everything else."""

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import torch

import jlebm
import jlebm.evaluation
from jlebm import checkpoints, sampling
from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.backbones.nvae import digest_of, frozen_copy, save_nvae
from jlebm.backbones.protocol import Backbone
from jlebm.energies import mlp_energy
from jlebm.errors import UserError
from jlebm.experiment import OptimizerConfig
from jlebm.hierarchy import PartialPosterior, reconstruct_from, scores_above
from jlebm.langevin import Chain
from jlebm.learning.trainable import Trainable
from jlebm.model import JointModel
from jlebm.run import Run
from jlebm.sampling import Sampler
from jlebm.trained import checked_seeds
from tests.small import (
    COLOURED,
    HIERARCHY,
    IMAGES,
    backbone,
    experiment,
    fit_one,
    ladder_experiment,
    two_stage_experiment,
)

CHAIN = Chain.from_two_stage_paper(4, 0.04)
KINDS = ("joint-mle", "variational", "ladder", "gaussian", "two-stage")


class Case(NamedTuple):
    """A tiny run of one kind, with what its recipe samples from."""

    run: Run
    model: JointModel
    chain: Chain
    posterior_chain: Chain | None
    images: np.ndarray
    batch_size: int | None = None

    @property
    def prior(self) -> sampling.Prior:
        """The prior that its recipe samples by a chain, or the only one that it has."""
        return "gaussian-prior" if self.run.experiment.learning == "gaussian" else "ebm-prior"


def case(folder: Path, kind: str) -> Case:
    """Train and store as the recipe of a kind does."""
    network, batch = None, None
    one: Trainable
    if kind == "two-stage":
        one, images, network, batch = two_stage_experiment(), COLOURED, frozen_copy(backbone()), 3
    elif kind in ("joint-mle", "variational"):
        one, images = experiment(kind), IMAGES
    else:
        one, images = ladder_experiment("gaussian" if kind == "gaussian" else "variational"), IMAGES
    run, state = fit_one(folder, one, images, backbone=network)
    chain = CHAIN if kind == "two-stage" else one.prior_chain
    header = run.header() | {"step": state.step, "weights": "ema"}
    jlebm.save_model(run.weights, state.evaluated_model(), header, Sampler(chain), batch)
    posterior = one.posterior_chain if kind == "joint-mle" else None
    return Case(run, state.evaluated_model(), chain, posterior, images, batch)


class Cases(dict[str, Case]):
    """One run of each kind, trained when a test first asks for it."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        super().__init__()
        self.factory = factory

    def __missing__(self, kind: str) -> Case:
        self[kind] = case(self.factory.mktemp(kind), kind)
        return self[kind]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return Cases(tmp_path_factory)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_those_of_the_trained_model(cases: dict[str, Case], kind: str, tmp_path: Path) -> None:
    """Breaks if the file alone, elsewhere, gives other weights, chains, memory layouts or batches than training had."""
    one = cases[kind]
    moved = Path(shutil.copy(one.run.weights, tmp_path / "moved.safetensors"))
    for path in (one.run.folder, one.run.weights, str(moved)):
        loaded = jlebm.load(path)
        assert loaded.header["seed"] == 1
        assert loaded.experiment == one.run.experiment
        for prior in {one.prior, "gaussian-prior"}:
            batches = sampling.generate(one.model, prior, range(7), sampling.Sampler(one.chain), one.batch_size)
            np.testing.assert_array_equal(loaded.sample(range(7), prior), sampling.gathered(batches))


@pytest.mark.parametrize("kind", KINDS)
def test_reconstructions_are_those_of_the_trained_model(cases: dict[str, Case], kind: str) -> None:
    """Breaks if the posterior's chain is forgotten, or the wrong layers are kept."""
    one = cases[kind]
    loaded, images = jlebm.load(one.run.weights), one.images[:5]
    size = one.batch_size or 100
    whole = sampling.gathered(sampling.reconstruct(one.model, images, range(5), one.posterior_chain, size))
    np.testing.assert_array_equal(loaded.reconstruct(images), whole)
    np.testing.assert_array_equal(loaded.reconstruct(images, keep=loaded.layers, prior=one.prior), whole)
    drawn = reconstruct_from(
        one.model, images, range(5), PartialPosterior(loaded.layers - 1, None, one.posterior_chain), size
    )
    np.testing.assert_array_equal(loaded.reconstruct(images, 1, "gaussian-prior"), sampling.gathered(drawn))


@pytest.mark.parametrize("kind", KINDS)
def test_inference_mode_changes_nothing(cases: dict[str, Case], kind: str) -> None:
    """Breaks if a chain could not follow gradients there: the mode is where users of torch call trained models."""
    one = cases[kind]
    plain, images = jlebm.load(one.run.weights), one.images[:3]
    with torch.inference_mode():
        there = jlebm.load(one.run.weights)
        for loaded in (plain, there):
            for prior in {one.prior, "gaussian-prior"}:
                np.testing.assert_array_equal(loaded.sample(range(3), prior), plain.sample(range(3), prior))
            np.testing.assert_array_equal(loaded.reconstruct(images), plain.reconstruct(images))
            np.testing.assert_array_equal(loaded.score(images), plain.score(images))
    np.testing.assert_array_equal(there.sample(range(3), one.prior), plain.sample(range(3), one.prior))


@pytest.mark.parametrize("kind", ["joint-mle", "ladder"])
def test_reconstructions_are_decoded_as_the_sampler_says(cases: dict[str, Case], kind: str) -> None:
    """Breaks if some of the layers kept meant the decoder's mean, whatever the sampler says."""
    one = cases[kind]
    sampler = Sampler(one.chain, decoding="sample")
    drawn, mean = jlebm.load(one.run.weights, sampler=sampler), jlebm.load(one.run.weights)
    for keep in range(drawn.layers + 1):
        ours, theirs = (loaded.reconstruct(one.images[:4], keep, "gaussian-prior") for loaded in (drawn, mean))
        assert (ours != theirs).mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_trained_model(cases: dict[str, Case], kind: str) -> None:
    """Breaks if k counts the layers from the top, or L^{>0} runs a chain of the prior."""
    one = cases[kind]
    loaded, images = jlebm.load(one.run.weights), one.images[:5]
    size, posterior = one.batch_size or 100, one.posterior_chain
    for k in (0, 1):
        expected = scores_above(one.model, images, range(5), PartialPosterior(k, None, posterior), batch_size=size)
        np.testing.assert_array_equal(loaded.score(images, above=k, prior="gaussian-prior"), expected)
    if one.chain.space == "noise" and one.prior == "ebm-prior":
        expected = scores_above(one.model, images, range(5), PartialPosterior(1, one.chain, posterior), batch_size=size)
        np.testing.assert_array_equal(loaded.score(images, above=1), expected)
        assert (loaded.score(images, above=1) != loaded.score(images, above=1, prior="gaussian-prior")).any()


def test_an_image_depends_on_its_seed_alone(cases: dict[str, Case]) -> None:
    """Breaks if the place of a seed among the others moves its image."""
    loaded = jlebm.load(cases["two-stage"].run.weights)
    all_of_them = loaded.sample(range(6), batch_size=1)
    np.testing.assert_array_equal(loaded.sample(np.array([5, 2]), batch_size=1), all_of_them[[5, 2]])
    assert loaded.sample([]).shape == (0, 3, 16, 16)
    assert loaded.reconstruct(COLOURED[:0]).shape == (0, 3, 16, 16)
    assert loaded.score(COLOURED[:0]).shape == (0,)


def test_the_chain_can_be_another(cases: dict[str, Case]) -> None:
    """Breaks if the file's own chain is taken where another is given; no steps give the Gaussian prior."""
    path = cases["ladder"].run.weights
    none = Chain(0, 0.02, start="ancestral", space="noise")
    gaussian = jlebm.load(path).sample(range(4), "gaussian-prior")
    np.testing.assert_array_equal(jlebm.load(path).sample(range(4), chain=none), gaussian)
    np.testing.assert_array_equal(jlebm.load(path, sampler=Sampler(none)).sample(range(4)), gaussian)
    cold = jlebm.load(path, sampler=Sampler(none, temperature=0.0)).sample(range(4))
    np.testing.assert_array_equal(cold[0], cold[1], "at temperature 0 every seed has the mean")


def test_loading_draws_nothing_from_the_global_generator(cases: dict[str, Case]) -> None:
    """Breaks if the weights that are drawn and then replaced move somebody's own random numbers."""
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    jlebm.load(cases["joint-mle"].run.weights)
    assert torch.equal(torch.randn(3), expected)


def energies_alone(folder: Path, one: Case) -> Path:
    """Write what earlier versions wrote of a two-stage run."""
    folder.mkdir()
    header = one.run.header() | {"step": 12, "weights": "ema"}
    checkpoints.save_weights(folder / "weights.safetensors", one.model.energy, header)
    return folder / "weights.safetensors"


def test_energies_that_were_stored_alone(cases: dict[str, Case], tmp_path: Path) -> None:
    """Breaks if they load without their backbone, on another one, or are sampled by a chain that nobody named."""
    one, network = cases["two-stage"], backbone().to(memory_format=torch.channels_last)
    path = energies_alone(tmp_path / "run", one)
    with pytest.raises(UserError, match="energies without their backbone"):
        jlebm.load(path)
    save_nvae(tmp_path / "run/backbone.safetensors", network)
    elsewhere = Path(shutil.copy(tmp_path / "run/backbone.safetensors", tmp_path / "mine.safetensors"))
    expected = sampling.gathered(sampling.generate(one.model, "gaussian-prior", range(5), sampling.Sampler(CHAIN), 3))
    moved = energies_alone(tmp_path / "moved", one)
    for loaded in (jlebm.load(tmp_path / "run"), jlebm.load(path), jlebm.load(moved, backbone=elsewhere)):
        np.testing.assert_allclose(loaded.sample(range(5), "gaussian-prior", batch_size=3), expected, atol=1)
        assert loaded.sample(range(5), chain=CHAIN).shape == expected.shape
        with pytest.raises(UserError, match="without the chain of their samples"):
            loaded.sample(range(5))
    (tmp_path / "run/backbone.sha256").write_text(digest_of(network) + "\n")
    jlebm.load(path)
    save_nvae(tmp_path / "run/backbone.safetensors", backbone(seed=4))
    with pytest.raises(UserError, match="were learned on another backbone"):
        jlebm.load(path)
    save_nvae(elsewhere, backbone(HIERARCHY.__class__(**{**vars(HIERARCHY), "num_channels_dec": 8})))
    with pytest.raises(UserError, match="another configuration"):
        jlebm.load(moved, backbone=elsewhere)


def altered(path: Path, to: Path, **changes: Any) -> Path:
    """Copy a weights file with another header."""
    weights, header = checkpoints.load_weights(path)
    holder = torch.nn.Module()
    holder.state_dict = lambda *rest, **more: weights  # type: ignore[method-assign]
    checkpoints.save_weights(to, holder, {**header, **changes})
    return to


def test_bad_files_are_a_sentence(cases: dict[str, Case], tmp_path: Path) -> None:
    """Breaks if a file that is not there, not whole or of something else ends in a traceback."""
    good = cases["joint-mle"].run.weights
    _, header = checkpoints.load_weights(good)
    config = header["config"]
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:-10])
    (tmp_path / "empty").mkdir()
    wrong = {
        tmp_path / "nowhere.safetensors": "there is no run folder or weights file .*nowhere.safetensors",
        tmp_path / "nope": "there is no run folder or weights file .*nope",
        tmp_path / "cut.safetensors": "is not a whole weights file",
        tmp_path / "empty": "holds no weights.safetensors; give the folder of a run whose training has ended",
        altered(good, tmp_path / "1.safetensors", config=None): "does not say the configuration",
        altered(
            good, tmp_path / "2.safetensors", config=config | {"learning": "joint"}
        ): "the nearest known one is 'jo",
        altered(good, tmp_path / "3.safetensors", digest="0" * 64): "its digest is not that of its configuration",
        altered(good, tmp_path / "4.safetensors", sampler={"chain": 3}): "the configuration lacks|cannot be 3",
    }
    larger = experiment(energy_hidden=((6,), (7, 6)))
    said = {"config": larger.to_json(), "digest": larger.digest()}
    wrong[altered(good, tmp_path / "5.safetensors", **said)] = "are not those of their configuration: 'energy.networks"
    for path, sentence in wrong.items():
        with pytest.raises(UserError, match=sentence):
            jlebm.load(path)
    with pytest.raises(UserError, match="unknown device 'tpu'"):
        jlebm.load(good, device="tpu")
    with pytest.raises(UserError, match="give a sampler with these"):
        jlebm.load(good, sampler=Sampler(CHAIN, batch_norm="re-estimated"))
    save_nvae(tmp_path / "nvae.safetensors", backbone())
    with pytest.raises(UserError, match="give a sampler with these"):
        jlebm.load(tmp_path / "nvae.safetensors", sampler=Sampler(CHAIN, batch_norm="re-estimated"))


def test_bad_calls_are_a_sentence(cases: dict[str, Case]) -> None:
    """Breaks if a mistake in a call ends in a traceback of numpy or torch."""
    flat, twin = (jlebm.load(cases[kind].run.weights) for kind in ("joint-mle", "gaussian"))
    with pytest.raises(UserError, match="whole numbers from 0 up, not -1"):
        flat.sample([3, -1])
    with pytest.raises(UserError, match=r"one seed for each image, such as range\(16\)"):
        checked_seeds(16)
    with pytest.raises(UserError, match="the header has no configuration"):
        jlebm.save_model("unused.safetensors", flat.model, {"note": "mine"}, Sampler(CHAIN))
    with pytest.raises(UserError, match="noise of 4 seeds is for as many images, not for 8"):
        flat.model.sample_gaussian(8, jlebm.PerImageNoise("sample", range(4)))
    with pytest.raises(UserError, match="noise of 4 seeds is for as many images, not for 8"):
        flat.model.sample_gaussian(8, jlebm.CounterNoise("sample", range(4)))
    with pytest.raises(UserError, match="2 layers needs as many energy networks, not 3"):
        JointModel(flat.model.backbone, mlp_energy((3, 4, 5), ((6,), (6,), (6,))))
    with pytest.raises(UserError, match="2 layers of latents need as many energy networks, not 1"):
        mlp_energy((3, 4), ((6,),))
    with pytest.raises(UserError, match="at least one at a time"):
        flat.sample([3], batch_size=0)
    with pytest.raises(UserError, match="no EBM prior; sample its gaussian-prior"):
        twin.sample([3])
    for images in (IMAGES.astype(np.float32), IMAGES[0], COLOURED):
        for call in (flat.reconstruct, flat.score):
            with pytest.raises(UserError, match=r"uint8 and of shape \(N, 1, 8, 8\)"):
                call(images)
    with pytest.raises(UserError, match="2 latent layers; give 0 to 2 of them, not 3"):
        flat.reconstruct(IMAGES[:2], keep=3)
    with pytest.raises(UserError, match="0 to 2 of them, not -1"):
        flat.score(IMAGES[:2], above=-1)
    with pytest.raises(UserError, match="in whitened noise"):
        flat.reconstruct(IMAGES[:2], keep=1)
    with pytest.raises(UserError, match="at least one draw"):
        flat.score(IMAGES[:2], draws=0)


@dataclass(frozen=True)
class Mine(Trainable):
    """Somebody's own learning scheme on the two-layer generator."""

    model: ConvConfig
    learning: Literal["mine"]
    optimizer: OptimizerConfig

    def build(self, backbone: Backbone | None = None) -> JointModel:
        """See `Trainable`."""
        return JointModel(ConvBackbone(self.model), mlp_energy(self.model.latent_dims, ((5,), (5,))))


def test_a_scheme_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if one entry of the registry is not all that a new learning scheme needs to be loaded."""
    plain = experiment()
    mine = Mine("mine/1", "tiny", "noise", plain.model, "mine", plain.optimizer, plain.training)
    model, path = mine.build(), tmp_path / "mine.safetensors"
    jlebm.save_model(path, model, {"config": mine.to_json(), "digest": mine.digest()}, Sampler(plain.prior_chain))
    with pytest.raises(UserError, match="unknown learning 'mine'"):
        jlebm.load(path)
    monkeypatch.setitem(jlebm.CONFIGURATIONS, "mine", Mine)
    expected = sampling.gathered(sampling.generate(model, "ebm-prior", range(3), sampling.Sampler(plain.prior_chain)))
    np.testing.assert_array_equal(jlebm.load(path).sample(range(3)), expected)


# ---- the public names


def test_every_public_name_is_there_and_documented() -> None:
    """Breaks if a name is exported and not explained, explained and not exported, or moved away."""
    lines = [line for line in (jlebm.__doc__ or "").splitlines() if line.startswith("    ")]
    told = {line.split()[0] for line in lines if line.split()[1] != "="}
    assert told == set(jlebm.__all__) == set(jlebm._HOMES)
    for name in jlebm.__all__:
        value = getattr(jlebm, name)
        assert isinstance(value, dict) or (value.__doc__ or "").strip(), name
        assert name in dir(jlebm)


def test_type_checkers_see_the_same_names() -> None:
    """Breaks if a name is looked up in one module and type-checked in another, or `py.typed` is gone."""
    for package in (jlebm, jlebm.evaluation):
        tree = ast.parse(Path(package.__file__ or "").read_text())
        (block,) = (node for node in tree.body if isinstance(node, ast.If))
        imported = [node for node in block.body if isinstance(node, ast.ImportFrom)]
        assert {alias.name: node.module for node in imported for alias in node.names} == package._HOMES
        assert set(package.__all__) == set(package._HOMES) <= set(dir(package))
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = package.nothing
    assert Path(jlebm.__file__).with_name("py.typed").exists()


def test_importing_the_package_alone_is_cheap() -> None:
    """Breaks if `import jlebm` loads torch, numpy or anything else that takes seconds."""
    code = "import json, sys, jlebm; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"torch", "numpy", "PIL", "rich", "matplotlib"} & set(json.loads(ran.stdout))
