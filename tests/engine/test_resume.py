"""Which folder a resumed run writes to: only one that is proved to be its own."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from configs.schema import load
from engine.resume import own_folder
from engine.trainer import State

CONFIG = load("yolo-mish.yaml").model_dump(mode="json")
CHECKPOINT: dict[str, Any] = {"run_id": "a1", "config": CONFIG, "data_sha256": {"train": "00", "val": "11"}}
RECORD = {"id": "a1", "config": CONFIG, "data": {"train": "00", "val": "11"}}


def folder_with(root: Path, record: object, name: str = "weights/last.pt") -> Path:
    """A folder with this run.json and a file of this name; returns the file."""
    path = root / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a checkpoint")
    if record is not None:
        (root / "run.json").write_text(record if isinstance(record, str) else json.dumps(record))
    return path


def test_the_folder_with_the_run_id_is_its_own(tmp_path: Path) -> None:
    path = folder_with(tmp_path / "exp", RECORD)
    assert own_folder(path, CHECKPOINT) == tmp_path / "exp"
    (tmp_path / "link.pt").symlink_to(path)
    assert own_folder(tmp_path / "link.pt", CHECKPOINT) == tmp_path / "exp"


def test_weights_may_lie_on_another_disk(tmp_path: Path) -> None:
    path = folder_with(tmp_path / "exp", RECORD)
    moved = (tmp_path / "disk").resolve()
    moved.mkdir()
    path.rename(moved / "last.pt")
    path.symlink_to(moved / "last.pt")
    assert own_folder(path, CHECKPOINT) == tmp_path / "exp"
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(moved)
    assert own_folder(path, CHECKPOINT) == tmp_path / "exp"
    assert own_folder(moved / "last.pt", CHECKPOINT) is None


@pytest.mark.parametrize("name", ["checkpoints/last.pt", "weights/epoch5.pt", "weights/backup/last.pt", "last.pt"])
def test_no_other_place_is_taken_for_it(name: str, tmp_path: Path) -> None:
    path = folder_with(tmp_path / "project", RECORD, name)
    assert own_folder(path, CHECKPOINT) is None


@pytest.mark.parametrize(
    "record", [None, "not JSON", "[]", {}, {**RECORD, "id": "b2"}, {**RECORD, "id": None}, {**RECORD, "starts": 1}]
)
def test_a_folder_without_the_id_is_not(record: object, tmp_path: Path) -> None:
    assert own_folder(folder_with(tmp_path / "project", record), CHECKPOINT) is None


@pytest.mark.parametrize(
    ("change", "own"),
    [
        ({}, True),
        ({"train": {"workers": 7}}, True),  # may change with a resume
        ({"train": {"seed": 7}}, False),
        ({"run": {"name": "other"}}, False),
    ],
)
def test_a_checkpoint_from_before_there_were_ids(change: dict[str, dict[str, Any]], own: bool, tmp_path: Path) -> None:
    config = copy.deepcopy(CONFIG)
    for section, values in change.items():
        config[section] |= values
    path = folder_with(tmp_path / "exp", {"config": config, "data": RECORD["data"]})
    old = {key: value for key, value in CHECKPOINT.items() if key != "run_id"}
    assert own_folder(path, old) == (tmp_path / "exp" if own else None)
    assert own_folder(path, {**old, "data_sha256": {"train": "22"}}) is None


def test_the_sentinel_of_earlier_checkpoints_is_no_score() -> None:
    assert (State(best=-1.0, best_epoch=-1).best, State(best=-1.0, best_epoch=-1).best_epoch) == (None, None)
    assert (State(best=0.0, best_epoch=3).best, State(best=0.0, best_epoch=3).best_epoch) == (0.0, 3)
