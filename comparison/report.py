"""The report of a comparison: read runs, check them, analyse, summarise, render.

A report is report.html, report.json (the dump of the summary), table.csv, runs.csv, pictures/*.png and the text for the
terminal.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from comparison import search, wording
from comparison.analysis import analyse, concluded, with_isolated_time
from comparison.bound import unlike
from comparison.causes import find_causes
from comparison.choices import Tuning, TuningCurve, TuningSummary
from comparison.deployment import read_places
from comparison.evaluation import evaluate_all
from comparison.fingerprint import deviations, pairing, run_settings, unpaired
from comparison.image_bootstrap import sample_images
from comparison.integrity import admit, check_runs, doubts, not_in_plan
from comparison.plan import Plan, read_plan
from comparison.power import minimal_detectable, seeds_for_equivalence, seeds_needed, sigma_upper
from comparison.run_metrics import TIME_COLUMNS, learning_curve, total
from comparison.runs import Run, read_runs
from comparison.summary import (
    FORMAT,
    Field,
    Outcome,
    Place,
    RequiredSeeds,
    Requirement,
    Setting,
    Summary,
    Timing,
    to_json,
)
from comparison.tasks import are_tasks, report_tasks
from comparison.timing_record import TIMING, read_timing
from comparison.tuning import FOLDER, check_common, common_folder, mean_score, unconfirmed
from core.commands import command, near
from core.files import write_text

PAGE = "report.html"


def report(folders: Sequence[Path], output: Path, *, baseline: str | None = None, allow: Sequence[str] = ()) -> str:
    """Report on finished runs; returns the text for the terminal.

    The report of one comparison, which has a plan, is written into its own folder, any other into ``output`` (numbered
    if it exists), and so is that of several comparisons on different data (``comparison.tasks``). Without a plan, every
    run must have ended. The first activation is the default baseline.
    """
    if are_tasks(folders) and baseline is None and not allow:
        return report_tasks(folders, _unused(output))
    plan = read_plan(folders[0]) if len(folders) == 1 else None
    runs = read_runs(folders)
    if plan is not None:
        runs = plan.as_compared(runs)
        if baseline in (None, plan.baseline):
            return write_report(folders[0], runs, plan=plan, allow=allow)
    for run in runs:
        if run.status == "unfinished":
            resume = command("train.py", "--resume", near(run.folder / "weights" / "last.pt"))
            raise ValueError(f"{run.folder}: the run is not finished; resume it with {resume}, or leave it out")
    labels = list(dict.fromkeys(run.act for run in runs))
    if baseline is not None and baseline not in labels:
        raise ValueError(f"--baseline: found {baseline}, expected one of {', '.join(labels)}")
    runs.sort(key=lambda run: (run.act != (baseline or labels[0]), labels.index(run.act), run.seed))
    return write_report(_unused(output), runs, plan=plan, baseline=baseline, allow=allow)


def _unused(output: Path) -> Path:
    """The folder, numbered if it exists."""
    numbered = (output.with_name(f"{output.name}{number}") for number in itertools.count(2))
    return next(each for each in itertools.chain([output], numbered) if not each.exists())


def write_report(
    folder: Path, runs: Sequence[Run], *, plan: Plan | None, baseline: str | None = None, allow: Sequence[str] = ()
) -> str:
    """Check, analyse and summarise these runs and write their report into ``folder``; returns the terminal's text.

    ValueError before anything is written if the runs cannot be compared. Runs that are stratified (``allow``) are no
    longer those of the plan.
    """
    try:
        runs, remarks = admit(runs, plan, allow=allow)
    except ValueError as error:
        if (page := folder / PAGE).is_file():
            raise ValueError(f"{error}; {page} is of an earlier state and no longer holds") from error
        raise
    if remarks:
        plan = None
    elif plan is not None and (extra := not_in_plan(runs, folder)):
        remarks.append(wording.reasons.not_in_plan(extra))
    chosen = () if plan is None else (*_tuning_doubts(plan, folder), *_search_doubts(plan, folder))
    doubtful = (*doubts(runs, plan), *chosen)
    planned, larger = analyse(runs, plan, baseline=baseline, doubts=doubtful)
    tuning, timing = None if plan is None else _tuning(plan, runs, folder), read_timing(folder / TIMING, runs)
    planned = with_isolated_time(planned, timing)
    places = () if plan is None else read_places(folder, runs, planned, split=plan.split)
    summary = summarise(planned, larger, runs, plan, timing=timing, tuning=tuning, places=places)

    # matplotlib and jinja2 are slow to import, and refusals do without them
    from comparison import figures, render
    from comparison.figure_style import Palette, save_figures

    folder.mkdir(parents=True, exist_ok=True)
    palette = Palette([*planned.acts, *(row.act for row in summary.timing.rows)], baseline=planned.baseline)
    drawn = figures.draw(summary, palette)
    save_figures(drawn, folder / "pictures")
    write_text(folder / "report.json", to_json(summary))
    write_text(folder / "table.csv", render.to_csv(render.table_rows(planned, summary.runs)))
    write_text(folder / "runs.csv", render.to_csv(summary.runs))
    write_text(folder / PAGE, render.page(summary, drawn, palette))
    return "\n".join([*remarks, render.terminal(summary, folder / PAGE)])


def summarise(
    planned: Outcome,
    larger: Outcome | None,
    runs: Sequence[Run],
    plan: Plan | None,
    *,
    timing: Timing,
    tuning: TuningSummary | None = None,
    places: tuple[Place, ...] = (),
) -> Summary:
    """The summary of analysed runs."""
    is_control = plan is not None and plan.aa
    runs = [concluded(run) for run in runs]
    evaluations, split = evaluate_all(runs), plan.split if plan else "val"
    answer = wording.recommendations.control(planned) if is_control else wording.recommendations.recommendation(planned)
    return Summary(
        format=FORMAT,
        planned=planned,
        larger=larger,
        recommendation=(answer[0], *wording.places.answers(places, planned), *answer[1:]),
        required_seeds=_required_seeds(planned),
        runs=tuple(_run_row(run, planned) for run in runs),
        curves=tuple(learning_curve(run) for run in runs if run.status == "finished"),
        setting=_setting(runs),
        plan=None if plan is None else plan.to_json(),
        plan_words=wording.plans.plan_record(plan),
        timing=timing,
        image_sampling=sample_images(planned, runs, evaluations, split=split),
        causes=find_causes(planned, runs, evaluations, target=plan.target if plan else None),
        tuning=tuning,
        search=None if plan is None or plan.search is None else search.summary_of(plan.search),
        places=places,
    )


def _tuning(plan: Plan, runs: Sequence[Run], folder: Path) -> TuningSummary | None:
    """The tuning of a plan, and the verdicts of the comparison at the common value, if it was made."""
    tuned = plan.tuning
    if tuned is None:
        return None
    place, verdicts = common_folder(plan, folder), []
    second = None if place is None else read_plan(place)
    if place is not None and second is not None and any(place.glob("*/run.json")):
        others = second.as_compared(read_runs([place]))
        check_common(plan, runs, second, others, place)
        outcome, _ = analyse(admit(others, second)[0], second, doubts=doubts(others, second))
        verdicts = [f"{act}: {verdict.text}" for act, verdict in outcome.verdicts.items()]
    curves = tuple(_tuning_curve(tuned, act) for act in tuned.chosen)
    return TuningSummary(
        key=tuned.key,
        values=tuned.values,
        common=tuned.common,
        curves=curves,
        words=(*wording.captions.tuning(tuned, curves, compared=bool(verdicts)), *_evidence(plan, folder / FOLDER)),
        common_verdicts=tuple(verdicts),
    )


def _tuning_runs(folder: Path) -> tuple[Plan, list[Run]] | None:
    """The plan and the runs of a tuning in this folder. ValueError if a run was changed after its end."""
    steps = read_plan(folder)
    if steps is None or not any(folder.glob("*/run.json")):
        return None
    runs = read_runs([folder])
    check_runs(runs)
    return steps, runs


def _evidence(plan: Plan, folder: Path) -> tuple[str, ...]:
    """What the runs of the tuning do not confirm."""
    found = _tuning_runs(folder)
    if found is None:
        return (wording.captions.tuning_unconfirmed(None),)
    unlike = unconfirmed(plan, *found)
    return (wording.captions.tuning_unconfirmed(unlike),) if any(unlike) else ()


def _tuning_doubts(plan: Plan, folder: Path) -> tuple[str, ...]:
    """Why the tuning of a plan is not the one that its runs show."""
    if plan.tuning is None:
        return ()
    found = _tuning_runs(folder / FOLDER)
    if found is None:
        return (wording.reasons.tuning_removed(),) if plan.journaled else ()
    _, other = unconfirmed(plan, *found)
    reasons = [wording.reasons.other_scores(other)] if other else []
    return (*map(wording.reasons.of_tuning, doubts(found[1], found[0])), *reasons)


def _search_doubts(plan: Plan, folder: Path) -> Iterator[str]:
    """Why the search of a plan is not the one that its runs show."""
    if plan.search is None:
        return
    place, said = folder / search.FOLDER, wording.searches
    rounds = list(search.read_rounds(plan.search, place))
    for steps, runs in rounds:
        if steps is not None:
            yield from map(said.of_search, doubts(runs, steps))
    missing, other = search.unconfirmed(plan.search, [run for _, runs in rounds for run in runs])
    if missing:
        yield said.missing(missing)
    if other:
        yield said.other_scores(other)
    if search.other_choice(plan.search):
        yield said.other_choice()
    bound = plan.search.bound
    if bound is not None and (ratios := unlike(bound, place)):
        yield said.other_ratios(ratios)


def _tuning_curve(tuned: Tuning, act: str) -> TuningCurve:
    scores, place = tuned.scores[act], tuned.values.index(tuned.chosen[act])
    numbers = [value for value in tuned.values if isinstance(value, int | float) and not isinstance(value, bool)]
    means = [mean_score(row) for row in scores]
    return TuningCurve(
        act=act,
        means=tuple(None if mean is None else 100 * mean for mean in means),
        runs=tuple(tuple(None if score is None else 100 * score for score in row) for row in scores),
        chosen=place,
        at_edge=len(numbers) == len(tuned.values) and tuned.values[place] in (min(numbers), max(numbers)),
    )


def _required_seeds(outcome: Outcome) -> RequiredSeeds | None:
    """Seeds and hours for several differences and for equivalence; None without an estimate of the variance."""
    comparison = outcome.primary.comparison
    if comparison is None or not comparison.sigma or comparison.degrees < 1:
        return None
    widest = max(comparison.differences.values(), key=lambda each: each.sigma or 0.0)
    sigma, candidates, alpha = widest.sigma or comparison.sigma, comparison.candidates, outcome.alpha
    upper = sigma_upper(sigma, comparison.degrees if sigma <= comparison.sigma * (1 + 1e-9) else widest.pairs - 1)
    means = [outcome.metrics["wall_hours"].mean(act) for act in outcome.acts]
    hours = None if None in means else sum(mean for mean in means if mean is not None)

    def requirement(points: float, *, equivalence: bool) -> Requirement:
        needed = seeds_for_equivalence if equivalence else seeds_needed
        seeds, conservative = (needed(points, sigma=sd, candidates=candidates, alpha=alpha) for sd in (sigma, upper))
        return Requirement(
            goal="equivalence" if equivalence else "difference",
            points=points,
            seeds=seeds,
            seeds_conservative=conservative,
            hours=None if hours is None or seeds is None else seeds * hours,
            hours_conservative=None if hours is None or conservative is None else conservative * hours,
        )

    count = len(outcome.seeds)
    return RequiredSeeds(
        sigma=sigma,
        sigma_upper=upper,
        detectable=None
        if count < 2
        else minimal_detectable(sigma=sigma, seeds=count, candidates=candidates, alpha=alpha),
        hours_per_seed=hours,
        rows=(
            *(requirement(points, equivalence=False) for points in sorted({outcome.margin, 0.5, 1.0, 2.0})),
            requirement(outcome.margin, equivalence=True),
        ),
    )


def _run_row(run: Run, outcome: Outcome) -> dict[str, Field]:
    """The row of a run in runs.csv: how it ended and all its metrics."""
    reasons = {(each.act, each.seed): each.reason for each in outcome.excluded}
    row: dict[str, Field] = {
        "activation": run.act,
        "seed": run.seed,
        "status": run.status,
        "reason": run.reason,
        "time_excluded": reasons.get((run.act, run.seed), ""),
        "diverged": int(run.diverged),
        "earlier_failures": "; ".join(run.earlier_failures),
        "attempts": 1 + len(run.earlier_failures),
        "epochs": len(run.rows),
        "folder": run.folder.name,
    }
    for metric in outcome.metrics.values():
        values = metric.arms[run.act].values if run.act in metric.arms and run.status == "finished" else {}
        row[f"{metric.key.removeprefix('metrics/')} ({metric.unit})"] = values.get(run.seed)
    row["equal_time (s)"] = outcome.until_seconds.get(run.seed)
    return row | {column: total(run, column) for column in TIME_COLUMNS}


def _setting(runs: Sequence[Run]) -> Setting:
    """What all runs share, keys of the fingerprint with their values, where they differ, and the pairing."""
    differing = deviations(runs)
    same = {key: value for run in runs for key, value in run_settings(run).items() if key not in differing}
    return Setting(
        words=wording.captions.setting(same),
        same=dict(sorted(same.items())),
        differs={
            key: tuple(f"{value}: {', '.join(run.folder.name for run in holders)}" for value, holders in values.items())
            for key, values in differing.items()
        },
        pairing=tuple(pairing(runs)),
        unpaired=unpaired(runs),
    )
