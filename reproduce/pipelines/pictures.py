"""Pictures of a run, and the arrays that the repository keeps for its figures."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from figures import plotting
from jlebm.diagnostics import Diagnosis, Record
from jlebm.files import write_text
from jlebm.langevin import Chain
from jlebm.model import JointModel
from jlebm.randomness import Scheme, image_noise
from jlebm.run import Run
from reproduce import results
from reproduce.measuring.row_store import Rows

SHOWN = 32  # images of each source in the grid
PICTURES = ("samples", "energy", "training")
ARRAYS = ("samples", "langevin", "training")


@dataclass(frozen=True)
class Traced:
    """Chains of a trained model's prior whose energies are recorded."""

    model: JointModel
    chain: Chain
    """As the prior is sampled."""
    count: int = 100


def there(paths: Iterable[Path]) -> bool:
    """Whether all files exist; if one is missing, all are made again, however the run ended before."""
    return all(path.exists() for path in paths)


def figures_of(into: Path, names: Iterable[str] = PICTURES) -> list[Path]:
    """Return the files of drawn figures."""
    return [into / f"{name}.{suffix}" for name in names for suffix in ("pdf", "png")]


def stem_of(words: str) -> str:
    """Return the beginning of the names of an artifact's files: "cifar10 two-stage long" is cifar10_two_stage_long."""
    return re.sub(r"[\W_]+", "_", words)


def files_of(rows: Rows, into: Path, names: Iterable[str] = ARRAYS) -> list[Path]:
    """Return the files that `store` writes: in the run's folder and, if the repository keeps them, in its artifacts."""
    places = [into / f"{name}.npz" for name in names]
    if rows.kept:
        one = rows.subject.identity
        stem = stem_of(f"{one.dataset} {one.artifact} {one.label}")  # a variation has files of its own
        places += [rows.folder / "artifacts" / f"{stem}_{name.replace('-', '_')}.npz" for name in names]
    return places


def left(rows: Rows, into: Path, trained: bool = True) -> list[Path]:
    """Return all files that `draw` writes; weights that were not trained here have no training curves."""
    names = [name for name in ARRAYS if trained or name != "training"]
    pictures = [name for name in PICTURES if trained or name != "training"]
    return [*files_of(rows, into, names), into / "diagnostics.json", *figures_of(into, pictures)]


def draw(
    run: Run, traced: Traced, images: Mapping[str, np.ndarray], rows: Rows, into: Path, trained: bool = True
) -> None:
    """Draw samples, energy traces and training curves; store their arrays and the chains' diagnostics.

    Args:
        run: whose events give the training curves.
        traced: chains of the prior.
        images: uint8 (N, C, H, W) by source; the first ones are shown, uncurated.
        rows: of the trained model.
        into: the folder of the pictures: the run's, or that of one of several sets of samples.
        trained: whether the run was trained here; there are no curves otherwise.
    """
    shown = {source.replace("-", "_"): np.array(some[:SHOWN]) for source, some in images.items()}
    model = traced.model
    record = _recorded(traced, rows.session.noise)
    energy = record.energy()
    notes = _tell(run, into, record.diagnosis(model.layer_names, traced.chain), rows)
    arrays = {"samples": shown, "langevin": {"energy": energy, "notes": np.array(notes)}}
    if trained:
        arrays["training"] = plotting.recorded(run.events())
    for name, some in arrays.items():
        store(name, some, rows, into)
    labels = {name.replace("_", " "): some for name, some in shown.items()}
    plotting.save(plotting.image_rows(labels, columns=SHOWN // 2), into / "samples")
    plotting.save(plotting.energy_trace(energy, notes=notes), into / "energy")
    if trained:
        plotting.save(plotting.curve_panels(arrays["training"]), into / "training")


def store(name: str, arrays: Mapping[str, np.ndarray], rows: Rows, into: Path) -> None:
    """Write arrays with their provenance to `into/name.npz` and, if the repository keeps them, to its artifacts."""
    made = rows.subject.provenance(rows.session.provenance["commit"])
    for path in files_of(rows, into, (name,)):
        results.write_artifact(path, arrays, made)


def _recorded(traced: Traced, scheme: Scheme) -> Record:
    """Run prior chains and return their energies."""
    # The start is drawn twice, from the same seeds: once to record it, once by the chain itself.
    model, chain, count = traced.model, traced.chain, traced.count
    record = Record(model.energies, model.start(count, chain, image_noise("sample", range(count), scheme)))
    model.sample_prior(count, chain, image_noise("sample", range(count), scheme), record)
    return record


def _tell(run: Run, into: Path, diagnosis: Diagnosis, rows: Rows) -> list[str]:
    """Write the diagnosis of the prior chains to diagnostics.json and, once, to the events; report and return it."""
    told = diagnosis.to_json()
    write_text(into / "diagnostics.json", json.dumps(told, indent=1) + "\n")
    event = {"step": rows.subject.steps, "diagnostics": told}
    if event not in run.events():  # the same weights may be measured again, on more images
        run.append_event(event)
    for sentence in diagnosis.sentences():
        rows.session.report.line(f"prior chain: {sentence}")
    return diagnosis.sentences()
