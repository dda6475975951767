"""The rows of one trained model: which are stored, and how another is added with its provenance."""

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from jlebm.devices import peak_memory
from jlebm.engines import parallel, products
from jlebm.evaluation.fidelity import NotMeasured
from jlebm.run import Run
from jlebm.training import TrainState
from reproduce import results
from reproduce.measuring.session import Session
from reproduce.results.identity import FIRST_NOISE, Of, OfTraining, Option, noise_of

ASKED = (
    "protocol",
    "metric",
    "of",
    "bits",
    "images",
    "reference",
    "extractor",
    "weights",
    "chain",
)  # fields that tell the rows of one subject apart


@dataclass(frozen=True)
class Subject(OfTraining):
    """A trained model that rows are measured on, and how its samples are drawn."""

    recipe: str
    """Module of `reproduce` that trained it."""
    model: str
    """two-layer, two-stage or ladder; in the recipes `table` and `priors`, the system's or the prior's name."""
    protocol: str
    dataset: str
    preset: str
    learning: str
    seed: int
    steps: int
    complete: bool
    weights: str
    """raw or ema"""
    config_digest: str
    chains: Mapping[str, str]
    """Description of the chain of each source; a source without one is drawn without a chain."""
    train_seconds: float
    shared: tuple[str, ...] = ("training-halves",)
    """Sources whose rows are the same for all seeds."""
    variation: Mapping[str, Option] = field(default_factory=dict)
    """Options that differ from the preset."""
    twin_digest: str = ""
    """Configuration digest of the twin with a Gaussian prior that is shown beside the model; empty without a twin."""
    run: tuple[str, int] | None = None
    """Digest and seed in the run's header, if they differ from those of the rows (samples of its weights)."""

    @classmethod
    def of_training(
        cls,
        run: Run,
        state: TrainState,
        recipe: str,
        model: str,
        chains: Mapping[str, str],
        variation: Mapping[str, Option],
    ) -> Self:
        """Return the subject of one training; where rows say otherwise, its caller replaces that field."""
        one = run.experiment
        return cls(
            recipe=recipe,
            model=model,
            protocol=one.protocol,
            dataset=one.dataset,
            preset=one.preset,
            learning=one.learning,
            seed=run.seed,
            steps=state.step,
            complete=state.step >= one.training.steps,
            weights="raw" if state.ema is None else "ema",
            config_digest=one.digest(),
            chains=chains,
            train_seconds=state.seconds,
            variation=variation,
        )

    def provenance(self, commit: str) -> dict[str, Any]:
        """Return the provenance of an artifact."""
        names = ("protocol", "dataset", "preset", "learning", "seed", "config_digest")
        rest: dict[str, Any] = {"twin_digest": self.twin_digest} if self.twin_digest else {}
        if self.variation:
            rest["variation"] = dict(self.variation)
        if self.run is not None:
            rest["run_digest"], rest["run_seed"] = self.run
        return {name: getattr(self, name) for name in names} | {"commit": commit} | rest


class Wanted(NamedTuple):
    """A row that is wanted."""

    metric: str
    of: Of
    images: int
    """How many are measured."""
    judged: bool = False
    """Whether an extractor judges them."""
    reference: str = ""
    """Images that a metric compares with, if they are not the session's."""
    extractor: str = ""
    """Extractor of a metric with such a reference."""


class Answer(NamedTuple):
    """The value of a row, with the wall-clock seconds it took and further fields."""

    wanted: Wanted
    value: float
    seconds: dict[str, float]
    fields: Mapping[str, Any] = {}


class Part(NamedTuple):
    """Rows that are computed together, in one pass over the same samples."""

    wanted: Sequence[Wanted]
    answers: Callable[[Sequence[Wanted]], Iterable[Answer | NotMeasured]]
    """Computes those of them that are not stored."""


class Rows:
    """The stored rows of one subject; a new one is appended as soon as it is measured."""

    def __init__(self, subject: Subject, session: Session, folder: Path):
        self.path = folder / "measured" / f"{subject.dataset}.jsonl"
        self.folder, self.subject, self.session = folder, subject, session
        self.added = self.found = 0
        parallel.barrier()  # all processes read the stored rows before the first one adds to them
        self.standing = [row for row in results.read(self.path) if self._ours(row)]
        parallel.barrier()

    @property
    def made(self) -> dict[str, Any] | None:
        """What the subject's samples follow from, as JSON; None of a changed tree, whose commit does not tell it."""
        subject, code = self.subject, self.session.provenance
        if code["dirty"]:
            return None
        names = ("protocol", "config_digest", "seed", "steps", "weights", "train_seconds")
        own = {name: getattr(subject, name) for name in names} | {"variation": dict(subject.variation)}
        own["images"] = self.session.dataset.digest  # those that posterior samples are of
        return own | {name: code[name] for name in ("commit", "device", "versions")}

    @property
    def kept(self) -> bool:
        """Whether the repository keeps the arrays behind the rows for its figures.

        It keeps those of the first seed of a preset, with the first scheme of noise.
        """
        first = self.subject.seed == 1 and noise_of(self.subject.variation) == FIRST_NOISE
        return self.session.size.kept and self.subject.preset != "custom" and first

    def _ours(self, row: results.Measurement) -> bool:
        subject = self.subject
        same = (row.config_digest, row.device) == (subject.config_digest, self.session.provenance["device"])
        run = (row.seed, row.steps) == (subject.seed, subject.steps)
        noise = row.noise == noise_of(subject.variation)
        return row.intact and same and noise and (run or row.source in subject.shared)

    @property
    def begun(self) -> bool:
        """Whether a row of these weights is stored, not only one shared by all seeds."""
        return any(row.source not in self.subject.shared or row.seed == self.subject.seed for row in self.standing)

    def _answers(self, stored: results.Measurement, new: results.Measurement) -> bool:
        """Whether a row stored by another process in the meantime answers the same question as a new one."""
        seen = any(stored.row_digest == row.row_digest for row in self.standing)
        return not seen and self._ours(stored) and all(getattr(stored, name) == getattr(new, name) for name in ASKED)

    def fill(self, parts: Iterable[Part]) -> None:
        """Compute the rows that are wanted and not stored; each is stored as soon as it is computed.

        An interruption therefore costs only the current one.
        """
        for part in parts:
            missing = [one for one in part.wanted if self.find(one) is None]
            self.found += len(part.wanted) - len(missing)
            for answer in part.answers(missing) if missing else ():
                if isinstance(answer, NotMeasured):
                    self.session.lacks(answer)
                else:
                    self.store(answer)

    def find(self, wanted: Wanted) -> results.Measurement | None:
        """Return the newest stored row that is wanted, by the same extractor; None without one."""
        by = self._judged_by(wanted)
        asked = (wanted.metric, wanted.of, wanted.images, by["reference"], by["extractor"])
        for row in reversed(self.standing):
            if (row.metric, row.of, row.images, row.reference, row.extractor) == asked:
                return row
        return None

    def store(self, answer: Answer) -> results.Measurement:
        """Store an answer as a row with its provenance; see `add`."""
        one = answer.wanted
        rest = {**self._judged_by(one), **answer.fields}
        return self.add(one.metric, one.of, answer.value, one.images, answer.seconds, **rest)

    def _judged_by(self, wanted: Wanted) -> dict[str, str]:
        if wanted.judged:
            return self.session.judged_by()
        return {"reference": wanted.reference, "extractor": wanted.extractor}

    def add(
        self, metric: str, of: Of | str, value: float, images: int, seconds: dict[str, float], **rest: Any
    ) -> results.Measurement:
        """Store a row with its provenance; `rest` sets further fields.

        If another process has stored the same measurement in the meantime, that row is returned and nothing is stored:
        two seeds running at once store what they share once.
        """
        subject, of = self.subject, _of(of)
        fields = {
            "weights": subject.weights,
            "spread": None,
            "reference": "",
            "extractor": "",
            "chain": subject.chains.get(of.source, ""),
        }
        names = (
            "recipe",
            "model",
            "protocol",
            "dataset",
            "preset",
            "learning",
            "seed",
            "steps",
            "complete",
            "config_digest",
        )
        versions = self.session.provenance["versions"] | peak_memory(self.session.device) | products.used()
        row = results.Measurement(
            **{name: getattr(subject, name) for name in names},
            **of._asdict(),
            metric=metric,
            variation=dict(subject.variation),
            value=value,
            images=images,
            wall_seconds={"train": subject.train_seconds, **seconds},
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **(self.session.provenance | {"versions": versions}),
            **(fields | rest),
        )
        if parallel.first():
            (row,) = results.append(self.path, [row], stands=self._answers)
        self.standing.append(row)
        self.added += 1
        return row


def _of(of: Of | str) -> Of:
    return Of(of) if isinstance(of, str) else of


def stored(*measured: Rows) -> str:
    """Describe how many rows were added to the subjects' file, and that those found there were not measured again."""
    added, found = sum(rows.added for rows in measured), sum(rows.found for rows in measured)
    path, anew = measured[0].path, "not measured again (--results FOLDER measures them anew)"
    if added == 0:
        return f"the rows stood already in {path} and were {anew}"
    others = f"; {found} more stood there already and {'were' if found != 1 else 'was'} {anew}" if found else ""
    return f"stored {added} row{'s' * (added != 1)} in {path}{others}"
