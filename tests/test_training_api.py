"""Training from Python: what train.py does, with a result, callbacks and exceptions."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

import train
from engine.checkpoint import load_checkpoint
from engine.loggers import EpochEnd, RunEnd, RunStart
from engine.train_result import TrainResult
from engine.training import TrainingFailed
from tests.stress.kills import differing
from tests.support.checkpoints import write_data
from tests.support.scripts import run
from tests.support.training import BRIEF, SMALL
from yolo import YOLO, Logger

OPTIONS = {"imgsz": 64, "batch": 2, "workers": 0, "amp": False, "seed": 3, "epochs": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("train"))


class Watcher(Logger):
    """Keeps what it is told; sends the signal of Ctrl-C after the first epoch if it is to stop the run."""

    def __init__(self, *, stop: bool = False) -> None:
        self.calls: list[str] = []
        self.stop = stop

    def start(self, run: RunStart) -> None:
        self.calls.append(f"start {run.epochs}")

    def epoch(self, epoch: EpochEnd) -> None:
        self.calls.append(f"epoch {epoch.row['epoch']}")
        if self.stop:
            signal.raise_signal(signal.SIGINT)

    def end(self, run: RunEnd) -> None:
        self.calls.append(f"end {run.numbers['mAP50-95']}")

    def fail(self, error: BaseException) -> None:
        self.calls.append(type(error).__name__)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_python_trains_what_the_script_trains(data: Path, here: Path) -> None:
    arguments = ("--cfg", SMALL, "--data", data, *BRIEF, "--epochs", 2, "--name", "script")
    assert run(train.main, "train.py", *arguments) == 0
    model, watcher = YOLO(SMALL), Watcher()
    result = model.train(data, callbacks=[watcher], name="python", **OPTIONS)
    script, python = (load_checkpoint(here / f"runs/train/{name}/weights/last.pt") for name in ("script", "python"))
    assert differing(script, python) == []
    assert result.finished and result.folder == Path("runs/train/python") and result.best.is_file()
    record = json.loads((result.folder / "run.json").read_text())
    assert result.metrics == record["results"] and len(result.metrics) == 12
    assert watcher.calls == ["start 2", "epoch 1", "epoch 2", f"end {result.metrics['mAP50-95']}"]
    history = result.history
    rows = history if isinstance(history, list) else history.to_dict("records")
    assert [row["epoch"] for row in rows] == [1, 2] and rows[1]["train/box_loss"] > 0
    # The object has the best weights now.
    assert model.weights == result.best and model.imgsz == 64 and len(model.names) == 6
    assert model.val(workers=0, progress=False).stats.numbers["mAP50-95"] == pytest.approx(result.metrics["mAP50-95"])


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_ctrl_c_returns_the_run_so_far_which_resumes_to_the_same(data: Path, here: Path) -> None:
    whole = YOLO(SMALL).train(data, name="whole", **OPTIONS)
    model, watcher = YOLO(SMALL), Watcher(stop=True)
    cut = model.train(data, name="cut", callbacks=[watcher], **OPTIONS)
    assert not cut.finished and cut.stopped_by == signal.SIGINT and watcher.calls[-1] == "Stopped"
    assert "--resume" in cut.message and len(cut.rows) == 1 and "stopped after 1 epochs" in str(cut)
    assert cut.metrics["mAP50-95"] == cut.rows[0]["metrics/mAP50-95"] and model.weights == cut.best
    resumed = YOLO.resume(cut.folder)
    assert resumed.finished and resumed.folder.resolve() == cut.folder.resolve() and resumed.metrics == whole.metrics
    assert differing(load_checkpoint(whole.last), load_checkpoint(cut.last)) == []
    with pytest.raises(ValueError, match="the run is finished"):
        YOLO(cut.last).train(resume=True)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_ctrl_c_while_the_results_are_made_returns_the_run(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("engine.pictures.plots.plot_results", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        cut = YOLO(SMALL).train(data, **{**OPTIONS, "epochs": 1})
    assert cut.stopped_by == signal.SIGINT and len(cut.rows) == 1 and not (cut.folder / "predictions.json").exists()
    assert YOLO.resume(cut.last).finished and (cut.folder / "predictions.json").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_weights_are_fine_tuned_as_they_are(data: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = YOLO(SMALL).train(data, act="leaky_relu", **OPTIONS)
    capsys.readouterr()
    model = YOLO(first.best)
    second = model.train(epochs=1, batch=2, workers=0)
    assert ", 0 not in it" in capsys.readouterr().out  # every tensor is loaded
    config = load_checkpoint(second.last)["config"]
    assert config["model"]["levels"] == [2, 3] and config["model"]["act"]["name"] == "leaky_relu"
    assert (config["train"]["imgsz"], config["weights"]) == (64, str(first.best.absolute()))
    assert config["data"]["root"] == str(data.parent / "shapes") and model.weights == second.best


def test_fine_tuning_does_not_leave_a_narrower_activation_in_place_without_a_word(place: Path, here: Path) -> None:
    from tests.support.checkpoints import class_names, write_checkpoint

    names = class_names(place / "shapes")
    weights = write_checkpoint(here / "a.pt", place / "shapes.yaml", names, **{"model.neck.act": "relu"})
    with pytest.raises(ValueError, match="model.act .* is overridden by model.neck.act"):
        YOLO(weights).train(act="mish")
    assert [path.name for path in here.iterdir()] == ["a.pt"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_diverging_run_is_an_exception_with_the_line_of_the_script(data: Path, here: Path) -> None:
    with pytest.raises(TrainingFailed, match="not finite.*; resume from the last checkpoint with: ") as error:
        YOLO(SMALL).train(data, **{**OPTIONS, "lr": 1e30, "clip": 0, "warmup": 0, "batch": 1})
    assert "\n" not in str(error.value) and isinstance(error.value.__cause__, FloatingPointError)


def test_a_configuration_is_no_detector_yet() -> None:
    model = YOLO("yolo-mish.yaml")
    for use in (lambda: model.predict(np.zeros((64, 64, 3), np.uint8)), model.val, model.export, model.describe):
        with pytest.raises(ValueError, match="without weights; train it first"):
            use()


def test_wrong_arguments_write_nothing(here: Path, place: Path) -> None:
    with pytest.raises(TypeError, match="unknown argument 'epoch', did you mean 'epochs'"):
        YOLO("yolo-mish.yaml").train(epoch=3)
    with pytest.raises(ValueError, match="callbacks: found <built-in function print>, expected a list of loggers"):
        YOLO("yolo-mish.yaml").train(callbacks=[print])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="train.epochs"):
        YOLO("yolo-mish.yaml").train(place / "shapes.yaml", epochs=0)
    with pytest.raises(FileNotFoundError, match="nothing.yaml"):
        YOLO("nothing.yaml")
    with pytest.raises(FileNotFoundError, match="name the checkpoint to resume from"):
        YOLO.resume()
    assert list(here.iterdir()) == []


def test_a_result_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    (tmp_path / "results.png").write_bytes(b"\x89PNG")
    result = TrainResult(tmp_path, {"mAP50-95": 0.25}, [{"epoch": 1}])
    page = result._repr_html_()
    assert "mAP50-95 0.250" in page and 'src="data:image/png;base64,iVBORw=="' in page and page.count("<img") == 1
