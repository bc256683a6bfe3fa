"""The mAP lost to a planted fault: ``python -m benchmarks.faults FAULT [arguments of train.py]``.

A data set is useful for testing if a mistake in the pipeline lowers the mAP. Each fault is inserted after the affine
transform of the training samples, or in the loss; validation is unchanged.
"""

import sys
import zlib
from collections.abc import Callable
from unittest import mock

import numpy as np

import data.samples
import train
from configs.cli import run_script

OFFSET = 4.0  # pixels


def shift(boxes: np.ndarray, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) four pixels too far right and down."""
    return np.clip(boxes + np.float32(OFFSET), 0, size), labels


def swap(boxes: np.ndarray, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes with width and height exchanged about the same centre."""
    centres, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    return np.clip(np.concatenate([centres - halves[:, ::-1], centres + halves[:, ::-1]], 1), 0, size), labels


def shuffle(boxes: np.ndarray, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels permuted among the boxes of an image."""
    return boxes, np.random.default_rng(zlib.crc32(boxes.tobytes())).permutation(labels)


SAMPLE_FAULTS: dict[str, Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]] = {
    "shift": shift,
    "swap": swap,
    "shuffle": shuffle,
}
LOSS_FAULTS = {
    "no-ciou": ["model.loss.box=0"],
    "no-box-loss": ["model.loss.box=0", "model.loss.dfl=0"],
}


def main() -> int:
    """Plant the fault named on the command line and train."""
    faults = [*SAMPLE_FAULTS, *LOSS_FAULTS]
    if len(sys.argv) < 2 or sys.argv[1] not in faults:
        raise ValueError(f"usage: python -m benchmarks.faults {{{','.join(faults)}}} [arguments of train.py]")
    fault, arguments = sys.argv[1], sys.argv[2:] or ["--cfg", "yolo-mish.yaml"]
    if fault in LOSS_FAULTS:
        return train.main([*arguments, "--set", *LOSS_FAULTS[fault]])
    lay_out, spoil = data.samples.lay_out, SAMPLE_FAULTS[fault]

    def faulty(tiles: list, matrices: list, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        canvas, boxes, labels = lay_out(tiles, matrices, size)
        return canvas, *spoil(boxes, labels, size)

    with mock.patch.object(data.samples, "lay_out", faulty):
        return train.main(arguments)


if __name__ == "__main__":
    run_script(main)
