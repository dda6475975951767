"""Tables on the standard output, as wide as the terminal, or wide enough for a file."""

import shutil
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jlebm.text import printable

WIDE = 220  # characters, without a terminal


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; markup and terminal escapes in cells have no effect."""
    table = Table(*header, title=Text(printable(title)), title_justify="left", title_style="italic")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
    Console(file=sys.stdout, width=width, highlight=False).print(table)
