"""Convergence diagnostics: whether chains moved, settled and mixed, from each layer's energy along many chains.

The first half of the steps is burn-in. Drift, effective sample size and R-hat are computed from the energies of the
second half; the last two are ArviZ's rank-normalised versions (Vehtari et al., arXiv 1903.08008), if it is installed.

A layer has *moved* if its latents end at least `MOVED` standard deviations of the start away from it, in root mean
square over dimensions and chains. Below that an unchanged spread means a correlation with the start above
1 - MOVED^2 / 2 = 0.995: the chain refines its start and samples nothing. The distance that noise alone would cover,
sqrt(2 epsilon steps), is reported beside it but is not a criterion: a chain of tiny steps goes as far as its noise
(two-stage chains: 0.04; docs/facts, "Langevin step sizes") and still has not left its start.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jlebm.errors import UserError
from jlebm.langevin import Chain, StepInfo
from jlebm.latents import Latents

MOVED = 0.1  # standard deviations of the start
SETTLED = 0.25  # standard deviations over chains by which the mean energy may stray or drift, or
ERRORS = 4.0  # standard errors, if those are larger: few chains, or slow ones
FEWEST = 8  # energies per chain after burn-in that ArviZ needs: it splits them in half again


@dataclass(frozen=True)
class LayerDiagnosis:
    """Diagnosis of one layer."""

    name: str
    displacement: float
    """Root-mean-square distance per dimension between start and end, in standard deviations of the start over chains.

    Two independent draws are sqrt(2) apart.
    """
    noise_alone: float
    """The distance that noise alone would cover, in the same unit."""
    stuck: float
    """Share of chains that end exactly where they started: all their proposals were rejected."""
    drift: float | None
    """Change of the mean energy after burn-in, in standard deviations over chains: a line's slope times its length.

    None if it is undefined: one energy per chain is left, or all chains have the same energies.
    """
    drift_error: float | None
    """Standard error of the drift, over chains."""
    settled: int | None
    """The first step from which the mean energy stays at its average after burn-in.

    It stays there while it is within `SETTLED` standard deviations over chains or `ERRORS` standard errors. None if
    the energies after burn-in still stray or drift farther.
    """
    effective_samples: float | None
    """Effective sample size of the energies after burn-in, over all chains."""
    rhat: float | None
    """Split R-hat over chains; 1 if they are indistinguishable, at most 1.01 for chains that have mixed."""
    not_measured: str | None
    """Why there is no effective sample size and no R-hat."""

    @property
    def moved(self) -> bool:
        """Whether the latents end at least `MOVED` from their start."""
        return self.displacement >= MOVED


@dataclass(frozen=True)
class Diagnosis:
    """Diagnosis of many chains of one kind, layer by layer, top first."""

    chain: str
    """The chain's length, step size and start, as rows of results describe them."""
    chains: int
    steps: int
    half: int
    """The first step after burn-in; the start is step 0."""
    acceptance: float | None
    """Share of proposals that a Metropolis correction accepted, over all steps and chains; None without one."""
    layers: tuple[LayerDiagnosis, ...]

    def sentences(self) -> list[str]:
        """Return one plain line per layer, and one for the acceptance rate of a Metropolis correction."""
        lines = [self._sentence(layer) for layer in self.layers]
        if self.acceptance is not None:
            lines.append(f"{100 * self.acceptance:.1f} % of the proposals were accepted")
        return lines

    def _sentence(self, layer: LayerDiagnosis) -> str:
        moved = "moved by" if layer.moved else "has not moved:"
        stuck = f", {100 * layer.stuck:.0f} % of the chains not at all" if layer.stuck else ""
        parts = [
            f"{layer.name} {moved} {layer.displacement:.2g} standard deviations of its start "
            f"(noise alone: {layer.noise_alone:.2g}){stuck}"
        ]
        if layer.drift is not None:
            settled = "not settled" if layer.settled is None else f"settled from step {layer.settled} on"
            parts.append(
                f"energy {f'{settled}, drift' if layer.moved else 'drift'} {layer.drift:+.2g} ± "
                f"{layer.drift_error:.2g} standard deviations over steps {self.half} to {self.steps}"
            )
        if layer.not_measured is None:
            energies = self.chains * (self.steps + 1 - self.half)
            parts.append(f"effective sample size {layer.effective_samples:.0f} of {energies}, R-hat {layer.rhat:.2f}")
        else:
            parts.append(f"effective sample size and R-hat not measured: {layer.not_measured}")
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as plain dictionaries, lists, numbers and strings; each layer says whether it moved."""
        layers = [dataclasses.asdict(layer) | {"moved": layer.moved} for layer in self.layers]
        return dataclasses.asdict(self) | {"layers": layers}


class Record:
    """An observer that records what `diagnose` needs: `run(start, ..., observe=record)`.

    Args:
        energies: returns the energy of each layer, (batch, layers), such as `JointModel.energies`.
        start: where the chains start.
    """

    def __init__(self, energies: Callable[[Latents], Float[Tensor, "batch layers"]], start: Latents):
        self.energies, self.start, self.end = energies, start, start
        self.trace = [energies(start)]
        self.accepted: list[Tensor] = []

    def __call__(self, index: int, position: Latents, info: StepInfo) -> None:
        """Record the energies, the position and the accepted proposals."""
        self.end = position
        self.trace.append(self.energies(position))
        if info.accepted is not None:
            self.accepted.append(info.accepted)

    def energy(self) -> Float[np.ndarray, "steps_and_start chains layers"]:
        """Return the energies at the start and after every step."""
        return torch.stack(self.trace).detach().cpu().numpy()

    def diagnosis(self, names: Sequence[str], chain: Chain) -> Diagnosis:
        """Return the diagnosis of the recorded chains; see `diagnose`."""
        accepted = torch.stack(self.accepted).cpu().numpy() if self.accepted else None
        return diagnose(self.energy(), names, self.start, self.end, chain, accepted)


def diagnose(
    energy: Float[np.ndarray, "steps_and_start chains layers"],
    names: Sequence[str],
    start: Latents,
    end: Latents,
    chain: Chain,
    accepted: Bool[np.ndarray, "steps chains"] | None = None,
) -> Diagnosis:
    """Diagnose chains from the energies along them and from their starts and ends.

    Args:
        energy: energy of each layer at the start (index 0) and after every step.
        names: names of the layers.
        start: the first latents.
        end: the last ones.
        chain: how the chains were run.
        accepted: the proposals that a Metropolis correction accepted.

    Raises:
        UserError: there are fewer than two chains, they all start at one point of a layer, or an energy is not finite.
    """
    steps, chains = len(energy) - 1, energy.shape[1]
    if chains < 2:
        raise UserError("chains are diagnosed beside one another: run at least two, not one")
    if not np.isfinite(energy).all():
        step, _, layer = np.argwhere(~np.isfinite(energy))[0]
        raise UserError(f"the energy of {names[layer]} is not finite at step {step}: the chain cannot be diagnosed")
    half = len(energy) // 2
    layers = []
    for index, name in enumerate(names):
        along = energy[:, :, index].astype(np.float64)
        movement = _movement(name, start[index].double(), end[index].double(), chain, steps)
        layers.append(LayerDiagnosis(name, *movement, *_settling(along, half), *_mixing(along[half:])))
    acceptance = None if accepted is None else float(accepted.mean())
    return Diagnosis(chain.describe(), chains, steps, half, acceptance, tuple(layers))


class _Movement(NamedTuple):
    displacement: float
    noise_alone: float
    stuck: float


def _movement(name: str, start: Tensor, end: Tensor, chain: Chain, steps: int) -> _Movement:
    unit = float(start.var(dim=0).mean().sqrt())
    if unit == 0:
        raise UserError(f"all chains start at one point of {name}: there is no spread to compare their movement with")
    noise = chain.noise_alone(steps)
    # The unit of a chain in whitened noise is 1: the start's standard deviation there.
    noise /= 1.0 if chain.space == "noise" else unit
    squares = (end - start).square().flatten(1).mean(1)
    return _Movement(float(squares.mean().sqrt()) / unit, noise, float((squares == 0).double().mean()))


class _Settling(NamedTuple):
    drift: float | None
    drift_error: float | None
    settled: int | None


class Drift(NamedTuple):
    """Drift of a mean over chains: a line's least-squares slope times its length."""

    change: float
    """The change in standard deviations over chains."""
    error: float
    """Standard error of the change, over chains."""
    spread: float
    """One standard deviation over chains."""


def drift_of(kept: Float[np.ndarray, "steps chains"]) -> Drift | None:
    """Return the drift of a quantity along two or more chains; None for a single step or equal chains."""
    length, chains = kept.shape
    spread = float(np.sqrt(kept.var(axis=1, ddof=1).mean()))
    if length < 2 or spread == 0:
        return None
    # Steps of one chain depend on each other, chains do not: the error is that of the chains' own slopes.
    time = np.arange(length) - (length - 1) / 2
    changes = time @ kept / (time @ time) * (length - 1) / spread
    return Drift(float(changes.mean()), float(changes.std(ddof=1)) / math.sqrt(chains), spread)


def _settling(along: Float[np.ndarray, "steps chains"], half: int) -> _Settling:
    found = drift_of(along[half:])
    if found is None:
        return _Settling(None, None, None)
    drift, error, spread = found
    chains = along.shape[1]
    mean = along.mean(axis=1)
    strays = np.flatnonzero(np.abs(mean - mean[half:].mean()) > max(SETTLED, ERRORS / math.sqrt(chains)) * spread)
    since = int(strays[-1]) + 1 if len(strays) else 0
    settled = since <= half and abs(drift) <= max(SETTLED, ERRORS * error)
    return _Settling(drift, error, since if settled else None)


class _Mixing(NamedTuple):
    effective_samples: float | None
    rhat: float | None
    not_measured: str | None


def _mixing(kept: Float[np.ndarray, "steps chains"]) -> _Mixing:
    if len(kept) < FEWEST:
        return _Mixing(None, None, f"{len(kept)} energies of each chain after burn-in are too few; take longer chains")
    half = len(kept) // 2
    if not np.ptp(kept[:half], axis=0).any() and not np.ptp(kept[-half:], axis=0).any():
        return _Mixing(None, None, "the energy of every chain stays the same after burn-in")
    try:
        from arviz_stats.base.array import array_stats
    except ImportError:
        return _Mixing(None, None, "ArviZ is not installed; run: python -m pip install 'jlebm[diagnostics]'")
    samples = array_stats.ess(kept.T, chain_axis=0, draw_axis=1, method="bulk")
    rhat = array_stats.rhat(kept.T, chain_axis=0, draw_axis=1, method="rank")
    return _Mixing(np.asarray(samples).item(), np.asarray(rhat).item(), None)
