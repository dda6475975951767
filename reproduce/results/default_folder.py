"""The folder of results that commands read and write unless another is given, and how a printed command names another.

It is the repository's own: `results/` beside `reproduce/`.
"""

from pathlib import Path

from jlebm.text import shell_command

RESULTS = Path(__file__).resolve().parents[2] / "results"


def is_default(folder: Path) -> bool:
    """Whether a folder of results is the repository's own."""
    return folder.resolve() == RESULTS


def naming(folder: Path, command: str) -> str:
    """Return a command with the option that names a results folder; as it is for the default folder.

    Args:
        folder: that the command is to read and write.
        command: one that takes `--results`; "" stays "".
    """
    if not command or is_default(folder):
        return command
    return f"{command} {shell_command('--results', str(folder))}"
