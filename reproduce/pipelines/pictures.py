"""What a person looks at after a run, and what the repository keeps for its figures."""

import json
from collections.abc import Iterable, Mapping
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
from reproduce.measuring.session import Session, Subject
from reproduce.results.identity import FIRST_NOISE, noise_of

SHOWN = 32  # images of each source in the grid
PICTURES = ("samples", "energy", "training")
ARRAYS = ("samples", "langevin")
TRACED = 100  # chains in the energy trace and its diagnostics
KEPT = ("cpu", "budget", "paper")  # presets whose first seed the repository keeps; never a first look


def there(paths: Iterable[Path]) -> bool:
    """Whether all files are there: what one of them is missing of is made again, however the run ended before."""
    return all(path.exists() for path in paths)


def figures_of(into: Path, names: Iterable[str] = PICTURES) -> list[Path]:
    """Return the files of drawn figures."""
    return [into / f"{name}.{suffix}" for name in names for suffix in ("pdf", "png")]


def files_of(subject: Subject, folder: Path, into: Path, names: Iterable[str] = ARRAYS) -> list[Path]:
    """Return the files that `store` writes: in the run's folder, and where the repository keeps them, there too."""
    places = [into / f"{name}.npz" for name in names]
    if subject.preset in KEPT and subject.seed == 1 and noise_of(subject.variation) == FIRST_NOISE:
        stem = f"{subject.dataset}_{subject.identity.artifact}_{subject.preset}"
        places += [folder / "artifacts" / f"{f'{stem}_{name}'.replace('-', '_')}.npz" for name in names]
    return places


def left(subject: Subject, folder: Path, into: Path) -> list[Path]:
    """Return all files that `draw` leaves."""
    return [*files_of(subject, folder, into), into / "diagnostics.json", *figures_of(into)]


def draw(
    run: Run,
    model: JointModel,
    chain: Chain,
    images: Mapping[str, np.ndarray],
    subject: Subject,
    session: Session,
    folder: Path,
    into: Path | None = None,
    chains: int = TRACED,
) -> None:
    """Write samples, energy and training pictures, the arrays behind them and the chains' diagnostics into the folder.

    Args:
        run: whose pictures.
        model: trained.
        chain: of the prior, as it is sampled.
        images: uint8 (N, C, H, W) by source; the first ones are shown, uncurated.
        subject: what the run's rows are about.
        session: for the provenance; its reporter is told how the chains did.
        folder: the results folder, where the first seed of a full preset leaves its artifacts.
        into: where the pictures go, if not into the run's folder: beside samples that are one of several sets.
        chains: to watch, at one time.
    """
    into = into or run.folder
    shown = {source.replace("-", "_"): np.array(some[:SHOWN]) for source, some in images.items()}
    record = _watched(model, chain, chains, session.noise)
    energy = record.energy()
    notes = _tell(run, into, subject.steps, record.diagnosis(model.layer_names, chain), session)
    for name, arrays in {"samples": shown, "langevin": {"energy": energy, "notes": np.array(notes)}}.items():
        store(name, arrays, subject, session, folder, into)
    labels = {name.replace("_", " "): some for name, some in shown.items()}
    plotting.save(plotting.image_rows(labels, columns=SHOWN // 2), into / "samples")
    plotting.save(plotting.energy_trace(energy, notes=notes), into / "energy")
    curves = [f"energy_{side}/{layer}" for layer in model.layer_names for side in ("posterior", "prior")]
    curves = curves if subject.learning == "two-stage" else ["reconstruction", *curves]
    plotting.save(plotting.training_curves(run.events(), curves), into / "training")


def store(
    name: str, arrays: Mapping[str, np.ndarray], subject: Subject, session: Session, folder: Path, into: Path
) -> None:
    """Write arrays with the run that they are of to `into/name.npz`, and where the repository keeps them, there too."""
    made = subject.provenance(session.provenance["commit"])
    for path in files_of(subject, folder, into, (name,)):
        results.write_artifact(path, arrays, made)


def _watched(model: JointModel, chain: Chain, chains: int, scheme: Scheme) -> Record:
    """Run some prior chains and return what was seen of them."""
    # The start is drawn twice, from the same seeds: once to look at it, once by the chain itself.
    record = Record(model.energies, model.start(chains, chain, image_noise("sample", range(chains), scheme)))
    model.sample_prior(chains, chain, image_noise("sample", range(chains), scheme), record)
    return record


def _tell(run: Run, into: Path, step: int, diagnosis: Diagnosis, session: Session) -> list[str]:
    """Leave the diagnosis of the prior chains in diagnostics.json and, once, in the events; say it and return it."""
    told = diagnosis.to_json()
    write_text(into / "diagnostics.json", json.dumps(told, indent=1) + "\n")
    event = {"step": step, "diagnostics": told}
    if event not in run.events():  # the same weights may be measured again, on more images
        run.append_event(event)
    for sentence in diagnosis.sentences():
        session.report.line(f"prior chain: {sentence}")
    return diagnosis.sentences()
