"""What --deploy measured, in the report: against an independent computation, and refused when it was changed."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from comparison import deployment
from comparison.analysis import analyse
from comparison.deployment import DEPLOYED, LATENCY, read_places
from comparison.figure_style import Palette
from comparison.place_views import plot_places
from comparison.report import summarise
from comparison.runs import read_run, read_runs
from comparison.scores import scores_seal
from comparison.summary import PRIMARY, Place, Timing
from core.seal import seal_of
from tests.comparison.made_runs import declare, plan_of, report_of, write_comparison

ACTS, SEEDS = ("relu", "silu", "mish"), range(4)
SLOWER = {"relu": 1.0, "silu": 1.1, "mish": 1.5}
LOSS = {"relu": -0.2, "silu": -0.5, "mish": -1.5}  # points
KEYS = ("onnx fp32", "onnx int8", "ncnn fp32")
PLAN = plan_of(ACTS, SEEDS)


def made(act: str, seed: int, key: str) -> dict[str, Any]:
    """A measured file: mAP as a fraction, and the times of its rounds, of which one is disturbed."""
    draw = random.Random(f"{act} {seed} {key}")
    points = 60 + ACTS.index(act) + seed + draw.gauss(0, 0.1) + (LOSS[act] if "int8" in key else 0)
    level = 20 * SLOWER[act] * (0.6 if "int8" in key else 1) * (1 + draw.gauss(0, 0.01))
    times = [level, 40 * level, level * 1.02, level * 0.99, level * 1.01]
    row = {
        "runtime": "ONNX Runtime 1.32.0" if "onnx" in key else "ncnn 1.0.2", "file": "deployed/last.x",
        "sha256": f"{act}{seed}{key}", "bytes": 4_000_000, "peak_memory_mib": 30.5, "metrics": {PRIMARY: points / 100},
    }  # fmt: skip
    return {"row": row, "times": times}


def write_deployed(folder: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> None:
    """The deployed.json of a run."""
    run = read_run(folder)
    files = {key: made(run.act, run.seed, key)["row"] for key in KEYS}
    content = {"format": 1, "split": "val", "files": files}
    change(content)
    content["seal"] = scores_seal(run, content)
    (folder / DEPLOYED).write_text(json.dumps(content))


def write_latency(folder: Path, *, cores: float | None = 0.02) -> None:
    """The latency.json of a comparison."""
    targets = {}
    for target in ("onnx", "ncnn"):
        files = {}
        for act in ACTS:
            for seed in SEEDS:
                for key in (each for each in KEYS if each.startswith(target)):
                    each = made(act, seed, key)
                    name = f"{act}-s{seed} {key.split()[1]}"
                    files[name] = {"sha256": each["row"]["sha256"], "times_ms": each["times"]}
        targets[target] = {"threads": 1, "other_cores": cores, "files": files}
    content = {"format": 1, "targets": targets}
    (folder / LATENCY).write_text(json.dumps({**content, "seal": seal_of(content, b"")}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished comparison that was measured after export."""
    place = tmp_path / "runs"
    write_comparison(place, gains={"relu": 0.0, "silu": 2.0, "mish": 3.0}, seeds=SEEDS)
    declare(place, PLAN)
    for run in read_runs([place]):
        write_deployed(run.folder)
    write_latency(place)
    return place


def places_of(folder: Path) -> tuple[Place, ...]:
    runs = PLAN.as_compared(read_runs([folder]))
    outcome, _ = analyse(runs, PLAN)
    return read_places(folder, runs, outcome, split="val")


def scores(act: str, key: str) -> np.ndarray:
    return np.array([100 * made(act, seed, key)["row"]["metrics"][PRIMARY] for seed in SEEDS])


def test_numbers_are_those_of_an_independent_computation(folder: Path) -> None:
    places = places_of(folder)
    assert [f"{place.name} {place.precision}" for place in places] == [
        "ONNX Runtime fp32",
        "ONNX Runtime int8",
        "ncnn fp32",
    ]
    for place, key in zip(places, KEYS, strict=True):
        assert place.threads == 1 and "0.02 of a core" in place.load and place.missing == ()
        for act in ACTS:
            medians = {a: [np.median(made(a, seed, key)["times"]) for seed in SEEDS] for a in (act, "relu")}
            assert place.latency.mean(act) == pytest.approx(np.mean(medians[act]))
            assert place.score.mean(act) == pytest.approx(scores(act, key).mean())
            if act != "relu":
                ratio = np.exp(np.mean(np.log(medians[act]) - np.log(medians["relu"])))
                found = place.latency.difference(act)
                assert found is not None and found.estimate == pytest.approx(ratio) and found.interval is not None
                assert found.interval[0] < ratio < found.interval[1]
    assert places[0].loss is None and places[2].loss is None and places[0].losses == {}
    int8 = places[1]
    assert int8.loss is not None
    losses = {act: scores(act, "onnx int8") - scores(act, "onnx fp32") for act in ACTS}
    quantile = stats.t.isf(0.05 / 2 / len(ACTS), len(SEEDS) - 1)
    for act, values in losses.items():
        half = quantile * values.std(ddof=1) / np.sqrt(len(SEEDS))
        assert int8.losses[act].estimate == pytest.approx(values.mean())
        assert int8.losses[act].interval == pytest.approx((values.mean() - half, values.mean() + half))
    apart = int8.loss.difference("mish")
    assert apart is not None and apart.estimate == pytest.approx((losses["mish"] - losses["relu"]).mean())


def test_the_report_speaks_of_the_place_of_use(folder: Path, undrawn: None) -> None:
    text, numbers = report_of(folder, PLAN)
    answer = numbers["recommendation"]
    assert answer[1].startswith("In ONNX Runtime (1 thread), compared with relu: silu: ") and "In ncnn" in answer[2]
    assert "fp32 latency ×1.1" in answer[1] and answer[1] in text
    gap = (scores("mish", "onnx int8") - scores("relu", "onnx int8")).mean()
    assert re.search(rf"loses 1\.\d\d points more in int8 \(.*\), where its mAP is \+{gap:.2f} \(", answer[1])
    assert "latency ×1.5" in answer[2] and "int8" not in answer[2]
    page = (folder / "report.html").read_text()
    assert 'id="places"' in page and page.count("<td") > 9 * 11 and "ONNX Runtime 1.32.0" in page
    assert len(numbers["places"]) == 3

    for file in folder.rglob(DEPLOYED):
        file.unlink()
    _, without = report_of(folder, PLAN)
    assert "places" not in without and without["recommendation"] == [answer[0], *answer[3:]]
    assert 'id="places"' not in (folder / "report.html").read_text()


@pytest.mark.parametrize("cores", [None, 0.3])
def test_disturbed_times_do_not_count(folder: Path, cores: float | None) -> None:
    write_latency(folder, cores=cores)
    for place in places_of(folder):
        assert not place.latency.measured and place.score.measured
        assert ("not recorded" if cores is None else "Excluded: other processes used 0.30") in place.load


def test_a_file_that_was_exported_again_has_no_latency(folder: Path) -> None:
    write_deployed(folder / "mish-s1", lambda content: content["files"]["onnx fp32"].update(sha256="other"))
    place = places_of(folder)[0]
    assert sorted(place.latency.arms["mish"].values) == [0, 2, 3] and len(place.latency.arms["relu"].values) == 4


def test_an_activation_that_a_target_cannot_express_is_named(folder: Path) -> None:
    for seed in SEEDS:
        write_deployed(
            folder / f"mish-s{seed}", lambda content: content["files"].update({"ncnn fp32": {"error": "no operator"}})
        )
    place = places_of(folder)[2]
    assert place.missing == tuple(f"mish, seed {seed}: no operator" for seed in SEEDS)
    assert place.score.mean("mish") is None and place.score.mean("silu") is not None


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "a score": (
        f"mish-s1/{DEPLOYED}",
        lambda content: content["files"]["onnx fp32"]["metrics"].update({PRIMARY: 0.99}),
        "mish-s1/deployed.json: changed after it was written",
    ),
    "a time": (
        LATENCY,
        lambda content: content["targets"]["onnx"]["files"]["mish-s1 fp32"].update(times_ms=[1.0]),
        "latency.json: changed after it was written",
    ),
    "the table": (f"mish-s1/{DEPLOYED}", lambda content: content.pop("files"), "damaged; remove it"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_changed_file_is_refused(case: str, folder: Path, undrawn: None) -> None:
    name, change, expected = CHANGES[case]
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=expected):
        report_of(folder, PLAN)


def test_the_file_of_another_run_or_split_is_refused(folder: Path) -> None:
    mine = (folder / f"mish-s1/{DEPLOYED}").read_text()
    (folder / f"mish-s1/{DEPLOYED}").write_text((folder / f"mish-s2/{DEPLOYED}").read_text())
    with pytest.raises(ValueError, match="or of another run"):
        places_of(folder)
    (folder / f"mish-s1/{DEPLOYED}").write_text(mine)
    write_deployed(folder / "mish-s2", lambda content: content.update(split="test"))
    with pytest.raises(ValueError, match=r"deployed\.json: measured on test, expected val"):
        places_of(folder)


def test_the_picture_has_a_panel_for_each_runtime(folder: Path) -> None:
    runs = PLAN.as_compared(read_runs([folder]))
    outcome, larger = analyse(runs, PLAN)
    places = read_places(folder, runs, outcome, split="val")
    summary = summarise(outcome, larger, runs, PLAN, timing=Timing(), places=places)
    figure = plot_places(summary, Palette(ACTS, baseline="relu"))
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["ONNX Runtime 1.32.0, 1 thread", "ncnn 1.0.2, 1 thread"]
    marks = [line for line in figure.axes[0].lines if line.get_markersize() == 8.5]
    assert len(marks) == 6 and sum(line.get_markerfacecolor() == "white" for line in marks) == 3
    found = {round(float(line.get_xdata()[0]), 6) for line in marks}
    expected = {round(float(place.latency.mean(act) or 0), 6) for place in places[:2] for act in ACTS}
    assert found == expected
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[0] == "relu" and legend[2].startswith("mish, training ×") and legend[3:] == ["fp32", "int8"]


def test_a_failing_process_gives_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--deploy: .*not the folder of a comparison"):
        deployment.measure(tmp_path, ["onnx"], int8=False, threads=1, split="val")
