"""Entries of `expected.toml`, and how measured rows make one."""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jlebm.errors import UserError
from reproduce.results.default_folder import RESULTS, naming
from reproduce.results.identity import Described, Option
from reproduce.results.measurement import LEARNINGS, SOURCES, WEIGHTS, Measurement
from reproduce.results.metrics import METRICS
from reproduce.results.records import known, refuse_unwritable

CONFIDENCE = 0.95  # level of the prediction interval for new means
QUESTION = ("dataset", "preset", "variation", "model", "learning", "metric", "source", "layer", "target", "score")
CONDITIONS = (
    "reference",
    "extractor",
    "weights",
    "chain",
    "bits",
)  # must agree within one mean, compared by `condition`


@dataclass(frozen=True)
class Expectation(Described):
    """One entry of `expected.toml`: the rows it covers, the value and tolerance they must match, and why.

    Attributes:
        protocol, dataset, preset, model, learning, metric, source: as in `Measurement`; the rows' must be equal, and so
            must `variation`, `layer`, `target` and `score`.
        images: number of images; 0, in an entry without a value, leaves it open.
        config_digest: of the rows; "" in an entry without a value.
        complete: False for runs that a wall-clock budget ended early.
        reference, extractor, weights, chain, bits: conditions of the measurement; "" or None leaves one open.
            Only the name of the extractor's network is compared, the part before the first comma.
        value: mean over seeds; None if nothing has been measured yet.
        tolerance: largest deviation of the mean that passes.
        fail_beyond: largest deviation that is a DRIFT; beyond it is a FAIL.
        seeds: number of distinct seeds that a verdict needs; the tolerance is for their mean.
        basis: the rows behind the value, and how the tolerance follows from their spread, in words.
        basis_rows: digests of these rows, from which `basis.fault` recomputes the entry.
        tolerance_by_hand: why 'tolerance' and 'fail_beyond' differ from the rule; "" if they do not.
        needs: what the measurement takes, in words.
        command: measures it.
        paper: a key of `paper.toml` whose number is shown beside it; "" for none.

    Raises:
        UserError: a name is unknown, or the value has no tolerance, configuration or number of images.
    """

    protocol: str
    dataset: str
    preset: str
    model: str
    learning: str
    metric: str
    source: str
    seeds: int
    needs: str
    command: str
    images: int = 0
    config_digest: str = ""
    complete: bool = True
    reference: str = ""
    extractor: str = ""
    weights: str = ""
    chain: str = ""
    value: float | None = None
    tolerance: float | None = None
    fail_beyond: float | None = None
    basis: str = ""
    paper: str = ""
    tolerance_by_hand: str = ""
    basis_rows: tuple[str, ...] = ()
    variation: dict[str, Option] = field(default_factory=dict)
    layer: str = ""
    target: str = ""
    score: str = ""
    bits: int | None = None

    def __post_init__(self) -> None:
        refuse_unwritable(self)
        known(self.metric, METRICS, "metric")
        known(self.source, SOURCES, "source")
        known(self.learning, LEARNINGS, "learning scheme")
        known(self.weights, WEIGHTS, "kind of weights")
        if self.seeds < 1:
            raise UserError(f"'seeds' is {self.seeds}; a verdict needs at least one seed")
        if self.value is None:
            if self.basis_rows:
                raise UserError("an entry names its 'basis_rows' and has no 'value'; restore it")
            return
        if self.tolerance is None or self.fail_beyond is None or not 0 <= self.tolerance <= self.fail_beyond:
            raise UserError("a value comes with 'tolerance' and 'fail_beyond', 0 <= tolerance <= fail_beyond")
        if not self.config_digest or self.images < 1:
            raise UserError("a value names the 'config_digest' and 'images' of the rows that it comes from")

    def asks(self, row: Measurement) -> bool:
        """Whether a row answers the same question, with any protocol, configuration and number of images."""
        return all(getattr(self, name) == getattr(row, name) for name in QUESTION)


def condition(one: Measurement | Expectation, name: str) -> Any:
    """Return a field normalised for comparison, as a hashable value.

    For an extractor this is the network's name, the part before the first comma. The digest behind it is that of the
    file: a file with part of the network gives the same features, as its self-check shows.
    """
    value = getattr(one, name)
    if isinstance(value, dict):
        return tuple(sorted(value.items()))  # the order of options does not matter
    return value.partition(",")[0] if name == "extractor" else value


def question(one: Measurement | Expectation) -> tuple[Any, ...]:
    """Return the values of `QUESTION`, as a key."""
    return tuple(condition(one, name) for name in QUESTION)


def expect(rows: Sequence[Measurement], old: Expectation | None = None, folder: Path = RESULTS) -> Expectation:
    """Make the expectation from rows of one protocol and configuration, one row for each seed.

    The value is the mean over the n seeds. The tolerance is the half-width of the two-sided 95 % prediction
    interval for the mean of m new seeds, t(0.975, n - 1) * s * sqrt(1/n + 1/m) with s the sample standard deviation,
    and never below the metric's floor; with n = 1 there is no spread and it is the floor. m is `old.seeds`, which n
    may exceed, and n without `old`. `fail_beyond` is twice the tolerance. The fields that rows lack
    (seeds, needs, command, paper) come from `old`; a tolerance set by hand is replaced. `folder` is that of the rows.

    Raises:
        UserError: no rows, two of one seed, a row changed by hand, rows of different selectors or conditions, or
            fewer seeds than `old` asks for.
    """
    if not rows:
        raise UserError("no row to expect anything from; measure first")
    first = rows[0]
    for row in rows:
        if row.fault:
            raise UserError(f"{row.where or 'a row'} {row.fault}; restore it or measure again")
        for name in ("protocol", *QUESTION, "images", "config_digest", "complete", *CONDITIONS):
            wanted, found = (condition(one, name) for one in (first, row))
            if found != wanted:
                raise UserError(
                    f"rows with the {name} {wanted!r} and {found!r} have no common mean; select the rows of one"
                )
    values = {row.seed: row.value for row in rows}
    count = len(values)
    if count != len(rows):
        raise UserError("two rows have the same seed; give the newest of each")
    if old is not None and count < old.seeds:
        said = f"{describe(first)} needs {old.seeds} seeds and has {count}; measure the others first"
        raise UserError(f"{said}: {naming(folder, old.command)}")
    metric = METRICS[first.metric]
    seeds = ", ".join(str(seed) for seed in sorted(values))
    commits, devices = (
        ", ".join(dict.fromkeys(said(row) for row in sorted(rows, key=lambda row: row.seed)))
        for said in (lambda row: row.commit[:12], lambda row: row.device)
    )
    basis = f"mean over seed{'s' * (count > 1)} {seeds} at commit {commits} on {devices}"
    tolerance = metric.floor
    if count > 1:
        from scipy.special import stdtrit  # here: --help needs no scipy

        spread = statistics.stdev(values.values())
        quantile = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
        new = count if old is None else old.seeds
        interval = quantile * spread * (1 / count + 1 / new) ** 0.5
        tolerance = max(interval, metric.floor)
        basis += (
            f"; tolerance: 95 % prediction interval for {_of_new(new)}, t = {quantile:.3f}, "
            f"sample standard deviation {spread:.4g}, so {interval:.4g}, not below {metric.floor:g}"
        )
    else:
        basis += f"; one seed has no spread, so the tolerance is the metric's floor {metric.floor:g}"
    made = Expectation(
        **{name: getattr(first, name) for name in ("protocol", *QUESTION, "images", "config_digest", "complete")},
        **{name: condition(first, name) for name in CONDITIONS},
        value=statistics.fmean(values.values()),
        tolerance=tolerance,
        fail_beyond=2 * tolerance,
        seeds=count,
        basis=basis + "; fail beyond twice the tolerance",
        basis_rows=tuple(row.digest for row in sorted(rows, key=lambda row: row.seed)),
        needs=f"a machine like {first.device}",
        command=first.identity.command(tuple(sorted(values)), first.target, first.config_digest),
    )
    if old is None:
        return made
    kept = {name: getattr(old, name) for name in ("seeds", "needs", "command", "paper")}
    return dataclasses.replace(made, **kept)


def describe(one: Measurement | Expectation) -> str:
    """Name what is measured: "cifar10 tiny two-layer joint-mle: FID of ebm-prior"."""
    recipe = " ".join(filter(None, (one.dataset, one.label, one.trained)))
    return f"{recipe}: {quantity(one)}"


def quantity(one: Measurement | Expectation) -> str:
    """Name what is measured without the recipe: "FID of ebm-prior"."""
    return f"{METRICS[one.metric].label} of {one.of.name}"


def _of_new(seeds: int) -> str:
    return "one new seed" if seeds == 1 else f"the mean of {seeds} new seeds"
