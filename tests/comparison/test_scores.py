"""A comparison on the split that no choice saw: scored once, at the end, and read by the report."""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path

import pytest

from comparison.runs import Run, read_run, read_runs
from comparison.scores import WEIGHTS, score_all, scores_seal
from comparison.summary import PRIMARY
from core.files import file_sha256
from tests.comparison.made_detections import add_detections, coco_map, detections, objects, store
from tests.comparison.made_runs import declare, edit_record, plan_of, report_of, write_comparison

ACTS = ("relu", "mish")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Mish is far better on val; each run has weights and names its test annotations."""
    place, annotations = tmp_path / "runs", tmp_path / "test.json"
    annotations.write_text("{}")
    write_comparison(place, gains={"relu": 0.0, "mish": 8.0}, seeds=range(3))
    for each in read_runs([place]):
        (each.folder / "weights").mkdir()
        (each.folder / WEIGHTS).write_text(each.folder.name)
        edit_record(
            each.folder, lambda record: record["config"].update(data={"test": {"annotations": str(annotations)}})
        )
    return place


def made(weights: Path, split: str) -> Mapping[str, float | None]:
    """On test, relu is better, by 4 points on average."""
    name = weights.parents[1].name
    return {PRIMARY: 0.3 + 0.04 * name.startswith("relu") + 0.001 * int(name[-1]) * (1 + name.startswith("mish"))}


def annotations_sha256(run: Run, split: str) -> str:
    return file_sha256(Path(run.record["config"]["data"][split]["annotations"]))


def test_the_primary_metric_is_that_of_the_split(folder: Path, undrawn: None) -> None:
    plan = plan_of(ACTS, range(3), split="test")
    declare(folder, plan)
    score_all(plan, read_runs([folder]), made, data_sha256=annotations_sha256)
    _, numbers = report_of(folder, plan)
    values = {
        act: [100 * made(folder / f"{act}-s{seed}" / WEIGHTS, "test")[PRIMARY] for seed in range(3)] for act in ACTS
    }
    metric = numbers["metrics"][PRIMARY]
    assert metric["title"] == "mAP50-95, last epoch on test"
    for act in ACTS:
        assert metric["arms"][act]["mean"] == pytest.approx(statistics.fmean(values[act]))
    assert numbers["verdicts"]["mish"]["kind"] == "lower" and numbers["exploratory"] == []
    assert "on the split test, scored once" in json.dumps(numbers["plan_words"])
    _, numbers = report_of(folder, plan_of(ACTS, range(3)))  # the same runs in a plan of val
    assert numbers["verdicts"]["mish"]["kind"] == "higher"


def test_runs_are_scored_once_and_only_with_the_weights_they_have(folder: Path, undrawn: None) -> None:
    plan, calls = plan_of(ACTS, range(3), split="test"), []

    def score(weights: Path, split: str) -> Mapping[str, float | None]:
        calls.append((weights.parents[1].name, split))
        return made(weights, split)

    score_all(plan, read_runs([folder]), score, data_sha256=annotations_sha256)
    score_all(plan, read_runs([folder]), score, data_sha256=annotations_sha256)
    assert sorted(calls) == sorted((f"{act}-s{seed}", "test") for act in ACTS for seed in range(3))
    (folder / "mish-s1" / WEIGHTS).write_text("trained on")
    with pytest.raises(ValueError, match=r"mish-s1.scores\.json: written for other weights"):
        score_all(plan, read_runs([folder]), score, data_sha256=annotations_sha256)


def test_other_weights_than_those_of_the_run_are_not_scored(folder: Path, undrawn: None) -> None:
    """Weights that were put there afterwards, or scores of them."""
    plan = plan_of(ACTS, range(3), split="test")
    place = folder / "mish-s1"
    edit_record(place, lambda record: record.update(weights_sha256=file_sha256(place / WEIGHTS)))
    declare(folder, plan)
    score_all(plan, read_runs([folder]), made, data_sha256=annotations_sha256)
    report_of(folder, plan)
    (place / "scores.json").unlink()
    (place / WEIGHTS).write_text("trained on")
    with pytest.raises(ValueError, match=r"mish-s1.weights.last\.pt: not the weights of the last epoch of its run"):
        score_all(plan, read_runs([folder]), made, data_sha256=annotations_sha256)
    run = read_run(place)
    scores = {"split": "test", "epoch": 8, "weights_sha256": "ab" * 32, "metrics": made(place / WEIGHTS, "test")}
    (place / "scores.json").write_text(json.dumps({**scores, "seal": scores_seal(run, scores)}))
    with pytest.raises(ValueError, match=r"mish-s1.scores\.json: written for other weights than run\.json names"):
        report_of(folder, plan)


def test_a_report_without_the_scores_is_refused(folder: Path, undrawn: None) -> None:
    plan = plan_of(ACTS, range(3), split="test")
    declare(folder, plan)
    score_all(plan, read_runs([folder]), made, data_sha256=annotations_sha256)
    (folder / "relu-s2/scores.json").unlink()
    with pytest.raises(ValueError, match="relu-s2: not scored on test yet"):
        report_of(folder, plan)


def test_all_are_scored_on_the_same_images(folder: Path, undrawn: None) -> None:
    plan = plan_of(ACTS, range(3), split="test")
    declare(folder, plan)
    score_all(plan, read_runs([folder]), made, data_sha256=annotations_sha256)
    file = folder / "relu-s2/scores.json"
    content = {**json.loads(file.read_text()), "data_sha256": "other"}
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"relu-s2.scores\.json: changed"):
        report_of(folder, plan)
    file.write_text(json.dumps({**content, "seal": scores_seal(read_run(file.parent), content)}))
    with pytest.raises(ValueError, match=r"data\.test.*relu-s2"):
        report_of(folder, plan)


def test_the_split_belongs_to_the_plan() -> None:
    plan = plan_of(ACTS, range(3), split="test")
    with pytest.raises(ValueError, match="split"):
        plan.merged(plan_of(ACTS, range(3)))
    with pytest.raises(ValueError, match="looks.*scored once"):
        plan_of(ACTS, range(3), split="test", interim=(2, 3))


def test_validation_images_say_nothing_about_the_split(folder: Path, undrawn: None) -> None:
    """Stored detections on val do not belong to a difference on test."""
    for seed in range(3):
        for act, jitter in (("relu", 2.5), ("mish", 1.5)):
            add_detections(folder / f"{act}-s{seed}", jitter=jitter, seed=seed)
    plan = plan_of(ACTS, range(3), split="test")
    declare(folder, plan)
    score_all(plan, read_runs([folder]), made, data_sha256=annotations_sha256)
    text, numbers = report_of(folder, plan)
    assert numbers["image_sampling"]["effects"] == {} and numbers["image_sampling"]["images"] is None
    assert "interval over test images not available (relu-s0: no ground_truth_test.json)" in text
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "The mAP is that on the test images." in page
    assert "validation images (" not in text and "12 validation images" not in page


def test_the_images_of_the_split_are_resampled(folder: Path, undrawn: None) -> None:
    """The detections on the split are kept, are those of its mAP, and say how far other images would change it."""
    truth, val = objects(9, seed=5), objects(12)
    boxes = {
        run.folder.name: detections(truth, jitter=1.0 + 2.0 * (run.act == "relu"), seed=run.seed)
        for run in read_runs([folder])
    }
    for seed in range(3):
        store(folder / f"relu-s{seed}", val, detections(val, jitter=1.0, seed=seed))

    def score(weights: Path, split: str) -> Mapping[str, float | None]:
        place = weights.parents[1]
        (place / "ground_truth_test.json").write_text(json.dumps(truth))
        (place / "predictions_test.json").write_text(json.dumps(boxes[place.name]))
        return {PRIMARY: coco_map(truth, boxes[place.name])}

    plan = plan_of(ACTS, range(3), split="test")
    declare(folder, plan)
    score_all(plan, read_runs([folder]), score, data_sha256=annotations_sha256)
    text, numbers = report_of(folder, plan)
    sampling = numbers["image_sampling"]
    assert sampling["images"] == 9 and sampling["effects"]["mish"]["seeds"] == [0, 1, 2]
    assert "CI over test images (9)" in text
    assert "9 test images" in (folder / "report.html").read_text(encoding="utf-8")
    for run in folder.glob("*-s?"):
        (run / "predictions_test.json").rename(run / "kept.json")
    report_of(folder, plan)
    assert "9 test images" in (folder / "report.html").read_text(encoding="utf-8")
    (folder / "mish-s1/predictions_test.json").write_text("[]")
    with pytest.raises(ValueError, match=r"mish-s1.predictions_test\.json: changed after it was written"):
        report_of(folder, plan)
