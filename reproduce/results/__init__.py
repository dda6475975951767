"""Measured rows with their provenance, expectations, reported values, verdicts, tables and artifacts."""

from reproduce.results.artifact import read_artifact, write_artifact
from reproduce.results.basis import held_to_basis, verdicts_on
from reproduce.results.expectation import Expectation, expect
from reproduce.results.expected_file import expected_of, read_expected, rewrite_expected, write_expected
from reproduce.results.golden import GoldenVerdict
from reproduce.results.golden import compare as compare_golden
from reproduce.results.golden import read as read_golden
from reproduce.results.golden import write as write_golden
from reproduce.results.measurement import Measurement, read, read_all
from reproduce.results.metrics import METRICS, Metric
from reproduce.results.paper import Reported, paper_of, read_paper
from reproduce.results.rendering import render
from reproduce.results.rows import append
from reproduce.results.timing import TIMINGS, Timing
from reproduce.results.verdicts import Verdict, check, newest_of_each_seed

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
    "expected_of",
    "held_to_basis",
    "newest_of_each_seed",
    "paper_of",
    "read",
    "read_all",
    "read_artifact",
    "read_expected",
    "read_golden",
    "read_paper",
    "render",
    "rewrite_expected",
    "verdicts_on",
    "write_artifact",
    "write_expected",
    "write_golden",
]
