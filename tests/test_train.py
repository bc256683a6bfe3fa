"""train.py: what a run leaves behind, and exact resume."""

import csv
import json
from pathlib import Path

import pytest

import train
from comparison.evaluation import evaluate
from comparison.runs import read_run
from configs.schema import load
from engine.checkpoint import load_checkpoint
from ops import backend
from tests.stress.kills import differing
from tests.support.checkpoints import write_data
from tests.support.scripts import run, tree
from tests.support.training import start


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("train"))


@pytest.mark.slow
def test_a_run_leaves_the_folder_that_users_know(data: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(data, "--epochs", 2, "--set", "model.head.act={name: swish, learnable: true}") == 0
    folder = here / "runs/train/exp"
    expected = {
        "weights/best.pt", "weights/last.pt", "results.csv", "results.png", "labels.png", "train_batch0.jpg",
        "val_batch0_labels.jpg", "val_batch0_pred.jpg", "PR_curve.png", "confusion_matrix.png", "config.yaml",
        "run.json", "predictions.json", "predictions_last.json", "ground_truth.json", "errors.html", "errors.csv",
    }  # fmt: skip
    files = tree(folder)
    assert expected <= set(files) and any("tfevents" in name for name in files)
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["train/box_loss"]) > 0 and float(row["time_val_s"]) > 0 for row in rows)
    learned = [column for column in rows[0] if column.startswith("act/head.")]
    assert len(learned) == 8 and any(rows[0][column] != rows[1][column] for column in learned)
    latency = json.loads((folder / "run.json").read_text())["latency"]
    assert latency["batch"] == 1 and latency["ms_per_image"] > 0
    summary = capsys.readouterr().out
    assert all(word in summary for word in ("mAP50-95", "peak memory", "detect.py --weights", "best.pt"))
    assert {row["activation"] for row in load_checkpoint(folder / "weights/best.pt")["census"]} == {"mish", "swish"}


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_the_census_says_what_runs_where_kernels_cannot_be_built(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_chosen", {})
    (here / "file").write_text("")
    monkeypatch.setenv("YOLO_MISH_CACHE", str(here / "file"))  # which is no folder
    assert start(data, "--epochs", 1, "--noval") == 0
    record = json.loads((here / "runs/train/exp/run.json").read_text())
    assert record["operator"]["implementation"] == "torch.nn.functional.mish"
    assert not any("ops." in row["implementation"] for row in record["census"])


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_the_detections_of_the_last_epoch_are_stored_whenever_the_run_ended(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run killed after its last epoch, before its results, detects once more when it is resumed."""
    assert start(data, "--epochs", 2, "--name", "whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr("engine.final_results.finish", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        assert start(data, "--epochs", 2, "--name", "cut") == 1
    assert run(train.main, "train.py", "--resume", here / "runs/train/cut/weights/last.pt") == 0
    whole, cut = (here / "runs/train" / name for name in ("whole", "cut"))
    for name in ("predictions_last.json", "ground_truth.json"):
        assert (whole / name).read_text() == (cut / name).read_text()
    assert json.loads((whole / "run.json").read_text())["images"] == {"train": 2, "val": 6}
    evaluation = evaluate(read_run(whole))  # the mAP of the last row, or it raises
    assert evaluation.images == 6 and sum(len(each.image) for each in evaluation.classes) > 0


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_the_resolved_config_alone_gives_the_same_run(data: Path, here: Path) -> None:
    assert start(data, "--epochs", 1, "--name", "one") == 0
    config = here / "runs/train/one/config.yaml"
    assert load(config).train.imgsz == 64
    assert run(train.main, "train.py", "--cfg", config, "--name", "two") == 0
    one, two = (load_checkpoint(here / f"runs/train/{name}/weights/last.pt") for name in ("one", "two"))
    assert differing(one, two) == []


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_accumulated_gradients_step_once_for_the_nominal_batch(data: Path, here: Path) -> None:
    assert start(data, "--epochs", 1, "--set", "train.batch=1", "--nbs", 2) == 0
    state = load_checkpoint(here / "runs/train/exp/weights/last.pt")["state"]
    assert (state["epoch"], state["step"]) == (1, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_weights_of_other_classes_and_activations_are_taken_where_they_fit(
    data: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(data, "--epochs", 1) == 0
    weights = here / "runs/train/exp/weights/best.pt"
    assert start(data, "--epochs", 1, "--weights", weights, "--single-cls", "--set", "model.act=relu") == 0
    out = capsys.readouterr().out
    assert "head.P3.classes" in out and "mish -> relu" in out


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_loss_that_is_not_finite_stops_the_run(data: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(data, "--epochs", 1, "--set", "train.lr=1e30", "train.clip=0", "train.batch=1", "train.warmup=0") == 1
    error = capsys.readouterr().err
    assert "not finite" in error and error.count("\n") == 1
    assert load_checkpoint(here / "runs/train/exp/weights/last.pt")["state"]["step"] == 0
    assert "not finite" in json.loads((here / "runs/train/exp/run.json").read_text())["diverged"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_runs_that_differ_in_activation_start_and_are_fed_alike(data: Path, here: Path) -> None:
    for name, act, seed in (("one", "mish", 3), ("two", "leaky_relu", 3), ("other", "mish", 4)):
        assert start(data, "--epochs", 2, "--name", name, "--set", f"model.act={act}", f"train.seed={seed}") == 0
    folders = {name: here / "runs/train" / name for name in ("one", "two", "other")}
    records = {name: json.loads((folder / "run.json").read_text()) for name, folder in folders.items()}
    weights = {name: record["initial_weights"] for name, record in records.items()}
    batches = {
        name: [row["batches_crc32"] for row in csv.DictReader((folder / "results.csv").open())]
        for name, folder in folders.items()
    }
    assert weights["one"] == weights["two"] != weights["other"]
    assert batches["one"] == batches["two"] and not set(batches["one"]) & set(batches["other"])
    validated = [
        {row["val_crc32"] for row in csv.DictReader((folder / "results.csv").open())} for folder in folders.values()
    ]
    assert len(set.union(*validated)) == 1  # the same images, in all epochs
    assert len(set(batches["one"])) == 2  # augmentation goes on from epoch to epoch
