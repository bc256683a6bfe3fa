"""COCO's numbers against published ones, hand-worked cases and plain-loop oracles."""

from __future__ import annotations

import json

import numpy as np
import pytest

from engine.evaluation.coco import (
    STAT_NAMES,
    coco_stats,
    differences,
    official_stats,
    write_predictions,
)
from engine.evaluation.ground_truth import GroundTruth
from engine.evaluation.matching import BoxTable, confusion_counts, found_objects
from tests.support.coco import ground_truth, prediction_rows, read_annotations
from tests.support.shared import shared

REFERENCES = ("cocoapi_fakebbox100", "rafaelpadilla_coco_bboxarea")
BACKENDS = ("pycocotools", "fast")


def reference(name: str) -> tuple[dict, list, dict]:
    folder = shared(f"data/evalref/{name}")
    return tuple(json.loads((folder / f"{part}.json").read_text()) for part in ("gt", "dt", "expected"))


def annotation(identity: int, image: int | str, category: int, box: list[float], **more) -> dict:
    return {"id": identity, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0} | more


def tiny_truth(**changes) -> dict:
    """Two images, two classes (ids 3 and 7): three objects and a crowd."""
    annotations = [
        annotation(1, 10, 3, [10, 10, 40, 40], area=1600),
        annotation(2, 10, 7, [60, 60, 20, 20], area=400),
        annotation(3, 20, 3, [0, 0, 50, 50], area=2500),
        annotation(4, 20, 7, [50, 50, 50, 50], area=2500, iscrowd=1),
    ]
    images = [{"id": i, "width": 100, "height": 100, "file_name": f"{i}.jpg"} for i in (10, 20)]
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    return {"images": images, "categories": categories, "annotations": annotations} | changes


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_published_numbers_are_reproduced(name, backend):
    content, detections, expected = reference(name)
    truth = ground_truth(content)
    stats = coco_stats(truth, prediction_rows(detections, truth), backend=backend)
    found = [stats.numbers[key] for key in STAT_NAMES]
    np.testing.assert_allclose(found, expected["pycocotools"], rtol=0, atol=1e-15)
    np.testing.assert_allclose(found, expected["published"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_hand_worked_case(backend):
    """Class cat: hit, false alarm between, hit; recall 0.5 at precision 1, then 2/3. Class dog: IoU 0.81."""
    predictions = np.array(
        [
            [10, 10, 10, 40, 40, 0.9, 3],
            [20, 60, 0, 30, 30, 0.8, 3],
            [20, 0, 0, 50, 50, 0.7, 3],
            [10, 60, 60, 18, 18, 0.6, 7],
            [20, 55, 55, 10, 10, 0.9, 7],  # in the crowd: neither right nor wrong
        ]
    )
    stats = coco_stats(ground_truth(tiny_truth()), predictions, backend=backend)
    # 51 of COCO's 101 recall levels lie at or below 0.5.
    cat = (51 * 1.0 + 50 * 2 / 3) / 101
    dog = 7 / 10  # 324 / 400 = 0.81 passes the thresholds 0.50 to 0.80
    assert stats.numbers["mAP50"] == pytest.approx((cat + 1) / 2, abs=1e-12)
    assert stats.numbers["mAP50-95"] == pytest.approx((cat + dog) / 2, abs=1e-12)
    assert stats.numbers["AP_small"] == pytest.approx(dog, abs=1e-12)
    assert stats.numbers["AP_large"] == -1
    assert stats.numbers["AR1"] == pytest.approx((0.5 + dog) / 2, abs=1e-12)
    assert stats.numbers["AR100"] == pytest.approx((1 + dog) / 2, abs=1e-12)
    by_name = {row.name: row for row in stats.per_class}
    assert (by_name["cat"].images, by_name["cat"].instances) == (2, 2)
    assert (by_name["dog"].images, by_name["dog"].instances) == (1, 1)
    assert by_name["cat"].ap50 == pytest.approx(cat)
    # The mean F1 is highest where all three are found: cat 2/3 and 1, dog 1 and 1 (the one in the crowd is ignored).
    assert stats.confidence == pytest.approx(0.0)
    assert (by_name["cat"].precision, by_name["cat"].recall) == pytest.approx((2 / 3, 1.0))
    assert (by_name["dog"].precision, by_name["dog"].recall) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_found_and_nothing_to_find(backend):
    none = np.zeros((0, 7))
    missed = coco_stats(ground_truth(tiny_truth()), none, backend=backend)
    assert missed.numbers["mAP50-95"] == 0 and missed.numbers["AP_large"] == -1
    assert missed.precision == 0 and missed.recall == 0
    for predictions in (none, np.array([[10, 1, 1, 5, 5, 0.5, 3]])):
        empty = coco_stats(ground_truth(tiny_truth(annotations=[])), predictions, backend=backend)
        assert set(empty.numbers.values()) == {-1.0}
        assert empty.precision == -1 and np.isnan(empty.pr_precision).all()


def random_case(seed: int, images: int = 12) -> tuple[dict, np.ndarray]:
    """Objects of three classes with crowds and ties, and detections scattered round them."""
    generator = np.random.default_rng(seed)
    annotations: list[dict] = []
    rows: list[list[float]] = []
    for image in range(1, images + 1):
        for _ in range(generator.integers(0, 9)):
            corner, side = generator.integers(0, 200, 2), generator.integers(6, 120, 2)
            box = [*corner.tolist(), *side.tolist()]
            category = int(generator.choice([2, 5, 9]))
            crowd = int(generator.random() < 0.15)
            area = float(side.prod() * generator.uniform(0.4, 1.0))
            annotations.append(annotation(len(annotations) + 1, image, category, box, area=area, iscrowd=crowd))
            for _ in range(generator.integers(0, 5)):
                moved = np.array(box) + generator.normal(0, 0.1, 4) * np.tile(side, 2)
                moved[2:] = np.maximum(moved[2:], 1)
                other = category if generator.random() < 0.8 else 5
                rows.append([image, *moved.round(3), generator.integers(1, 20) / 20, other])
    listed = [{"id": i, "width": 320, "height": 320} for i in range(1, images + 1)]
    categories = [{"id": i, "name": f"class {i}"} for i in (9, 2, 5)]
    return {"images": listed, "categories": categories, "annotations": annotations}, np.array(rows, np.float64)


@pytest.mark.parametrize("seed", range(6))
def test_fast_backend_equals_pycocotools(seed):
    content, predictions = random_case(seed)
    truth = GroundTruth.from_annotations(
        read_annotations(content).relabelled([f"class {i}" for i in (9, 2, 5)], [9, 2, 5])
    )
    official = coco_stats(truth, predictions)
    fast = coco_stats(truth, predictions, backend="fast")
    assert differences(official, fast) == {}
    np.testing.assert_array_equal(official.pr_precision, fast.pr_precision)
    # Rows are in the order of the classes, though the libraries sort by id.
    assert [row.category_id for row in official.per_class] == [9, 2, 5]
    only_nine = coco_stats(truth, predictions[predictions[:, 6] == 9])
    assert only_nine.per_class[0].ap == official.per_class[0].ap > 0


@pytest.mark.parametrize("seed", range(6))
def test_matching_equals_pycocotools(seed):
    """True positives at IoU 0.5 by our own matching, one by one, against those that pycocotools records."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    content, predictions = random_case(seed)
    truth = ground_truth(content)
    labels = truth.labels_of(predictions[:, 6].astype(int))
    table = BoxTable(predictions[:, 0].astype(int), predictions[:, 1:5], labels)
    kept, positive, ignored = found_objects(table, predictions[:, 5], truth.table(), truth.crowd)
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    run = COCOeval(coco, coco.loadRes(predictions), "bbox")
    run.evaluate()
    expected = {}
    for entry in run.evalImgs:
        if entry is not None and list(entry["aRng"]) == [0, 1e10]:
            for position, identity in enumerate(entry["dtIds"]):
                ignore = bool(entry["dtIgnore"][0, position])
                expected[identity - 1] = (bool(entry["dtMatches"][0, position]) and not ignore, ignore)
    ours = {int(k): (bool(p), bool(i)) for k, p, i in zip(kept, positive, ignored, strict=True)}
    assert ours == expected


def test_detections_beyond_a_hundred_do_not_count():
    rows = [[10, 10, 10, 40, 40, 0.001, 3]] + [[10, 70, 0, 5, 5, 0.5, 3]] * 100
    stats = coco_stats(ground_truth(tiny_truth()), np.array(rows))
    assert stats.per_class[0].recall == 0 and stats.numbers["AR100"] == 0


def dense(*counts: int) -> tuple[dict, np.ndarray]:
    """One image for each count, with so many objects of class 1 and two of class 2; and a detection of each."""
    annotations, rows = [], []
    for image, count in enumerate(counts, 1):
        for k in range(count + 2):
            box, category = [40.0 * (k % 20), 40.0 * (k // 20), 30.0, 30.0], 1 if k < count else 2
            annotations.append(annotation(len(annotations) + 1, image, category, box, area=900))
            rows.append([image, *box, 0.9 - 1e-4 * len(rows), category])
    images = [{"id": image, "width": 800, "height": 800} for image in range(1, len(counts) + 1)]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    return {"images": images, "categories": categories, "annotations": annotations}, np.array(rows)


def by_pycocotools(content: dict, predictions: np.ndarray, limit: int) -> float:
    """mAP50-95 with at most `limit` detections of an image and class."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    run = COCOeval(coco, coco.loadRes(predictions), "bbox")
    run.params.maxDets = [limit]
    run.evaluate()
    run.accumulate()
    precision = run.eval["precision"][:, :, :, 0, 0]
    return float(precision[precision > -1].mean())


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(250, 101, 40), (100, 3)])
def test_what_a_perfect_detector_reaches_under_the_limit_of_coco(counts):
    content, found = dense(*counts)
    truth = ground_truth(content)
    assert truth.reachable_map() == pytest.approx(by_pycocotools(content, found, 100), abs=1e-12)
    stats = official_stats(truth, found, max_det=400)
    assert stats.numbers["mAP50-95"] == pytest.approx(truth.reachable_map(), abs=1e-12)
    if max(counts) <= 100:
        assert stats.notes == [] and stats.at_max_det == {}
    else:
        assert f"{truth.reachable_map():.4f}" in stats.notes[0] and len(stats.notes) == 2
        assert stats.at_max_det["mAP50-95"] == stats.at_max_det["recall"] == pytest.approx(1.0)


@pytest.mark.slow
def test_the_numbers_at_max_det_are_those_of_pycocotools_without_its_limit():
    content, found = dense(180, 20)
    rng = np.random.default_rng(0)
    found[:, 1:5] += rng.normal(0, 2, (len(found), 4)).round(2)
    found[:, 5] = rng.permutation(len(found)) / len(found)
    truth = ground_truth(content)
    stats = official_stats(truth, found, max_det=300)
    assert stats.numbers["mAP50-95"] == pytest.approx(by_pycocotools(content, found, 100), abs=1e-12)
    assert stats.at_max_det["mAP50-95"] == pytest.approx(by_pycocotools(content, found, 300), abs=1e-12)
    assert stats.at_max_det["mAP50-95"] > stats.numbers["mAP50-95"]
    assert coco_stats(truth, found, backend="fast").numbers == pytest.approx(stats.numbers, abs=1e-12)


def test_more_objects_than_max_det_are_told():
    truth = ground_truth(dense(60, 3)[0])
    assert truth.limit_notes(62) == [] and truth.limit_notes() == []
    (note,) = truth.limit_notes(61)
    assert "max_det 61" in note and "62" in note


def test_skipped_images_do_not_count():
    truth = ground_truth(tiny_truth(), image_ids=[10])
    stats = coco_stats(truth, np.array([[10, 10, 10, 40, 40, 0.9, 3]]))
    assert stats.images == 1 and stats.per_class[0].ap == pytest.approx(1.0)
    with pytest.raises(ValueError, match="20"):
        coco_stats(truth, np.array([[20, 60, 0, 30, 30, 0.95, 3]]))


def test_text_image_ids_and_missing_fields():
    """Ids that are text, and annotations without area and iscrowd, which pycocotools alone cannot take."""
    content = tiny_truth(images=[{"id": "b"}, {"id": "a"}])
    content["annotations"] = [
        {"id": 1, "image_id": "a", "category_id": 3, "bbox": [0, 0, 10, 10]},
        {"id": 2, "image_id": "b", "category_id": 7, "bbox": [5, 5, 40, 40]},
    ]
    found = [
        {"image_id": "a", "category_id": 3, "bbox": [0, 0, 10, 10], "score": 0.5},
        {"image_id": "b", "category_id": 7, "bbox": [5, 5, 40, 40], "score": 0.5},
    ]
    truth = ground_truth(content)
    for backend in BACKENDS:
        numbers = coco_stats(truth, prediction_rows(found, truth), backend=backend).numbers
        assert numbers["mAP50-95"] == numbers["AP_small"] == numbers["AP_medium"] == pytest.approx(1.0)


@pytest.mark.parametrize("ids", [[0, 1, 2, 3], [0, 0, 0, 0], [1, 2, 1, 2], ["0", "a", "a", None]])
def test_ids_of_annotations_do_not_change_the_numbers(ids):
    """pycocotools reads the id 0 as 'not matched' and drops objects of equal ids; it is told, and not scored so."""
    clean, content = tiny_truth(), tiny_truth()
    for entry, identity in zip(content["annotations"], ids, strict=True):
        entry["id"] = identity
    truth = ground_truth(content)
    predictions = np.array([[10, 10, 10, 40, 40, 0.9, 3], [20, 0, 0, 50, 50, 0.8, 3], [10, 60, 60, 20, 20, 0.7, 7]])
    stats = official_stats(truth, predictions)
    assert stats.numbers == official_stats(ground_truth(clean), predictions).numbers
    assert stats.numbers["mAP50-95"] == pytest.approx(1.0)
    assert len(truth.notes) == len(stats.notes) == 1 and "numbered" in truth.notes[0]
    assert ground_truth(clean).notes == []


def test_wrong_input_is_named():
    truth = ground_truth(tiny_truth())
    with pytest.raises(ValueError, match="77"):
        coco_stats(truth, np.array([[77, 0, 0, 1, 1, 0.5, 3]]))
    with pytest.raises(ValueError, match="pycocotools"):
        coco_stats(truth, np.zeros((0, 7)), backend="slow")
    stats = coco_stats(truth, np.array([[10, 10, 10, 40, 40, 0.5, 99]]))
    assert stats.numbers["mAP50"] == 0 and "99" in stats.notes[0]


def test_confusion_counts():
    truth = ground_truth(tiny_truth())
    found = np.array(
        [
            [10, 10, 10, 40, 40, 0.9, 1],  # a cat taken for a dog
            [10, 60, 60, 20, 20, 0.2, 1],  # right, but below the threshold: the dog is missed
            [20, 0, 0, 50, 50, 0.9, 0],  # a cat
            [20, 1, 1, 50, 50, 0.8, 0],  # the same cat again: background
            [20, 60, 60, 20, 20, 0.9, 0],  # in the crowd
        ]
    )
    table = BoxTable(found[:, 0].astype(int), found[:, 1:5], found[:, 6].astype(int))
    counts = confusion_counts(table, found[:, 5], truth.table(), truth.crowd, num_classes=2)
    assert counts.tolist() == [[1, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_written_predictions_survive_any_numbers(tmp_path):
    content, predictions = random_case(3)
    predictions[:, 5] = np.round(np.random.default_rng(0).random(len(predictions)), 5)
    truth = ground_truth(content)
    write_predictions(tmp_path / "p.json", predictions, truth)
    again = prediction_rows(json.loads((tmp_path / "p.json").read_text()), truth)
    np.testing.assert_array_equal(again, predictions)


def test_single_class():
    truth = GroundTruth.from_annotations(read_annotations(tiny_truth()).as_single_class())
    assert truth.names == ["object"] and set(truth.category_id) == {3}
    stats = coco_stats(truth, np.array([[10, 60, 60, 20, 20, 0.9, 3]]))
    assert [(row.name, row.instances) for row in stats.per_class] == [("object", 3)]
    assert stats.per_class[0].recall == pytest.approx(1 / 3)


def test_unusable_annotations_do_not_count():
    """Broken records, which the data set lists among its issues, do not stop the evaluation."""
    content = tiny_truth()
    content["annotations"] += [
        annotation(5, 10, 3, [1, 2, 3]),
        annotation(6, 10, 3, [1, float("nan"), 3, 3]),
        annotation(1, 10, 3, [0, 0, 9, 9]),  # an object, though its id occurred before
        annotation(7, 99, 3, [0, 0, 9, 9]),
        {"id": 8, "image_id": 10, "category_id": 3},
        annotation(9, 10, 3, [0, 0, 9, 9], area=float("nan")),
    ]
    truth = ground_truth(content)
    assert sorted(truth.area.tolist()) == [81, 81, 400, 1600, 2500, 2500] and len(truth.issues) == 4
    stats = official_stats(truth, np.array([[10, 10, 10, 40, 40, 0.9, 3]]))
    assert stats.instances == 5 and stats.notes == truth.notes


def test_classes_of_another_split():
    """A split without one of the classes: detections of it count in the confusion matrix, not in the means."""
    loaded = read_annotations(tiny_truth(categories=[{"id": 3, "name": "cat"}]))
    assert GroundTruth.from_annotations(loaded).names == ["cat"]
    truth = GroundTruth.from_annotations(loaded.relabelled(["cat", "dog"], [3, 7]))
    assert truth.names == ["cat", "dog"] and truth.category_id.tolist() == [3, 3]


def test_what_was_skipped_does_not_count():
    """Neither images nor annotations, of whatever form: the data set lists them among its problems."""
    content = tiny_truth()
    content["images"] += [None, {"file_name": "without an id.jpg"}]
    content["categories"] += [7, {"name": "without an id"}]
    content["annotations"] += [None, annotation(9, [10], 3, [0, 0, 9, 9]), annotation(10, 10, "x", [0, 0, 9, 9])]
    loaded = read_annotations(content)
    assert len(loaded.issues) == 7
    truth = GroundTruth.from_annotations(loaded.without([1]))
    assert truth.names == ["cat", "dog"] and truth.image_ids == [10] and len(truth.boxes) == 2
