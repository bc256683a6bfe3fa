"""compare.py --verify: the kept weights of real runs, scored again."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

import compare
from engine.loggers.results_csv import write_rows
from tests.models.darknet.cfgs import DETECTOR
from tests.support.checkpoints import class_names, write_checkpoint, write_data
from tests.support.scripts import run
from tests.support.training import leave_out_pictures, start

pytestmark = pytest.mark.slow
KEY = "metrics/mAP50-95"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two runs that start from a detector that finds some of the objects."""
    folder = tmp_path_factory.mktemp("verify")
    data = write_data(folder)
    weights = write_checkpoint(folder / "first.pt", data, class_names(folder / "shapes"), **{"model.levels": [2, 3]})
    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures(patch)
        for seed in (0, 1):
            more = ("--weights", weights, "--project", folder / "runs", "--name", f"mish-s{seed}", "--seed", seed)
            assert start(data, "--epochs", 2, "--img", 96, *more, "--set", "train.lr=1e-5") == 0
        yield folder / "runs"


@pytest.fixture
def copied(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs, tmp_path / "runs"))


def verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    capsys.readouterr()
    code = run(compare.main, "compare.py", "--verify", folder)
    return code, capsys.readouterr().out.splitlines()


def change(folder: Path, row: int, key: str, value: float) -> None:
    """Change one figure of a results.csv."""
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        rows: list[dict[str, object]] = list(csv.DictReader(file))
    rows[row][key] = value
    write_rows(folder / "results.csv", rows, list(rows[0]))


def test_untouched_runs_are_equal(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = verify(runs, capsys)
    assert code == 0 and [line.split(":")[:2] for line in lines] == [["mish-s0", " equal"], ["mish-s1", " equal"]]


@pytest.mark.parametrize("row", [0, 1])
def test_an_edited_results_csv_is_found(copied: Path, row: int, capsys: pytest.CaptureFixture[str]) -> None:
    change(copied / "mish-s1", row, KEY, 0.631)
    code, lines = verify(copied, capsys)
    assert code == 1 and lines[0].startswith("mish-s0: equal")
    assert lines[1].startswith(f"mish-s1: DIFFERS: epoch {row + 1}, {KEY}: 0.631 in results.csv")


def test_weights_of_another_run_are_found(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exchanged together with results.csv's row, but not with the weights' own score."""
    shutil.copy(copied / "mish-s0/weights/last.pt", copied / "mish-s1/weights/last.pt")
    code, lines = verify(copied, capsys)
    assert code == 1 and lines[1].startswith("mish-s1: DIFFERS")


def test_changed_validation_images_are_found(runs: Path, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = sorted((runs.parent / "shapes/images/val").iterdir())
    kept = {image: image.read_bytes() for image in images}
    try:
        for image in images:
            cv2.imwrite(str(image), cv2.flip(cv2.imread(str(image)), -1))
        code, lines = verify(copied, capsys)
    finally:
        for image, content in kept.items():
            image.write_bytes(content)
    assert code == 1 and "DIFFERS" in lines[0] and "when scored again" in lines[0], lines


def test_held_out_images_and_darknet_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path, train=8)
    (tmp_path / "x.cfg").write_text(DETECTOR)
    brief = ("--epochs", 1, "--project", tmp_path / "runs")
    assert start(data, *brief, "--name", "held-out", "--set", "train.holdout=0.5") == 0
    assert start(data, *brief, "--name", "darknet", "--cfg", tmp_path / "x.cfg") == 0
    for name in ("held-out", "darknet"):
        code, lines = verify(tmp_path / "runs" / name, capsys)
        assert code == 0 and lines[0].startswith(f"{name}: equal"), lines
    change(tmp_path / "runs/darknet", 0, KEY, 0.5)
    assert verify(tmp_path / "runs/darknet", capsys)[0] == 1


def test_runs_that_cannot_be_scored_are_named(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "mish-s0/weights/last.pt").unlink()
    (copied / "mish-s1/weights/last.pt").write_bytes(b"no checkpoint")
    code, lines = verify(copied, capsys)
    assert code == 1 and len(lines) == 2
    assert "not verified" in lines[0] and "no such checkpoint" in lines[0] and "not verified" in lines[1]
