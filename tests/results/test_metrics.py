"""The registry of metrics: one entry says how a metric is written, what it is of, and what computes it."""

from importlib import import_module

import pytest

from jlebm.evaluation import fidelity
from reproduce.results.measurement import SOURCES
from reproduce.results.metrics import METRICS, Metric, measured_of


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_an_entry_is_whole(metric: Metric) -> None:
    """Breaks if a tolerance could be nothing, a source is misspelt, or a function is not where the entry says."""
    assert metric.floor > 0
    assert metric.decimals >= 0
    assert set(metric.of) <= set(SOURCES)
    if metric.function:
        module, _, name = metric.function.partition(":")
        assert callable(getattr(import_module(module), name))


def test_no_two_metrics_have_one_label() -> None:
    """Breaks if two columns of a table could be taken for one another."""
    labels = [metric.label for metric in METRICS.values()]
    assert sorted(labels) == sorted(set(labels))


def test_what_recipes_measure() -> None:
    """Breaks if the registry gives a source another set of metrics than its stored rows have."""
    whole = ("fid768", "fid", "is", "kid", "precision", "recall")
    assert measured_of("gaussian-prior") == measured_of("posterior") == ("fid768", "fid")
    assert measured_of("ebm-prior") == measured_of("samples") == whole
    assert measured_of("anomaly") == measured_of("out-of-distribution") == ("auprc", "auroc", "fpr80")


def test_every_metric_of_images_can_be_computed() -> None:
    """Breaks if a metric is asked of a source's images and neither torch-fidelity nor a function computes it."""
    for source in ("gaussian-prior", "ebm-prior", "posterior", "samples"):
        for name in measured_of(source):
            assert name in fidelity.NEEDS or METRICS[name].function, name
