"""Copy-paste: what is cut out, where it may go, and that a sample stays a function of seed, epoch and index."""

from types import SimpleNamespace

import numpy as np
import pytest

from data import build_train_loader, load_dataset
from data.copy_paste import paste_objects
from data.mosaic import Tile, move
from tests.data.test_loader import augment, content
from tests.support.small_sets import box, write_coco

TRIANGLE = np.array([[10, 10], [30, 10], [10, 30]], np.float32)
SQUARE = np.array([[40, 40], [50, 40], [50, 50], [40, 50]], np.float32)


def tile(*outlines: np.ndarray) -> Tile:
    """A red image of 64 pixels whose objects have these outlines; an empty one has no polygon."""
    image = np.full((64, 64, 3), (255, 0, 0), np.uint8)
    bounds = [[*each.min(0), *each.max(0)] if len(each) else [0, 0, 9, 9] for each in outlines]
    polygons = [[each] if len(each) else [] for each in outlines]
    return Tile(image, np.array(bounds, np.float32), np.arange(3, 3 + len(outlines)), lambda row: polygons[row])


def blank(*boxes: list[float]) -> dict[str, np.ndarray]:
    """A grey canvas of 64 pixels with these boxes of class 1."""
    found = np.array(boxes, np.float32).reshape(-1, 4)
    return {
        "canvas": np.full((64, 64, 3), 114, np.uint8),
        "boxes": found,
        "labels": np.ones(len(found), np.int64),
    }


def test_the_pixels_of_the_outline_move_and_nothing_else() -> None:
    canvas, boxes, labels = paste_objects(**blank([50, 50, 60, 60]), tile=tile(TRIANGLE), matrix=move(5, 2))
    red = (canvas == (255, 0, 0)).all(-1)
    assert ((canvas == 114).all(-1) | red).all()
    y, x = np.mgrid[:64, :64]
    depth = (x + y) - (10 + 30 + 5 + 2)  # of a pixel beyond the triangle's long side, in pixels times the root of 2
    inside = (x > 15) & (y > 12) & (depth < -1)
    outside = (x < 14) | (y < 11) | (depth > 2)
    assert red[inside].all() and not red[outside].any()
    assert boxes.tolist() == [[50, 50, 60, 60], [15, 12, 35, 32]] and labels.tolist() == [1, 3]


@pytest.mark.parametrize(("left", "expected"), [(24, [1, 3]), (22, [1])])
def test_an_object_covers_at_most_three_tenths_of_a_box(left: float, expected: list[int]) -> None:
    """A box of 20 pixels from `left`, of which the pasted one covers the part to 30."""
    _, _, labels = paste_objects(**blank([left, 10, left + 20, 30]), tile=tile(TRIANGLE), matrix=np.eye(3))
    assert labels.tolist() == expected


def test_objects_without_outline_outside_and_over_one_another_are_left_out() -> None:
    scene = tile(TRIANGLE, np.zeros((0, 2), np.float32), TRIANGLE + 1, SQUARE)
    _, boxes, labels = paste_objects(**blank(), tile=scene, matrix=np.eye(3))
    assert labels.tolist() == [3, 6] and boxes[1].tolist() == [40, 40, 50, 50]
    given = blank()
    canvas, boxes, labels = paste_objects(**given, tile=scene, matrix=move(100, 0))
    assert canvas is given["canvas"] and not len(boxes) and not len(labels)


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimpleNamespace, SimpleNamespace]:
    """The same eight images with and without polygons."""
    found = []
    for outline in (True, False):
        rows = [box(k, k + 1, [10 + k, 8, 20, 30], 3) for k in range(8)]
        for k, row in enumerate(rows):
            if outline:
                row["segmentation"] = [[10 + k, 8, 30 + k, 8, 30 + k, 38, 10 + k, 38]]
        path = write_coco(tmp_path_factory.mktemp("paste"), {f"{k}.png": (80, 70) for k in range(8)}, rows)
        split = SimpleNamespace(images=str(path.parent / "images"), annotations=str(path))
        found.append(SimpleNamespace(root=str(path.parent), train=split, val=split, test=None, embedded=None))
    return found[0], found[1]


def loader(section: SimpleNamespace, copy_paste: float, workers: int = 0):  # type: ignore[no-untyped-def]
    return build_train_loader(
        load_dataset(section, "train", progress=False),
        imgsz=96,
        batch=4,
        augment=augment(copy_paste=copy_paste, mosaic=0.0, mixup=0.0),
        mosaic_until=1,
        cache="off",
        workers=workers,
        progress=False,
    )


def test_samples_do_not_depend_on_workers_and_the_final_epochs_are_without(
    sections: tuple[SimpleNamespace, SimpleNamespace],
) -> None:
    plain, pasted = (content(loader(sections[0], share), range(2)) for share in (0.0, 1.0))
    assert content(loader(sections[0], 1.0, workers=2), range(2)) == pasted
    assert plain[2:] == pasted[2:] and plain[0] != pasted[0]
    objects = [sum(sum(map(sum, batch[3])) for batch in batches[:2]) for batches in (plain, pasted)]
    assert objects[0] < objects[1]


def test_without_polygons_there_is_nothing_to_paste(sections: tuple[SimpleNamespace, SimpleNamespace]) -> None:
    with pytest.raises(ValueError, match=r"augment\.copy_paste: no annotation of .* has polygons"):
        loader(sections[1], 0.5)
    assert len(loader(sections[1], 0.0)) == 2
