"""The report in a real browser, opened as a file: what a reader does with it."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from figures import report
from tests.figures.report_pages import toy_results

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FOUND = next((path for path in map(shutil.which, NAMES) if path), None)
WAIT = 60_000  # milliseconds that a busy machine may take; what never comes is a failure all the same
expect.set_options(timeout=WAIT)
SLIDERS = ("Langevin step", "the layer drawn anew", "layers kept")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FOUND is None, reason="no Chromium on this machine: the report is not opened in a browser"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=FOUND)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    report.write_page(report.all_results(toy_results(folder / "results")), folder / "report.html")
    return (folder / "report.html").as_uri()


def opened(browser: Browser, address: str, script: str = "", **context: Any) -> tuple[Page, list[str]]:
    """Open the page; return it with what a reader should never see: errors, and requests to anywhere."""
    page, troubles = browser.new_context(**context).new_page(), []
    page.on("console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda one: None if one.url.startswith(("file:", "data:")) else troubles.append(one.url))
    page.set_default_timeout(WAIT)
    if script:
        page.add_init_script(script)
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    return page, troubles


@pytest.fixture(scope="module")
def shared(browser: Browser, address: str) -> Iterator[tuple[Page, list[str]]]:
    page, troubles = opened(browser, address)
    yield page, troubles
    page.context.close()


@pytest.fixture
def page(shared: tuple[Page, list[str]]) -> Iterator[Page]:
    """The page, which ends every test without an error or a request."""
    page, troubles = shared
    yield page
    if page.locator("dialog[open]").count():
        page.keyboard.press("Escape")
    assert troubles == []


def values(page: Page, table: str, column: str) -> list[str]:
    place = page.locator(f'[data-table="{table}"]')
    names = place.locator("thead th").all_inner_texts()
    return place.locator(f"tbody td:nth-child({[name.strip() for name in names].index(column) + 1})").all_inner_texts()


def expect_values(page: Page, table: str, column: str, wanted: list[str]) -> None:
    """Wait for a column to show these values: a table redraws in a later task than the click that asked for it."""
    deadline = time.monotonic() + WAIT / 1_000
    while (shown := values(page, table, column)) != wanted and time.monotonic() < deadline:
        page.wait_for_timeout(20)
    assert shown == wanted


def test_a_table_sorts_by_its_numbers(page: Page) -> None:
    """Breaks if a header does nothing, or 10 stands before 9."""
    header = page.locator('[data-table="rows"] thead th', has_text="value")
    up = sorted(values(page, "rows", "value"), key=float)
    assert len(set(up)) > 3
    header.click()
    expect_values(page, "rows", "value", up)
    header.click()
    expect_values(page, "rows", "value", up[::-1])
    page.locator('[data-table="rows"] .clear').click()


def test_a_table_is_filtered_by_a_column_and_by_words(page: Page) -> None:
    """Breaks if a filter leaves other rows, or clearing leaves it on."""
    place = page.locator('[data-table="rows"]')
    place.locator(".clear").click()
    whole = values(page, "rows", "of")
    place.locator('select[data-column="of"]').select_option("posterior")
    expect_values(page, "rows", "of", ["posterior"] * whole.count("posterior"))
    place.locator("input[type=search]").fill("no such words")
    expect(place.locator("tbody")).to_contain_text("nothing matches")
    place.locator(".clear").click()
    expect_values(page, "rows", "of", whole)


def test_the_tally_filters_the_verdicts(page: Page) -> None:
    """Breaks if a count is not the number of lines that a click on it shows."""
    button = page.locator("[data-verdict]").last
    count, said = button.locator("b").inner_text(), button.get_attribute("data-verdict")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(page.locator('[data-table="measured"] .dt-info')).to_contain_text(f"of {count}")
    assert set(values(page, "measured", "verdict")) == {said}
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize("label", SLIDERS)
def test_a_slider_shows_another_picture(page: Page, label: str) -> None:
    """Breaks if a slider moves and the picture, its description or what is said of it stays."""
    page.locator("#figures").scroll_into_view_if_needed()
    for slot in page.locator(".slot").all():
        slot.scroll_into_view_if_needed()
    card = page.locator("article.figure", has=page.get_by_label(label, exact=True)).first
    slider, image = card.locator("input[type=range]"), card.locator("img").last
    before = [image.get_attribute(name) for name in ("src", "alt")] + [card.locator("output").inner_text()]
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(card.locator("output")).not_to_have_text(before[2])
    after = [image.get_attribute(name) for name in ("src", "alt")] + [card.locator("output").inner_text()]
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert image.evaluate("async (image) => (await image.decode(), image.naturalWidth > 0)")
    assert slider.get_attribute("aria-valuetext") == after[2]


def test_the_energy_stands_beside_the_step(page: Page) -> None:
    """Breaks if the mark in the energy's curve, or its value, is of another step than the pictures."""
    card = page.locator('article.figure[data-title^="Langevin transition, long"]')
    card.locator("input[type=range]").focus()
    page.keyboard.press("Home")
    mark, read = card.locator(".mark").first, card.locator(".read").first
    first = (mark.get_attribute("x1"), read.inner_text())
    assert "Langevin step 0" in first[1]
    page.keyboard.press("End")
    expect(read).to_contain_text("Langevin step 40")
    assert mark.get_attribute("visibility") == "visible"
    assert float(mark.get_attribute("x1") or 0) > float(first[0] or 0)


def test_a_curve_tells_its_values(page: Page) -> None:
    """Breaks if pointing at a curve, or the arrow keys, say nothing."""
    card = page.locator('article.figure[data-title="Training curves"]').first
    card.scroll_into_view_if_needed()
    chart, read = card.locator(".chart").first, card.locator(".read").first
    last = read.inner_text()
    assert "training step 21" in last
    box = chart.bounding_box()
    assert box
    chart.hover(position={"x": 60, "y": box["height"] / 2})
    expect(read).to_have_text(re.compile(r"training step 1\b"), use_inner_text=True)
    page.mouse.move(0, 0)
    expect(read).to_have_text(last, use_inner_text=True)
    chart.focus()
    page.keyboard.press("ArrowLeft")
    expect(read).to_contain_text("training step 11")


def test_a_number_tells_its_provenance(page: Page) -> None:
    """Breaks if a click on a number does not open what made it, or Escape does not close it."""
    number = page.locator('[data-table="rows"] button.number').first
    number.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog#provenance")
    expect(dialog).to_be_visible()
    told = dialog.inner_text()
    for name in ("protocol", "seed", "config digest", "row digest", "commit", "device", "versions", "wall seconds"):
        assert name in told, name
    assert "nox -s reproduce_cifar10 -- --model two-layer" in told.replace("\n", " ")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_a_stored_text_never_acts(page: Page) -> None:
    """Breaks if a row's text becomes an element."""
    place = page.locator('[data-table="rows"]')
    place.locator('select[data-column="metric"]').select_option("FID")
    place.locator("button.number").first.click()
    expect(page.locator("dialog#provenance")).to_contain_text("<img src=x onerror='window.stolen=1'>")
    assert page.evaluate("window.stolen") is None
    assert page.locator("dialog img, dialog script").count() == 0
    page.keyboard.press("Escape")
    place.locator(".clear").click()


REFUSED = (
    "Object.defineProperty(navigator, 'clipboard', { value: { writeText: () => Promise.reject(new Error('no')) } })"
)


@pytest.mark.parametrize("script", ["", REFUSED], ids=["clipboard", "refused"])
def test_a_command_is_copied(browser: Browser, address: str, script: str) -> None:
    """Breaks if the button copies nothing, be it that the browser refuses a file the clipboard."""
    page, troubles = opened(browser, address, script)
    button = page.locator("#waiting .copy").first
    button.click()
    expect(page.locator("#said")).to_have_text("Copied")
    search = page.locator('[data-table="rows"] input[type=search]')
    search.focus()
    page.keyboard.press("Control+V")
    expect(search).to_have_value(button.get_attribute("data-copy") or "")
    assert troubles == []
    page.context.close()


def test_a_phone_in_the_dark(browser: Browser, address: str) -> None:
    """Breaks if a narrow screen scrolls sideways, or the switch leaves the system's colours."""
    page, troubles = opened(browser, address, viewport={"width": 390, "height": 844}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    def paper() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark = paper()
    page.locator("#theme").select_option("light")
    assert paper() != dark
    page.locator("#theme").select_option("dark")
    assert paper() == dark
    assert troubles == []
    page.context.close()


def test_it_prints_light_and_without_controls(browser: Browser, address: str) -> None:
    """Breaks if paper shows sliders, a dark ground, or one leaf of a table."""
    page, _ = opened(browser, address, color_scheme="dark")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not page.locator(".bar").is_visible()
    assert not page.locator(".filters").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator('[data-table="measured"] tbody tr').count() > 15
    page.context.close()


def test_every_control_has_a_name(page: Page) -> None:
    """Breaks if a control or a picture says nothing to a reader who does not see it."""
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, a")]
            .filter((one) => !(one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim()))
            .map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    assert page.locator("#gallery img:not([alt])").count() == 0
    assert page.locator("svg.chart:not([aria-label])").count() == 0


def test_one_file_is_enough(browser: Browser, address: str, tmp_path: Path) -> None:
    """Breaks if the page needs something beside it: alone in another folder it works as well."""
    source = Path(address.removeprefix("file://"))
    shutil.copy(source, tmp_path / "alone.html")
    page, troubles = opened(browser, (tmp_path / "alone.html").as_uri(), offline=True)
    assert page.locator('[data-table="rows"] tbody tr').count() > 1
    assert troubles == []
    page.context.close()
