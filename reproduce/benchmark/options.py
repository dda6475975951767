"""Command-line options of the benchmark and of the GPU check."""

from dataclasses import dataclass
from pathlib import Path

from reproduce.results.default_folder import RESULTS

FEWEST = 7  # repetitions behind a median


@dataclass(frozen=True)
class Arguments:
    """Command-line options of the benchmark."""

    device: str = "auto"
    """auto, cpu, cuda, or cuda:1 for another GPU of several."""
    repetitions: int = FEWEST
    """Repetitions of plain and ours; short parts are repeated more often."""
    only: tuple[str, ...] = ()
    """Only lines that begin with one of these words: a metric, or "prior chain, 60 steps"; by default all."""
    peers: bool = False
    """Also time the prior's chain beside torchebm, JAX and blackjax, where they are installed; on a CPU."""
    data_root: Path | None = None
    """The folder with the Inception weights; by default $JLEBM_DATA or the user's cache folder."""
    store: bool = True
    """Whether the lines are appended to measured/bench.jsonl."""
    results: Path = RESULTS
    """The folder of measured/."""
    write_awaited: bool = False
    """Time nothing; write the list of lines that a GPU has, so that the table can name those not measured."""


@dataclass(frozen=True)
class CheckArguments:
    """Command-line options of the GPU check."""

    device: str = "cuda"
    """cuda, or cuda:1 for another GPU of several."""
    pretend: bool = False
    """Run on a CPU, where nothing is fast and nothing can be wrong but the checks themselves."""
    out: Path = Path("gpu_check.json")
    """The file of findings, times and versions."""
