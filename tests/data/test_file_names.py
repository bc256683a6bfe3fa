"""Names that other systems, tools and machines write lead to the files that they mean, or to none."""

import json
import unicodedata
from pathlib import Path

import pytest

from configs.loading import CONFIGS
from configs.schema import load
from data import load_dataset
from data.annotations import Annotations
from data.coco import read_coco
from data.file_names import FileFinder
from tests.support.small_sets import box, write_coco

NFC, NFD = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("files", "name", "expected"),
    [
        (["a.jpg"], "a.jpg", "a.jpg"),
        (["sub/a.jpg"], "sub/a.jpg", "sub/a.jpg"),
        (["sub/a.jpg", "sub\\a.jpg"], "sub\\a.jpg", "sub\\a.jpg"),  # as it stands first
        (["sub/a.jpg"], "sub\\a.jpg", "sub/a.jpg"),
        (["sub/a.jpg"], ".\\sub\\a.jpg", "sub/a.jpg"),
        (["a.jpg"], "..\\..\\media\\upload\\4\\a.jpg", "a.jpg"),
        (["4/a.jpg", "a.jpg"], "../media/4/a.jpg", "4/a.jpg"),  # the longest rest first
        (["a.jpg"], "C:\\Users\\me\\images\\a.jpg", "a.jpg"),
        (["val/a.jpg", "a.jpg"], "D:/set/val/a.jpg", "val/a.jpg"),
        (["a.jpg"], "/home/other/images/a.jpg", "a.jpg"),
        (["a.jpg"], "images/a.jpg", "a.jpg"),
        (["a b.jpg"], "a%20b.jpg", "a b.jpg"),
        (["a%20b.jpg", "a b.jpg"], "a%20b.jpg", "a%20b.jpg"),
        ([NFC], "%C3%A9.jpg", NFC),
        ([NFC], NFD, NFC),
        ([NFD], NFC, NFD),
        (["a.JPG"], "a.jpg", "a.JPG"),
        (["a.jpg", "a.JPG"], "a.JPG", "a.JPG"),
        (["Sub/A.jpg"], "sub/a.JPG", "Sub/A.jpg"),
        (["a.jpg"], "https://example.org/data/a.jpg?token=1#x", "a.jpg"),
        (["4/a.jpg"], "/data/local-files/?d=set%2F4/a.jpg", "4/a.jpg"),
        (["a.jpg"], "s3://bucket/set/a.jpg", "a.jpg"),
        (["deep/er/a.jpg"], "a.jpg", "deep/er/a.jpg"),
        (["a.jpg"], " a.jpg ", "a.jpg"),
        (["a.jpg"], "b.jpg", None),
        (["train/a.jpg"], "val/a.jpg", None),  # another split's image is not this one
        (["a.jpg"], "a.png", None),
        (["a.jpg"], "", None),
        (["a.jpg"], "a.jpg\0", None),
        (["a.jpg"], "http://[", None),
    ],
)
def test_a_name_is_found(tmp_path: Path, files: list[str], name: str, expected: str | None) -> None:
    for file in files:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = FileFinder(tmp_path).find(name)
    assert found.path == expected and not found.rivals
    assert bool(found.how) == (expected not in (name, None))


def test_an_absolute_path_below_the_folder_is_found_also_through_links(tmp_path: Path) -> None:
    (tmp_path / "real/sub").mkdir(parents=True)
    (tmp_path / "real/sub/a.jpg").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    finder = FileFinder(tmp_path / "link")
    assert finder.find(f"{tmp_path}/link/sub/a.jpg").path == "sub/a.jpg"
    assert finder.find(f"{tmp_path}/real/sub/a.jpg").path == "sub/a.jpg"


@pytest.mark.parametrize(
    ("files", "name"),
    [(["x/a.jpg", "y/a.jpg"], "a.jpg"), (["a.JPG", "A.jpg"], "a.jpg"), (["Sub/a.jpg", "sUb/a.jpg"], "sub/a.jpg")],
)
def test_two_candidates_are_none(tmp_path: Path, files: list[str], name: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    found = FileFinder(tmp_path).find(name)
    assert found.path is None and found.rivals == tuple(sorted(files))


def test_nothing_outside_the_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.jpg").touch()
    finder = FileFinder(tmp_path / "images")
    for name in (
        "../secret.jpg",
        "..\\secret.jpg",
        f"{tmp_path}/secret.jpg",
        "x/../../secret.jpg",
        "%2e%2e/secret.jpg",
    ):
        assert finder.find(name).path is None


def renamed(folder: Path, names: list[str]) -> Annotations:
    """Annotations of the images 0.png, 1.png, ... with one box each, listed under other names."""
    files = {f"{number}.png": (40, 30) for number in range(len(names))}
    path = write_coco(folder, files, [box(k + 1, k + 1, [1, 2, 3, 4]) for k in range(len(names))])
    content = json.loads(path.read_text())
    for image, name in zip(content["images"], names, strict=True):
        image["file_name"] = name
    path.write_text(json.dumps(content))
    return read_coco(path, folder / "images", progress=False)


def test_one_line_says_how_many_were_found_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = renamed(tmp_path, ["0.png", "C:\\x\\1.png", "C:\\x\\2.png", "3.PNG", "gone.png"])
    assert found.file_names[:] == ["0.png", "1.png", "2.png", "3.png", "gone.png"] and not found.issues
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "3 of 5" in err and "C:\\\\x\\\\1.png" in err and "1 in another case" in err


def test_names_as_they_stand_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    renamed(tmp_path, ["0.png", "1.png"])
    assert capsys.readouterr() == ("", "")


def test_two_names_for_one_file_are_issues(tmp_path: Path) -> None:
    found = renamed(tmp_path, ["0.png", "a/0.png", "b/2.png", "c/2.png"])
    assert found.file_names[:] == ["0.png"] and len(found.boxes) == 1
    assert [(issue.file, issue.kind) for issue in found.issues] == [
        (name, "ambiguous-path") for name in ("a/0.png", "b/2.png", "c/2.png")
    ]


def test_a_refusal_names_the_count_and_the_first_example(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of the 2 images that it lists.*\.\./out/x\.png"):
        renamed(tmp_path, ["../out/x.png", "../out/y.png"])
    renamed(tmp_path, ["x.png", "y.png"])
    split = {"images": "images", "annotations": "annotations.json"}
    (tmp_path / "d.yaml").write_text(json.dumps({"train": split, "val": split}))
    data = load(CONFIGS / "yolo.yaml", {"data": str(tmp_path / "d.yaml")}).data
    with pytest.raises(ValueError, match=r"none of the 2 images listed.*x\.png"):
        load_dataset(data, "train", progress=False)


def test_the_cache_of_a_large_file_does_not_keep_where_images_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.coco.MIN_CACHED_BYTES", 0)
    assert renamed(tmp_path, ["x/0.png"]).file_names[:] == ["0.png"]
    (tmp_path / "images/x").mkdir()
    (tmp_path / "images/0.png").rename(tmp_path / "images/x/0.png")
    again = read_coco(tmp_path / "annotations.json", tmp_path / "images", progress=False)
    assert again.file_names[:] == ["x/0.png"]
