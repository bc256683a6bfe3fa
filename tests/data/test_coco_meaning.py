"""Values that COCO files have in other forms than the format says: read as what they mean, none lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask

from data.annotations import Annotations
from data.coco import read_coco
from tests.support.small_sets import box, write_coco

NAN = float("nan")
OUTLINE = [[3, 4, 13, 4, 13, 24]]


def content() -> dict[str, Any]:
    """Two images, two classes, three objects; one is a crowd."""
    images = [{"id": k, "file_name": f"{k}.png", "width": 40, "height": 30} for k in (1, 2)]
    annotations = [
        box(1, 1, [1, 2, 3, 4], 3, area=12, segmentation=[]),
        box(2, 2, [5, 6, 7, 8], 7, area=30),
        box(3, 2, [2, 2, 9, 9], 3, area=81, iscrowd=1),
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }


def read(folder: Path, changed: dict[str, Any], encoding: str = "utf-8") -> Annotations:
    path = folder / "annotations.json"
    path.write_bytes(json.dumps(changed, ensure_ascii=False).encode(encoding))
    return read_coco(path, folder, progress=False)


def each(key: str, field: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    """A change of one field of all records of a list."""

    def apply(changed: dict[str, Any]) -> None:
        for record in changed[key]:
            record[field] = change(record[field])

    return apply


def both(*changes: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def apply(changed: dict[str, Any]) -> None:
        for change in changes:
            change(changed)

    return apply


FORMS: dict[str, Callable[[dict[str, Any]], None]] = {
    "category ids of annotations as text": each("annotations", "category_id", str),
    "category ids of annotations as 1.0": each("annotations", "category_id", float),
    "category ids as text": each("categories", "id", str),
    "category ids as 1.0": both(each("categories", "id", float), each("annotations", "category_id", float)),
    "category ids as text like 1.0": each("categories", "id", lambda v: f"{v}.0"),
    "image ids of annotations as text": each("annotations", "image_id", str),
    "image ids of annotations as 1.0": each("annotations", "image_id", float),
    "image ids of annotations padded": each("annotations", "image_id", lambda v: f"{v:012d}"),
    "image ids as 1.0": each("images", "id", float),
    "annotation ids as text": each("annotations", "id", str),
    "annotation ids as lists": each("annotations", "id", lambda v: [v]),
    "iscrowd as text": each("annotations", "iscrowd", str),
    "iscrowd as 1.0": each("annotations", "iscrowd", float),
    "iscrowd as true": each("annotations", "iscrowd", bool),
    "iscrowd as text like True": each("annotations", "iscrowd", lambda v: str(bool(v))),
    "area as text": each("annotations", "area", str),
    "boxes of texts": each("annotations", "bbox", lambda v: [str(n) for n in v]),
    "boxes as one text": each("annotations", "bbox", str),
    "boxes with 1.0": each("annotations", "bbox", lambda v: [float(n) for n in v]),
    "sizes as text": both(each("images", "width", str), each("images", "height", lambda v: f"{v}.0")),
    "sizes as 1.0": each("images", "width", float),
}


@pytest.mark.parametrize("form", FORMS)
def test_numbers_in_any_form_are_the_numbers_they_mean(form: str, tmp_path: Path) -> None:
    changed = content()
    FORMS[form](changed)
    found, clean = read(tmp_path, changed), read(tmp_path, content())
    assert found.issues == [] and found.notes == []
    assert (found.classes, found.category_ids, found.image_ids) == (["dog", "cat"], [3, 7], [1, 2])
    for name in ("boxes", "labels", "areas", "crowd", "sizes", "starts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(clean, name), err_msg=name)


@pytest.mark.parametrize(
    ("ids", "given", "as_read"),
    [
        (["1", "2"], [1, 2], ["1", "2"]),
        (["1", "2"], [1.0, "2"], ["1", "2"]),
        (["007", "008"], [7, "8"], ["007", "008"]),
        (["img_001", "img_002"], ["img_001", "img_002"], ["img_001", "img_002"]),
        ([1, "b"], ["1", "b"], ["1", "b"]),
        (["1e3", "12e4"], ["1e3", "12e4"], ["1e3", "12e4"]),
        ([True, 2], [1, "2"], [1, 2]),
    ],
)
def test_image_ids_are_compared_as_what_they_mean(
    ids: list[Any], given: list[Any], as_read: list[Any], tmp_path: Path
) -> None:
    changed = content()
    for record, identity in zip(changed["images"], ids, strict=True):
        record["id"] = identity
    for record in changed["annotations"]:
        record["image_id"] = given[record["image_id"] - 1]
    found = read(tmp_path, changed)
    assert found.issues == [] and found.image_ids == as_read and found.starts.tolist() == [0, 1, 3]


def test_texts_that_differ_are_different_images(tmp_path: Path) -> None:
    changed = content()
    changed["images"] = [{"id": i, "file_name": f"{i}.png"} for i in ("01", "1", "1_0")]
    changed["annotations"] = [box(1, 1, [1, 1, 3, 3]), box(2, "01", [2, 2, 3, 3]), box(3, 10, [1, 1, 3, 3])]  # type: ignore[arg-type]
    found = read(tmp_path, changed)
    assert found.starts.tolist() == [0, 1, 2, 2] and [issue.kind for issue in found.issues] == ["orphan"]


def test_category_ids_that_are_text_and_names_that_are_numbers(tmp_path: Path) -> None:
    changed = content()
    changed["categories"] = [{"id": "z", "name": 5}, {"id": "b", "name": 1.5}, {"id": 3, "name": True}]
    for record, identity in zip(changed["annotations"], ["z", "b", "3"], strict=True):
        record["category_id"] = identity
    found = read(tmp_path, changed)
    assert found.issues == [] and found.classes == ["True", "1.5", "5"] and found.category_ids == [1, 2, 3]
    assert found.labels.tolist() == [2, 1, 0] and "text" in found.notes[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_files_in_other_encodings_of_unicode(encoding: str, tmp_path: Path) -> None:
    changed = content()
    changed["images"][0]["file_name"] = "Straße 木.png"
    changed["annotations"][0]["segmentation"] = [[1, 2, 4, 2, 4, 6]]
    found = read(tmp_path, changed, encoding)
    assert found.file_names[0] == "Straße 木.png" and len(found.boxes) == 3 and found.issues == []
    assert found.polygons(0)[0].tolist() == [[1, 2], [4, 2], [4, 6]]


def runs_of(flat: np.ndarray) -> list[int]:
    """Run lengths of zeros and ones, beginning with zeros, column by column."""
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *ends.tolist(), len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths


@pytest.mark.parametrize(
    "given",
    [
        *({}, {"bbox": None}, {"bbox": []}, {"bbox": [0, 0, 0, 0]}, {"bbox": NAN}, {"bbox": ""}, {"bbox": " "}),
        *({"bbox": [NAN] * 4}, {"bbox": [None] * 4}, {"bbox": [""] * 4}),
    ],
)
@pytest.mark.parametrize("kind", ["polygon", "texts", "flat", "points", "two polygons", "runs", "compressed"])
def test_a_missing_box_is_that_of_the_segmentation(kind: str, given: dict[str, Any], tmp_path: Path) -> None:
    painted = np.zeros((30, 40), np.uint8)
    painted[4:24, 3:13] = 1
    painted[4, 3:6] = 0
    encoded = mask.encode(np.asfortranarray(painted))
    shapes: dict[str, Any] = {
        "polygon": OUTLINE,
        "texts": [[str(value) for value in OUTLINE[0]]],
        "flat": OUTLINE[0],
        "points": [[3, 4], [13, 4], [13, 24]],
        "two polygons": [[3, 4, 6, 4, 6, 24], [10, 5, 13, 5, 13, 8], [1, 2]],
        "runs": {"size": [30, 40], "counts": runs_of(painted.T.reshape(-1))},
        "compressed": {"size": [30, 40], "counts": encoded["counts"].decode()},
    }
    changed = content()
    record = {"id": 9, "image_id": 1, "category_id": 3, "segmentation": shapes[kind], **given}
    changed["annotations"].append(record)
    found = read(tmp_path, changed)
    assert found.issues == [] and found.boxes[1].tolist() == mask.toBbox(encoded).tolist() == [3, 4, 10, 20]
    areas = {"runs": float(mask.area(encoded)), "two polygons": 30 + 4.5}
    assert found.areas[1] == areas.get(kind, areas["runs"] if kind == "compressed" else 100)
    assert len(found.notes) == 1 and "1 of 4" in found.notes[0]


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        [[1, 2]],
        [[1, 2, 3, NAN, 5, 6]],
        {"size": [0, 40], "counts": "35XU1"},
        {"size": [30, 40], "counts": "oooo"},
        {"size": [30, 40], "counts": [-1, 5]},
        {"size": [30, 40], "counts": [2**40]},
        {"size": [30], "counts": [5]},
        {"counts": "35XU1"},
        {"size": [30, 40], "counts": ""},
        "text",
        7,
    ],
)
def test_a_segmentation_that_spans_no_box_makes_none(segmentation: object, tmp_path: Path) -> None:
    changed = content()
    changed["annotations"].append({"id": 9, "image_id": 1, "category_id": 3, "segmentation": segmentation})
    found = read(tmp_path, changed)
    assert [issue.kind for issue in found.issues] == ["bad-box"] and len(found.boxes) == 3


@pytest.mark.parametrize("area", [0, -5, -0.0, 1e11, "-3"])
def test_an_impossible_area_is_that_of_the_segmentation_or_the_box(area: object, tmp_path: Path) -> None:
    changed = content()
    for record in changed["annotations"]:
        record["area"] = area
    changed["annotations"][0]["segmentation"] = [[1, 2, 4, 2, 4, 6]]  # half of its box
    changed["annotations"][1]["segmentation"] = [[1, 2, 40, 2, 40, 28]]  # not of its box
    found = read(tmp_path, changed)
    assert found.areas.tolist() == [6, 56, 81] and len(found.boxes) == 3
    assert len(found.notes) == 1 and "3 of 3" in found.notes[0] and "area" in found.notes[0]


@pytest.mark.parametrize("area", [None, NAN, "unknown"])
def test_a_missing_area_is_derived_without_a_word(area: object, tmp_path: Path) -> None:
    changed = content()
    for record in changed["annotations"]:
        record["area"] = area
    found = read(tmp_path, changed)
    assert found.areas.tolist() == [12, 56, 81] and found.notes == [] and found.issues == []


@pytest.mark.parametrize("ids", [[0, 0, 0], [1, 1, 2], [0, 1, 2]])
def test_objects_are_not_dropped_for_their_ids(ids: list[int], tmp_path: Path) -> None:
    changed = content()
    for record, identity in zip(changed["annotations"], ids, strict=True):
        record["id"] = identity
    found = read(tmp_path, changed)
    assert len(found.boxes) == 3 and found.issues == [] and len(found.notes) == 1


@pytest.mark.parametrize("key", ["images", "categories"])
def test_a_file_without_a_usable_entry_names_the_first_reason(key: str, tmp_path: Path) -> None:
    changed = content()
    for record in changed[key]:
        del record["id"]
    with pytest.raises(ValueError, match=f"{key}.*`id`"):
        read(tmp_path, changed)


def test_a_well_formed_file_is_read_silently(tmp_path: Path) -> None:
    path = write_coco(tmp_path, {"a.png": (40, 30)}, [box(1, 1, [1, 2, 3, 4], area=12)])
    found = read_coco(path, tmp_path / "images", progress=False)
    assert found.issues == [] and found.notes == [] and found.listed == (1, 1)
