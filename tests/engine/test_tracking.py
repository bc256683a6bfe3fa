"""Ids of tracked objects, on made detections whose objects are known."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data.sources import Frame
from engine.detections import Result
from engine.tracking import Tracks

NAMES = ["ball", "box"]
IMAGE = np.zeros((120, 160, 3), np.uint8)


def result(
    boxes: object, scores: object, labels: object, *, frame: int = 0, item: int = 0, video: bool = True
) -> Result:
    """A frame of a video with detections."""
    where = Frame(IMAGE, "film", "film.mp4", item, frame_index=frame, is_video=video, fps=25.0)
    return Result(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64), NAMES,
        where, {}, (120, 160),
    )  # fmt: skip


def passing(
    frames: int = 12, *, missing: range = range(0), faint: range = range(0)
) -> Iterator[tuple[Result, list[str]]]:
    """Two objects that pass each other on parallel lines, in alternating order; and which of them each row is."""
    for frame in range(frames):
        right, left = 10 + 8 * frame, 120 - 8 * frame
        rows = [
            ("right", [right, 20, right + 24, 44], 0.3 if frame in faint else 0.9),
            ("left", [left, 60, left + 24, 84], 0.8),
        ]
        rows = [row for row in rows if row[0] == "left" or frame not in missing][:: 1 if frame % 2 else -1]
        boxes, scores = [row[1] for row in rows], [row[2] for row in rows]
        yield result(boxes, scores, [int(row[0] == "left") for row in rows], frame=frame), [row[0] for row in rows]


@pytest.mark.parametrize("kind", ["all frames", "missing", "faint"])
def test_an_object_keeps_its_id(kind: str) -> None:
    pytest.importorskip("trackers")
    gone = {"missing": range(4, 6)}.get(kind, range(0))
    weak = {"faint": range(4, 8)}.get(kind, range(0))  # below the threshold, where ByteTrack goes on
    made = list(passing(missing=gone, faint=weak))
    found = list(Tracks(0.5).follow(iter([each for each, _ in made])))
    ids: dict[str, set[int]] = {"right": set(), "left": set()}
    for frame, (tracked, (_, who)) in enumerate(zip(found, made, strict=True)):
        assert tracked.track_ids is not None and len(tracked) == len(who) == len(tracked.track_ids)
        for name, number in zip(who, tracked.track_ids.tolist(), strict=True):
            ids[name].add(number) if frame > 0 else ids[name].update(set())
            assert frame > 0 or number == -1
    assert all(len(numbers - {-1}) == 1 for numbers in ids.values()), ids
    assert ids["right"].isdisjoint(ids["left"])


def test_faint_objects_without_a_track_are_not_reported() -> None:
    pytest.importorskip("trackers")
    tracks = Tracks(0.5)
    assert tracks.lowest == 0.1 and Tracks(0.05).lowest == 0.05
    frames = [result([[5, 5, 25, 25], [60, 60, 90, 90]], [0.9, 0.2], [0, 1], frame=k) for k in range(4)]
    found = list(tracks.follow(iter(frames)))
    assert [len(each) for each in found] == [1, 1, 1, 1] and {each.labels[0] for each in found} == {0}


def test_each_video_has_ids_of_its_own_and_images_share_them() -> None:
    pytest.importorskip("trackers")
    box = [[5, 5, 25, 25]]

    def last_ids(items: list[int], video: bool) -> list[int]:
        frames = [result(box, [0.9], [0], frame=k, item=item, video=video) for k, item in enumerate(items)]
        return [int(each.track_ids[0]) for each in Tracks(0.5).follow(iter(frames)) if each.track_ids is not None]

    first = last_ids([0, 0, 1, 1], video=True)
    assert first[0] == first[2] == -1 and first[1] == first[3] >= 0
    images = last_ids([0, 1, 2, 3], video=False)
    assert images[0] == -1 and images[1] == images[2] == images[3] >= 0


def test_ids_are_in_the_picture_the_text_and_the_records(tmp_path: Path) -> None:
    plain = result([[10, 10, 40, 40], [60, 60, 90, 90]], [0.9, 0.8], [0, 1])
    tracked = Result(**{**vars(plain), "track_ids": np.array([7, -1])})
    assert [line.split()[-1] for line in tracked.to_txt().splitlines()] == ["7", "-1"]
    assert [len(line.split()) for line in tracked.to_txt(save_conf=True).splitlines()] == [7, 7]
    assert [line.split()[:5] for line in tracked.to_txt().splitlines()] == [
        line.split() for line in plain.to_txt().splitlines()
    ]
    assert [record.get("track_id") for record in tracked.records()] == [7, None]
    assert "track_id" not in plain.records()[0] and (tracked.plot() != plain.plot()).any()


def test_supervision_gets_the_same_detections() -> None:
    pytest.importorskip("supervision")
    plain = result([[10, 10, 40, 40], [60, 60, 90, 90]], [0.9, 0.8], [0, 1])
    found = plain.to_supervision()
    assert np.array_equal(found.xyxy, plain.boxes) and np.array_equal(found.class_id, plain.labels)
    assert np.array_equal(found.confidence, plain.scores) and found.tracker_id is None
    assert found.data["class_name"].tolist() == NAMES
    assert len(result([], [], []).to_supervision()) == 0


def test_without_the_package_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "trackers" else find(name))
    with pytest.raises(ValueError, match="^tracking: the package trackers is not installed: uv sync --extra track"):
        Tracks(0.5)
