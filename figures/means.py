"""Mean over seeds of stored rows that may be averaged, and how a table's cells show it."""

from collections.abc import Iterable
from dataclasses import dataclass

from reproduce.results import Measurement
from reproduce.results.cited import Cited
from reproduce.results.identity import Of
from reproduce.results.rendering import number
from reproduce.results.verdicts import judged_by, newest_alike, summary


@dataclass(frozen=True)
class Mean:
    """Mean of rows that differ in their seed alone, of the training or of the samples."""

    rows: tuple[Measurement, ...]
    """At least one."""

    @property
    def row(self) -> Measurement:
        """One of the rows."""
        return self.rows[0]

    @property
    def value(self) -> float:
        """The mean."""
        return summary(self.rows)[0]

    @property
    def cell(self) -> str:
        """Mean and standard deviation over seeds with the decimals of the metric, with the rows behind them."""
        value, spread, _ = summary(self.rows)
        return Cited(number(value, self.row.metric, spread), self.rows)

    @property
    def counts(self) -> tuple[str, str]:
        """Number of seeds and of images, as cells."""
        return str(len(self.rows)), str(self.row.images)


def mean_of(rows: Iterable[Measurement], metric: str, of: Of | str, **asked: object) -> Mean | None:
    """Return the mean of the rows with a metric, a source and given fields; None without such rows."""
    asked |= {"metric": metric, "of": Of(of) if isinstance(of, str) else of}
    found = [row for row in rows if all(getattr(row, name) == value for name, value in asked.items())]
    most = max((row.images for row in found), default=0)
    newest = newest_alike([row for row in found if row.images == most])
    return Mean(tuple(newest)) if newest else None


def cell(mean: Mean | None) -> str:
    """Return the cell of a mean; "-" for None."""
    return "-" if mean is None else mean.cell


def gap_closed(gaussian: Mean | None, mean: Mean | None, posterior: Mean | None) -> str:
    """Format the share of the gap between Gaussian prior and posterior that is closed, from the means shown.

    It is "-" without one of them, or where they are not of as many images, judged in the same way.
    """
    if gaussian is None or mean is None or posterior is None or gaussian.value <= posterior.value:
        return "-"
    if len({judged_by(one.row) for one in (gaussian, mean, posterior)}) > 1:
        return "-"
    share = (gaussian.value - mean.value) / (gaussian.value - posterior.value)
    return Cited(number(share, "prior_gap_closed"), (*gaussian.rows, *mean.rows, *posterior.rows))
