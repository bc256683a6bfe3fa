"""report.html in headless Chromium, at desktop and phone width."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.comparison.made_runs import ACTS

playwright = pytest.importorskip("playwright.sync_api", reason="the report is not opened in a browser: no playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="the report is not opened in a browser: no chromium"),
]
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def report(example: Path) -> Path:
    return example / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS), headless=True)
        yield browser
        browser.close()


class Visit:
    """A page with its requests and console messages."""

    def __init__(self, browser: "playwright.Browser", path: Path, *, width: int, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.messages.append(dialog.message), dialog.dismiss()))
        self.page.goto(path.as_uri())


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_complete_and_self_contained(browser: "playwright.Browser", report: Path, width: int) -> None:
    visit = Visit(browser, report, width=width)
    assert visit.messages == []
    assert [url for url in visit.requests if not url.startswith("data:")] == [report.as_uri()]
    inner, scroll = visit.page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert scroll <= inner == width
    images = visit.page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert all(size > 0 for size in images)
    boxes = visit.page.evaluate(
        "[...document.querySelectorAll('figure')].map(f => [...f.querySelectorAll('svg')]"
        ".map(s => s.getBoundingClientRect()).filter(r => r.width > 100 && r.height > 100).map(r => r.right))"
    )
    assert len(boxes) == 5 and all(len(shown) == 1 and shown[0] <= width for shown in boxes)


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_first_screen_has_the_answer_and_gain_against_cost(
    browser: "playwright.Browser", report: Path, width: int, height: int
) -> None:
    page = Visit(browser, report, width=width).page
    page.set_viewport_size({"width": width, "height": height})
    page.evaluate("document.querySelector('#failed')?.remove()")  # which comes first if runs failed
    for place in ("#answer .lead", "#answer figure svg"):
        box = page.locator(place).first.bounding_box()
        assert box is not None and box["y"] + box["height"] <= height and box["x"] + box["width"] <= width
    assert page.locator("#limits dt").all_text_contents() == ["Data", "Schedule", "Tuning", "Images", "Machine"]


def test_figures_are_visible_in_both_schemes(browser: "playwright.Browser", report: Path) -> None:
    """A colour missing from the style sheet, or equal to the background, would be invisible."""
    backgrounds = []
    for scheme in ("light", "dark"):
        visit = Visit(browser, report, width=390, scheme=scheme)
        ink, background = visit.page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.querySelector('.card')).backgroundColor]"
        )
        backgrounds.append(background)
        colors = visit.page.evaluate(
            "[...new Set([...document.querySelectorAll('figure svg path, figure svg use, figure svg g')]"
            ".map(e => getComputedStyle(e).fill))]"
        )
        assert ink in colors and len(colors) > len(ACTS) and ink != background
    assert backgrounds[0] != backgrounds[1]


def test_clicking_a_header_sorts_the_table(browser: "playwright.Browser", report: Path) -> None:
    page = Visit(browser, report, width=1280).page
    table = page.locator("#table table").first

    def order() -> list[str]:
        return [text.strip() for text in table.locator("tbody th").all_text_contents()]

    before = order()
    assert before == list(ACTS)
    head = table.locator("thead th", has_text="difference")
    head.locator("button").click()
    rising = order()
    assert rising != before and rising[-1] == "mish" and head.get_attribute("aria-sort") == "ascending"
    head.locator("button").press("Enter")
    assert order() == rising[::-1] and head.get_attribute("aria-sort") == "descending"
    table.locator("thead th button").first.click()
    assert order() == sorted(ACTS) and head.get_attribute("aria-sort") is None


def test_failure_reasons_are_shown_as_text(browser: "playwright.Browser", report: Path) -> None:
    page = Visit(browser, report, width=1280).page
    assert "<script>alert(1)</script>" in page.locator("#failed").inner_text()
    assert page.locator("script").count() == 1


def test_wide_tables_scroll_horizontally(browser: "playwright.Browser", report: Path) -> None:
    page = Visit(browser, report, width=390).page
    box = page.locator("#table .box").first
    inside, shown = box.evaluate("box => [box.scrollWidth, box.clientWidth]")
    assert shown <= 390 < inside
    box.evaluate("box => box.scrollLeft = 200")
    first = box.locator("tbody th").first.bounding_box()
    assert first is not None and first["x"] >= 0  # the names stay in view
