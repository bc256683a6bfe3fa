"""The tables of a comparison's page and terminal output: columns, cells, and one function per table."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from comparison import wording
from comparison.choices import TuningCurve, TuningSummary
from comparison.figure_style import Palette
from comparison.summary import (
    POINTS,
    PRIMARY,
    FailureRate,
    Field,
    Metric,
    Outcome,
    Requirement,
    Summary,
    TimingRow,
)
from comparison.wording.numbers import signed_interval, signed_points, times_ratio
from core.text import format_duration

T = TypeVar("T")
LONG = 8  # rows of a table that is folded
TEXT_COLUMNS = ("activation", "status", "reason", "time_excluded", "folder")


class Column(NamedTuple):
    """A column of a table: header, small print in the header, whether it holds text."""

    title: str
    unit: str = ""
    text: bool = False


class Cell(NamedTuple):
    """A table cell: text, sort value, CSS class."""

    text: str
    value: float | str = ""
    kind: str = ""


class Row(NamedTuple):
    """A table row with the CSS colour variable of its activation."""

    cells: list[Cell]
    color: str = ""


class Table(NamedTuple):
    """A table of the page."""

    columns: list[Column]
    rows: list[Row]


def amount(value: float) -> str:
    """A number with about three digits: 0.123, 12.3, 1,234."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def points(value: float) -> str:
    """A mAP in points."""
    return f"{value:.1f}"


def mean_of(metric: Metric, show: Callable[[float], str] | None = None) -> Callable[[str], Cell]:
    """The cells of a metric's mean ± sd by activation; without `show`, with as many digits as the sd supports."""
    return lambda act: _mean(metric, act, show)


def _mean(metric: Metric, act: str, show: Callable[[float], str] | None) -> Cell:
    mean, sd = metric.mean(act), metric.arms[act].sd if act in metric.arms else None
    if mean is None:
        return Cell("–")
    digits = 2 - math.floor(math.log10(max(abs(mean), 1e-9)))  # three significant digits of the mean,
    if sd:
        digits = min(digits + 1, -math.floor(math.log10(sd)))  # or four, but not beyond the first digit of the sd
    texts = [show(each) if show else f"{each:,.{max(0, digits)}f}" for each in (mean, sd) if each is not None]
    return Cell(" ± ".join(texts), mean)


def difference_of(metric: Metric, outcome: Outcome) -> Callable[[str], Cell]:
    """The cells of a metric's difference or ratio with its interval, by activation."""
    ratio = metric.comparison is not None and metric.comparison.ratio

    def cell(act: str) -> Cell:
        if act == outcome.baseline:
            return Cell("baseline", 1.0 if ratio else 0.0)
        difference = metric.difference(act)
        if difference is None:
            return Cell("–")
        show = times_ratio if ratio else signed_points
        return Cell(show(difference.estimate, difference.interval), difference.estimate)

    return cell


def _level(metric: Metric) -> str:
    return f"simultaneous {wording.numbers.level(metric.comparison.alpha)} CI" if metric.comparison else ""


def build(
    rows: Iterable[T], columns: Sequence[tuple[Column, Callable[[T], Cell]]], color: Callable[[T], str] | None = None
) -> Table:
    """A table from its columns, each with the function that makes its cell of a row."""
    return Table(
        [column for column, _ in columns],
        [Row([cell(row) for _, cell in columns], color(row) if color else "") for row in rows],
    )


ARM = (Column("activation", text=True), lambda act: Cell(act, act))


def image_columns(summary: Summary) -> list[tuple[Column, Callable[[str], Cell]]]:
    """The intervals over images; none without stored detections."""
    sampling, level = summary.image_sampling, wording.numbers.level(summary.planned.alpha)

    def interval(both: bool) -> Callable[[str], Cell]:
        def cell(act: str) -> Cell:
            effect = sampling.effects.get(act)
            if act == summary.planned.baseline:
                return Cell("baseline", 0.0)
            ends = None if effect is None else effect.both if both else effect.interval
            return Cell("not available") if ends is None else Cell(signed_interval(ends), ends[1] - ends[0])

        return cell

    count = "" if sampling.images is None else f"{sampling.images:,} images, "
    return [
        (Column(f"over {sampling.kind} images", f"{count}points, simultaneous {level} CI"), interval(False)),
        (Column("new seeds and images", f"points, simultaneous {level} CI"), interval(True)),
    ]


def main_table(summary: Summary, palette: Palette) -> Table:
    """All metrics, one row per activation."""
    outcome = summary.planned
    metrics, primary, time = outcome.metrics, outcome.primary, outcome.time
    measured = [metric for metric in metrics.values() if metric.measured]
    descriptive = [each for each in measured if each.unit == POINTS and each.key not in (PRIMARY, "until")]
    costs = [
        each for each in measured if each.unit != POINTS and each.key not in ("time", "wall_hours", "epoch_seconds")
    ]

    def every_run(act: str) -> Cell:
        values = primary.arms[act].values.values()
        return Cell("  ".join(map(points, values)) or "–", len(values), "wrap")

    def correlation(act: str) -> Cell:
        difference = primary.difference(act)
        value = difference.correlation if difference else None
        return Cell("–") if value is None else Cell(f"{value:.2f}".replace("-", "−"), value)

    def completed(act: str) -> Cell:
        (failed, ended, _), count = outcome.failed[act], len(primary.arms[act].values)
        return Cell(f"{count} of {ended}" + (f", {failed} failed" if failed else ""), count)

    columns = [
        ARM,
        (Column("mAP50-95", "last epoch, points"), mean_of(primary, points)),
        (Column("difference", f"points, over seeds, {_level(primary)}"), difference_of(primary, outcome)),
        *image_columns(summary),
        (Column("every run", "by seed, points"), every_run),
        *((_points_column(metric), mean_of(metric, points)) for metric in descriptive),
        (Column("time per epoch", "training, s"), mean_of(metrics["epoch_seconds"])),
        (Column("training time", "total"), mean_of(time, format_duration)),
        (Column("time ratio", _level(time)), difference_of(time, outcome)),
        *((Column(metric.title, metric.unit), mean_of(metric)) for metric in costs),
        (Column("correlation", "with the baseline"), correlation),
        (Column("runs", "completed"), completed),
    ]
    return build(outcome.acts, columns, palette.variable)


def _points_column(metric: Metric) -> Column:
    return Column(metric.title.replace(", last epoch", ""), metric.note or "points")


def failure_table(outcome: Outcome, palette: Palette) -> Table:
    """Failure rates with their exact intervals, the baseline included; no rows if no run failed."""

    def percentage(value: float) -> str:
        return f"{100 * value:.0f} %"

    def cell_of(show: Callable[[FailureRate], Cell]) -> Callable[[str], Cell]:
        return lambda act: show(outcome.failure_rates[act]) if act in outcome.failure_rates else Cell("–")

    level = f"{wording.numbers.level(outcome.alpha)} CI, Clopper-Pearson"
    columns = [
        ARM,
        (Column("failed"), cell_of(lambda rate: Cell(f"{rate.failed} of {rate.ended}", rate.failed / rate.ended))),
        (Column("diverged", "loss not finite"), cell_of(lambda rate: Cell(f"{rate.diverged}", rate.diverged))),
        (
            Column("other causes", "disk, memory, killed"),
            cell_of(lambda rate: Cell(f"{rate.failed - rate.diverged}", rate.failed - rate.diverged)),
        ),
        (
            Column("rate", level),
            cell_of(lambda rate: Cell(f"{percentage(rate.low)} to {percentage(rate.high)}", rate.low)),
        ),
        (
            Column("p", f"Fisher's exact test against {outcome.baseline}"),
            cell_of(lambda rate: Cell("baseline") if rate.p is None else Cell(f"{rate.p:.2g}", rate.p)),
        ),
    ]
    any_failed = any(each.failed for each in outcome.failed.values())
    return build(outcome.acts if any_failed else (), columns, palette.variable)


def secondary_table(outcome: Outcome, palette: Palette) -> Table:
    """Differences in the secondary metrics, one row per candidate."""
    metrics = [
        each for each in outcome.metrics.values() if each.comparison and each.key not in (PRIMARY, "time", "until")
    ]
    columns = [ARM, *((_points_column(metric), difference_of(metric, outcome)) for metric in metrics)]
    return build(outcome.candidates if metrics else (), columns, palette.variable)


def cause_tables(summary: Summary) -> list[tuple[str, Table, bool]]:
    """The quantities behind the difference, a table per group, and whether it is long."""
    outcome = summary.planned
    finished = {act: len(arm.values) for act, arm in outcome.primary.arms.items()}

    def runs_of(metric: Metric, act: str, cell: Cell) -> Cell:
        count = len(metric.arms[act].values)
        return cell if count == finished[act] else cell._replace(text=f"{cell.text} ({count} of {finished[act]} runs)")

    def baseline(metric: Metric) -> Cell:
        return runs_of(metric, outcome.baseline, _mean(metric, outcome.baseline, None))

    def candidate(act: str) -> Callable[[Metric], Cell]:
        return lambda metric: runs_of(metric, act, difference_of(metric, outcome)(act))

    def title(metric: Metric) -> Cell:
        return Cell(
            metric.title.replace(", last epoch", "") + (f", {metric.unit}" if metric.unit else ""), metric.title
        )

    level = f"− {outcome.baseline} or ×, simultaneous {wording.numbers.level(outcome.alpha)} CI"
    columns = [
        (Column("quantity", text=True), title),
        (Column(outcome.baseline, "mean ± sd"), baseline),
        *((Column(act, level), candidate(act)) for act in outcome.candidates),
    ]
    return [(name, build(metrics, columns), len(metrics) > LONG) for name, metrics in summary.causes.items()]


def budget_table(summary: Summary, palette: Palette) -> Table:
    """mAP and its difference at equal epochs and at equal time."""
    outcome, until = summary.planned, summary.planned.metrics["until"]
    first = "epochs planned for equal time" if summary.equal_time_planned else "equal epochs"
    columns = [
        ARM,
        (Column(first, "mAP50-95 of the last epoch, points"), mean_of(outcome.primary, points)),
        (Column("difference", f"{first}, {_level(outcome.primary)}"), difference_of(outcome.primary, outcome)),
        (Column("equal time", "mAP50-95, unfinished schedule, points"), mean_of(until, points)),
        (Column("difference", f"equal time, {_level(until)}"), difference_of(until, outcome)),
    ]
    return build(outcome.acts, columns, palette.variable)


def run_table(summary: Summary, palette: Palette) -> Table:
    """One row per run, as in runs.csv, rounded."""

    def field_of(name: str) -> Callable[[Mapping[str, Field]], Cell]:
        def cell(run: Mapping[str, Field]) -> Cell:
            value = run.get(name)
            if name in TEXT_COLUMNS:
                return Cell(str(value or "–"), str(value or ""), "text")
            if value is None:
                return Cell("–")
            return Cell(f"{value:.4g}" if isinstance(value, float) else str(value), value)

        return cell

    names = list(dict.fromkeys(name for run in summary.runs for name in run))
    columns = [(Column(name.replace("_", " "), text=name in TEXT_COLUMNS), field_of(name)) for name in names]
    return build(summary.runs, columns, lambda run: palette.variable(str(run["activation"])))


def required_table(summary: Summary) -> Table:
    """Seeds and hours required for several goals."""

    def hours(seeds: int | None, value: float | None) -> Cell:
        return Cell("–" if seeds is None else wording.numbers.hours(value))

    columns: list[tuple[Column, Callable[[Requirement], Cell]]] = [
        (Column("to …", text=True), lambda row: Cell(wording.recommendations.goal(row))),
        (Column("seeds", "per activation"), lambda row: Cell(wording.numbers.seeds_or_more(row.seeds))),
        (Column("seeds", "conservative"), lambda row: Cell(wording.numbers.seeds_or_more(row.seeds_conservative))),
        (Column("hours"), lambda row: hours(row.seeds, row.hours)),
        (Column("hours", "conservative"), lambda row: hours(row.seeds_conservative, row.hours_conservative)),
    ]
    if wording.recommendations.only_conservative(summary):
        columns = [column for column in columns if column[0].text or column[0].unit == "conservative"]
    return build(summary.required_seeds.rows if summary.required_seeds else (), columns)


def timing_table(summary: Summary, palette: Palette) -> Table:
    """The isolated timing."""
    ratio = Column("ratio", "to the first row, simultaneous 95 % CI")
    columns: list[tuple[Column, Callable[[TimingRow], Cell]]] = [
        (Column("activation", text=True), lambda row: Cell(row.act, row.act)),
        (Column("norm + activation", text=True), lambda row: Cell(row.norm_act, row.norm_act, "text")),
        (Column("implementation", text=True), lambda row: Cell(row.implementation or "–", row.implementation, "text")),
        (Column("training step", "median, ms"), lambda row: Cell(amount(row.median_ms), row.median_ms)),
        (ratio, lambda row: Cell(times_ratio(row.ratio, (row.low, row.high)), row.ratio)),
    ]
    return build(summary.timing.rows, columns, lambda row: palette.variable(row.act))


def tuning_table(tuning: TuningSummary | None, palette: Palette) -> Table:
    """The mAP of each arm by value of the tuned key; the chosen one is marked."""
    if tuning is None:
        return build((), ())

    def cell_of(place: int) -> Callable[[TuningCurve], Cell]:
        def cell(curve: TuningCurve) -> Cell:
            mean = curve.means[place]
            return Cell("failed") if mean is None else Cell(points(mean) + " *" * (place == curve.chosen), mean)

        return cell

    columns: list[tuple[Column, Callable[[TuningCurve], Cell]]] = [
        (Column("arm", text=True), lambda curve: Cell(curve.act, curve.act)),
        *((Column(f"{tuning.key}={value}", "mAP, points"), cell_of(k)) for k, value in enumerate(tuning.values)),
    ]
    return build(tuning.curves, columns, lambda curve: palette.variable(curve.act))
