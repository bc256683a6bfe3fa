"""Keyword arguments of the Python API."""

from pathlib import Path

import numpy as np
import pytest

from configs.keywords import overrides_from, refuse_foreign
from configs.schema import load


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"epochs": 50, "imgsz": 640, "batch_size": 8}, {"train.epochs": 50, "train.imgsz": 640, "train.batch": 8}),
        ({"lr0": 0.01, "fliplr": 0, "mosaic": 0.5}, {"train.lr": 0.01, "augment.flip_lr": 0, "augment.mosaic": 0.5}),
        ({"act": "relu", "model.neck.act": "mish"}, {"model.act": "relu", "model.neck.act": "mish"}),
        ({"cache": True, "amp": False}, {"train.cache": "ram", "train.amp": "off"}),
        ({"cache": "disk", "multi_scale": True}, {"train.cache": "disk", "train.multi_scale": 0.5}),
        ({"cos_lr": False, "val": False}, {"train.schedule": "linear", "train.val": False}),
        ({"cos_lr": True, "single_cls": False}, {"train.schedule": "cosine", "train.single_cls": False}),
        ({"device": 0}, {"train.device": "0"}),
        ({"device": [0, 1]}, {"train.device": "0,1"}),
        ({"batch": -1, "optimizer": "AdamW"}, {"train.batch": "auto", "train.optimizer": "adamw"}),
        ({"project": Path("runs/here"), "name": "one"}, {"run.project": "runs/here", "run.name": "one"}),
        ({"freeze": "backbone,neck.N3"}, {"train.freeze": ["backbone", "neck.N3"]}),
        ({"freeze": 10}, {"train.freeze": ["10"]}),  # of Ultralytics; training answers with the parts of the network
        ({"freeze": [0, 1]}, {"train.freeze": ["0", "1"]}),
        ({"loggers": ["wandb"]}, {"run.loggers": ["wandb"]}),
        ({"seed": np.int64(3), "epochs": None}, {"train.seed": 3}),
        ({"warmup_epochs": 2.6}, {"train.warmup": 3.0}),
    ],
)  # fmt: skip
def test_keywords_mean_what_the_flags_mean(keywords: dict[str, object], expected: dict[str, object]) -> None:
    given = overrides_from("train", keywords)
    assert given == expected and [type(value) for value in given.values()] == list(map(type, expected.values()))
    if "train.batch" not in given or given["train.batch"] != "auto":
        load("yolo.yaml", given)  # the configuration takes every one


def test_a_hyperparameter_file_comes_first(tmp_path: Path) -> None:
    (tmp_path / "hyp.yaml").write_text("lr0: 0.02\ndegrees: 5.0\n")
    given = overrides_from("train", {"lr0": 0.01, "hyp": tmp_path / "hyp.yaml"})
    assert given == {"train.lr": 0.01, "augment.degrees": 5.0}


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"epoch": 5}, TypeError, "train: unknown argument 'epoch', did you mean 'epochs'?"),
        ({"flip_ir": 5}, TypeError, "did you mean 'flip_lr'?"),
        ({"img": 64, "imgsz": 96}, TypeError, "imgsz sets train.imgsz, which another argument sets as well"),
        ({"pretrained": "x.pt"}, ValueError, "train: pretrained: not supported; use weights FILE.pt"),
        ({"plots": True}, ValueError, "pictures are always drawn"),
        ({"erasing": 0.4}, ValueError, "train: erasing: not supported; use extra"),
        ({"classes": [0]}, ValueError, "train: classes: not supported; create an annotation file"),
        ({"single_cls": "yes"}, ValueError, "single_cls: found 'yes', expected True or False"),
    ],
)
def test_wrong_keywords_are_one_line(keywords: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as found:
        overrides_from("train", keywords)
    assert words in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("function", "name", "words"),
    [
        ("predict", "save", "use result.save"),
        ("predict", "stream", "use YOLO.stream"),
        ("predict", "verbose", "leave it out"),
        ("predict", "agnostic_nms", "use agnostic"),
        ("predict", "persist", "in one call"),
        ("predict", "augment", "tile or a larger imgsz"),  # from the table of detect.py
        ("val", "plots", "leave it out"),
        ("val", "device", "YOLO(weights, device=...)"),
        ("val", "save_json", "leave it out"),
        ("export", "simplify", "leave it out"),
        ("export", "workspace", "TensorRT chooses it"),
    ],
)
def test_keywords_of_other_trainers_name_what_to_use(function: str, name: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{function}: {name}: not supported; ") as found:
        refuse_foreign(function, {"conf": 0.3, name: True})
    assert words in str(found.value) and "--" not in str(found.value)
    refuse_foreign(function, {"conf": 0.3, "imgsz": 64, "sav": True})
