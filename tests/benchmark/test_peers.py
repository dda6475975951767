"""Other libraries' chains: the same target and the same steps as ours, or they are not timed."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import reproduce.benchmark.__main__ as main
from jlebm import langevin
from jlebm.densities import PriorInLatents
from jlebm.engines.gradients import Autograd
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.model import JointModel
from reproduce.benchmark import lines, peers, timed
from reproduce.benchmark.part import EXACT, agreed, noise
from reproduce.benchmark.speed import Workload
from reproduce.cifar10 import PAPER
from reproduce.results import TIMINGS, Timing
from reproduce.results.rows import read
from tests.benchmark.test_bench import SMALL, WORKLOAD

CPU = torch.device("cpu")
PAPERS = Workload(PAPER.experiment, "the paper's sizes", few=1, count=1)


def installed(kind: peers.Kind) -> peers.Kind:
    for name in kind.packages:
        pytest.importorskip(name)
    return kind


@pytest.mark.parametrize("kind", peers.KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("workload", [WORKLOAD, PAPERS], ids=["small", "paper"])
def test_a_peer_has_our_target_and_our_noise(
    kind: peers.Kind, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log-density and its gradient agree to 1e-10 in float64, and a step's noise passes a test against N(0, I).

    Breaks if a peer samples another density, another layout of the layers or another step size.
    """
    monkeypatch.setattr(peers, "KINDS", (installed(kind),))
    (part,) = peers.parts(workload, timed.ConsoleReporter())
    assert part.limit == EXACT
    assert agreed(part) <= EXACT
    assert set(part.versions) == set(kind.packages)
    assert part.metric == peers.METRIC
    part.plain()
    part.ours()


class Ours:
    """Our own chain as a peer, whose steps are `factor` times too long."""

    def __init__(self, model: JointModel, factor: float = 1.0, tilt: float = 0.0):
        self.density, self.factor, self.tilt = PriorInLatents(model.backbone, model.energy), factor, tilt

    def value_and_gradient(self, z: Latents) -> tuple[Tensor, Latents]:
        """Return log p(z), tilted, and its gradient."""
        return Autograd(lambda z: self.density(z) + self.tilt * z[0].sum(1)).value_and_gradient(z)

    def run(self, z: Latents, chain: Chain) -> Latents:
        """Run our chain at another step size."""
        longer = dataclasses.replace(chain, epsilon=self.factor * chain.epsilon)
        return langevin.run(z, self.density, longer, noise(CPU))

    def timed(self, count: int, chain: Chain) -> Callable[[], object]:
        """Nothing is timed here."""
        return lambda: None


@pytest.mark.parametrize("metropolis", [False, True])
def test_another_density_or_another_step_is_found_out(metropolis: bool) -> None:
    """Breaks if the comparison lets a chain of another target, or of a step a fifth too long, be timed."""
    chain = Chain(5, 0.05, metropolis=metropolis)

    def difference(make: Callable[[JointModel], peers.Peer]) -> float:
        kind = peers.Kind("a chain of ours", (), make, metropolis)
        return peers.Compared(kind, SMALL.build(), chain, 4).difference()

    assert difference(Ours) <= EXACT
    assert difference(lambda model: Ours(model, tilt=1e-6)) > EXACT
    with pytest.raises(UserError, match="does not have the noise of ours"):
        difference(lambda model: Ours(model, factor=math.sqrt(2)))


@pytest.mark.slow
def test_a_missing_package_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines that can be timed are timed; breaks if an absent package ends the benchmark."""
    absent = peers.Kind("nobody's sampler", ("no_such_package",), Ours)
    monkeypatch.setattr(peers, "KINDS", (absent,))
    monkeypatch.setattr(lines, "PAPER", dataclasses.replace(PAPER, experiment=SMALL))
    monkeypatch.setattr(lines, "CPU", dataclasses.replace(PAPER, experiment=SMALL))
    places = ["--results", str(tmp_path), "--data-root", str(tmp_path), "--device", "cpu"]
    assert main.main([*places, "--peers", "--only", "prior chain beside", "ten"]) == 0
    assert "nobody's sampler is not timed: no_such_package cannot be imported" in capsys.readouterr().err
    (row,) = read(tmp_path / "measured" / TIMINGS, Timing)
    assert row.metric.startswith("ten")


@pytest.mark.slow
def test_a_peer_is_a_row_with_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a stored line does not say which version of which library it was."""
    monkeypatch.setattr(peers, "KINDS", (installed(peers.KINDS[0]),))
    monkeypatch.setattr(lines, "PAPER", dataclasses.replace(PAPER, experiment=SMALL))
    monkeypatch.setattr(lines, "CPU", dataclasses.replace(PAPER, experiment=SMALL))
    places = ["--results", str(tmp_path), "--data-root", str(tmp_path), "--device", "cpu"]
    assert main.main([*places, "--peers", "--only", peers.METRIC]) == 0
    (row,) = read(tmp_path / "measured" / TIMINGS, Timing)
    assert row.setting.startswith("torchebm, 5 steps, batch 4")
    assert row.intact
    assert row.versions["torchebm"]
    assert row.agreement is not None
    assert row.agreement <= EXACT
