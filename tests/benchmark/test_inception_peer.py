"""pytorch-fid's network: the features of ours on one input, or it is not timed."""

from pathlib import Path

import pytest
import torch

from jlebm.progress import Reporter
from reproduce.benchmark import inception_peer
from reproduce.benchmark.part import agreed
from reproduce.benchmark.throughput import FEATURES
from tests.inception import random_state, random_weights

__all__ = ["random_state", "random_weights"]


def test_an_absent_library_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the benchmark ends where pytorch-fid is not installed, or passes over it in silence."""
    said: list[str] = []

    class Kept(Reporter):
        """Keeps what is said."""

        def line(self, text: str) -> None:
            """Keep a line."""
            said.append(text)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert inception_peer.missing(Kept())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert not inception_peer.missing(Kept())
    assert said == ["pytorch-fid is not timed: pytorch_fid cannot be imported (the extra peers)"]


def test_their_features_are_ours(random_weights: Path, tmp_path: Path) -> None:
    """With any weights, not only the official ones; breaks if the network timed has other weights or another layer."""
    pytest.importorskip("pytorch_fid")
    (tmp_path / "weights-inception-2015-12-05-768.pth").write_bytes(random_weights.read_bytes())
    part = inception_peer.part(tmp_path, torch.device("cpu"))
    assert agreed(part) <= FEATURES
    assert part.versions["pytorch-fid"]
