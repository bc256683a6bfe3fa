"""python -m data.check: what its report says, against what was planted; bad input in one line."""

import base64
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.coco import read_coco
from data.tools import check
from data.verify import verify_images
from tests.support.scripts import run, tree
from tests.support.small_sets import box, write_coco


def write_yaml(path: Path, **splits: Path) -> Path:
    """A data YAML of annotation files that lie beside their folder of images."""
    entries = {
        split: {"images": str(each.parent / "images"), "annotations": str(each)} for split, each in splits.items()
    }
    path.write_text(json.dumps(entries))
    return path


def findings(folder: Path) -> dict:
    return json.loads((folder / "findings.json").read_text())


class Tags(HTMLParser):
    """The tags of a page as a browser would read them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))


def two_splits(here: Path, **more: object) -> Path:
    train = write_coco(here / "t", {f"{k}.png": (60 + k, 50) for k in range(4)}, [box(1, 1, [5, 5, 20, 20])])
    val = write_coco(here / "v", {"x.png": (50, 40)}, [box(1, 1, [5, 5, 20, 20], 7)], **more)
    return write_yaml(here / "data.yaml", train=train, val=val)


@pytest.mark.slow
def test_a_set_without_validation_images_is_checked(here: Path) -> None:
    train = write_coco(here / "t", {"a.png": (60, 50)}, [box(1, 1, [5, 5, 20, 20])])
    assert run(check.main, "check.py", write_yaml(here / "data.yaml", train=train)) == 0
    found = findings(here / "runs/check/exp")
    assert list(found["splits"]) == ["train"] and found["overlaps"] == [] and found["splits"]["train"]["boxes"] == 1


@pytest.mark.slow
def test_a_refused_share_is_told_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write_coco(here / "t", {"a.png": (60, 50)}, [box(k, 1, [5, 5, 0, 20]) for k in (1, 2)])
    assert run(check.main, "check.py", write_yaml(here / "data.yaml", train=train)) == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if "box [5.0, 5.0, 0.0, 20.0]" in line]
    assert len(lines) == 1 and lines[0].startswith("REFUSED")


@pytest.mark.slow
def test_the_page_holds_its_pictures_and_loads_nothing(here: Path) -> None:
    name = '<script src="http://x/">$\\frac$\n'
    categories = [{"id": 3, "name": name}, {"id": 7, "name": "b & c"}]
    boxes = [box(1, 1, [5, 5, 1, 30]), box(2, 1, [10, 10, 20, 20]), box(3, 1, [10, 10, 20, 20], 7)]
    train = write_coco(here / "t", {"<i>a.png": (60, 50)}, [*boxes, box(4, 9, [1, 1, 5, 5])], categories)
    val = write_coco(here / "v", {"b.png": (60, 50)}, [], categories)
    (here / "v/images/b.png").write_bytes((here / "t/images/<i>a.png").read_bytes())
    assert run(check.main, "check.py", write_yaml(here / "data.yaml", train=train, val=val)) == 0
    folder = here / "runs/check/exp"
    page = (folder / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert not {"script", "i", "link", "iframe", "object"} & {tag for tag, _ in tags.found}
    assert all(set(attributes) <= {"src", "alt", "class", "lang", "charset"} for _, attributes in tags.found)
    sources = [attributes["src"] for _, attributes in tags.found if "src" in attributes]
    assert all(source.startswith("data:image/") for source in sources)
    assert "url(" not in page.split("</style>")[0] and "&lt;i&gt;a.png" in page
    held = [source.split("base64,")[1] for source in sources]
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".png", ".jpg")}
    assert {base64.b64decode(each) for each in held} == set(files.values())
    assert set(files) == {
        "suspicious_sliver.jpg", "suspicious_two_classes.jpg", "duplicates_same_bytes.jpg",
        "classes.png", "box_sizes.png", "image_sizes.png",
    }  # fmt: skip
    assert all(cv2.imdecode(np.frombuffer(each, np.uint8), 1) is not None for each in files.values())


@pytest.mark.slow
def test_leakage_is_said_first_and_reports_are_never_overwritten(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = two_splits(here)
    (here / "v/images/x.png").write_bytes((here / "t/images/2.png").read_bytes())
    content = json.loads((here / "v/annotations.json").read_text())
    content["images"][0] |= {"width": 62, "height": 50}
    (here / "v/annotations.json").write_text(json.dumps(content))
    (here / "runs/check/exp").mkdir(parents=True)
    assert run(check.main, "check.py", data) == 0
    assert "LEAKAGE  1 of the 1 images of val" in capsys.readouterr().out
    found = findings(here / "runs/check/exp2")
    assert found["overlaps"] == [{"one": "train", "other": "val", "exact": 1, "near": 0, "images": 1}]
    assert found["duplicates"][0]["images"] == [
        {"split": "train", "file": "2.png"},
        {"split": "val", "file": "x.png"},
    ]
    assert list((here / "runs/check/exp").iterdir()) == []


def test_a_split_used_twice_is_leakage(tmp_path: Path) -> None:
    path = write_coco(tmp_path, {f"{k}.png": (40, 30) for k in range(10)}, [box(1, 1, [1, 2, 3, 4])])
    data = read_coco(path, tmp_path / "images", progress=False)
    (said,) = check.Check({"train": data, "val": data}, progress=False).leakage()
    assert said.startswith("10 of the 10 images of val are also in train")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"iscrowd": 1}, "iscrowd"),
        ({"category_id": 99}, "unknown-category (4)"),
        ({"bbox": [0.1, 0.1, 0.5, 0.5]}, "fractions"),
    ],
)
def test_data_that_is_wrong_as_a_whole_is_told(
    change: dict, words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What train.py refuses ends with two after a whole report; what it only remarks on does not."""
    boxes = [box(k, 1 + k % 2, [5, 5, 20, 20]) | change for k in range(4)]
    train = write_coco(here / "t", {f"{k}.png": (60 + k, 50) for k in range(3)}, boxes)
    val = write_coco(here / "v", {"x.png": (50, 40)}, [box(1, 1, [5, 5, 20, 20])])
    refused = "bbox" not in change
    assert run(check.main, "check.py", write_yaml(here / "data.yaml", train=train, val=val)) == (2 if refused else 0)
    said = capsys.readouterr()
    assert words in said.out and said.err.count("\n") == refused and (words in said.err) == refused
    assert (here / "runs/check/exp/report.html").is_file()
    found = findings(here / "runs/check/exp")
    assert any(words in text for text in found["refusals" if refused else "notes"])


@pytest.mark.slow
def test_classes_that_training_would_refuse_are_reported_and_end_with_two(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = two_splits(here, categories=[{"id": 7, "name": "cat"}, {"id": 9, "name": "bird"}])
    assert run(check.main, "check.py", data) == 2
    said = capsys.readouterr()
    assert said.err.startswith("check.py: error: ") and said.err.count("\n") == 1 and "bird" in said.err
    assert "bird" in findings(here / "runs/check/exp")["refusals"][0]


CASES = {
    "data missing": ("none.yaml", "none.yaml"),
    "no data named": ("", "DATA"),
    "misspelt key": ("misspelt.yaml", "vall.*val"),
    "not YAML": ("broken.yaml", "broken.yaml"),
    "annotations missing": ("away.yaml", "away.json"),
    "annotations are not COCO": ("list.yaml", "list.json"),
    "folder of images missing": ("homeless.yaml", "nowhere"),
    "no usable image": ("hollow.yaml", "none of the 1 images"),
    "flag unknown": ("data.yaml --strikt", "--strikt"),
    "report folder is a file": ("data.yaml --out data.yaml/report", "data.yaml"),
    "report folder leads out": ("data.yaml --out ..", "'..'"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree_of = json.loads(two_splits(here).read_text())
    (here / "list.json").write_text("[1, 2]")
    (here / "broken.yaml").write_text("train: {images: [")
    hollow = write_coco(here / "h", {"x.png": (50, 40)}, [])
    (here / "h/images/x.png").write_bytes(b"")
    val = tree_of["val"]
    variants = {"away": {**val, "annotations": "away.json"}, "list": {**val, "annotations": str(here / "list.json")}}
    variants |= {"homeless": {**val, "images": "nowhere"}}
    variants |= {"hollow": {"images": str(here / "h/images"), "annotations": str(hollow)}}
    for name, split in variants.items():
        (here / f"{name}.yaml").write_text(json.dumps({**tree_of, "val": split}))
    (here / "misspelt.yaml").write_text(json.dumps({**tree_of, "vall": val}))
    before = tree(here)
    line, expected = CASES[case]
    assert run(check.main, "check.py", *line.split()) == 2
    err = capsys.readouterr().err
    assert re.search(expected, err) and err.count("\n") == 1 and "Traceback" not in err
    assert tree(here) == before


@pytest.mark.slow
def test_many_records_are_read_leniently_in_seconds(tmp_path: Path) -> None:
    """One NaN sends the whole file record by record; with every tenth record bad, time grows no faster than length."""
    annotations = [box(k, 1 + k % 40, [1, 1, 5, 0 if k % 10 == 0 else 5]) for k in range(30_000)]
    annotations[1]["bbox"] = [1, 1, float("nan"), 5]
    path = write_coco(tmp_path, {f"{k}.png": (40, 30) for k in range(40)}, annotations)
    start = time.process_time()
    data = verify_images(read_coco(path, tmp_path / "images", progress=False), progress=False)
    assert time.process_time() - start < 20  # comparing all with all would take hours
    assert len(data.boxes) == 26_999 and len(data.issues) == 3_001


def test_boxes_outside_images_of_unsaid_size_are_named(tmp_path: Path) -> None:
    path = write_coco(
        tmp_path,
        {"a.png": (40, 30), "b.png": (40, 30)},
        [box(1, 1, [50, 1, 5, 5]), box(2, 1, [1, 2, 3, 4]), box(3, 2, [1, -9, 5, 5]), box(4, 2, [5, 6, 7, 8])],
    )
    content = json.loads(path.read_text())
    for image in content["images"]:
        del image["width"]
    path.write_text(json.dumps(content))
    data = read_coco(path, tmp_path / "images", progress=False)
    assert len(data.boxes) == 4 and data.issues == []
    sized = verify_images(data, progress=False)
    assert sized.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]] and sized.starts.tolist() == [0, 1, 2]
    assert [(problem.kind, problem.file) for problem in sized.issues] == [("outside", "a.png"), ("outside", "b.png")]
    with pytest.raises(ValueError, match="and 1 more"):
        verify_images(data, strict=True, progress=False)
