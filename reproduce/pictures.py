"""What a person looks at after a run, and what the repository keeps for its figures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from jlebm import plotting, results
from jlebm.langevin import Chain, StepInfo
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.randomness import PerImageNoise
from jlebm.run import Run
from reproduce.bench import Bench, Subject

SHOWN = 32  # images of each source in the grid
TRACED = 100  # chains in the energy trace
KEPT = ("cpu", "budget", "paper")  # presets whose first seed the repository keeps; never a first look


def draw(
    run: Run,
    model: JointModel,
    chain: Chain,
    images: Mapping[str, np.ndarray],
    subject: Subject,
    bench: Bench,
    folder: Path,
) -> None:
    """Write samples, energy and training pictures and the arrays behind them into the run's folder.

    Args:
        run: whose pictures.
        model: trained.
        chain: of the prior, as it is sampled.
        images: uint8 (N, C, H, W) by source; the first ones are shown, uncurated.
        subject: what the run's rows are about.
        bench: for the provenance.
        folder: the results folder, where the first seed of a full preset leaves its artifacts.
    """
    shown = {source.replace("-", "_"): np.array(some[:SHOWN]) for source, some in images.items()}
    energy = _energy_trace(chain, model)
    names = ("protocol", "dataset", "preset", "learning", "seed", "config_digest")
    identity = {name: getattr(subject, name) for name in names} | {"commit": bench.provenance["commit"]}
    for name, arrays in {"samples": shown, "langevin": {"energy": energy}}.items():
        results.write_artifact(run.folder / f"{name}.npz", arrays, identity)
        if subject.preset in KEPT and subject.seed == 1:
            stem = f"{subject.dataset}_{subject.learning}_{subject.preset}_{name}".replace("-", "_")
            results.write_artifact(folder / "artifacts" / f"{stem}.npz", arrays, identity)
    labels = {name.replace("_", " "): some for name, some in shown.items()}
    plotting.save(plotting.image_rows(labels, columns=SHOWN // 2), run.folder / "samples")
    plotting.save(plotting.energy_trace(energy), run.folder / "energy")
    curves = [f"energy_{side}/{layer}" for layer in model.layer_names for side in ("posterior", "prior")]
    curves = curves if subject.learning == "two-stage" else ["reconstruction", *curves]
    plotting.save(plotting.training_curves(run.events(), curves), run.folder / "training")


def _energy_trace(chain: Chain, model: JointModel) -> np.ndarray:
    """Return the energy of each layer before and after every step of some prior chains: (steps + 1, chains, layers)."""
    trace: list[torch.Tensor] = []

    def observe(index: int, position: Latents, info: StepInfo) -> None:
        trace.append(model.energies(position))

    # The start is drawn twice, from the same seeds: once to look at it, once by the chain itself.
    trace.append(model.energies(model.start(TRACED, chain, PerImageNoise("sample", range(TRACED)))))
    model.sample_prior(TRACED, chain, PerImageNoise("sample", range(TRACED)), observe)
    return torch.stack(trace).cpu().numpy()
