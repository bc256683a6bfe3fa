"""The bootstrap over validation images against pycocotools on data sets with repeated images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comparison.evaluation import Evaluation, evaluate, evaluate_all
from comparison.image_bootstrap import draw_images, image_effects, resampled_map
from comparison.integrity import check_runs
from comparison.runs import read_run, read_runs
from comparison.statistics import compare
from comparison.summary import RunKey
from tests.comparison.made_detections import add_detections, coco_map, detections, objects
from tests.comparison.made_runs import plan_of, report_of, write_comparison

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two activations, three seeds, twelve validation images."""
    folder = tmp_path_factory.mktemp("runs")
    write_comparison(folder, gains={"relu": 0.0, "mish": 1.0}, seeds=SEEDS)
    for act, jitter in (("relu", 4.0), ("mish", 2.0)):
        for seed in SEEDS:
            add_detections(folder / f"{act}-s{seed}", jitter=jitter, seed=10 * seed + len(act))
    return folder


def stored(folder: Path, act: str, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    place = folder / f"{act}-s{seed}"
    return json.loads((place / "ground_truth.json").read_text()), json.loads(
        (place / "predictions_last.json").read_text()
    )


def all_evaluations(folder: Path) -> dict[RunKey, Evaluation]:
    found = evaluate_all(read_runs([folder]))
    assert all(isinstance(each, Evaluation) for each in found.values()), found
    return {key: each for key, each in found.items() if isinstance(each, Evaluation)}


def test_a_resample_has_the_map_of_a_data_set_with_repeated_images(folder: Path) -> None:
    evaluation, (truth, found) = evaluate(read_run(folder / "mish-s1")), stored(folder, "mish", 1)
    weights = draw_images(12, resamples=12)
    values = resampled_map(evaluation, weights)
    for row, value in zip(weights.astype(int), values, strict=True):
        assert value == pytest.approx(100 * coco_map(truth, found, np.repeat(np.arange(12), row).tolist()), abs=1e-4)
    assert len(set(values.round(3))) > 6


def test_a_class_without_objects_in_a_resample_does_not_count(folder: Path) -> None:
    evaluation, (truth, found) = evaluate(read_run(folder / "relu-s0")), stored(folder, "relu", 0)
    dogs = {each["image_id"] for each in truth["annotations"] if each["category_id"] == 7}
    weights = np.array([[0.0 if image["id"] in dogs else 2.0 for image in truth["images"]]], np.float32)
    chosen = np.repeat(np.arange(12), weights[0].astype(int)).tolist()
    assert chosen and resampled_map(evaluation, weights)[0] == pytest.approx(
        100 * coco_map(truth, found, chosen), abs=1e-4
    )


def test_the_interval_is_that_of_the_difference_averaged_over_seeds(folder: Path) -> None:
    evaluations = all_evaluations(folder)
    values = {
        act: {seed: sum(evaluations[act, seed].class_ap.values()) / 2 for seed in SEEDS} for act in ("relu", "mish")
    }
    comparison = compare(values, baseline="relu")
    difference = comparison.differences["mish"]
    effect = image_effects(evaluations, comparison.differences, baseline="relu", alpha=0.05)["mish"]

    maps = {key: resampled_map(each, draw_images(12)) for key, each in evaluations.items()}
    gaps = np.mean([maps["mish", seed] - maps["relu", seed] for seed in SEEDS], axis=0)
    assert effect.sd == pytest.approx(float(np.std(gaps, ddof=1)))
    low, high = effect.interval
    assert (low + high) / 2 == pytest.approx(difference.estimate) and 1.8 < (high - low) / 2 / effect.sd < 2.2
    assert difference.interval is not None and effect.both is not None
    half = (difference.interval[1] - difference.interval[0]) / 2
    assert (effect.both[1] - effect.both[0]) / 2 == pytest.approx(np.hypot(half, (high - low) / 2))
    assert effect.seeds == SEEDS and not effect.redrawn


def test_seeds_with_images_of_their_own_are_resampled_independently(tmp_path: Path) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=SEEDS)
    for act, jitter in (("relu", 4.0), ("mish", 2.0)):
        for seed in SEEDS:
            add_detections(tmp_path / f"{act}-s{seed}", jitter=jitter, seed=10 * seed + len(act), data_seed=seed)
    evaluations = all_evaluations(tmp_path)
    values = {
        act: {seed: sum(evaluations[act, seed].class_ap.values()) / 2 for seed in SEEDS} for act in ("relu", "mish")
    }
    differences = compare(values, baseline="relu").differences
    together = image_effects(evaluations, differences, baseline="relu", alpha=0.05)["mish"]
    alone = [
        image_effects(
            {key: each for key, each in evaluations.items() if key[1] == seed}, differences, baseline="relu", alpha=0.05
        )
        for seed in SEEDS
    ]
    expected = np.sqrt(sum(each["mish"].sd ** 2 for each in alone)) / 3
    assert together.sd == pytest.approx(expected, rel=0.1)
    assert together.redrawn and together.both == pytest.approx(differences["mish"].interval)


def test_detections_that_do_not_give_the_last_row_are_refused(folder: Path, tmp_path: Path) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0}, seeds=(0,))
    place = tmp_path / "relu-s0"
    add_detections(place, jitter=3.0, seed=1)
    evaluate(read_run(place))
    truth = objects(12)
    (place / "predictions_last.json").write_text(json.dumps(detections(truth, jitter=3.0, seed=2)))
    with pytest.raises(ValueError, match=r"predictions_last.json: changed after it was written"):
        check_runs([read_run(place)])
    with pytest.raises(ValueError, match=r"predictions_last.json scores mAP50-95 .*results.csv says"):
        evaluate(read_run(place))
    for text, words in (("[", "not JSON"), ('{"a": 1}', "COCO"), ('[{"image_id": "other"}]', "COCO")):
        (place / "predictions_last.json").write_text(text)
        with pytest.raises(ValueError, match=words) as error:
            evaluate(read_run(place))
        assert "\n" not in str(error.value)
    (place / "ground_truth.json").unlink()
    with pytest.raises(ValueError, match=r"no ground_truth.json"):
        evaluate(read_run(place))


def test_the_report_names_both_kinds_of_luck(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    text, content = report_of(folder, plan_of(("relu", "mish"), SEEDS))
    sampling = content["image_sampling"]
    assert sampling["images"] == 12 and sampling["missing"] == []
    effect = sampling["effects"]["mish"]
    shown = "{:+.2f} to {:+.2f}".format(*effect["interval"])
    page = (folder / "report.html").read_text()
    assert shown in text and shown in page and "12 validation images" in page and "over validation images" in page
    assert "{:+.2f} to {:+.2f}".format(*effect["both"]) in text


@pytest.mark.slow
def test_missing_detections_are_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=SEEDS)
    text, content = report_of(tmp_path, plan_of(("relu", "mish"), SEEDS))
    assert content["image_sampling"]["effects"] == {} and len(content["image_sampling"]["missing"]) == 6
    assert "over validation images not available (relu-s0: no ground_truth.json)" in text
    for act in ("relu", "mish"):
        for seed in (0, 1):
            add_detections(tmp_path / f"{act}-s{seed}", jitter=2.0, seed=10 * seed + len(act))
    text, content = report_of(tmp_path, plan_of(("relu", "mish"), SEEDS))
    assert content["image_sampling"]["effects"]["mish"]["seeds"] == [0, 1] and "from 2 seeds" in text
