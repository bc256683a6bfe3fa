"""Reading COCO annotations, compared with pycocotools, and reading damaged files."""

import contextlib
import io
import json
import pickle

import numpy as np
import pytest

from data import coco
from data.coco import read_coco
from data.verify import verify_images
from tests.support.shared import shared
from tests.support.small_sets import box, write_coco


def read(path, **options):
    return read_coco(path, path.parent / "images", progress=False, **options)


def generated(folder, seed, images=24):
    """An annotation file like real ones: polygons, crowds, empty images, unordered ids, boxes beyond the edge."""
    rng = np.random.default_rng(seed)
    category_ids = rng.permutation(np.arange(1, 90))[:7].tolist()
    image_ids = rng.permutation(np.arange(1, 10**9, 10**7))[:images].tolist()
    sizes = rng.integers(20, 60, (images, 2)).tolist()
    annotations = []
    for identity, (width, height) in zip(image_ids, sizes, strict=True):
        for _ in range(rng.integers(0, 6)):
            x, y = (rng.random(2) * [width, height] - 3).round(2).tolist()
            w, h = (rng.random(2) * 30 + 4).round(2).tolist()
            record = box(
                len(annotations) * 3 + 1, identity, [x, y, w, h], int(rng.choice(category_ids)), area=w * h / 2
            )
            if rng.random() < 0.2:
                record |= {
                    "iscrowd": 1,
                    "segmentation": {"counts": [3, 5, width * height - 8], "size": [height, width]},
                }
            elif rng.random() < 0.8:
                parts = [rng.random(2 * rng.integers(3, 9)) * width for _ in range(rng.integers(1, 3))]
                record["segmentation"] = [part.round(2).tolist() for part in parts]
            annotations.append(record)
    names = {f"{identity:012d}.png": tuple(size) for identity, size in zip(image_ids, sizes, strict=True)}
    categories = [{"id": identity, "name": f"class {identity}"} for identity in category_ids]
    path = write_coco(folder, names, [], categories)
    content = json.loads(path.read_text())
    for record, identity in zip(content["images"], image_ids, strict=True):
        record["id"] = identity
    content["annotations"] = [annotations[k] for k in rng.permutation(len(annotations))]
    path.write_text(json.dumps(content))
    return path, folder / "images"


@pytest.mark.parametrize("source", [0, 1, 2, "coco128", "coco100", "bccd"])
def test_everything_as_pycocotools_reads_it(source, tmp_path):
    from pycocotools.coco import COCO

    if isinstance(source, int):
        path, images = generated(tmp_path, source)
    else:
        path, images = shared(f"data/{source}/annotations/train.json"), shared(f"data/{source}/images")
    with contextlib.redirect_stdout(io.StringIO()):
        oracle = COCO(str(path))
    found = read_coco(path, images, progress=False)
    assert found.issues == [] and len(found) == len(oracle.imgs)
    assert found.category_ids == sorted(oracle.cats)
    assert found.classes == [oracle.cats[identity]["name"] for identity in found.category_ids]
    for index, identity in enumerate(found.image_ids):
        assert found.file_names[index] == oracle.imgs[identity]["file_name"]
        assert tuple(found.sizes[index]) == (oracle.imgs[identity]["width"], oracle.imgs[identity]["height"])
        records = oracle.imgToAnns[identity]
        rows = slice(found.starts[index], found.starts[index + 1])
        np.testing.assert_array_equal(found.boxes[rows], np.array([r["bbox"] for r in records]).reshape(-1, 4))
        np.testing.assert_array_equal(found.areas[rows], [r["area"] for r in records])
        np.testing.assert_array_equal(found.crowd[rows], [r["iscrowd"] for r in records])
        assert [found.category_ids[label] for label in found.labels[rows]] == [r["category_id"] for r in records]
        for row, record in zip(range(rows.start, rows.stop), records, strict=True):
            for mine, theirs in zip(found.polygons(row), record.get("segmentation") or [], strict=False):
                np.testing.assert_allclose(mine.ravel(), np.float32(theirs))


def test_labels_follow_sorted_ids_and_boxes_are_clipped_for_training(tmp_path):
    path = write_coco(
        tmp_path,
        {"a.png": (40, 30), "b.png": (20, 20)},
        [
            box(1, 1, [-5, -5, 20, 20], 7),
            box(2, 1, [30, 20, 30, 30], 3),
            box(3, 1, [0, 0, 9, 9], 3, iscrowd=1),
        ],
    )
    found = read(path)
    assert found.classes == ["dog", "cat"] and found.category_ids == [3, 7]
    boxes, labels, _ = found.training_boxes(0)
    np.testing.assert_array_equal(boxes, [[0, 0, 15, 15], [30, 20, 40, 30]])
    assert labels.tolist() == [1, 0]
    assert found.crowd.tolist() == [False, False, True]  # kept for evaluation
    np.testing.assert_array_equal(found.boxes[0], [-5, -5, 20, 20])  # as in the file
    assert len(found.training_boxes(1)[0]) == 0


BAD = {
    "bad-box": [
        box(90, 1, [1, 1, float("nan"), 5]),
        box(91, 1, [1, 1, 0, 5]),
        box(92, 1, [1, 1, -4, 5]),
        box(93, 1, [1, 1, float("inf"), 5]),
        box(94, 1, [1, 1, 5]),
        box(95, 1, [1, "x", 5, 5]),
        box(96, 1, [1, 1, 1e300, 5]),
    ],
    "outside": [box(97, 1, [50, 1, 5, 5])],
    "orphan": [box(98, 1000, [1, 1, 5, 5])],
    "unknown-category": [box(99, 1, [1, 1, 5, 5], 5)],
    "bad-record": [{"id": 100, "category_id": 3, "bbox": [1, 1, 5, 5]}, 17, None, box(101, 1, [1, 1, 5, 5], None)],
}


@pytest.mark.parametrize("kind", BAD)
def test_damaged_annotations_become_issues_or_errors_if_strict(tmp_path, kind):
    path = write_coco(tmp_path, {"a.png": (40, 30)}, [box(1, 1, [1, 2, 3, 4]), *BAD[kind]])
    found = read(path)
    np.testing.assert_array_equal(found.boxes, [[1, 2, 3, 4]])
    assert [issue.kind for issue in found.issues] == [kind] * len(BAD[kind])
    assert all("annotations[" in issue.where for issue in found.issues)
    with pytest.raises(ValueError):
        read(path, strict=True)


def test_unsafe_file_names_and_duplicate_images_are_skipped(tmp_path):
    path = write_coco(tmp_path, {"a.png": (40, 30)}, [])
    content = json.loads(path.read_text())
    names = ["../a.png", "/etc/a.png", "x/../../a.png", "C:\\a.png", "..\\a.png", "", "a\0.png"]
    content["images"] += [{"id": 10 + k, "file_name": name, "width": 1, "height": 1} for k, name in enumerate(names)]
    content["images"].append({"id": 1, "file_name": "b.png", "width": 1, "height": 1})
    path.write_text(json.dumps(content))
    found = read(path)
    assert found.file_names[:] == ["a.png"]
    assert sorted(issue.kind for issue in found.issues) == ["duplicate-image"] + ["unsafe-path"] * len(names)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '"x"',
        "null",
        "{}",
        '{"images": []}',
        '{"images": {}, "categories": []}',
        '{"images": [], "categories": [{"id": 1, "name": "a"}]}',
        '{"images": [{"id": 1, "file_name": "a"}], "categories": []}',
        '{"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1, "name": "a"}], "annotations": 3}',
        '{"images": ' + "[" * 100_000,
        "\xff\xfe",
        '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]',
    ],
)
def test_other_json_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="a.json"):
        read(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.json"):
        read(tmp_path / "nothing.json")


def test_text_ids_no_sizes_no_annotations(tmp_path):
    path = tmp_path / "a.json"
    content = {"images": [{"id": "x", "file_name": "ü.png"}], "categories": [{"id": 1, "name": "a"}]}
    path.write_text(json.dumps(content))
    found = read(path)
    assert found.image_ids == ["x"] and found.file_names[0] == "ü.png" and len(found.boxes) == 0
    assert found.sizes.tolist() == [[0, 0]]


def test_cache_is_equivalent_and_never_stale(tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "MIN_CACHED_BYTES", 0)
    outline = [[1, 2, 4, 2, 4, 6]]
    path = write_coco(tmp_path, {"a.png": (40, 30)}, [box(1, 1, [1, 2, 3, 4], segmentation=outline), *BAD["orphan"]])
    fresh = read(path)
    (cache,) = (tmp_path / ".cache").glob("coco-*.npz")
    monkeypatch.setattr(coco, "decode", None)  # from here on only the cache can be read
    again = read(path)
    assert (again.listed, again.notes) == (fresh.listed, fresh.notes) == ((1, 2), [])
    assert again.issues == fresh.issues and again.classes == fresh.classes and again.image_ids == fresh.image_ids
    np.testing.assert_array_equal(again.boxes, fresh.boxes)
    np.testing.assert_array_equal(again.polygons(0)[0], np.float32(outline[0]).reshape(-1, 2))
    monkeypatch.undo()
    monkeypatch.setattr(coco, "MIN_CACHED_BYTES", 0)
    cache.write_bytes(b"damaged")
    assert len(read(path).boxes) == 1
    path.write_text(path.read_text().replace("[1, 2, 3, 4]", "[1, 2, 3, 5]"))
    assert read(path).boxes[0, 3] == 5


def test_damaged_images_are_found_before_training(tmp_path):
    path = write_coco(
        tmp_path, {f"{k}.png": (40, 30) for k in range(6)}, [box(k, k, [1, 1, 5, 5]) for k in range(1, 7)]
    )
    folder = tmp_path / "images"
    (folder / "0.png").write_bytes(b"")
    (folder / "1.png").write_bytes(b"not an image")
    (folder / "2.png").unlink()
    data = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(data[: len(data) // 3])
    content = json.loads(path.read_text())
    content["images"][4]["width"] = 41
    path.write_text(json.dumps(content))
    found = read(path)
    with pytest.raises(ValueError):
        verify_images(found, strict=True, progress=False)
    whole = verify_images(found, progress=False)
    assert [issue.kind for issue in whole.issues] == ["empty", "not-an-image", "missing", "damaged", "wrong-size"]
    assert [issue.file for issue in whole.issues] == [f"{k}.png" for k in range(5)]
    assert whole.image_ids == [6] and len(whole.boxes) == 1
    (folder / "5.png").unlink()
    with pytest.raises(ValueError, match="none of the 6 images"):
        verify_images(found, progress=False)


def test_taking_images_away_keeps_the_rest(tmp_path):
    path, images = generated(tmp_path, 3)
    full = read_coco(path, images, progress=False)
    gone = [0, 3, 23]
    rest = full.without(gone)
    kept = [index for index in range(len(full)) if index not in gone]
    assert rest.image_ids == [full.image_ids[index] for index in kept]
    for new, old in enumerate(kept):
        np.testing.assert_array_equal(rest.training_boxes(new)[0], full.training_boxes(old)[0])
        for mine, theirs in zip(rest.rows(new), full.rows(old), strict=True):
            assert len(rest.polygons(mine)) == len(full.polygons(theirs))
            for a, b in zip(rest.polygons(mine), full.polygons(theirs), strict=True):
                np.testing.assert_array_equal(a, b)


def test_annotations_survive_pickling(tmp_path):
    path = write_coco(tmp_path, {"a.png": (40, 30)}, [box(1, 1, [1, 2, 3, 4])])
    found = pickle.loads(pickle.dumps(read(path)))
    assert found.file_names[0] == "a.png" and found.boxes.tolist() == [[1, 2, 3, 4]]


def test_splits_must_have_the_same_classes(tmp_path):
    path = write_coco(tmp_path, {"a.png": (40, 30)}, [box(1, 1, [1, 2, 3, 4], 7)])
    found = read(path)
    wider = found.relabelled(["bird", "dog", "cat"], [1, 3, 7])
    assert wider.labels.tolist() == [2] and wider.classes == ["bird", "dog", "cat"]
    with pytest.raises(ValueError, match="dog"):
        found.relabelled(["cat"], [7])
    assert found.as_single_class().labels.tolist() == [0]


def test_mutated_files_never_crash(tmp_path):
    """Seeded damage to a valid file: a clear error or a correct result."""
    rng = np.random.default_rng(0)
    path = write_coco(
        tmp_path, {"a.png": (40, 30), "b.png": (30, 30)}, [box(k, 1 + k % 2, [1, 2, 3, 4]) for k in range(4)]
    )
    good = path.read_bytes()
    tokens = [b"NaN", b"null", b"-1", b"1e999", b"{}", b"[]", b'"x"', b"99999999999999999999", b"", b",", b"true"]
    for _ in range(400):
        data = bytearray(good)
        start = int(rng.integers(0, len(data)))
        data[start : start + int(rng.integers(0, 12))] = tokens[rng.integers(len(tokens))]
        path.write_bytes(bytes(data))
        try:
            found = read(path)
        except ValueError:
            continue
        assert np.isfinite(found.boxes).all() and len(found) >= 1


def test_invalid_unicode_and_ids_equal_as_text_are_skipped(tmp_path):
    path = write_coco(tmp_path, {"a.png": (40, 30)}, [box(1, 1, [1, 2, 3, 4])])
    content = json.loads(path.read_text())
    content["images"] += [{"id": 2, "file_name": "\ud800.png"}, {"id": "1", "file_name": "b.png"}]
    content["categories"].append({"id": 9, "name": "\udfff"})
    content["annotations"].append({**box(2, 1, [1, 2, 3, 4]), "\ud800": 1})
    path.write_text(json.dumps(content))
    found = read(path)
    assert found.image_ids == [1] and found.classes == ["dog", "cat"] and len(found.boxes) == 1
    assert sorted(issue.kind for issue in found.issues) == ["bad-record"] * 3 + ["duplicate-image"]
