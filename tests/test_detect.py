"""detect.py: what it writes for each kind of source."""

import functools
import importlib.util
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import detect
from data.image import read_image
from data.sources import Frame, Source
from tests.support.checkpoints import write_checkpoint
from tests.support.scripts import run
from yolo import YOLO

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(place: Path) -> Path:
    """The common folder with weights of hostile class names and a video."""
    write_checkpoint(
        place / "hostile.pt", place / "shapes.yaml", ["../../out", "/etc", "a/b", "a\x1b[31mb", "..", "", "~", "n\nl"]
    )
    writer = cv2.VideoWriter(str(place / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, (320, 240))
    for value in range(5):
        writer.write(np.full((240, 320, 3), 40 * value, np.uint8))
    writer.release()
    return place


def test_a_folder_with_everything_saved(place: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--weights", place / "best.pt", "--source", place / "shapes/images/test", "--conf-thres", 0.6]
    arguments += ["--save-txt", "--save-conf", "--save-crop", "--save_json", "--max-det", 20, "--iou-thres", 0.5]
    assert run(detect.main, "detect.py", *arguments) == 0
    out, err = capsys.readouterr()
    folder = here / "runs/detect/exp"
    stems = [path.stem for path in sorted((place / "shapes/images/test").iterdir())]
    lines = [line for line in out.splitlines() if line.startswith("image ")]
    assert len(lines) == 3 and err == "" and "image 1/3 " in lines[0] and lines[0].endswith(" ms")
    assert "results in runs/detect/exp" in out
    found = json.loads((folder / "detections.json").read_text())
    for stem in stems:
        original = read_image(place / f"shapes/images/test/{stem}.jpg")
        drawn = read_image(folder / f"{stem}.jpg")
        assert drawn.shape[0] % original.shape[0] == 0 and drawn.shape[1] % original.shape[1] == 0
        rows = np.loadtxt(folder / f"labels/{stem}.txt", ndmin=2)
        records = [record for record in found if Path(record["image"]).stem == stem]
        assert rows.shape == (len(records), 6) and 0 < len(records) <= 20
        assert (rows[:, 1:] >= 0).all() and (rows[:, 1:5] <= 1.0001).all() and (rows[:, 5] > 0.6).all()
    assert set(found[0]) == {"image", "label", "name", "score", "bbox"}
    assert len(list((folder / "crops").rglob("*.jpg"))) == len(found)
    assert {path.name for path in (folder / "crops").iterdir()} == {record["name"] for record in found}


def test_runs_are_numbered_and_flags_have_two_spellings(place: Path, here: Path) -> None:
    image = next((place / "shapes/images/test").iterdir())
    common = ["--weights", place / "best.pt", "--source", image, "--project", "out", "--name", "a", "--save-json"]
    spellings = (["--img", 64, "--conf", 0.7, "--iou", 0.4], ["--imgsz", 64, "--conf-thres", 0.7, "--iou-thres", 0.4])
    for options in spellings:
        assert run(detect.main, "detect.py", *common, *options) == 0
    assert sorted(path.name for path in (here / "out").iterdir()) == ["a", "a2"]
    assert (here / "out/a/detections.json").read_text() == (here / "out/a2/detections.json").read_text()
    assert run(detect.main, "detect.py", *common, "--exist-ok", "--classes", "star", "0") == 0
    assert sorted(path.name for path in (here / "out").iterdir()) == ["a", "a2"]
    assert {record["name"] for record in json.loads((here / "out/a/detections.json").read_text())} <= {"star", "circle"}


@pytest.mark.slow
def test_height_and_width(place: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in YOLOv5; a third number is refused in one line."""
    image = next((place / "shapes/images/test").iterdir())
    common = ["--weights", place / "best.pt", "--source", image, "--save-json", "--imgsz"]
    for sizes in ([64, 64], [64]):
        assert run(detect.main, "detect.py", *common, *sizes) == 0
    found = [(here / f"runs/detect/{name}/detections.json").read_text() for name in ("exp", "exp2")]
    assert found[0] == found[1]
    capsys.readouterr()
    assert run(detect.main, "detect.py", *common, 64, 64, 3) == 2
    assert "3 numbers" in capsys.readouterr().err
    assert run(detect.main, "detect.py", *common, 64, 70) == 2
    assert "64 70" in capsys.readouterr().err


@pytest.mark.slow
def test_an_image_at_an_address_becomes_an_image(place: Path, here: Path) -> None:
    handler = functools.partial(QuietHandler, directory=str(place / "shapes/images/test"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/000000.jpg"
        common = ["--weights", place / "best.pt", "--save-txt", "--conf", 0.6]
        assert run(detect.main, "detect.py", *common, "--source", address) == 0
        assert run(detect.main, "detect.py", *common, "--source", place / "shapes/images/test/000000.jpg") == 0
        (result,) = YOLO(place / "best.pt", device="cpu").predict(address, conf=0.6)
        server.shutdown()
    folders = [here / f"runs/detect/{name}" for name in ("exp", "exp2")]
    assert all(sorted(path.name for path in folder.iterdir()) == ["000000.jpg", "labels"] for folder in folders)
    texts = [(folder / "labels/000000.txt").read_text() for folder in folders]
    assert texts[0] == texts[1] == result.to_txt() != ""


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        return None


@pytest.mark.slow
def test_a_video_becomes_a_video(place: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--weights", place / "best.pt", "--source", place / "clip.mp4", "--save-txt", "--save-json"]
    assert run(detect.main, "detect.py", *arguments, "--vid-stride", 2, "--conf", 0.01) == 0
    folder = here / "runs/detect/exp"
    video = cv2.VideoCapture(str(folder / "clip.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(6) and video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (320, 240)
    labels = sorted(path.name for path in (folder / "labels").iterdir())
    assert labels == ["clip_000000.txt", "clip_000002.txt", "clip_000004.txt"]
    assert {record["frame"] for record in json.loads((folder / "detections.json").read_text())} == {0, 2, 4}
    assert "video 1/1 (frame 5/5) " in capsys.readouterr().out


@pytest.mark.slow
def test_objects_of_a_video_are_tracked(place: Path, here: Path) -> None:
    """The still film of one picture: what is found in every frame keeps its id."""
    pytest.importorskip("trackers")
    picture = cv2.imread(str(next((place / "shapes/images/test").iterdir())))
    size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
    writer = cv2.VideoWriter(str(here / "still.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, size)
    for _ in range(4):
        writer.write(picture[: size[1], : size[0]])
    writer.release()
    arguments = ["--weights", place / "best.pt", "--source", "still.mp4", "--conf", 0.6, "--max-det", 5, "--iou", 0.1]
    assert run(detect.main, "detect.py", *arguments, "--track", "--save-txt", "--save-json") == 0
    labels = [np.loadtxt(path, ndmin=2) for path in sorted((here / "runs/detect/exp/labels").glob("*.txt"))]
    assert len(labels) == 4 and all(rows.shape[1] == 6 and len(rows) for rows in labels)
    first, *later = [rows[:, 5].astype(int).tolist() for rows in labels]
    assert set(first) == {-1} and set(later[0]) & set(later[1]) & set(later[2]) - {-1}
    assert all(len(set(ids)) == len(ids) for ids in later if -1 not in ids)
    found = json.loads((here / "runs/detect/exp/detections.json").read_text())
    numbers = [record["track_id"] for record in found if record["frame"] == 1 and "track_id" in record]
    assert sorted(numbers) == sorted(number for number in later[0] if number >= 0)
    results = YOLO(place / "best.pt").track("still.mp4", conf=0.6, max_det=5, iou=0.1)
    assert [result.track_ids.tolist() for result in results if result.track_ids is not None] == [first, *later]


def test_tracking_without_its_package_is_one_line(
    place: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "trackers" else find(name))
    assert run(detect.main, "detect.py", "--weights", place / "best.pt", "--source", place / "clip.mp4", "--track") == 2
    assert "pip install --no-deps" in capsys.readouterr().err and list(here.iterdir()) == []


def test_a_video_that_lacks_frames_is_no_success(
    place: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """OpenCV says nothing of a disk that becomes full while it writes."""

    class Full:
        def __init__(self, *arguments: Any) -> None:
            self.writer, self.frames = VideoWriter(*arguments), 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.writer, name)

        def write(self, picture: np.ndarray) -> None:
            self.frames += 1
            if self.frames <= 2:
                self.writer.write(picture)

        fourcc = staticmethod(cv2.VideoWriter.fourcc)

    VideoWriter = cv2.VideoWriter  # noqa: N806
    monkeypatch.setattr(cv2, "VideoWriter", Full)
    for free, code in ((0, 1), (1 << 30, 2)):
        monkeypatch.setattr("engine.detection_files.shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        assert run(detect.main, "detect.py", "--weights", place / "best.pt", "--source", place / "clip.mp4") == code
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "clip.mp4" in error and "2 of 5 frames" in error


def test_nothing_to_save_makes_no_folder(place: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = next((place / "shapes/images/test").iterdir())
    assert run(detect.main, "detect.py", "--weights", place / "best.pt", "--source", image, "--nosave") == 0
    assert list(here.iterdir()) == [] and "results in" not in capsys.readouterr().out


@pytest.mark.slow
def test_class_names_lead_nowhere_and_obey_no_terminal(
    place: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--weights", place / "hostile.pt", "--source", place / "shapes/images/test", "--save-crop"]
    assert run(detect.main, "detect.py", *arguments, "--save-txt", "--project", "deep/er") == 0
    assert [path.name for path in here.iterdir()] == ["deep"] and [p.name for p in (here / "deep").iterdir()] == ["er"]
    assert {path.name for path in (here / "deep/er/exp").iterdir()} >= {"crops", "labels"}
    assert all(path.parent.parent.name == "crops" for path in (here / "deep/er/exp/crops").rglob("*.jpg"))
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_damaged_picture_is_passed_over_and_counted(
    place: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "shapes/images/test", here / "in")
    (here / "in/000001.jpg").write_bytes(b"broken")
    assert run(detect.main, "detect.py", "--weights", place / "best.pt", "--source", "in") == 0
    out, err = capsys.readouterr()
    assert "2 images, 1 skipped" in out and err.count("\n") == 1 and "000001.jpg" in err
    assert sorted(path.name for path in (here / "runs/detect/exp").iterdir()) == ["000000.jpg", "000002.jpg"]


@pytest.mark.slow
def test_an_interruption_leaves_whole_files(
    place: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Source.iterate

    def interrupted(self: Source, workers: int = 0) -> Iterator[Frame]:
        for number, frame in enumerate(whole(self, workers)):
            if number == 3:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(Source, "iterate", interrupted)
    arguments = ["--weights", place / "best.pt", "--source", place / "clip.mp4", "--save-json", "--conf", 0.01]
    assert run(detect.main, "detect.py", *arguments) == 130
    assert "stopped after 3 images" in capsys.readouterr().out
    folder = here / "runs/detect/exp"
    assert {record["frame"] for record in json.loads((folder / "detections.json").read_text())} == {0, 1, 2}
    assert cv2.VideoCapture(str(folder / "clip.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_help_answers_at_once() -> None:
    start = time.perf_counter()
    command = [sys.executable, "-X", "importtime", str(ROOT / "detect.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--source" in done.stdout and time.perf_counter() - start < 5
    assert not {"torch", "cv2", "pydantic"} & {line.split("|")[-1].strip() for line in done.stderr.splitlines()}


@pytest.mark.slow
def test_tiles_and_the_formats_of_other_programs(place: Path, here: Path) -> None:
    arguments = ["--weights", place / "best.pt", "--source", place / "shapes/images/test", "--nosave", "--save-json"]
    formats = ["--save-csv", "--save-coco", "--save-label-studio"]
    assert run(detect.main, "detect.py", *arguments, *formats) == 0
    assert run(detect.main, "detect.py", *arguments, "--tile", 500) == 0  # larger than the images
    assert run(detect.main, "detect.py", *arguments, "--tile", 48) == 0
    plain, same, tiled = (
        json.loads((here / f"runs/detect/{name}/detections.json").read_text()) for name in ("exp", "exp2", "exp3")
    )
    assert plain == same and len(plain) > 0 and tiled != plain
    folder = here / "runs/detect/exp"
    coco = json.loads((folder / "coco.json").read_text())
    sizes = {each["file_name"]: (each["width"], each["height"]) for each in coco["images"]}
    for row in tiled:
        (left, top, wide, high), (width, height) = row["bbox"], sizes[row["image"]]
        assert left >= 0 and top >= 0 and left + wide <= width + 0.01 and top + high <= height + 0.01
    assert [each["bbox"] for each in coco["annotations"]] == [row["bbox"] for row in plain]
    assert len((folder / "detections.csv").read_text().splitlines()) == 1 + len(plain)
    tasks = json.loads((folder / "label_studio.json").read_text())
    assert len(tasks) == 3 and sum(len(task["predictions"][0]["result"]) for task in tasks) == len(plain)
