"""The tables for users of other trainers: each cell is run as it stands, with fewer epochs and pixels."""

import re
import shlex
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import pytest
import torch

import compare
import detect
import export
import train
import val
from data.tools import check, tile
from engine.loggers import EpochEnd
from tests.support.checkpoints import class_names, write_checkpoint, write_data
from tests.support.scripts import run
from tests.support.training import SMALL
from weights import publish
from yolo import YOLO, Logger

ROOT = Path(__file__).parents[1]
SCRIPTS: dict[str, Callable[[Sequence[str]], int]] = {
    "train.py": train.main,
    "val.py": val.main,
    "detect.py": detect.main,
    "export.py": export.main,
    "compare.py": compare.main,
    "data.check": check.main,
    "data.tile": tile.main,
    "weights.publish": publish.main,
}
SMALLER = {  # flags behind those of a command, which count as the last ones
    "train.py": "--data my.yaml --epochs 1 --imgsz 64 --workers 0",
    "val.py": "--workers 0",
    "compare.py": "--epochs 1 --imgsz 64 --seeds 1 --probe 0 --workers 0",
}
ABSENT = {  # what a machine without GPUs and cameras lacks, and the name of it in the error
    "python train.py --cfg yolo-mish.yaml --batch 64 --device 0,1": "CUDA",
    "train(device=0)": "CUDA",
    ".stream(0)": "camera",
}
DOWNLOADS = "python -m data.download coco2017"  # tests/data/tools/test_download.py runs it against a local server
PACKAGES = {"track": "trackers", "export": "onnxruntime", "callbacks, loggers": "wandb"}  # optional ones, by row


def rows() -> dict[str, tuple[list[str], list[str]]]:
    """Python and commands in the cells of the table, by the first column."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").split("on the command line |\n|---|---|---|\n")[1]
    cells = [line.split("|")[1:-1] for line in lines.split("\n\n")[0].splitlines()]
    code = {title.strip(): tuple(re.findall(r"`([^`]+)`", cell) for cell in rest) for title, *rest in cells}
    return {title: (python, commands) for title, (python, commands) in code.items()}


ROWS = rows()


class Stop(Logger):
    """Interrupts a run after its first epoch."""

    def epoch(self, epoch: EpochEnd) -> None:
        signal.raise_signal(signal.SIGINT)


class MyLogger(Logger):
    """Keeps how many epochs it was told of."""

    epochs = 0

    def epoch(self, epoch: EpochEnd) -> None:
        MyLogger.epochs += 1


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the table names: my.yaml, images/, film.mp4, best.pt, and an interrupted run."""
    folder = tmp_path_factory.mktemp("table")
    write_data(folder, train=4).rename(folder / "my.yaml")
    write_checkpoint(folder / "best.pt", folder / "my.yaml", class_names(folder / "shapes"))
    shutil.copytree(folder / "shapes/images/test", folder / "images")
    picture = cv2.imread(str(next((folder / "images").iterdir())))
    size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
    film = cv2.VideoWriter(str(folder / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, size)
    for _ in range(3):
        film.write(picture[: size[1], : size[0]])
    film.release()
    options = {"imgsz": 64, "batch": 2, "workers": 0, "amp": False, "epochs": 2}
    YOLO(SMALL).train(folder / "my.yaml", callbacks=[Stop()], project=folder / "runs/train", **options)
    return folder


@pytest.fixture
def place(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of these files as the current folder."""
    shutil.copytree(files, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    return tmp_path / "place"


def test_the_table_has_the_daily_moves() -> None:
    moves = ("train", "fine-tune", "resume", "validate", "predict", "save and show", "track", "export")
    assert set(moves) <= set(ROWS) and len(ROWS) >= 10
    assert all(commands for _, commands in ROWS.values())


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures", "warm_runs")
@pytest.mark.parametrize("title", ROWS)
def test_commands(title: str, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(PACKAGES.get(title, "cv2"))
    for command in ROWS[title][1]:
        if command == DOWNLOADS:
            continue
        python, script, *words = shlex.split(command.replace("python -m", "python"))
        more = [] if words == ["--resume"] else SMALLER.get(script, "").split()
        before = set(place.rglob("*"))
        code = run(SCRIPTS[script], str(ROOT / script), *words, *more)
        out, err = capfd.readouterr()
        if command in ABSENT and not torch.cuda.is_available():
            assert code == 2 and err and all(ABSENT[command] in line for line in err.splitlines()), err
        else:
            assert code == 0 and python == "python", err
            assert set(place.rglob("*")) - before


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures", "warm_runs")
@pytest.mark.parametrize("title", ROWS)
def test_python(title: str, place: Path, files: Path) -> None:
    pytest.importorskip(PACKAGES.get(title, "cv2"))
    names: dict[str, object] = {"YOLO": YOLO, "MyLogger": MyLogger}
    if title == "save and show":
        names["result"] = YOLO("best.pt").predict("images/")[0]
    if title == "pass weights on":
        assert run(publish.main, "weights.publish", *shlex.split(ROWS[title][1][0])[3:]) == 0
    for code in ROWS[title][0]:
        if title == "resume":
            shutil.rmtree("runs")
            shutil.copytree(files / "runs", "runs")
        if code in ABSENT and not torch.cuda.is_available():
            with pytest.raises((ValueError, OSError), match=ABSENT[code]):
                exec(smaller(code), names)
        else:
            exec(smaller(code), names)
    assert title != "callbacks, loggers" or MyLogger.epochs == 1
    assert title != "save and show" or all(Path(name).stat().st_size for name in ("a.jpg", "a.txt"))
    trains = any("train(" in code for code in ROWS[title][0])
    assert not trains or list(place.glob("runs/train/*/weights/best.pt"))


@pytest.mark.usefixtures("place")
def test_names_that_differ_from_those_of_ultralytics() -> None:
    table = (ROOT / "docs/python.md").read_text(encoding="utf-8").split("| Ultralytics | here |\n|---|---|\n")[1]
    code = [piece for line in table.splitlines() for piece in re.findall(r"`([^`]+)`", line.split("|")[2])]
    shutil.copy(next(Path("images").iterdir()), "a.jpg")
    model = YOLO("best.pt")
    names: dict[str, object] = {"model": model, "result": model.predict("a.jpg")[0]}
    names["found"] = found = model.val(data="my.yaml", progress=False)
    values = {piece: eval(piece, names) for piece in code if ".train(" not in piece and " = " not in piece}
    height, width = cv2.imread("a.jpg").shape[:2]
    boxes = values["result.boxes"]
    assert values["result.image.shape[:2]"] == (height, width) and len(boxes) == len(values["result.scores"]) > 0
    assert (boxes[:, 2:] <= [width, height]).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(values["result.records()"]) == len(values["result.labels"]) == len(boxes)
    assert values['found.stats.numbers["mAP50-95"]'] == found.stats.numbers["mAP50-95"]
    assert Path("b.jpg").stat().st_size and len(values) >= 13


def smaller(code: str) -> str:
    """A piece of Python that runs for an epoch of few pixels, and that stands alone."""
    if code.startswith("train("):
        code = 'YOLO("yolo-mish.yaml").' + code[:-1] + ', data="my.yaml", epochs=1, imgsz=64)'
    if code.startswith("."):
        code = f'list(YOLO("best.pt"){code})'
    if code.startswith("compare("):
        code = code[:-1] + ", imgsz=64, workers=0, probe=0)"
    return re.sub(r"(epochs|seeds)=\d+", r"\1=1", code).replace("imgsz=640", "imgsz=64, workers=0")
