"""Render the summary of a comparison: tables, CSV files, the page and the text for the terminal.

The template escapes everything, and the page loads nothing.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from comparison import wording
from comparison.figures import Palette, inline_svg, signed_points, times_ratio
from comparison.summary import POINTS, PRIMARY, Field, Metric, Outcome, Summary, Verdict
from core.text import format_duration

PICTURES = {
    "answer": ("answer", "answer_wide"), "curves": ("curves", "curves_wide"), "runs": ("runs",), "times": ("times",),
    "timing": ("timing",),
}  # fmt: skip
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


# --------------------------------------------------------------------------------------------------------------- cells


def amount(value: float) -> str:
    """A number with about three digits: 0.123, 12.3, 1,234."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def points(value: float) -> str:
    """A mAP in points."""
    return f"{value:.1f}"


def mean_cell(metric: Metric, act: str, show: Callable[[float], str] | None = None) -> Cell:
    """Mean ± sd; without `show`, with as many digits as the sd supports."""
    mean, sd = metric.mean(act), metric.arms[act].sd if act in metric.arms else None
    if mean is None:
        return Cell("–")
    digits = 2 - math.floor(math.log10(max(abs(mean), 1e-9)))  # three significant digits of the mean,
    if sd:
        digits = min(digits + 1, -math.floor(math.log10(sd)))  # or four, but not beyond the first digit of the sd
    texts = [show(each) if show else f"{each:,.{max(0, digits)}f}" for each in (mean, sd) if each is not None]
    return Cell(" ± ".join(texts), mean)


def difference_cell(metric: Metric, act: str, *, baseline: str) -> Cell:
    """A difference or ratio with its interval."""
    ratio = metric.comparison is not None and metric.comparison.ratio
    if act == baseline:
        return Cell("baseline", 1.0 if ratio else 0.0)
    difference = metric.difference(act)
    if difference is None:
        return Cell("–")
    show = times_ratio if ratio else signed_points
    return Cell(show(difference.estimate, difference.interval), difference.estimate)


def _level(metric: Metric) -> str:
    return f"simultaneous {wording.level(metric.comparison.alpha)} CI" if metric.comparison else ""


# -------------------------------------------------------------------------------------------------------------- tables


def main_table(outcome: Outcome, palette: Palette) -> Table:
    """All metrics, one row per activation."""
    metrics, primary, time = outcome.metrics, outcome.primary, outcome.time
    measured = [metric for metric in metrics.values() if metric.measured]
    descriptive = [each for each in measured if each.unit == POINTS and each.key not in (PRIMARY, "until")]
    costs = [
        each for each in measured if each.unit != POINTS and each.key not in ("time", "wall_hours", "epoch_seconds")
    ]
    columns = [
        Column("activation", text=True),
        Column("mAP50-95", "last epoch, points"),
        Column("difference", f"points, {_level(primary)}"),
        Column("every run", "by seed, points"),
        *_point_columns(descriptive),
        Column("time per epoch", "training, s"),
        Column("training time", "total"),
        Column("time ratio", _level(time)),
        *(Column(metric.title, metric.unit) for metric in costs),
        Column("correlation", "with the baseline"),
        Column("runs", "completed"),
    ]
    rows = []
    for act in outcome.acts:
        values, difference = primary.arms[act].values, primary.difference(act)
        correlation = None if difference is None else difference.correlation
        failed, ended = outcome.failed[act]
        cells = [
            Cell(act, act),
            mean_cell(primary, act, points),
            difference_cell(primary, act, baseline=outcome.baseline),
            Cell("  ".join(map(points, values.values())) or "–", len(values), "wrap"),
            *(mean_cell(metric, act, points) for metric in descriptive),
            mean_cell(metrics["epoch_seconds"], act),
            mean_cell(time, act, format_duration),
            difference_cell(time, act, baseline=outcome.baseline),
            *(mean_cell(metric, act) for metric in costs),
            Cell("–") if correlation is None else Cell(f"{correlation:.2f}".replace("-", "−"), correlation),
            Cell(f"{len(values)} of {ended}" + (f", {failed} failed" if failed else ""), len(values)),
        ]
        rows.append(Row(cells, palette.variable(act)))
    return Table(columns, rows)


def _point_columns(metrics: Sequence[Metric]) -> list[Column]:
    return [Column(metric.title.replace(", last epoch", ""), metric.note or "points") for metric in metrics]


def secondary_table(outcome: Outcome, palette: Palette) -> Table:
    """Differences in the secondary metrics, one row per candidate."""
    primary = (PRIMARY, "time", "until")
    metrics = [each for each in outcome.metrics.values() if each.key not in primary and each.comparison is not None]
    rows = [
        Row(
            [Cell(act, act), *(difference_cell(each, act, baseline=outcome.baseline) for each in metrics)],
            palette.variable(act),
        )
        for act in outcome.candidates
    ]
    return Table([Column("activation", text=True), *_point_columns(metrics)], rows if metrics else [])


def budget_table(summary: Summary, palette: Palette) -> Table:
    """mAP and its difference at equal epochs and at equal time."""
    outcome, until = summary.planned, summary.planned.metrics["until"]
    first = "epochs planned for equal time" if summary.equal_time_planned else "equal epochs"
    columns = [
        Column("activation", text=True),
        Column(first, "mAP50-95 of the last epoch, points"),
        Column("difference", f"{first}, {_level(outcome.primary)}"),
        Column("equal time", "mAP50-95, unfinished schedule, points"),
        Column("difference", f"equal time, {_level(until)}"),
    ]
    rows = []
    for act in outcome.acts:
        cells = [Cell(act, act)]
        for metric in (outcome.primary, until):
            cells += [mean_cell(metric, act, points), difference_cell(metric, act, baseline=outcome.baseline)]
        rows.append(Row(cells, palette.variable(act)))
    return Table(columns, rows)


def run_table(summary: Summary, palette: Palette) -> Table:
    """One row per run, as in runs.csv, rounded."""
    names = list(dict.fromkeys(name for run in summary.runs for name in run))
    rows = []
    for run in summary.runs:
        cells = []
        for name in names:
            value = run.get(name)
            if name in TEXT_COLUMNS:
                cells.append(Cell(str(value or "–"), str(value or ""), "text"))
            elif value is None:
                cells.append(Cell("–"))
            else:
                cells.append(Cell(f"{value:.4g}" if isinstance(value, float) else str(value), value))
        rows.append(Row(cells, palette.variable(str(run["activation"]))))
    return Table([Column(name.replace("_", " "), text=name in TEXT_COLUMNS) for name in names], rows)


def required_table(summary: Summary) -> Table:
    """Seeds and hours required for several goals."""
    columns = [
        Column("to …", text=True),
        Column("seeds", "per activation"),
        Column("seeds", "conservative"),
        Column("hours"),
        Column("hours", "conservative"),
    ]
    rows = [
        Row(
            [
                Cell(wording.goal(row)),
                *(Cell(wording.seeds_or_more(seeds)) for seeds in (row.seeds, row.seeds_conservative)),
                *(
                    Cell("–" if seeds is None else wording.hours(hours))
                    for seeds, hours in ((row.seeds, row.hours), (row.seeds_conservative, row.hours_conservative))
                ),
            ]
        )
        for row in (summary.required_seeds.rows if summary.required_seeds else ())
    ]
    return Table(columns, rows)


def timing_table(summary: Summary, palette: Palette) -> Table:
    """The isolated timing."""
    columns = [
        Column("activation", text=True),
        Column("norm + activation", text=True),
        Column("implementation", text=True),
        Column("training step", "median, ms"),
        Column("ratio", "to the first row, simultaneous 95 % CI"),
    ]
    rows = [
        Row(
            [
                Cell(row.act, row.act),
                Cell(row.norm_act, row.norm_act, "text"),
                Cell(row.implementation or "–", row.implementation, "text"),
                Cell(amount(row.median_ms), row.median_ms),
                Cell(times_ratio(row.ratio, (row.low, row.high)), row.ratio),
            ],
            palette.variable(row.act),
        )
        for row in summary.timing.rows
    ]
    return Table(columns, rows)


# ------------------------------------------------------------------------------------------------------------ the page


def page(summary: Summary, drawn: Mapping[str, Figure], palette: Palette) -> str:
    """The page: one file with its style, script and pictures."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["breakable"] = breakable
    outcome, metrics = summary.planned, summary.planned.metrics
    svg = {
        key: [_svg(drawn[name], name, paired=len(names) > 1 and names[1] in drawn) for name in names if name in drawn]
        for key, names in PICTURES.items()
    }
    return environment.get_template("page.html").render(
        summary=summary,
        outcome=outcome,
        text=wording.PAGE,
        subtitle=wording.subtitle(summary),
        failed=wording.failures(summary),
        exploratory="; ".join(outcome.exploratory),
        candidates=[(act, palette.variable(act), _memory(outcome, act)) for act in outcome.candidates],
        required=wording.required_seeds(summary),
        no_picture=outcome.primary.note or wording.PAGE["no_candidate"],
        svg=svg,
        main_table=main_table(outcome, palette),
        notes=[note for key, note in wording.NOTES.items() if key not in metrics or metrics[key].measured],
        secondary=secondary_table(outcome, palette),
        budget_words=wording.budgets(summary),
        budgets=budget_table(summary, palette),
        excluded=[wording.excluded(each) for each in outcome.excluded],
        timing=timing_table(summary, palette),
        required_table=required_table(summary),
        variation=wording.variation(summary),
        larger=summary.larger
        and {"why": "; ".join(summary.larger.exploratory), "lines": verdict_lines(summary.larger)},
        method=wording.method(outcome, summary.setting.pairing),
        run_table=run_table(summary, palette),
    )


def _memory(outcome: Outcome, act: str) -> str:
    memory, baseline = outcome.metrics["memory"].mean(act), outcome.metrics["memory"].mean(outcome.baseline)
    return wording.memory(memory, baseline) if memory is not None and baseline else ""


def breakable(label: str) -> Markup:
    """A label, escaped, that may be broken after its commas, brackets and equals signs."""
    return Markup("").join(escape(char) + Markup("<wbr>" if char in ",(=" else "") for char in label)


def _svg(figure: Figure, name: str, *, paired: bool) -> Markup:
    """A picture for the page; of a pair, one is shown in wide and one in narrow windows."""
    title = figure.get_suptitle().replace("\n", " ").replace(r"\$", "$")
    kind = "wide" if name.endswith("_wide") else "narrow paired" if paired else "narrow"
    return Markup(inline_svg(figure, name, words=title).replace("<svg ", f'<svg class="{kind}" ', 1))


# -------------------------------------------------------------------------------------------------------- the terminal


def verdict_lines(outcome: Outcome) -> list[str]:
    """The verdicts with the names of the candidates: first mAP, then training time."""
    verdicts: list[tuple[str, str, Verdict]] = [("", act, verdict) for act, verdict in outcome.verdicts.items()]
    verdicts += [("training time ", act, verdict) for act, verdict in outcome.time_verdicts.items()]
    return [f"{act}: {what}{verdict.text}" for what, act, verdict in verdicts]


def terminal(summary: Summary, path: Path) -> str:
    """The recommendation, the verdicts, a table, and what further seeds would show."""
    outcome = summary.planned
    lines = [f"FAILED: {line}" for line in wording.failures(summary)]
    lines += [f"{wording.PAGE['unfinished']}: {name}" for name in outcome.unfinished]
    if outcome.exploratory:
        lines.append(f"EXPLORATORY: {'; '.join(outcome.exploratory)}")
    lines += [*summary.recommendation, "", *(f"  {line}" for line in verdict_lines(outcome))]
    lines += ["", *_terminal_table(outcome), ""]
    lines += [f"excluded from timing: {wording.excluded(each)}" for each in outcome.excluded]
    if required := wording.required_seeds(summary):
        lines.append(f"required seeds: {required}")
    if summary.larger:
        lines.append(f"EXPLORATORY, including {'; '.join(summary.larger.exploratory)}:")
        lines += [f"  {line}" for line in verdict_lines(summary.larger)]
    return "\n".join([*lines, f"report: {path}"])


def _terminal_table(outcome: Outcome) -> list[str]:
    """The most important metrics, aligned."""
    primary, time, metrics = outcome.primary, outcome.time, outcome.metrics
    costs = [metrics[key] for key in ("images_per_s", "memory", "latency") if metrics[key].measured]
    levels = [f" [{wording.level(metric.comparison.alpha)}]" if metric.comparison else "" for metric in (primary, time)]
    head = ["activation", "mAP50-95", f"difference{levels[0]}", "s/epoch", f"time{levels[1]}"]
    rows = [head + [metric.unit for metric in costs]]
    for act in outcome.acts:
        cells = [
            Cell(act),
            mean_cell(primary, act, points),
            difference_cell(primary, act, baseline=outcome.baseline),
            mean_cell(metrics["epoch_seconds"], act),
            difference_cell(time, act, baseline=outcome.baseline),
            *(mean_cell(metric, act) for metric in costs),
        ]
        rows.append([cell.text for cell in cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


# ---------------------------------------------------------------------------------------------------------------- CSV


def table_rows(outcome: Outcome, runs: Sequence[Mapping[str, Field]]) -> list[dict[str, Field]]:
    """The rows of table.csv, one per activation: mean, sd, runs, and difference or ratio of every metric."""
    rows = []
    for act in outcome.acts:
        finished = sum(run["activation"] == act and run["status"] == "finished" for run in runs)
        row: dict[str, Field] = {"activation": act, "finished": finished, "failed": outcome.failed[act].failed}
        for metric in outcome.metrics.values():
            name, arm = metric.key.removeprefix("metrics/"), metric.arms[act]
            row[f"{name} mean ({metric.unit})"] = arm.mean
            row[f"{name} sd"] = arm.sd
            row[f"{name} runs"] = " ".join(f"{seed}:{value!r}" for seed, value in sorted(arm.values.items()))
            if metric.comparison is not None:
                difference, what = metric.difference(act), "ratio" if metric.comparison.ratio else "difference"
                low, high = (difference.interval if difference else None) or (None, None)
                row |= {
                    f"{name} {what}": difference.estimate if difference else None,
                    f"{name} {what} low": low,
                    f"{name} {what} high": high,
                    f"{name} pairs": difference.pairs if difference else None,
                    f"{name} correlation": difference.correlation if difference else None,
                }
        rows.append(row)
    return rows


def to_csv(rows: Sequence[Mapping[str, Field]]) -> str:
    """Rows as CSV text: numbers in full precision, an empty field for None.

    Text that a spreadsheet would take for a formula is prefixed with a quote.
    """
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_field(row.get(name)) for name in columns] for row in rows])
    return text.getvalue()


def _field(value: Field) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value
    return repr(value)
