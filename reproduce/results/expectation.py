"""What this code is held to: `expected.toml`, and how an entry of it is made from measured rows."""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jlebm.errors import UserError
from reproduce.results.identity import Of, Option, label
from reproduce.results.measurement import LEARNINGS, SOURCES, WEIGHTS, Measurement
from reproduce.results.metrics import METRICS
from reproduce.results.records import known, refuse_unwritable

CONFIDENCE = 0.95  # of the interval that new means are to fall into
QUESTION = ("dataset", "preset", "variation", "learning", "metric", "source", "layer", "target", "score")
CONDITIONS = (
    "reference",
    "extractor",
    "weights",
    "chain",
    "bits",
)  # what must agree within one mean, as `condition` says


@dataclass(frozen=True)
class Expectation:
    """One entry of `expected.toml`: which rows it is about, what they are held to, and why.

    Attributes:
        protocol, dataset, preset, learning, metric, source: as in `Measurement`; the rows' must be equal, and so must
            `variation`, `layer`, `target` and `score`.
        images: how many images; 0 in an entry without a value leaves it open.
        config_digest: of the rows; "" in an entry without a value.
        complete: False for rows of runs that a wall-clock budget ended early.
        reference, extractor, weights, chain, bits: what the rows must have been measured with; "" or None leaves it
            open. Of the extractor only the network's name is compared, the part before the first comma.
        value: the mean over seeds; None where nothing has been measured yet.
        tolerance: the deviation of the mean up to which it is a PASS.
        fail_beyond: the deviation beyond which it is a FAIL; between the two it is a DRIFT.
        seeds: how many distinct seeds a verdict needs, and the tolerance is made for the mean of.
        basis: which rows the value comes from and how the tolerance follows from their spread, in words.
        basis_rows: the digests of these rows, by which `basis.fault` makes all of it again.
        tolerance_by_hand: why 'tolerance' and 'fail_beyond' are not what the rule gives; "" where they are.
        needs: what measuring it takes, in words.
        command: what would measure it.
        paper: a key of `paper.toml` whose number is shown beside it; "" for none.

    Raises:
        UserError: a name is unknown, or the value has no tolerance, configuration or number of images.
    """

    protocol: str
    dataset: str
    preset: str
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
        """Whether a row is an answer to the same question, of whatever protocol, configuration and count."""
        return all(getattr(self, name) == getattr(row, name) for name in QUESTION)

    @property
    def of(self) -> Of:
        """What the number is of."""
        return Of(self.source, self.layer, self.target, self.score)

    @property
    def label(self) -> str:
        """The preset with its variation, as a table names it."""
        return label(self.preset, self.variation)


def condition(one: Measurement | Expectation, name: str) -> Any:
    """Return a field normalised for comparison, as a value that can be a key.

    Of an extractor it is the network, the part before the first comma. The digest behind it is the file's, and a
    file of part of the network gives the same features; that these are the network's, its self-check has found.
    """
    value = getattr(one, name)
    if isinstance(value, dict):
        return tuple(sorted(value.items()))  # options are the same in whatever order they were typed
    return value.partition(",")[0] if name == "extractor" else value


def question(one: Measurement | Expectation) -> tuple[Any, ...]:
    """Return the values of `QUESTION`, as a key."""
    return tuple(condition(one, name) for name in QUESTION)


def expect(rows: Sequence[Measurement], old: Expectation | None = None) -> Expectation:
    """Make the expectation that rows of one protocol and configuration justify, one row a seed.

    The value is the mean over the n seeds. The tolerance is the half-width of the two-sided 95 % prediction
    interval for the mean of m new seeds, t(0.975, n - 1) * s * sqrt(1/n + 1/m) with s the sample standard deviation,
    and never below the metric's floor; with n = 1 there is no spread and it is the floor. m is `old.seeds`, which n
    may exceed, and n without `old`. `fail_beyond` is twice the tolerance. What the rows don't say (seeds, needs,
    command, paper) is taken from `old`; a tolerance that was set by hand is replaced.

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
        raise UserError(
            f"{describe(first)} needs {old.seeds} seeds and has {count}; measure the others first: {old.command}"
        )
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
    """Name what is measured: "cifar10 tiny joint-mle: FID of ebm-prior"."""
    recipe = " ".join(filter(None, (one.dataset, one.label, one.learning)))
    return f"{recipe}: {METRICS[one.metric].label} of {one.of.name}"


def _of_new(seeds: int) -> str:
    return "one new seed" if seeds == 1 else f"the mean of {seeds} new seeds"
