import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jlebm import files
from jlebm.errors import UserError
from jlebm.evaluation import reference
from jlebm.evaluation.reference import ReferenceSet, load_reference, reference_subset
from tests.told import Told

CPU = torch.device("cpu")
LAYERS = ("768", "2048")


def test_a_subset_is_spread_over_all_images() -> None:
    """Breaks if images in the order of their classes lose their last classes."""
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    assert reference_subset(images, 5).ravel().tolist() == [0, 2, 4, 6, 8]
    assert reference_subset(images, 7).ravel().tolist() == [0, 1, 2, 4, 5, 7, 8]
    assert reference_subset(images, None) is images
    for number in (0, 11):
        with pytest.raises(UserError, match=f"{number} reference images were asked for and there are 10"):
            reference_subset(images, number)


def same(first: reference.Reference, second: reference.Reference) -> bool:
    return all(
        torch.equal(getattr(first.moments[layer], name), getattr(second.moments[layer], name))
        for layer in first.moments
        for name in ("count", "total", "product")
    )


def test_statistics_are_computed_once(small_network, extractor, make_dataset, tmp_path: Path) -> None:
    """Breaks if a second evaluation goes through the reference images again, or reads other numbers."""
    first = load_reference(ReferenceSet(make_dataset(50), tmp_path), extractor, LAYERS, CPU)
    assert (small_network.opened, small_network.passed) == (1, 50)
    second = load_reference(ReferenceSet(make_dataset(50), tmp_path), extractor, LAYERS, CPU)
    assert (small_network.opened, small_network.passed) == (1, 50)
    assert same(first, second)
    assert second.features is not None
    np.testing.assert_allclose(second.features.mean(0), second.moments["2048"].statistics()["mu"], rtol=1e-5)
    assert load_reference(ReferenceSet(make_dataset(50), tmp_path), extractor, ["768"], CPU).features is None


def test_another_dataset_extractor_or_count_is_another_entry(
    small_network, extractor, make_dataset, tmp_path: Path
) -> None:
    """Breaks if statistics of other pixels, other weights or another number of images are taken for these."""
    load_reference(ReferenceSet(make_dataset(50), tmp_path), extractor, ["768"], CPU)
    load_reference(ReferenceSet(make_dataset(50, seed=1), tmp_path), extractor, ["768"], CPU)
    load_reference(ReferenceSet(make_dataset(50), tmp_path), replace(extractor, digest="1" * 64), ["768"], CPU)
    load_reference(ReferenceSet(make_dataset(50), tmp_path, 20), extractor, ["768"], CPU)
    assert small_network.passed == 50 + 50 + 50 + 20
    load_reference(ReferenceSet(make_dataset(50), tmp_path, 50), extractor, ["768"], CPU)
    assert small_network.passed == 170  # all of them, said in another way


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "swapped", "empty"])
def test_a_damaged_cache_file_is_computed_anew(
    small_network, extractor, make_dataset, tmp_path: Path, suffix: str, damage: str
) -> None:
    """Breaks if a file that is cut short, altered or of another entry is trusted or ends in a traceback."""
    first = load_reference(ReferenceSet(make_dataset(50), tmp_path), extractor, ["2048"], CPU)
    (victim,) = tmp_path.glob(f"*{suffix}")
    content = bytearray(victim.read_bytes())
    if damage == "swapped":
        load_reference(ReferenceSet(make_dataset(50, seed=1), tmp_path / "other"), extractor, ["2048"], CPU)
        content = bytearray(next((tmp_path / "other").glob(f"*{suffix}")).read_bytes())
    elif damage == "flipped":
        content[len(content) // 2 + 3] ^= 0x40
    victim.write_bytes(content[: {"cut": len(content) // 2, "empty": 0}.get(damage)])
    passed = small_network.passed
    again = load_reference(ReferenceSet(make_dataset(50), tmp_path), extractor, ["2048"], CPU)
    assert small_network.passed == passed + 50
    assert same(first, again)


def test_an_interrupted_pass_goes_on(
    small_network, extractor, make_dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if an interruption costs more than the work since the last save, or changes the statistics."""
    whole = load_reference(ReferenceSet(make_dataset(50), tmp_path / "whole"), extractor, LAYERS, CPU)
    monkeypatch.setattr(reference, "SAVE_SECONDS", -1.0)
    small_network.passed, small_network.fails_after = 0, 21
    with pytest.raises(KeyboardInterrupt):
        load_reference(ReferenceSet(make_dataset(50), tmp_path / "cut"), extractor, LAYERS, CPU)
    small_network.fails_after = None
    resumed = load_reference(ReferenceSet(make_dataset(50), tmp_path / "cut"), extractor, LAYERS, CPU)
    assert small_network.passed == 50
    assert same(whole, resumed)
    assert whole.features is not None
    assert resumed.features is not None
    np.testing.assert_array_equal(whole.features, resumed.features)
    assert not list((tmp_path / "cut").glob("*.part"))


def test_a_layer_that_lags_behind_is_not_mixed_with_another(
    small_network, extractor, make_dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a layer that was begun and one that was not are summed over different images."""
    monkeypatch.setattr(reference, "SAVE_SECONDS", -1.0)
    small_network.fails_after = 21
    with pytest.raises(KeyboardInterrupt):
        load_reference(ReferenceSet(make_dataset(50), tmp_path), extractor, ["768"], CPU)
    small_network.fails_after = None
    both = load_reference(ReferenceSet(make_dataset(50), tmp_path), extractor, LAYERS, CPU)
    assert [moments.count.tolist() for moments in both.moments.values()] == [[25, 25], [25, 25]]


def test_a_cache_folder_that_cannot_be_written_gets_a_sentence(
    small_network, extractor, make_dataset, tmp_path: Path
) -> None:
    """Breaks if it ends in a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        load_reference(ReferenceSet(make_dataset(50), tmp_path / "file"), extractor, ["768"], CPU)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.EROFS, "cannot be written"), (errno.EACCES, "cannot be written"), (errno.ENOSPC, "no space left")],
)
def test_a_disk_that_takes_no_files_gets_a_sentence(
    small_network, extractor, make_dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str
) -> None:
    """Breaks if a read-only or full disk ends in a traceback, or what stood there is lost."""

    def refuse(*rest: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(UserError, match=sentence):
        load_reference(ReferenceSet(make_dataset(50), tmp_path), extractor, LAYERS, CPU)


def test_a_second_process_waits_for_the_first(small_network, extractor, make_dataset, tmp_path: Path) -> None:
    """Breaks if two that need the same statistics compute them twice, or write to the same files at once."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Told):
        """Holds the pass that it is told about until the other one waits."""

        def task(self, *rest):
            begun.set()
            assert go_on.wait(30)
            return super().task(*rest)

    class Waiting(Told):
        """Lets the other pass go on as soon as this one says that it waits."""

        def line(self, text: str) -> None:
            super().line(text)
            go_on.set()

    found, waiting = [], Waiting()
    first = threading.Thread(
        target=lambda: found.append(
            load_reference(ReferenceSet(make_dataset(50), tmp_path), extractor, LAYERS, CPU, report=Slow())
        )
    )
    first.start()
    assert begun.wait(30)
    second = load_reference(ReferenceSet(make_dataset(50), tmp_path), extractor, ["768"], CPU, report=waiting)
    first.join()
    assert small_network.passed == 50
    assert "another process computes the reference statistics of noise (train); waiting" in waiting.text
    assert torch.equal(second.moments["768"].product, found[0].moments["768"].product)
