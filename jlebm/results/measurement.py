"""One measured number with everything that made it, and the JSONL files that hold such rows."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from jlebm.errors import UserError
from jlebm.files import write_atomically
from jlebm.results.records import METRICS, decode, known, refuse_non_finite

SOURCES = ("gaussian-prior", "ebm-prior", "posterior", "training-halves", "all")
LEARNINGS = ("joint-mle", "variational", "")
WEIGHTS = ("raw", "ema", "")


@dataclass(frozen=True)
class Measurement:
    """One row of `results/measured/<dataset>.jsonl`.

    Attributes:
        protocol: the recipe and its version, "cifar10/1"; any change that may move a number makes a new version.
        dataset: its name.
        preset: the size of the recipe, "tiny", "budget" or "paper", or a variation named by the recipe.
        learning: "joint-mle" or "variational"; "" where nothing was learned (the training images' halves).
        seed: the run's seed.
        metric: a name of `METRICS`.
        source: whose samples: "gaussian-prior", "ebm-prior", "posterior", "training-halves", or "all" for a
            figure made of several.
        value: the number.
        spread: the metric's own (IS over its splits), not over seeds; None where it has none.
        images: how many images, or latents, the value is over.
        reference: "cifar10/train, 50000 images, sha256:47af8b02cfcf".
        extractor: "inception-2015-12-05, sha256:..."; "" where none is used.
        weights: "raw" or "ema"; "" where no network made the images.
        chain: "60 steps, epsilon 0.08, from standard normal"; "" where none ran.
        steps: training steps done.
        complete: False where a wall-clock budget ended the training early.
        config_digest: of the frozen configuration.
        commit: of the code.
        dirty: whether tracked files differed from that commit.
        device: the device class, "cpu-avx2".
        versions: of python, torch, torchvision, torch-fidelity, numpy and jlebm.
        wall_seconds: of the parts: train, sample, evaluate.
        date: UTC, ISO 8601.
        row_digest: SHA-256 over the canonical JSON of all the above; "" until the row is stored.
        where: the file and line that it was read from; not stored.

    Raises:
        UserError: a number is not finite, a name is unknown, or the date is not ISO 8601 with its time zone.
    """

    protocol: str
    dataset: str
    preset: str
    learning: str
    seed: int
    metric: str
    source: str
    value: float
    spread: float | None
    images: int
    reference: str
    extractor: str
    weights: str
    chain: str
    steps: int
    complete: bool
    config_digest: str
    commit: str
    dirty: bool
    device: str
    versions: dict[str, str]
    wall_seconds: dict[str, float]
    date: str
    row_digest: str = field(default="", compare=False, repr=False)
    where: str = field(default="", compare=False, repr=False, metadata={"stored": False})

    def __post_init__(self) -> None:
        refuse_non_finite(self)
        known(self.metric, METRICS, "metric")
        known(self.source, SOURCES, "source")
        known(self.learning, LEARNINGS, "learning scheme")
        known(self.weights, WEIGHTS, "kind of weights")
        try:
            zone = datetime.fromisoformat(self.date).tzinfo
        except ValueError:
            zone = None
        if zone is None:
            raise UserError(f"the date {self.date!r} is not ISO 8601 with its time zone, as 2026-01-31T12:00:00+00:00")

    @property
    def time(self) -> datetime:
        """The moment of `date`, by which rows are ordered."""
        return datetime.fromisoformat(self.date)

    @property
    def intact(self) -> bool:
        """Whether the stored digest is that of the other fields: False for a row that was changed by hand."""
        return self.row_digest in ("", _digest(self))


def append(path: Path, rows: Sequence[Measurement]) -> None:
    """Add rows to the end of a JSONL file, all of them or none; what stands there already is kept byte for byte.

    The folder's lock, its file `.lock`, is held while the file is read and replaced, so that two processes that
    append at once both keep their rows. Rows with the key of an older one are kept beside it: `check` takes the
    newest by date.

    Raises:
        UserError: the file holds a line that cannot be read (nothing is appended behind it), a row was changed
            since it was read, or the disk is full.
    """
    for row in rows:
        if not row.intact:
            raise UserError(f"{row.where or 'a row'} was changed since it was stored; it is not stored again")
    added = "".join(_line(row) for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file of its own is locked: the rows' file is replaced by another one while the lock is held.
    with FileLock(path.parent / ".lock"):
        before = path.read_bytes() if path.exists() else b""
        _parse(before, path)
        if before and not before.endswith(b"\n"):
            before += b"\n"
        content = before + added

        def write(part: Path) -> None:
            part.write_bytes(content)

        write_atomically(path, write)


def read(path: Path) -> list[Measurement]:
    """Read all rows of one JSONL file in their order; a file that does not exist has none.

    A row whose digest is broken is returned (`Measurement.intact` is False): `check` fails on it.

    Raises:
        UserError: a line is cut short or not JSON, or has an unknown, missing or wrong field. The sentence names
            file, line and field. Nothing is dropped.
    """
    return _parse(path.read_bytes(), path) if path.exists() else []


def read_all(folder: Path) -> list[Measurement]:
    """Read the rows of every `*.jsonl` of a folder, by file name."""
    return [row for path in sorted(folder.glob("*.jsonl")) for row in read(path)]


def _parse(content: bytes, path: Path) -> list[Measurement]:
    rows = []
    lines = content.split(b"\n")  # bytes: a text may hold characters that str.splitlines takes for line ends
    if lines[-1] == b"":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line.decode(), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                message = f"{where}: the last row is cut short or damaged; remove that line or restore it"
            else:
                message = f"{where}: this row is not JSON ({error}); restore it"
            raise UserError(message) from error
        if not isinstance(fields, dict):
            raise UserError(f"{where}: a row is a JSON object, {{...}}")
        if not fields.get("row_digest"):
            raise UserError(f"{where}: the field 'row_digest' is missing; only `append` writes rows")
        rows.append(dataclasses.replace(decode(Measurement, fields, where), where=where))
    return rows


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands twice")
    return fields


def _fields(row: Measurement) -> dict[str, Any]:
    fields = dataclasses.asdict(row)
    del fields["row_digest"], fields["where"]
    return fields


def _digest(row: Measurement) -> str:
    text = json.dumps(_fields(row), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _line(row: Measurement) -> str:
    fields = {**_fields(row), "row_digest": _digest(row)}
    return json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n"
