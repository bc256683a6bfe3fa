"""A file written in another way scores like the clean one, and that one as plain pycocotools scores it.

Detections are made from the ground truth, with jitter, misses and false positives, and go the whole way of val.py:
reading, loading, mapping between image and network, scoring. The oracle sees only the clean file.
"""

import contextlib
import copy
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import yolo
from core.types import Batch, Detections
from engine.evaluation.coco import STAT_NAMES
from tests.support.checkpoints import write_checkpoint
from tests.support.shared import shared
from yolo import YOLO

Content = dict[str, Any]
ORIENTATION = 0x0112
TRANSPOSED = {  # what to do with upright pixels so that a viewer who follows the tag sees them upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


@dataclass
class Case:
    """A clean data set, detections by file name as rows (x, y, w, h, score, category id), and the oracle's numbers."""

    images: Path
    content: Content
    found: dict[str, np.ndarray]
    expected: list[float]
    model: YOLO


def made_content(folder: Path) -> Content:
    """Noise images of several shapes with objects of all three sizes, polygons and crowds."""
    rng = np.random.default_rng(7)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, 13):
        width, height = (int(side) for side in rng.integers(150, 400, 2))
        name = f"{number:03}.jpg"
        cv2.imwrite(str(folder / "images" / name), rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for _ in range(rng.integers(1, 9)):
            w, h = (float(round(side, 1)) for side in rng.uniform(8, 140, 2))
            x, y = (float(round(rng.uniform(0, side - 140), 1)) for side in (width, height))
            entry = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": int(rng.choice([2, 5, 9])),
                "bbox": [x, y, w, h],
                "iscrowd": int(rng.random() < 0.1),
                "area": w * h,
            }
            if rng.random() < 0.5 and not entry["iscrowd"]:
                entry |= {"segmentation": [[x, y, x + w, y, x + w, y + h]], "area": w * h / 2}
            annotations.append(entry)
    categories = [{"id": identity, "name": f"class {identity}"} for identity in (2, 5, 9)]
    return {"images": images, "annotations": annotations, "categories": categories}


def detections(content: Content) -> dict[str, np.ndarray]:
    """Most objects found with jitter, some of another class, and false positives; many scores are equal."""
    rng = np.random.default_rng(3)
    categories = [category["id"] for category in content["categories"]]
    rows: dict[str, list[list[float]]] = {image["file_name"]: [] for image in content["images"]}
    of = {image["id"]: image for image in content["images"]}

    def add(image: Content, box: np.ndarray, score: float, category: int) -> None:
        limits = [image["width"], image["height"]]
        low, high = np.clip(box[:2], 0, limits).round(2), np.clip(box[:2] + box[2:], 0, limits).round(2)
        if (high - low > 1).all():
            rows[image["file_name"]].append([*low, *(high - low).round(2), round(score, 2), category])

    for entry in content["annotations"]:
        image, box = of[entry["image_id"]], np.array(entry["bbox"])
        for _ in range(rng.integers(0, 3)):
            moved = box + rng.normal(0, 0.08, 4) * box[[2, 3, 2, 3]]
            other = int(rng.choice(categories)) if rng.random() < 0.1 else entry["category_id"]
            add(image, moved, float(rng.random()), other)
    for image in content["images"]:
        for _ in range(rng.integers(0, 4)):
            box = rng.random(4) * [image["width"], image["height"], image["width"] / 2, image["height"] / 2]
            add(image, box, float(rng.random()) * 0.7, int(rng.choice(categories)))
    return {name: np.array(found, np.float64).reshape(-1, 6) for name, found in rows.items()}


def by_pycocotools(path: Path, found: dict[str, np.ndarray]) -> list[float]:
    """The twelve numbers, from nothing of this project."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        results = [
            {"image_id": identity, "bbox": row[:4].tolist(), "score": row[4], "category_id": int(row[5])}
            for identity, image in truth.imgs.items()
            for row in found[image["file_name"]]
        ]
        run = COCOeval(truth, truth.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [float(value) for value in run.stats]


def make_case(folder: Path, images: Path, content: Content) -> Case:
    clean = folder / "clean.json"
    clean.write_text(json.dumps(content))
    found = detections(content)
    expected = by_pycocotools(clean, found)
    assert 0.2 < expected[0] < 0.9 and all(0 < number < 1 for number in expected)  # there is something to get wrong
    names = [each["name"] for each in sorted(content["categories"], key=lambda each: each["id"])]
    weights = write_checkpoint(folder / "best.pt", write_yaml(folder, images, clean), names, **{"model.size": "n"})
    return Case(images, content, found, expected, YOLO(weights, device="cpu"))


def write_yaml(folder: Path, images: Path, annotations: Path) -> Path:
    split = {"images": str(images), "annotations": str(annotations)}
    path = folder / "data.yaml"
    path.write_text(json.dumps({"train": split, "val": split}))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("made")
    return make_case(folder, folder / "images", made_content(folder))


@pytest.fixture(scope="module")
def coco128(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = shared("data/coco128")
    content = json.loads((root / "annotations/val.json").read_text())
    return make_case(tmp_path_factory.mktemp("coco128"), root / "images", content)


# ---------------------------------------------------------------------------------------------------------- variations


def on_annotations(change: Callable[[int, Content], Content]) -> Callable[[Content], None]:
    """A variation of each annotation, given its position."""

    def apply(content: Content) -> None:
        content["annotations"] = [change(k, entry) for k, entry in enumerate(content["annotations"])]

    return apply


def without(*keys: str) -> Callable[[int, Content], Content]:
    return lambda _, entry: {key: value for key, value in entry.items() if key not in keys}


def ids_per_image(content: Content) -> None:
    seen: dict[int, int] = {}
    for entry in content["annotations"]:
        entry["id"] = seen[entry["image_id"]] = seen.get(entry["image_id"], 0) + 1


def text_ids(content: Content) -> None:
    for image in content["images"]:
        image["id"] = str(image["id"])
    for k, entry in enumerate(content["annotations"]):
        entry["category_id"] = str(entry["category_id"])
        entry["image_id"] = str(entry["image_id"]) if k % 2 else entry["image_id"]
        entry["id"] = f"annotation {k}"


def named_images(content: Content) -> None:
    names = {image["id"]: f"img_{image['id']:012}" for image in content["images"]}
    for image in content["images"]:
        image["id"] = names[image["id"]]
    for entry in content["annotations"]:
        entry["image_id"] = names[entry["image_id"]]


def as_floats(content: Content) -> None:
    for image in content["images"]:
        image |= {"id": float(image["id"]), "width": float(image["width"]), "height": str(image["height"])}
    for category in content["categories"]:
        category["id"] = float(category["id"])
    for entry in content["annotations"]:
        entry |= {key: float(entry[key]) for key in ("id", "image_id", "category_id", "iscrowd")}
        entry |= {"bbox": [str(value) for value in entry["bbox"]], "area": str(entry["area"])}


VARIATIONS: dict[str, Callable[[Content], None]] = {
    "as it is": lambda content: None,
    "ids from 0": on_annotations(lambda k, entry: {**entry, "id": k}),
    "all ids 0": on_annotations(lambda _, entry: {**entry, "id": 0}),
    "ids per image": ids_per_image,
    "no ids": on_annotations(without("id")),
    "text ids": text_ids,
    "ids that are names": named_images,
    "numbers as 1.0 and as text": as_floats,
    "no area": on_annotations(without("area")),
    "areas of zero": on_annotations(lambda _, entry: {**entry, "area": 0}),
    "negative areas": on_annotations(lambda _, entry: {**entry, "area": -entry["area"]}),
    "no sizes": lambda content: [image.pop("width") for image in content["images"]] and None,
}
ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-be")


def turn(images: Path, to: Path) -> Path:
    """The same pictures stored turned or mirrored, with an EXIF tag that says so."""
    to.mkdir()
    for k, path in enumerate(sorted(images.iterdir())):
        orientation = list(TRANSPOSED)[k % len(TRANSPOSED)]
        with Image.open(path) as picture:
            exif = Image.Exif()
            exif[ORIENTATION] = orientation
            picture.convert("RGB").transpose(TRANSPOSED[orientation]).save(to / path.name, quality=60, exif=exif)
    return to


# ------------------------------------------------------------------------------------------------------------- scoring


class Told:
    """A loader that tells the detector which batch it sees."""

    def __init__(self, loader: Any, seen: SimpleNamespace) -> None:
        self.loader, self.seen = loader, seen

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            self.seen.batch = batch
            yield batch


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch) -> Callable[[Case, Path], list[float]]:
    """YOLO.val, the way of val.py, with a network that finds what it is told."""
    build, seen = yolo.build_eval_loader, SimpleNamespace(batch=None)
    monkeypatch.setattr(yolo, "build_eval_loader", lambda *given, **more: Told(build(*given, **more), seen))

    def run(case: Case, data: Path) -> list[float]:
        model = case.model
        label_of = {identity: k for k, identity in enumerate(sorted(each["id"] for each in case.content["categories"]))}

        def nms(*_: object) -> list[Detections]:
            found = []
            for path, geometry in zip(seen.batch.paths, seen.batch.geometries, strict=True):
                rows = case.found[Path(path).name]
                corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
                boxes = torch.from_numpy(np.asarray(geometry.to_network(corners), np.float32))
                labels = torch.tensor([label_of[int(row[5])] for row in rows], dtype=torch.int64)
                found.append(Detections(boxes, torch.from_numpy(rows[:, 4].astype(np.float32)), labels))
            return found

        monkeypatch.setattr(model.model, "forward", lambda images: images)
        monkeypatch.setattr(model.model, "decode", lambda images: (images, images))
        monkeypatch.setattr(model.model, "nms", nms)
        result = model.val(data, imgsz=64, batch=16, progress=False)
        assert result.truth.issues == []
        return [result.stats.numbers[name] for name in STAT_NAMES]

    return run


def check(case: Case, folder: Path, score: Callable[[Case, Path], list[float]], names: Sequence[str]) -> None:
    """Score the data set with some variations at once."""
    content, images, encoding = copy.deepcopy(case.content), case.images, "utf-8"
    for name in names:
        if name in VARIATIONS:
            VARIATIONS[name](content)
        elif name in ENCODINGS:
            encoding = name
        else:
            images = turn(case.images, folder / "turned")
    path = folder / "varied.json"
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    numbers = score(case, write_yaml(folder, images, path))
    np.testing.assert_allclose(numbers, case.expected, rtol=0, atol=5e-6)


TURNED = "turned files with EXIF"


@pytest.mark.parametrize("name", [*VARIATIONS, *ENCODINGS, TURNED])
def test_variations_of_a_made_file_score_like_it(
    name: str, made: Case, tmp_path: Path, score: Callable[[Case, Path], list[float]]
) -> None:
    check(made, tmp_path, score, [name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("ids from 0", "numbers as 1.0 and as text", "utf-8-sig"),
        ("text ids", "negative areas", "utf-16"),
        ("ids per image", "no area", TURNED),
    ],
    ids=" and ".join,
)
def test_variations_of_coco128_score_like_it(
    names: Sequence[str], coco128: Case, tmp_path: Path, score: Callable[[Case, Path], list[float]]
) -> None:
    check(coco128, tmp_path, score, names)
