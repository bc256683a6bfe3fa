"""Render the summary of a comparison: tables, CSV files, the page and the text for the terminal.

The template escapes everything, and the page loads nothing.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from comparison import wording
from comparison.causes import ERROR_KINDS
from comparison.figure_style import Palette, inline_svg
from comparison.place_views import place_table
from comparison.search_views import search_table
from comparison.summary import (
    Field,
    Outcome,
    Summary,
)
from comparison.tables import (
    ARM,
    Column,
    budget_table,
    build,
    cause_tables,
    difference_of,
    failure_table,
    main_table,
    mean_of,
    points,
    required_table,
    run_table,
    secondary_table,
    timing_table,
    tuning_table,
)
from core.templates import templates

PICTURES = {
    "answer": ("answer", "answer_wide"), "curves": ("curves", "curves_wide"), "runs": ("runs",), "times": ("times",),
    "timing": ("timing",), "places": ("places",), "tuning": ("tuning",), "tradeoff": ("tradeoff",),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ the page


def page(summary: Summary, drawn: Mapping[str, Figure], palette: Palette) -> str:
    """The page: one file with its style, script and pictures."""
    environment = templates(Path(__file__).parent)
    environment.filters["breakable"] = breakable
    outcome, metrics, images = summary.planned, summary.planned.metrics, summary.image_sampling
    svg = {
        key: [_svg(drawn[name], name, paired=len(names) > 1 and names[1] in drawn) for name in names if name in drawn]
        for key, names in PICTURES.items()
    }
    return environment.get_template("page.html").render(
        summary=summary,
        outcome=outcome,
        text=wording.page.page_text(summary.noun),
        noun=summary.noun,
        subtitle=wording.captions.subtitle(summary),
        failed=wording.captions.failures(summary),
        pairs=wording.verdicts.pair_lines(outcome),
        failure_table=failure_table(outcome, palette),
        exploratory="; ".join(outcome.exploratory),
        candidates=[
            (act, palette.variable(act), _memory(outcome, act), wording.verdicts.image_effect(images, act, outcome))
            for act in outcome.candidates
        ],
        required=wording.recommendations.required_seeds(summary),
        no_picture=outcome.primary.note or wording.page.PAGE["no_candidate"],
        svg=svg,
        limits=wording.captions.limits(summary),
        causes=cause_tables(summary),
        energy_measured=any(metric.key == "energy" for metrics in summary.causes.values() for metric in metrics),
        cause_words=wording.verdicts.causes(outcome, summary.causes.get(ERROR_KINDS, ())),
        main_table=main_table(summary, palette),
        notes=[note for key, note in wording.page.NOTES.items() if key not in metrics or metrics[key].measured],
        secondary=secondary_table(outcome, palette),
        runs_caption=wording.captions.runs(summary.setting),
        budget_words=wording.captions.budgets(summary),
        budgets=budget_table(summary, palette),
        timing=timing_table(summary, palette),
        places=place_table(summary, palette),
        place_words=wording.places.notes(summary),
        tuning=tuning_table(summary.tuning, palette),
        search=search_table(summary.search),
        required_table=required_table(summary),
        variation=wording.recommendations.variation(summary),
        larger=summary.larger
        and {"why": "; ".join(summary.larger.exploratory), "lines": verdict_lines(summary.larger)},
        method=[*wording.captions.method(outcome, summary.setting), *wording.captions.image_sampling(images)],
        run_table=run_table(summary, palette),
    )


def _memory(outcome: Outcome, act: str) -> str:
    memory, baseline = outcome.metrics["memory"].mean(act), outcome.metrics["memory"].mean(outcome.baseline)
    return wording.captions.memory(memory, baseline) if memory is not None and baseline else ""


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
    lines = [f"{act}: {verdict.text}" for act, verdict in outcome.verdicts.items()]
    return lines + [f"{act}: {outcome.cost.title} {verdict.text}" for act, verdict in outcome.time_verdicts.items()]


def terminal(summary: Summary, path: Path) -> str:
    """The recommendation, the verdicts, a table, and what further seeds would show."""
    outcome = summary.planned
    lines = [f"WARNING: {line}" for line in summary.setting.pairing]
    lines += [f"FAILED: {line}" for line in wording.captions.failures(summary)]
    lines += [f"{wording.page.PAGE['unfinished']}: {name}" for name in outcome.unfinished]
    if outcome.exploratory:
        lines.append(f"EXPLORATORY: {'; '.join(outcome.exploratory)}")
    lines += [*summary.recommendation, "", *(f"  {line}" for line in verdict_lines(outcome))]
    lines += [
        f"  {act}: {wording.verdicts.image_effect(summary.image_sampling, act, outcome)}" for act in outcome.candidates
    ]
    lines += [f"  {line}" for line in [*wording.verdicts.pair_lines(outcome), *outcome.remarks]]
    lines += ["", *_terminal_table(outcome), ""]
    lines += [f"excluded from timing: {each.act}, seed {each.seed}: {each.reason}" for each in outcome.excluded]
    if summary.tuning is not None:
        lines += [*summary.tuning.words, *(f"  {line}" for line in summary.tuning.common_verdicts)]
    if summary.search is not None:
        lines += summary.search.words
    if required := wording.recommendations.required_seeds(summary):
        lines.append(f"required seeds: {required}")
    if summary.larger:
        lines.append(f"EXPLORATORY, including {'; '.join(summary.larger.exploratory)}:")
        lines += [f"  {line}" for line in verdict_lines(summary.larger)]
    return "\n".join([*lines, f"report: {path}"])


def _terminal_table(outcome: Outcome) -> list[str]:
    """The most important metrics, aligned."""
    primary, time, metrics = outcome.primary, outcome.time, outcome.metrics
    levels = [
        f" [{wording.numbers.level(each.comparison.alpha)}]" if each.comparison else "" for each in (primary, time)
    ]
    columns = [
        ARM,
        (Column("mAP50-95"), mean_of(primary, points)),
        (Column(f"difference{levels[0]}"), difference_of(primary, outcome)),
        (Column("s/epoch"), mean_of(metrics["epoch_seconds"])),
        (Column(f"time{levels[1]}"), difference_of(time, outcome)),
    ]
    costs = [metrics[key] for key in ("images_per_s", "memory", "latency") if metrics[key].measured]
    table = build(outcome.acts, columns + [(Column(metric.unit), mean_of(metric)) for metric in costs])
    lines = [[column.title for column in table.columns], *([cell.text for cell in row.cells] for row in table.rows)]
    first, *widths = [max(map(len, texts)) for texts in zip(*lines, strict=True)]
    return ["  ".join([line[0].ljust(first), *map(str.rjust, line[1:], widths)]) for line in lines]


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
