"""Tables: the paper's number only beside its own metric, nothing of a cell read as markup."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from reproduce.results import Expectation, Verdict, check, read_paper, render
from reproduce.results.overview import brief
from reproduce.results.rendering import escape_latex, escape_markdown, latex, markdown

PAPER = read_paper(Path(__file__).parents[2] / "results" / "paper.toml")


def verdict(status: Any, metric: str = "fid", **changes: Any) -> Verdict:
    one = Expectation(
        protocol="cifar10/1",
        dataset="cifar10",
        preset="budget",
        model="two-layer",
        learning="joint-mle",
        metric=metric,
        source="ebm-prior",
        seeds=3,
        needs="a GPU",
        command="",
        images=50000,
        config_digest="c",
        value=70.0,
        tolerance=0.5,
        fail_beyond=1.0,
        paper="table1.cifar10.ours",
    )
    return Verdict(one, status, **changes)


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex"])
def test_what_stands_in_the_table(form: Any) -> None:
    """Would break if a form left out a column, the seeds, the images or the reason and command."""
    verdicts = [
        verdict("PASS", mean=70.123, spread=0.25, count=3, images=50000),
        verdict("NEVER RUN", "fid768", reason="no row yet; needs a GPU", command="nox -s reproduce_cifar10 -- --x"),
    ]
    text = render(verdicts, PAPER, form).replace(r"\_", "_").replace(r"$\pm$", "±")
    for part in ("66.32", "70.00 ± 0.50", "70.12 ± 0.25, 3 seeds, 50000 images", "PASS", "NEVER RUN"):
        assert part in text
    assert "FID 66.32 (not comparable)" in text
    assert "no row yet; needs a GPU." in text
    assert "nox -s reproduce_cifar10 -- --x" in text


def test_colours() -> None:
    """Would break if a verdict lost its colour, or a pipe got escape sequences."""
    for status, code in (("PASS", "32m"), ("DRIFT", "33m"), ("FAIL", "31m"), ("NEVER RUN", "\x1b[2m")):
        assert code in render([verdict(status)], PAPER, "terminal", color=True)
        assert "\x1b" not in render([verdict(status)], PAPER, "terminal")


def test_a_command_is_never_wrapped() -> None:
    """Would break if a narrow terminal cut a command that is to be copied, or markup were read in a reason."""
    command = "nox -s reproduce_cifar10 -- " + "--option value " * 12 + "end"
    text = render([verdict("FAIL", reason="[red]odd[/red]", command=command)], PAPER, "terminal", width=60)
    assert command in text
    assert "[red]odd[/red]" in text


def test_who_only_measures_is_not_told_to_rewrite_what_is_expected(row: Any) -> None:
    """Would break if a recipe's table offered the command that moves expected.toml, or kept back one that measures."""
    verdicts = [
        *check([row()], []),
        verdict("NEVER RUN", reason="no row yet", command="nox -s reproduce"),
        verdict("FAIL", reason="far off", command="nox -s reproduce_cifar10"),
    ]
    assert "write-expected" in render(verdicts, PAPER, "terminal")
    text = brief(verdicts, PAPER, "nox -s check -- --all")
    assert "write-expected" not in text
    assert "nox -s reproduce_cifar10" in text
    assert text.endswith("1 NEVER RUN: nox -s check -- --all\n")
    elsewhere = brief(verdicts, PAPER, "nox -s check -- --all", folder=Path("mine"))
    assert "write-expected" not in elsewhere
    assert "nox -s reproduce_cifar10 --results mine\n" in elsewhere
    assert elsewhere.endswith("1 NEVER RUN: nox -s check -- --all --results mine\n")


def test_the_table_of_a_recipe_is_its_headline(row: Any) -> None:
    """Would break if a recipe ended in all of its numbers, or a failure among the others were left out."""
    rows = [row(metric=metric) for metric in ("fid768", "kid", "precision")]
    shown = brief([*check(rows, []), verdict("DRIFT", "recall", reason="off")], PAPER, "nox -s check -- --all")
    assert [word in shown for word in ("fid768", "KID", "precision", "recall")] == [True, False, False, True]
    assert "2 more measured: nox -s check -- --all" in shown
    assert "KID" in brief(check(rows[1:2], []), PAPER, "")  # a recipe without headline metrics shows what it has


def test_protocols_never_share_a_table() -> None:
    """Would break if rows of two protocols stood in one column."""
    first = verdict("PASS", mean=1.0, count=1)
    second = dataclasses.replace(first, expectation=dataclasses.replace(first.expectation, protocol="cifar10/2"))
    assert render([first, second], PAPER, "markdown").count("| verdict |") == 2


def test_latex_is_escaped() -> None:
    """Would break if a special character of LaTeX reached the document."""
    assert escape_latex(r"a_b & 5% #1 {x} $y$ ~ ^ \z <|>") == (
        r"a\_b \& 5\% \#1 \{x\} \$y\$ \textasciitilde{} \textasciicircum{} \textbackslash{}z "
        r"\textless{}\textbar{}\textgreater{}"
    )
    table = latex(["a_b"], [["50%"]])
    assert r"a\_b" in table
    assert r"50\%" in table


def test_markdown_is_escaped() -> None:
    """Would break if a pipe or a line end cut a cell, or a star were read as markup."""
    assert escape_markdown("a|b\nNVAE* \\| <i> [x]") == r"a\|b NVAE\* \\\| \<i> \[x\]"
    assert markdown(["h"], [["a|b"]]).splitlines()[-1] == r"| a\|b |"
