"""What --data accepts besides this project's YAML: data YAMLs of YOLO trainers and folders as tools export them."""

import json
from pathlib import Path

import pytest

from configs.loading import CONFIGS, load_data
from configs.schema import load


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def places(tree: dict, root: Path) -> dict[str, list[str]]:
    """Folders and list files of each split, relative to the root."""
    found = {}
    for split in ("train", "val", "test"):
        if split in tree:
            parts = tree[split].get("parts") or [tree[split]["images"]]
            found[split] = [Path(part).relative_to(root).as_posix() for part in parts]
    return found


YOLO = ("set/images/train/a.jpg", "set/images/val/b.jpg")
SPLITS = {"train": ["set/images/train"], "val": ["set/images/val"]}


@pytest.mark.parametrize(
    "text",
    [
        "train: images/train\nval: images/val\nnc: 1\nnames: [cat]",
        "path: .\ntrain: images/train\nval: images/val\nnames: {0: cat}",
        "path: ../set\ntrain: images/train\nval: images/val\nnames: {0: cat}",
        '\'path\': "/content/set"\n\'train\': images/train\n"valid": images/val\n"names": [cat]',
        "train: ../images/train\nval: ../images/val\ntest: ../images/test\nnc: 1\nnames: [cat]",
        "train: ./images/train/\nval: ./images/val/\nnames: [cat]",
        "train: [images/train]\nval: [images/val]\nnames: [cat]",
        "train: images\\train\nval: images\\val\nnames: [cat]",
        "train: C:\\me\\set\\images\\train\nval: /home/other/set/images/val\nnames: [cat]",
        "path: /content/datasets/set\ntrain: /content/datasets/set/images/train\nval: images/val\ntest:\nnc: 1",
        "train: images/train\nval: images/val\ntest: null\nroboflow: {workspace: x, version: 1}\nkpt_shape: [3, 2]",
        "train: images/train\nval: images/val\n",
    ],
)
def test_a_yolo_yaml_leads_to_its_images(tmp_path: Path, text: str) -> None:
    touch(tmp_path, *YOLO)
    (tmp_path / "set/data.yaml").write_text(text)
    for source in (tmp_path / "set/data.yaml", tmp_path / "set"):
        tree = load_data(source)
        assert places(tree, tmp_path) == SPLITS
        assert {tree[split]["format"] for split in SPLITS} == {"yolo"}
        assert tree["train"]["annotations"] == str(tmp_path / "set/data.yaml")


def test_a_path_without_a_value_is_not_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *YOLO)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "set/data.yaml").write_text("path: ~\ntrain: images/train\nval: images/val\nnames: [cat]\n")
    assert load_data(tmp_path / "set/data.yaml")["root"] == str(tmp_path / "set")


def test_a_path_may_be_below_a_folder_of_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    touch(tmp_path / "work/datasets", *YOLO)
    (tmp_path / "work/set.yaml").write_text("path: set\ntrain: images/train\nval: images/val\nnames: [cat]\n")
    assert places(load_data("set.yaml"), tmp_path / "work/datasets") == SPLITS
    (tmp_path / "work/datasets").rename(tmp_path / "datasets")
    assert places(load_data("set.yaml"), tmp_path / "datasets") == SPLITS


def test_folders_lists_and_images_elsewhere_make_one_split(tmp_path: Path) -> None:
    touch(tmp_path, "one/images/a.jpg", "two/images/b.jpg", "set/val.txt")
    (tmp_path / "set/d.yaml").write_text(
        f"train:\n  - ../one/images\n  - {tmp_path}/two/images\nval: val.txt\nnames: [cat]\n"
    )
    tree = load_data(tmp_path / "set/d.yaml")
    assert places(tree, tmp_path) == {"train": ["one/images", "two/images"], "val": ["set/val.txt"]}
    assert tree["train"]["images"] == str(tmp_path)


def test_a_link_to_shared_images_stays_a_link(tmp_path: Path) -> None:
    touch(tmp_path, *YOLO)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/images").symlink_to(tmp_path / "set/images")
    (tmp_path / "mine/d.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    assert places(load_data(tmp_path / "mine/d.yaml"), tmp_path)["train"] == ["mine/images/train"]


def test_only_a_test_split_may_be_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, *YOLO)
    path = tmp_path / "set/data.yaml"
    path.write_text("train: images/train\nval: images/val\ntest: images/test\nnames: [cat]\n")
    assert "test" not in load_data(path)
    assert "images/test" in capsys.readouterr().err
    path.write_text("path: gone\ntrain: images/train\nval: images/vall\nnames: [cat]\n")
    with pytest.raises(FileNotFoundError, match=r"data\.yaml.*path gone.*val: images/vall"):
        load_data(path)


def test_the_end_of_a_path_does_not_make_all_splits_the_same(tmp_path: Path) -> None:
    touch(tmp_path, "set/images/a.jpg")
    (tmp_path / "set/d.yaml").write_text("train: /data/train/images\nval: /data/val/images\nnames: [cat]\n")
    with pytest.raises(FileNotFoundError, match="/data/train/images"):
        load_data(tmp_path / "set/d.yaml")


@pytest.mark.parametrize(
    "text", ["train: [3, [4]]\nnames: [a]", "train: ''\nnames: [a]", "path: [a]\ntrain: x\nnames: [a]"]
)
def test_other_values_are_refused_with_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.yaml").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=r"d\.yaml"):
        load_data(tmp_path / "d.yaml")


COCO = json.dumps({"images": [], "annotations": [], "categories": []})
VOC = "<?xml version='1.0'?>\n<!-- x -->\n<annotation><filename>a.jpg</filename></annotation>"
CVAT = "<?xml version='1.0'?>\n<annotations><version>1.1</version></annotations>"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (  # Roboflow
            ["train/a.jpg", "valid/b.jpg", "train/_annotations.coco.json", "valid/_annotations.coco.json"],
            {"train": ("train", "train/_annotations.coco.json"), "val": ("valid", "valid/_annotations.coco.json")},
        ),
        (  # COCO
            ["train2017/a.jpg", "val2017/b.jpg"]
            + [f"annotations/{kind}_{s}2017.json" for kind in ("instances", "captions") for s in ("train", "val")],
            {
                "train": ("train2017", "annotations/instances_train2017.json"),
                "val": ("val2017", "annotations/instances_val2017.json"),
            },
        ),
        (  # CVAT's COCO, with names of subsets
            ["images/Train/a.jpg", "annotations/instances_Train.json", "annotations/instances_Validation.json"],
            {
                "train": ("images/Train", "annotations/instances_Train.json"),
                "val": ("images", "annotations/instances_Validation.json"),
            },
        ),
        (  # FiftyOne
            ["train/data/a.jpg", "train/labels.json", "val/data/a.jpg", "val/labels.json"],
            {"train": ("train/data", "train/labels.json"), "val": ("val/data", "val/labels.json")},
        ),
        (["images/a.jpg", "result.json"], {"train": ("images", "result.json")}),  # Label Studio
        (["images/train/a.jpg", "labels/train/a.txt", "classes.txt"], {"train": (".", "classes.txt")}),
        (["train/images/a.jpg", "train/labels/a.txt"], {"train": (".", "train/labels")}),
        (["images/a.jpg", "labels/a.txt", "classes.txt", "notes.json"], {"train": (".", "classes.txt")}),
        (["train.txt", "obj.names", "obj.data", "obj_train_data/a.jpg"], {"train": (".", "obj.names")}),  # CVAT
        (
            ["Annotations/a.xml", "JPEGImages/a.jpg", "ImageSets/Main/train.txt", "ImageSets/Main/val.txt"],
            {"train": ("JPEGImages", "Annotations"), "val": ("JPEGImages", "Annotations")},
        ),
        (
            ["VOCdevkit/VOC2007/Annotations/a.xml", "VOCdevkit/VOC2007/JPEGImages/a.jpg"],
            {"train": ("VOCdevkit/VOC2007/JPEGImages", "VOCdevkit/VOC2007/Annotations")},
        ),
        (["images/a.jpg", "annotations/a.xml"], {"train": ("images", "annotations")}),
        (
            ["train/a.jpg", "train/a.xml", "valid/b.jpg", "valid/b.xml"],
            {"train": ("train", "train"), "val": ("valid", "valid")},
        ),
        (["a.jpg", "a.txt", "classes.txt"], {"train": (".", "classes.txt")}),  # LabelImg
        (["train/a.jpg", "train/a.txt", "val/b.jpg", "val/b.txt"], {"train": (".", "train"), "val": (".", "val")}),
        (["train/a.jpg", "train/a.txt", "train/_darknet.labels"], {"train": (".", "train/_darknet.labels")}),
        (["images/a.jpg", "annotations.xml"], {"train": ("images", "annotations.xml")}),
    ],
)
def test_a_folder_as_tools_export_it(tmp_path: Path, files: list[str], expected: dict[str, tuple[str, str]]) -> None:
    touch(tmp_path, *files)
    for path in tmp_path.rglob("*.*"):
        if path.suffix == ".json":
            path.write_text(COCO)
        elif path.suffix == ".xml":
            path.write_text(CVAT if path.name == "annotations.xml" else VOC)
    tree = load_data(tmp_path)
    found = {
        split: tuple(Path(tree[split][key]).relative_to(tmp_path).as_posix() for key in ("images", "annotations"))
        for split in ("train", "val", "test")
        if split in tree
    }
    assert found == expected


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "found nothing"),
        (["a.csv", "b.csv"], r"found a\.csv, b\.csv.*expected.*images"),
        (["images/a.jpg", "labels/a.txt", "annotations/instances_train.json"], "COCO and YOLO"),
        (["annotations/instances_train.json", "annotations/instances_train2.json"], "both of train"),
    ],
)
def test_other_folders_are_refused_with_what_they_hold(tmp_path: Path, files: list[str], message: str) -> None:
    touch(tmp_path, *files)
    with pytest.raises(ValueError, match=message):
        load_data(tmp_path)


def test_a_yaml_of_the_name_comes_before_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "shapes/x.csv")
    assert load_data("shapes")["embedded"]["side"] == 160
    (tmp_path / "shapes.yaml").write_text("train: {images: i, annotations: a.json}\n")
    assert load_data("shapes")["train"]["images"] == str(tmp_path / "i")


def test_a_set_without_validation_images_needs_a_holdout(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "labels/a.txt")
    with pytest.raises(ValueError, match=r"data\.val.*train\.holdout=0\.1"):
        load(CONFIGS / "yolo.yaml", {"data": str(tmp_path)})
    config = load(CONFIGS / "yolo.yaml", {"data": str(tmp_path), "train.holdout": 0.1})
    assert config.data.val == config.data.train
    assert load_again(config.as_yaml(), tmp_path) == config


def load_again(text: str, folder: Path) -> object:
    """The config that a run writes, read back."""
    (folder / "config.yaml").write_text(text)
    return load(folder / "config.yaml")
