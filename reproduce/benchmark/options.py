"""Command-line options of the benchmark."""

from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "results"
FEWEST = 7  # repetitions that a median is taken of


@dataclass(frozen=True)
class Arguments:
    """What a person can say to the benchmark."""

    device: str = "auto"
    """auto, cpu or cuda."""
    repetitions: int = FEWEST
    """How often each of the two is timed, short parts more often."""
    only: tuple[str, ...] = ()
    """The lines whose metric begins with one of these words; by default all."""
    data_root: Path | None = None
    """The folder with the Inception weights; by default $JLEBM_DATA or the user's cache folder."""
    store: bool = True
    """Whether the lines are appended to measured/bench.jsonl."""
    results: Path = RESULTS
    """The folder of measured/."""
    write_awaited: bool = False
    """Time nothing; write down which lines a GPU has, so that the table can say of each whether it was measured."""
