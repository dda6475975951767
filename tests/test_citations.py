"""What code and docs cite of the docs is there: the page, and the heading that is named with it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("jlebm", "reproduce", "figures", "tests", "docs", "results")
HEADING = r'"[^"]+"'
# docs/facts, or docs/facts with one heading or several behind it: docs/facts, "Whitened noise" and "Two-stage training"
CITED = re.compile(rf"\bdocs/([a-z][a-z_-]*)(?![\w./-]*\.(?:png|md\b))(?:, ({HEADING}(?:(?:,| and) {HEADING})*))?")
LINKED = re.compile(r"\]\(([^)#\s:]*)(?:#([^)\s]+))?\)")


def texts() -> list[Path]:
    """Return the files of the checkout that may cite a page, this one excepted."""
    loose = [ROOT / "noxfile.py", *ROOT.glob("*.md")]
    found = [path for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in {".py", ".md", ".toml"}]
    return [path for path in sorted([*loose, *found]) if path != Path(__file__)]


def one_line(path: Path) -> str:
    """Return a file's text with its line ends, and the comment signs behind them, as single spaces."""
    return re.sub(r"\s*\n\s*(?:# ?)?", " ", path.read_text(encoding="utf-8"))


def headings(page: Path) -> list[str]:
    """Return the headings of a page, those in its code blocks excepted."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.+?)\s*$", text, flags=re.MULTILINE)


def anchor(heading: str) -> str:
    """Return what a link names a heading by, as GitHub and mkdocs do."""
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.lower()))


def citations(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each page that is cited, with the headings that are named behind it."""
    for page, named in CITED.findall(text):
        yield page, re.findall(r'"([^"]+)"', named)


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_cited_pages_and_headings_exist(path: Path) -> None:
    """Breaks if a page is renamed, or a heading that code cites is reworded."""
    for page, named in citations(one_line(path)):
        if (ROOT / "docs" / page).is_dir():
            continue  # the scripts of a search
        place = ROOT / "docs" / f"{page}.md"
        assert place.is_file(), f"{path.name} cites docs/{page}, which is no page"
        assert set(named) <= set(headings(place)), f"{path.name} cites headings that docs/{page} does not have"


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    """Breaks if a page links to a file or a heading that is gone."""
    for target, heading in LINKED.findall(path.read_text(encoding="utf-8")):
        place = (path.parent / target) if target else path
        assert place.exists(), f"{path.name} links to {target}"
        if heading:
            assert heading in map(anchor, headings(place)), f"{path.name} links to {target}#{heading}"


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_files_that_a_page_names_exist(path: Path) -> None:
    """Breaks if a module is moved and a page still sends its reader to the old place."""
    if path.name == "facts.md":
        return  # of other people's repositories
    for named in re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9.]*)`", path.read_text(encoding="utf-8")):
        rooms = (ROOT, ROOT / "reproduce", ROOT / "figures", ROOT / "jlebm")
        built = named.split("/")[0] in ("build", "runs", "flowers")
        version = re.fullmatch(r"[a-z_]+/\d+", named)  # `philox/1`, the name of a protocol or of a scheme
        assert built or version or any((room / named).exists() for room in rooms), f"{path.name} names {named}"


def test_a_citation_is_found_across_lines() -> None:
    """Breaks if the search above misses what it is for: a heading on the next line, or the second of two."""
    text = 'as the paper has it (docs/facts, "Langevin step sizes" and "No such heading")'
    assert list(citations(text)) == [("facts", ["Langevin step sizes", "No such heading"])]
    assert list(citations("see docs/architecture; ![x](docs/samples.png)")) == [("architecture", [])]


def test_each_heading_stands_once() -> None:
    """Breaks if a citation could mean either of two sections."""
    for page in (ROOT / "docs").glob("*.md"):
        found = headings(page)
        assert sorted(found) == sorted(set(found)), page.name


def test_no_page_outside_the_repository_is_cited() -> None:
    """Breaks if a section number of a page is cited that a reader does not have."""
    for path in texts():
        found = re.findall(r"(?i)facts, (?:sections? \d|\d)|\bnvae\.md", one_line(path))
        assert not found, f"{path}: {found}"


def test_every_source_of_facts_is_public() -> None:
    """Breaks if a section of the facts says neither where it was read nor that it was derived or measured here."""
    text = (ROOT / "docs/facts.md").read_text(encoding="utf-8")
    _, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    for section in sections:
        title = section.partition("\n")[0]
        assert re.search(r"arXiv|github\.com|\bcode\b|project page|derived|Measured for this project", section), title
