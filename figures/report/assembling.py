"""The page as one file: the template, the style, the scripts with the library of the tables, and the data as JSON."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import itables
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from figures.report.claim import OUTCOMES, Comparison, comparisons, reported, sentence
from figures.report.contents import Contents
from figures.report.gallery import gallery
from figures.report.tabular import (
    all_rows,
    command_of,
    encode,
    known,
    measured_table,
    papers_tables,
    rows_table,
    says,
    tally,
)
from figures.report.waiting import waiting
from jlebm.files import write_text
from jlebm.text import printable
from reproduce.results import Measurement
from reproduce.results.cited import Cited
from reproduce.results.default_folder import naming
from reproduce.results.expectation import describe
from reproduce.results.rows import Row

PAGE = Path(__file__).parent / "page"
LIBRARY = Path(itables.__file__).parent / "html"  # DataTables with its style, as the package itables ships it
SCRIPTS = ("elements", "provenance", "tables", "chart", "gallery", "page")  # in the order in which they run
LARGEST = 15_000_000  # bytes of a page of everything


def write_page(contents: Contents, out: Path) -> int:
    """Write the page of some contents into one HTML file and return its size in bytes; the same ones give the same.

    Raises:
        UserError: an artifact is damaged, or the file cannot be written.
    """
    text = page_of(contents)
    write_text(out, text)
    return len(text.encode())


def page_of(contents: Contents) -> str:
    """Return the page of some contents as HTML.

    Raises:
        UserError: an artifact is damaged.
    """
    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    library = base64.b64encode((LIBRARY / "dt_bundle.js").read_bytes()).decode()
    scripts = "\n".join((PAGE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    data, found = data_of(contents), comparisons(contents)
    ids = {id(row): place for place, row in enumerate(all_rows(contents))}
    return environment.get_template("page.html.jinja").render(
        contents=contents,
        claim={
            "sentence": sentence(found),
            "reported": reported(contents),
            "outcomes": OUTCOMES,
            "comparisons": [(one, [_cited(cell, ids) for cell in one.cells]) for one in found],
        },
        tally=tally(contents),
        hero=_hero(found, data["figures"]),
        waiting=waiting(contents),
        tables=data["tables"],
        kinds=list(dict.fromkeys(one["kind"] for one in data["figures"])),
        models=list(dict.fromkeys(one["of"] for one in data["figures"])),
        newest=max((row.date for row in contents.rows), default="")[:10],
        datasets=sorted({row.dataset for row in contents.rows}),
        library=Markup(f"data:text/javascript;base64,{library}"),
        library_style=Markup((LIBRARY / "dt_bundle.css").read_text(encoding="utf-8")),
        style=Markup((PAGE / "style.css").read_text(encoding="utf-8")),
        scripts=Markup(scripts),
        data=Markup(script_json(data)),
    )


def data_of(contents: Contents) -> dict[str, Any]:
    """Return what the page's scripts read: rows with their provenance, verdicts, tables and figures.

    Raises:
        UserError: an artifact is damaged.
    """
    rows = all_rows(contents)
    ids = {id(row): place for place, row in enumerate(rows)}
    verdicts = {id(one.verdict): place for place, one in enumerate(contents.judged)}
    tables = [measured_table(contents), *papers_tables(contents), rows_table(contents)]
    fields = [list(_provenance(row)) for row in rows]
    kinds = [list(names) for names in dict.fromkeys(map(tuple, fields))]
    return {
        "fields": kinds,
        "rows": [
            [kinds.index(names), command_of(row, contents.results), list(_provenance(row).values())]
            for row, names in zip(rows, fields, strict=True)
        ],
        "verdicts": [
            {
                "what": describe(one.verdict.expectation),
                "says": says(one),
                "reason": one.verdict.reason,
                "command": naming(contents.results, one.verdict.command),
                "basis": one.verdict.expectation.basis,
                "rows": known(one.rows, ids),
            }
            for one in contents.judged
        ],
        "tables": [encode(table, ids, verdicts) for table in tables],
        "figures": gallery(contents),
    }


def _provenance(row: Row) -> dict[str, str]:
    """Return the fields of a row in words, by their names, with the digest that it is stored under."""
    told = {
        name.replace("_", " "): _words(value)
        for name, value in (row.signed() if not isinstance(row, Measurement) else vars(row)).items()
        if name not in ("row_digest", "where", "misplaced", "format") and value not in (None, "", {})
    }
    return told | {"row digest": row.row_digest or row.digest}


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(held)}" for key, held in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _hero(found: Sequence[Comparison], figures: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the place of the figure of samples that shows both priors of the first comparison; None without one."""
    for place, figure in enumerate(figures):
        names = {picture["name"] for picture in figure["pictures"]}
        both = {"EBM prior", "Gaussian prior"} <= names and len(figure["positions"]) == 1
        if both and found and figure["digest"] in found[0].digests:
            return place
    return None


def _cited(cell: str, ids: Mapping[int, int]) -> dict[str, str]:
    """Return a cell for the template: its text, and the places of its rows."""
    places = known(cell.rows, ids) if isinstance(cell, Cited) else []
    return {"text": str(cell), "rows": " ".join(map(str, places))}


def _shown(value: object) -> object:
    """Return a value as the template writes it: of a text without control characters, which is then escaped."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def script_json(data: object) -> str:
    """Return JSON for a script element, which no text in it can end; control characters in texts are escaped."""
    text = json.dumps(_clean(data), sort_keys=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":  # others beyond ASCII are escaped by json
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return printable(str(value))
    if isinstance(value, Mapping):
        return {printable(str(key)): _clean(held) for key, held in value.items()}
    return [_clean(held) for held in value] if isinstance(value, list | tuple) else value
