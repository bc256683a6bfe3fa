"""Score the stored detections of a run's last epoch again with hotcoco: matches by image, AP by class, error kinds.

A run folder holds the detections (predictions_last.json) and the objects they are scored against (ground_truth.json),
so the annotation files of the data set are not needed. Those on another split than val are in predictions_test.json and
ground_truth_test.json.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comparison.runs import PRECISION, SCORES, Run
from comparison.summary import PRIMARY, RunKey
from core.text import one_line

VAL_FILES = ("predictions_last.json", "ground_truth.json")
MAX_BYTES = 1 << 31  # of either file


@dataclass(frozen=True, kw_only=True)
class ClassMatches:
    """COCO's matches of one class over all images, N detections by falling score, at each of T IoU thresholds."""

    name: str
    image: NDArray[np.int64]  # (N,) position of the image of each detection
    hit: NDArray[np.bool_]  # (T, N) matched to an object
    ignored: NDArray[np.bool_]  # (T, N) neither right nor wrong, as matched to a crowd
    objects: NDArray[np.int64]  # (images,) objects of the class, crowds excluded


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The detections of one run's last epoch, scored."""

    truth: str  # SHA-256 of the objects: equal for runs that were scored on the same images
    images: int
    recalls: NDArray[np.float64]  # at which precision is averaged
    classes: tuple[ClassMatches, ...]
    class_ap: Mapping[str, float]  # by class with objects, in points
    errors: Mapping[str, float]  # TIDE: AP50 points to be gained by removing an error kind
    calibration: float  # expected calibration error of the scores, in points


def detection_files(split: str) -> tuple[str, str]:
    """The names of the files of a run with its detections on a split and the objects they are scored against."""
    return VAL_FILES if split == "val" else (f"predictions_{split}.json", f"ground_truth_{split}.json")


def evaluate_all(runs: Sequence[Run]) -> dict[RunKey, Evaluation | str]:
    """The evaluation of each finished run, or why it has none."""
    found: dict[RunKey, Evaluation | str] = {}
    for run in runs:
        if run.status == "finished":
            try:
                found[run.act, run.seed] = evaluate(run)
            except (ValueError, OSError) as error:
                found[run.act, run.seed] = str(error)
    return found


def evaluate(run: Run) -> Evaluation:
    """Score the detections of a run on the split of its scores, by default val.

    ValueError, in one line, if they are missing, damaged or score otherwise.
    """
    predicted, objects = detection_files(run.split)
    truth, text = _read(run.folder / objects)
    predictions, _ = _read(run.folder / predicted)
    try:
        scored = _score(truth, predictions)
        evaluation = _collect(truth, scored, hashlib.sha256(text).hexdigest())
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{predicted} or {objects} is not COCO's JSON: {one_line(error)}") from error
    found, recorded = float(np.mean([*evaluation.class_ap.values()] or [-100])) / 100, run.last(PRIMARY)
    if recorded is None or abs(found - recorded) > PRECISION * max(abs(recorded), 1e-4):
        source = SCORES if run.scores else "the last row of results.csv"
        raise ValueError(f"{predicted} scores mAP50-95 {found:.6g}, {source} says {recorded}")
    return evaluation


def _read(file: Path) -> tuple[Any, bytes]:
    """The content and the bytes of a file that the run has written."""
    if not file.is_file():
        raise ValueError(f"no {file.name}")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file.name}: {file.stat().st_size} bytes, expected at most {MAX_BYTES}")
    text = file.read_bytes()
    try:
        return json.loads(text), text
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name}: not JSON, the file is truncated or damaged") from error


def _score(truth: Mapping[str, Any], predictions: list[dict[str, Any]]) -> Any:
    """A hotcoco evaluation over all box areas, with matches but without the twelve numbers."""
    import hotcoco

    key_of = {image["id"]: key for key, image in enumerate(truth["images"])}  # ids may be text
    objects = [{**each, "image_id": key_of[each["image_id"]]} for each in truth["annotations"]]
    rows = [(key_of[each["image_id"]], *each["bbox"], each["score"], each["category_id"]) for each in predictions]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = hotcoco.COCO(
            {
                "images": [{"id": key} for key in key_of.values()],
                "categories": truth["categories"],
                "annotations": objects,
            }
        )
        found = reference.load_res(np.array(rows, np.float64).reshape(-1, 7))
        run = hotcoco.COCOeval(reference, found, "bbox")
        run.params.area_rng, run.params.area_rng_lbl, run.params.max_dets = [[0, 1e10]], ["all"], [100]
        run.evaluate()
        run.accumulate()
    return run


def _collect(truth: Mapping[str, Any], run: Any, sha256: str) -> Evaluation:
    names = {category["id"]: str(category["name"]) for category in truth["categories"]}
    count = len(truth["images"])
    by_class: dict[int, list[dict[str, Any]]] = {identity: [] for identity in sorted(names)}
    for cell in run.eval_imgs:
        if cell is not None:
            by_class[cell["category_id"]].append(cell)
    classes = tuple(_matches(names[identity], cells, count) for identity, cells in by_class.items())
    ap = np.asarray(run.eval["precision"])[:, :, :, 0, 0].mean(axis=(0, 1))  # classes by id, as in by_class
    return Evaluation(
        truth=sha256,
        images=count,
        recalls=np.asarray(run.params.rec_thrs),
        classes=classes,
        class_ap={each.name: 100 * float(v) for each, v in zip(classes, ap, strict=True) if each.objects.any()},
        errors={kind: 100 * float(gain) for kind, gain in run.tide_errors()["delta_ap"].items()},
        calibration=100 * float(run.calibration()["ece"]),
    )


def _matches(name: str, cells: list[dict[str, Any]], images: int) -> ClassMatches:
    """The matches of a class from its cells, one per image."""
    cells = sorted(cells, key=lambda cell: cell["image_id"])
    objects = np.zeros(images, np.int64)
    for cell in cells:
        objects[cell["image_id"]] = int(np.sum(cell["gtInDenominator"]))
    thresholds = len(cells[0]["dtMatched"]) if cells else 10
    scores = np.concatenate([np.asarray(cell["dtScores"], float) for cell in cells] or [np.zeros(0)])
    order = np.argsort(-scores, kind="stable")
    columns = [
        np.concatenate([np.asarray(cell[key], bool).reshape(thresholds, -1) for cell in cells], axis=1)[:, order]
        if cells
        else np.zeros((thresholds, 0), bool)
        for key in ("dtMatched", "dtIgnore")
    ]
    image = np.concatenate([np.full(len(cell["dtScores"]), cell["image_id"]) for cell in cells] or [np.zeros(0)])
    return ClassMatches(
        name=name,
        image=image.astype(np.int64)[order],
        hit=columns[0] & ~columns[1],
        ignored=columns[1],
        objects=objects,
    )
