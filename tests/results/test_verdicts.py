"""check: what passes, what drifts, what fails, and what was not run and why."""

import dataclasses
import re
from typing import Any

import pytest

from reproduce.results import Expectation, check

EXPECTED = Expectation(
    protocol="cifar10/1",
    dataset="cifar10",
    preset="tiny",
    model="two-layer",
    learning="joint-mle",
    metric="fid768",
    source="ebm-prior",
    seeds=1,
    needs="a CPU",
    command="nox -s reproduce_cifar10",
    images=2000,
    config_digest="c" * 64,
    value=1.25,
    tolerance=0.125,
    fail_beyond=0.25,
)

OPEN = dataclasses.replace(EXPECTED, value=None, tolerance=None, fail_beyond=None, config_digest="", images=0)


def expected(**changes: Any) -> Expectation:
    return dataclasses.replace(EXPECTED, **changes)


@pytest.mark.parametrize(
    ("value", "status"),
    [(1.25, "PASS"), (1.375, "PASS"), (1.125, "PASS"), (1.4, "DRIFT"), (1.0, "DRIFT"), (1.6, "FAIL"), (0.5, "FAIL")],
)
def test_tolerance_and_beyond(row: Any, value: float, status: str) -> None:
    """Would break if a bound were one-sided, exclusive, or taken from the other limit."""
    (verdict,) = check([row(value=value)], [EXPECTED])
    assert verdict.status == status
    assert bool(verdict.command) == (status != "PASS")


def test_mean_over_seeds_of_the_newest_rows(row: Any) -> None:
    """Would break if an older row of a seed counted, rows were averaged for seeds, or dates compared as text."""
    rows = [
        row(seed=1, value=1.0, date="2026-01-31T23:30:00-02:00"),  # the newest of seed 1: 01:30 UTC of the next day
        row(seed=1, value=9.0, date="2026-02-01T01:00:00+00:00"),
        row(seed=2, value=2.0),
        row(seed=3, value=7.0),
        row(seed=3, value=3.0),  # of equal dates, the last
    ]
    (verdict,) = check(rows, [expected(seeds=3, value=2.0)])
    assert (verdict.status, verdict.mean, verdict.spread, verdict.count, verdict.images) == ("PASS", 2.0, 1.0, 3, 2000)


def test_a_broken_digest_fails(row: Any) -> None:
    """Would break if a value changed by hand passed because it lies within the tolerance, or is not the newest."""
    changed = row(value=1.26, row_digest="0" * 64, where="cifar10.jsonl, line 1", date="2020-01-01T00:00:00+00:00")
    (verdict,) = check([changed, row()], [EXPECTED])
    assert verdict.status == "FAIL"
    assert "cifar10.jsonl, line 1" in verdict.reason


@pytest.mark.parametrize("name", ["metric", "images", "config_digest"])
def test_a_broken_digest_fails_whatever_was_changed(row: Any, name: str) -> None:
    """Would break if a hand-made change of a selector hid the row from every expectation."""
    changes = {"metric": "kid", "images": 50000, "config_digest": "e" * 64}
    verdicts = check([row(**{name: changes[name]}, row_digest="0" * 64)], [EXPECTED])
    assert "FAIL" in [verdict.status for verdict in verdicts]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"config_digest": "e" * 64}, "stale.*eeeeeeeeeeee"),
        ({"images": 500}, "images = 500, expected is 2000"),
        ({"complete": False}, "ended early"),
    ],
)
def test_rows_of_something_else_are_not_run(row: Any, changes: dict[str, Any], reason: str) -> None:
    """Would break if rows of another configuration or count were compared, or the reason kept back."""
    verdict, shown = check([row(**changes)], [EXPECTED])
    assert (verdict.status, verdict.mean, verdict.command) == ("STALE", None, EXPECTED.command)
    assert re.search(reason, verdict.reason)
    assert (shown.status, shown.mean, shown.expectation.value) == ("NO EXPECTATION", 1.25, None)
    assert shown.reason.startswith("no expectation yet")


@pytest.mark.parametrize(
    "changes", [{"config_digest": "e" * 64}, {"images": 500}, {"complete": False}, {"protocol": "cifar10/2"}]
)
def test_what_was_just_measured_is_shown(row: Any, changes: dict[str, Any]) -> None:
    """Would break if newer rows that no expectation is about were hidden behind an older PASS, or averaged with it."""
    new = [row(value=9.0 + seed, seed=seed, date="2026-03-01T00:00:00+00:00", **changes) for seed in (1, 2)]
    other = row(value=7.0, date="2026-02-01T00:00:00+00:00", **{"config_digest": "f" * 64, **changes, "chain": "short"})
    verdict, *shown = check([*new, other, row()], [EXPECTED])
    assert verdict.status == ("FAIL" if "protocol" in changes else "PASS")
    assert [(one.status, one.mean, one.count) for one in shown] == [
        ("NO EXPECTATION", 10.5, 2),
        ("NO EXPECTATION", 7.0, 1),
    ]


def test_what_was_measured_before_is_passed_over(row: Any) -> None:
    """Would break if every configuration ever measured filled the table."""
    old = row(config_digest="e" * 64, date="2025-03-01T00:00:00+00:00")
    assert [verdict.status for verdict in check([old, row()], [EXPECTED])] == ["PASS"]
    for entries in ([], [OPEN]):
        assert [verdict.mean for verdict in check([old, row(value=2.0)], entries)] == [2.0]


def test_entries_that_differ_in_the_number_of_images_alone(row: Any) -> None:
    """Would break if two numbers of images shared a mean, or one entry spoke for both."""
    few, many = row(), row(images=10000, value=0.75, date="2026-03-01T00:00:00+00:00")
    verdicts = check([few, many], [EXPECTED, expected(images=10000, value=0.75)])
    assert [(one.status, one.mean, one.images) for one in verdicts] == [("PASS", 1.25, 2000), ("PASS", 0.75, 10000)]
    verdict, missing = check([few], [EXPECTED, expected(images=10000, value=0.75)])
    assert (verdict.status, missing.status, missing.mean) == ("PASS", "STALE", None)
    for entries in ([OPEN], [dataclasses.replace(OPEN, images=n) for n in (2000, 10000)], [EXPECTED, OPEN], []):
        shown = check([few, many], entries)
        assert sorted((one.mean, one.images) for one in shown) == [(0.75, 10000), (1.25, 2000)]
    verdict, missing = check([few], [EXPECTED, dataclasses.replace(OPEN, images=10000)])
    assert (verdict.status, missing.mean, missing.reason) == ("PASS", None, "no row yet of 10000 images; needs a CPU")


def test_more_seeds_than_asked_for(row: Any) -> None:
    """Would break if a mean over three seeds had no verdict where one seed suffices."""
    rows = [row(seed=seed, value=1.25 + seed / 100) for seed in (1, 2, 3)]
    (verdict,) = check(rows, [EXPECTED])
    assert (verdict.status, verdict.count) == ("PASS", 3)


def test_two_files_of_one_network_are_one_extractor(row: Any) -> None:
    """Would break if the whole weights file and a part of it, whose features are the same, could not be compared."""
    rows = [row(), row(seed=2, extractor="inception-2015-12-05, sha256:4567")]
    for stated in ("", "inception-2015-12-05", "inception-2015-12-05, sha256:89ab"):
        (verdict,) = check(rows, [expected(extractor=stated)])
        assert (verdict.status, verdict.count) == ("PASS", 2)
    assert len(check(rows, [])) == 1


def test_no_row_and_too_few_seeds(row: Any) -> None:
    """Would break if one seed carried a claim that needs three, or a missing row passed."""
    (none,) = check([], [EXPECTED])
    assert (none.status, none.reason) == ("NEVER RUN", "no row yet; needs a CPU")
    (few,) = check([row(), row(seed=2)], [expected(seeds=3)])
    assert (few.status, few.reason, few.count) == ("TOO FEW SEEDS", "2 of 3 seeds measured", 2)


def test_what_waits_for_three_seeds_waits_until_they_are_there(row: Any) -> None:
    """Would break if the first seed of a result without an expected value took its command out of the queue."""
    asked = dataclasses.replace(OPEN, seeds=3)
    for count in (1, 2):
        (few,) = check([row(seed=seed) for seed in range(count)], [asked])
        assert (few.status, few.count, few.mean, few.command) == ("TOO FEW SEEDS", count, 1.25, asked.command)
        assert few.reason == f"{count} of 3 seeds measured"
    (all_there,) = check([row(seed=seed) for seed in range(3)], [asked])
    assert (all_there.status, all_there.count) == ("NO EXPECTATION", 3)
    assert all_there.command.startswith("python -m reproduce.check --write-expected ")


@pytest.mark.parametrize("name", ["extractor", "reference", "chain", "weights"])
def test_rows_of_different_conditions_are_never_averaged(row: Any, name: str) -> None:
    """Would break if a mean were taken over two extractors, or compared with one made by another."""
    other = row(seed=2, **{name: "ema" if name == "weights" else "another"})
    (verdict,) = check([row(), other], [EXPECTED])
    assert (verdict.status, verdict.mean) == ("FAIL", None)
    assert f"the {name} differs" in verdict.reason
    if name != "weights":  # stated weights select the rows
        (verdict,) = check([row()], [expected(**{name: "another"})])
        assert (verdict.status, verdict.mean) == ("FAIL", None)


def test_protocols_that_disagree_fail(row: Any) -> None:
    """Would break if rows of a newer protocol were held to an older one's value, or silently left out."""
    new = row(protocol="cifar10/2", date="2026-03-01T00:00:00+00:00")
    verdict, _ = check([row(), new], [EXPECTED])
    assert verdict.status == "FAIL"
    assert "cifar10/1" in verdict.reason
    assert "cifar10/2" in verdict.reason
    (verdict,) = check([row(), new], [expected(protocol="cifar10/2")])
    assert verdict.status == "PASS"


def test_remarks(row: Any) -> None:
    """Would break if a row from a dirty tree or of a shortened run counted without a word."""
    (verdict,) = check([row(dirty=True, complete=False)], [expected(complete=False)])
    assert verdict.status == "PASS"
    assert "uncommitted" in verdict.reason
    assert "ended training early" in verdict.reason


def test_without_an_expected_value(row: Any) -> None:
    """Would break if a measured number of which nothing is expected were hidden, or passed."""
    for entries in ([OPEN], []):
        (verdict,) = check([row(), row(seed=2, value=1.75)], entries)
        assert (verdict.status, verdict.mean, verdict.count) == ("NO EXPECTATION", 1.5, 2)
        assert verdict.reason == "no expectation yet"
        assert "--write-expected dataset=cifar10 preset=tiny" in verdict.command


def test_another_model_answers_another_question(row: Any) -> None:
    """Would break if rows of one model passed, failed or made stale what is expected of another's."""
    two, one = row(), row(model="one-layer", value=9.0, date="2026-02-01T12:00:00+00:00")
    held, other = check([two, one], [EXPECTED])
    assert (held.status, held.mean) == ("PASS", 1.25)
    assert (other.status, other.expectation.model) == ("NO EXPECTATION", "one-layer")
    waiting = dataclasses.replace(OPEN, model="ladder")
    assert [verdict.status for verdict in check([two], [EXPECTED, waiting])] == ["PASS", "NEVER RUN"]
