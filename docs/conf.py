"""The documentation site: `nox -s docs` builds it with Sphinx into build/docs, without a network."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import latex2mathml.converter
import ziamath
from docutils.nodes import SkipNode
from sphinx.util.typing import stringify_annotation

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # autodoc imports the checkout

import jlebm  # noqa: E402
from figures import pages  # noqa: E402
from jlebm.densities import LogDensity  # noqa: E402
from jlebm.langevin import Observer  # noqa: E402
from jlebm.latents import Latents, LatentShapes  # noqa: E402
from jlebm.randomness import Noise  # noqa: E402

project = "jlebm"
author = "The jlebm authors"
copyright = "the jlebm authors"
version = release = jlebm.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
# Scripts and weights of a search, kept as they ran; its page is `exploration`, since search.html is Sphinx's own.
exclude_patterns = ["search/**"]
suppress_warnings = ["myst.header"]
nitpicky = True  # a type of this library that a signature names has a place in the reference
nitpick_ignore_regex = [("py:class", r"(?!jlebm\.).*|.*\.(T|C|Place)"), ("py:(?!class).*", ".*")]
default_role = "py:obj"  # a name in single backticks is a link where there is such an object

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4

# jlebm.philox_kernel needs Triton, which torch brings on Linux alone.
autodoc_mock_imports = [] if importlib.util.find_spec("triton") else ["triton"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 120
python_trailing_comma_in_multi_line_signatures = False
autosummary_generate = False  # each module stands on a page of `api` by hand; a test holds the list
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

highlight_language = "text"  # of a block that names none

html_theme = "furo"
html_title = "jlebm"
html_static_path = ["static", str(Path(ziamath.__file__).parent / "fonts")]  # a font that has formulas
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"light_css_variables": {"sidebar-item-spacing-vertical": "0.3rem"}}
html_math_renderer = "mathml"  # the browser's own: no script and no font to load
copybutton_prompt_text = "$ "


SHORT = {
    stringify_annotation(alias, "smart"): f"~jlebm.{module}.{name}"
    for alias, module, name in (  # the longest first: each holds the ones below it
        (Observer, "langevin", "Observer"),
        (LogDensity, "densities", "LogDensity"),
        (Noise, "randomness", "Noise"),
        (Latents, "latents", "Latents"),
        (LatentShapes, "latents", "LatentShapes"),
    )
}


UNBROKEN = re.compile(r" (?=± )|(?<=±) |(?<=\d) (?=(?:ms|s|min|h|d|%)(?!\w))")  # spaces at which no cell is broken


def short_types(
    app: Any, what: str, name: str, obj: Any, options: Any, arguments: str | None, result: str | None
) -> Any:
    """Write the library's own type aliases by their names in a signature, and a default that is no literal as dots."""
    for long, short in SHORT.items():
        arguments, result = (each and each.replace(long, short) for each in (arguments, result))
    return arguments and re.sub(r"<[^<>]*>", "...", arguments), result


def plain_bars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep p(x|z) and |w| in docstrings, where reStructuredText would read a substitution."""
    lines[:] = [re.sub(r"`[^`]*`|(\|)", lambda found: r"\|" if found[1] else found[0], line) for line in lines]


def set_aside(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep the docstring of an attribute from napoleon, which takes what stands before a colon for its type."""
    whole = what in ("attribute", "data", "property") and "Raises:" not in map(str.strip, lines)
    app.aside = list(lines) if whole else None


def put_back(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Undo what napoleon made of it."""
    if app.aside is not None:
        lines[:] = app.aside


def fresh_tables(app: Any, docname: str, source: list[str]) -> None:
    """Fill the tables of a page from the stored rows."""
    page = f"docs/{docname}.md"
    if page in pages.PAGES:
        tables = {name: UNBROKEN.sub("\u00a0", app.tables[name]) for name in pages.PAGES[page]}
        source[0] = pages.filled(source[0], tables, page)


def named_blocks(app: Any, docname: str, source: list[str]) -> None:
    """Show the file that a block of code belongs to, its title, above the block."""
    source[0] = re.sub(
        r'^```(\w+) title="([^"]+)"$', r"```{code-block} \1\n:caption: \2\n", source[0], flags=re.MULTILINE
    )


def math(display: str) -> tuple[Any, None]:
    """Return the visitor that writes a formula as MathML, and None for the end of the node."""

    def visit(translator: Any, node: Any) -> None:
        translator.body.append(latex2mathml.converter.convert(node.astext(), display=display))
        raise SkipNode

    return visit, None


def setup(app: Any) -> dict[str, bool]:
    """Register the tables and the formulas."""
    app.tables = pages.texts(ROOT / "results")
    app.connect("source-read", fresh_tables)
    app.connect("source-read", named_blocks)
    app.connect("autodoc-process-signature", short_types)
    app.connect("autodoc-process-docstring", plain_bars, priority=300)
    app.connect("autodoc-process-docstring", set_aside, priority=400)
    app.connect("autodoc-process-docstring", put_back, priority=600)  # napoleon's own is 500
    app.add_html_math_renderer("mathml", inline_renderers=math("inline"), block_renderers=math("block"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
