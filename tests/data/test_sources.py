"""Sources of frames: accepted kinds, their order, and error messages for others."""

import os
import subprocess
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data import sources
from data.sources import Frame, Source, open_source

ROOT = Path(__file__).parents[2]


def picture(value: int, height: int = 40, width: int = 60) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = value
    return image


def write_video(path: Path, frames: int, *, fps: float = 10.0) -> Path:
    """A video of grey frames with increasing brightness."""
    code = cv2.VideoWriter.fourcc(*("mp4v" if path.suffix == ".mp4" else "MJPG"))
    writer = cv2.VideoWriter(str(path), code, fps, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 20 * index + 10, np.uint8))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, value in (("b.png", 20), ("a.jpg", 10), ("c.PNG", 30)):
        Image.fromarray(picture(value)).save(tmp_path / name)
    (tmp_path / "notes.md").write_text("not a picture")
    (tmp_path / "inner").mkdir()
    Image.fromarray(picture(40)).save(tmp_path / "inner" / "d.png")
    return tmp_path


def names(source: Source) -> list[str]:
    return [Path(frame.path).name for frame in source]


def test_an_image_is_rgb(folder: Path) -> None:
    (frame,) = open_source(folder / "b.png")
    assert np.array_equal(frame.image, picture(20)) and frame.image.dtype == np.uint8
    assert frame.size == (60, 40) and frame.name == "b" and not frame.is_video


def test_folder_is_sorted_and_not_recursive(folder: Path) -> None:
    source = open_source(str(folder))
    assert len(source) == 3 and not source.is_live
    assert names(source) == ["a.jpg", "b.png", "c.PNG"] == names(source)


def test_glob(folder: Path) -> None:
    assert names(open_source(f"{folder}/**/*.png")) == ["b.png", "d.png"]
    assert names(open_source(f"{folder}/*")) == ["a.jpg", "b.png", "c.PNG"]


def test_a_glob_below_a_folder_with_brackets(folder: Path) -> None:
    """In names that exist, brackets are themselves; where that matches nothing, they are a pattern."""
    for name in ("set [1]", "set 1", "s[ab]"):
        (folder / name / "in").mkdir(parents=True)
    for name in ("set [1]/in/x.png", "set [1]/in/y[2].png", "set 1/in/z.png", "s[ab]/in/[k]_1.png"):
        (folder / name).write_bytes((folder / "b.png").read_bytes())
    assert names(open_source(f"{folder}/set [1]/in/*.png")) == ["x.png", "y[2].png"]
    assert names(open_source(f"{folder}/set [1]/**/*.png")) == ["x.png", "y[2].png"]
    assert names(open_source(f"{folder}/set [1-9]/in/*.png")) == ["z.png"]
    assert names(open_source(f"{folder}/s[[]ab]/in/*.png")) == ["[k]_1.png"]
    assert names(open_source(f"{folder}/s[ab]/in/[k]_*.png")) == ["[k]_1.png"]


def test_what_is_no_image_or_video_is_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Suffixes and contents as everywhere else; a GIF is a video if it moves."""
    picture = Image.new("RGB", (30, 20))
    for name, kind in (("d.jfif", "JPEG"), ("e", "PNG"), ("f.jp2", "JPEG2000"), ("still.gif", "GIF")):
        picture.save(folder / name, kind)
    picture.save(folder / "moves.gif", save_all=True, append_images=[Image.new("RGB", (30, 20), "red")])
    (folder / "raw.heic").write_bytes(b"\0\0\0\x18ftypheic")
    source = open_source(folder)
    kinds = {Path(frame.path).name: frame.is_video for frame in source}
    assert list(kinds) == ["a.jpg", "b.png", "c.PNG", "d.jfif", "e", "f.jp2", "moves.gif", "still.gif"]
    assert [name for name, is_video in kinds.items() if is_video] == ["moves.gif"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "2 files" in line and "notes.md" in line
    assert names(open_source(folder / "e")) == ["e"]
    open_source(f"{folder}/*.png")
    assert capsys.readouterr().err == ""


def test_a_pipe_in_a_folder_is_not_opened(folder: Path) -> None:
    """To find out whether a GIF moves, it would be, and wait for a writer."""
    os.mkfifo(folder / "pipe.gif")
    assert names(open_source(folder)) == ["a.jpg", "b.png", "c.PNG"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    (folder / "a[1].png").write_bytes((folder / "b.png").read_bytes())
    assert names(open_source(f"{folder}/a[1].png")) == ["a[1].png"]


def test_list_file_is_relative_to_itself_then_to_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = folder / "lists"
    lists.mkdir()
    (lists / "some.txt").write_text(f"../b.png\n\n{folder}/a.jpg\ninner/d.png\n")
    monkeypatch.chdir(folder)
    assert names(open_source(lists / "some.txt")) == ["b.png", "a.jpg", "d.png"]


def test_images_with_equal_names_get_unique_stems(folder: Path) -> None:
    (folder / "inner" / "b.jpg").write_bytes((folder / "a.jpg").read_bytes())
    source = open_source([folder / "b.png", folder / "inner" / "b.jpg", folder / "b.png"])
    assert [frame.name for frame in source] == ["b", "b_2", "b_3"]


def test_arrays_and_pil_images_in_either_order() -> None:
    rgb = picture(77)
    for given, bgr in ((rgb, False), (rgb[:, :, ::-1], True)):
        (frame,) = open_source(given, bgr=bgr)
        assert np.array_equal(frame.image, rgb)
    (frame,) = open_source(np.full((5, 6), 9, np.uint8))
    assert np.array_equal(frame.image, np.full((5, 6, 3), 9, np.uint8))
    frames = list(open_source([rgb, Image.fromarray(rgb).convert("RGBA")]))
    assert all(np.array_equal(frame.image, rgb) for frame in frames)


def test_arrays_and_paths_give_equal_images(folder: Path) -> None:
    (from_path,) = open_source(folder / "b.png")
    (from_array,) = open_source(cv2.imread(str(folder / "b.png")), bgr=True)
    assert np.array_equal(from_path.image, from_array.image)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_video(tmp_path: Path, suffix: str) -> None:
    frames: list[Frame] = list(open_source(write_video(tmp_path / f"clip{suffix}", 8)))
    assert [frame.frame_index for frame in frames] == list(range(8))
    assert {frame.frame_count for frame in frames} == {8} and all(frame.is_video for frame in frames)
    assert frames[0].fps == pytest.approx(10) and frames[0].size == (64, 48)
    assert np.allclose([frame.image.mean() for frame in frames], [20 * i + 10 for i in range(8)], atol=4)


def test_video_stride(tmp_path: Path) -> None:
    frames = list(open_source(write_video(tmp_path / "clip.avi", 8), vid_stride=3))
    assert [frame.frame_index for frame in frames] == [0, 3, 6]
    assert np.allclose([frame.image.mean() for frame in frames], [10, 70, 130], atol=4)


def test_an_abandoned_video_is_closed(tmp_path: Path) -> None:
    frames = iter(open_source(write_video(tmp_path / "clip.avi", 4)))
    next(frames)
    frames.close()  # type: ignore[attr-defined]


def test_live_sources_return_the_newest_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    class Camera:
        """Opens as camera 3 and ends after 50 frames."""

        def __init__(self, number: int) -> None:
            assert number == 3
            self.sent = 0

        def isOpened(self) -> bool:
            return True

        def get(self, key: int) -> float:
            return 30.0 if key == cv2.CAP_PROP_FPS else -1.0

        def read(self) -> tuple[bool, np.ndarray]:
            self.sent += 1
            return self.sent <= 50, np.full((4, 4, 3), min(self.sent, 50), np.uint8)

        def release(self) -> None:
            return None

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    source = open_source("3")
    assert source.is_live
    frames = list(source)
    indices = [frame.frame_index for frame in frames]
    assert indices == sorted(set(indices)) and indices[-1] == 49
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [index + 1 for index in indices]
    assert frames[0].name == "camera_3" and frames[0].fps == 30


def test_a_damaged_image_is_reported_once_and_skipped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "b.png").write_bytes(b"not a picture")
    (folder / "clip.mp4").write_bytes(b"not a video")
    source = open_source(folder)
    assert names(source) == ["a.jpg", "c.PNG"]
    assert [Path(path).name for path, _ in source.skipped] == ["b.png", "clip.mp4"]
    said = [line.split(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == [str(folder), *(path for path, _ in source.skipped)]  # the first one counts notes.md


@pytest.mark.parametrize("workers", [1, 3, 20])
def test_reading_ahead_changes_nothing(workers: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The order, also around a video, the frames, and what is said of damaged files and when."""
    write_video(folder / "b2.mp4", 3)
    (folder / "a2.jpg").write_bytes(b"")
    (folder / "z.png").write_bytes((folder / "b.png").read_bytes()[:60])

    def seen(ahead: int) -> list[object]:
        source, told = open_source(str(folder)), []
        for frame in source.iterate(ahead):
            told.append((frame.path, frame.name, frame.item, frame.frame_index, frame.image.tobytes()))
            told.append(capsys.readouterr().err)
        return [*told, capsys.readouterr().err, source.skipped]

    expected = seen(0)
    assert len(expected) == 2 * 6 + 2 and len(expected[-1]) == 2
    assert seen(workers) == expected


def test_images_are_read_at_the_same_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two by two: each waits for another."""
    together, read = threading.Barrier(2, timeout=20), sources._read
    Image.fromarray(picture(50)).save(folder / "d.png")

    def meet(item: object) -> object:
        together.wait()
        return read(item)

    monkeypatch.setattr(sources, "_read", meet)
    assert len(list(open_source(str(folder)).iterate(2))) == 4


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="none of its 2 files"):
        list(open_source(tmp_path))
    for name, content in (("alone.png", b"x"), ("alone.mp4", b"x")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            list(open_source(tmp_path / name))


def test_a_missing_camera_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="98"):
        list(open_source(98))
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_ffmpeg_prints_nothing(tmp_path: Path, warm_python: str) -> None:
    """In a separate process, as FFmpeg reads its log level with the first video of a process."""
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x20ftypisom broken")
    (tmp_path / "b.mp4").write_bytes(b"broken")
    code = "from data.sources import open_source; open_source('clip.avi'); print(len(list(open_source('.'))))"
    write_video(tmp_path / "clip.avi", 2)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OPENCV_FFMPEG_LOGLEVEL", None)
    command = [warm_python, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["a.mp4", "b.mp4"]


def refusals(folder: Path) -> list[tuple[object, type[Exception], str]]:
    (folder / "empty").mkdir()
    (folder / "list.txt").write_text("b.png\ngone.png\nlost.png\n")
    (folder / "empty.txt").write_text("\n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00\x01")
    (folder / "streams.txt").write_text("rtsp://host/stream\n")
    return [
        ("", ValueError, "empty"),
        ("none.jpg", FileNotFoundError, "none.jpg"),
        (folder / "notes.md", ValueError, r"notes.md.*\.md.*\.jpg"),
        (folder / "empty", ValueError, "0 files"),
        (f"{folder}/*.xyz", FileNotFoundError, "xyz"),
        (f"{folder}/*.md", ValueError, "1 matches"),
        (folder / "list.txt", FileNotFoundError, "2 of 3.*gone.png, lost.png"),
        (folder / "empty.txt", ValueError, "empty list"),
        (folder / "binary.txt", ValueError, "UTF-8"),
        (folder / "streams.txt", ValueError, "streams.txt"),
        ("gopher://host/a.jpg", ValueError, "gopher"),
        ("a\0b.jpg", ValueError, "zero bytes"),
        ([], ValueError, "empty"),
        (["none.jpg"], FileNotFoundError, "element 0"),
        (None, ValueError, "NoneType"),
        (True, ValueError, "bool"),
        (np.zeros((4, 4, 3), np.complex64), ValueError, "complex64"),
        (np.zeros((3, 40, 40), np.uint8), ValueError, r"\(3, 40, 40\)"),
        (np.full((4, 4, 3), 7.5), ValueError, "7.5"),
        (np.full((4, 4), -3), ValueError, "-3"),
        (b"not an image", ValueError, "not an image"),
        (Image.fromarray(np.full((4, 4), 1e5, np.float32)), ValueError, "100000"),
        (np.zeros((3, 4, 4, 3), np.uint8), ValueError, r"\(3, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"\(0, 4, 3\)"),
    ]


def test_errors_name_what_was_found(folder: Path) -> None:
    for source, kind, message in refusals(folder):
        with pytest.raises(kind, match=message):
            open_source(source)
    with pytest.raises(ValueError, match="vid_stride"):
        open_source(folder, vid_stride=0)


def test_comments_in_lists_are_skipped(folder: Path) -> None:
    (folder / "list.txt").write_text("# mine\nb.png\n  # a.jpg\n")
    assert names(open_source(folder / "list.txt")) == ["b.png"]


def test_a_name_that_begins_with_a_tilde(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "b.png").rename("~b.png")
    assert names(open_source("~b.png")) == ["~b.png"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.CR2", "raw file"), ("a.heic", "HEIC"), ("a.svg", "SVG"), ("empty", "empty"), ("pipe", "pipe")],
)
def test_files_that_are_no_images_are_named(name: str, words: str, tmp_path: Path) -> None:
    contents = {"a.heic": b"\0\0\0\x18ftypheic", "a.svg": b"<svg/>", "a.CR2": b"II*\0"}
    if name == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(contents.get(name, b""))
    with pytest.raises(ValueError, match=words):
        open_source(tmp_path / name)


def test_what_is_said_about_items_is_safe_for_terminals(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a\x1b[31m.jpg").write_bytes(b"")
    data = (folder / "a.jpg").read_bytes()
    (folder / "cut\n.jpg").write_bytes(data[:-4])
    assert len(list(open_source(folder))) == 4
    assert capsys.readouterr().err.splitlines() == [
        f"{folder}: 1 file is not an image and was passed over: notes.md",
        f"{folder}/a?[31m.jpg: is empty; skipped",
        f"{folder}/cut?.jpg: ends early; what is there is used",
    ]


@pytest.mark.parametrize("bgr", ["yes", 2, []])
def test_bgr_is_true_or_false(bgr: object) -> None:
    with pytest.raises(ValueError, match="bgr"):
        open_source(picture(5), bgr=bgr)  # type: ignore[arg-type]
