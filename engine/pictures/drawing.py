"""Boxes and labels drawn into images, legible at any size: OpenCV for lines, Pillow for text.

Text is in matplotlib's DejaVu font, and in an installed one where that lacks a character (core/fonts.py).
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from core.fonts import DEJAVU, drawable_names, split_by_font, undrawable
from core.text import printable

# Hues that color-blind readers can tell apart (Okabe and Ito, 2008; the last one from Tol's muted set).
HUES = ("#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442", "#882255")
# Classes beyond the eighth repeat the hues, mixed with this fraction of white (> 0) or black (< 0).
SHADES = (0.0, 0.4, -0.4, 0.65, -0.6, 0.2, -0.2, 0.52, -0.5, 0.3)

MIN_LONG_SIDE = 200  # pixels; smaller images are enlarged before drawing, as labels would cover them
LABEL_FRACTION = 0.2  # of the image that labels may cover
MAX_LABEL = 200  # characters; more do not fit, and measuring a text takes time
HEADER = (38, 38, 38)


def class_color(index: int) -> tuple[int, int, int]:
    """The RGB color of a class, by its position."""
    text = HUES[index % len(HUES)]
    base = np.array([int(text[k : k + 2], 16) for k in (1, 3, 5)], float)
    shade = SHADES[(index // len(HUES)) % len(SHADES)]
    mixed = base + (255 - base) * shade if shade > 0 else base * (1 + shade)
    red, green, blue = (int(round(value)) for value in mixed)
    return red, green, blue


def text_color(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever contrasts more with the background (WCAG relative luminance)."""
    channels = np.array(background) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)


class LabelMaker:
    """Draws labels: filled rectangles with a text, truncated to at most `width` pixels."""

    def __init__(self, size: int, width: int) -> None:
        self.size = size
        self.font = _font(DEJAVU, size)
        self.margin = max(1, size // 5)
        self.width = max(width - 2 * self.margin, 1)
        self.ascent, descent = self.font.getmetrics()
        self.height = self.ascent + descent + self.margin // 2

    def make(self, text: str, background: tuple[int, int, int]) -> np.ndarray:
        """The label as an RGB array (height, text width + margins, 3); control characters and breaks become "?".

        Characters that no installed font has are drawn as their code points.
        """
        text = _with_code_points(printable(text[:MAX_LABEL]))
        while len(text) > 1 and self.length(text) > self.width:
            text = text[:-2].rstrip() + "…" if len(text) > 2 else text[:1]
        width = math.ceil(min(self.length(text), self.width)) + 2 * self.margin
        picture = Image.new("RGB", (width, self.height), background)
        draw, x = ImageDraw.Draw(picture), float(self.margin)
        for font, part in self._parts(text):
            draw.text((x, self.ascent), part, font=font, fill=text_color(background), anchor="ls")
            x += font.getlength(part)
        return np.asarray(picture)

    def length(self, text: str) -> float:
        """The width of a text in pixels."""
        return sum(font.getlength(part) for font, part in self._parts(text))

    def _parts(self, text: str) -> list[tuple[ImageFont.FreeTypeFont, str]]:
        if text.isascii():
            return [(self.font, text)]
        return [(_font(path, self.size), part) for path, part in split_by_font(text)]


@functools.lru_cache(maxsize=64)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _with_code_points(text: str) -> str:
    for character in undrawable(text):
        text = text.replace(character, f"[{ord(character):X}]")
    return text


def line_width(height: int, width: int) -> int:
    """Line width in pixels for an image: 1 up to about 400 pixels, 2 at 640, 7 at 2000."""
    return max(1, round((height + width) / 2 / 280))


def font_size(height: int, width: int, count: int = 0) -> int:
    """Font height in pixels for an image with `count` boxes; crowded images get smaller labels."""
    crowding = 1.0 if count <= 25 else 0.8 if count <= 60 else 0.65
    size = min((height + width) / 2 * 0.022, min(height, width) * 0.06)  # the second for very narrow images
    return max(10, round(size * crowding))


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    track_ids: np.ndarray | None = None,
) -> np.ndarray:
    """A copy of an RGB image (H, W, 3) uint8 with boxes (n, 4) xyxy pixels, class names and scores drawn in.

    All boxes are drawn; in a crowded image only those with the highest scores get a label. `track_ids` (n,), -1 for a
    box without one, stand before the names, as in "#3 star 0.87".
    Images with a long side under 200 pixels are returned enlarged by an integer factor.
    """
    labels = np.asarray(labels, np.int64).reshape(-1)
    names = None if names is None else drawable_names(names)
    certain = [None] * len(labels) if scores is None else scores
    numbers = [-1] * len(labels) if track_ids is None else track_ids.tolist()
    return draw_boxes(
        image,
        boxes,
        captions=[
            _track(number) + _text(int(label), score, names)
            for label, score, number in zip(labels, certain, numbers, strict=True)
        ],
        colors=[class_color(int(label)) for label in labels],
        order=None if scores is None else np.argsort(-np.asarray(scores, np.float64), kind="stable"),
    )


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    *,
    captions: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
    order: np.ndarray | None = None,
) -> np.ndarray:
    """`draw_detections` with a caption and an RGB color for each box. `order`: the most important one first."""
    canvas = np.ascontiguousarray(image).copy()
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    longest = max(canvas.shape[:2])
    if longest < MIN_LONG_SIDE:
        factor = math.ceil(320 / longest)
        canvas = cv2.resize(canvas, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        boxes = boxes * factor
    height, width = canvas.shape[:2]
    order = np.arange(len(boxes)) if order is None else order
    corners = np.clip(np.nan_to_num(boxes), 0, (width - 1, height - 1, width - 1, height - 1)).round().astype(int)
    for k in order[::-1]:  # the most important one last, on top
        _draw_box(canvas, corners[k], colors[k])
    maker = LabelMaker(font_size(height, width, len(boxes)), width)
    taken: list[tuple[int, int, int, int]] = []
    placed: list[np.ndarray] = []
    room = LABEL_FRACTION * height * width
    for k in order:  # the most important one first: it gets the best position
        label = maker.make(captions[int(k)], colors[int(k)])
        place, covered = _place(corners[k], label.shape[1], label.shape[0], (height, width), taken)
        area = label.shape[0] * label.shape[1]
        if taken and (covered > 0.25 * area or area > room):
            continue  # in a crowded image, more labels would be unreadable and hide the image
        room -= area
        taken.append(place)
        placed.append(label)
    for (left, top, right, bottom), label in zip(reversed(taken), reversed(placed), strict=True):
        canvas[top:bottom, left:right] = label[: bottom - top, : right - left]
    return canvas


def _track(number: int) -> str:
    return f"#{number} " if number >= 0 else ""


def _text(label: int, score: float | None, names: Sequence[str] | None) -> str:
    name = names[label] if names is not None and 0 <= label < len(names) else f"class {label}"
    return name if score is None else f"{name} {score:.2f}"


def _draw_box(canvas: np.ndarray, box: np.ndarray, color: tuple[int, int, int]) -> None:
    """A rectangle with a thin black or white border, visible on any background."""
    thickness = line_width(*canvas.shape[:2])
    first, second = (int(box[0]), int(box[1])), (int(box[2]), int(box[3]))
    if thickness > 1:
        cv2.rectangle(canvas, first, second, text_color(color), thickness + 2, cv2.LINE_4)
    cv2.rectangle(canvas, first, second, color, thickness, cv2.LINE_4)


def _place(
    box: np.ndarray, width: int, height: int, limits: tuple[int, int], taken: list[tuple[int, int, int, int]]
) -> tuple[tuple[int, int, int, int], int]:
    """Position of a label (xyxy) next to its box and inside the image, and its overlap with other labels."""
    left, top, right, bottom = (int(value) for value in box)
    spots = [
        (left, top - height),  # above
        (left, top),  # inside, at the top
        (right - width, top - height),
        (left, bottom),  # below
        (right - width, bottom - height),  # inside, at the bottom right
        (right - width, bottom),
    ]
    best, hidden, least = (0, 0, 0, 0), 0, math.inf
    for x, y in spots:
        inside_x = min(max(x, 0), max(limits[1] - width, 0))
        inside_y = min(max(y, 0), max(limits[0] - height, 0))
        place = (inside_x, inside_y, min(inside_x + width, limits[1]), min(inside_y + height, limits[0]))
        covered = sum(
            max(0, min(place[2], other[2]) - max(place[0], other[0]))
            * max(0, min(place[3], other[3]) - max(place[1], other[1]))
            for other in taken
        )
        moved = abs(inside_y - y) * width  # moved away from its box, if the others are worse
        if covered + moved < least:
            best, hidden, least = place, covered, covered + moved
        if least == 0:
            break
    return best, hidden


def mosaic(
    images: np.ndarray,
    boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    *,
    names: Sequence[str],
    scores: Sequence[np.ndarray] | None = None,
    captions: Sequence[str] | None = None,
    limit: int = 16,
    side: int = 1920,
) -> np.ndarray:
    """A batch (B, 3, H, W) uint8 RGB as one picture (rows of tiles), with boxes xyxy in pixels of the batch.

    At most `limit` images are shown, in tiles between 240 and 640 pixels wide that fill about `side` pixels.
    """
    count = min(len(images), limit)
    across = math.ceil(math.sqrt(count))
    height, width = images.shape[2:]
    scale = min(max(side / across / max(height, width), 240 / max(height, width)), 640 / max(height, width))
    tile_height, tile_width = max(1, round(height * scale)), max(1, round(width * scale))
    maker = LabelMaker(max(11, round(tile_width * 0.035)), tile_width)
    gap, down = 4, math.ceil(count / across)
    step_y, step_x = tile_height + maker.height + gap, tile_width + gap
    picture = np.full((down * step_y + gap, across * step_x + gap, 3), 255, np.uint8)
    for k in range(count):
        tile = np.ascontiguousarray(np.asarray(images[k]).transpose(1, 2, 0))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        tile = cv2.resize(tile, (tile_width, tile_height), interpolation=interpolation)
        sure = None if scores is None else scores[k]
        drawn = draw_detections(tile, np.asarray(boxes[k]).reshape(-1, 4) * scale, labels[k], sure, names)
        top, left = gap + k // across * step_y, gap + k % across * step_x
        caption = Path(captions[k]).name if captions is not None else f"image {k}"
        header = maker.make(caption + ("" if len(boxes[k]) else "   (none)"), HEADER)
        picture[top : top + maker.height, left : left + tile_width] = HEADER
        picture[top : top + maker.height, left : left + header.shape[1]] = header[:, :tile_width]
        picture[top + maker.height : top + maker.height + tile_height, left : left + tile_width] = drawn
    return picture


def png(image: np.ndarray) -> bytes:
    """An RGB image as the content of a PNG file."""
    _, content = cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR))
    return content.tobytes()


def save_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an RGB image; the suffix names the format.

    Raises ValueError for a suffix that OpenCV does not know, OSError if the file cannot be written.
    """
    try:
        done, content = cv2.imencode(Path(path).suffix, cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR))
    except cv2.error:
        done = False
    if not done:
        raise ValueError(f"{path}: the image could not be written; expected a path ending in .jpg or .png")
    with open(path, "wb") as file:
        file.write(content.tobytes())


def save_mosaic(
    path: str | os.PathLike,
    images: np.ndarray,
    boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    *,
    names: Sequence[str],
    scores: Sequence[np.ndarray] | None = None,
    captions: Sequence[str] | None = None,
) -> None:
    """Write `mosaic(...)` to a file."""
    save_image(path, mosaic(images, boxes, labels, names=names, scores=scores, captions=captions))
