"""A comparison's numbers (the mapping of report.json) put into words, tables, the page and the terminal's text.

The template escapes everything: a label or a path is data. The page asks for nothing outside itself.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from comparison.figures import inline_svg
from core.text import format_duration

Numbers = Mapping[str, Any]
PRIMARY = "metrics/mAP50-95"
MEMORY = (
    "Peak memory is what the training adds: on a GPU the most that PyTorch allocated, on a CPU the process's peak "
    "minus its size after the build of the model. It hardly varies, so it is described and not tested."
)
BEST = "The best epoch is chosen on the set it is measured on, so it flatters noisy curves: look, do not conclude."
LATENCY = "Inference latency is that of the trained network on the machine of the training."
CORRELATION = (
    "Correlation: how much a seed's runs rise and fall with those of the baseline. Near 1, pairing by seed has "
    "cancelled most of the luck; near 0, it has brought nothing."
)
PICTURES = {"answer": ("answer", "answer_wide"), "curves": ("curves", "curves_wide"), "runs": ("runs",)}
PICTURES |= {"times": ("times",), "timing": ("timing",)}


class Column(NamedTuple):
    """A column of a table: its head, what the head adds in small, whether it holds text."""

    title: str
    unit: str = ""
    text: bool = False


class Cell(NamedTuple):
    """A cell: what is shown, what it is sorted by, its class."""

    text: str
    value: float | str = ""
    kind: str = ""


class Row(NamedTuple):
    """A row, with the colour of its activation."""

    cells: list[Cell]
    color: str = ""


class Table(NamedTuple):
    """A table of the page."""

    columns: list[Column]
    rows: list[Row]


# ------------------------------------------------------------------------------------------------------------- numbers


def signed_points(value: float, interval: tuple[float, float] | None = None) -> str:
    """A difference in points with its interval: +0.82 [+0.10, +1.54]."""
    ends = "" if interval is None else f" [{_signed(interval[0])}, {_signed(interval[1])}]"
    return f"{_signed(value)}{ends}"


def _signed(value: float) -> str:
    text = f"{value:+.2f}"
    return (text[1:] if float(text) == 0 else text).replace("-", "−")


def times_words(value: float, interval: tuple[float, float] | None = None) -> str:
    """A ratio with its interval: ×1.10 [1.08, 1.12], with one digit more where that is narrow."""
    if interval is None:
        return f"×{value:.2f}"
    digits = 3 if interval[1] - interval[0] < 0.02 else 2
    low, high = (f"{end:.{digits}f}" if end < 1000 else "∞" if math.isinf(end) else f"{end:.0e}" for end in interval)
    return f"×{value:.{digits}f} [{low}, {high}]"


def hours(value: float | None) -> str:
    """Hours as people say them."""
    if value is None:
        return "unknown"
    if value < 1:
        return f"{60 * value:.0f} min" if value > 1 / 6 else format_duration(3600 * value)
    return format_duration(3600 * value) if value < 48 else f"{value:,.0f} h ({value / 24:,.0f} days)"


def amount(value: float) -> str:
    """A figure with three digits or so: 0.123, 12.3, 1,234."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _mean(cells: Mapping[str, Any] | None, show: Callable[[float], str] | None = None) -> Cell:
    """Mean ± sd of an activation's cells; without a way to show them, with as many digits as the sd warrants."""
    if cells is None or cells["mean"] is None:
        return Cell("–")
    mean, sd = cells["mean"], cells["sd"]
    digits = 2 - math.floor(math.log10(max(abs(mean), 1e-9)))  # three of the mean's;
    if sd:
        digits = min(digits + 1, -math.floor(math.log10(sd)))  # four, and not beyond the first of the sd's
    texts = [show(each) if show else f"{each:,.{max(0, digits)}f}" for each in (mean, sd) if each is not None]
    return Cell(" ± ".join(texts), mean)


def _points(value: float) -> str:
    return f"{value:.1f}"


def _found(metric: Mapping[str, Any], act: str) -> Mapping[str, Any] | None:
    return metric["comparison"]["differences"].get(act) if metric["comparison"] else None


def _difference(metric: Mapping[str, Any], act: str, *, baseline: str) -> Cell:
    """A candidate's difference or ratio with its interval."""
    if act == baseline:
        return Cell("baseline", 1.0 if metric["comparison"] and metric["comparison"]["ratio"] else 0.0)
    found = _found(metric, act)
    if found is None:
        return Cell("–")
    show = times_words if metric["comparison"]["ratio"] else signed_points
    return Cell(show(found["estimate"], found["interval"]), found["estimate"])


def _level(comparison: Mapping[str, Any] | None) -> str:
    return f"{100 * (1 - comparison['alpha']):g} %" if comparison else ""


# -------------------------------------------------------------------------------------------------------------- tables


def main_table(numbers: Numbers, colors: Mapping[str, str]) -> Table:
    """One activation a row, all figures."""
    metrics, base = numbers["metrics"], numbers["baseline"]
    primary, time = metrics[PRIMARY], metrics["time"]
    described = [key for key in metrics if metrics[key]["unit"] == "mAP points" and key not in (PRIMARY, "until")]
    described = [key for key in described if any(cell["mean"] is not None for cell in metrics[key]["cells"].values())]
    costs = [key for key in metrics if key not in (*described, PRIMARY, "until", "time", "wall_hours", "epoch_seconds")]
    costs = [key for key in costs if any(cell["mean"] is not None for cell in metrics[key]["cells"].values())]
    columns = [
        Column("activation", text=True),
        Column("mAP50-95", "last epoch, points"),
        Column("difference", f"points, {_level(primary['comparison'])} simultaneous"),
        Column("every run", "by seed, points"),
        *(
            Column(metrics[key]["title"].replace(", last epoch", ""), metrics[key]["note"] or "points")
            for key in described
        ),
        Column("time per epoch", "training, s"),
        Column("training time", "in total"),
        Column("time ratio", f"{_level(time['comparison'])} simultaneous"),
        *(Column(metrics[key]["title"], metrics[key]["unit"]) for key in costs),
        Column("correlation", "with the baseline"),
        Column("runs", "completed"),
    ]
    rows = []
    for act in numbers["acts"]:
        values = primary["cells"][act]["values"]
        found = _found(primary, act)
        correlation = found["correlation"] if found else None
        rows.append(
            Row(
                [
                    Cell(act, act),
                    _mean(primary["cells"][act], _points),
                    _difference(primary, act, baseline=base),
                    Cell("  ".join(f"{value:.1f}" for value in values.values()) or "–", len(values), "wrap"),
                    *(_mean(metrics[key]["cells"].get(act), _points) for key in described),
                    _mean(metrics["epoch_seconds"]["cells"].get(act)),
                    _mean(time["cells"].get(act), format_duration),
                    _difference(time, act, baseline=base),
                    *(_mean(metrics[key]["cells"].get(act)) for key in costs),
                    Cell("–") if correlation is None else Cell(f"{correlation:.2f}".replace("-", "−"), correlation),
                    _counted(numbers, act),
                ],
                colors.get(act, ""),
            )
        )
    return Table(columns, rows)


def _point_columns(metrics: Mapping[str, Any], keys: Sequence[str]) -> list[Column]:
    """Columns of figures in points, with what is to be known of them."""
    return [Column(metrics[key]["title"].replace(", last epoch", ""), metrics[key]["note"] or "points") for key in keys]


def _counted(numbers: Numbers, act: str) -> Cell:
    done = len(numbers["metrics"][PRIMARY]["cells"][act]["values"])
    failed, of = numbers["failed"].get(act, (0, done))
    return Cell(f"{done} of {of}" + (f", {failed} failed" if failed else ""), done)


def secondary_table(numbers: Numbers, colors: Mapping[str, str]) -> Table:
    """Differences in what was not declared primary, one candidate a row."""
    metrics, base = numbers["metrics"], numbers["baseline"]
    keys = [
        key
        for key, metric in metrics.items()
        if key not in (PRIMARY, "time", "until") and metric["comparison"] is not None
    ]
    columns = [Column("activation", text=True)]
    columns += _point_columns(metrics, keys)
    rows = [
        Row([Cell(act, act), *(_difference(metrics[key], act, baseline=base) for key in keys)], colors.get(act, ""))
        for act in numbers["acts"]
        if act != base
    ]
    return Table(columns, rows if keys else [])


def budget_table(numbers: Numbers, colors: Mapping[str, str]) -> Table:
    """mAP and its difference at equal epochs and at equal time."""
    metrics, base = numbers["metrics"], numbers["baseline"]
    epochs, until = metrics[PRIMARY], metrics["until"]
    planned = (numbers["plan"] or {}).get("budget") == "time"
    first = "planned to fit the time" if planned else "equal epochs"
    columns = [
        Column("activation", text=True),
        Column(first, "mAP50-95 of the last epoch, points"),
        Column("difference", f"{first}, {_level(epochs['comparison'])} simultaneous"),
        Column("equal time", "mAP50-95, unfinished schedule, points"),
        Column("difference", f"equal time, {_level(until['comparison'])} simultaneous"),
    ]
    rows = []
    for act in numbers["acts"]:
        cells = [Cell(act, act)]
        for metric in (epochs, until):
            cells += [_mean(metric["cells"].get(act), _points), _difference(metric, act, baseline=base)]
        rows.append(Row(cells, colors.get(act, "")))
    return Table(columns, rows)


def run_table(numbers: Numbers, colors: Mapping[str, str]) -> Table:
    """One run a row, as in runs.csv, rounded."""
    names = list(dict.fromkeys(name for run in numbers["runs"] for name in run))
    words = ("activation", "status", "reason", "time_void", "folder")
    rows = []
    for run in numbers["runs"]:
        cells = []
        for name in names:
            value = run.get(name)
            if name in words:
                cells.append(Cell(str(value or "–"), str(value or ""), "text"))
            else:
                whole = isinstance(value, int)
                cells.append(Cell("–") if value is None else Cell(str(value) if whole else f"{value:.4g}", value))
        rows.append(Row(cells, colors.get(run["activation"], "")))
    return Table([Column(name.replace("_", " "), text=name in words) for name in names], rows)


def further_table(numbers: Numbers) -> Table:
    """Seeds and hours for what is not known yet."""
    columns = [Column("to …", text=True), Column("seeds", "of each activation"), Column("seeds", "cautiously")]
    columns += [Column("hours"), Column("hours", "cautiously")]
    rows = []
    for each in numbers["further"].get("rows", ()):
        counts = [Cell("more than 1,000" if each[key] is None else str(each[key])) for key in ("seeds", "cautious")]
        times = [
            Cell("–" if each[seeds] is None else hours(each[key]))
            for seeds, key in (("seeds", "hours"), ("cautious", "cautious_hours"))
        ]
        rows.append(Row([Cell(each["to"]), *counts, *times]))
    return Table(columns, rows)


def timing_table(numbers: Numbers, colors: Mapping[str, str]) -> Table:
    """The clean timing."""
    columns = [Column("activation", text=True), Column("norm and activation", text=True)]
    columns += [Column("computed by", text=True)]
    columns += [Column("training step", "median, ms"), Column("ratio", "to the first row, 95 % simultaneous")]
    rows = [
        Row(
            [
                Cell(row["act"], row["act"]),
                Cell(row["norm_act"], row["norm_act"], "text"),
                Cell(row["implementation"] or "–", row["implementation"], "text"),
                Cell(amount(row["median_ms"]), row["median_ms"]),
                Cell(times_words(row["ratio"], (row["low"], row["high"])), row["ratio"]),
            ],
            colors.get(row["act"], ""),
        )
        for row in numbers["timing"]["rows"]
    ]
    return Table(columns, rows)


# --------------------------------------------------------------------------------------------------------------- words


def _counts(numbers: Numbers) -> str:
    seeds = len(numbers["seeds"])
    return f"{seeds} seed{'s' * (seeds != 1)}"


def subtitle(numbers: Numbers) -> str:
    """Who was compared, how often, on what."""
    others = [act for act in numbers["acts"] if act != numbers["baseline"]]
    parts = [f"{', '.join(others)} against {numbers['baseline']} (the baseline)", _counts(numbers)]
    return " · ".join([*parts, *numbers["setting"]["words"]])


def price_words(numbers: Numbers) -> str:
    """What it would take to know more, in one sentence."""
    if not numbers["further"]:
        if len(numbers["seeds"]) > 1:
            return ""
        return "the spread between seeds is unknown with one seed; three seeds give a first verdict, five a useful one."
    row = next(each for each in numbers["further"]["rows"] if each["points"] == numbers["margin"])
    if row["seeds"] is None:
        return f"to {row['to']} it would take more than 1,000 seeds of each activation."
    cautious = "more than 1,000" if row["cautious"] is None else f"{row['cautious']} cautiously"
    time = "" if row["hours"] is None else f", that is {hours(row['hours'])} on this machine"
    return f"to {row['to']} it would take about {row['seeds']} seeds of each activation ({cautious}){time}."


def further_words(numbers: Numbers) -> str:
    """The spread that seeds show and what these runs could show."""
    found = numbers["further"]
    if not found:
        return ""
    shown = ""
    if found["detectable"] is not None:
        shown = (
            f" With {_counts(numbers)} a true difference of {found['detectable']:.2f} points is found in four of five "
            "such comparisons; smaller ones are mostly missed."
        )
    once = (
        ""
        if found["hours_per_seed"] is None
        else f" One seed of all activations takes {hours(found['hours_per_seed'])}."
    )
    return f"Luck moves a single run by about {found['sigma']:.2f} points (residual sd).{shown}{once}"


def budget_words(numbers: Numbers) -> str:
    """What the two budgets are."""
    until = list(numbers["until_seconds"].values())
    if (numbers["plan"] or {}).get("budget") == "time":
        text = (
            "Here the epochs of each activation were planned so that all fit the time of the fastest: the column of "
            "the last epoch is the fair claim at equal time."
        )
    else:
        text = "Equal epochs: every activation saw the same batches."
    if not until:
        return f"{text} Equal time cannot be read off: no run has a time that counts."
    at = format_duration(math.fsum(until) / len(until))
    return (
        f"{text} Equal time: in each seed the curves are read, by linear interpolation, when the fastest run has ended "
        f"({at} on average). The slower ones are cut off before their learning rate has come down (“unfinished "
        "schedule”), which counts against them; the fair claim is a comparison planned with --budget time."
    )


def failures(numbers: Numbers) -> list[str]:
    """Each activation's failed runs, with why."""
    lines = []
    for act, (failed, of) in numbers["failed"].items():
        why = [
            f"seed {run['seed']}: {run['reason'] or 'no reason recorded'}"
            for run in numbers["runs"]
            if run["activation"] == act and run["status"] == "failed"
        ]
        lines.append(f"{failed} of {of} runs of {act} failed ({'; '.join(why)})")
    return lines


def candidates(numbers: Numbers, colors: Mapping[str, str]) -> list[dict[str, str]]:
    """What is said of each candidate: mAP, time, memory."""
    found = []
    memory = numbers["metrics"].get("memory", {"cells": {}})["cells"]
    base = memory.get(numbers["baseline"], {}).get("mean")
    for act in numbers["acts"]:
        if act == numbers["baseline"]:
            continue
        own, words = memory.get(act, {}).get("mean"), ""
        if own is not None and base:
            words = f"{amount(own)} MiB against {amount(base)} MiB (×{own / base:.2f})"
        found.append(
            {
                "name": act,
                "color": colors.get(act, "--ink"),
                "verdict": numbers["verdicts"].get(act, "no verdict"),
                "time": numbers["time_verdicts"].get(act, "no verdict"),
                "memory": words,
            }
        )
    return found


def method(numbers: Numbers) -> list[str]:
    """The method with its numbers, of mAP and of time, and what was checked."""
    lines = []
    for key, what in ((PRIMARY, "mAP50-95 of the last epoch"), ("time", "Training time")):
        comparison = numbers["metrics"][key]["comparison"]
        lines.append(f"{what}: {comparison['method'] if comparison else numbers['metrics'][key]['note']}")
    lines.append(
        f"Same within ±{numbers['margin']:g} points: the interval at twice the error rate lies inside. mAP and time "
        "are two families of statements, each with its own error rate; all else is description. The last epoch is "
        "compared, not the best one, and no run is left out for being far off."
    )
    remarks = numbers["setting"]["pairing"]
    paired = "Within each seed all activations started from the same weights and saw the same batches (checked)."
    return [line.replace("+-", "±") for line in [*lines, *(remarks or [paired])]]


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _voided(numbers: Numbers) -> list[str]:
    return [f"{each['act']}, seed {each['seed']}: {each['reason']}" for each in numbers["voided"]]


# ---------------------------------------------------------------------------------------------------------- the outputs


def render(numbers: Numbers, drawn: Mapping[str, Figure], *, colors: Mapping[str, str]) -> str:
    """The page: one file, with its style, its script and its pictures inside."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["breakable"] = breakable
    svg = {
        key: [_svg(drawn[name], name, paired=len(names) > 1 and names[1] in drawn) for name in names if name in drawn]
        for key, names in PICTURES.items()
    }
    larger = numbers["larger"]
    failed = failures(numbers)
    return environment.get_template("page.html").render(
        title="Which activation should this detector use?",
        subtitle=subtitle(numbers),
        failed=failed,
        failed_title="Runs that failed" if failed else "Runs that have not ended",
        unfinished=[f"{name}: not finished, not counted" for name in numbers["unfinished"]],
        advice=numbers["advice"],
        exploratory="; ".join(numbers["exploratory"]),
        headline=_sentence([numbers["headline"]]),
        candidates=candidates(numbers, colors),
        price=price_words(numbers),
        no_picture=numbers["metrics"][PRIMARY]["note"]
        or "no candidate has a completed run to set against the baseline",
        svg=svg,
        main_table=main_table(numbers, colors),
        notes=_notes(numbers),
        secondary=secondary_table(numbers, colors),
        budget_words=budget_words(numbers),
        budgets=budget_table(numbers, colors),
        voided=_voided(numbers),
        timing=timing_table(numbers, colors),
        timing_words=numbers["timing"]["words"],
        further=further_table(numbers),
        further_words=further_words(numbers),
        larger=larger and {"reasons": _sentence(larger["exploratory"]), "lines": [*larger["verdicts"].values()]},
        method=method(numbers),
        differed=[(name, "; ".join(each)) for name, each in numbers["setting"]["differs"].items()],
        same=[(name, str(value)) for name, value in numbers["setting"]["same"].items()],
        plan=numbers["plan_words"],
        run_table=run_table(numbers, colors),
    )


def breakable(label: str) -> Markup:
    """A label, escaped, that may be broken behind its commas, brackets and equals signs."""
    return Markup("").join(escape(letter) + Markup("<wbr>" if letter in ",(=" else "") for letter in label)


def _svg(figure: Figure, name: str, *, paired: bool) -> Markup:
    """A picture for the page; of a pair, one for wide and one for narrow windows."""
    title = figure.get_suptitle().replace("\n", " ").replace(r"\$", "$")
    kind = "wide" if name.endswith("_wide") else "narrow paired" if paired else "narrow"
    return Markup(inline_svg(figure, name, words=title).replace("<svg ", f'<svg class="{kind}" ', 1))


def _notes(numbers: Numbers) -> list[str]:
    metrics = numbers["metrics"]

    def there(key: str) -> bool:
        return any(cells["mean"] is not None for cells in metrics.get(key, {"cells": {}})["cells"].values())

    return [text for key, text in (("best", BEST), ("memory", MEMORY), ("latency", LATENCY)) if there(key)] + [
        CORRELATION
    ]


def terminal(numbers: Numbers, path: Path) -> str:
    """What the terminal shows: the verdict first, then a table, then what it would take to know more."""
    lines = [f"FAILED: {line}" for line in failures(numbers)]
    lines += [f"not finished, not counted: {name}" for name in numbers["unfinished"]]
    if numbers["exploratory"]:
        lines.append(f"EXPLORATORY: {'; '.join(numbers['exploratory'])}")
    lines += [*numbers["advice"], ""]
    lines += [f"  {verdict}" for verdict in numbers["verdicts"].values()]
    lines += [f"  {verdict}" for verdict in numbers["time_verdicts"].values()]
    lines += ["", *_terminal_table(numbers), ""]
    lines += [f"time does not count: {line}" for line in _voided(numbers)]
    price = price_words(numbers)
    lines += [f"to know more: {price}"] if price else []
    if numbers["larger"]:
        lines.append(f"EXPLORATORY, with {'; '.join(numbers['larger']['exploratory'])}:")
        lines += [f"  {verdict}" for verdict in numbers["larger"]["verdicts"].values()]
    return "\n".join([*lines, f"report: {path}"])


def _terminal_table(numbers: Numbers) -> list[str]:
    """The figures that matter most, aligned."""
    metrics, base = numbers["metrics"], numbers["baseline"]
    primary, time = metrics[PRIMARY], metrics["time"]
    level = _level(primary["comparison"])
    head = ["activation", "mAP50-95", f"difference [{level}]", "s/epoch", f"time [{_level(time['comparison'])}]"]
    costs = [key for key in ("images_per_s", "memory", "latency") if key in metrics]
    costs = [key for key in costs if any(cell["mean"] is not None for cell in metrics[key]["cells"].values())]
    rows = [head + [metrics[key]["unit"] for key in costs]]
    for act in numbers["acts"]:
        cells = [
            Cell(act),
            _mean(primary["cells"].get(act), _points),
            _difference(primary, act, baseline=base),
            _mean(metrics["epoch_seconds"]["cells"].get(act)),
            _difference(time, act, baseline=base),
            *(_mean(metrics[key]["cells"].get(act)) for key in costs),
        ]
        rows.append([cell.text for cell in cells])
    widths = [max(len(row[k]) for row in rows) for k in range(len(head) + len(costs))]
    return [
        "  ".join(
            text.ljust(width) if k == 0 else text.rjust(width)
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
