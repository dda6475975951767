"""Seeds by role, and noise that belongs to its image."""

import collections
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jlebm import randomness
from jlebm.randomness import ROLES, CounterNoise, PerImageNoise, SharedNoise, derive_seed, generator, series


def test_every_role_and_seed_has_a_stream_of_its_own() -> None:
    """No two roles, seeds or epochs share a seed: changing the chain's seed leaves the data order as it was."""
    seeds = [derive_seed(role, *parts) for role in ROLES for parts in itertools.product(range(20), range(3))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed("data", 1, 12) != derive_seed("data", 11, 2)


def test_derived_seeds_never_change() -> None:
    """Stored rows name seeds: the same role and seed must give the same numbers in every version and on every day."""
    assert (derive_seed("sample", 0), derive_seed("data", 1, 2)) == (8820944700560181575, 199692909769085338)
    assert derive_seed("data", *torch.tensor([1, 2])) == derive_seed("data", *np.array([1, 2])) == 199692909769085338
    first = torch.randn(2, generator=generator("sample", 7))
    assert torch.equal(first, torch.randn(2, generator=generator("sample", 7)))


def test_which_streams_of_the_cpus_generator_are_one() -> None:
    """Breaks if docs/noise were wrong about it: torch keeps 32 bits of a seed, which decide what two streams share.

    None of the first 10,000 of each kind are one stream; of 50,000 samples two are, by the first scheme alone.
    """
    roles = ("sample", "posterior", "layers")
    assert len({derive_seed(role, i) % 2**32 for role in roles for i in range(10_000)}) == 30_000
    seeds = [derive_seed("sample", i) % 2**32 for i in range(50_000)]
    times = collections.Counter(seeds)
    pair = [i for i, seed in enumerate(seeds) if times[seed] > 1]
    assert pair == [28929, 38202]
    for source, one_stream in ((PerImageNoise, True), (CounterNoise, False)):
        first, second = source("sample", pair)((torch.empty(2, 5),))[0]
        assert torch.equal(first, second) == one_stream


def test_unknown_roles_are_a_mistake_of_the_code() -> None:
    """A misspelt role would silently share or split a stream."""
    with pytest.raises(ValueError, match="unknown role"):
        derive_seed("samples", 1)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6, unique=True), st.data())
def test_a_row_depends_on_its_seed_alone(seeds: list[int], data: st.DataObject) -> None:
    """Row i of every draw is the same to the bit in any batch, in any order, at any draw."""
    order = data.draw(st.permutations(seeds))
    shapes = ((3,), (2, 2))
    here, there = PerImageNoise("sample", seeds), PerImageNoise("sample", order)
    for _ in range(3):
        a = here(tuple(torch.empty(len(seeds), *shape) for shape in shapes))
        b = there(tuple(torch.empty(len(seeds), *shape) for shape in shapes))
        for layer_a, layer_b in zip(a, b, strict=True):
            for i, seed in enumerate(seeds):
                assert torch.equal(layer_a[i], layer_b[order.index(seed)])


def test_noise_is_standard_normal_and_never_repeats() -> None:
    """Over many rows mean 0 and variance 1 within five standard errors, and two draws are uncorrelated."""
    count = 4000
    for source in (PerImageNoise("sample", range(count)), SharedNoise(generator("training noise", 1))):
        first, second = (source((torch.empty(count, 5),))[0] for _ in range(2))
        n = first.numel()
        assert abs(first.mean()) < 5 / n**0.5
        assert abs(first.square().mean() - 1) < 5 * (2 / n) ** 0.5
        assert abs((first * second).mean()) < 5 / n**0.5


@pytest.mark.parametrize("shapes", [((3,), (2, 2)), ((5,), (11,)), ((100,), (128,)), ((1, 4, 4), (2, 4, 4))])
@pytest.mark.parametrize("largest", [1, 100, 2**22])
def test_a_series_is_its_calls(
    shapes: tuple[tuple[int, ...], ...], largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers to the bit, however many steps are drawn together; and the next call goes on after them.

    Torch makes normal numbers in blocks of 16 and ends an incomplete block in another way: sizes of both kinds, since
    a version that does so differently would change images that rows are of.
    """
    monkeypatch.setattr(randomness, "LARGEST_DRAW", largest)
    like = tuple(torch.empty(4, *shape, dtype=torch.float64) for shape in shapes)
    together, alone = PerImageNoise("sample", range(4)), PerImageNoise("sample", range(4))
    drawn = [*series(together, like, 7), together(like), *series(together, like, 2), *series(together, like, 0)]
    for found in drawn:
        # As the numbers were drawn when the first rows were stored: a call of each generator for each step.
        rows = torch.stack([torch.randn(sum(map(math.prod, shapes)), generator=each) for each in alone.generators])
        right = rows.double().split([math.prod(shape) for shape in shapes], dim=1)
        for layer, expected in zip(found, right, strict=True):
            assert torch.equal(layer.flatten(1), expected)
            assert layer.dtype == torch.float64


def test_a_series_of_any_source_is_its_calls() -> None:
    """A source that knows nothing of series is called, one by one, when its turn comes."""
    like = (torch.empty(3, 2),)
    together, alone = SharedNoise(generator("chain", 1)), SharedNoise(generator("chain", 1))
    for found in series(together, like, 5):
        assert torch.equal(found[0], alone(like)[0])


def test_a_series_holds_a_bounded_piece_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with the steps: the piece that is drawn at once has a largest size."""
    made: list[int] = []
    empty = torch.empty
    monkeypatch.setattr(randomness, "LARGEST_DRAW", 200)
    monkeypatch.setattr(torch, "empty", lambda *size, **more: made.append(math.prod(size)) or empty(*size, **more))
    like = (torch.zeros(3, 16),)
    assert len(list(series(PerImageNoise("sample", range(3)), like, 1000))) == 1000
    assert max(made) == 4 * 3 * 16  # as many steps as fit
    assert len(made) == 250
