"""Text in any script: drawn with an installed font that has it, else as a number, and the user is told."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from core import fonts
from core.fonts import DEJAVU, drawable_names, save_figure, split_by_font, undrawable
from engine.pictures.drawing import LabelMaker, draw_detections
from engine.pictures.evaluation_plots import plot_confusion
from engine.pictures.plots import plot_labels

RED, WHITE = "红细胞", "白细胞"


def write_font(path: Path, characters: str) -> Path:
    """A font whose glyphs are bars of different heights."""
    names = [".notdef", *(f"g{ord(character):X}" for character in characters)]
    glyphs = {}
    for number, name in enumerate(names):
        pen = TTGlyphPen(None)
        top = 100 + 60 * number
        for number_of_point, point in enumerate(((100, 0), (100, top), (800, top), (800, 0))):
            (pen.lineTo if number_of_point else pen.moveTo)(point)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): name for c, name in zip(characters, names[1:], strict=True)})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 100)))
    builder.setupHorizontalHeader(ascent=900, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def forget() -> None:
    fonts._chosen.clear()
    for cached in (fonts._installed, fonts._drawable, fonts._family):
        cached.cache_clear()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[object]:
    """Makes exactly these fonts the installed ones: {name: its characters}."""

    def put(**characters: str) -> dict[str, str]:
        paths = {name: str(write_font(tmp_path / f"{name}.ttf", text)) for name, text in characters.items()}
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [*paths.values(), str(tmp_path / "broken.ttf")])
        forget()
        return paths

    (tmp_path / "broken.ttf").write_bytes(b"no font")
    yield put
    forget()


def test_one_font_for_all_missing_characters_is_preferred(install) -> None:
    paths = install(a="红白", z="红白细胞")
    assert split_by_font(f"a {RED} 0.9") == [(DEJAVU, "a "), (paths["z"], RED), (DEJAVU, " 0.9")]
    paths = install(a="红", z="细胞")
    assert split_by_font(RED) == [(paths["a"], "红"), (paths["z"], "细胞")] and undrawable(RED + WHITE) == "白"


def test_latin_greek_cyrillic_and_arabic_need_no_other_font(monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: pytest.fail("not needed"))
    for text in ("café", "Ωμέγα", "кот", "قطة", "a\u200db\ufe0f"):
        assert undrawable(text) == "" and [path for path, _ in split_by_font(text)] == [DEJAVU]


def test_labels_have_the_glyphs_of_an_installed_font(install, capsys: pytest.CaptureFixture[str]) -> None:
    paths = install(font=RED + "白")
    red, white = (LabelMaker(20, 400).make(text, (0, 0, 0)) for text in (RED, WHITE))
    assert red.shape == white.shape and not np.array_equal(red, white)
    expected = Image.new("L", (red.shape[1], red.shape[0]))
    ascent = ImageFont.truetype(DEJAVU, 20).getmetrics()[0]
    ImageDraw.Draw(expected).text((4, ascent), RED, font=ImageFont.truetype(paths["font"], 20), fill=255, anchor="ls")
    np.testing.assert_array_equal(red[..., 0], np.asarray(expected))
    assert drawable_names([RED, "cat"]) == [RED, "cat"] and capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["cat 0.93", "Ωμέγα 0.5", "a" * 300])
def test_labels_in_dejavu_are_drawn_as_ever(text: str) -> None:
    label = LabelMaker(17, 5000).make(text, (9, 9, 9))
    expected = Image.new("RGB", (label.shape[1], label.shape[0]), (9, 9, 9))
    font = ImageFont.truetype(DEJAVU, 17)
    ImageDraw.Draw(expected).text((3, 0), text[:200], font=font, fill=(255, 255, 255))
    np.testing.assert_array_equal(label, np.asarray(expected))


def test_without_a_font_names_are_numbers_and_the_terminal_has_the_legend(
    install, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once for the same names; and no two texts look alike."""
    install()
    names = ["cat", RED, WHITE]
    assert drawable_names(names) == drawable_names(names) == ["cat", "class 1", "class 2"]
    (line,) = capsys.readouterr().err.splitlines()
    assert f"class 1 {RED}, class 2 {WHITE}" in line and "font" in line
    image, box = np.zeros((300, 300, 3), np.uint8), np.array([[50, 60, 200, 200]])
    drawn = [draw_detections(image, box, np.array([label]), names=names) for label in (1, 2)]
    expected = [draw_detections(image, box, np.array([label])) for label in (1, 2)]  # "class 1", "class 2"
    assert np.array_equal(drawn[0], expected[0]) and np.array_equal(drawn[1], expected[1])
    red, white = (LabelMaker(14, 400).make(text, (0, 0, 0)) for text in (RED, WHITE))
    assert red.shape != white.shape or not np.array_equal(red, white)


def picture_of(path: Path, text: str) -> np.ndarray:
    figure = Figure(figsize=(3, 2), dpi=100)
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.set_xticks([0, 1], [text, "b"])
    save_figure(figure, path)
    return np.asarray(Image.open(path).convert("RGB"))


def test_plots_use_the_installed_font_and_no_warning_escapes(
    install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        install(font=RED + "白")
        red, white = (picture_of(tmp_path / "a.png", text) for text in (RED, WHITE))
        assert not np.array_equal(red, white) and capsys.readouterr().err == ""
        install()
        picture_of(tmp_path / "a.png", RED)
        (line,) = capsys.readouterr().err.splitlines()
        assert all(character in line for character in RED)
        with open(tmp_path / "a.svg", "w", encoding="utf-8") as file:
            install(font=RED)
            figure = Figure()
            figure.text(0, 0, RED)
            save_figure(figure, file, format="svg")
        assert (tmp_path / "a.svg").read_text().count("<svg") == 1 and capsys.readouterr().err == ""


@pytest.mark.slow
def test_plots_of_classes_without_a_font(install, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same picture as of classes with such names, and one line in all."""
    install()
    pictures = []
    for names in ([RED, WHITE], ["class 0", "class 1"]):
        boxes, labels = np.full((3, 4), 0.5), np.array([0, 1, 1])
        plot_labels(tmp_path / "labels.png", boxes=boxes, labels=labels, boxes_per_image=np.array([3]), names=names)
        plot_confusion(tmp_path / "confusion.png", np.eye(3), names, normalise=False)
        pictures.append([np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("labels", "confusion")])
    assert all(map(np.array_equal, *pictures))
    assert capsys.readouterr().err.count("\n") == 1
