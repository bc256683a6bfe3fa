"""YOLO text labels to COCO JSON."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from data.coco import read_coco
from data.tools.convert import convert, main
from data.yolo_labels import label_path, parse_labels


def image(path, width=200, height=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)


def labels(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "set"
    image(root / "images" / "train" / "a.png")
    image(root / "images" / "train" / "deep" / "b.png")
    image(root / "images" / "val" / "c.jpg")
    labels(root / "labels" / "train" / "a.txt", "0 0.5 0.5 0.2 0.4\n1 0.1 0.1 0.3 0.1 0.3 0.5\n")
    labels(root / "labels" / "val" / "c.txt", "1 0.5 0.5 1.02 1.0\n")
    (root / "data.yaml").write_text(
        yaml.safe_dump({"path": "/gone", "train": "images/train", "val": "images/val", "names": {0: "cat", 1: "dog"}})
    )
    return root


def test_by_hand(source):
    recipe, issues = convert(source / "data.yaml", progress=False)
    assert issues == []
    section = yaml.safe_load(recipe.read_text())
    train = read_coco(section["train"]["annotations"], section["train"]["images"], strict=True, progress=False)
    assert train.classes == ["cat", "dog"] and train.file_names[:] == ["images/train/a.png", "images/train/deep/b.png"]
    np.testing.assert_allclose(train.boxes, [[80, 30, 40, 40], [20, 10, 40, 40]])
    np.testing.assert_allclose(train.polygons(1)[0], [[20, 10], [60, 10], [60, 50]])
    assert train.starts.tolist() == [0, 2, 2]  # b.png has no label file: an image without objects
    val = read_coco(section["val"]["annotations"], section["val"]["images"], strict=True, progress=False)
    np.testing.assert_allclose(val.boxes, [[0, 0, 200, 100]])  # rounding beyond the border is cut


def test_a_folder_without_yaml_and_names_given(source):
    (source / "data.yaml").unlink()
    recipe, _ = convert(source, source / "out", names=["x", "y"], progress=False)
    assert recipe == source / "out" / "coco.yaml"
    content = json.loads((source / "out" / "annotations" / "train.json").read_text())
    assert content["categories"] == [{"id": 0, "name": "x"}, {"id": 1, "name": "y"}]


def test_list_files(source):
    (source / "train.txt").write_text("./images/train/a.png\nimages/train/deep/b.png\n")
    (source / "data.yaml").write_text("train: train.txt\nnames: [cat, dog]\n")
    recipe, issues = convert(source, progress=False)
    assert issues == [] and len(json.loads((source / "annotations" / "train.json").read_text())["images"]) == 2


def test_damage_is_named_skipped_and_refused_if_strict(source):
    labels(
        source / "labels" / "train" / "a.txt",
        "0 0.5 0.5 0.2\nx\n0 nan 0 1 1\n0 0.5 0.5 0 0.1\n0 5 5 1 1\n-1 .5 .5 .1 .1\n0 .5 .5 .1 .1\n",
    )
    (source / "images" / "train" / "z.png").write_bytes(b"no image")
    _, issues = convert(source, progress=False)
    assert [issue.kind for issue in issues].count("bad-record") == 5
    assert {issue.kind for issue in issues} == {"bad-record", "bad-box", "not-an-image"}
    assert len(json.loads((source / "annotations" / "train.json").read_text())["annotations"]) == 1
    with pytest.raises(ValueError):
        convert(source, strict=True, progress=False)


def test_nothing_is_written_where_no_label_can_be_used(source):
    labels(source / "labels" / "train" / "a.txt", "0 100 50 40 40\n")
    with pytest.raises(ValueError, match=r"no annotation of train.*a\.txt, line 1"):
        convert(source / "data.yaml", progress=False)
    assert not (source / "coco.yaml").exists() and not (source / "annotations").exists()


def test_last_images_folder_becomes_labels(tmp_path):
    assert label_path(tmp_path / "images" / "x" / "images" / "y" / "a.jpg") == tmp_path / "images/x/labels/y/a.txt"


def test_float_class_numbers_are_read():
    good, bad = parse_labels("1.0 0.5 0.5 0.5 0.5", 10, 10)
    assert good[0]["category_id"] == 1 and bad == []


@pytest.mark.parametrize("case", ["missing", "empty", "text", "list", "nothing", "classes", "folder"])
def test_command_line_refuses_in_one_line(source, case, capsys, tmp_path):
    target = source / "data.yaml"
    if case == "missing":
        target = tmp_path / "nothing"
    elif case == "folder":
        target = tmp_path / "bare"
        target.mkdir()
    else:
        text = {
            "empty": "",
            "text": "{",
            "list": "[1]",
            "nothing": "names: [a]",
            "classes": "train: images/train\nnames: [a]",
        }
        target.write_text(text[case])
    assert main([str(target)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_command_line(source, capsys):
    assert main([str(source)]) == 0
    assert "coco.yaml" in capsys.readouterr().out


def test_a_class_number_beyond_all_does_not_make_as_many_classes(source):
    labels(
        source / "labels" / "train" / "a.txt", "999999999 0.5 0.5 0.2 0.4\n1e300 0.5 0.5 0.2 0.4\n0 0.5 0.5 0.2 0.4\n"
    )
    (source / "data.yaml").unlink()
    recipe, issues = convert(source, progress=False)
    assert [issue.kind for issue in issues] == ["bad-record"] * 2
    assert len(json.loads((source / "annotations" / "train.json").read_text())["categories"]) == 2  # of c.txt


def test_every_image_that_can_be_read_is_converted_and_others_are_counted(source, capsys):
    folder = source / "images" / "train"
    image(folder / "e.png")
    for name in ("f.jfif", "g.gif", "h.jp2", "i"):
        Image.open(folder / "e.png").save(folder / name, {"f.jfif": "JPEG", "h.jp2": "JPEG2000"}.get(name, "GIF"))
    (folder / "readme.md").write_text("text")
    convert(source, progress=False)
    content = json.loads((source / "annotations" / "train.json").read_text())
    assert [entry["file_name"].split("/")[-1] for entry in content["images"]] == [
        "a.png", "b.png", "e.png", "f.jfif", "g.gif", "h.jp2", "i",
    ]  # fmt: skip
    assert capsys.readouterr().err.count("\n") == 1


def test_files_of_others_are_not_overwritten(source, capsys):
    (source / "annotations").mkdir()
    own = source / "annotations" / "train.json"
    own.write_text("{}")
    assert main([str(source)]) == 2
    assert "--out" in capsys.readouterr().err and own.read_text() == "{}"
    assert sorted(path.name for path in source.iterdir()) == ["annotations", "data.yaml", "images", "labels"]
    assert main([str(source), "--out", str(source / "out")]) == 0
    own.unlink()
    assert main([str(source / "data.yaml")]) == 0
    assert main([str(source / "data.yaml")]) == 0  # its own files may be


def test_xml_is_converted_as_well(tmp_path):
    image(tmp_path / "images" / "a.png")
    box = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.xml").write_text(
        f"<annotation><filename>a.png</filename><object><name>cat</name>{box}</object></annotation>"
    )
    recipe, issues = convert(tmp_path, tmp_path / "out", progress=False)
    section = yaml.safe_load(recipe.read_text())["train"]
    found = read_coco(section["annotations"], section["images"], strict=True, progress=False)
    assert found.boxes.tolist() == [[10, 20, 20, 20]] and found.classes == ["cat"] and issues == []
    with pytest.raises(ValueError, match="names"):
        convert(tmp_path, tmp_path / "out", names=["dog"], progress=False)


def test_coco_needs_no_conversion(tmp_path):
    (tmp_path / "d.yaml").write_text("train: {images: i, annotations: a.json}\nval: {images: i, annotations: a.json}\n")
    with pytest.raises(ValueError, match="need no conversion"):
        convert(tmp_path / "d.yaml", progress=False)
