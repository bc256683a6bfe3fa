"""The page of errors: what it names and shows, and that its images can be sorted in a browser."""

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.evaluation.errors import Errors, find_errors
from engine.evaluation.ground_truth import GroundTruth
from engine.pictures.error_page import write_errors
from tests.engine.evaluation.test_errors import detections, truth_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def found(tmp_path: Path) -> tuple[Errors, GroundTruth]:
    """Three images: one without errors, one with a missed object, one with two objects in the background."""
    names = ["a.png", "<b>.png", "c.png"]
    for name in names:
        Image.fromarray(np.full((60, 90, 3), 90, np.uint8)).save(tmp_path / name)
    objects = np.array([[0, 0, 0, 0, 20, 20], [1, 1, 10, 10, 20, 20], [2, 2, 0, 0, 20, 20]], float)
    truth = dataclasses.replace(truth_of(3, objects), path_of=lambda index: str(tmp_path / names[index]))
    rows = (
        (0, 0, 0, 0, 20, 20, 0.9),
        (2, 2, 0, 0, 20, 20, 0.9),
        (2, 0, 50, 0, 20, 20, 0.8),
        (2, 1, 60, 30, 20, 20, 0.7),
    )
    return find_errors(truth, detections(*rows), confidence=0.25), truth


def test_files_name_each_image(found: tuple[Errors, GroundTruth], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    write_errors(folder, *found, title="what & where", progress=False)
    rows = list(csv.DictReader((folder / "errors.csv").open()))
    assert [(Path(row["file"]).name, row["f1"], row["missed"], row["background"]) for row in rows] == [
        ("<b>.png", "0.0", "1", "0"),
        ("c.png", "0.5", "0", "2"),
        ("a.png", "1.0", "0", "0"),
    ]
    suspects = list(csv.DictReader((folder / "label_suspects.csv").open()))
    assert [(row["file"], row["suspicion"], row["detected"]) for row in suspects] == [
        ("c.png", "no label there", "a"),
        ("c.png", "no label there", "b"),
    ]
    page = (folder / "errors.html").read_text(encoding="utf-8")
    assert "what &amp; where" in page and "&lt;b&gt;.png" in page and "<b>.png" not in page
    assert page.count("data:image/jpeg;base64,") == 2 and "a.png" not in page  # without errors
    assert "http" not in page


def test_a_file_that_is_gone_is_said(found: tuple[Errors, GroundTruth], tmp_path: Path) -> None:
    (tmp_path / "c.png").unlink()
    write_errors(tmp_path, *found, title="t", progress=False)
    page = (tmp_path / "errors.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 1 and page.count("cannot be read") == 1


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="the page of errors is not opened in a browser: no chromium")
def test_images_are_sorted_in_a_browser(found: tuple[Errors, GroundTruth], tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    write_errors(tmp_path, *found, title="t", progress=False)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        messages: list[str] = []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto((tmp_path / "errors.html").as_uri())

        def order() -> list[str]:
            return [str(each.get_attribute("data-name")) for each in page.query_selector_all("figure")]

        assert order() == ["<b>.png", "c.png"]
        page.select_option("#by", "background")
        assert order() == ["c.png", "<b>.png"]
        page.select_option("#by", "f1")
        assert order() == ["<b>.png", "c.png"]
        assert all(page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)"))
        assert page.evaluate("document.documentElement.scrollWidth <= 390") and messages == []
        browser.close()
