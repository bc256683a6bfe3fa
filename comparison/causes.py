"""Where a difference in mAP comes from: error kinds, sizes, classes, scores, speed of learning, state of the network.

All of it is descriptive: intervals hold simultaneously for the candidates in one quantity, not over all quantities.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from comparison.evaluation import Evaluation
from comparison.run_metrics import MetricSpec, make_metric, total
from comparison.runs import Run
from comparison.summary import POINTS, PRIMARY, Metric, Outcome, RunKey
from core.metrics import TIDE

SIZES = ("metrics/AP_small", "metrics/AP_medium", "metrics/AP_large")
ERROR_KINDS = "Error kinds (TIDE): AP50 lost to each"
TARGET = "epochs_to_target"
CLASSES, STAGES = "AP by class", "Network after the last epoch, by stage"


def find_causes(
    outcome: Outcome, runs: Sequence[Run], evaluations: Mapping[RunKey, Evaluation | str], *, target: float | None
) -> dict[str, tuple[Metric, ...]]:
    """The quantities behind the difference, by group; groups without a measured quantity are left out.

    `target`: mAP50-95 as a fraction, from the plan, for the epochs that were needed to reach it.
    """
    keys = {(act, seed) for act, arm in outcome.primary.arms.items() for seed in arm.values}
    known = {(run.act, run.seed): run for run in runs if (run.act, run.seed) in keys}
    scored = {key: found for key in known if isinstance(found := evaluations.get(key), Evaluation)}

    def metric(
        key: str, title: str, unit: str, values: Mapping[RunKey, float | None], *, ratio: bool = False, note: str = ""
    ) -> Metric:
        positive = all(value is None or value > 0 for value in values.values())
        how: Literal["difference", "ratio"] = "ratio" if ratio and positive else "difference"
        spec = MetricSpec(key=key, title=title, unit=unit, value=lambda _: None, compared=how, note=note)
        return make_metric(spec, values, outcome.acts, outcome.alpha)

    def of_scores(value: Callable[[Evaluation], float | None]) -> dict[RunKey, float | None]:
        return {key: value(each) for key, each in scored.items()}

    def of_runs(value: Callable[[Run], float | None]) -> dict[RunKey, float | None]:
        return {key: value(run) for key, run in known.items()}

    classes = dict.fromkeys(name for each in scored.values() for name in each.class_ap)
    stages = dict.fromkeys(name for run in known.values() for name in _diagnostics(run, "units"))
    goal = () if target is None else (
        metric(TARGET, f"epochs to mAP50-95 of {100 * target:g} points", "epochs",
               of_runs(partial(epochs_to, target=target)), note="first epoch at or above it"),
    )  # fmt: skip
    groups = {
        ERROR_KINDS: tuple(
            metric(f"tide/{kind}", title, POINTS, of_scores(partial(_error, kind=kind)))
            for kind, title in TIDE.items()
        ),
        "AP by size": tuple(outcome.metrics[key] for key in SIZES if key in outcome.metrics),
        CLASSES: tuple(
            metric(f"class/{name}", name, POINTS, of_scores(partial(_class_ap, name=name)))
            for name in classes
        ),
        "Scores": (
            metric("calibration", "expected calibration error", "points", of_scores(lambda each: each.calibration)),
        ),
        "Training": (*goal, metric("energy", "energy of training and validation", "kJ", of_runs(energy), ratio=True)),
        STAGES: tuple(
            each
            for stage in ("", *stages)
            for each in (
                metric(f"dead/{stage or 'all'}", f"dead units, {stage or 'all stages'}", "%",
                       of_runs(partial(dead_share, stage=stage))),
                metric(f"gradient/{stage or 'all'}", f"gradient norm, {stage or 'all stages'}", "",
                       of_runs(partial(gradient_norm, stage=stage)), ratio=True),
            )
        ),
    }  # fmt: skip
    # A target that no run reached is a result.
    kept = {title: [each for each in m if each.measured or each.key == TARGET] for title, m in groups.items()}
    return {title: tuple(metrics) for title, metrics in kept.items() if metrics}


def _error(evaluation: Evaluation, *, kind: str) -> float | None:
    return evaluation.errors.get(kind)


def _class_ap(evaluation: Evaluation, *, name: str) -> float | None:
    return evaluation.class_ap.get(name)


def epochs_to(run: Run, target: float) -> float | None:
    """The first epoch whose mAP50-95 is at least the target, a fraction; None if none is."""
    return next((row["epoch"] for row in run.rows if (row.get(PRIMARY) or 0.0) >= target), None)


def energy(run: Run) -> float | None:
    """Energy of all epochs in kJ; None unless every epoch was measured."""
    measured = all(row.get("energy_j") is not None for row in run.rows)
    return total(run, "energy_j") / 1000 if measured else None


def dead_share(run: Run, stage: str = "") -> float | None:
    """Dead units of a stage, or of all, in percent of its units; None if not recorded."""
    units, dead = (_diagnostics(run, key) for key in ("units", "dead"))
    chosen = [stage] if stage else list(units)
    count = sum(units.get(each, 0) for each in chosen)
    return 100 * sum(dead.get(each, 0) for each in chosen) / count if count else None


def gradient_norm(run: Run, stage: str = "") -> float | None:
    """Norm of the gradient over the parameters of a stage, or of all; None if not recorded."""
    norms = _diagnostics(run, "gradient_norm")
    if not stage:
        return sum(value**2 for value in norms.values()) ** 0.5 if norms else None
    return norms.get(stage)


def _diagnostics(run: Run, key: str) -> dict[str, float]:
    """A part of the diagnostics of run.json by stage; {} if not recorded or not numbers."""
    content = run.record.get("diagnostics")
    part = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(part, Mapping):
        return {}
    return {str(name): value for name, value in part.items() if isinstance(value, int | float)}
