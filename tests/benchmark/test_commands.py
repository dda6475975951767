"""The benchmark's lines of commands: which there are, and that rows are repeated without being copied."""

from pathlib import Path

import pytest

from jlebm.errors import UserError
from reproduce.benchmark import commands
from reproduce.results import check, read_all, read_expected
from tests.test_help import COMMANDS, RECIPES

RESULTS = Path(__file__).parents[2] / "results"


def test_the_help_of_every_command_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a command is added and nobody looks at how soon its help stands there."""
    monkeypatch.setattr(commands, "SIZES", (50,))
    without, recipes, growth = commands.lines(RESULTS, tmp_path)
    assert {module for _, module, _ in without.commands} == COMMANDS | {"figures"}
    assert {module for _, module, _ in recipes.commands} == RECIPES
    assert (growth.kind, growth.metric, growth.setting) == ("scale", commands.GROWTH, "50 rows")
    assert {line.metric for line in (without, recipes, growth)} <= set(commands.METRICS)


@pytest.mark.slow
def test_repeated_rows_are_whole_and_of_many_means(tmp_path: Path) -> None:
    """Breaks if the rows that `check` is timed on are refused, or are all of one mean, which is the easy case."""
    own = read_all(RESULTS / "measured")
    commands.repeat_rows(RESULTS, tmp_path, 3 * len(own))
    rows = read_all(tmp_path / "measured")
    assert len(rows) == 3 * len(own)
    assert all(row.intact for row in rows)
    expected = read_expected(RESULTS / "expected.toml")
    assert len(check(rows, expected)) > 1.5 * len(check(own, expected))
    with pytest.raises(UserError, match="no row that could be repeated"):
        commands.repeat_rows(tmp_path / "none", tmp_path / "other", 10)


@pytest.mark.slow
def test_a_process_is_timed_by_its_user_time() -> None:
    """Breaks if waiting counted as work, or a command that fails were timed."""
    line = commands.Line("speed", "sleep", "", [("-c", "import time; time.sleep(0.3)")], None)
    medians = commands.timed(line, 1)
    assert medians.ours < 0.2 < (medians.plain or 0)
    with pytest.raises(UserError, match="exit code 3"):
        commands.user_seconds(("-c", "raise SystemExit(3)"))
