"""Evaluate a checkpoint, in one process or as one of several: python -m tests.support.scores_together OUT WEIGHTS DATA.

Rank 0 writes to OUT the predictions, the twelve numbers, the loss terms and the checksum of the batches.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from configs.loading import load_data
from configs.schema import Data
from core.distributed import gather, joined, rank, world
from core.options import NmsOptions
from data import build_eval_loader, load_dataset
from engine.checkpoint import build_from_checkpoint
from engine.evaluation.evaluate import detect, in_turn, score
from engine.evaluation.ground_truth import GroundTruth

NMS = NmsOptions(conf=0.001, iou=0.7, max_det=300, multi_label=True)


def scores(weights: Path, data: Path) -> dict[str, Any] | None:
    """What rank 0 scores; None elsewhere."""
    model, _, _ = build_from_checkpoint(weights)
    annotations = load_dataset(Data.model_validate(load_data(str(data))), "val", progress=False)
    loader = build_eval_loader(
        annotations, imgsz=96, batch=2, preprocess=model.preprocess, progress=False, rank=rank(), world=world()
    )
    truth = GroundTruth.from_annotations(annotations)
    found = gather(detect(model, loader, truth=truth, nms=NMS, loss=True))
    if found is None:
        return None
    result = score(in_turn(found), truth=truth, nms=NMS, official=True)
    return {
        "predictions": torch.from_numpy(result.predictions),
        "numbers": result.stats.numbers,
        "losses": result.losses,
        "crc32": result.batches_crc32,
        "drawn": [batch.paths for batch in result.drawn],
    }


if __name__ == "__main__":
    with joined():
        found = scores(Path(sys.argv[2]), Path(sys.argv[3]))
        if found is not None:
            torch.save(found, sys.argv[1])
