"""The documentation site builds without a warning, asks for nothing outside itself, and has all of the library."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from figures import pages

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NEEDED = ("sphinx", "myst_parser", "furo", "sphinx_copybutton", "latex2mathml", "ziamath")
LOADED = re.compile(r"""<(?:script|img|source|iframe)\b[^>]*?\bsrc="([^"]+)"|<link\b[^>]*?\bhref="([^"]+)\"""")
IN_STYLE = re.compile(r"""(?:url\(|@import )["']?([^"')]+)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `nox -s docs` does."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        pytest.skip(f"the group `docs` is not installed: {', '.join(missing)}")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-W", "--keep-going", str(DOCS), str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280)
    assert ran.returncode == 0, ran.stderr
    return out


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """Breaks if a page warns when it is built, or needs a network to be read: a script, a font, a picture."""
    loaded = {(page.name, one or two) for page in site.rglob("*.html") for one, two in LOADED.findall(page.read_text())}
    assert len(loaded) > 100
    loaded |= {(style.name, one) for style in site.rglob("*.css") for one in IN_STYLE.findall(style.read_text())}
    assert {one for one in loaded if re.match(r"(?:https?:)?//", one[1])} == set()


@pytest.mark.slow
def test_what_a_page_shows(site: Path) -> None:
    """Breaks if formulas, the rows' tables, pictures, or shapes and errors of the reference are lost on the way."""
    assert "<math" in (site / "index.html").read_text()
    results = re.sub(r"<[^>]+>", " ", (site / "results.html").read_text())
    for cell in pages.texts(ROOT / "results")["headline"].splitlines()[2].strip("| ").split(" | "):
        assert cell.replace(" ± ", "\u00a0±\u00a0") in results, cell
    reference = re.sub(r"<[^>]+>", "", (site / "api" / "use.html").read_text())
    assert re.search(r"sample\(\s*seeds: .*?UInt8\[ndarray, .count channels height width.\]", reference, re.DOTALL)
    assert "UserError" in reference
    for page in site.rglob("*.html"):
        assert "~jaxtyping" not in page.read_text(), f"{page.name} has a signature that could not be read"


def test_every_page_is_reached() -> None:
    """Breaks if a page is written and no list of contents leads to it."""
    listed = set(re.findall(r"^[a-z_]+(?:/[a-z_]+)?$", (DOCS / "index.md").read_text(), re.MULTILINE))
    written = {str(page.relative_to(DOCS).with_suffix("")) for page in (*DOCS.glob("*.md"), *DOCS.glob("api/*.md"))}
    assert written - listed == {"index"}
    assert listed <= written


def test_the_reference_has_every_module() -> None:
    """Breaks if a module of the library has no place in the reference, or a place is left behind."""
    named = {name for page in DOCS.glob("api/*.md") for name in re.findall(r"automodule:: (\S+)", page.read_text())}
    modules = set()
    for path in (ROOT / "jlebm").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.read_text().strip():
            modules.add(".".join(parts).removesuffix(".__init__"))
    assert named == modules - {"jlebm"}
