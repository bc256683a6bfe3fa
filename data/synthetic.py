"""The embedded data set: drawn figures on textured grounds, seeded, written to disk as a real COCO folder.

    python -m data.synthetic --out datasets/shapes

Six classes that differ in shape, four of them also in a pattern of two colours; colours, size, rotation, stretch and
filling do not depend on the class. Figures overlap, leave the image, and stand among blobs, polygons and strokes that
are no objects. Boxes are tight around what is *visible*, as in COCO; a figure is placed only where enough of it and of
each figure below it stays visible. Image i of a split depends on (seed, split, i) alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from core.progress import progress_bar

CLASSES = ("circle", "ring", "triangle", "square", "cross", "star")
# Parts in a second colour, in unit coordinates: a target's ring, a striped triangle, a chequered square, a star's eye.
PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda u, v: np.abs(np.hypot(u, v) - 0.5) < 0.17,
    "triangle": lambda u, v: np.floor(u / 0.3) % 2 == 0,
    "square": lambda u, v: u * v > 0,
    "star": lambda u, v: np.hypot(u, v) < 0.28,
}
SPLITS = ("train", "val", "test")
DRAWING_VERSION = 4  # raise it with every change of what is drawn: stamped folders of another version are redrawn
STAMP = "shapes.json"

# How hard the set is. Each of these moves mAP by several points; docs/benchmarks.md says what they were chosen for.
EMPTY_SHARE = 0.05
LEAST_FIGURES, MOST_FIGURES = 2, 10
MOST_DISTRACTORS = 1
SMALLEST, LARGEST = 0.16, 0.45  # diameter of a figure as a fraction of the long side of its image
LEAST_VISIBLE = 0.55  # of a figure, to be drawn at all
LEAST_CONTRAST = 95.0  # Euclidean distance in RGB between a figure and the ground it stands on
MOST_TURN = 30.0  # degrees to either side
STRETCH = 0.18  # largest logarithm of the stretch along an axis
TEXTURE = 0.4  # strength of clouds and stripes
SUBPIXEL = 4  # OpenCV draws on a grid of 1/16 pixel


@dataclass(frozen=True)
class Figure:
    """One drawn object: its class, and its mask of visible pixels (H, W) bool."""

    label: int
    mask: np.ndarray
    full_area: float  # pixels of the whole figure, inside the image or not


def outline(name: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Contours (n, 2) of a class in unit coordinates; a second contour is a hole. Proportions vary a little."""
    turn = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    if name == "circle":
        return [circle]
    if name == "ring":
        return [circle, circle * rng.uniform(0.45, 0.65)]
    if name == "triangle":
        return [_star_points(3, 1.0)[::2]]
    if name == "square":
        return [_star_points(4, 1.0)[::2]]
    if name == "cross":
        return [_cross(rng.uniform(0.24, 0.36))]
    if name == "star":
        return [_star_points(5, rng.uniform(0.40, 0.52))]
    raise ValueError(f"unknown figure {name!r}, expected one of {', '.join(CLASSES)}")


def _star_points(points: int, inner: float) -> np.ndarray:
    angle = math.pi * np.arange(2 * points) / points
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _cross(half: float) -> np.ndarray:
    arm = np.array([[half, half], [half, 1.0], [-half, 1.0]])
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    return np.concatenate([arm @ np.linalg.matrix_power(quarter, turns).T for turns in range(4)])


def draw_image(side: int, seed: int, split: str, index: int) -> tuple[np.ndarray, list[Figure]]:
    """Image (H, W, 3) uint8 RGB and its figures, from (seed, split, index) alone; the long side is 1 to 1.4 `side`."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    long_side = int(round(side * rng.uniform(1.0, 1.4)))
    short_side = int(round(long_side * rng.uniform(0.66, 1.0)))
    width, height = (long_side, short_side) if rng.random() < 0.5 else (short_side, long_side)
    image = _ground(width, height, rng)
    for _ in range(rng.integers(0, MOST_DISTRACTORS + 1)):
        _draw_distractor(image, rng)
    figures: list[Figure] = []
    if rng.random() >= EMPTY_SHARE:
        for _ in range(rng.integers(LEAST_FIGURES, MOST_FIGURES + 1)):
            _place_figure(image, figures, rng)
    for _ in range(rng.integers(0, 3)):
        _draw_stroke(image, rng)
    return _photograph(image, rng), figures


def _ground(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A textured ground (H, W, 3) float32: a gradient, clouds at three scales, and often stripes or checks."""
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    along = (xx * math.cos(angle) + yy * math.sin(angle)) / max(width, height)
    first, second = rng.uniform(30, 225, (2, 3))
    ground = first + (second - first) * rng.uniform(0.2, 1.0) * (along[..., None] - along.min())
    for cells, strength in ((4, 28), (12, 18), (40, 12)):
        noise = rng.normal(0, TEXTURE * strength * rng.uniform(0.3, 1.0), (cells, cells, 3)).astype(np.float32)
        ground += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    kind = rng.integers(4)
    period, turn = rng.uniform(6, 40), rng.uniform(0, math.pi)
    wave = np.sin((xx * math.cos(turn) + yy * math.sin(turn)) * (2 * math.pi / period))
    if kind == 1:
        ground += (wave * TEXTURE * rng.uniform(8, 26))[..., None]
    elif kind == 2:
        across = np.sin((yy * math.cos(turn) - xx * math.sin(turn)) * (2 * math.pi / period))
        ground += (np.sign(wave * across) * TEXTURE * rng.uniform(6, 18))[..., None]
    return np.ascontiguousarray(ground, dtype=np.float32)


def _paint(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> None:
    """Fill a mask (H, W) float 0..1 with a colour that stands out from what lies below, shaded or striped."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    crop = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image, mask = image[crop], mask[crop]
    inside = mask >= min(0.5, mask.max())
    below = image[inside].mean(axis=0)
    colour = rng.uniform(10, 245, 3)
    for _ in range(50):
        if np.linalg.norm(colour - below) >= LEAST_CONTRAST:
            break
        colour = rng.uniform(10, 245, 3)
    height, width = mask.shape
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    turn = rng.uniform(0, 2 * math.pi)
    along = xx * math.cos(turn) + yy * math.sin(turn)
    fill = np.broadcast_to(colour.astype(np.float32), image.shape)
    style = rng.random()
    if style < 0.35:
        shade = (along - along[inside].mean()) / (np.ptp(along[inside]) + 1)
        fill = fill + (shade * rng.uniform(20, 70))[..., None]
    elif style < 0.6:
        fill = fill + (np.sign(np.sin(along * (2 * math.pi / rng.uniform(4, 12)))) * rng.uniform(8, 28))[..., None]
    fill = fill + rng.normal(0, rng.uniform(0, 8), (height, width, 1)).astype(np.float32)
    image += mask[..., None] * (np.clip(fill, 0, 255) - image)


def _fill_mask(contours: list[np.ndarray], width: int, height: int) -> np.ndarray:
    """Antialiased mask (H, W) float32 0..1 of contours in pixel-edge coordinates, overlaps of contours being holes."""
    mask = np.zeros((height, width), dtype=np.uint8)
    # OpenCV's integer coordinates are pixel centres, ours are pixel edges: half a pixel apart.
    grid = [np.round((contour - 0.5) * (1 << SUBPIXEL)).astype(np.int32) for contour in contours]
    cv2.fillPoly(mask, grid, 255, cv2.LINE_AA, SUBPIXEL)
    return mask.astype(np.float32) / 255


def _posed(
    contours: list[np.ndarray], width: int, height: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Contours of random size (log-uniform), stretch, rotation and place, in pixels; and their matrix and centre."""
    radius = 0.5 * max(width, height) * math.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST)))
    stretch = math.exp(rng.uniform(-STRETCH, STRETCH))
    lean, turn = rng.uniform(0, math.pi), rng.uniform(0, 2 * math.pi)
    turn = math.pi + (turn - math.pi) * MOST_TURN / 180
    pose = _rotation(turn - lean) @ np.diag([stretch, 1 / stretch]) @ _rotation(lean) * radius
    margin = min(0.7 * radius, 0.4 * min(width, height))  # some reach beyond the border, few by much
    centre = rng.uniform([margin, margin], [width - margin, height - margin])
    return [contour @ pose.T + centre for contour in contours], pose, centre


def _rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _place_figure(image: np.ndarray, figures: list[Figure], rng: np.random.Generator) -> None:
    """Draw one figure on top, at the first of a few places that leaves enough of it and of all others visible."""
    height, width = image.shape[:2]
    label = int(rng.integers(len(CLASSES)))
    contours = outline(CLASSES[label], rng)
    for _ in range(8):
        placed, pose, centre = _posed(contours, width, height, rng)
        area = abs(_area(placed[0])) - sum(abs(_area(hole)) for hole in placed[1:])
        alpha = _fill_mask(placed, width, height)
        mask = alpha > 0.5
        if mask.sum() < max(LEAST_VISIBLE * area, 12):
            continue
        rest = [Figure(each.label, each.mask & ~mask, each.full_area) for each in figures]
        if all(each.mask.sum() >= max(LEAST_VISIBLE * each.full_area, 12) for each in rest):
            _paint(image, alpha, rng)
            _paint(image, alpha * _pattern(CLASSES[label], width, height, pose, centre), rng)
            figures[:] = [*rest, Figure(label, mask, area)]
            return


def _area(contour: np.ndarray) -> float:
    x, y = contour[:, 0], contour[:, 1]
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def _pattern(name: str, width: int, height: int, pose: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Mask (H, W) bool of the parts of a figure in its second colour; none for most classes."""
    if name not in PATTERNS:
        return np.zeros((height, width), dtype=bool)
    yy, xx = np.mgrid[0:height, 0:width] + 0.5
    u, v = np.tensordot(np.linalg.inv(pose), np.stack([xx - centre[0], yy - centre[1]]), axes=1)
    return PATTERNS[name](u, v)


def _draw_distractor(image: np.ndarray, rng: np.random.Generator) -> None:
    """A shape that is no object, below the figures: a soft blob, or an irregular dented polygon."""
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        turn = np.linspace(0, 2 * math.pi, 40, endpoint=False)
        waves = np.sum(
            [rng.uniform(-0.22, 0.22) * np.cos(k * turn + rng.uniform(0, 6.28)) for k in (2, 3, 4, 5)], axis=0
        )
        contour = np.stack([np.cos(turn), np.sin(turn)], axis=1) * (1 + waves)[:, None]
    else:
        corners = int(rng.integers(6, 9))  # fewer would often look like a triangle or a square
        turn = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * (2 * math.pi / corners)
        contour = np.stack([np.cos(turn), np.sin(turn)], axis=1) * rng.uniform(0.35, 1.0, (corners, 1))
    placed, _, _ = _posed([contour], width, height, rng)
    _paint(image, _fill_mask(placed, width, height), rng)


def _draw_stroke(image: np.ndarray, rng: np.random.Generator) -> None:
    """A thin curved line across anything, figures included: too thin to hide them."""
    height, width = image.shape[:2]
    ends = rng.uniform(0, 1, (3, 2)) * [width, height]
    t = np.linspace(0, 1, 24)[:, None]
    curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]
    mask = np.zeros((height, width), dtype=np.uint8)
    points = np.round(curve * (1 << SUBPIXEL)).astype(np.int32)
    cv2.polylines(mask, [points], False, 255, int(rng.integers(1, 3)), cv2.LINE_AA, SUBPIXEL)
    image += (mask.astype(np.float32) / 255 * rng.uniform(0.5, 1.0))[..., None] * (rng.uniform(0, 255, 3) - image)


def _photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a camera would add: some blur, then sensor noise."""
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.9))
    return np.clip(blurred + rng.normal(0, rng.uniform(1, 7), image.shape), 0, 255).astype(np.uint8)


def _annotation(figure: Figure) -> dict[str, Any]:
    """COCO bbox, area and segmentation of the visible pixels."""
    rows, columns = np.flatnonzero(figure.mask.any(1)), np.flatnonzero(figure.mask.any(0))
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    # Contours run through pixel centres: on a grid four times as fine they stay within 1/8 pixel of the true edge.
    crop = np.pad(figure.mask[top:bottom, left:right].astype(np.uint8), 1).repeat(4, 0).repeat(4, 1)
    found, _ = cv2.findContours(crop, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour in found:
        simple = cv2.approxPolyDP(contour, 2.0, True).reshape(-1, 2)
        if len(simple) >= 3:
            points = (simple + 0.5) / 4 - 1 + [left, top]
            polygons.append([round(float(value), 2) for value in points.ravel()])
    return {
        "category_id": figure.label + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": int(figure.mask.sum()),
        "segmentation": polygons,
        "iscrowd": 0,
    }


def draw_split(root: Path, split: str, count: int, *, side: int, seed: int, progress: bool = True) -> None:
    """Draw `count` images into root/images/SPLIT and write root/annotations/SPLIT.json."""
    folder = root / "images" / split
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in progress_bar(range(count), f"drawing {split}", show=progress):
        image, figures = draw_image(side, seed, split, index)
        name = f"{index:06d}.jpg"
        if not cv2.imwrite(str(folder / name), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95]):
            raise OSError(f"{folder / name}: could not be written")
        images.append({"id": index + 1, "file_name": name, "width": image.shape[1], "height": image.shape[0]})
        for figure in figures:
            annotation = {"id": len(annotations) + 1, "image_id": index + 1, **_annotation(figure)}
            annotations.append(annotation)
    categories = [{"id": index + 1, "name": name, "supercategory": "figure"} for index, name in enumerate(CLASSES)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / "annotations" / f"{split}.json").write_text(text, encoding="utf-8")


def stamp_of(counts: Mapping[str, int], *, side: int, seed: int) -> dict[str, Any]:
    """What the stamp file of a folder drawn with these parameters holds."""
    return {"drawing": DRAWING_VERSION, **{split: int(counts[split]) for split in SPLITS}, "side": side, "seed": seed}


def read_stamp(root: str | Path) -> dict[str, Any] | None:
    """The stamp of a drawn folder, or None where there is none."""
    try:
        stamp = json.loads((Path(root) / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


def draw(root: str | Path, *, train: int, val: int, test: int, side: int, seed: int, progress: bool = True) -> bool:
    """Make sure the embedded set with these parameters is in `root`; True if it had to be drawn.

    It is drawn beside `root` and renamed into place, so `root` is never half made and two processes do not collide.
    A folder that this module did not draw is never touched: ValueError.
    """
    root = Path(root).absolute()
    counts = {"train": train, "val": val, "test": test}
    wanted = stamp_of(counts, side=side, seed=seed)
    if read_stamp(root) == wanted:
        return False
    if root.exists() and read_stamp(root) is None and any(root.iterdir() if root.is_dir() else [root]):
        raise ValueError(
            f"{root}: exists and holds no {STAMP}, so it is not an embedded data set; expected no such folder, or one"
            " drawn by data.synthetic: choose another root or move it away"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    work = Path(tempfile.mkdtemp(prefix=f".{root.name}-drawing-", dir=root.parent))
    try:
        for split, count in counts.items():
            draw_split(work, split, count, side=side, seed=seed, progress=progress)
        (work / STAMP).write_text(json.dumps(wanted), encoding="utf-8")
        work.chmod(0o755)  # mkdtemp's folders are private
        _move_into_place(work, root, wanted)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def _move_into_place(work: Path, root: Path, wanted: Mapping[str, Any]) -> None:
    """Rename the finished folder to `root`; if another process was faster with the same set, keep that one."""
    for _ in range(20):
        try:
            os.rename(work, root)
            return
        except OSError as error:
            if read_stamp(root) == wanted:
                return
            if not root.is_dir() or read_stamp(root) is None:
                raise OSError(f"{root}: the drawn data set could not be moved there: {error}") from error
        old = Path(tempfile.mkdtemp(prefix=f".{root.name}-drawing-", dir=root.parent))
        try:
            os.rename(root, old / "old")
        except OSError:
            time.sleep(0.1)  # another process is replacing it at this moment
        shutil.rmtree(old, ignore_errors=True)
    raise OSError(f"{root}: the drawn data set could not be moved there, another process keeps replacing it")


def _sweep(root: Path) -> None:
    """Remove what killed drawings left beside `root`, once it is an hour old."""
    for leftover in root.parent.glob(f".{root.name}-drawing-*"):
        try:
            if time.time() - leftover.stat().st_mtime > 3600:
                shutil.rmtree(leftover, ignore_errors=True)
        except FileNotFoundError:
            continue


def main(arguments: list[str] | None = None) -> int:
    """Command line: draw the set into a folder."""
    parser = argparse.ArgumentParser(prog="python -m data.synthetic", description="Draw the embedded data set.")
    parser.add_argument("--out", required=True, help="folder to draw into")
    for name, default in (("train", 600), ("val", 150), ("test", 100), ("side", 160), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    options = parser.parse_args(arguments)
    parameters = vars(options)
    out = parameters.pop("out")
    try:
        if min(options.train, options.val, options.test) < 1 or options.side < 32 or options.seed < 0:
            raise ValueError("counts must be at least 1, side at least 32, seed at least 0")
        drawn = draw(out, **parameters)
    except (ValueError, OSError) as error:
        print(f"data.synthetic: {error}", file=sys.stderr)
        return 2
    print(f"{out}: {'drawn' if drawn else 'already there'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
