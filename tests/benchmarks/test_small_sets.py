"""The benchmark on small sets: command lines, what is read from runs, the table by hand, and a run of our side."""

import json
import sys

import pytest
from scipy import stats

from benchmarks import small_sets, trainings
from benchmarks.peer import METRICS
from benchmarks.small_sets import difference, table
from benchmarks.trainings import Run

SIZES = {"mAP50": 0.5, "AP_small": -1.0, "AP_medium": 0.2, "AP_large": 0.3}


def run(name: str, seed: int, value: float, *, data: str = "a", seconds: float = 10.0, curve=()) -> Run:
    metrics = dict.fromkeys(METRICS, 0.0) | SIZES | {"mAP50-95": value}
    return Run(data=data, name=name, seed=seed, metrics=metrics, seconds=seconds, training=seconds, curve=curve)


def test_the_difference_is_welchs() -> None:
    ours, peer = [50.0, 52.0, 57.0], [40.0, 41.0, 45.0]
    gap, text = difference(ours, peer)
    assert gap == pytest.approx(11)
    a, b = (stats.describe(each) for each in (ours, peer))
    error = ((a.variance + b.variance) / 3) ** 0.5
    degrees = error**4 / ((a.variance / 3) ** 2 / 2 + (b.variance / 3) ** 2 / 2)
    reach = stats.t.ppf(0.975, degrees) * error
    assert text == f" [{11 - reach:+.1f}, {11 + reach:+.1f}]"
    assert difference([50.0], peer)[1] == ""


def test_the_table_by_hand() -> None:
    curve = ((2.0, 0.1), (4.0, 0.4), (8.0, 0.6))
    runs = [run("ours", seed, 0.60 + 0.02 * seed, seconds=8, curve=curve) for seed in (0, 1)]
    runs += [run("peer", seed, 0.40, seconds=16) for seed in (0, 1)]
    runs += [run("ours", 0, 0.1, data="b", curve=((1.0, 0.1),)), run("peer", 0, 0.2, data="b")]
    first, second = table(runs).splitlines()[2:4]
    cells = [cell.strip() for cell in first.split("|")[1:-1]]
    assert cells[:4] == ["a", "2", "61.0, 1.4", "40.0, 0.0"] and cells[4].startswith("+21.0 [")
    assert cells[6] == "–, 20.0, 30.0 against –, 20.0, 30.0" and cells[7:] == ["0.50", "0.25"]
    assert "| -10.0 |" in second and second.endswith("| never |")
    assert "Mean of the differences: +5.5 points; the least -10.0." in table(runs)
    assert "against" not in table(runs[:2])


def test_files_of_a_peers_run(tmp_path) -> None:
    metrics = {kind: dict.fromkeys(METRICS, value) for kind, value in (("best", 0.5), ("last", 0.4))}
    (tmp_path / "result.json").write_text(json.dumps({"seconds": {"train_s": 3.5}, "metrics": metrics}))
    (tmp_path / "train").mkdir()
    (tmp_path / "train/results.csv").write_text("epoch, time, metrics/mAP50-95(B)\n1, 1.5, 0.1\n2, 3.0, 0.2\n")
    read = trainings.trained(["no-such-program"], tmp_path, data="a", name="peer", seed=1)  # is not called
    assert (read.metrics["mAP50"], read.seconds, read.seed) == (0.4, 3.5, 1)
    assert read.curve == ((1.5, 0.1), (3.0, 0.2))
    small_sets.draw([read, run("ours", 0, 0.5, data="b")], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_bad_command_lines(tmp_path, capsys) -> None:
    for words, wrong in (
        (["--data", "a/x.yaml", "b/x.yaml"], "--data"),
        (["--data", "x.yaml", "--seeds", "0"], "--seeds"),
    ):
        with pytest.raises(SystemExit):
            small_sets.parse(words)
        assert wrong in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"exit code 3 \(broken\)"):
        trainings.run_logged([sys.executable, "-c", "print('broken'); exit(3)"], tmp_path / "x.log")


@pytest.mark.parametrize(
    "words", [["--data", "shapes.yaml", "no-such.yaml"], ["--data", "shapes.yaml", "--python", "no/such"]]
)
def test_what_is_wrong_is_said_before_the_first_training(tmp_path, monkeypatch, words) -> None:
    monkeypatch.setattr(small_sets, "trained", None)
    with pytest.raises((ValueError, FileNotFoundError), match="no.such"):
        small_sets.main([*words, "--out", str(tmp_path / "out")])


@pytest.mark.slow
def test_our_side_is_trained_once(tmp_path, place, warm_python, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "executable", warm_python)
    words = ["--data", str(place / "shapes.yaml"), "--seeds", "1", "--epochs", "2", "--imgsz", "64", "--batch", "4"]
    words += ["--threads", "1", "--out", str(tmp_path / "bench"), "--set", "model.levels=[3,4]"]
    assert small_sets.main(words) == 0
    text = (tmp_path / "bench" / "table.md").read_text()
    (row,) = (tmp_path / "bench" / "runs.csv").read_text().splitlines()[1:]
    assert row.startswith("shapes,ours,0,") and len(row.split(",")[-1].split()) == 2
    capsys.readouterr()
    assert small_sets.main(words) == 0
    assert "training" not in capsys.readouterr().out and (tmp_path / "bench" / "table.md").read_text() == text
