"""One self-contained HTML file of everything measured: what a reader opens instead of the repository.

`python -m figures.report` writes the page of all stored results; each recipe leaves the page of its own run.
"""

from figures.report.assembling import write_page
from figures.report.contents import Contents, all_results, of_run

__all__ = ["Contents", "all_results", "of_run", "write_page"]
