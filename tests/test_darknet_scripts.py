"""Darknet cfg and weights files in the scripts and the Python API."""

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import detect
import val
from configs.schema import load
from data.names import COCO as COCO_NAMES
from data.names import find_names
from models import build_model
from models.darknet import __main__ as darknet
from tests.models.darknet.cfgs import CLASSIFIER, DETECTOR_6, values, weights
from tests.models.darknet.oracle import count
from tests.support.checkpoints import class_names, write_checkpoint, write_data
from tests.support.scripts import run
from tests.support.shared import shared
from yolo import YOLO


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a cfg of six classes, weights of random numbers and the embedded data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.cfg").write_text(DETECTOR_6)
    (tmp_path / "x.weights").write_bytes(weights(values(count(DETECTOR_6), seed=1)))
    write_data(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_val_and_detect_on_cfg_and_weights(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--cfg", "x.cfg", "--weights", "x.weights"]
    assert run(val.main, "val.py", *both, "--data", "shapes.yaml", "--conf", 0.01) == 0
    out = capsys.readouterr().out
    assert "darknet x.cfg" in out and "backbone: " in out and "parts: backbone: the layers up to" in out
    assert "1 mish + 1 leaky + 1 swish" in out and "32 pixels" in out and "class names: numbers" in out
    metrics = json.loads((place / "runs/val/exp/metrics.json").read_text())
    assert metrics["images"] == 6 and metrics["arguments"]["iou"] == 0.45
    source = place / "shapes/images/val"
    (place / "x.names").write_text("\n".join(class_names(place / "shapes")) + "\n")
    assert run(detect.main, "detect.py", *both, "--source", source, "--save-json", "--conf", 0.01) == 0
    assert "class names: x.names" in capsys.readouterr().out
    found = json.loads((place / "runs/detect/exp/detections.json").read_text())
    assert found and {each["name"] for each in found} <= set(class_names(place / "shapes"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--weights", "x.weights"], "x.weights: a Darknet .weights does not describe its network; give its .cfg"),
        (["--weights", "x.weights", "--cfg", "y.cfg"], "y.cfg: no such file"),
        (["--weights", "x.weights", "--cfg", "shapes.yaml"], "shapes.yaml; a Darknet .cfg is expected"),
        (["--weights", "y.weights", "--cfg", "x.cfg"], "y.weights: no such file"),
        (["--weights", "short.weights", "--cfg", "x.cfg"], "values are missing to detect with"),
        (["--weights", "x.weights", "--cfg", "classifier.cfg"], "a classifier, without a [yolo] layer"),
        (["--weights", "x.weights", "--cfg", "x.cfg", "--names", "three.names"], "3 names; expected 6"),
        (["--weights", "x.weights", "--cfg", "x.cfg", "--names", "none.names"], "none.names: no such file"),
        (["--weights", "x.weights", "--cfg", "broken.cfg"], "broken.cfg, line 22: [convolutional] activation=mush"),
    ],
)
def test_refusals(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    (place / "short.weights").write_bytes(weights(values(8 * 27 + 4 * 8)))
    (place / "classifier.cfg").write_text(CLASSIFIER)
    (place / "three.names").write_text("a\nb\nc\n")
    (place / "broken.cfg").write_text(DETECTOR_6.replace("=mish", "=mush"))
    for script, more in ((val, ["--data", "shapes.yaml"]), (detect, ["--source", "shapes/images/val"])):
        assert run(script.main, f"{script.__name__}.py", *arguments, *more) == 2
        out, err = capsys.readouterr()
        assert words in err and err.count("\n") == 1, (script, err)
    assert not (place / "runs").exists()


@pytest.mark.slow
def test_a_checkpoint_and_back(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "python -m models.darknet"
    assert run(darknet.main, command, "x.cfg", "x.weights", "x.pt") == 0
    assert "6 convolutions from x.weights; class names: numbers" in capsys.readouterr().out
    assert run(darknet.main, command, "x.pt", "y.weights", "y.cfg") == 0
    assert (place / "y.weights").read_bytes() == (place / "x.weights").read_bytes()
    assert (place / "y.cfg").read_text() == DETECTOR_6
    image = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    one, other = (
        model.predict(image, imgsz=32, conf=0.01, iou=0.5)[0]
        for model in (YOLO("x.weights", cfg="x.cfg", device="cpu"), YOLO("x.pt", device="cpu"))
    )
    assert len(one) and np.array_equal(one.boxes, other.boxes) and np.array_equal(one.scores, other.scores)
    for wrong in (["x.pt"], ["x.cfg", "x.pt"], ["x.weights"]):
        assert run(darknet.main, command, *wrong) == 2
        assert "expected X.cfg" in capsys.readouterr().err
    weights = (place / "x.weights").read_bytes()
    for confused in (
        ["x.pt", "x.weights", "new.cfg"],
        ["x.pt", "new.weights", "x.cfg"],
        ["x.cfg", "x.weights", "x.pt"],
    ):
        assert run(darknet.main, command, *confused) == 2
        assert "exists already" in capsys.readouterr().err
    assert (place / "x.weights").read_bytes() == weights and not (place / "new.weights").exists()
    write_checkpoint(place / "own.pt", place / "shapes.yaml", class_names(place / "shapes"))
    assert run(darknet.main, command, "own.pt", "z.weights", "z.cfg") == 2
    assert "own.pt: a yolo network" in capsys.readouterr().err and not (place / "z.weights").exists()


def test_switched_activations_go_back_into_the_cfg() -> None:
    config = load(
        "yolo.yaml", {"model.kind": "darknet", "model.cfg": "x.cfg", "model.text": DETECTOR_6, "model.act": "gelu"}
    )
    with pytest.raises(ValueError, match="Darknet has no activation gelu.approximate=none"):
        darknet.with_activations(config, build_model(config.model, seed=0))
    config = load(
        "yolo.yaml", {"model.kind": "darknet", "model.cfg": "x.cfg", "model.text": DETECTOR_6, "model.act": "mish"}
    )
    text = darknet.with_activations(config, build_model(config.model, seed=0))
    assert text == re.sub("activation=(leaky|swish|relu)", "activation=mish", DETECTOR_6) and text != DETECTOR_6


@pytest.mark.slow
def test_what_a_cfg_is_said_to_be(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(darknet.main, "python -m models.darknet", "x.cfg") == 0
    out = capsys.readouterr().out
    size = 20 + 4 * count(DETECTOR_6)
    for words in (
        "parts: backbone: the layers up to", f"{count(DETECTOR_6):,} values ({size:,} bytes",
        "net.momentum=0.949: here train",
        "without a counterpart here: net.steps, net.scales", "yolo.iou_loss=ciou: here CIoU",
        "6 classes, 32 x 32 pixels", "mish",
    ):  # fmt: skip
        assert words in out, words
    assert out.count("net.steps") == 1


def test_names_of_the_data_may_be_spelt_otherwise_but_not_stand_elsewhere(place: Path) -> None:
    names = class_names(place / "shapes")
    (place / "x.names").write_text("\n".join([names[0].upper(), *names[1:]]))
    model = YOLO("x.weights", cfg="x.cfg", device="cpu")
    assert model.names[0] == names[0].upper() and model.val("shapes.yaml", progress=False).stats.images == 6
    (place / "x.names").write_text("\n".join([names[1], names[0], *names[2:]]))
    with pytest.raises(ValueError, match=f"class 0 is '{names[0]}', which is class 1 in x.names"):
        YOLO("x.weights", cfg="x.cfg", device="cpu").val("shapes.yaml", progress=False)
    with pytest.raises(ValueError, match="give --data"):
        YOLO("x.weights", cfg="x.cfg", device="cpu").val(progress=False)


def test_where_names_come_from(tmp_path: Path) -> None:
    beside = [tmp_path / "x.weights"]
    assert find_names(80, None, beside=beside) == (list(COCO_NAMES), "COCO's 80 class names")
    assert find_names(2, None, beside=beside)[0] == ["0", "1"]
    (tmp_path / "a.names").write_text("cat\ndog\n\n")
    assert find_names(2, None, beside=beside) == (["cat", "dog"], str(tmp_path / "a.names"))
    (tmp_path / "b.names").write_text("dog\ncat")
    assert find_names(2, None, beside=beside)[0] == ["0", "1"]
    assert find_names(2, tmp_path / "b.names", beside=beside)[0] == ["dog", "cat"]
    (tmp_path / "c.names").write_text("a\n\nb\n")
    with pytest.raises(ValueError, match="empty line"):
        find_names(3, tmp_path / "c.names", beside=beside)


def test_a_config_of_the_darknet_family(place: Path) -> None:
    config = load("x.cfg")
    assert config.model.kind == "darknet" and config.model.text == DETECTOR_6 and config.model.act is None
    (place / "sub").mkdir()
    (place / "sub/d.yaml").write_text("base: yolo.yaml\nmodel: {kind: darknet, cfg: ../x.cfg, replace: {mish: relu}}\n")
    config = load("sub/d.yaml", {"model.backbone.act": "gelu"})
    assert config.model.replace == {"mish": {"name": "relu"}} and config.model.text == DETECTOR_6
    assert config.model.backbone.act == {"name": "gelu"} and config.model.norm_act == "fused"
    (place / "kept.yaml").write_text(config.as_yaml())
    (place / "x.cfg").unlink()
    assert load("kept.yaml") == config and "model.text" not in config.difference()
    for settings, words in (
        ({"model.kind": "darknet", "model.cfg": "no.cfg"}, "model.cfg: no.cfg: no such file"),
        ({"model.kind": "darknet"}, "model.cfg .*: missing"),
        ({"model.kind": "darkest"}, "model.kind.*darkest"),
        ({"model.kind": "darknet", "model.cfg": "kept.yaml", "model.size": "n"}, "model.size .*: unknown key; valid"),
        ({"model.cfg": "kept.yaml"}, "model.cfg .*: unknown key; "),
        ({"model.kind": ["darknet"]}, "model.kind.*yolo or darknet"),
    ):  # fmt: skip
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            load("yolo.yaml", settings)


def test_a_wider_key_of_the_command_line_is_not_hidden(place: Path) -> None:
    (place / "d.yaml").write_text("base: yolo.yaml\nmodel: {kind: darknet, cfg: x.cfg, replace: {mish: relu}}\n")
    with pytest.raises(ValueError, match="model.act .*overridden by model.replace.mish: relu"):
        load("d.yaml", {"model.act": "gelu"})
    assert load("d.yaml", {"model.act": "gelu", "model.replace.mish": None}).model.act == {"name": "gelu"}
    (place / "d.yaml").write_text("base: yolo.yaml\nmodel: {kind: darknet, cfg: x.cfg, neck: {act: relu}}\n")
    with pytest.raises(ValueError, match="model.replace.mish .*overridden by model.neck.act: relu"):
        load("d.yaml", {"model.replace.mish": "gelu"})
    assert (
        load("d.yaml", {"model.replace.mish": "gelu", "model.neck.act": None}).model.replace["mish"]["name"] == "gelu"
    )


@pytest.mark.slow
def test_trained_weights_give_the_stored_coco_numbers(tmp_path: Path) -> None:
    """The twelve numbers of an OpenCV 4.10 reader on coco128, to 1e-3, from the predictions that are written."""
    folder = shared("darknet")
    data = shared("data/coco128")
    split = "{images: images, annotations: annotations/val.json}"
    (tmp_path / "coco128.yaml").write_text(f"root: {data}\ntrain: {split}\nval: {split}\n")
    model = folder / "yolo-fastest/yolo-fastest-1.1"
    arguments = ["--cfg", f"{model}.cfg", "--weights", f"{model}.weights", "--data", tmp_path / "coco128.yaml"]
    arguments += ["--imgsz", 320, "--iou", 0.45, "--max-det", 100, "--project", tmp_path, "--name", "v"]
    assert run(val.main, "val.py", *arguments) == 0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(data / "annotations/val.json")
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "v/predictions.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stored = json.loads((folder / "ref/yolo-fastest-1.1/coco128_train.json").read_text())["stats"]
    np.testing.assert_allclose(evaluation.stats, stored, rtol=0, atol=1e-3)
