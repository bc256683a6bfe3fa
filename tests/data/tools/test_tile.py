"""Tiles of a data set: their pixels, boxes and polygons against the whole images, and what is refused."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from core.tiles import tile_places
from data.coco import read_coco
from data.tools.tile import main, tile_name
from tests.support.scripts import run
from tests.support.small_sets import box, write_coco

SIDE = 64


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images as PNG, of which the second is no larger than a tile, and five objects, one of them a crowd."""
    outline = [60.0, 10, 90, 10, 90, 30, 60, 30]
    annotations = [
        box(1, 1, [60, 10, 30, 20], 3, segmentation=[outline]),  # across the border of two tiles
        box(2, 1, [100, 60, 8, 8], 7),  # in the corner
        box(3, 1, [0, 0, 130, 6], 3, iscrowd=1),
        box(4, 2, [5, 5, 20, 20], 7),
        box(5, 1, [60, 40, 20, 20], 3, segmentation=[[60, 40, 62, 40, 62, 60, 60, 60]]),  # does not span its box
    ]
    write_coco(tmp_path / "set", {"deep/a.png": (130, 70), "b.bmp": (50, 40)}, annotations)
    part = {"images": "images", "annotations": "annotations.json"}
    (tmp_path / "set/my.yaml").write_text(yaml.safe_dump({"train": part, "val": dict(part)}))
    return tmp_path / "set/my.yaml"


@pytest.fixture(autouse=True)
def _folder_of_the_subfolder(tmp_path: Path) -> None:
    (tmp_path / "set/images/deep").mkdir(parents=True)


def visible(bbox: list[float], place: tuple[int, int, int, int]) -> tuple[list[float], float]:
    """A box in a tile as left, top, right, bottom there, and the fraction of it that is visible."""
    left, top, right, bottom = bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]
    cut = [max(left, place[0]), max(top, place[1]), min(right, place[2]), min(bottom, place[3])]
    area = max(0, cut[2] - cut[0]) * max(0, cut[3] - cut[1])
    return [cut[0] - place[0], cut[1] - place[1], cut[2] - place[0], cut[3] - place[1]], area / (bbox[2] * bbox[3])


def test_pixels_boxes_and_polygons_of_the_tiles(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles"
    assert run(main, "data.tile", source, "--out", out, "--side", SIDE, "--empty", 1) == 0
    config = yaml.safe_load((out / "coco.yaml").read_text())
    found = read_coco(out / config["val"]["annotations"], out / config["val"]["images"], strict=True, progress=False)
    places = tile_places(130, 70, SIDE)
    names = [f"deep/a_{left}_{top}.png" for left, top, _, _ in places]
    assert found.file_names[:] == [*names, "b_0_0.png"] and found.classes == ["dog", "cat"]
    whole = cv2.imread(str(source.parent / "images/deep/a.png"))
    given = json.loads((source.parent / "annotations.json").read_text())["annotations"]
    for index, place in enumerate(places):
        tile = cv2.imread(found.path(index))
        assert np.array_equal(tile, whole[place[1] : place[3], place[0] : place[2]])
        expected = {}
        for each in given:
            if each["image_id"] == 1:
                corners, share = visible(each["bbox"], place)
                if share >= 0.15 or (each["iscrowd"] and share > 0):
                    expected[each["category_id"], each["iscrowd"], *corners] = each
        rows = range(found.starts[index], found.starts[index + 1])
        boxes = found.boxes[rows.start : rows.stop]
        keys = [
            (found.category_ids[found.labels[row]], int(found.crowd[row]), *box[:2], box[0] + box[2], box[1] + box[3])
            for row, box in zip(rows, boxes.tolist(), strict=True)
        ]
        assert sorted(keys) == sorted(expected)
        for row, key in zip(rows, keys, strict=True):
            polygons = found.polygons(row)
            assert len(polygons) == (expected[key]["id"] == 1)
            if polygons:
                assert [*polygons[0].min(0), *polygons[0].max(0)] == list(key[2:])
                assert found.areas[row] == (key[4] - key[2]) * (key[5] - key[3])  # the polygon is a rectangle
    assert found.boxes[found.starts[-2] :].tolist() == [[5, 5, 20, 20]]


def test_empty_tiles_of_train_are_left_out_those_of_val_kept(source: Path, tmp_path: Path) -> None:
    (source.parent / "annotations.json").write_text(
        json.dumps(
            json.loads((source.parent / "annotations.json").read_text()) | {"annotations": [box(1, 2, [5, 5, 20, 20])]}
        )
    )
    assert run(main, "data.tile", source, "--out", tmp_path / "tiles", "--side", SIDE, "--empty", 0) == 0
    listed = {
        split: json.loads((tmp_path / f"tiles/annotations/{split}.json").read_text()) for split in ("train", "val")
    }
    assert [each["file_name"] for each in listed["train"]["images"]] == ["b_0_0.png"]
    assert len(listed["val"]["images"]) == len(tile_places(130, 70, SIDE)) + 1
    assert sorted(path.name for path in (tmp_path / "tiles/images/train").rglob("*.png")) == ["b_0_0.png"]


def test_names_of_images_that_differ_in_their_suffix_only() -> None:
    taken: set[str] = set()
    place = (0, 64, 64, 128)
    names = [tile_name(name, place, taken) for name in ("x/a.png", "x/a.bmp", "x/A.TIF", "x/a.jpg")]
    assert names == ["x/a_0_64.png", "x/a-2_0_64.png", "x/A-3_0_64.png", "x/a_0_64.jpg"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--side", "20"], "--side 20: expected 64 to 4096 pixels, a multiple of 32"),
        (["--side", "650"], "--side 650: expected 64 to 4096 pixels, a multiple of 32"),
        (["--overlap", "1"], "--overlap 1.0: expected 0 to 0.9"),
        (["--empty", "2"], "--empty 2.0: expected 0 to 1"),
        (["--out", "set"], "--out set: exists and is not an empty folder; expected a new one"),
    ],
)
def test_refusals(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(main, "data.tile", source, "--out", "tiles", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "tiles").exists()
