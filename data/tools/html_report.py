"""The report of a data check: histograms, sheets of suspicious boxes and duplicates, one self-contained HTML page.

Everything is told in plain arrays and texts; what they mean is known to data/tools/check.py.
"""

from __future__ import annotations

import base64
import html
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from core.files import write_text
from core.text import printable
from engine.pictures.drawing import HEADER, LabelMaker, save_image

SMALL, LARGE = 32, 96  # COCO's bounds of small and large objects, square roots of areas in pixels
MOST_CLASSES = 100  # bars in one picture
COLORS = ("#0072B2", "#D55E00", "#009E73")  # of the splits
GROUND = (90, 90, 90)  # what lies outside an image
FRAMES = ((255, 140, 0), (0, 40, 255))  # of the first box in question and of the second
TILE = 250
LONGEST = 120  # letters of a caption; measuring a text takes time
GAP = 6


# ---------------------------------------------------------------------------------------------------------- histograms


def plot_classes(path: str | os.PathLike, counts: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Objects by class, one panel a split; `counts`: {split: (C,)}. Of many classes the most frequent are drawn."""
    total = np.sum(list(counts.values()), axis=0)
    shown = np.arange(len(names))
    if len(names) > MOST_CLASSES:
        shown = np.sort(np.argsort(-total, kind="stable")[:MOST_CLASSES])
    figure = _figure(2.6 + 4.2 * len(counts), max(2.4, 1.2 + 0.2 * len(shown)))
    axes = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for axis, (split, values), color in zip(axes, counts.items(), COLORS, strict=False):
        axis.barh(range(len(shown)), values[shown], color=color, height=0.8)
        for place, count in enumerate(values[shown].tolist()):
            axis.text(count, place, f" {count:,}", va="center", fontsize=8, color="black" if count else "red")
        axis.set(title=f"{split}: {values.sum():,} objects", xlabel="objects")
        axis.set(xlim=(0, max(values.max(initial=0) * 1.25, 1)), ylim=(len(shown) - 0.4, -0.6))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    # A dollar sign would begin a formula.
    axes[0].set_yticks(
        range(len(shown)), [printable(names[k])[:30].replace("$", r"\$") for k in shown.tolist()], fontsize=8
    )
    if len(shown) < len(names):
        figure.suptitle(f"the {len(shown)} most frequent of {len(names)} classes")
    _save(figure, path)


def plot_box_sizes(path: str | os.PathLike, sides: Mapping[str, np.ndarray]) -> None:
    """Square roots of box areas in pixels, {split: (n,)}, one panel a split, with COCO's bounds and their shares."""
    top = max((values.max() for values in sides.values() if len(values)), default=LARGE)
    bins = np.geomspace(1, max(float(top), 2 * LARGE) * 1.05, 46)
    axes, figure = _panels(len(sides), 1)
    for axis, (split, values), color in zip(axes[:, 0], sides.items(), COLORS, strict=False):
        axis.hist(np.maximum(values, 1), bins.tolist(), color=color)
        axis.set(xscale="log", xlim=(bins[0], bins[-1]), title=f"{split}: {len(values):,} boxes", ylabel="boxes")
        axis.set_ylim(0, axis.get_ylim()[1] * 1.25)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        edges = (1.0, SMALL, LARGE, float(bins[-1]))
        parts = (values < SMALL, (values >= SMALL) & (values < LARGE), values >= LARGE)
        for name, part, low, high in zip(("small", "medium", "large"), parts, edges, edges[1:], strict=False):
            share = part.mean() if len(values) else 0.0
            place = (math.sqrt(low * high), 0.97)
            axis.text(*place, f"{name} {share:.0%}", ha="center", va="top", transform=axis.get_xaxis_transform())
        for bound in (SMALL, LARGE):
            axis.axvline(bound, color="black", lw=1, ls="--")
    axes[-1, 0].set_xlabel("√(box area) in pixels of the image, box clipped to it")
    _save(figure, path)


def plot_image_sizes(path: str | os.PathLike, sizes: Mapping[str, np.ndarray]) -> None:
    """Widths and heights of images in pixels, {split: (n, 2)}, one row of panels a split."""
    every = np.concatenate([values.reshape(-1) for values in sizes.values()])
    low, high = float(every.min(initial=10**9)), float(every.max(initial=1))
    margin = max(8.0, 0.04 * (high - low))
    bins = np.linspace(max(0.0, low - margin), high + margin, 41)
    axes, figure = _panels(len(sizes), 2)
    for row, (split, values), color in zip(axes, sizes.items(), COLORS, strict=False):
        for axis, column, side in zip(row, (0, 1), ("width", "height"), strict=True):
            axis.hist(values[:, column], bins.tolist(), color=color)
            found = values[:, column]
            axis.set(title=f"{split}: {side} {_span(found)}", ylabel="images", xlim=(bins[0], bins[-1]))
            axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    for axis, side in zip(axes[-1], ("width", "height"), strict=True):
        axis.set_xlabel(f"{side} in pixels")
    _save(figure, path)


def _span(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} to {high}, median {np.median(values):.0f}"


def _panels(rows: int, columns: int) -> tuple[np.ndarray, Figure]:
    figure = _figure(11, 2.4 * rows + 0.5)
    axes: np.ndarray = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        assert isinstance(axis, Axes)
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
    return axes, figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | os.PathLike) -> None:
    figure.savefig(path)


# -------------------------------------------------------------------------------------------------------------- sheets


@dataclass(frozen=True)
class Tile:
    """A square picture RGB (TILE, TILE, 3) with two lines of text above: split and file, and what is to be seen."""

    picture: np.ndarray
    split: str
    file: str
    line: str


def box_tile(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The surroundings of boxes (n, 4) xyxy in an RGB image as a square picture with the boxes drawn in.

    What the square shows outside the image is grey; a small box is enlarged, with at least 24 pixels around shown.
    """
    height, width = image.shape[:2]
    low = boxes[:, :2].min(axis=0).clip((-width, -height), (width, height))
    high = boxes[:, 2:].max(axis=0).clip((0, 0), (2 * width, 2 * height))
    side = max(float((high - low).max()) * 1.25, 24.0)
    corner = (low + high) / 2 - side / 2
    scale = TILE / side
    if scale < 1:
        fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
        reduced = cv2.resize(image, fitted, interpolation=cv2.INTER_AREA)
        picture = _pasted(reduced, -corner * scale, TILE)
    else:
        corner = corner.round()
        pixels = math.ceil(side)
        scale = TILE / pixels
        part = _pasted(image, -corner, pixels)
        picture = cv2.resize(part, (TILE, TILE), interpolation=cv2.INTER_NEAREST if scale > 4 else cv2.INTER_CUBIC)
    boxes = boxes.clip(-2 * max(height, width), 3 * max(height, width))  # OpenCV counts in 32 bits
    for number, (box, color) in enumerate(zip(boxes, FRAMES, strict=False)):
        first, second = ((box.reshape(2, 2) - corner) * scale).round().astype(int).tolist()
        if not number:  # a rim that shows on any ground; the second box is a thin line over the first
            cv2.rectangle(picture, first, second, (0, 0, 0), 5, cv2.LINE_4)
        cv2.rectangle(picture, first, second, color, 1 if number else 3, cv2.LINE_4)
    return picture


def _pasted(image: np.ndarray, place: np.ndarray, side: int) -> np.ndarray:
    """A grey square with an image laid on it, its corner at `place` (x, y), which may be outside."""
    canvas = np.full((side, side, 3), GROUND, np.uint8)
    left, top = (int(round(float(value))) for value in place)
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, side), min(top + height, side)
    if x1 > x0 and y1 > y0:
        canvas[y0:y1, x0:x1] = image[y0 - top : y1 - top, x0 - left : x1 - left]
    return canvas


def image_tile(image: np.ndarray) -> np.ndarray:
    """A whole RGB image fitted into a grey square."""
    height, width = image.shape[:2]
    scale = TILE / max(height, width)
    fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    reduced = cv2.resize(image, fitted, interpolation=interpolation)
    return _pasted(reduced, np.array([(TILE - fitted[0]) / 2, (TILE - fitted[1]) / 2]), TILE)


def save_sheet(path: str | os.PathLike, rows: Iterable[Sequence[Tile]], *, columns: int = 5) -> None:
    """Rows of tiles as one picture; a row of more than `columns` tiles is broken."""
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
                label = maker.make(printable(text[:LONGEST]), HEADER)[:, :TILE]
                y = top + number * maker.height
                sheet[y : y + maker.height, left : left + label.shape[1]] = label
            y = top + 2 * maker.height
            sheet[y : y + TILE, left : left + TILE] = tile.picture
    save_image(path, sheet)


def _head(tile: Tile, maker: LabelMaker) -> str:
    """Split and file name; of a name that is too long the end, where names differ."""
    name, cut = printable(tile.file[-LONGEST:]), len(tile.file) > LONGEST
    text = f"{tile.split}: {'…' if cut else ''}{name}"
    while len(name) > 1 and maker.font.getlength(text) > maker.width:
        name = name[1:]
        text = f"{tile.split}: …{name}"
    return text


# ---------------------------------------------------------------------------------------------------------------- page


@dataclass
class Section:
    """A part of the page: a heading, paragraphs, tables as rows of cells (the first row heads), pictures by path."""

    title: str
    texts: Sequence[str] = ()
    tables: Sequence[Sequence[Sequence[object]]] = ()
    pictures: Sequence[tuple[str | os.PathLike, str]] = ()  # path and caption
    details: Sequence[tuple[str, Sequence[Sequence[object]]]] = field(default_factory=list)  # folded tables
    loud: bool = False


STYLE = """
body { font: 15px/1.5 sans-serif; color: #222; max-width: 1340px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: .7em 0 } td, th { border: 1px solid #ccc }
td, th { padding: .2em .7em; text-align: left }
th { background: #f0f0f0 } td.n { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100%; height: auto; display: block; margin: .4em 0 } figure { margin: 1em 0 }
.loud { background: #fde8e4; border-left: 6px solid #c0392b; padding: .1em 1em; margin: 1em 0 }
summary { cursor: pointer }
"""


def write_page(path: str | os.PathLike, title: str, sections: Iterable[Section]) -> None:
    """Write an HTML page that holds its pictures in itself and loads nothing."""
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escaped(title)}</title>',
        f"<style>{STYLE}</style></head><body>\n<h1>{_escaped(title)}</h1>",
    ]
    for section in sections:
        parts.append('<section class="loud">' if section.loud else "<section>")
        parts.append(f"<h2>{_escaped(section.title)}</h2>")
        parts += [f"<p>{_escaped(text)}</p>" for text in section.texts]
        parts += [_table(rows) for rows in section.tables]
        parts += [_picture(Path(place), caption) for place, caption in section.pictures]
        parts += [f"<details><summary>{_escaped(t)}</summary>{_table(rows)}</details>" for t, rows in section.details]
        parts.append("</section>")
    write_text(path, "\n".join([*parts, "</body></html>\n"]))


def _escaped(value: object) -> str:
    return html.escape(printable(value))


def _table(rows: Sequence[Sequence[object]]) -> str:
    lines = []
    for number, row in enumerate(rows):
        cells = []
        for value in row:
            figure = isinstance(value, int | float)
            text = f"{value:,}" if figure else _escaped(value)
            cells.append(f"<th>{text}</th>" if not number else f"<td{' class=n' if figure else ''}>{text}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _picture(path: Path, caption: str) -> str:
    kind = "png" if path.suffix == ".png" else "jpeg"
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    image = f'<img src="data:image/{kind};base64,{content}" alt="{_escaped(caption)}">'
    return f"<figure><figcaption>{_escaped(caption)}</figcaption>{image}</figure>"
