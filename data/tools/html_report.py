"""The report of a data check: sheets of example pictures, and one self-contained HTML page (report.html).

Input is plain arrays and texts; data/tools/check.py knows their meaning.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from core.files import write_text
from core.templates import data_uri, templates
from core.text import printable
from engine.pictures.drawing import HEADER, LabelMaker, save_image

OUTSIDE = (90, 90, 90)  # colour of areas outside an image
FRAMES = ((255, 140, 0), (0, 40, 255))  # colours of the first box in question and of the second
TILE = 250
MAX_CAPTION = 120  # characters; measuring text takes time
GAP = 6


# -------------------------------------------------------------------------------------------------------------- sheets


@dataclass(frozen=True)
class Tile:
    """A square picture RGB (TILE, TILE, 3) with two lines of text above: split and file, and a description."""

    picture: np.ndarray
    split: str
    file: str
    line: str


def box_tile(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The surroundings of boxes (n, 4) xyxy in an RGB image as a square picture, with the boxes drawn.

    Areas outside the image are grey; small boxes are enlarged, showing at least 24 x 24 pixels.
    """
    height, width = image.shape[:2]
    low = boxes[:, :2].min(axis=0).clip((-width, -height), (width, height))
    high = boxes[:, 2:].max(axis=0).clip((0, 0), (2 * width, 2 * height))
    side = max(float((high - low).max()) * 1.25, 24.0)
    corner = (low + high) / 2 - side / 2
    scale = TILE / side
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        reduced = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        picture = _pasted(reduced, -corner * scale, TILE)
    else:
        corner = corner.round()
        pixels = math.ceil(side)
        scale = TILE / pixels
        part = _pasted(image, -corner, pixels)
        picture = cv2.resize(part, (TILE, TILE), interpolation=cv2.INTER_NEAREST if scale > 4 else cv2.INTER_CUBIC)
    boxes = boxes.clip(-2 * max(height, width), 3 * max(height, width))  # OpenCV uses 32-bit coordinates
    for number, (box, color) in enumerate(zip(boxes, FRAMES, strict=False)):
        first, second = ((box.reshape(2, 2) - corner) * scale).round().astype(int).tolist()
        if not number:  # a rim visible on any background; the second box is a thin line on top
            cv2.rectangle(picture, first, second, (0, 0, 0), 5, cv2.LINE_4)
        cv2.rectangle(picture, first, second, color, 1 if number else 3, cv2.LINE_4)
    return picture


def _pasted(image: np.ndarray, corner: np.ndarray, side: int) -> np.ndarray:
    """A grey square with an image pasted at `corner` (x, y), which may be outside."""
    canvas = np.full((side, side, 3), OUTSIDE, np.uint8)
    left, top = (int(round(float(value))) for value in corner)
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, side), min(top + height, side)
    if x1 > x0 and y1 > y0:
        canvas[y0:y1, x0:x1] = image[y0 - top : y1 - top, x0 - left : x1 - left]
    return canvas


def image_tile(image: np.ndarray) -> np.ndarray:
    """A whole RGB image resized to fit a grey square."""
    height, width = image.shape[:2]
    scale = TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    reduced = cv2.resize(image, size, interpolation=interpolation)
    return _pasted(reduced, np.array([(TILE - size[0]) / 2, (TILE - size[1]) / 2]), TILE)


def save_sheet(path: str | os.PathLike[str], rows: Iterable[Sequence[Tile]], *, columns: int = 5) -> None:
    """Rows of tiles as one picture; rows of more than `columns` tiles are wrapped."""
    lines = [row[k : k + columns] for row in rows for k in range(0, len(row), columns)]
    maker = LabelMaker(14, TILE)
    step_y = TILE + 2 * maker.height + GAP
    across = max((len(line) for line in lines), default=1)
    sheet = np.full((len(lines) * step_y + GAP, across * (TILE + GAP) + GAP, 3), 255, np.uint8)
    for row, line in enumerate(lines):
        for column, tile in enumerate(line):
            top, left = GAP + row * step_y, GAP + column * (TILE + GAP)
            sheet[top : top + 2 * maker.height, left : left + TILE] = HEADER
            for number, text in enumerate((_head(tile, maker), tile.line)):
                label = maker.make(printable(text[:MAX_CAPTION]), HEADER)[:, :TILE]
                y = top + number * maker.height
                sheet[y : y + maker.height, left : left + label.shape[1]] = label
            y = top + 2 * maker.height
            sheet[y : y + TILE, left : left + TILE] = tile.picture
    save_image(path, sheet)


def _head(tile: Tile, maker: LabelMaker) -> str:
    """Split and file name; names that are too long keep their end, where they differ."""
    name, cut = printable(tile.file[-MAX_CAPTION:]), len(tile.file) > MAX_CAPTION
    text = f"{tile.split}: {'…' if cut else ''}{name}"
    while len(name) > 1 and maker.length(text) > maker.width:
        name = name[1:]
        text = f"{tile.split}: …{name}"
    return text


# ---------------------------------------------------------------------------------------------------------------- page


Table = Sequence[Sequence[object]]  # rows of cells; the first row is the header


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    texts: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[tuple[Path, str]] = ()  # path and caption
    details: Sequence[tuple[str, Table]] = ()  # collapsed tables with their summaries
    loud: bool = False


def write_page(path: Path, title: str, sections: Iterable[Section]) -> None:
    """Write an HTML page that contains its pictures and loads no other files."""
    environment = templates(Path(__file__).parent)
    environment.filters |= {"cell": _cell, "data_uri": _data_uri}
    write_text(path, environment.get_template("report.html").render(title=title, sections=sections))


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else printable(value)


def _data_uri(path: Path) -> str:
    return data_uri(path.read_bytes(), "png" if path.suffix == ".png" else "jpeg")
