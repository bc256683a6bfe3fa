"""What looks wrong with a split as a whole: skipped shares, nothing to train on, boxes of another convention."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from configs.schema import load
from data import Annotations, load_dataset
from data.issues import Issue, summarize_issues
from data.plausibility import convention_note, crowd_note, examine, mostly_skipped, nothing_to_train_on
from engine.setup import load_splits
from tests.support.small_sets import box, write_coco

SIZES = ((640, 480), (300, 500), (800, 800))


def annotations(
    xywh: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    *,
    images: int = 9,
    each: int = 4,
    seed: int = 0,
    issues: Sequence[Issue] = (),
    crowds: float = 0.0,
) -> Annotations:
    """Random boxes within their images, written by `xywh(boxes xyxy, size)` instead of left, top, width, height."""
    rng = np.random.default_rng(seed)
    sizes = [SIZES[k % len(SIZES)] for k in range(images)]
    boxes = []
    for size in sizes:
        limits = np.array([*size, *size], np.float64)
        corners = np.sort(rng.random((each, 2, 2)), axis=1).reshape(each, 4)
        corners[:, 2:] = np.minimum(corners[:, 2:] + 0.02, 1)
        corners = (corners * limits).round(2)
        written = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        boxes.append((written if xywh is None else xywh(corners, limits)).tolist())
    read = Annotations.from_lists(
        "list.json",
        "images",
        classes=["a"],
        file_names=[f"{k}.png" for k in range(images)],
        boxes=boxes,
        labels=[[0] * each] * images,
        crowd=(rng.random((images, each)) < crowds).tolist(),
        box_format="xywh",
        issues=issues,
    )
    return replace(read, sizes=np.array(sizes, np.int32))


def centres(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)


WRITTEN = {
    "corners": (lambda c, _: c, "left, top, right, bottom"),
    "corners, y first": (lambda c, _: c[:, [1, 0, 3, 2]], "top, left, bottom, right"),
    "centres": (lambda c, _: centres(c), "centre"),
    "y first": (
        lambda c, _: np.stack([c[:, 1], c[:, 0], c[:, 3] - c[:, 1], c[:, 2] - c[:, 0]], axis=1),
        "top, left, height, width",
    ),
    "fractions": (lambda c, s: centres(c) / s, "fractions"),
    "fractions of corners": (lambda c, s: c / s, "fractions"),
    "percent": (lambda c, s: 100 * np.concatenate([c[:, :2], c[:, 2:] - c[:, :2]], axis=1) / s, "percent"),
    "a larger image": (lambda c, _: 3 * np.concatenate([c[:, :2] / 3.5, c[:, 2:] - c[:, :2]], axis=1), "another size"),
}


@pytest.mark.parametrize("convention", WRITTEN)
def test_boxes_of_another_convention_are_told(convention: str) -> None:
    write, words = WRITTEN[convention]
    for seed in range(5):
        note = convention_note(annotations(write, seed=seed, each=6))
        assert note is not None and words in note and "\n" not in note


def test_boxes_as_coco_has_them_are_not_remarked_on() -> None:
    for seed in range(20):
        assert convention_note(annotations(seed=seed)) is None
    slightly_beyond = annotations(lambda c, _: np.concatenate([c[:, :2] - 2, c[:, 2:] - c[:, :2] + 4], axis=1))
    assert convention_note(slightly_beyond) is None
    small = annotations(lambda c, s: np.concatenate([c[:, :2], np.full((len(c), 2), 1.0)], axis=1))
    assert convention_note(small) is None
    assert convention_note(annotations(each=0)) is None


def bad(count: int) -> list[Issue]:
    return [Issue("0.png", "bad-box", f"box {k}", f"list.json, annotations[{k}]") for k in range(count)]


@pytest.mark.parametrize(("lost", "told", "refused"), [(0, False, False), (1, False, False), (6, True, False),
                                                       (36, True, False), (37, True, True)])  # fmt: skip
def test_shares_that_were_skipped_are_told_and_refused_above_half(lost: int, told: bool, refused: bool) -> None:
    found = replace(annotations(issues=bad(lost)), listed=(9, 36 + lost))
    assert bool(mostly_skipped(found)) == refused
    if refused:
        with pytest.raises(ValueError, match=r"37 of 73 .*51%.*box 0.*--allow-skipped"):
            examine(found)
    examined = examine(found, allow_skipped=True)
    assert bool(examined.skipped) == told and examined.notes == []
    if told:
        assert "box 0" in examined.skipped and f"{lost / (36 + lost):.0%}" in examined.skipped
    assert (
        examined.skipped in summarize_issues([{"split": "train", "kind": "bad-box"}], [examined.skipped])
    ) or not told


def test_the_reason_is_the_commonest() -> None:
    other = Issue("0.png", "duplicate-image", "occurred before", "list.json, images[3]")
    found = replace(annotations(issues=[other, *bad(40)]), listed=(9, 76))
    assert "box 0" in (mostly_skipped(found) or "") and "occurred" not in (mostly_skipped(found) or "")
    category = Issue("list.json", "bad-record", "no name", "list.json, categories[0]")
    assert "no name" in (mostly_skipped(replace(found, issues=[other, category, *bad(40)])) or "")


def test_annotations_of_skipped_images_count_as_skipped() -> None:
    found = replace(annotations(issues=[Issue("0.png", "missing", "is missing", "list.json")]), listed=(10, 100))
    assert "64 of 100 annotations" in (mostly_skipped(found) or "")


def test_why_there_is_nothing_to_train_on() -> None:
    assert nothing_to_train_on(annotations()) is None
    assert "iscrowd" in (nothing_to_train_on(annotations(crowds=1.0)) or "")
    assert "no annotations" in (nothing_to_train_on(annotations(each=0)) or "")
    other = Issue("0.png", "orphan", "of no image", "list.json")
    reason = nothing_to_train_on(replace(annotations(each=0, issues=[other, *bad(3)]), listed=(9, 4))) or ""
    assert "bad-box (3)" in reason and "box 0" in reason and "orphan" not in reason


def test_mostly_crowds_are_told() -> None:
    assert crowd_note(annotations(crowds=0.1)) is None
    assert "iscrowd" in (crowd_note(annotations(crowds=0.9)) or "")


# ------------------------------------------------------------------------------------------- through files and configs


def written(folder: Path, annotations: list[dict], **overrides: object) -> object:
    """A config whose training and validation splits are four images with these annotations."""
    path = write_coco(folder / "set", {f"{k}.png": (60, 50) for k in range(4)}, annotations)
    split = {"images": str(path.parent / "images"), "annotations": str(path)}
    yaml = folder / "data.yaml"
    yaml.write_text(json.dumps({"train": split, "val": split}))
    return load("yolo.yaml", {"data": str(yaml), **overrides})


UNUSABLE = {
    "all crowds": ([box(k, 1 + k % 4, [5, 5, 20, 20], iscrowd=1) for k in range(8)], "iscrowd"),
    "no annotation": ([], "no annotations"),
    "all of another category": ([box(k, 1 + k % 4, [5, 5, 20, 20], 99) for k in range(8)], "8 of 8 annotations .*99"),
    "all orphans": ([box(k, 99, [5, 5, 20, 20]) for k in range(8)], "8 of 8 annotations .*image id 99"),
    "most without a size": ([box(k, 1, [5, 5, 20, 20 * (k < 3)]) for k in range(8)], "5 of 8 annotations .*above 0"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_training_on_nothing_or_little_is_refused(case: str, tmp_path: Path) -> None:
    listed, words = UNUSABLE[case]
    with pytest.raises(ValueError, match=words):
        load_splits(written(tmp_path, listed), progress=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("holdout", [0, 0.25])
def test_allowing_what_was_skipped_trains_on_the_rest(holdout: float, tmp_path: Path) -> None:
    config = written(
        tmp_path, [box(k, 1 + k % 4, [5, 5, 20, 20 * (k < 4)]) for k in range(12)],
        **{"train.allow_skipped": True, "train.holdout": holdout},
    )  # fmt: skip
    splits = load_splits(config, progress=False)  # type: ignore[arg-type]
    assert sum(len(split.boxes) for split in splits.values()) == (4 if holdout else 8)
    assert "8 of 12" in splits["train"].skipped
    config = written(tmp_path, UNUSABLE["all orphans"][0], **{"train.allow_skipped": True})
    with pytest.raises(ValueError, match="orphan"):
        load_splits(config, progress=False)  # type: ignore[arg-type]


def test_a_validation_split_may_have_no_object(tiny: SimpleNamespace) -> None:
    content = json.loads(Path(tiny.val.annotations).read_text())
    empty = Path(tiny.root) / "empty.json"
    empty.write_text(json.dumps({**content, "annotations": []}))
    tiny.val = SimpleNamespace(images=tiny.val.images, annotations=str(empty))
    assert len(load_dataset(tiny, "val", progress=False)) == 12
