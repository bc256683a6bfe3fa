"""The table of metrics is complete and consistent."""

from core import metrics


def test_keys_are_unique_and_evaluation_metrics_are_cocos():
    table = metrics.results_table(("box", "cls", "dfl"))
    keys = [metric.key for metric in table]
    assert len(keys) == len(set(keys)) and keys[:5] == [
        "epoch",
        "step",
        *(f"train/{n}_loss" for n in ("box", "cls", "dfl")),
    ]
    assert {metric.name for metric in metrics.EVALUATION} - {metric.key for metric in metrics.COCO} == {
        "precision",
        "recall",
    }
    assert metrics.FITNESS in metrics.BY_KEY and f"metrics/{metrics.FITNESS}" in metrics.BY_KEY
    assert all(metric.better == "higher" for metric in (*metrics.COCO, *metrics.EVALUATION))
