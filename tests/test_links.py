"""Links between the pages lead somewhere, and what the code cites is in the repository. No network is used."""

import re
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# [text](target), but no footnote and no title behind the target; images as well.
LINK = re.compile(r"\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)?)\)")
HTML_LINK = re.compile(r"""<(?:a|img)\b[^>]*?\b(?:href|src)=["']([^"']+)["']""")
ANCHOR = re.compile(r"""<a\b[^>]*?\b(?:id|name)=["']([^"']+)["']""")
PAGE = re.compile(r"(?<![\w/.-])docs/[a-z0-9_/-]*[a-z0-9_](?:\.md)?(?!\.?[\w*{/])")
AWAITED = {"docs/extending.md", "docs/architecture"}  # pages that are being written


def tracked(*endings: str) -> list[Path]:
    """Return the repository's own files, new ones included, ignored ones left out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    found = [ROOT / name for name in listed] or list(ROOT.rglob("*"))
    return sorted(path for path in found if path.suffix in endings and path.is_file())


def without_code(text: str) -> str:
    """Return a page without its blocks and spans of code, in which brackets mean something else."""
    return re.sub(r"`[^`\n]*`", "", _without_blocks(text))


def anchors(text: str) -> set[str]:
    """Return what a link to a place in a page may name, by the rule by which code hosts make it of headings."""
    found, seen = set(ANCHOR.findall(text)), Counter[str]()
    for heading in re.findall(r"^#{1,6} +(.+?)(?: +#+)?$", _without_blocks(text), flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.replace("`", "").lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def _without_blocks(text: str) -> str:
    return re.sub(r"^( *)(```+|~~~+).*?^\1\2", "", text, flags=re.DOTALL | re.MULTILINE)


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere inside the repository."""
    text = page.read_text(encoding="utf-8")
    prose = without_code(text)
    bad = []
    for target in (*LINK.findall(prose), *HTML_LINK.findall(prose)):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text(encoding="utf-8"))):
            bad.append(target)
    return bad


def test_every_link_leads_somewhere() -> None:
    """Breaks if a page is moved, or a heading renamed, and a link to it is left behind."""
    pages = {str(page.relative_to(ROOT)): sorted({*broken(page)} - AWAITED) for page in tracked(".md")}
    assert {page: links for page, links in pages.items() if links} == {}


def test_pages_that_are_cited_exist() -> None:
    """Breaks if code or a page cites a page of docs that the repository does not have."""
    lost = set()
    for path in tracked(".py", ".toml", ".md"):
        for cited in {*PAGE.findall(path.read_text(encoding="utf-8"))} - AWAITED:
            if not (ROOT / cited).exists() and not (ROOT / f"{cited}.md").exists():
                lost.add((str(path.relative_to(ROOT)), cited))
    assert lost == set()


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    """Breaks if the check passes whatever a page says."""
    (tmp_path / "other.md").write_text("# A `plain` name, twice\n\n# A plain name, twice\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Top\n[a](other.md) [b](other.md#a-plain-name-twice-1) [c](#top) [d](https://example.org/x)\n"
        "[e](missing.md) [f](other.md#another) [g](#bottom) `[h](code.md)`\n```\n# Bottom\n[i](code.md)\n```\n"
        '<img src="missing.png">\n'
    )
    assert broken(page) == ["missing.md", "other.md#another", "#bottom", "missing.png"]
