"""Detection in overlapping tiles of the images of a data set, to be scored on the whole images."""

from core.progress import progress_bar
from data.annotations import Annotations
from data.sources import open_source
from engine.evaluation.evaluate import Detected, to_rows
from engine.evaluation.ground_truth import GroundTruth
from engine.predictor import Predictor


def detect_in_tiles(
    predictor: Predictor, annotations: Annotations, *, truth: GroundTruth, progress: bool, workers: int | None
) -> list[Detected]:
    """What `predictor`, which has the side of a tile, finds in each image; ValueError if one cannot be read."""
    source = open_source(annotations.paths)
    results = progress_bar(
        predictor.run(source, workers=workers), "evaluating", total=len(annotations), unit="image", show=progress
    )
    found = []
    for index, result in enumerate(results):
        rows = to_rows(result.boxes, result.scores, result.labels, image_id=annotations.image_id(index), truth=truth)
        found.append(Detected(1, rows, losses={}, crc32=0, milliseconds=dict(result.speed), drawn=None))
    if source.skipped:
        path, reason = source.skipped[0]
        raise ValueError(f"{path}: {reason}; expected an image, as it was when the data set was read")
    return found
