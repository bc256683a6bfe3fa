"""The Python API: the same results for every kind of input, and clear errors."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from data.image import read_image
from data.workers import DataWorker
from engine.checkpoint import load_checkpoint, save_checkpoint
from engine.predictor import keep_classes
from models.decode import nms
from tests.support.checkpoints import SIDE, write_checkpoint
from yolo import YOLO, Result

CONF = 0.6


@pytest.fixture(scope="module")
def model(place: Path) -> YOLO:
    return YOLO(place / "best.pt", device="cpu")


@pytest.fixture(scope="module")
def images(place: Path) -> list[Path]:
    return sorted((place / "shapes/images/val").iterdir())


def same(first: Result, second: Result, *, tolerance: float = 0.0) -> bool:
    """Whether two results agree; where rounding is allowed for, the order of equal scores is too."""
    if len(first) != len(second):
        return False
    one, other = (
        (slice(None),) * 2 if not tolerance else [np.lexsort((r.boxes[:, 0], r.labels)) for r in (first, second)]
    )
    return (
        np.array_equal(first.labels[one], second.labels[other])
        and np.allclose(first.boxes[one], second.boxes[other], rtol=0, atol=100 * tolerance)
        and np.allclose(first.scores[one], second.scores[other], rtol=0, atol=tolerance)
    )


def test_a_result_is_in_pixels_of_the_picture(model: YOLO, images: list[Path]) -> None:
    (result,) = model.predict(images[0], conf=CONF)
    width, height = result.frame.size
    assert len(result) > 5 and result.boxes.dtype == np.float32 == result.scores.dtype
    assert result.boxes.shape == (len(result), 4) and (result.boxes[:, 2:] >= result.boxes[:, :2]).all()
    assert result.boxes.min() >= 0 and (result.boxes <= [width, height, width, height]).all()
    assert (np.diff(result.scores) <= 0).all() and result.scores.min() > CONF
    assert result.names == model.names and result.path == str(images[0])
    assert set(result.speed) == {"preprocess", "inference", "nms"}


def test_paths_and_arrays_give_the_same(model: YOLO, images: list[Path]) -> None:
    path = images[0]
    rgb, bgr = read_image(path), cv2.imread(str(path))
    results = model.predict(path) + model.predict(str(path)) + model.predict(rgb) + model.predict(bgr, bgr=True)
    results += model.predict([path, rgb]) + model.predict(str(path.parent))[:1]
    assert len(results) == 7 and all(same(results[0], other) for other in results)


def test_results_do_not_depend_on_the_batch_and_keep_their_order(model: YOLO, images: list[Path]) -> None:
    rng = np.random.default_rng(0)
    sources = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((90, 90), (40, 90), (88, 90), (90, 40))]
    sources += [read_image(path) for path in images[:3]]
    single = model.predict(sources, conf=CONF)
    assert {result.shape for result in single} == {(96, 96), (64, 96), (96, 64)}
    for batch in (2, 3, 16):
        together = model.predict(sources, conf=CONF, batch=batch)
        assert all(result.image is source for result, source in zip(together, sources, strict=True))
        assert all(same(a, b, tolerance=1e-4) for a, b in zip(single, together, strict=True))


def test_the_folded_network_finds_the_same(place: Path, model: YOLO, images: list[Path]) -> None:
    plain = YOLO(place / "best.pt", fuse=False)
    pairs = zip(model.predict(images, conf=CONF), plain.predict(images, conf=CONF), strict=True)
    assert all(same(first, second, tolerance=1e-3) for first, second in pairs)
    assert plain.census == model.census and {row.activation for row in plain.census} == {"mish"}


@pytest.mark.slow
def test_the_moving_average_is_preferred(place: Path, model: YOLO, images: list[Path]) -> None:
    write_checkpoint(place / "last.pt", place / "shapes.yaml", model.names, kind="training")
    assert same(YOLO(place / "last.pt").predict(images[0])[0], model.predict(images[0])[0])


def test_classes_are_a_part_of_all(model: YOLO, images: list[Path]) -> None:
    (everything,) = model.predict(images[0], conf=CONF, max_det=10_000)
    (some,) = model.predict(images[0], conf=CONF, max_det=10_000, classes=["star", 1])
    kept = np.isin(everything.labels, [1, model.names.index("star")])
    assert 0 < len(some) < len(everything)
    assert np.array_equal(some.boxes, everything.boxes[kept]) and np.array_equal(some.labels, everything.labels[kept])


def test_thresholds(model: YOLO, images: list[Path]) -> None:
    (few,) = model.predict(images[0], conf=CONF, max_det=3)
    (many,) = model.predict(images[0], conf=CONF)
    assert np.array_equal(few.scores, many.scores[:3])
    (apart,) = model.predict(images[0], conf=CONF, iou=0.3, agnostic=True)
    (by_class,) = model.predict(images[0], conf=CONF, iou=0.3)
    assert 1 < len(apart) < len(by_class)


@pytest.mark.parametrize("wanted", [None, [0, 2]])
@pytest.mark.parametrize("agnostic", [False, True])
def test_suppression_against_a_plain_loop(agnostic: bool, wanted: list[int] | None) -> None:
    generator = torch.Generator().manual_seed(4)
    corners = torch.rand(2, 60, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 10 + torch.rand(2, 60, 2, generator=generator) * 40], dim=2)
    scores = torch.rand(2, 60, 3, generator=generator)
    kept_scores = keep_classes(scores, wanted)
    found = nms(boxes, kept_scores, conf=0.5, iou=0.4, max_det=12, multi_label=False, agnostic=agnostic)
    for one, image_boxes, image_scores in zip(found, boxes, scores, strict=True):
        best, labels = image_scores.max(dim=1)
        overlaps = box_iou(image_boxes, image_boxes)
        kept: list[int] = []
        for k in best.argsort(descending=True).tolist():
            rivals = [other for other in kept if agnostic or labels[other] == labels[k]]
            suppressed = any(overlaps[k, other] > 0.4 for other in rivals)
            if best[k] > 0.5 and (wanted is None or int(labels[k]) in wanted) and not suppressed:
                kept.append(k)
        assert len(kept) > 3
        assert torch.equal(one.boxes, image_boxes[kept[:12]]) and torch.equal(one.labels, labels[kept[:12]])
        assert torch.equal(one.scores, best[kept[:12]])


def test_side_and_shape(model: YOLO, images: list[Path]) -> None:
    wide = np.zeros((30, 90, 3), np.uint8)
    assert model.imgsz == SIDE
    assert model.predict(wide)[0].shape == (32, 96)
    assert model.predict(wide, rect=False)[0].shape == (96, 96)
    assert model.predict(wide, imgsz=192)[0].shape == (64, 192)
    assert model.predict(wide, imgsz=(32, 96))[0].shape == model.predict(wide, imgsz=[96, 96])[0].shape == (32, 96)
    assert model.predict(wide, imgsz=(96, 64), rect=False)[0].shape == (96, 64)
    assert model.predict(wide, imgsz=(96, 64))[0].shape == (32, 64)


def test_height_and_width_give_the_boxes_of_the_long_side(model: YOLO, images: list[Path]) -> None:
    """Where they only say how the square is cut, nothing else changes; also in an evaluation."""
    wide = np.ascontiguousarray(read_image(images[0])[:48])
    (expected,) = model.predict(wide, conf=CONF)
    assert same(model.predict(wide, conf=CONF, imgsz=(64, SIDE))[0], expected) and len(expected)
    numbers = [model.val(conf=0.1, progress=False, imgsz=size).stats.numbers for size in (SIDE, (SIDE, SIDE))]
    assert numbers[0] == numbers[1]


def test_text_and_records_lead_back_to_the_boxes(model: YOLO, images: list[Path], tmp_path: Path) -> None:
    (result,) = model.predict(images[0], conf=CONF)
    result.save_txt(tmp_path / "a.txt", save_conf=True)
    table = np.loadtxt(tmp_path / "a.txt", ndmin=2)
    size = np.tile(result.frame.size, 2)
    corners = np.concatenate([table[:, 1:3] - table[:, 3:5] / 2, table[:, 1:3] + table[:, 3:5] / 2], axis=1)
    assert np.allclose(corners * size, result.boxes, atol=1e-2) and np.allclose(table[:, 5], result.scores, atol=1e-5)
    assert np.array_equal(table[:, 0], result.labels)
    plain = json.loads(json.dumps(result.to_dict()))
    boxes = np.array([record["bbox"] for record in plain["detections"]])
    assert np.allclose(boxes[:, :2] + boxes[:, 2:], result.boxes[:, 2:], atol=2e-3)
    assert [record["name"] for record in plain["detections"]] == [model.names[k] for k in result.labels]
    assert len(result.to_txt().splitlines()[0].split()) == 5


def test_nothing_found(model: YOLO, tmp_path: Path) -> None:
    (result,) = model.predict(np.zeros((50, 50, 3), np.uint8), conf=1.0)
    result.save_txt(tmp_path / "none.txt")
    assert len(result) == 0 and result.boxes.shape == (0, 4) and result.records() == []
    assert (tmp_path / "none.txt").read_text() == "" and "no detections" in result.summary()
    assert result.plot().shape[2] == 3 and result.save_crops(tmp_path / "crops") == []


def test_crops_never_leave_their_folder(model: YOLO, images: list[Path], tmp_path: Path) -> None:
    (result,) = model.predict(images[0], conf=CONF)
    names = ["../../out", "/etc", "a/b", "a_b", "..", "", "x" * 300, "con\n"]
    hostile = Result(result.boxes, result.scores, result.labels, names, result.frame, result.speed, result.shape)
    written = hostile.save_crops(tmp_path / "run" / "crops")
    assert len(written) == len(set(written)) > 5
    assert all(path.resolve().parent.parent == (tmp_path / "run" / "crops").resolve() for path in written)
    assert len({path.parent for path in written}) == len(set(result.labels.tolist()))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    left, top, right, bottom = result.boxes[0]
    assert read_image(written[0]).shape[:2] == (np.ceil(bottom) - np.floor(top), np.ceil(right) - np.floor(left))


def test_val_does_not_depend_on_the_batch(model: YOLO) -> None:
    first, second = (model.val(batch=batch, conf=0.1, progress=False) for batch in (1, 4))
    assert first.stats.numbers == second.stats.numbers and first.stats.backend == "pycocotools"
    assert first.predictions.shape == second.predictions.shape and len(first.predictions) > 100
    assert set(first.speed) == {"preprocess", "inference", "nms"} and all(v > 0 for v in first.speed.values())


@pytest.mark.slow
def test_workers_change_no_number_and_are_gone_afterwards(model: YOLO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.workers.usable_cores", lambda: 2)
    alone, ahead = (model.val(batch=1, workers=workers, conf=0.1, progress=False) for workers in (0, None))
    np.testing.assert_array_equal(ahead.predictions, alone.predictions)
    assert ahead.stats.numbers == alone.stats.numbers and ahead.batches_crc32 == alone.batches_crc32
    assert not [child for child in multiprocessing.active_children() if isinstance(child, DataWorker)]


def test_val_and_predict_agree(model: YOLO, images: list[Path]) -> None:
    result = model.val(conf=0.9, progress=False)
    best: dict[int, float] = {}
    for row in result.predictions:
        best[int(row[0])] = max(best.get(int(row[0]), 0), row[5])
    by_name = {
        Path(image["file_name"]).name: image["id"]
        for image in json.loads(Path(model.config.data.val.annotations).read_text())["images"]
    }
    for found in model.predict(images, conf=0.9):
        assert best[by_name[Path(found.path).name]] == pytest.approx(float(found.scores[0]), abs=1e-4)


def test_val_of_all_classes_as_one(model: YOLO) -> None:
    result = model.val(single_cls=True, conf=0.5, split="test", progress=False)
    assert len(result.truth.names) == 1 and set(result.predictions[:, 6]) == {result.truth.category_ids[0]}


@pytest.mark.slow
def test_val_refuses_other_classes(model: YOLO, place: Path) -> None:
    names = [name if name != "star" else "planet" for name in model.names]
    for other, message in ((names, "'star'.*'planet'"), (model.names[:5], "6 classes.*have 5")):
        write_checkpoint(place / "other.pt", place / "shapes.yaml", other)
        with pytest.raises(ValueError, match=message):
            YOLO(place / "other.pt").val(progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conf": 1.5}, "conf: found 1.5"),
        ({"iou": -1}, "iou: found -1"),
        ({"conf": float("nan")}, "conf"),
        ({"max_det": 0}, "max_det"),
        ({"batch": 0}, "batch"),
        ({"imgsz": 100}, "found 100.*96"),
        ({"imgsz": 0}, "imgsz"),
        ({"imgsz": 32_000}, "imgsz"),
        ({"classes": ["stars"]}, "'stars'.*star"),
        ({"classes": [8]}, "found 8"),
        ({"classes": [-1]}, "found -1"),
        ({"classes": []}, "empty"),
        ({"classes": "888"}, "found '888'"),
        ({"classes": True}, "classes: found True"),
        ({"classes": 1.5}, "found 1.5.*1 "),
        ({"classes": {"star": 1}}, "classes: found"),
        ({"classes": ["star", None]}, "found None"),
        ({"conf": "0.5"}, "conf: found '0.5', expected a number"),
        ({"conf": [0.5]}, r"conf: found \[0.5\]"),
        ({"conf": True}, "conf: found True"),
        ({"iou": "high"}, "iou: found 'high'"),
        ({"max_det": 1.5}, "max_det: found 1.5, expected a whole number"),
        ({"max_det": "all"}, "max_det: found 'all'"),
        ({"batch": "4"}, "batch: found '4'"),
        ({"rect": "no"}, "rect: found 'no', expected True or False"),
        ({"agnostic": 2}, "agnostic: found 2"),
        ({"imgsz": "96"}, "imgsz: found '96'.*height, width"),
        ({"imgsz": (96, 96, 3)}, r"imgsz: found \(96, 96, 3\)"),
        ({"imgsz": (96, 100)}, "found 96 100.*32.*96 96"),
        ({"imgsz": 96.5}, "imgsz: found 96.5"),
        ({"imgsz": ()}, "imgsz"),
        ({"source": None}, "NoneType"),
    ],
)
def test_predict_refuses(model: YOLO, images: list[Path], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        model.predict(**{"source": images[0], **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": 5}, "data: found 5"),
        ({"workers": "two"}, "workers: found 'two'"),
        ({"single_cls": "yes"}, "single_cls: found 'yes'"),
        ({"split": "all"}, "'all'.*train"),
        ({"split": ["val"]}, "split"),
        ({"imgsz": (96, 100)}, "imgsz: found 96 100"),
    ],
)
def test_val_refuses(model: YOLO, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.val(progress=False, **options)


def test_unknown_arguments_are_named(model: YOLO, images: list[Path]) -> None:
    for call in (model.predict, model.stream):
        with pytest.raises(TypeError, match="unknown argument 'imgz', did you mean 'imgsz'"):
            call(images[0], imgz=96)
    with pytest.raises(TypeError, match="val: unknown argument 'plts'.*workers"):
        model.val(plts=True)
    with pytest.raises(ValueError, match="val: plots: not supported; "):
        model.val(plots=True)
    with pytest.raises(ValueError, match="predict: persist: not supported; "):
        model.track(images[0], persist=True)
    with pytest.raises(ValueError, match="export: simplify: not supported; "):
        model.export(simplify=True)
    with pytest.raises(FileNotFoundError, match=r"yolov8n\.pt: no such checkpoint; nothing is downloaded"):
        YOLO("yolov8n.pt")


def test_one_class_or_several_by_number_or_name(model: YOLO) -> None:
    star = model.names.index("star")
    assert model.labels(0) == model.labels("0") == model.labels(np.int64(0)) == model.labels([0.0]) == [0]
    assert model.labels("star") == model.labels(["star", star]) == [star]
    assert model.labels(("star", 1)) == model.labels(np.array([star, 1])) == model.labels("star, 1") == [star, 1]
    assert model.labels(torch.tensor([2, 1])) == model.labels(iter((2, 1))) == [2, 1] and model.labels(None) is None


def test_none_and_numbers_of_other_types_are_what_they_mean(model: YOLO, images: list[Path]) -> None:
    (expected,) = model.predict(images[0])
    nothing = dict.fromkeys(("conf", "iou", "max_det", "classes", "imgsz", "batch", "rect", "agnostic"))
    numbers = {"conf": np.float32(0.25), "max_det": 300.0, "imgsz": torch.tensor(SIDE), "batch": np.int64(1), "rect": 1}
    for options in (nothing, numbers, {"imgsz": [SIDE]}, {"imgsz": np.array([SIDE])}):
        assert same(model.predict(images[0], **options)[0], expected)


def test_a_camera_is_for_stream(model: YOLO) -> None:
    with pytest.raises(ValueError, match="stream"):
        model.predict("0")


def test_devices_and_precision(place: Path) -> None:
    with pytest.raises(ValueError, match="half"):
        YOLO(place / "best.pt", device="cpu", half=True)
    for device in ("cuda:97", "gpu"):
        with pytest.raises(ValueError, match=device):
            YOLO(place / "best.pt", device=device)


def edited(path: Path, edit: Callable[[dict], object]) -> None:
    content = load_checkpoint(path)
    edit(content)
    save_checkpoint(path, content)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["config"]["model"].update(size="q"), "model.*size"),
        (lambda c: c["config"].update(surprise=1), "surprise"),
        (lambda c: c.update(config=3), "config"),
        (lambda c: c.update(names=[]), "names"),
        (lambda c: c.update(names=["one", 2]), "names"),
        (lambda c: c["names"].pop(), r"\(6,"),
        (lambda c: c["model"].pop("head.P3.box.2.bias"), "head.P3.box.2.bias is missing"),
        (lambda c: c["model"].update(more=torch.zeros(1)), "more is"),
        (lambda c: c.update(model=[1]), "list"),
        (lambda c: c["config"]["model"].update(act={"name": "relu"}), "other activations.*mish"),
        (lambda c: c["config"]["model"].update(act={"name": "mich"}), "mich"),
        (lambda c: c.update(census=None), "census"),
        (lambda c: c.update(census=[]), "other activations"),
    ],
)
def test_damaged_checkpoints_are_refused(
    place: Path, tmp_path: Path, edit: Callable[[dict], object], message: str
) -> None:
    (tmp_path / "edited.pt").write_bytes((place / "best.pt").read_bytes())
    edited(tmp_path / "edited.pt", edit)
    with pytest.raises(ValueError, match=message):
        YOLO(tmp_path / "edited.pt")


def test_the_nearest_class_is_named(model: YOLO, images: list[Path]) -> None:
    with pytest.raises(ValueError, match="did you mean 'star'"):
        model.predict(images[0], classes="Stars")
