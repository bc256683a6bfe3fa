"""Copy-paste: objects of another image, cut out along their polygons (Ghiasi et al., arXiv 2012.07177)."""

import cv2
import numpy as np

from data.mosaic import Tile, move_boxes, paint, project

MAX_COVERED = 0.3  # of the area of a box that is there already, which would otherwise no longer fit what is visible


def paste_objects(
    canvas: np.ndarray, boxes: np.ndarray, labels: np.ndarray, *, tile: Tile, matrix: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Canvas (S, S, 3 or 4), boxes (n, 4) xyxy and labels (n,) with the objects of `tile` that have polygons and fit.

    `matrix` (3, 3) moves the tile onto the canvas. An object fits if its box covers at most 30 % of each box there,
    those pasted before included.
    """
    if tile.polygons is None:
        return canvas, boxes, labels
    size = canvas.shape[0]
    rows = [row for row in range(len(tile.boxes)) if tile.polygons(row)]
    moved, kept = move_boxes(tile.boxes[rows], lambda row: tile.polygons(rows[row]), matrix, size)  # type: ignore[misc]
    mask = np.zeros((size, size), np.uint8)
    pasted: list[int] = []
    for row in np.flatnonzero(kept).tolist():
        if _covered(boxes, moved[row]).max(initial=0) > MAX_COVERED:
            continue
        if _covered(moved[pasted], moved[row]).max(initial=0) > MAX_COVERED:
            continue
        outlines = [np.rint(project(each, matrix)).astype(np.int32) for each in tile.polygons(rows[row])]
        cv2.fillPoly(mask, outlines, 255)
        pasted.append(row)
    if not pasted:
        return canvas, boxes, labels
    scene = np.zeros((size, size, 4), np.uint8)
    paint(scene, tile.image, matrix)
    canvas = np.where(mask[..., None] > 0, scene[..., : canvas.shape[2]], canvas)
    more = tile.labels[np.array(rows)[pasted]]
    return canvas, np.concatenate([boxes, moved[pasted]]), np.concatenate([labels, more])


def _covered(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(n,) the fraction of the area of each of `boxes` (n, 4) that `box` (4,) covers."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return sides.clip(0).prod(1) / np.maximum(areas, 1e-9)
