"""Two processes that measure at once: what all seeds share is stored once."""

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jlebm.data import Dataset
from jlebm.errors import UserError
from jlebm.progress import SILENT
from reproduce.measuring.places import refuse_what_does_not_fit
from reproduce.measuring.row_store import Rows, Subject, Wanted
from reproduce.measuring.session import Session
from reproduce.pipelines.arguments import parse_duration
from reproduce.presets.extents import Size
from reproduce.results import read
from reproduce.results.identity import Of

PROVENANCE = {"commit": "d" * 40, "dirty": False, "device": "cpu-avx2", "versions": {"python": "3.11"}}


def rows_of(seed: int, folder: Path) -> Rows:
    images = np.zeros((4, 3, 8, 8), np.uint8)
    dataset = Dataset("photos", "train", images, None, "0" * 64, "made up")
    session = Session("cifar10", dataset, Size(images=4), None, folder, torch.device("cpu"), SILENT, PROVENANCE)
    subject = Subject(
        "cifar10", "two-layer", "cifar10/1", "photos", "tiny", "joint-mle", seed, 3, True, "raw", "a" * 64, {}, 1.0
    )
    return Rows(subject, session, folder)


def _store(seed: int, folder: Path, looked: Any) -> None:
    rows = rows_of(seed, folder)
    looked.wait()  # both have seen a file without the row
    rows.add("fid768", "training-halves", 0.25, 2, {}, weights="")
    rows.add("fid768", "ebm-prior", 0.5 + seed, 4, {})


def test_two_seeds_at_once_share_a_row(tmp_path: Path) -> None:
    """Would break if each seed stored the row that all share, because neither saw the other's."""
    context = multiprocessing.get_context("fork")
    looked = context.Barrier(2)
    workers = [context.Process(target=_store, args=(seed, tmp_path, looked)) for seed in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    stored = read(tmp_path / "measured" / "photos.jsonl")
    assert [row.source for row in stored].count("training-halves") == 1
    assert sorted(row.seed for row in stored if row.source == "ebm-prior") == [1, 2]


def test_a_row_that_was_seen_may_be_measured_again(tmp_path: Path) -> None:
    """Would break if a row could never be measured anew beside the one that stands."""
    rows_of(1, tmp_path).add("kid", "ebm-prior", 0.5, 4, {})
    again = rows_of(1, tmp_path)
    assert again.find(Wanted("kid", Of("ebm-prior"), 4)) is not None
    again.add("kid", "ebm-prior", 0.75, 4, {})
    assert [row.value for row in read(tmp_path / "measured" / "photos.jsonl")] == [0.5, 0.75]


def test_more_images_than_the_disk_holds(tmp_path: Path) -> None:
    """Would break if 10**12 images were noticed only after hours of training."""
    with pytest.raises(UserError, match=r"--images 1000000000000 takes 9\.22e\+06 GB in all, .* ask for fewer"):
        refuse_what_does_not_fit(10**12, (3, 32, 32), 3, tmp_path / "runs")
    refuse_what_does_not_fit(50, (3, 32, 32), 3, tmp_path / "runs")


def test_images_that_are_gone_take_no_room(tmp_path: Path) -> None:
    """Would break if a file that is removed while the folder is looked through, or a dangling link, were an error."""
    (tmp_path / "prior.npy").symlink_to(tmp_path / "nowhere.npy")
    with pytest.raises(UserError, match=r"--images 1000000000000 takes"):
        refuse_what_does_not_fit(10**12, (3, 32, 32), 3, tmp_path)


def test_budgets_without_end() -> None:
    """Would break if a budget of infinitely many hours became a setting called 'inf'."""
    with pytest.raises(UserError, match="shorter than a thousand years"):
        parse_duration("1" + "0" * 400 + "h")
