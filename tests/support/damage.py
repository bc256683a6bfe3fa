"""A small drawn data set with every kind of data issue planted, and the issues to be found."""

import json
import struct
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data.synthetic import draw
from tests.support.checkpoints import write_data_yaml

IMAGES = 18  # per split, six of them damaged: more than half is never lost
SIDE = 96


@dataclass
class Planted:
    """What was planted in one split: (kind, file), and the number of remaining images and boxes."""

    issues: list[tuple[str, str]]
    good_images: int
    good_boxes: int

    @property
    def kinds(self) -> dict[str, int]:
        """How many of each kind."""
        return dict(Counter(kind for kind, _ in self.issues))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims an arbitrary size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def write_set(folder: Path, *splits: str, damaged: tuple[str, ...] = ()) -> tuple[Path, dict[str, Planted]]:
    """Draw splits of IMAGES images and damage some splits; return the data YAML and what was planted."""
    draw(folder / "shapes", train=IMAGES, val=IMAGES, test=IMAGES, side=SIDE, seed=5, progress=False)
    path = write_data_yaml(folder / "data.yaml", *splits)
    return path, {split: plant(folder / "shapes", split) for split in damaged}


def plant(folder: Path, split: str) -> Planted:
    """Plant every kind of damage in a split."""
    path = folder / "annotations" / f"{split}.json"
    content = json.loads(path.read_text())
    images, annotations = content["images"], content["annotations"]
    names = [image["file_name"] for image in images]
    files = [folder / "images" / split / name for name in names]
    whole = {image["id"] for image in images[6:]}
    good = [a for a in annotations if a["image_id"] in whole]
    files[0].write_bytes(b"")
    files[1].write_bytes(b"not an image")
    files[2].unlink()
    files[3].write_bytes(files[3].read_bytes()[: files[3].stat().st_size // 3])
    files[4].write_bytes(png_claiming(20_000, 20_000))
    images[5]["width"] += 1
    kinds = ("empty", "not-an-image", "missing", "damaged", "too-large", "wrong-size")
    issues = list(zip(kinds, names, strict=False))

    good[0]["id"] = 0  # no damage: it is said, and the object is kept
    host, name = images[6]["id"], names[6]
    sound = {"image_id": host, "category_id": content["categories"][0]["id"], "iscrowd": 0, "area": 25}
    boxes = ([1, 1, float("nan"), 5], [1, 1, -5, 5], [1, 1, 0, 5], [float("-inf"), 1, 5, 5], [1, 1, 5], "box")
    annotations += [{**sound, "id": 9000 + k, "bbox": box} for k, box in enumerate(boxes)]
    issues += [("bad-box", name)] * len(boxes)
    inside = {**sound, "bbox": [1, 1, 5, 5]}
    annotations.append({**inside, "id": 9100, "bbox": [-50, 1, 5, 5]})
    annotations.append({**inside, "id": 9101, "image_id": 10**7})
    annotations.append({**inside, "id": 9102, "category_id": 99})
    annotations += [None, {"id": 9103, "image_id": host, "bbox": [1, 1, 5, 5]}]
    images.append({**images[7], "file_name": names[8]})
    images.append({"id": 9104, "file_name": "../../up.png", "width": 5, "height": 5})
    images.append({"id": 9105})
    content["categories"].append({**content["categories"][0], "name": "again"})
    issues += [("outside", name), ("orphan", path.name), ("unknown-category", name)]
    issues += [("bad-record", path.name), ("bad-record", name)]  # annotations
    issues += [("duplicate-image", names[8]), ("unsafe-path", "../../up.png")]
    issues += [("bad-record", path.name), ("bad-record", path.name)]  # an image, the category
    path.write_text(json.dumps(content))
    return Planted(issues, len(whole), len(good))
