"""Cut large images into overlapping tiles, to train on small objects at their own size.

    python -m data.tile aerial.yaml --out datasets/aerial-tiles --side 640
    python train.py --cfg yolo-mish.yaml --data datasets/aerial-tiles/coco.yaml --imgsz 640
    python val.py --weights runs/train/exp/weights/best.pt --data aerial.yaml --tile 640

The source is what --data accepts. Writes images/SPLIT/, annotations/SPLIT.json and coco.yaml; images that are no larger
than a tile are one tile. An object counts in a tile if at least 15 % of its area are there, as in augmentation; its box
and polygons are cut at the border. val.py and detect.py with --tile work on the whole images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import yaml

from configs.cli import Parser, run_script
from configs.schema import MAX_IMGSZ, MIN_IMGSZ, MIN_STRIDE
from core.commands import command
from core.files import write_text
from core.progress import progress_bar
from core.tiles import OVERLAP, Place, tile_places
from data import load_dataset
from data.annotations import Annotations
from data.mosaic import clip_polygon, move, move_boxes
from data.samples import read_listed
from data.tools.splits import read_splits

KEPT_SUFFIXES = (".jpg", ".jpeg", ".png")  # other images are written as PNG
JPEG_QUALITY = 95


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = Parser(prog="python -m data.tile", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", metavar="DATA", help="data YAML: a path or a name in configs/data/; or a folder")
    add("--out", required=True, metavar="DIR", help="new folder for the tiles")
    add("--side", type=int, default=640, help="side of a tile in pixels, the --imgsz of training")
    add("--overlap", type=float, default=OVERLAP, help="of a tile with the next one, as a fraction of its side")
    add(
        "--empty",
        type=float,
        default=0.1,
        metavar="FRACTION",
        help="of the tiles of train without objects, keep this fraction; the other splits keep all",
    )
    options = parser.parse_args(argv)
    if not MIN_IMGSZ <= options.side <= MAX_IMGSZ or options.side % MIN_STRIDE:
        raise ValueError(
            f"--side {options.side}: expected {MIN_IMGSZ} to {MAX_IMGSZ} pixels, a multiple of {MIN_STRIDE} as --imgsz"
        )
    if not 0 <= options.overlap <= 0.9:
        raise ValueError(f"--overlap {options.overlap}: expected 0 to 0.9")
    if not 0 <= options.empty <= 1:
        raise ValueError(f"--empty {options.empty}: expected 0 to 1")
    out = Path(options.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out}: exists and is not an empty folder; expected a new one")
    config, names = read_splits(options.data)
    entries: dict[str, Any] = {}
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for split in names:
        annotations = load_dataset(config, split)
        empty = options.empty if split == "train" else 1.0
        content = write_tiles(annotations, out / "images" / split, options.side, options.overlap, empty)
        write_text(out / "annotations" / f"{split}.json", json.dumps(content))
        entries[split] = {"images": f"images/{split}", "annotations": f"annotations/{split}.json"}
        print(
            f"{split}: {len(content['images']):,} tiles of {len(annotations):,} images, "
            f"{len(content['annotations']):,} boxes of {len(annotations.boxes):,}"
        )
    write_text(out / "coco.yaml", yaml.safe_dump(entries, sort_keys=False))
    held_out = () if "val" in entries else ("--set", "train.holdout=0.1")
    words = ("--cfg", "yolo-mish.yaml", "--data", out / "coco.yaml", "--imgsz", options.side, *held_out)
    print(f"train with: {command('train.py', *words)}")
    return 0


def write_tiles(
    annotations: Annotations, folder: Path, side: int, overlap: float, empty: float
) -> dict[str, list[dict[str, Any]]]:
    """Write the tiles of all images and return their annotations in COCO's form.

    `empty`: the fraction of tiles without objects that are kept, chosen by their names.
    """
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    taken: set[str] = set()
    for index in progress_bar(range(len(annotations)), f"tiles of {folder.name}", total=len(annotations), unit="image"):
        image = read_listed(annotations, index)
        for place in tile_places(image.shape[1], image.shape[0], side, overlap=overlap):
            found = objects_in(annotations, index, place, side)
            name = tile_name(annotations.file_names[index], place, taken)
            if not found and crc32(name.encode("utf-8", "surrogatepass")) >= empty * 2**32:
                continue
            left, top, right, bottom = place
            write_image(folder / name, image[top:bottom, left:right])
            images.append({"id": len(images) + 1, "file_name": name, "width": right - left, "height": bottom - top})
            objects += [
                {"id": len(objects) + number, "image_id": len(images), **each} for number, each in enumerate(found, 1)
            ]
    categories = [
        {"id": int(identity), "name": name}
        for identity, name in zip(annotations.category_ids, annotations.classes, strict=True)
    ]
    return {"images": images, "annotations": objects, "categories": categories}


def objects_in(annotations: Annotations, index: int, place: Place, side: int) -> list[dict[str, Any]]:
    """The objects of an image in one of its tiles, in pixels of the tile; crowds as far as they are there."""
    start, stop = int(annotations.starts[index]), int(annotations.starts[index + 1])
    matrix = move(-place[0], -place[1])
    size = np.array([place[2] - place[0], place[3] - place[1]])
    corners = annotations.boxes[start:stop].copy()
    corners[:, 2:] += corners[:, :2]
    np.clip(corners, 0, np.tile(annotations.sizes[index], 2), out=corners)
    boxes, kept = move_boxes(corners, lambda row: annotations.polygons(start + row), matrix, side)
    found = []
    for row in range(stop - start):
        left, top, right, bottom = boxes[row].tolist()
        crowd = bool(annotations.crowd[start + row])
        if not (kept[row] or (crowd and right - left >= 1 and bottom - top >= 1)):
            continue
        parts = [clip_polygon(each - place[:2], int(size.max())) for each in annotations.polygons(start + row)]
        entry = {
            "category_id": int(annotations.category_ids[annotations.labels[start + row]]),
            "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
            "area": round((right - left) * (bottom - top), 2),
            "iscrowd": int(crowd),
        }
        outlines = [each.round(2).ravel().tolist() for each in parts if len(each) >= 3]
        if outlines and not crowd:
            entry["area"] = round(sum(_area(each) for each in parts if len(each) >= 3), 2)
            entry["segmentation"] = outlines
        found.append(entry)
    return found


def _area(polygon: np.ndarray) -> float:
    """Of a polygon (n, 2), by the shoelace formula."""
    x, y = polygon.T.astype(np.float64)
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


def tile_name(file_name: str, place: Place, taken: set[str]) -> str:
    """A file name for a tile, in the folder of its image; different for all tiles of a split."""
    path = PurePosixPath(file_name.replace("\\", "/"))
    suffix = path.suffix.lower() if path.suffix.lower() in KEPT_SUFFIXES else ".png"
    stem = str(path.with_suffix(""))
    name = f"{stem}_{place[0]}_{place[1]}{suffix}"
    number = 2
    while name.casefold() in taken:
        name, number = f"{stem}-{number}_{place[0]}_{place[1]}{suffix}", number + 1
    taken.add(name.casefold())
    return name


def write_image(path: Path, image: np.ndarray) -> None:
    """Write RGB (H, W, 3) uint8 as JPEG or PNG by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = [] if path.suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, content = cv2.imencode(path.suffix, cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR), flags)
    path.write_bytes(content.tobytes())


if __name__ == "__main__":
    run_script(main)
