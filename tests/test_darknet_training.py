"""Training Darknet networks through train.py: from a cfg alone, from weights, resumed, and what is refused."""

import csv
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
import val
from configs.schema import load
from data import load_dataset
from data.augment import Augmentation
from data.image import read_image
from data.samples import ResizeMode, TrainSamples
from engine.checkpoint import load_checkpoint
from engine.trainer import Trainer
from models import adapted, build_model
from models.darknet import __main__ as darknet
from models.darknet.adapt import for_classes, with_anchors
from models.darknet.anchors import find_anchors, mean_overlap
from models.darknet.graph import plan_network
from models.darknet.weights import check_other_classes, check_weights, read_weights, start_from_weights
from tests.models.darknet.cfgs import CLASSIFIER, DETECTOR, DETECTOR_6, values, weights
from tests.models.darknet.oracle import count
from tests.models.darknet.test_network import section
from tests.stress.kills import differing
from tests.support.checkpoints import write_data
from tests.support.scripts import run
from tests.support.training import BRIEF
from yolo import YOLO

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a cfg of two classes, weights of random numbers and the embedded data of six."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.cfg").write_text(DETECTOR)
    (tmp_path / "x.weights").write_bytes(weights(values(count(DETECTOR), seed=1)))
    write_data(tmp_path, train=4)
    return tmp_path


@pytest.fixture
def bare(no_pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without pictures and without the evaluation at their end."""
    monkeypatch.setattr("engine.final_results.finish", lambda run: {})


def start(*more: object) -> int:
    return run(train.main, "train.py", "--cfg", "x.cfg", "--data", "shapes.yaml", *BRIEF, *more)


def test_from_weights_of_other_classes_to_darknet_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start("--weights", "x.weights", "--epochs", 2) == 0
    out, folder = capsys.readouterr().out, place / "runs/train/exp"
    for words in (
        "2 classes, the data have 6: set classes= of the [yolo] sections and filters= of layers 13, 18",
        "input of 32 x 32 pixels, trained on 64 x 64",
        "net.momentum=0.949: here train.momentum", "without a counterpart here: net.steps, net.scales",
        "4 of 6 convolutions loaded from x.weights, seen 12,345 images, 2 classes",
        "not loaded: head.P3.13, head.P2.18", "  obj ",
    ):  # fmt: skip
        assert words in out, words
    assert out.count("net.steps") == 1
    rows = list(csv.DictReader((folder / "results.csv").open()))
    names = [f"{split}/{term}_loss" for split in ("train", "val") for term in ("box", "obj", "cls")]
    assert len(rows) == 2 and all(float(row[name]) > 0 for row in rows for name in names)
    assert not any("dfl" in name for name in rows[0]) and {"results.png", "labels.png"} <= set(os.listdir(folder))
    assert run(darknet.main, "python -m models.darknet", folder / "weights/best.pt", "own.weights", "own.cfg") == 0
    text = (place / "own.cfg").read_text()
    assert text == DETECTOR_6.replace("width=32\nheight=32", "width=64\nheight=64") and "# every layer" in text
    image = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    doors = YOLO("own.weights", cfg="own.cfg", device="cpu"), YOLO(folder / "weights/best.pt", device="cpu")
    one, other = (door.predict(image, conf=0.01)[0] for door in doors)
    assert len(one) and np.array_equal(one.boxes, other.boxes) and doors[0].imgsz == doors[1].imgsz == 64
    # val.py on the checkpoint measures as the run did.
    assert run(val.main, "val.py", "--weights", folder / "weights/best.pt", "--batch", 4) == 0
    measured = json.loads((place / "runs/val/exp/metrics.json").read_text())["numbers"]
    told = json.loads((folder / "run.json").read_text())["results"]
    assert measured["mAP50"] == pytest.approx(told["mAP50"], abs=1e-4)


@pytest.mark.usefixtures("bare")
def test_the_kept_config_gives_the_same_run(place: Path) -> None:
    assert start("--weights", "x.weights", "--epochs", 1, "--name", "one") == 0
    assert run(train.main, "train.py", "--cfg", "runs/train/one/config.yaml", "--name", "two") == 0
    one, two = (load_checkpoint(place / f"runs/train/{name}/weights/last.pt") for name in ("one", "two"))
    assert differing(one, two) == []
    state = build_model(section(DETECTOR), seed=0)
    read_weights(check_weights("x.weights", state.plan), state)
    moved = [
        name for name, each in state.state_dict().items()
        if name.endswith("conv.weight") and "head" not in name and torch.equal(each, one["model"][name])
    ]  # fmt: skip
    assert moved == []  # all of them learn


@pytest.mark.usefixtures("bare")
def test_a_run_that_was_stopped_ends_as_one_that_never_was(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--weights", "x.weights", "--epochs", 2, "--multi-scale", "--nbs", 4, "--batch", 1)
    assert start(*options, "--name", "whole") == 0
    one_step, steps = Trainer.one_step, []

    def interrupted(self: Trainer, *arguments: Any, **named: Any) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "one_step", interrupted)
        assert start(*options, "--name", "cut") == 128 + signal.SIGTERM
    last = place / "runs/train/cut/weights/last.pt"
    assert load_checkpoint(last)["state"]["batch"] > 0
    (place / "x.weights").rename(place / "gone.weights")  # it is needed no more
    assert start(*options, "--resume", last) == 0
    whole, cut = (load_checkpoint(place / f"runs/train/{name}/weights/last.pt") for name in ("whole", "cut"))
    assert differing(whole, cut) == []
    (place / "x.cfg").write_text(DETECTOR.replace("=mish", "=relu"))
    assert run(train.main, "train.py", "--cfg", "x.cfg", "--data", "shapes.yaml", "--resume", last) == 2


@pytest.mark.usefixtures("bare")
def test_activations_are_switched_and_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("--set", "model.replace.leaky=mish", "model.replace.relu=mish")
    assert start("--weights", "x.weights", "--epochs", 1, *changes) == 0
    out = capsys.readouterr().out
    assert "trained with other activations, according to the cfg: 2 leaky -> mish, 1 relu -> mish" in out
    found = {row["activation"] for row in load_checkpoint(place / "runs/train/exp/weights/best.pt")["census"]}
    assert found == {"mish", "silu", "identity", "sigmoid"}


@pytest.mark.usefixtures("bare")
def test_a_backbone_is_a_start(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_network(DETECTOR, file="x.cfg")
    held = sum(layer.values for layer in plan.layers[:6])
    (place / "x.conv.6").write_bytes(weights(values(plan.values)[:held]))
    assert start("--weights", "x.conv.6", "--epochs", 1) == 0
    assert "3 of 6 convolutions loaded from x.conv.6" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--weights", "no.weights"], "no.weights: no such file"),
        (["--weights", "no.pt"], "no.pt: no such checkpoint"),
        (["--weights", "other.weights"], "x.cfg has 3497: 3397 are missing"),
        (["--cfg", "classifier.cfg"], "a classifier without [yolo] layers"),
        (["--cfg", "truth.cfg"], "[yolo] truth_thresh=0.9: expected 1"),
        (["--cfg", "shared.cfg"], "[yolo] classes=2: expected 6, or a convolution before it"),
        (["--set", "model.loss.dfl=1"], "model.loss.dfl (command line): unknown key"),
        (["--set", "model.loss.box=-1"], "model.loss.box"),
        (["--set", "model.loss.label_smoothing=2"], "model.loss.label_smoothing"),
        (["--cfg", "yolo-mish.yaml", "--weights", "x.weights"], "x.weights: Darknet weights; expected the --cfg"),
    ],
)
def test_refusals(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    (place / "other.weights").write_bytes(weights(values(100)))
    (place / "classifier.cfg").write_text(CLASSIFIER)
    (place / "truth.cfg").write_text(DETECTOR.replace("jitter=.3", "truth_thresh=0.9"))
    (place / "shared.cfg").write_text(DETECTOR.replace("[yolo]           ", "[dropout]\n[yolo]           "))
    assert start("--epochs", 1, *arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1, error
    assert not (place / "runs").exists()


def test_the_text_is_changed_where_it_must_be_and_nowhere_else() -> None:
    assert for_classes(DETECTOR, 2, file="x.cfg") == DETECTOR and for_classes(DETECTOR, 6, file="x.cfg") == DETECTOR_6
    assert for_classes(DETECTOR_6, 2, file="x.cfg") == DETECTOR
    bare = DETECTOR.replace("classes=2\n", "").replace("filters=14", "filters=50").replace("filters=7", "filters=25")
    changed = for_classes(bare, 3, file="x.cfg")  # 20 classes are what a cfg without a number has
    assert changed.count("classes=3") == 2 and plan_network(changed, file="x.cfg").classes == 3
    given = load("yolo.yaml", {"model.kind": "darknet", "model.cfg": "x.cfg", "model.text": DETECTOR}).model
    same, notes = adapted(given, classes=2, side=32)
    assert same == given and not any("classes" in each or "trained on" in each for each in notes)
    wide = given.model_copy(update={"text": DETECTOR.replace("width=32", "width=64")})
    square, notes = adapted(wide, classes=2, side=64)
    assert "height=64" in square.text and any("64 x 32 pixels, trained on 64 x 64" in each for each in notes)
    anchors = [(3.0, 4.0), (7.25, 5.0), (20.0, 30.0)]
    changed = with_anchors(DETECTOR, anchors, file="x.cfg")
    model = build_model(section(changed), seed=0)
    assert model.box_heads[0].anchors == ((7.25, 5.0), (20.0, 30.0)) and model.box_heads[1].anchors == ((3.0, 4.0),)
    with pytest.raises(ValueError, match="found 2 anchors"):
        with_anchors(DETECTOR, anchors[:2], file="x.cfg")


def test_weights_of_other_classes_are_known_by_their_size(tmp_path: Path) -> None:
    path = tmp_path / "x.weights"
    for classes in (1, 2, 6, 80):
        text = for_classes(DETECTOR, classes, file="x.cfg")
        data = values(count(text), seed=classes)
        path.write_bytes(weights(data))
        file = check_other_classes(path, DETECTOR, file="x.cfg")
        assert file.plan.classes == classes
        model, whole = build_model(section(DETECTOR), seed=0), build_model(section(text), seed=1)
        before = {name: each.clone() for name, each in model.state_dict().items()}
        read_weights(check_weights(path, whole.plan), whole)
        notes = start_from_weights(model, str(path), [], text=DETECTOR)
        assert (f"{classes} classes" in notes[0]) == (classes != 2)
        for name, each in model.state_dict().items():
            of_a_head = re.search(r"\.(13|18)\.", name) and classes != 2
            wanted = before[name] if of_a_head else whole.state_dict()[name]
            assert torch.equal(each, wanted), name
    path.write_bytes(weights(values(count(DETECTOR) + 1)))
    with pytest.raises(ValueError, match="1 are surplus"):
        check_other_classes(path, DETECTOR, file="x.cfg")


@pytest.mark.parametrize("letter_box", [0, 1])
def test_training_sees_images_as_detection_does(place: Path, letter_box: int) -> None:
    """Without augmentation a training image is what `preprocess` makes of it, and so are its boxes."""
    config = load("yolo.yaml", {"data": "shapes.yaml"})
    annotations = load_dataset(config.data, "train", progress=False)
    model = build_model(section(DETECTOR.replace("width=32", f"letter_box={letter_box}\nwidth=32")), seed=0)
    samples = TrainSamples(
        annotations, imgsz=64, seed=0, augmentation=Augmentation(), resize_mode=ResizeMode(**model.fitting)
    )
    for index in range(len(annotations)):
        sample = samples.sample(0, index)
        image, geometry = model.preprocess(read_image(annotations.path(index)), 64)
        boxes = geometry.to_network(annotations.training_boxes(index)[0])
        assert len(sample.boxes) == len(boxes) > 0
        if letter_box:  # Darknet rounds down, and its grey is another
            np.testing.assert_allclose(sample.boxes, boxes, atol=1.5)
        else:
            np.testing.assert_allclose(sample.boxes, boxes, atol=1e-3)
            assert np.abs(sample.image.astype(int) - image).max() <= 1


@pytest.mark.usefixtures("bare")
def test_anchors_by_k_means(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    centres = np.array([[10.0, 12], [30, 20], [25, 70], [90, 80]])
    sides = np.concatenate([each * random.uniform(0.97, 1.03, (200, 2)) for each in centres])
    anchors = find_anchors(random.permutation(sides), 4, seed=1)
    np.testing.assert_allclose(anchors, centres[np.argsort(centres.prod(1))], rtol=0.01)
    assert mean_overlap(sides, anchors) > 0.96 > mean_overlap(sides, anchors[:3])
    by_hand = np.array([[2.0, 2], [4, 1]]), np.array([[2.0, 2], [1, 4]])  # 1 and 2 / 6, the better one each
    assert mean_overlap(*by_hand) == pytest.approx((1 + 2 / 6) / 2)
    with pytest.raises(ValueError, match="2 boxes of distinct width and height"):
        find_anchors(np.array([[1.0, 2], [1, 2], [3, 4], [0, 5]]), 3)
    words = ("python -m models.darknet", "x.cfg", "--anchors", "shapes.yaml", "--imgsz", 64)
    assert run(darknet.main, *words, "own.cfg") == 0
    out = capsys.readouterr().out
    better, before = (float(each) for each in re.findall(r": (0\.\d+), .* (0\.\d+)\n", out)[0])
    assert better > before and "for 6 classes and 64 x 64 pixels" in out
    plan = plan_network((place / "own.cfg").read_text(), file="own.cfg")
    listed = ",".join(f"{each:g}" for each in plan.heads[0].section["anchors"])
    assert listed.replace(",", "") in out.replace(",", "").replace(" ", "") and plan.classes == 6
    assert run(darknet.main, *words) == 0 and run(darknet.main, *words, "own.cfg") == 2
    assert "own.cfg: exists already" in capsys.readouterr().err
    (place / "own.cfg").unlink()
    assert run(darknet.main, *words, "own.cfg") == 0
    assert plan == plan_network((place / "own.cfg").read_text(), file="own.cfg")
    assert run(darknet.main, *words, "own.pt") == 2
    assert run(train.main, "train.py", "--cfg", "own.cfg", "--data", "shapes.yaml", *BRIEF, "--epochs", 1) == 0
