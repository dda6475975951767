"""Image i from seed i alone, streamed to files."""

import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from jlebm import sampling
from jlebm.energies import conv_energy
from jlebm.errors import UserError
from jlebm.images import to_float, to_uint8
from jlebm.langevin import Chain
from jlebm.latents import flatten
from jlebm.model import JointModel
from jlebm.randomness import PerImageNoise
from jlebm.sampling import Sampler, Samples
from tests.small import IMAGES, backbone, experiment

CHAIN = Chain.from_joint_paper(20, 0.4)
SAMPLER = Sampler(CHAIN)


@pytest.fixture(scope="module")
def model() -> JointModel:
    torch.manual_seed(1)
    return experiment("variational").build()


def gather(batches) -> tuple[np.ndarray, np.ndarray]:
    """Images and latents of all batches."""
    found = list(batches)
    latents = [torch.cat([layer.flatten(1) for layer in batch.latents], 1) for batch in found]
    return torch.cat([batch.images for batch in found]).numpy(), torch.cat(latents).numpy()


@pytest.mark.parametrize("prior", ["ebm-prior", "gaussian-prior"])
def test_an_image_depends_on_its_seed_alone(model: JointModel, prior) -> None:
    """Any batch size, any order, any subset: the same latents to rounding, the same image to one grey level."""
    seeds = list(range(32))
    images, latents = gather(sampling.generate(model, prior, seeds, SAMPLER, batch_size=32))
    for batch_size, chosen in ((8, seeds), (5, seeds), (1, [7, 3]), (32, seeds[::-1])):
        some, their_latents = gather(sampling.generate(model, prior, chosen, SAMPLER, batch_size))
        np.testing.assert_allclose(their_latents, latents[chosen], rtol=1e-5, atol=1e-5)
        difference = np.abs(some.astype(int) - images[chosen].astype(int))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3
    assert len({image.tobytes() for image in images}) == 32


def test_the_two_priors_differ_by_the_energy(model: JointModel) -> None:
    """The Gaussian prior's draws are the hierarchy's own; the chain moves away from where it starts."""
    _, gaussian = gather(sampling.generate(model, "gaussian-prior", range(4), SAMPLER))
    _, start = gather(sampling.generate(model, "ebm-prior", range(4), Sampler(Chain(0, 1.0, start="ancestral"))))
    _, moved = gather(sampling.generate(model, "ebm-prior", range(4), Sampler(Chain(3, 0.1, start="ancestral"))))
    np.testing.assert_array_equal(gaussian, start)
    assert np.abs(moved - start).max() > 0.1


@pytest.mark.parametrize("chain", [None, Chain.from_joint_paper(5, 0.1)])
def test_a_reconstruction_depends_on_its_image_alone(model: JointModel, chain: Chain | None) -> None:
    """The noise of image i belongs to i, by chain and by inference network, whatever else is chosen."""
    whole, latents = gather(sampling.reconstruct(model, IMAGES, range(12), chain, batch_size=12))
    some, their_latents = gather(sampling.reconstruct(model, IMAGES, [9, 2, 5], chain, batch_size=2))
    np.testing.assert_allclose(their_latents, latents[[9, 2, 5]], rtol=1e-5, atol=1e-5)
    assert np.abs(some.astype(int) - whole[[9, 2, 5]].astype(int)).max() <= 1


@pytest.mark.parametrize("prior", ["ebm-prior", "gaussian-prior"])
def test_a_drawn_image_is_its_seeds_own(model: JointModel, prior) -> None:
    """A draw of the decoder is around its mean by its sigma, at the same latents, and image i depends on i alone."""
    seeds, drawing = list(range(8)), Sampler(CHAIN, decoding="sample")
    means, latents = gather(sampling.generate(model, prior, seeds, SAMPLER))
    drawn, their_latents = gather(sampling.generate(model, prior, seeds, drawing))
    np.testing.assert_array_equal(their_latents, latents)
    away = drawn.astype(float) - means.astype(float)
    inside = (means > 112) & (means < 143)  # three sigmas from both ends, so that nothing was clipped
    assert inside.mean() > 0.2
    assert np.std(away[inside]) == pytest.approx(127.5 * 0.3, rel=0.2)
    some, _ = gather(sampling.generate(model, prior, [5, 2], drawing, batch_size=1))
    assert np.abs(some.astype(int) - drawn[[5, 2]].astype(int)).max() <= 1
    others, _ = gather(sampling.generate(model, prior, [9, 10], drawing))
    assert np.abs(others.astype(int) - drawn[:2].astype(int)).max() > 50


def test_a_temperature_is_of_the_hierarchy() -> None:
    """At 0 every seed of either prior gives the hierarchy's one mean image; in between images are nearer to it."""
    network = backbone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = JointModel(network, conv_energy(network.latent_shapes, 4, 6))
    chain = Chain.from_two_stage_paper(3, 0.1)

    def latents(prior, temperature: float) -> np.ndarray:
        return gather(sampling.generate(model, prior, range(6), Sampler(chain, temperature), batch_size=4))[1]

    middle = latents("gaussian-prior", 0.0)
    np.testing.assert_allclose(middle, np.broadcast_to(middle[0], middle.shape), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(latents("ebm-prior", 0.0), middle, rtol=1e-5, atol=1e-5)
    for prior in ("ebm-prior", "gaussian-prior"):
        half, full = (np.square(latents(prior, temperature) - middle).mean() for temperature in (0.5, 1.0))
        assert 0 < half < 0.6 * full
    with pytest.raises(UserError, match="no temperature of the hierarchy"):
        model.sample_prior(2, CHAIN, PerImageNoise("sample", range(2)), temperature=0.9)


def test_written_files_are_the_samples(model: JointModel, tmp_path: Path) -> None:
    """The memory maps hold what was generated, in order."""
    images, latents = gather(sampling.generate(model, "ebm-prior", range(10), SAMPLER, 4))
    files = sampling.write(tmp_path / "s.npy", sampling.generate(model, "ebm-prior", range(10), SAMPLER, 4), 10)
    assert isinstance(files.images, np.memmap)
    assert files.images.dtype == np.uint8
    np.testing.assert_array_equal(files.images, images)
    np.testing.assert_array_equal(files.latents, latents)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s-latents.npy", "s.npy"]


def stream(count: int):
    """Yield that many 32x32 images in batches of 100."""
    for _ in range(count // 100):
        yield Samples(torch.zeros(100, 3, 32, 32, dtype=torch.uint8), (torch.zeros(100, 4),))


def test_nothing_grows_with_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twenty batches, the images, the latents and what is made of them live until the next one has come."""
    made: dict[str, list[weakref.ref]] = {"images": [], "latents": [], "flat": []}
    most = dict.fromkeys(made, 0)

    def watch(kind: str, tensor: torch.Tensor) -> torch.Tensor:
        made[kind].append(weakref.ref(tensor))
        most[kind] = max(most[kind], sum(reference() is not None for reference in made[kind]))
        return tensor

    def batches():
        for batch in stream(2000):
            watch("images", batch.images)
            watch("latents", batch.latents[0])
            yield batch

    monkeypatch.setattr(sampling, "flatten", lambda latents: watch("flat", flatten(latents)))
    tracemalloc.start()  # sees numpy's arrays and bytes, where the references see tensors
    sampling.write(tmp_path / "s.npy", batches(), 2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(len(references) == 20 for references in made.values())
    assert max(most.values()) <= 2
    assert peak < 4 * 100 * 3 * 32 * 32


def test_an_interrupted_or_short_stream_leaves_the_old_files(tmp_path: Path) -> None:
    """A stream that breaks or is of another length never leaves half a file under the name."""
    path = tmp_path / "s.npy"
    sampling.write(path, stream(200), 200)
    before = path.read_bytes()

    def broken():
        yield from stream(100)
        raise KeyError("what a model's own code may raise")

    with pytest.raises(KeyError):
        sampling.write(path, broken(), 200)
    with pytest.raises(ValueError, match="300 samples were announced, 200 came"):
        sampling.write(path, stream(200), 300)
    with pytest.raises(UserError, match="draw at least one"):
        sampling.write(path, stream(0), 0)
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["s-latents.npy", "s.npy"]


def test_uint8_by_rounding_once() -> None:
    """All 256 levels survive the way to [-1, 1] and back, and a value between two levels goes to the nearer one."""
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    values = torch.tensor([-1.5, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 1.5]).reshape(1, 1, 2, 2)
    assert to_uint8(values).flatten().tolist() == [0, 0, 1, 255]
