"""Check that an entry of `expected.toml` follows from its rows: nothing typed, deleted or forged."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from jlebm.errors import UserError
from reproduce.results.default_folder import is_default
from reproduce.results.expectation import CONDITIONS, QUESTION, Expectation, condition, expect
from reproduce.results.measurement import Measurement
from reproduce.results.verdicts import Verdict, check, rewrite

CLOSE = 1e-9  # relative: another version of scipy may change the last digits of a tolerance
STATED = ("protocol", *QUESTION, "images", "config_digest", "complete", *CONDITIONS)


def verdicts_on(
    measured: Sequence[Measurement],
    expected: Sequence[Expectation],
    folder: Path,
    stored: Sequence[Measurement] | None = None,
) -> list[Verdict]:
    """Return the verdicts of `check`, held to the basis of each expectation: the only ones that anything shows.

    Args:
        measured: rows to judge.
        expected: what is expected of them.
        folder: the results folder of both.
        stored: all rows of that folder, where `measured` are only some.
    """
    return held_to_basis(check(measured, expected), measured if stored is None else stored, is_default(folder))


def held_to_basis(verdicts: Sequence[Verdict], measured: Sequence[Measurement], at_home: bool = True) -> list[Verdict]:
    """Return the verdicts, with a FAIL for each expectation that does not follow from its rows.

    In a folder for what another machine measures, a dataset may have rows of no basis at all, and nothing follows from
    any: a PASS or a DRIFT is STALE there, and the other verdicts stay.

    Args:
        verdicts: of `check`.
        measured: all stored rows; those of the basis are found by their digests.
        at_home: whether the folder is the repository's own, where no basis may be lost.
    """
    stored = {row.row_digest: row for row in measured if row.intact}
    based = {
        verdict.expectation.dataset
        for verdict in verdicts
        if any(digest in stored for digest in verdict.expectation.basis_rows)
    }
    verdicts, given = [], verdicts
    for verdict in given:
        one = verdict.expectation
        if not at_home and one.basis_rows and one.dataset not in based:
            verdict = _elsewhere(verdict)
        elif said := fault(one, stored):
            before = f"{verdict.reason}; " if verdict.status == "FAIL" else ""
            both = f"expected.toml and measured/{one.dataset}.jsonl"
            reason = f"{before}{said}; restore {both} as they were committed, or expect anew what is measured"
            verdict = dataclasses.replace(verdict, status="FAIL", reason=reason, command=rewrite(one))
        elif one.tolerance_by_hand:
            remark = f"tolerance set by hand: {one.tolerance_by_hand}"
            verdict = dataclasses.replace(verdict, reason="; ".join(filter(None, (verdict.reason, remark))))
        verdicts.append(verdict)
    return verdicts


def _elsewhere(verdict: Verdict) -> Verdict:
    """Return the verdict on an expectation whose dataset has rows of no basis."""
    one = verdict.expectation
    rows = f"measured/{one.dataset}.jsonl has none of the {len(one.basis_rows)} rows of its basis"
    reason = "; ".join(filter(None, (verdict.reason, rows)))
    if verdict.status not in ("PASS", "DRIFT"):
        return dataclasses.replace(verdict, reason=reason)
    reason += "; restore that file as it was committed, or expect anew what is measured here"
    return dataclasses.replace(verdict, status="STALE", reason=reason, command=rewrite(one))


def fault(one: Expectation, stored: Mapping[str, Measurement]) -> str:
    """Return a clause that names what does not follow from an expectation's rows; "" if all does or it has no value.

    Args:
        one: of `expected.toml`.
        stored: intact rows by their digests.
    """
    if one.value is None:
        return ""
    if not one.basis_rows:
        return "the entry does not name the rows that its value comes from ('basis_rows')"
    if missing := [digest[:12] for digest in one.basis_rows if digest not in stored]:
        return f"{len(missing)} of {len(one.basis_rows)} rows of its basis are not stored ({', '.join(missing)})"
    rows = [stored[digest] for digest in one.basis_rows]
    try:
        made = expect(rows, one)
    except UserError as error:
        return f"the rows of its basis make no expectation: {error}"
    for name in STATED:
        stated, found = condition(one, name), condition(made, name)
        if stated != found:
            return f"expected.toml says {name} = {stated!r}, and the rows of its basis {found!r}"
    numbers = ("value",) if one.tolerance_by_hand else ("value", "tolerance", "fail_beyond")
    for name in numbers:
        stated, found = getattr(one, name), getattr(made, name)
        if not math.isclose(stated, found, rel_tol=CLOSE):
            return f"expected.toml says {name} = {stated:.6g}, and the rows of its basis make {found:.6g}"
    return ""
