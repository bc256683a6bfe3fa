"""The report of a comparison: report.html, report.json, table.csv, runs.csv, pictures/*.png, and the terminal's text.

All numbers are gathered once, into the mapping that report.json holds; page, tables and terminal only word it.
Detection figures are in mAP points (100 x the fraction of the files), times in seconds, memory in MiB.
"""

import csv
import io
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from comparison import figures as pictures
from comparison import recommendation as advice
from comparison import render as page
from comparison.analysis import PRIMARY, Analysis, Cells, Metric, analyse, cells_of, total
from comparison.fingerprint import differences, fingerprint, pairing
from comparison.plan import Plan
from comparison.runs import Run
from comparison.statistics import Comparison
from comparison.timing_probe import TIMING
from core.files import write_text

PARTS = ("time_train_s", "time_warmup_s", "time_data_s", "time_val_s", "time_save_s")


def write_report(folder: Path, runs: Sequence[Run], *, plan: Plan | None, baseline: str | None = None) -> str:
    """Write the report of these runs into `folder` and return what the terminal shows: the verdict, then a table.

    Without a plan, or against another `baseline` than the plan's, all is exploratory. ValueError where there is nothing
    to compare.
    """
    folder = Path(folder)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    analysis = analyse(runs, plan, baseline=baseline)
    numbers = gather(analysis, runs, plan, timing=_timing(folder / TIMING))
    timed = [row["act"] for row in numbers["timing"]["rows"]]
    palette = pictures.Palette([*dict.fromkeys([*analysis.acts, *timed])], baseline=analysis.baseline)
    drawn = draw(analysis, numbers, palette)
    for old in (folder / "pictures").glob("*.png"):
        old.unlink()
    for name, figure in drawn.items():
        pictures.save_png(figure, folder / "pictures" / f"{name}.png")
    write_text(
        folder / "report.json", json.dumps(_finite(numbers), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )
    write_text(folder / "table.csv", as_csv(table_rows(numbers)))
    write_text(folder / "runs.csv", as_csv(numbers["runs"]))
    colors = {act: palette.variable(act) for act in palette.colors}
    write_text(folder / "report.html", page.render(numbers, drawn, colors=colors))
    return page.terminal(numbers, folder / "report.html")


def _timing(path: Path) -> dict[str, Any]:
    """The clean timing that comparison/step_timing.py has left in the folder, if any: what it was of, and its rows."""
    if not path.is_file():
        return {"words": "", "rows": []}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content = content if isinstance(content, dict) else {"rows": content}
        numeric = ("median_ms", "ratio", "low", "high")
        rows = [
            {key: str(row.get(key, "")) for key in ("act", "norm_act", "implementation")}
            | {key: float(row[key]) for key in numeric}
            for row in content["rows"]
        ]
        parts = {
            "device": "{}",
            "imgsz": "{} pixels",
            "batch": "batch {}",
            "rounds": "{} rounds",
            "block": "of {} steps",
        }
        words = ", ".join(text.format(content[key]) for key, text in parts.items() if content.get(key) is not None)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected rows of act, norm_act, median_ms, ratio, low, high: {error}") from error
    return {"words": words, "rows": rows}


# ------------------------------------------------------------------------------------------------------- the numbers


def gather(analysis: Analysis, runs: Sequence[Run], plan: Plan | None, *, timing: Mapping[str, Any]) -> dict[str, Any]:
    """Every number and sentence of the report as plain values: what report.json holds."""
    metrics = [
        analysis.primary,
        *analysis.secondary,
        analysis.until,
        analysis.time,
        *analysis.costs,
        *_more(runs, analysis),
    ]
    hours = [advice.mean_of(metric, act) for metric in metrics if metric.key == "wall_hours" for act in analysis.acts]
    per_seed = sum(hour for hour in hours if hour is not None) if None not in hours else None
    return {
        "format": 1,
        **_outcome(analysis),
        "advice": advice.control(analysis) if plan is not None and plan.same else advice.advice(analysis),
        "costs": {act: advice.cost(analysis, act) for act in analysis.acts if act != analysis.baseline},
        "metrics": {metric.key: _metric(metric) for metric in metrics},
        "until_seconds": {str(seed): seconds for seed, seconds in analysis.until_seconds.items()},
        "further": advice.further(analysis, per_seed),
        "larger": None if analysis.larger is None else _outcome(analysis.larger) | _larger(analysis.larger),
        "runs": [_run_row(run, metrics, analysis) for run in runs],
        "curves": [_curve(run) for run in runs if run.status == "finished"],
        "setting": _setting(runs),
        "plan": None if plan is None else plan.model_dump(mode="json"),
        "plan_words": _plan_words(plan),
        "timing": timing,
    }


def _outcome(analysis: Analysis) -> dict[str, Any]:
    return {
        "headline": analysis.headline,
        "baseline": analysis.baseline,
        "acts": list(analysis.acts),
        "seeds": list(analysis.seeds),
        "alpha": analysis.alpha,
        "margin": analysis.margin,
        "kinds": advice.kinds(analysis),
        "verdicts": dict(analysis.verdicts),
        "time_verdicts": dict(analysis.time_verdicts),
        "exploratory": list(analysis.exploratory),
        "failed": {act: list(counts) for act, counts in analysis.failed.items() if counts[0]},
        "unfinished": list(analysis.unfinished),
        "voided": [asdict(each) for each in analysis.voided],
    }


def _larger(analysis: Analysis) -> dict[str, Any]:
    return {"metrics": {metric.key: _metric(metric) for metric in (analysis.primary, analysis.time)}}


def _metric(metric: Metric) -> dict[str, Any]:
    return {
        "title": metric.title,
        "unit": metric.unit,
        "note": metric.note,
        "cells": {
            cells.act: {
                "values": {str(seed): value for seed, value in sorted(cells.values.items())},
                "mean": cells.mean,
                "sd": cells.sd,
            }
            for cells in metric.cells
        },
        "comparison": None if metric.comparison is None else _comparison(metric.comparison),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "method": comparison.method,
        "ratio": comparison.ratio,
        "sigma": comparison.sigma,
        "degrees": comparison.degrees,
        "critical": comparison.critical,
        "alpha": comparison.alpha,
        "missing": list(comparison.missing),
        "differences": {each.name: asdict(each) for each in comparison.differences},
    }


def _more(runs: Sequence[Run], analysis: Analysis) -> list[Metric]:
    """Figures that are read off each finished run without a test: seconds an epoch, hours on the device."""
    clean = {(cells.act, seed) for cells in analysis.time.cells for seed in cells.values}
    found: dict[str, dict[tuple[str, int], float]] = {"epoch_seconds": {}, "wall_hours": {}, "device_hours": {}}
    for run in runs:
        if run.status != "finished" or run.act not in analysis.acts or run.seed not in analysis.seeds:
            continue
        cell, hours = (run.act, run.seed), sum(total(run, part) for part in PARTS) / 3600
        if cell in clean:
            found["epoch_seconds"][cell] = total(run, "time_train_s") / len(run.rows)
        found["wall_hours"][cell] = hours
        found["device_hours"][cell] = hours * _devices(run)
    cpu = all(not run.record.get("machine", {}).get("gpus") or "cpu" in _device(run) for run in runs)
    what = "CPU-hours (hours x threads)" if cpu else "GPU-hours"
    titles = {
        "epoch_seconds": ("training time per epoch", "s"),
        "wall_hours": ("hours from first to last epoch", "h"),
        "device_hours": (what, "h"),
    }
    return [
        Metric(key=key, title=title, unit=unit, cells=cells_of(found[key], analysis.acts), comparison=None)
        for key, (title, unit) in titles.items()
    ]


def _device(run: Run) -> str:
    return str(run.record.get("device", "")).lower()


def _devices(run: Run) -> int:
    """Threads of a run on the processor, 1 on a GPU."""
    return int(run.record.get("machine", {}).get("threads") or 1) if "cpu" in _device(run) else 1


def _run_row(run: Run, metrics: Sequence[Metric], analysis: Analysis) -> dict[str, Any]:
    """One row of runs.csv: how the run ended and every number of it that the report uses."""
    void = {(each.act, each.seed): each.reason for each in analysis.voided}
    row: dict[str, Any] = {
        "activation": run.act,
        "seed": run.seed,
        "status": run.status,
        "reason": run.reason,
        "time_void": void.get((run.act, run.seed), ""),
        "epochs": len(run.rows),
        "folder": run.folder.name,
    }
    counted = run.status == "finished"
    for metric in metrics:
        values = next((cells.values for cells in metric.cells if cells.act == run.act), {})
        row[f"{short(metric.key)} ({metric.unit})"] = values.get(run.seed) if counted else None
    row["equal_time (s)"] = analysis.until_seconds.get(run.seed)
    return row | {column: total(run, column) for column in PARTS}


def short(key: str) -> str:
    """The name of a figure in a table's head."""
    return key.removeprefix("metrics/")


def _curve(run: Run) -> dict[str, Any]:
    """A finished run's curve: epochs, seconds of training until then, mAP in points, where one was measured."""
    clock = itertools.accumulate(row.get("time_train_s") or 0.0 for row in run.rows)
    points = [
        (row["epoch"], seconds, 100 * value)
        for row, seconds in zip(run.rows, clock, strict=True)
        if (value := row.get(PRIMARY)) is not None
    ]
    epochs, seconds, values = map(list, zip(*points, strict=True)) if points else ([], [], [])
    return {"activation": run.act, "seed": run.seed, "epochs": epochs, "seconds": seconds, "points": values}


def _setting(runs: Sequence[Run]) -> dict[str, Any]:
    """What was the same in all runs and what was not: keys of the fingerprint with their values, and the pairing."""
    other = differences(runs)
    same = {key: value for run in runs for key, value in fingerprint(run).items() if key not in other}
    differs = {
        key: [f"{value}: {', '.join(run.folder.name for run in holders)}" for value, holders in values.items()]
        for key, values in other.items()
    }
    return {"words": _words(same), "same": dict(sorted(same.items())), "differs": differs, "pairing": pairing(runs)}


def _plan_words(plan: Plan | None) -> list[list[str]]:
    """The plan as it was printed before the runs, as names and texts, with all runs in their order."""
    if plan is None:
        return []
    entries = [["written", plan.created], ["config", plan.cfg], *map(list, plan.entries())]
    entries += [["set", ", ".join(f"{key}={value}" for key, value in plan.overrides.items())]] if plan.overrides else []
    return [*(each for each in entries if each[0] != "order"), ["order", ", ".join(cell.name for cell in plan.cells)]]


def _words(same: Mapping[str, Any]) -> list[str]:
    """What was trained, in a few words: what of it all runs share."""
    templates = {
        "config.data.root": "data {}",
        "config.model.size": "model {}",
        "config.train.imgsz": "{} pixels",
        "config.train.epochs": "{} epochs",
        "device": "{}",
    }
    return [
        text.format(Path(same[key]).name if key == "config.data.root" else same[key])
        for key, text in templates.items()
        if same.get(key) is not None
    ]


# -------------------------------------------------------------------------------------------------------- the tables


def table_rows(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of table.csv: one an activation, every figure with mean, sd, runs, and its difference or ratio."""
    rows = []
    for act in numbers["acts"]:
        failed, of = numbers["failed"].get(act, (0, None))
        finished = sum(1 for run in numbers["runs"] if run["activation"] == act and run["status"] == "finished")
        row: dict[str, Any] = {"activation": act, "finished": finished, "failed": failed}
        for key, metric in numbers["metrics"].items():
            name, cells = short(key), metric["cells"].get(act, {"mean": None, "sd": None, "values": {}})
            row[f"{name} mean ({metric['unit']})"] = cells["mean"]
            row[f"{name} sd"] = cells["sd"]
            row[f"{name} runs"] = " ".join(f"{seed}:{value!r}" for seed, value in cells["values"].items())
            if metric["comparison"] is not None:
                row |= _difference_columns(name, metric["comparison"], act)
        rows.append(row)
    return rows


def _difference_columns(name: str, comparison: Mapping[str, Any], act: str) -> dict[str, Any]:
    found = comparison["differences"].get(act, {})
    what = "ratio" if comparison["ratio"] else "difference"
    low, high = found.get("interval") or (None, None)
    return {
        f"{name} {what}": found.get("estimate"),
        f"{name} {what} low": low,
        f"{name} {what} high": high,
        f"{name} pairs": found.get("pairs"),
        f"{name} correlation": found.get("correlation"),
    }


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV text: numbers with all their digits, an empty cell where there is none.

    A text that a spreadsheet would take for a formula gets a quote before it.
    """
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_csv_cell(row.get(name)) for name in columns] for row in rows])
    return text.getvalue()


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value
    return repr(value)


def _finite(value: Any) -> Any:
    """The value for JSON, which knows no infinity: null there."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value


# ------------------------------------------------------------------------------------------------------ the pictures


def draw(analysis: Analysis, numbers: Mapping[str, Any], palette: pictures.Palette) -> dict[str, Figure]:
    """All pictures by name; those that would show nothing are left out."""
    drawn: dict[str, Figure] = {}
    panels = _panels(analysis)
    if panels:
        title = advice.answer_title(analysis)
        drawn["answer"] = pictures.plot_effects(panels, palette, title=title)
        if len(panels) > 1:
            drawn["answer_wide"] = pictures.plot_effects(panels, palette, title=title, wide=True)
    curves, until = _curves(analysis, numbers)
    if curves:
        for name, wide in (("curves", False), ("curves_wide", True)):
            title = advice.curves_title(analysis)
            drawn[name] = pictures.plot_curves(curves, palette, title=title, until=until, wide=wide)
    drawn["runs"] = pictures.plot_runs(
        [_dots(cells, analysis.failed.get(cells.act, (0, 0))[0]) for cells in analysis.primary.cells],
        palette,
        title=advice.runs_title(analysis),
        axis_words="mAP50-95 of the last epoch, points",
        pairs=len(analysis.seeds) > 1,
    )
    drawn["times"] = _times(analysis, numbers, palette)
    timing = numbers["timing"]["rows"]
    if timing:
        rows = [
            (f"{row['act']}, {row['norm_act']}", row["act"], row["ratio"], row["low"], row["high"]) for row in timing
        ]
        drawn["timing"] = pictures.plot_timing(rows, palette, title=advice.timing_title(timing))
    return drawn


def _curves(analysis: Analysis, numbers: Mapping[str, Any]) -> tuple[dict[str, list[pictures.Curve]], float | None]:
    """Each activation's curves, and the minutes at which the fastest runs end on the average over seeds.

    The machine may be slower in one seed than in another: the times of each are scaled so that its fastest run ends
    there, which is where equal time is read off.
    """
    finish, void = analysis.until_seconds, {(each.act, each.seed) for each in analysis.voided}
    until = math.fsum(finish.values()) / len(finish) / 60 if finish else None
    curves: dict[str, list[pictures.Curve]] = {act: [] for act in analysis.acts}
    for run in numbers["curves"]:
        act, seed = run["activation"], run["seed"]
        if act not in curves or seed not in analysis.seeds or len(run["epochs"]) < 2:
            continue
        minutes: list[float] = []
        if until is not None and seed in finish and (act, seed) not in void:
            minutes = [until * seconds / finish[seed] for seconds in run["seconds"]]
        curves[act].append(pictures.Curve(epochs=run["epochs"], minutes=minutes, points=run["points"]))
    return {act: several for act, several in curves.items() if several}, until


def _panels(analysis: Analysis) -> list[pictures.Panel]:
    """The columns of the picture that answers: what is gained, and what it costs in training time."""
    panels = []
    if analysis.primary.comparison is not None and analysis.primary.comparison.differences:
        margin = analysis.margin
        panels.append(
            pictures.Panel(
                title=f"gain: mAP against {analysis.baseline}",
                axis=f"difference from {pictures.plain(analysis.baseline)}, mAP points",
                effects=_effects(analysis.primary, page.signed_points),
                neutral=0.0,
                band=(-margin, margin),
                band_words=f"counts as the same (±{margin:g})",
                alpha=analysis.alpha,
            )
        )
    if analysis.time.comparison is not None and analysis.time.comparison.differences:
        panels.append(
            pictures.Panel(
                title=f"cost: training time against {analysis.baseline}",
                axis=f"× the training time of {pictures.plain(analysis.baseline)}",
                effects=_effects(analysis.time, page.times_words),
                neutral=1.0,
                alpha=analysis.alpha,
            )
        )
    return panels


def _effects(metric: Metric, words: Any) -> list[pictures.Effect]:
    comparison = metric.comparison
    assert comparison is not None
    values = {cells.act: cells.values for cells in metric.cells}
    base = values[comparison.baseline]
    effects = []
    for each in comparison.differences:
        own = values[each.name]
        both = sorted(own.keys() & base.keys())
        singles = {seed: own[seed] / base[seed] if comparison.ratio else own[seed] - base[seed] for seed in both}
        effects.append(
            pictures.Effect(
                name=each.name,
                estimate=each.estimate,
                interval=each.interval,
                inner=each.inner,
                singles=singles,
                words=words(each.estimate, each.interval),
            )
        )
    return effects


def _dots(cells: Cells, failed: int) -> pictures.Dots:
    words = "no finished run" if cells.mean is None else f"{cells.mean:.1f}"
    words += "" if cells.sd is None else f" ± {cells.sd:.1f}"
    words += f", {failed} failed" if failed else ""
    return pictures.Dots(name=cells.act, values=cells.values, words=words)


def _times(analysis: Analysis, numbers: Mapping[str, Any], palette: pictures.Palette) -> Figure:
    """Seconds an epoch of every finished run, those whose time is no evidence marked."""
    void = {(each.act, each.seed) for each in analysis.voided}
    rows = []
    for act in analysis.acts:
        every = {
            run["seed"]: run["time_train_s"] / run["epochs"]
            for run in numbers["runs"]
            if run["activation"] == act and run["status"] == "finished" and run["seed"] in analysis.seeds
        }
        good = [value for seed, value in every.items() if (act, seed) not in void]
        words = f"{page.amount(math.fsum(good) / len(good))} s" if good else "no clean time"
        marked = frozenset(seed for seed in every if (act, seed) in void)
        rows.append(pictures.Dots(name=act, values=every, void=marked, words=words))
    title = advice.times_title(analysis)
    return pictures.plot_runs(rows, palette, title=title, axis_words="training time per epoch, seconds", pairs=False)
