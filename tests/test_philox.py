"""Noise from counters: the published numbers, the same bits everywhere, no stream twice."""

import hashlib
import importlib.util
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import jlebm
from jlebm import philox, sampling
from jlebm.engines import graphs
from jlebm.errors import UserError
from jlebm.hierarchy import PartialPosterior, posterior_terms, scores_above
from jlebm.langevin import Chain
from jlebm.philox import MASK, by_operations, normals
from jlebm.randomness import ROLES, SCHEMES, CounterNoise, PerImageNoise, image_noise, role_word
from jlebm.sampling import Drawing, Sampler
from tests import tape
from tests.small import IMAGES, experiment

ROOT = Path(__file__).resolve().parents[1]
TRITON = importlib.util.find_spec("triton") is not None
# Counter, key, and the words that they give: kat_vectors of the Random123 library, philox4x32 with 10 rounds.
KNOWN = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)
SEEDS = torch.tensor([0, 1, 7, 2**32 + 7, 2**63 - 1])


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_published_numbers(counter: tuple, key: tuple, words: tuple) -> None:
    """Breaks if a multiplier, an increment, the order of the words or the number of rounds is another."""
    one, two, three, four = (torch.tensor([word]) for word in counter)
    found = philox.philox((one, two, three, four), (torch.tensor([key[0]]), torch.tensor([key[1]])))
    assert tuple(int(word) for word in found) == words


def by_numpy(seed: int, role: int, draw: int, size: int) -> np.ndarray:
    """The definition once more, in numpy: Python's integers, and float32 one operation at a time."""

    def words(block: int) -> list[int]:
        c, k = [block, draw, 0, role], [seed & MASK, seed >> 32]
        for _ in range(10):
            p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [(q >> 32) ^ c[1] ^ k[0], q & MASK, (p >> 32) ^ c[3] ^ k[1], p & MASK]
            k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
        return c

    def polynomial(coefficients: list[float], x: np.ndarray) -> np.ndarray:
        value = x * np.float32(coefficients[-1])
        for each in coefficients[-2:0:-1]:
            value = (value + np.float32(each)) * x
        return value + np.float32(coefficients[0])

    drawn = np.array([words(block) for block in range(-(-size // 4))], np.int64).reshape(-1, 2)
    mantissa, exponent = np.frexp((drawn[:, 0] + 1).astype(np.float32))  # the mantissa in [1/2, 1)
    low = mantissa * np.float32(2) <= np.float32(1.4142135)
    mantissa, exponent = np.where(low, mantissa * np.float32(2), mantissa), exponent - low - 32
    s = (mantissa - np.float32(1)) / (mantissa + np.float32(1))
    log = exponent.astype(np.float32) * np.float32(math.log(2))
    log = log + polynomial([1, 1 / 3, 1 / 5, 1 / 7, 1 / 9], s * s) * s * np.float32(2)
    radius = np.sqrt(log * np.float32(-2))
    quarter, rest = drawn[:, 1] >> 30, drawn[:, 1] & (2**30 - 1)
    angle = (rest - 2**29).astype(np.float32) * np.float32(math.pi / 2**31)
    sine = polynomial([1, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880], angle * angle) * angle
    cosine = polynomial([1, -1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800], angle * angle)
    x = np.choose(quarter, [cosine, -sine, -cosine, sine])
    y = np.choose(quarter, [sine, cosine, -sine, -cosine])
    return np.stack([x * radius, y * radius], 1).reshape(-1)[:size]


def test_the_bits_are_those_of_ieee_arithmetic() -> None:
    """Breaks if an operation is fused, approximate or in another order: another device would give other bits."""
    found = normals(SEEDS, role_word("sample"), range(3, 5), 2001).numpy()
    for (step, draw), (row, seed) in itertools.product(enumerate((3, 4)), enumerate(SEEDS.tolist())):
        np.testing.assert_array_equal(found[step, row], by_numpy(seed, role_word("sample"), draw, 2001))


def test_the_numbers_never_change() -> None:
    """Stored rows name this scheme: another formula is another name. Breaks if one number has another bit."""
    found = normals(torch.arange(64), role_word("sample"), range(50), 228)
    digest = hashlib.sha256(found.numpy().tobytes()).hexdigest()
    assert digest == "1261fc606390716ec54c0e7f565e370710e0c51c641c58fc8b63dacd3a93f24c"
    assert [role_word(role) for role in ROLES[:4]] == [488195765, 980332665, 2155823563, 2938887137]


def test_the_transform_is_box_and_mullers() -> None:
    """Within rounding of float64's logarithm, sine and cosine, also for the first and last words."""
    words = torch.cat([torch.arange(1000), torch.randint(0, 2**32, (200_000,)), 2**31 + torch.arange(1000)])
    other = words.roll(777)
    x, y = philox.box_muller(words, other)
    radius = torch.sqrt(-2 * torch.log((words.double() + 1) / 2**32))
    angle = (other.double() / 2**32 - 1 / 8) * 2 * math.pi
    for found, right in ((x, radius * torch.cos(angle)), (y, radius * torch.sin(angle))):
        assert float((found - right).abs().max()) < 3e-5  # near u = 1, where float32 has 24 bits of u
        assert float((found - right).abs().mean()) < 1e-7
    last = torch.tensor([MASK, MASK - 1, 0])
    assert torch.isfinite(torch.cat(philox.box_muller(last, last.flip(0)))).all()


def test_moments_and_distribution() -> None:
    """Over 4,000,000 numbers: four moments within five standard errors, a KS test, and the tail's count."""
    drawn = normals(torch.arange(4000), role_word("sample"), range(10), 100)
    x, n = drawn.double().flatten(), drawn.numel()
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((x**power).mean()) - mean) < 5 * math.sqrt(variance / n)
    assert stats.kstest(x[:200_000].numpy(), "norm").pvalue > 1e-3
    expected = n * 2 * stats.norm.sf(4)
    assert abs(int((x.abs() > 4).sum()) - expected) < 5 * math.sqrt(expected)


def test_neighbours_are_independent() -> None:
    """Correlations of neighbouring numbers, draws, seeds and roles, of values and of squares, within five errors."""
    a, b = (normals(torch.arange(2000), role_word(role), range(20), 52).double() for role in ("sample", "posterior"))
    pairs = [(a[..., :-shift], a[..., shift:]) for shift in (1, 2, 3, 4)]
    pairs += [(a[:-1], a[1:]), (a[:, :-1], a[:, 1:]), (a, b)]
    for one, two in pairs:
        for f in (lambda x: x, lambda x: (x**2 - 1) / math.sqrt(2)):
            assert abs(float((f(one) * f(two)).mean())) < 5 / math.sqrt(one.numel())


def test_no_two_streams_share_a_counter() -> None:
    """Roles have words of their own; over roles, seeds and draws no block of four numbers comes twice."""
    words = [role_word(role) for role in ROLES]
    assert len(set(words)) == len(ROLES)
    seeds = torch.tensor([0, 1, 2, 2**32, 2**32 + 1, 2**62])
    blocks = [normals(seeds, word, range(20), 12).reshape(-1, 4) for word in words]
    assert len({tuple(block) for block in torch.cat(blocks).tolist()}) == len(ROLES) * 6 * 20 * 3


@settings(max_examples=20)
@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6, unique=True), st.data())
def test_a_row_depends_on_its_seed_alone(seeds: list[int], data: st.DataObject) -> None:
    """The same bits in any batch, in any order, at any draw, alone or in a series."""
    order = data.draw(st.permutations(seeds))
    shapes = ((3,), (2, 2))
    here, there = CounterNoise("sample", seeds), CounterNoise("sample", order)
    like = tuple(torch.empty(len(seeds), *shape) for shape in shapes)
    drawn = [*here.series(like, 2), here(like)]
    for a in drawn:
        for layer_a, layer_b in zip(a, there(like), strict=True):
            for i, seed in enumerate(seeds):
                assert torch.equal(layer_a[i], layer_b[order.index(seed)])
    alone = CounterNoise("sample", seeds[:1])
    assert torch.equal(next(alone.series(tuple(layer[:1] for layer in like), 1))[1], drawn[0][1][:1])


@pytest.mark.parametrize("chunk", [1, 7, 2**15])
def test_chunks_do_not_show(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by chunks of rows, and of a long row: the bits are the same."""
    right = normals(SEEDS, 5, range(2, 4), 50)
    monkeypatch.setitem(philox.CHUNK, "cpu", chunk)
    assert torch.equal(normals(SEEDS, 5, range(2, 4), 50), right)


def test_other_seeds_are_refused() -> None:
    """A seed of more than 63 bits would be another one's stream."""
    for seed in (-1, 2**63):
        with pytest.raises(UserError, match="seeds of 0 to 9223372036854775807"):
            CounterNoise("sample", [seed])
    with pytest.raises(ValueError, match="unknown role"):
        CounterNoise("samples", [1])


INTERPRETED = """
import torch
from jlebm import philox, philox_kernel
cases = ([0, 1, 2**32 + 7, 2**63 - 1], range(3, 6), 203), ([5], range(1), 1), ([5], range(1, 2), 64)
for seeds, draws, size in cases:
    seeds = torch.tensor(seeds)
    assert torch.equal(philox_kernel.normals(seeds, 0xFEDCBA98, draws, size),
                       philox.by_operations(seeds, 0xFEDCBA98, draws, size))
print("equal")
"""


@pytest.mark.slow
@pytest.mark.skipif(not TRITON, reason="Triton is not installed")
def test_the_kernel_gives_the_same_bits() -> None:
    """In Triton's interpreter, which takes every operation of the kernel one at a time on the CPU."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", INTERPRETED]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert ran.stdout.strip() == "equal", ran.stderr


COMPILED = """
from jlebm import philox_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
sizes = ("i64", "i32", "constexpr", "i32", "i32")
signature = {"seeds": "*i64", "out": "*fp32", "sizes": sizes, "count": "constexpr"}
source = ASTSource(fn=philox_kernel.fill, signature=signature, constexprs={(2, 2): 1, (3,): philox_kernel.BLOCK})
print(compile(source, target=GPUTarget("cuda", 80, 32), options={"enable_fp_fusion": False}).asm["ptx"])
"""


@pytest.mark.slow
@pytest.mark.skipif(not TRITON or sys.platform != "linux", reason="Triton's compiler is not installed")
def test_the_compiled_kernel_rounds_every_operation(tmp_path: Path) -> None:
    """Compiled for a GPU that is not here: no fused product and sum, no approximate division or root."""
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILED]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert "mul.rn.f32" in ran.stdout, ran.stderr
    assert "div.rn.f32" in ran.stdout
    assert "sqrt.rn.f32" in ran.stdout
    for other in ("fma.", "div.full", "div.approx", "sqrt.approx", "rcp.approx"):
        assert other not in ran.stdout


# ---- as the noise of samples


@pytest.fixture(scope="module")
def model() -> jlebm.JointModel:
    torch.manual_seed(1)
    return experiment("variational").build()


def test_the_schemes_by_name() -> None:
    """Breaks if a scheme is renamed: rows and commands know it by this name."""
    assert list(SCHEMES) == ["generator/1", "philox/1"]
    assert isinstance(image_noise("sample", [1]), PerImageNoise)
    assert isinstance(image_noise("sample", [1], "philox/1"), CounterNoise)


def test_images_by_either_scheme(model: jlebm.JointModel) -> None:
    """Image i from seed i at any batch size; the two schemes give other images, of the same distribution."""
    chain = Chain.from_joint_paper(20, 0.4)
    drawn = {}
    for scheme in SCHEMES:
        sampler = Sampler(chain, noise=scheme)
        drawn[scheme] = sampling.gathered(sampling.generate(model, "ebm-prior", range(32), sampler, 32))
        some = sampling.gathered(sampling.generate(model, "ebm-prior", [7, 3], sampler, 1))
        assert np.abs(some.astype(int) - drawn[scheme][[7, 3]]).max() <= 1
        drawing = Drawing("sample", scheme)
        whole = sampling.gathered(sampling.reconstruct(model, IMAGES, range(6), None, 6, drawing))
        few = sampling.gathered(sampling.reconstruct(model, IMAGES, [5, 2], None, 1, drawing))
        assert np.abs(few.astype(int) - whole[[5, 2]]).max() <= 1
        latents = PartialPosterior(0, None, noise=scheme)
        drawn[scheme, "score"] = scores_above(model, IMAGES, range(6), latents, 2)
        drawn[scheme, "energy"] = posterior_terms(model, IMAGES, range(6), latents, 2).energy
        np.testing.assert_allclose(scores_above(model, IMAGES, [4], latents, 2), drawn[scheme, "score"][[4]], rtol=1e-5)
    for kind in ("score", "energy"):
        assert (drawn["generator/1", kind] != drawn["philox/1", kind]).all()
    assert (drawn["generator/1"] != drawn["philox/1"]).mean() > 0.5


def test_a_recorded_chain_is_its_steps(model: jlebm.JointModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of a chain is made outside of its recording: to the bit the steps' own."""
    monkeypatch.setattr(graphs, "recorder", lambda device: tape.record)
    chain = Chain.from_joint_paper(20, 0.4)

    def run() -> tuple[torch.Tensor, ...]:
        return model.sample_prior(5, chain, CounterNoise("sample", range(5)))

    with graphs.step_by_step():
        right = run()
    before = len(graphs._kept)
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(run(), right, strict=True))
    assert len(graphs._kept) == before + 1
    assert not graphs._off


def test_metropolis_chains_take_it(model: jlebm.JointModel) -> None:
    """Draws of other shapes in between are draws of their own, and row i is still of seed i."""
    chain = Chain(5, 0.01, metropolis=True)
    whole = model.sample_prior(4, chain, CounterNoise("sample", range(4)))
    alone = model.sample_prior(1, chain, CounterNoise("sample", [2]))
    for a, b in zip(whole, alone, strict=True):
        torch.testing.assert_close(a[2:3], b, rtol=1e-4, atol=1e-5)


def test_a_sampler_keeps_its_digest() -> None:
    """The field is left out at its default: stored samplers and two-stage rows keep their digests."""
    sampler = Sampler(Chain(3, 0.1))
    assert "noise" not in sampler.to_json()
    other = sampler.override(["noise=philox/1"])
    assert other.to_json()["noise"] == "philox/1"
    assert Sampler.from_json(other.to_json()) == other
    assert "noise philox/1" in other.describe(chain=True)
    with pytest.raises(UserError, match="noise"):
        sampler.override(["noise=philox/2"])
    assert torch.equal(by_operations(SEEDS, 1, range(1), 8), normals(SEEDS, 1, range(1), 8))
