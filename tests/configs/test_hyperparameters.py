"""Hyperparameter files of YOLOv5, YOLOv9 and Ultralytics: which keys are taken, and as what."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.cli import Parser, add_config_flags, overrides
from configs.hyperparameters import read_hyperparameters
from configs.schema import load

# The keys of the three kinds; values as their users have them.
YOLOV5 = {
    **{"lr0": 0.01, "lrf": 0.1, "momentum": 0.937, "weight_decay": 0.0005, "warmup_epochs": 3.0},
    **{
        "warmup_momentum": 0.8,
        "warmup_bias_lr": 0.1,
        "box": 0.05,
        "cls": 0.3,
        "cls_pw": 1.0,
        "obj": 0.7,
        "obj_pw": 1.0,
    },
    **{"iou_t": 0.2, "anchor_t": 4.0, "fl_gamma": 0.0, "hsv_h": 0.02, "fliplr": 0.4, "mosaic": 0.9},
}
YOLOV9 = {**YOLOV5, "box": 7.5, "cls": 0.5, "dfl": 1.5}
ULTRALYTICS = {"lr0": 0.01, "momentum": 0.9, "box": 6.5, "cls": 0.4, "dfl": 1.2, "warmup_epochs": 2, "close_mosaic": 5}
WHOLE_RUN = {"task": "detect", "mode": "train", "data": "coco8.yaml", "batch": 16, "plots": True, **ULTRALYTICS}
ALWAYS = {
    "train.lr_final": 0.1,
    "train.warmup": 3.0,
    "augment.hsv_h": 0.02,
    "augment.flip_lr": 0.4,
    "augment.mosaic": 0.9,
}
SGD = {"train.lr": 0.01, "train.momentum": 0.937, "train.weight_decay": 0.0005}
GAINS = {"model.loss.box": 7.5, "model.loss.cls": 0.5, "model.loss.dfl": 1.5}


def write(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "hyp.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("content", "optimizer", "expected"),
    [
        (YOLOV5, None, ALWAYS),
        (YOLOV5, "adamw", ALWAYS),
        (YOLOV5, "sgd", ALWAYS | SGD),
        (YOLOV9, None, ALWAYS | GAINS),
        (YOLOV9, "sgd", ALWAYS | SGD | GAINS),
        (
            ULTRALYTICS,
            None,
            {"train.lr": 0.01, "train.momentum": 0.9, "train.warmup": 2.0, "train.close_mosaic": 5}
            | {"model.loss.box": 6.5, "model.loss.cls": 0.4, "model.loss.dfl": 1.2},
        ),
    ],
)
def test_what_is_taken(
    content: dict[str, Any], optimizer: str | None, expected: dict[str, Any], tmp_path: Path
) -> None:
    found = read_hyperparameters(write(tmp_path, content), optimizer)
    assert found == expected
    load("yolo.yaml", found)  # all are valid


@pytest.mark.parametrize("key", ["obj", "obj_pw", "cls_pw", "iou_t", "anchor_t", "fl_gamma", "giou"])
def test_each_key_of_the_anchor_based_loss_tells_the_kind(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"lr0": 0.01, "box": 0.05, "mosaic": 0.5, key: 1.0}
    assert read_hyperparameters(write(tmp_path, content)) == {"augment.mosaic": 0.5}
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and all(word in said for word in (key, "box", "lr0", "not taken", "--optimizer sgd"))


def test_what_is_taken_whole_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_hyperparameters(write(tmp_path, ULTRALYTICS))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "flag", "left_out"),
    [
        ({}, None, set()),
        ({"optimizer": "auto"}, None, {"train.lr", "train.momentum"}),
        ({"optimizer": "auto"}, "sgd", {"train.lr", "train.momentum"}),
        ({"optimizer": "SGD"}, None, {"train.lr", "train.momentum"}),
        ({"optimizer": "SGD"}, "sgd", set()),
        ({"optimizer": "AdamW"}, None, set()),
    ],
)
def test_the_arguments_of_a_whole_run(
    settings: dict[str, str], flag: str | None, left_out: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of Ultralytics' args.yaml that are no hyperparameters are named; its rate belongs to its optimizer."""
    alone = read_hyperparameters(write(tmp_path, ULTRALYTICS), flag)
    found = read_hyperparameters(write(tmp_path, WHOLE_RUN | settings), flag)
    assert found == {key: value for key, value in alone.items() if key not in left_out}
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and all(key in said for key in ("task", "data", "batch", "plots"))


def test_unknown_keys_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown keys Mosaic, lrO; expected.*train.lr") as caught:
        read_hyperparameters(write(tmp_path, {"lrO": 0.01, "Mosaic": 1.0, "train.lr": 0.1, "hsv_h": 0.1}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("epochs", "expected"), [(0, 0), (0.0, 0), (0.1, 1), (0.5, 1), (1, 1), (2.6, 3), (3.0, 3)])
def test_parts_of_an_epoch_are_no_parts_of_the_run(epochs: float, expected: float, tmp_path: Path) -> None:
    assert read_hyperparameters(write(tmp_path, {"warmup_epochs": epochs})) == {"train.warmup": expected}


@pytest.mark.parametrize("words", [("--optimizer", "sgd"), ("--set", "train.optimizer=sgd")])
def test_the_optimizer_of_the_command_line_counts(words: tuple[str, str], tmp_path: Path) -> None:
    parser = Parser()
    add_config_flags(parser)
    given = overrides(parser.parse_args(["--hyp", write(tmp_path, YOLOV5), *words, "--lr0", "0.02"]))
    assert (given["train.lr"], given["train.momentum"], given["train.optimizer"]) == (0.02, 0.937, "sgd")
