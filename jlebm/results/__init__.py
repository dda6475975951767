"""Numbers with what made them: measured rows, what is expected, what papers report, verdicts, tables, artifacts."""

from jlebm.results.artifact import read_artifact, write_artifact
from jlebm.results.basis import held_to_basis
from jlebm.results.expectation import Expectation, expect, read_expected, rewrite_expected, write_expected
from jlebm.results.golden import GoldenVerdict
from jlebm.results.golden import compare as compare_golden
from jlebm.results.golden import write as write_golden
from jlebm.results.measurement import Measurement, read, read_all
from jlebm.results.paper import Reported, read_paper
from jlebm.results.records import METRICS, Metric
from jlebm.results.rows import append
from jlebm.results.tables import render
from jlebm.results.timing import TIMINGS, Timing
from jlebm.results.verdicts import Verdict, check, newest_of_each_seed

__all__ = [
    "METRICS",
    "TIMINGS",
    "Expectation",
    "GoldenVerdict",
    "Measurement",
    "Metric",
    "Reported",
    "Timing",
    "Verdict",
    "append",
    "check",
    "compare_golden",
    "expect",
    "held_to_basis",
    "newest_of_each_seed",
    "read",
    "read_all",
    "read_artifact",
    "read_expected",
    "read_paper",
    "render",
    "rewrite_expected",
    "write_artifact",
    "write_expected",
    "write_golden",
]
