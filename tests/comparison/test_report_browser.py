"""report.html in a real browser, Debian's chromium without a window: at desktop and telephone width."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from comparison.plan import make_plan
from comparison.report import write_report
from comparison.runs import read_runs
from tests.comparison.made_runs import write_comparison, write_failed, write_run

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
ACTS = {"relu": 0.0, "silu": 0.8, "mish": 2.5, "backbone=mish,neck=leaky_relu,head=a_name_that_is_long": 0.3}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    write_comparison(folder, gains=ACTS, slower={"mish": 1.1})
    shutil.rmtree(folder / "silu-s4")
    write_failed(folder / "silu-s4", act="silu", seed=4, reason="<script>alert(1)</script>")
    shutil.rmtree(folder / "silu-s3")
    write_run(folder / "silu-s3", act="silu", seed=3, last=0.62, waited=3.0)
    acts = tuple(ACTS)
    plan = make_plan(
        acts=acts, baseline="relu", seeds=range(5), cfg="yolo.yaml", specs={act: {} for act in acts},
        epochs=dict.fromkeys(acts, 8),
    )  # fmt: skip
    write_report(folder, plan.as_compared(read_runs([folder])), plan=plan)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS), headless=True)
        yield browser
        browser.close()


class Visit:
    """A page with what it has asked for and complained of."""

    def __init__(self, browser: "playwright.Browser", path: Path, *, width: int, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.goto(path.as_uri())


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_whole_and_asks_for_nothing(browser: "playwright.Browser", report: Path, width: int) -> None:
    visit = Visit(browser, report, width=width)
    assert visit.complaints == []
    assert [url for url in visit.requests if not url.startswith("data:")] == [report.as_uri()]
    inner, scroll = visit.page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert scroll <= inner == width
    images = visit.page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert all(size > 0 for size in images)
    boxes = visit.page.evaluate(
        "[...document.querySelectorAll('figure')].map(f => [...f.querySelectorAll('svg')]"
        ".map(s => s.getBoundingClientRect()).filter(r => r.width > 100 && r.height > 100).map(r => r.right))"
    )
    assert len(boxes) == 4 and all(len(shown) == 1 and shown[0] <= width for shown in boxes)


def test_pictures_show_marks_and_text_in_both_schemes(browser: "playwright.Browser", report: Path) -> None:
    """A colour that the style sheet lacks, or ink on its own ground, would draw nothing."""
    grounds = []
    for scheme in ("light", "dark"):
        visit = Visit(browser, report, width=390, scheme=scheme)
        ink, ground = visit.page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.querySelector('.card')).backgroundColor]"
        )
        grounds.append(ground)
        colors = visit.page.evaluate(
            "[...new Set([...document.querySelectorAll('figure svg path, figure svg use, figure svg g')]"
            ".map(e => getComputedStyle(e).fill))]"
        )
        assert ink in colors and len(colors) > len(ACTS) and ink != ground
    assert grounds[0] != grounds[1]


def test_a_click_sorts_the_table_and_a_second_one_turns_it_round(browser: "playwright.Browser", report: Path) -> None:
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


def test_what_a_run_says_is_shown_as_text(browser: "playwright.Browser", report: Path) -> None:
    page = Visit(browser, report, width=1280).page
    assert "<script>alert(1)</script>" in page.locator("#failed").inner_text()
    assert page.locator("script").count() == 1


def test_wide_tables_scroll_in_their_own_box(browser: "playwright.Browser", report: Path) -> None:
    page = Visit(browser, report, width=390).page
    box = page.locator("#table .box").first
    inside, shown = box.evaluate("box => [box.scrollWidth, box.clientWidth]")
    assert shown <= 390 < inside
    box.evaluate("box => box.scrollLeft = 200")
    first = box.locator("tbody th").first.bounding_box()
    assert first is not None and first["x"] >= 0  # the names stay in view
