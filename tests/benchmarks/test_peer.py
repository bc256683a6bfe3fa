"""Training a peer for comparison, with a stand-in for the ultralytics package that finds every labelled box."""

import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks import peer
from tests.support.checkpoints import write_data
from tests.support.scripts import run

ULTRALYTICS = '''
import json
from pathlib import Path

__version__ = "0.0.test"


class YOLO:
    def __init__(self, model):
        self.model = model

    def train(self, *, project, name, **options):
        (Path(project) / name / "weights").mkdir(parents=True)
        Path(project, "options.json").write_text(json.dumps({"model": self.model, **options}))
        if options["epochs"] > 50:
            raise RuntimeError("out of patience")

    def val(self, *, data, project, name, save_json, **options):
        """Every label of the validation images as a detection; last.pt finds only every other one."""
        folder = Path(data).parent
        found = []
        for path in sorted((folder / "labels/val").iterdir()):
            from PIL import Image

            (image,) = (folder / "images/val").glob(path.stem + ".*")
            width, height = Image.open(image).size
            for line in path.read_text().splitlines():
                label, x, y, w, h = (float(word) for word in line.split())
                box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
                found.append({"image_id": int(path.stem), "category_id": int(label) + 1, "bbox": box, "score": 0.9})
        (Path(project) / name).mkdir()
        found = found if self.model.endswith("best.pt") else found[::2]
        Path(project, name, "predictions.json").write_text(json.dumps(found))
'''


@pytest.fixture
def ultralytics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "packages/ultralytics"
    (package / "utils").mkdir(parents=True)
    (package / "__init__.py").write_text(ULTRALYTICS)
    (package / "utils/__init__.py").touch()
    (package / "utils/torch_utils.py").write_text("NUM_THREADS = 8\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


def test_labels_survive_the_conversion_and_are_scored_as_found(ultralytics: None, here: Path, capsys) -> None:
    data = write_data(here, train=2, val=4)
    arguments = ["--python", sys.executable, "--data", data, "--model", "yolov8n", "--epochs", 3, "--batch", 8]
    assert run(peer.main, "benchmarks.peer", *arguments, "--out", here / "out") == 0
    result = json.loads((here / "out/result.json").read_text())
    assert result["metrics"]["best"]["mAP50-95"] == pytest.approx(1) and result["ultralytics"] == "0.0.test"
    assert 0 < result["metrics"]["last"]["mAP50"] < 1
    assert "| best | 1.000 | 1.000 |" in capsys.readouterr().out
    given = json.loads((here / "out/options.json").read_text())
    expected = {"model": "yolov8n.yaml", "epochs": 3, "batch": 8, "nbs": 8, "pretrained": False, "amp": False}
    assert given.items() >= expected.items()
    assert all(path.is_symlink() for path in (here / "out/data/images/val").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--python", "no/such/python"], "no/such/python: cannot be run"),
        (["--python", sys.executable, "--data", "none.yaml"], "none.yaml"),
        (["--python", sys.executable, "--epochs", "0"], "--epochs: found 0"),
        (["--python", sys.executable, "--epochs", "60"], "exit code 1 .RuntimeError: out of patience"),
        (["--python", sys.executable, "--out", "full"], "full: the folder is not empty"),
    ],
)
def test_bad_input_is_one_line(
    ultralytics: None, here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    data = write_data(here, train=1, val=1)
    (here / "full").mkdir()
    (here / "full/file").touch()
    assert run(peer.main, "benchmarks.peer", "--data", data, *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


def test_an_environment_without_ultralytics_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interpreter = here / "python"
    interpreter.write_text("#!/bin/sh\necho 'ModuleNotFoundError: no ultralytics' >&2\nexit 1\n")
    interpreter.chmod(0o755)
    assert run(peer.main, "benchmarks.peer", "--data", "x.yaml", "--python", interpreter) == 2
    assert "ultralytics cannot be imported there (ModuleNotFoundError" in capsys.readouterr().err


def test_no_detections_at_all_score_zero(tmp_path: Path) -> None:
    scores = peer.score(tmp_path / "predictions.json", {"path": "", "image_ids": [], "category_ids": []})
    assert scores == dict.fromkeys(peer.METRICS, 0.0)
