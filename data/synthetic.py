"""The embedded data set, written to disk as a COCO folder; data/scenes.py draws its images.

python -m data.synthetic --out datasets/shapes
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import cv2

from core.files import is_disk_full
from core.progress import progress_bar
from data.scenes import CLASSES, SPLITS, annotation_fields, draw_image

DRAWING_VERSION = 4  # raise it with every change of the drawing: folders stamped with another version are redrawn
STAMP = "shapes.json"


def draw_split(root: Path, split: str, count: int, *, side: int, seed: int, progress: bool = True) -> None:
    """Draw `count` images into root/images/SPLIT and write root/annotations/SPLIT.json."""
    folder = root / "images" / split
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for index in progress_bar(range(count), f"drawing {split}", show=progress):
        image, figures = draw_image(side, seed, split, index)
        name = f"{index:06d}.jpg"
        _, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        (folder / name).write_bytes(content.tobytes())  # unlike OpenCV, says why a file cannot be written
        images.append({"id": index + 1, "file_name": name, "width": image.shape[1], "height": image.shape[0]})
        for figure in figures:
            annotation = {"id": len(annotations) + 1, "image_id": index + 1, **annotation_fields(figure)}
            annotations.append(annotation)
    categories = [{"id": index + 1, "name": name, "supercategory": "figure"} for index, name in enumerate(CLASSES)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / "annotations" / f"{split}.json").write_text(text, encoding="utf-8")


def stamp_of(counts: Mapping[str, int], *, side: int, seed: int) -> dict[str, object]:
    """Content of the stamp file of a folder drawn with these parameters."""
    return {"drawing": DRAWING_VERSION, **{split: int(counts[split]) for split in SPLITS}, "side": side, "seed": seed}


def read_stamp(root: str | Path) -> dict[str, object] | None:
    """The stamp of a drawn folder, None if missing."""
    try:
        stamp = json.loads((Path(root) / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


def draw(root: str | Path, *, train: int, val: int, test: int, side: int, seed: int, progress: bool = True) -> bool:
    """Ensure that the embedded set with these parameters is in `root`; return whether it had to be drawn.

    It is drawn next to `root` and renamed into place, so `root` is always complete and processes do not collide.
    Raises ValueError for a folder that was not drawn by this module, which is left untouched.
    """
    root = Path(root).absolute()
    counts = {"train": train, "val": val, "test": test}
    stamp = stamp_of(counts, side=side, seed=seed)
    if read_stamp(root) == stamp:
        return False
    if root.exists() and read_stamp(root) is None and any(root.iterdir() if root.is_dir() else [root]):
        raise ValueError(
            f"{root}: exists without a {STAMP}, so it is not an embedded data set; expected a new folder or one"
            " drawn by data.synthetic: choose another root or move it away"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(root)
    work = Path(tempfile.mkdtemp(prefix=f".{root.name}-drawing-", dir=root.parent))
    try:
        for split, count in counts.items():
            draw_split(work, split, count, side=side, seed=seed, progress=progress)
        (work / STAMP).write_text(json.dumps(stamp), encoding="utf-8")
        work.chmod(0o755)  # mkdtemp creates private folders
        _move_into_place(work, root, stamp)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def _move_into_place(work: Path, root: Path, stamp: Mapping[str, object]) -> None:
    """Rename the finished folder to `root`; if another process has finished the same set first, keep that one."""
    for _ in range(20):
        try:
            os.rename(work, root)
            return
        except OSError as error:
            if read_stamp(root) == stamp:
                return
            if not root.is_dir() or read_stamp(root) is None:
                raise OSError(f"{root}: the drawn data set could not be moved there: {error}") from error
        old = Path(tempfile.mkdtemp(prefix=f".{root.name}-drawing-", dir=root.parent))
        try:
            os.rename(root, old / "old")
        except OSError:
            time.sleep(0.1)  # another process is just replacing it
        shutil.rmtree(old, ignore_errors=True)
    raise OSError(f"{root}: the drawn data set could not be moved there, another process keeps replacing it")


def _remove_leftovers(root: Path) -> None:
    """Remove leftovers of killed processes next to `root` once they are an hour old."""
    for leftover in root.parent.glob(f".{root.name}-drawing-*"):
        try:
            if time.time() - leftover.stat().st_mtime > 3600:
                shutil.rmtree(leftover, ignore_errors=True)
        except FileNotFoundError:
            continue


def main(arguments: list[str] | None = None) -> int:
    """Command line: draw the embedded set into a folder."""
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
        return 1 if is_disk_full(error) else 2
    print(f"{out}: {'drawn' if drawn else 'already there'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
