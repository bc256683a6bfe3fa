"""Training on tiles beside training on whole images, small and large: small objects in large images.

    python -m benchmarks.tiles --jobs 2 --out runs/tiles

Draws sheets of 3 x 3 scenes of the embedded data set (672 pixels, figures of 26 to 100), cuts them by data.tile, and
trains three ways, with as many steps each, on about as many pixels: the whole sheets at the side of a tile, the whole
sheets at their own size in small batches, and tiles. All are scored on the whole validation sheets by val.py, those
with the side of a tile also by `val.py --tile`. Run the same command again to resume: finished runs are kept.
Written to ``--out``: the sets, the run folders and table.md.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from scipy import stats

from benchmarks.trainings import our_command, run_logged, trained, with_sd
from configs.cli import Parser, run_script
from core.commands import ROOT
from core.files import write_text
from data.scenes import CLASSES, annotation_fields, draw_image

SCENE, CELL, ROWS = 160, 224, 3  # side given to the drawing; the longest side that it draws; scenes in a row
SHEET, BATCH, LARGE_BATCH = CELL * ROWS, 16, 2  # 2 sheets have the pixels of 18 tiles
GREY = 114


@dataclass(frozen=True)
class Way:
    """A way to train and to detect."""

    name: str
    trained_on: str  # the run: whole, large or tiles
    tiled: bool  # detection by val.py --tile


WAYS = (
    Way("whole images, reduced", "whole", False),
    Way("the same, detected in tiles", "whole", True),
    Way("whole images at their size", "large", False),
    Way("tiles, detected in tiles", "tiles", True),
)


def main(argv: list[str] | None = None) -> int:
    """Draw, train and score what is missing; print and write the table."""
    options = parse(argv)
    out = Path(options.out)
    sheets, tiles = out / "sheets/coco.yaml", out / "sheet_tiles/coco.yaml"
    if not sheets.exists():
        draw_sheets(sheets.parent, {"train": options.sheets, "val": options.val}, seed=0)
    if not tiles.exists():
        words = ["data.tile", str(sheets), "--out", str(tiles.parent), "--side", str(CELL)]
        run_logged([sys.executable, "-m", *words], out / "sheet_tiles.log")
    cells = [(seed, name) for seed in range(options.seeds) for name in ("whole", "large", "tiles")]

    def train(cell: tuple[int, str]) -> None:
        seed, name = cell
        data = tiles if name == "tiles" else sheets
        folder = out / f"{name}-s{seed}"
        flags = flags_of(name, _count(data), steps=options.steps) | {"data": data, "seed": seed, "threads": 1}
        trained(our_command("yolo-mish.yaml", folder, flags, "--noval"), folder, data="sheets", name=name, seed=seed)
        for tiled in sorted({way.tiled for way in WAYS if way.trained_on == name}):
            evaluate(folder, sheets, tiled=tiled)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(train, cells))
    text = table(out, options.seeds)
    write_text(out / "table.md", text)
    print(text, end="")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m benchmarks.tiles", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sheets", type=int, default=40, help="training sheets")
    add("--val", type=int, default=16, help="validation sheets")
    add("--steps", type=int, default=240, help="training steps of each run, as nearly as whole epochs allow")
    add("--seeds", type=int, default=3, help="seeds 0, 1, ... of each")
    add("--jobs", type=int, default=1, help="runs side by side; their times are then rough")
    add("--out", default="runs/tiles", metavar="DIR", help="folder of the results")
    options = parser.parse_args(argv)
    parser.require_positive(options, "sheets", "val", "steps", "seeds", "jobs")
    return options


def draw_sheets(folder: Path, counts: Mapping[str, int], *, seed: int) -> None:
    """Write sheets of 3 x 3 scenes with their boxes and a coco.yaml into a folder; grey where a scene is smaller."""
    splits = {}
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        for index in range(count):
            sheet, found = draw_sheet(seed, split, index)
            name = f"{index:04d}.jpg"
            cv2.imwrite(str(folder / "images" / split / name), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            images.append({"id": index + 1, "file_name": name, "width": SHEET, "height": SHEET})
            objects += [{**each, "id": len(objects) + n, "image_id": index + 1} for n, each in enumerate(found, 1)]
        categories = [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)]
        content = {"images": images, "annotations": objects, "categories": categories}
        write_text(folder / f"annotations/{split}.json", json.dumps(content))
        splits[split] = {"images": f"images/{split}", "annotations": f"annotations/{split}.json"}
    write_text(folder / "coco.yaml", yaml.safe_dump(splits, sort_keys=False))


def draw_sheet(seed: int, split: str, index: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """A sheet (672, 672, 3) uint8 RGB and its objects in COCO's form without ids."""
    sheet = np.full((SHEET, SHEET, 3), GREY, np.uint8)
    objects = []
    for cell in range(ROWS**2):
        scene, figures = draw_image(SCENE, seed, split, index * ROWS**2 + cell)
        top, left = (CELL * place for place in divmod(cell, ROWS))
        sheet[top : top + scene.shape[0], left : left + scene.shape[1]] = scene
        for figure in figures:
            fields: dict[str, Any] = annotation_fields(figure)
            x, y, width, height = fields["bbox"]
            outlines = [(np.reshape(each, (-1, 2)) + [left, top]).ravel().tolist() for each in fields["segmentation"]]
            objects.append({**fields, "bbox": [x + left, y + top, width, height], "segmentation": outlines})
    return sheet, objects


def flags_of(name: str, images: int, *, steps: int) -> dict[str, int]:
    """Image size, batch size and epochs of a run on this many images, for about this many steps."""
    batch = LARGE_BATCH if name == "large" else BATCH
    side = SHEET if name == "large" else CELL
    return {"imgsz": side, "batch": batch, "epochs": max(1, round(steps / math.ceil(images / batch)))}


def _count(data: Path) -> int:
    return len(json.loads((data.parent / "annotations/train.json").read_text(encoding="utf-8"))["images"])


def evaluate(run: Path, sheets: Path, *, tiled: bool) -> None:
    """Score the last weights of a run on the whole validation sheets, unless that was done."""
    name = "tiled" if tiled else "plain"
    if (run / name / "metrics.json").exists():
        return
    command = [sys.executable, str(ROOT / "val.py"), "--weights", str(run / "weights/last.pt"), "--data", str(sheets)]
    command += ["--tile", str(CELL)] if tiled else []
    run_logged([*command, "--project", str(run), "--name", name, "--exist-ok"], run / f"{name}.log")


def table(out: Path, seeds: int) -> str:
    """A row for each way: AP in points, the difference from the first, and what it costs."""
    lines = [
        "| training | steps | mAP50-95, sd | AP small | difference from the first [95 % CI] | training, s | "
        "memory, MiB | detection of an image, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    first: list[float] = []
    for way in WAYS:
        folders = [out / f"{way.trained_on}-s{seed}" for seed in range(seeds)]
        records = [_read(folder / "run.json") for folder in folders]
        scores = [_read(folder / ("tiled" if way.tiled else "plain") / "metrics.json") for folder in folders]
        points = [100 * each["numbers"]["mAP50-95"] for each in scores]
        first = first or points
        cells = [
            way.name,
            str(records[0]["last_epoch"]["step"]),
            with_sd(points),
            f"{statistics.fmean(100 * each['numbers']['AP_small'] for each in scores):.1f}",
            "" if points is first else paired(points, first),
            f"{statistics.fmean(each['times']['train'] for each in records):.0f}",
            f"{statistics.fmean(each['peak_memory_mib'] for each in records):.0f}",
            f"{statistics.fmean(sum(each['speed_ms'].values()) for each in scores):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def paired(points: Sequence[float], first: Sequence[float]) -> str:
    """The mean difference of the pairs and its 95 % interval by Student's t; no interval for a single pair."""
    gaps = [ours - theirs for ours, theirs in zip(points, first, strict=True)]
    text = f"{statistics.fmean(gaps):+.1f}"
    if len(gaps) < 2:
        return text
    low, high = stats.ttest_1samp(gaps, 0).confidence_interval()
    return f"{text} [{low:+.1f}, {high:+.1f}]"


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_script(main)
