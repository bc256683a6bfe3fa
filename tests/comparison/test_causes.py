"""Where a difference comes from: error kinds, classes, scores, and what runs record about themselves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comparison.causes import ERROR_KINDS, dead_share, energy, epochs_to, gradient_norm
from comparison.evaluation import evaluate
from comparison.plan import read_plan
from comparison.runs import Run, read_run
from tests.comparison.made_detections import add_detections, coco_map, detections, edit_rows, objects, store
from tests.comparison.made_runs import edit_record, plan_of, report_of, write_comparison

ACTS, SEEDS = ("relu", "mish"), (0, 1, 2)
Change = Callable[[dict[str, Any]], dict[str, Any]]


def perfect(truth: dict[str, Any], score: float = 0.8) -> list[dict[str, Any]]:
    """A detection on every object but the crowds."""
    single = [each for each in truth["annotations"] if not each["iscrowd"]]
    return [{**{key: each[key] for key in ("image_id", "category_id", "bbox")}, "score": score} for each in single]


@pytest.fixture
def one(tmp_path: Path) -> Path:
    write_comparison(tmp_path, gains={"relu": 0.0}, seeds=(0,))
    return tmp_path / "relu-s0"


def test_ap_by_class_is_that_of_pycocotools_on_the_class_alone(one: Path) -> None:
    add_detections(one, jitter=3.0, seed=5, images=40)
    truth = json.loads((one / "ground_truth.json").read_text())
    found = json.loads((one / "predictions_last.json").read_text())
    by_class = evaluate(read_run(one)).class_ap
    assert set(by_class) == {"cat", "dog"}
    for category in truth["categories"]:
        only = [
            [each for each in rows if each["category_id"] == category["id"]] for rows in (truth["annotations"], found)
        ]
        alone = {**truth, "annotations": only[0], "categories": [category]}
        assert by_class[category["name"]] == pytest.approx(100 * coco_map(alone, only[1]), abs=1e-3)


def test_calibration_error_is_the_distance_of_score_and_precision(one: Path) -> None:
    """All detections right, with score 0.8: 20 points; half of them wrong as well: 30 points."""
    truth = objects(20)
    store(one, truth, perfect(truth))
    assert evaluate(read_run(one)).calibration == pytest.approx(20)
    wrong = [{**each, "bbox": [95.0, 95.0, 4.0, 4.0]} for each in perfect(truth)]
    store(one, truth, perfect(truth) + wrong)
    assert evaluate(read_run(one)).calibration == pytest.approx(30)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda each: {**each, "category_id": 10 - each["category_id"]}, "Cls"),
        (lambda each: {**each, "bbox": [each["bbox"][0] + 0.45 * each["bbox"][2], *each["bbox"][1:]]}, "Loc"),
    ],
)
def test_the_error_kind_that_was_put_in_is_found(one: Path, change: Change, kind: str) -> None:
    truth = objects(40)
    truth["annotations"] = [each for n, each in enumerate(truth["annotations"]) if n % 3 == 0 and not each["iscrowd"]]
    found = [change(each) if number % 4 == 0 else each for number, each in enumerate(perfect(truth))]
    store(one, truth, found)
    errors = evaluate(read_run(one)).errors
    assert errors[kind] > 5 and errors[kind] == max(
        errors[each] for each in ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
    )


def make_run(**record: Any) -> Run:
    rows = tuple(
        {"epoch": float(epoch), "metrics/mAP50-95": value, "energy_j": 1000.0 * epoch}
        for epoch, value in enumerate((0.1, None, 0.31, 0.29, 0.35), 1)
    )
    return Run(folder=Path("mish-s0"), act="mish", seed=0, status="finished", record=record, rows=rows)


def test_what_a_run_records_about_itself() -> None:
    stages = {"units": {"neck.P3": 10, "head.P3": 30}, "dead": {"neck.P3": 5, "head.P3": 0}}
    run = make_run(diagnostics={**stages, "gradient_norm": {"neck.P3": 3.0, "head.P3": 4.0}})
    assert (dead_share(run), dead_share(run, "neck.P3"), dead_share(run, "head.P3")) == (12.5, 50.0, 0.0)
    assert (gradient_norm(run), gradient_norm(run, "head.P3"), gradient_norm(run, "P9")) == (5.0, 4.0, None)
    assert [epochs_to(run, target) for target in (0.05, 0.3, 0.31, 0.36)] == [1, 3, 3, None]
    assert energy(run) == 15
    for record in ({}, {"diagnostics": None}, {"diagnostics": {"units": 3, "dead": []}}):
        assert dead_share(make_run(**record)) is None and gradient_norm(make_run(**record)) is None


@pytest.mark.slow
def test_the_report_shows_paired_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=SEEDS)
    shares = {}
    for act in ACTS:
        for seed in SEEDS:
            place = tmp_path / f"{act}-s{seed}"
            truth = objects(30)
            found = detections(truth, jitter=1.0, seed=seed)
            if act == "relu":  # every fifth detection of the baseline has the wrong class
                found = [
                    {**e, "category_id": 10 - e["category_id"]} if n % 5 == seed else e for n, e in enumerate(found)
                ]
            store(place, truth, found)
            dead = (seed + 2) * (3 if act == "relu" else 1)
            shares[act, seed] = float(dead)
            diagnostics = {
                "units": {"neck.P3": 100},
                "dead": {"neck.P3": dead},
                "gradient_norm": {"neck.P3": 1.0 + seed},
            }
            edit_record(place, lambda record, found=diagnostics: record.update(diagnostics=found))
    plan = plan_of(ACTS, SEEDS, target=0.9)
    text, content = report_of(tmp_path, plan)
    metrics = {each["key"]: each for group in content["causes"].values() for each in group}
    errors = {act: [evaluate(read_run(tmp_path / f"{act}-s{s}")).errors["Cls"] for s in SEEDS] for act in ACTS}
    found_cls = metrics["tide/Cls"]["comparison"]["differences"]["mish"]
    assert (
        found_cls["estimate"] == pytest.approx(np.mean(errors["mish"]) - np.mean(errors["relu"]))
        and found_cls["pairs"] == 3
    )
    assert found_cls["interval"][1] < 0
    gaps = [shares["mish", seed] - shares["relu", seed] for seed in SEEDS]
    assert metrics["dead/neck.P3"]["comparison"]["differences"]["mish"]["estimate"] == pytest.approx(np.mean(gaps))
    assert metrics["epochs_to_target"]["arms"]["mish"]["values"] == {} and "energy" not in metrics
    page = (tmp_path / "report.html").read_text()
    for words in (
        "Where the difference comes from",
        "wrong class",
        "AP by class",
        "dead units, neck.P3",
        "Energy: not",
    ):
        assert words in page
    assert f"mish: differs from relu in AP50 lost to: wrong class {found_cls['estimate']:+.2f}" in page
    assert content["causes"][ERROR_KINDS]


def test_the_target_belongs_to_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=SEEDS)
    edit_rows(tmp_path / "mish-s1", lambda row: {**row, "metrics/mAP50-95": 0.1 + float(row["epoch"]) / 1000})
    plan = plan_of(ACTS, SEEDS, target=0.55)
    plan.write(tmp_path)
    assert read_plan(tmp_path) == plan
    with pytest.raises(ValueError, match=r"target: 0\.4 instead of 0\.55"):
        plan.merged(plan_of(ACTS, SEEDS, target=0.4))
    _, content = report_of(tmp_path, plan)
    (metric,) = (each for group in content["causes"].values() for each in group if each["key"] == "epochs_to_target")
    for (act, arm), seeds in zip(metric["arms"].items(), ([0, 1, 2], [0, 2]), strict=True):
        expected = {str(seed): epochs_to(read_run(tmp_path / f"{act}-s{seed}"), 0.55) for seed in seeds}
        assert arm["values"] == expected and all(value is not None and 1 < value < 8 for value in expected.values())
    page = (tmp_path / "report.html").read_text()
    assert "epochs to mAP50-95 of 55 points" in page and "(2 of 3 runs)" in page
