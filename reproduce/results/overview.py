"""Summary of `check`: counts of verdicts, what fails or drifts, and the commands to run."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jlebm.text import printable
from reproduce.results.default_folder import RESULTS, naming
from reproduce.results.identity import recipe_of
from reproduce.results.metrics import METRICS
from reproduce.results.paper import Reported
from reproduce.results.rendering import STYLES, render
from reproduce.results.verdicts import STATUSES, TO_RUN, Status, Verdict, rewrite

MEANING: Mapping[Status, str] = {
    "PASS": "within the tolerance of what is expected",
    "DRIFT": "beyond the tolerance, within what a FAIL takes",
    "FAIL": "too far off, changed since stored, or not comparable",
    "NO EXPECTATION": "measured; nothing is expected of it yet",
    "TOO FEW SEEDS": "measured on fewer seeds than are asked for",
    "STALE": "measured, but not as the expectation asks, or without the rows it was made from",
    "NEVER RUN": "no row yet",
}
LOUD: tuple[Status, ...] = ("FAIL", "DRIFT")
ON_A_GPU = ("budget", "paper")
"""Presets made for a GPU."""


class Queued(NamedTuple):
    """A command to run, and the verdicts that wait for it."""

    recipe: str
    command: str
    needs: str
    waiting: tuple[Verdict, ...]

    @property
    def needs_gpu(self) -> bool:
        """Whether its preset is made for a GPU."""
        return any(wants_gpu(verdict) for verdict in self.waiting)


def wants_gpu(verdict: Verdict) -> bool:
    """Whether the preset of a verdict is made for a GPU."""
    return verdict.expectation.preset in ON_A_GPU


def counts(verdicts: Sequence[Verdict]) -> dict[Status, int]:
    """Return the number of verdicts of each status, in the order of `STATUSES`."""
    found = Counter(verdict.status for verdict in verdicts)
    return {status: found[status] for status in STATUSES}


def for_want_of_a_gpu(verdicts: Sequence[Verdict]) -> int:
    """Return the number of results never run whose presets are made for a GPU."""
    return sum(verdict.status == "NEVER RUN" and wants_gpu(verdict) for verdict in verdicts)


def queue(verdicts: Sequence[Verdict]) -> list[Queued]:
    """Return the commands to run, each once: recipe by recipe, those that need a GPU last."""
    waiting: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.status in TO_RUN and verdict.command:
            recipe, _ = recipe_of(verdict.expectation.protocol, verdict.expectation.learning)
            waiting.setdefault((recipe, verdict.command), []).append(verdict)
    queued = []
    for (recipe, command), group in waiting.items():
        needs = max((verdict.expectation.needs for verdict in group), key=len)  # the longest names all requirements
        queued.append(Queued(recipe, command, needs, tuple(group)))
    recipes = list(dict.fromkeys(one.recipe for one in queued))
    return sorted(queued, key=lambda one: (one.needs_gpu, recipes.index(one.recipe)))


def overview(
    verdicts: Sequence[Verdict],
    paper: Mapping[str, Reported],
    rows: int,
    again: str = "nox -s check -- --all",
    *,
    color: bool = False,
    width: int = 120,
) -> str:
    """Return the summary, all failures and drifts, and the queue of commands.

    Args:
        verdicts: of `check`.
        paper: of `read_paper`.
        rows: number of stored rows.
        again: command that shows every verdict.
        color: whether verdicts are coloured.
        width: of the terminal, in characters; a command is never wrapped.
    """
    out = io.StringIO()
    screen = Console(
        file=out, force_terminal=color, color_system="standard" if color else None, width=width, legacy_windows=False
    )
    held = sum(verdict.expectation.value is not None for verdict in verdicts)
    screen.print(Text(f"{rows:,} stored rows, {len(verdicts)} results, {held} of them with an expected value"))
    screen.print(Padding(_summary(verdicts), (1, 0, 1, 2), expand=False))
    if loud := [verdict for verdict in verdicts if verdict.status in LOUD]:
        out.write(render(loud, paper, "terminal", color=color, width=width))
        screen.print()
    queued = queue(verdicts)
    if queued:
        commands = f"{len(queued)} command{'s' * (len(queued) != 1)}"
        screen.print(Text(f"To run, {commands}:"))
    for needs_gpu, alike in groupby(queued, key=lambda one: one.needs_gpu):
        screen.print(Text("\nwith a GPU" if needs_gpu else "\non a CPU", style="bold"))
        for needs, group in groupby(alike, key=lambda one: one.needs):
            some = list(group)
            told = Text(printable(f"{_waiting(some)}; needs {needs}"))
            screen.print(Padding(told, (0, 0, 0, 2), expand=False))
            for one in some:
                screen.print(Text(f"    {printable(one.command)}", style="cyan"), soft_wrap=True)
    screen.print(Text("\nEvery verdict, or with --only dataset=cifar10 those of one dataset:"))
    screen.print(Text(f"    {printable(again)}", style="cyan"), soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def brief(
    verdicts: Sequence[Verdict],
    paper: Mapping[str, Reported],
    again: str,
    *,
    folder: Path = RESULTS,
    color: bool = False,
    width: int = 120,
) -> str:
    """Return the table at the end of a recipe: headline metrics, failures and drifts, and the number of others.

    Args:
        verdicts: of the recipe's own rows.
        paper: of `read_paper`.
        again: command that shows all of them.
        folder: the results folder, which every command names unless it is the default one.
        color: whether verdicts are coloured.
        width: of the terminal, in characters.
    """
    measured = [verdict for verdict in verdicts if verdict.mean is not None or verdict.status in LOUD]
    shown = [verdict for verdict in measured if verdict.status in LOUD or _is_headline(verdict)] or measured
    # A recipe only measures; it does not advise to rewrite expected.toml.
    commands = ["" if one.command == rewrite(one.expectation) else naming(folder, one.command) for one in shown]
    shown = [replace(one, command=command) for one, command in zip(shown, commands, strict=True)]
    number = counts(verdicts)
    said = [
        f"{len(measured) - len(shown)} more measured" if len(measured) > len(shown) else "",
        *(f"{number[status]} {status}" for status in TO_RUN if number[status]),
    ]
    table = render(shown, paper, "terminal", color=color, width=width, notes=(*LOUD, "PASS"))
    rest = "; ".join(filter(None, said))
    return table + (f"{rest}: {naming(folder, again)}\n" if rest else "")


def _is_headline(verdict: Verdict) -> bool:
    one = verdict.expectation
    return METRICS[one.metric].headline and not one.layer and one.source != "training-halves"


def _summary(verdicts: Sequence[Verdict]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for status, number in counts(verdicts).items():
        said = MEANING[status]
        if status == "NEVER RUN" and (without := for_want_of_a_gpu(verdicts)):
            said += f"; {without} for want of a GPU"
        if status == "PASS" and (remarked := sum(one.status == "PASS" and bool(one.reason) for one in verdicts)):
            said += f"; {remarked} with a remark"
        table.add_row(Text(status, style=STYLES[status] if number else "dim"), str(number), Text(said, style="dim"))
    return table


def _waiting(queued: Sequence[Queued]) -> str:
    """Count the results that wait for some commands: "6 TOO FEW SEEDS, 1 NEVER RUN"."""
    found = Counter(verdict.status for one in queued for verdict in one.waiting)
    return ", ".join(f"{number} {status}" for status, number in found.items())
