"""What was never run: grouped by recipe, one command each."""

from dataclasses import dataclass

from figures.report.contents import Contents
from figures.report.tabular import QUIET, tone
from reproduce.results.default_folder import naming
from reproduce.results.expectation import describe
from reproduce.results.identity import recipe_of


@dataclass(frozen=True)
class Wanted:
    """A command that has not been run yet."""

    recipe: str
    command: str
    needs: tuple[str, ...]
    """What it takes, in words."""
    numbers: tuple[str, ...]
    """What it measures."""


def waiting(contents: Contents) -> list[Wanted]:
    """Return the commands of all verdicts without a stored row, by recipe; then that of the benchmark's GPU lines."""
    found: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for one in contents.judged:
        if one.verdict.mean is None and tone(one) == QUIET:
            about = one.verdict.expectation
            recipe, _ = recipe_of(about.protocol, about.learning)
            needs, numbers = found.setdefault((recipe, naming(contents.results, about.command)), ({}, {}))
            needs[about.needs] = None
            numbers[describe(about)] = None
    commands = [Wanted(*key, tuple(needs), tuple(numbers)) for key, (needs, numbers) in found.items()]
    timed = {(row.metric, row.setting) for row in contents.timings if row.device.startswith("cuda")}
    lines = [f"{line.metric}, {line.setting}" for line in contents.awaited if (line.metric, line.setting) not in timed]
    if lines:
        commands.append(Wanted("bench", "nox -s bench", ("one data-centre GPU",), tuple(lines)))
    return sorted(commands, key=lambda one: (one.recipe == "bench", one.recipe))
