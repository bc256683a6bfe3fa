"""Annotations from plain lists: a new data format is one function, from the config to the score."""

import json
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

import data
import train
from data import Annotations, build_train_loader, load_dataset
from data.coco import read_coco
from data.issues import Issue, refuse
from data.text_column import TextColumn
from engine.evaluation.ground_truth import GroundTruth
from tests.support.scripts import run
from tests.support.training import SMALL

CLASSES = ("cat", "dog")


def read_voc(annotations, images, *, strict=False, progress=True):
    """Pascal VOC: one XML file per image; coordinates are pixels counted from 1."""
    files, sizes, boxes, labels, crowd = [], [], [], [], []
    for path in sorted(Path(annotations).glob("*.xml")):
        root = ElementTree.parse(path).getroot()
        objects = root.findall("object")
        files.append(root.findtext("filename"))
        sizes.append(tuple(int(root.findtext(f"size/{key}")) for key in ("width", "height")))
        corners = [[float(o.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")] for o in objects]
        boxes.append([[x1 - 1, y1 - 1, x2, y2] for x1, y1, x2, y2 in corners])
        labels.append([CLASSES.index(o.findtext("name")) for o in objects])
        crowd.append([o.findtext("difficult") == "1" for o in objects])
    lists = {"file_names": files, "sizes": sizes, "boxes": boxes, "labels": labels, "crowd": crowd}
    read = Annotations.from_lists(annotations, images, classes=CLASSES, **lists)
    if strict:
        refuse(read.issues)
    return read


@pytest.fixture
def voc(tiny, monkeypatch) -> SimpleNamespace:
    """The images of `tiny`, annotated once more as VOC; the second object of each third image is `difficult`."""
    monkeypatch.setitem(data.READERS, "voc", read_voc)
    coco = read_coco(tiny.train.annotations, tiny.train.images, progress=False)
    folder = Path(tiny.root) / "Annotations"
    folder.mkdir()
    for i, name in enumerate(coco.file_names):
        width, height = coco.sizes[i]
        objects = ""
        for j, row in enumerate(range(coco.starts[i], coco.starts[i + 1])):
            x, y, w, h = coco.boxes[row]
            corners = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
            objects += f"<object><name>{CLASSES[j]}</name><difficult>{int(i % 3 == 0 and j == 1)}</difficult>"
            objects += f"<bndbox>{corners}</bndbox></object>"
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        text = f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"
        (folder / f"{i:02d}.xml").write_text(text)
    split = SimpleNamespace(images=tiny.train.images, annotations=str(folder), format="voc")
    return SimpleNamespace(root=tiny.root, train=split, val=split, test=None, embedded=None)


def test_a_reader_of_another_format_is_loaded_and_batched(voc, tiny):
    annotations = load_dataset(voc, "train", progress=False)
    expected = load_dataset(tiny, "train", progress=False)
    assert np.array_equal(annotations.boxes, expected.boxes) and annotations.crowd.sum() == 4
    assert annotations.issues == [] and annotations.source.endswith("Annotations")
    options = {"imgsz": 64, "batch": 4, "progress": False, "cache": "disk"}
    batches = list(build_train_loader(annotations, **options))
    assert sum(int(batch.targets.mask.sum()) for batch in batches) == 24 - 4  # crowds are not trained
    assert {path for batch in batches for path in batch.paths} == set(expected.paths)
    assert len(list((Path(voc.root) / ".cache").glob("images-*.bin"))) == 1


def test_ground_truth_comes_from_the_arrays(voc):
    truth = GroundTruth.from_annotations(load_dataset(voc, "val", progress=False)).as_coco()
    assert len(truth["annotations"]) == 24 and sum(entry["iscrowd"] for entry in truth["annotations"]) == 4
    assert [category["name"] for category in truth["categories"]] == list(CLASSES)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_training_with_a_new_format(voc, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    split = {"images": voc.train.images, "annotations": voc.train.annotations, "format": "voc"}
    Path("voc.yaml").write_text(json.dumps({"root": voc.root, "train": split, "val": split}))
    arguments = ("--cfg", SMALL, "--data", "voc.yaml", "--imgsz", 64, "--batch", 4, "--workers", 0)
    assert run(train.main, "train.py", *arguments, "--epochs", 1, "--no-amp") == 0
    assert load_dataset(voc, "train", progress=False).sha256 in Path("runs/train/exp/run.json").read_text()
    Path("voc.yaml").write_text(json.dumps({"root": voc.root, "train": split | {"format": "vco"}, "val": split}))
    assert run(train.main, "train.py", *arguments) == 2
    error = capsys.readouterr().err
    assert "data.train.format" in error and "'voc'" in error


def lists(**changes):
    given = {"classes": CLASSES, "file_names": ["a.png", "b.png"], "boxes": [[[1, 2, 5, 9]], []], "labels": [[1], []]}
    return Annotations.from_lists("list.csv", "images", **{**given, **changes})


def test_box_formats_polygons_and_hashes():
    plain = lists()
    assert plain.boxes.tolist() == [[1, 2, 4, 7]] and plain.areas.tolist() == [28] and plain.labels.tolist() == [1]
    assert lists(boxes=[[[1, 2, 4, 7]], []], box_format="xywh").sha256 == plain.sha256
    assert lists(boxes=[[[1, 2, 5, 8]], []]).sha256 != plain.sha256 and lists(sha256="known").sha256 == "known"
    outlined = lists(polygons=[[[[1, 2, 5, 2, 5, 9]]], []])
    assert [polygon.tolist() for polygon in outlined.polygons(0)] == [[[1, 2], [5, 2], [5, 9]]]
    assert plain.image_ids == [1, 2] and plain.category_ids == [1, 2]


def test_unusable_entries_become_issues():
    nan = float("nan")
    boxes = [[[1, 2, 5, 9], [nan, 0, 1, 1], [3, 3, 3, 8], [90, 90, 95, 95], [0, 0, 2]], [[0, 0, 3, 3]]]
    sizes, given = [(20, 20), (20, 20)], Issue("x.png", "missing", "is missing", "here")
    found = lists(boxes=boxes, labels=[[0] * 5, [2]], sizes=sizes, issues=[given])
    kinds = ["missing", "bad-box", "bad-box", "outside", "bad-box", "unknown-category"]
    assert [issue.kind for issue in found.issues] == kinds and len(found.boxes) == 1 and len(found) == 2
    outside = lists(file_names=["../a.png", "b.png"])
    assert [issue.kind for issue in outside.issues] == ["unsafe-path"] and list(outside.file_names) == ["b.png"]


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": [[1]]},
        {"labels": [[], []]},
        {"crowd": [[True, False], []]},
        {"classes": []},
        {"file_names": ["/a.png", "/b.png"]},
    ],
)
def test_lists_that_do_not_fit_are_refused(changes):
    with pytest.raises(ValueError, match=r"list\.csv"):
        lists(**changes)


def test_text_columns_behave_like_sequences():
    column = TextColumn.of(["a", "\u00e9\u00e8", ""])
    assert list(column) == ["a", "\u00e9\u00e8", ""] and column[-1] == "" and column[:2] == ["a", "\u00e9\u00e8"]
