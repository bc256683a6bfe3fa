"""All kinds of data issues at once, for train.py, val.py and data.check: listed, counted, skipped, or refused."""

import json
from collections import Counter
from pathlib import Path

import pytest

import val
from data.issues import KINDS
from data.tools import check
from tests.support.checkpoints import write_checkpoint
from tests.support.damage import IMAGES, Planted, write_set
from tests.support.scripts import run, tree
from tests.support.training import start

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Planted]]:
    return write_set(tmp_path_factory.mktemp("damaged"), "train", "val", damaged=("train", "val"))


def found(path: Path, split: str) -> Counter:
    entries = json.loads(path.read_text())
    return Counter((entry["kind"], entry["file"]) for entry in entries if entry["split"] == split)


def test_every_kind_is_planted(damaged: tuple[Path, dict[str, Planted]]) -> None:
    others = {"truncated", "value-range", "ambiguous-path"}  # see test_verify.py, test_pixels.py, test_file_names.py
    assert all(set(planted.kinds) == set(KINDS) - others for planted in damaged[1].values())


@pytest.mark.usefixtures("no_pictures")
def test_training_and_check_report_the_same_issues(
    damaged: tuple[Path, dict[str, Planted]], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, planted = damaged
    assert start(data, "--epochs", 1) == 0
    out = capsys.readouterr().out
    folder = here / "runs/train/exp"
    for split in ("train", "val"):
        assert found(folder / "data_problems.json", split) == Counter(planted[split].issues)
    for entry in json.loads((folder / "data_problems.json").read_text()):
        assert entry["what"] and entry["where"].startswith(f"{entry['split']}.json, ")
    total = sum(len(each.issues) for each in planted.values())
    first, last = out.split("epoch 1/1", 1)  # at the start and in the summary
    for part in (first, last):
        assert f"{total} images or annotations skipped" in part and "data_problems.json" in part
        assert all(f"{count} {kind}" in part for kind, count in planted["train"].kinds.items())
        assert "9 of 21 images (43%) skipped, the first: " in part
    assert first.count("id 0") == 2 and "id 0" not in last  # for each split, once
    record = json.loads((folder / "run.json").read_text())
    assert record["skipped"] == {split: dict(sorted(each.kinds.items())) for split, each in planted.items()}

    assert run(check.main, "check.py", data, "--strict") == 1
    report = here / "runs/check/exp"
    assert (report / "data_problems.json").read_bytes() == (folder / "data_problems.json").read_bytes()
    findings, out = json.loads((report / "findings.json").read_text()), capsys.readouterr().out
    for split, each in planted.items():
        assert findings["splits"][split]["skipped"] == each.kinds
        assert findings["splits"][split]["images"] == each.good_images
        assert findings["splits"][split]["boxes"] == each.good_boxes
        assert f"{len(each.issues)} skipped" in out
    assert len(findings["notes"]) == 4 and all(note in out for note in findings["notes"])


def test_strict_data_stops_with_one_line(
    damaged: tuple[Path, dict[str, Planted]], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(damaged[0], "--strict-data") == 2
    error = capsys.readouterr().err
    assert error.startswith("train.py: error: ") and error.count("\n") == 1 and "more issues" in error
    assert tree(here) == {}


def test_evaluation_uses_the_remaining_data(
    damaged: tuple[Path, dict[str, Planted]], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, planted = damaged
    names = [
        each["name"] for each in json.loads((data.parent / "shapes/annotations/train.json").read_text())["categories"]
    ]
    weights = write_checkpoint(here / "best.pt", data, names[:-1])  # the last one repeats an id
    assert run(val.main, "val.py", "--weights", weights) == 0
    out = capsys.readouterr().out
    folder = here / "runs/val/exp"
    assert found(folder / "data_problems.json", "val") == Counter(planted["val"].issues)
    assert f"{len(planted['val'].issues)} images or annotations skipped" in out and "9 of 21 images (43%)" in out
    assert out.count("id 0") == 1
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["images"], metrics["objects"]) == (planted["val"].good_images, planted["val"].good_boxes)
    before = tree(here)
    assert run(val.main, "val.py", "--weights", weights, "--strict-data") == 2
    error = capsys.readouterr().err
    assert error.startswith("val.py: error: ") and error.count("\n") == 1
    assert tree(here) == before


def test_nothing_is_reported_for_intact_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, _ = write_set(here / "data", "train", "val", "test")
    assert run(check.main, "check.py", data, "--strict", "--out", "whole") == 0
    assert "skipped" not in capsys.readouterr().out.replace("nothing skipped", "")
    assert not (here / "whole/data_problems.json").exists()
    findings = json.loads((here / "whole/findings.json").read_text())
    assert {split: each["images"] for split, each in findings["splits"].items()} == dict.fromkeys(
        ("train", "val", "test"), IMAGES
    )
    assert findings["duplicates"] == [] and findings["refusals"] == []
