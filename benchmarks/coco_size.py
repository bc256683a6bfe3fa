"""Loading a data set of COCO's size: ``python -m benchmarks.coco_size FOLDER --images 118287``.

Draws the data set in FOLDER unless it is there: as many images as COCO's train2017 by default, hard links of a few
JPEGs, and 7.27 boxes an image with polygons of about 23 points, in records with all fields of COCO's. Then loads it in
two processes, the first without caches. Prints wall-clock time, processor time (all threads) and the memory of the
annotations, which all workers share.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from configs.cli import run_script
from core.files import replacing

IMAGES, BOXES_PER_IMAGE = 118_287, 860_001 / 118_287  # of COCO's train2017
CLASSES = 80
JPEGS = 16  # distinct images
RECORDS = 20_000  # distinct annotations
SIZES = ((640, 480), (480, 640), (640, 427), (500, 375))
SHORT_SIDE = 375
CROWDS = 0.012
LOAD = """
import json, resource, sys, time
from dataclasses import fields
from configs.schema import load
from data import load_dataset
start, before = time.perf_counter(), time.process_time()
data = load_dataset(load("yolo.yaml", {"data": sys.argv[1]}).data, "train", progress=False)
spent = {"wall": time.perf_counter() - start, "processor": time.process_time() - before}
parts = [getattr(data, column.name) for column in fields(data)]
arrays = [array for part in parts for array in ((part.buffer, part.starts) if hasattr(part, "buffer") else (part,))]
spent["annotations"] = sum(getattr(array, "nbytes", 0) for array in arrays) / 1e6
spent["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(spent | {"images": len(data), "boxes": len(data.boxes), "issues": len(data.issues)}))
"""


def draw(folder: Path, images: int) -> None:
    """Write images, train.json, val.json (an image) and data.yaml into a new folder."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    sizes = []
    for number in range(JPEGS):
        width, height = SIZES[number % len(SIZES)]
        noise = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        picture = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / f"{number}.jpg"), picture)
        sizes.append((width, height))
    for index in range(images):
        os.link(folder / f"{index % JPEGS}.jpg", folder / "images" / f"{index + 1:012d}.jpg")
    records = _records(rng)
    for split, count in (("train", images), ("val", 1)):
        with replacing(folder / f"{split}.json") as file:
            for text in _coco_text(count, sizes, records, rng):
                file.write(text.encode())
    (folder / "data.yaml").write_text(
        "train: {images: images, annotations: train.json}\nval: {images: images, annotations: val.json}\n"
    )


def _records(rng: np.random.Generator) -> list[str]:
    """Annotations in COCO's format without their ids: ellipses, some of them in two parts, and crowds."""
    records = []
    for _ in range(RECORDS):
        side = np.minimum(rng.lognormal(4.2, 0.8, 2), SHORT_SIDE - 2)
        corner = rng.uniform(0, SHORT_SIDE - 1 - side)
        parts = 1 + (rng.random() < 0.1)
        outlines = []
        for part in range(parts):
            angles = np.sort(rng.uniform(0, 2 * np.pi, max(4, int(rng.lognormal(2.86, 0.62)))))
            angles = np.concatenate([angles, np.arange(4) * np.pi / 2])  # reaches all sides of the box
            ring = 0.5 + np.stack([np.cos(angles), np.sin(angles)], 1) * (0.5 if part == 0 else 0.3)
            outlines.append(np.round(corner + side * ring, 2))
        points = np.concatenate(outlines)
        low, high = points.min(0), points.max(0)
        box = json.dumps([*np.round(low, 2).tolist(), *np.round(high - low, 2).tolist()], separators=(",", ":"))
        area = float(np.prod(high - low) * 0.7)
        shape = json.dumps([outline.ravel().tolist() for outline in outlines], separators=(",", ":"))
        crowd = int(rng.random() < CROWDS)
        if crowd:
            shape = json.dumps({"counts": [SHORT_SIDE * SHORT_SIDE], "size": [SHORT_SIDE, SHORT_SIDE]})
        records.append(f'"segmentation": {shape},"area": {area},"iscrowd": {crowd},"bbox": {box}')
    return records


def _coco_text(
    images: int, sizes: list[tuple[int, int]], records: list[str], rng: np.random.Generator
) -> Iterator[str]:
    yield '{"info": {"description": "of the size of COCO 2017"},"licenses": [],"images": [\n'
    for index in range(images):
        width, height = sizes[index % JPEGS]
        name = f"{index + 1:012d}.jpg"
        yield (
            f'{"," if index else ""}{{"license": 3,"file_name": "{name}","coco_url": '
            f'"http://images.cocodataset.org/train2017/{name}","height": {height},"width": {width},"date_captured": '
            f'"2013-11-14 11:18:45","flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg",'
            f'"id": {index + 1}}}'
        )
    yield '],"annotations": [\n'
    count = round(images * BOXES_PER_IMAGE)
    owners, chosen = rng.integers(1, images + 1, count).tolist(), rng.integers(0, RECORDS, count).tolist()
    labels = rng.integers(1, CLASSES + 1, count).tolist()
    for index in range(count):
        yield (
            f'{"," if index else ""}{{{records[chosen[index]]},"image_id": {owners[index]},'
            f'"category_id": {labels[index]},"id": {index + 1}}}'
        )
    categories = [{"supercategory": "thing", "id": k + 1, "name": f"thing {k + 1}"} for k in range(CLASSES)]
    yield f'],"categories": {json.dumps(categories)}}}'


def measure(folder: Path, title: str) -> None:
    """Load the training split in a fresh process and print what it took."""
    start = time.perf_counter()
    command = [sys.executable, "-c", LOAD, str(folder / "data.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    spent = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{title}: {spent['wall']:.1f} s, {spent['processor']:.1f} s of processor time "
        f"({time.perf_counter() - start:.1f} s with imports); {spent['images']} images, {spent['boxes']} boxes, "
        f"{spent['issues']} issues; annotations {spent['annotations']:.0f} MB, peak of the process "
        f"{spent['peak']:.0f} MiB",
        flush=True,
    )


def main() -> int:
    """Draw the data set if need be, and load it without and with caches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=IMAGES)
    arguments = parser.parse_args()
    folder = arguments.folder
    if not folder.exists():
        draw(folder, arguments.images)
    print(f"{(folder / 'train.json').stat().st_size / 1e6:.0f} MB of JSON", flush=True)
    for cached in (folder / ".cache").glob("*"):
        cached.unlink()
    measure(folder, "first load")
    measure(folder, "second load")
    return 0


if __name__ == "__main__":
    run_script(main)
