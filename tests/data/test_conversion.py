"""YOLO labels, Pascal VOC and CVAT XML, read as COCO: boxes by hand, classes, issues, and the cache."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.loading import CONFIGS
from configs.schema import Data, load
from data import load_dataset
from data.annotations import Annotations
from data.yolo_labels import guess_keypoints, parse_labels

BOX = "0 0.5 0.5 0.25 0.5\n"  # of an image of 80 x 40 pixels: [30, 10, 20, 20]


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(path)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A YOLO set with one image per split."""
    for split in ("train", "val"):
        image(tmp_path / f"images/{split}/{split}.jpg")
        write(tmp_path / f"labels/{split}/{split}.txt", BOX)
    write(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: {0: yes, 1: 1.0}\n")
    return tmp_path


def data(source: Path, **options: object) -> Data:
    return load(CONFIGS / "yolo.yaml", {"data": str(source), **options}).data


def read(source: Path, split: str = "train", **options: object) -> Annotations:
    return load_dataset(data(source, **options), split, progress=False)


def test_a_yolo_set_is_read_as_coco(yolo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source in (yolo / "data.yaml", yolo):
        for split in ("train", "val"):
            found = read(source, split)
            assert found.classes == ["yes", "1.0"] and found.boxes.tolist() == [[30, 10, 20, 20]]
            assert found.paths == [str(yolo / f"images/{split}/{split}.jpg")] and not found.issues
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "YOLO labels of train, val converted" in err and str(yolo / ".cache") in err
    user = {path.relative_to(yolo).parts[0] for path in yolo.rglob("*")}
    assert user == {"images", "labels", "data.yaml", ".cache"}


def test_what_changes_is_converted_again_and_nothing_else(yolo: Path) -> None:
    first = read(yolo)
    made = next((yolo / ".cache").rglob("conversion.json"))
    before = made.stat().st_mtime_ns
    assert read(yolo).sha256 == first.sha256 and made.stat().st_mtime_ns == before
    write(yolo / "labels/train/train.txt", BOX * 2)
    assert len(read(yolo).boxes) == 2
    image(yolo / "images/train/more.jpg")
    assert len(read(yolo)) == 2
    write(yolo / "data.yaml", "train: images/train\nval: images/val\nnames: [a, b]\n")
    assert read(yolo).classes == ["a", "b"]
    os.remove(yolo / "labels/val/val.txt")
    assert len(read(yolo, "val").boxes) == 0
    for path in (yolo / ".cache").rglob("train.json"):
        path.unlink()
    assert len(read(yolo)) == 2
    for path in (yolo / ".cache").rglob("conversion.json"):
        path.write_text("{")
    assert len(read(yolo)) == 2


@pytest.mark.parametrize("damage", ["not JSON", "[]", '{"key": 1}', '{"splits": 3}', None])
def test_a_damaged_cache_is_made_anew(yolo: Path, damage: str | None) -> None:
    boxes = read(yolo).boxes.tolist()
    (record,) = yolo.glob(".cache/*/conversion.json")
    content = json.loads(record.read_text())
    if damage is None:
        write(record.with_name("train.json"), '{"images": [')
    else:
        record.write_text(json.dumps({"key": content["key"]}) if damage == '{"key": 1}' else damage)
    assert read(yolo).boxes.tolist() == boxes and json.loads(record.read_text()) == content


def test_the_cache_of_a_flat_folder_is_in_it(tmp_path: Path) -> None:
    image(tmp_path / "flat/a.jpg")
    write(tmp_path / "flat/a.txt", BOX)
    assert len(read(tmp_path / "flat", **{"train.holdout": 0.5}).boxes) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["flat"] and (tmp_path / "flat/.cache").is_dir()


def test_faults_of_labels_and_images_are_issues_each_time(yolo: Path) -> None:
    write(yolo / "images/train/broken.jpg", b"\xff\xd8\xff")
    write(yolo / "labels/train/train.txt", BOX * 3 + "0 nan 0 1 1\n0 .5 .5 .1\n0 .5 .5 0 .5\n")
    for _ in range(2):
        found = read(yolo)
        assert len(found.boxes) == 3 and len(found) == 1
        assert found.listed == (2, 6) and "(50%)" in found.skipped
        assert sorted(issue.kind for issue in found.issues) == ["bad-box", "bad-record", "bad-record", "not-an-image"]
    with pytest.raises(ValueError, match="more issues"):
        load_dataset(data(yolo), "train", strict=True, progress=False)


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("0,0.5,0.5,0.25,0.5", "not numbers"),
        ("0 0,5 0,5 0,25 0,5", "not numbers"),
        ("cat 0.5 0.5 0.25 0.5", "not numbers"),
        ("0 40 20 20 20", "outside 0 to 1"),
        ("0 0.5 0.5 0.25 0.5 0.93", "neither class cx cy w h"),
        ("-1 0.5 0.5 0.25 0.5", "neither class cx cy w h"),
        ("0 0.5 0.5 0 0", "zero width"),
    ],
)
def test_labels_of_which_none_can_be_used_are_refused_with_the_reason(yolo: Path, label: str, reason: str) -> None:
    write(yolo / "labels/train/train.txt", label + "\n")
    with pytest.raises(ValueError, match=rf"1 of 1 annotations .*{reason}.*train\.txt"):
        read(yolo)


def test_an_image_whose_labels_are_no_text_is_not_background(yolo: Path) -> None:
    image(yolo / "images/train/b.jpg")
    write(yolo / "labels/train/b.txt", bytes(range(256)))
    found = read(yolo)
    assert found.file_names[:] == ["images/train/train.jpg"] and "1 of 2 images" in found.skipped


@pytest.mark.parametrize("text", ["# made by hand\n" + BOX, BOX + "\0\0\0", BOX + "\x1a", BOX.replace(" ", "\u00a0")])
def test_what_is_no_label_in_a_label_file_is_passed_over(yolo: Path, text: str) -> None:
    write(yolo / "labels/train/train.txt", text)
    found = read(yolo)
    assert found.boxes.tolist() == [[30, 10, 20, 20]] and not found.issues


def test_a_split_without_label_files_is_told(yolo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (yolo / "labels/val/val.txt").unlink()
    assert len(read(yolo, "val").boxes) == 0
    assert f"none of the 1 images of val has a label file, expected for instance {yolo}" in capsys.readouterr().err


def test_links_without_a_target_are_missing_images(yolo: Path) -> None:
    (yolo / "images/train/gone.jpg").symlink_to(yolo / "nowhere.jpg")
    assert [(issue.file, issue.kind) for issue in read(yolo).issues] == [("images/train/gone.jpg", "missing")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_labels_and_lists_of_other_systems(yolo: Path, encoding: str) -> None:
    write(yolo / "labels/train/train.txt", BOX.replace("\n", "\r\n").encode(encoding))
    write(yolo / "list.txt", "images\\train\\train.jpg\r\n".encode(encoding))
    write(yolo / "data.yaml", "train: list.txt\r\nval: images/val\r\nnames: [café]\r\n".encode(encoding))
    found = read(yolo)
    assert found.boxes.tolist() == [[30, 10, 20, 20]] and found.classes == ["café"]


def test_lists_name_images_as_other_machines_do(yolo: Path) -> None:
    image(yolo / "images/train/b.jpg")
    lines = [
        "./images/train/train.jpg",
        "data/images/train/b.jpg",
        "/home/other/set/images/val/val.jpg",
        "gone.jpg",
        "",
    ]
    write(yolo / "list.txt", "\n".join(lines))
    write(yolo / "data.yaml", "train: [list.txt]\nval: images/val\nnames: [a]\n")
    found = read(yolo)
    assert found.file_names[:] == ["images/train/train.jpg", "images/train/b.jpg", "images/val/val.jpg"]
    assert [(issue.kind, issue.file) for issue in found.issues] == [("missing", "gone.jpg")]


def test_links_to_shared_images_have_their_own_labels(yolo: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    mine = tmp_path_factory.mktemp("mine")
    (mine / "images").mkdir()
    (mine / "images/train").symlink_to(yolo / "images/train")
    (mine / "images/val").mkdir()
    (mine / "images/val/linked.jpg").symlink_to(yolo / "images/val/val.jpg")
    write(mine / "labels/train/train.txt", "0 .5 .5 1 1\n")
    write(mine / "data.yaml", "train: images/train\nval: images/val\nnames: [a]\n")
    assert read(mine).boxes.tolist() == [[0, 0, 80, 40]]
    assert read(mine, "val").boxes.tolist() == [[30, 10, 20, 20]]  # else the labels beside the shared image
    write(mine / "data.yaml", "train: images\nval: images/val\nnames: [a]\n")
    assert len(read(mine)) == 2


def test_images_outside_the_root(yolo: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write(other / "d.yaml", f"train: [{yolo}/images/train, {yolo}/images/val]\nval: {yolo}/images/val\nnames: [a]\n")
    assert read(other / "d.yaml").file_names[:] == ["train/train.jpg", "val/val.jpg"]


def test_a_training_set_without_labels_is_refused_with_where_they_belong(yolo: Path) -> None:
    os.remove(yolo / "labels/train/train.txt")
    with pytest.raises(ValueError, match="none of the 1 training images.*labels/train/train.txt"):
        read(yolo)


def test_a_class_without_a_name_is_refused(yolo: Path) -> None:
    write(yolo / "labels/val/val.txt", "2 .5 .5 .1 .1\n")
    with pytest.raises(ValueError, match="class 2.*2 names"):
        read(yolo)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: [no, ~, 007]", ["no", "~", "007"]),
        ("names: {'0': cat, 2: dog}", ["cat", "class 1", "dog"]),
        ("nc: 3", ["class 0", "class 1", "class 2"]),
        ("nc: 9\nnames: [a, b, c]", ["a", "b", "c"]),
    ],
)
def test_class_names_of_a_yaml(yolo: Path, names: str, expected: list[str]) -> None:
    write(yolo / "data.yaml", f"train: images/train\nval: images/val\n{names}\n")
    assert read(yolo).classes == expected


@pytest.mark.parametrize(
    "names", ["names: {a: b}", "names: [[a]]", "kpt_shape: 3\nnames: [a]", "kpt_shape: [0, 4]\nnames: [a]"]
)
def test_other_names_are_refused(yolo: Path, names: str) -> None:
    write(yolo / "data.yaml", f"train: images/train\nval: images/val\n{names}\n")
    with pytest.raises(ValueError, match="names|kpt_shape"):
        read(yolo)


# ---------------------------------------------------------------------------------------------------------------- poses

POSE_2 = "0 0.5 0.5 0.2 0.4 .45 .4 .55 .4 .45 .6 .55 .6\n"
POSE_3 = "0 0.5 0.5 0.2 0.4 .45 .4 2 .55 .4 1 0 0 0\n"
OUTLINES = "0 .1 .1 .3 .1 .3 .3\n0 .2 .2 .6 .2 .6 .6 .4 .7\n"


@pytest.mark.parametrize("shape", [None, 2, 3])
@pytest.mark.parametrize(("labels", "size"), [(POSE_2, 2), (POSE_3, 3)])
def test_boxes_of_poses_are_used_and_said(
    yolo: Path, labels: str, size: int, shape: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    count = (len(labels.split()) - 5) // size
    key = "" if shape is None else f"kpt_shape: [{count}, {size}]\n"
    write(yolo / "data.yaml", f"train: images/train\nval: images/val\nnames: [card]\n{key}")
    write(yolo / "labels/train/train.txt", labels + "0 .5 .5 .25 .5\n")
    found = read(yolo)
    assert found.boxes.tolist() == [[32, 12, 16, 16], [30, 10, 20, 20]] and not found.issues
    assert "pose" in capsys.readouterr().err


def test_keypoints_of_another_number_are_issues(yolo: Path) -> None:
    write(yolo / "data.yaml", "train: images/train\nval: images/val\nnames: [card]\nkpt_shape: [17, 3]\n")
    write(yolo / "labels/train/train.txt", POSE_2 + BOX)
    found = read(yolo)
    assert len(found.boxes) == 1 and [issue.kind for issue in found.issues] == ["bad-record"]


@pytest.mark.parametrize(
    "labels",
    [
        OUTLINES,
        "0 .4 .4 .6 .4 .6 .6 .4 .6\n",  # a box of four corners
        "0 .5 .5 .6 .5 .6 .6\n",  # a triangle
        "0 .5 .5 .55 .5 .55 .55 .52 .6 .47 .53\n",  # a small object in the middle, as a box [.22, .78] holds its points
        POSE_2 + OUTLINES,
        BOX,
        "",
    ],
)
def test_outlines_are_no_poses(labels: str) -> None:
    assert guess_keypoints([labels]) == 0


def test_many_lines_of_one_length_with_boxes_that_hold_their_points_are_poses() -> None:
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(30):
        width, height = rng.uniform(0.2, 0.9, 2)
        cx, cy = rng.uniform(width / 2, 1 - width / 2), rng.uniform(height / 2, 1 - height / 2)
        points = np.stack([cx + width * rng.uniform(-0.5, 0.5, 5), cy + height * rng.uniform(-0.5, 0.5, 5)], 1)
        lines.append(" ".join(map(str, [0, cx, cy, width, height, *points.ravel()])))
    assert guess_keypoints(["\n".join(lines)]) == 10


def test_random_outlines_are_no_poses() -> None:
    rng = np.random.default_rng(1)
    for count in (5, 6, 9):
        centres = rng.uniform(0.2, 0.8, (40, 1, 2))
        points = np.clip(centres + rng.uniform(-0.2, 0.2, (40, count, 2)), 0, 1)
        lines = [" ".join(map(str, [0, *outline.ravel()])) for outline in points]
        assert guess_keypoints(["\n".join(lines)]) == 0


def test_an_outline_keeps_its_points() -> None:
    good, bad = parse_labels("0 .1 .25 .3 .25 .3 .5\n", 100, 40)
    assert not bad and good[0]["bbox"] == [10, 10, 20, 10] and good[0]["segmentation"] == [[10, 10, 30, 10, 30, 20]]


# ------------------------------------------------------------------------------------------------------------------ XML


def voc(name: str, *objects: str, size: str = "<size><width>80</width><height>40</height></size>") -> str:
    """XML of Pascal VOC; objects are 'name xmin ymin xmax ymax', from 1, both ends included."""
    parts = []
    for text in objects:
        label, *corners = text.split()
        tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
        parts.append(f"<object><name>{label}</name><bndbox>{box}</bndbox></object>")
    return f"<annotation><filename>{name}</filename>{size}{''.join(parts)}</annotation>"


def test_pascal_voc_by_hand(tmp_path: Path) -> None:
    for split, label in (("train", "dog"), ("val", "cat")):
        image(tmp_path / f"JPEGImages/{split}.jpg")
        write(tmp_path / f"Annotations/{split}.xml", voc(f"{split}.jpg", f"{label} 11 6 30 25"))
        write(tmp_path / f"ImageSets/Main/{split}.txt", f"{split}\r\n")
    for split, label in (("train", 1), ("val", 0)):
        found = read(tmp_path, split)
        assert found.classes == ["cat", "dog"] and found.labels.tolist() == [label]  # the same in all splits
        assert found.boxes.tolist() == [[10, 5, 20, 20]] and found.file_names[:] == [f"{split}.jpg"]


def test_the_order_of_voc_classes_is_that_of_their_list(tmp_path: Path) -> None:
    image(tmp_path / "JPEGImages/a.jpg")
    write(tmp_path / "Annotations/a.xml", voc("a.jpg", "dog 11 6 30 25"))
    assert read(tmp_path, **{"train.holdout": 0.5}).classes == ["dog"]
    write(tmp_path / "labels.txt", "traffic light\r\ndog\r\ncat\r\n")
    assert read(tmp_path, **{"train.holdout": 0.5}).classes == ["traffic light", "dog", "cat"]


def test_voc_of_any_encoding_and_with_faults(tmp_path: Path) -> None:
    texts: dict[str, str | bytes] = {
        "plain": voc("plain.jpg", "cat 1 1 10 10"),
        "marked": b"\xef\xbb\xbf" + voc("marked.jpg", "cat 1 1 10 10").encode(),
        "wide": ('<?xml version="1.0" encoding="utf-16"?>' + voc("wide.jpg", "cat 1 1 10 10")).encode("utf-16"),
        "latin": ('<?xml version="1.0" encoding="iso-8859-1"?>' + voc("latin.jpg", "café 1 1 9 9")).encode("latin-1"),
        "named_otherwise": voc("C:\\photos\\IMG_1.png", "cat 1 1 10 10"),
        "without_size": voc("without_size.jpg", "cat 1 1 10 10", size=""),
        "truncated": voc("truncated.jpg", "cat 1 1 10 10")[:60],
        "text": voc("text.jpg", "cat 1 1 10 x"),
        "turned": voc("turned.jpg", "cat 10 10 1 1"),
    }
    for name, text in texts.items():
        image(tmp_path / f"train/{name}.jpg")
        write(tmp_path / f"train/{name}.xml", text)
    found = read(tmp_path, **{"train.holdout": 0.5})
    assert sorted(found.file_names) == sorted(f"{name}.jpg" for name in list(texts)[:6])
    assert len(found.boxes) == 6 and found.sizes.tolist() == [[80, 40]] * 6
    assert {issue.file for issue in found.issues} == {"truncated.xml", "text.xml", "turned.xml"}
    assert set(found.classes) == {"cat", "café"}


@pytest.mark.parametrize("name", ["R&amp;D", "R&#38;D", "<![CDATA[R&D]]>", "R<!-- and -->&amp;D", "&rd;"])
def test_names_in_xml_mean_what_xml_says(tmp_path: Path, name: str) -> None:
    image(tmp_path / "train/a.jpg")
    declared = '<!DOCTYPE annotation [<!ENTITY rd "R&#38;#38;D">]>'
    write(tmp_path / "train/a.xml", declared + voc("a.jpg", "NAME 1 1 10 10").replace("NAME", name))
    assert read(tmp_path, **{"train.holdout": 0.5}).classes == ["R&D"]


def test_a_faulty_object_of_voc_loses_only_itself(tmp_path: Path) -> None:
    image(tmp_path / "train/a.jpg")
    write(tmp_path / "train/a.xml", voc("a.jpg", "cat 1 1 10 10", "dog 9 9 2 2", "cat 11 1 20 10"))
    found = read(tmp_path, **{"train.holdout": 0.5})
    assert found.boxes.tolist() == [[0, 0, 10, 10], [10, 0, 10, 10]] and found.classes == ["cat"]
    assert len(found.issues) == 1 and "dog" in found.issues[0].what and found.listed == (1, 3)


def test_an_image_of_the_name_of_the_xml_is_preferred_to_the_name_in_it(tmp_path: Path) -> None:
    for name in "ab":
        image(tmp_path / f"train/{name}.jpg")
        write(tmp_path / f"train/{name}.xml", voc("a.jpg", "cat 1 1 10 10"))  # as copies of one XML file have
    assert sorted(read(tmp_path, **{"train.holdout": 0.5}).file_names) == ["a.jpg", "b.jpg"]


def test_voc_lists_of_training_and_validation_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / f"JPEGImages/{name}.jpg")
        write(tmp_path / f"Annotations/{name}.xml", voc(f"{name}.jpg", "cat 1 1 10 10"))
    write(tmp_path / "ImageSets/Main/trainval.txt", "a\n")
    write(tmp_path / "ImageSets/Main/test.txt", "b\n")
    assert read(tmp_path, **{"train.holdout": 0.5}).file_names[:] == ["a.jpg"]


def test_xml_without_objects_is_refused(tmp_path: Path) -> None:
    image(tmp_path / "train/a.jpg")
    write(tmp_path / "train/a.xml", voc("a.jpg"))
    with pytest.raises(ValueError, match=r"train: no objects"):
        read(tmp_path, **{"train.holdout": 0.5})


def test_an_entity_bomb_is_refused(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10 if k else "x" * 100}">' for k in range(9))
    image(tmp_path / "train/a.jpg")
    text = voc("a.jpg").replace("<annotation>", "<annotation><folder>&e8;</folder>")
    write(tmp_path / "train/a.xml", f"<!DOCTYPE annotation [{entities}]>{text}")
    with pytest.raises(ValueError, match=r"no XML file.*a\.xml"):
        read(tmp_path, **{"train.holdout": 0.5})


CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels>
<label><name>dog</name></label><label><name>cat</name></label></labels></task></meta>
<image id="7" name="NAME" width="80" height="40"><box label="cat" occluded="0" xtl="10.5" ytl="5" xbr="30.5" ybr="25"/>
<polygon label="dog" points="1,2;21,2;21,12" z_order="0"/>MORE</image></annotations>"""


def test_cvat_by_hand(tmp_path: Path) -> None:
    image(tmp_path / "images/deep/a.jpg")
    more = '<points label="cat" points="1,2"/>'
    write(tmp_path / "annotations.xml", CVAT.replace("NAME", "job 1/deep/a.jpg").replace("MORE", more))
    for source in (tmp_path, tmp_path / "annotations.xml"):
        found = read(source, **{"train.holdout": 0.5})
        assert found.classes == ["dog", "cat"] and found.labels.tolist() == [1, 0]
        assert found.boxes.tolist() == [[10.5, 5, 20, 20], [1, 2, 20, 10]]
        assert found.polygons(1)[0].tolist() == [[1, 2], [21, 2], [21, 12]]
        assert found.file_names[:] == ["deep/a.jpg"] and [issue.kind for issue in found.issues] == ["bad-record"]


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ('<mask label="cat" rle="1, 2" left="30" top="5" width="8" height="20"/>', [30, 5, 8, 20]),
        ('<ellipse label="cat" cx="40" cy="20" rx="10" ry="5"/>', [30, 15, 20, 10]),
        ('<ellipse label="cat" cx="40" cy="20" rx="10" ry="5" rotation="90"/>', [35, 10, 10, 20]),
        ('<box label="cat" xtl="30" ytl="15" xbr="50" ybr="25" rotation="90.0"/>', [35, 10, 10, 20]),
        ('<box label="cat" xtl="35" ytl="15" xbr="45" ybr="25" rotation="45"/>', [32.929, 12.929, 14.142, 14.142]),
    ],
)
def test_other_shapes_of_cvat_become_their_boxes(tmp_path: Path, shape: str, box: list[float]) -> None:
    image(tmp_path / "images/R&D.jpg")
    write(tmp_path / "annotations.xml", CVAT.replace("NAME", "R&amp;D.jpg").replace("MORE", shape + '<tag label="x"/>'))
    found = read(tmp_path, **{"train.holdout": 0.5})
    assert found.boxes[2].tolist() == pytest.approx(box, abs=2e-3) and not found.issues


@pytest.mark.parametrize("text", ["<annotations><track id='0'/></annotations>", CVAT[:300], "<annotations/>"])
def test_other_xml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"d\.xml"):
        read(write(tmp_path / "d.xml", text), **{"train.holdout": 0.5})


def test_formats_are_named_where_one_is_unknown(tmp_path: Path) -> None:
    split = {"images": ".", "annotations": "x", "format": "vocc"}
    write(tmp_path / "d.yaml", json.dumps({"train": split, "val": split}))
    with pytest.raises(ValueError, match="'vocc', did you mean 'voc'.*coco, yolo, voc, cvat"):
        read(tmp_path / "d.yaml")
