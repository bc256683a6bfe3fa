"""Why a result is exploratory, why a run does not count or is excluded from timing."""

from collections.abc import Sequence
from typing import Literal

from comparison.summary import (
    Insensitivity,
)
from comparison.wording.numbers import count, join


def no_plan() -> str:
    """Why runs without a plan are exploratory."""
    return "no plan was written before the runs"


def other_baseline(baseline: str, planned: str) -> str:
    """Why a report against another baseline is exploratory."""
    return f"the baseline is {baseline}, but the plan's is {planned}"


def seeds_missing(complete: int, planned: int) -> str:
    """Why an incomplete comparison is exploratory."""
    return f"{complete} of the {planned} planned seeds are complete, and no interim analysis is planned here"


def beyond_plan(seeds: int, runs: Sequence[tuple[str, int]]) -> str:
    """Why an analysis of more runs than planned is exploratory."""
    by_act: dict[str, list[int]] = {}
    for act, seed in runs:
        by_act.setdefault(act, []).append(seed)
    listed = "; ".join(f"{act} {', '.join(map(str, sorted(each)))}" for act, each in by_act.items())
    return f"runs beyond the planned analysis after {count(seeds, 'seed')}: {listed}"


def not_named(runs: Sequence[str]) -> str:
    """Why runs that were not started by this plan are exploratory."""
    return f"{join(runs)} {'does' if len(runs) == 1 else 'do'} not name this plan, which was written or changed later"


def older_than_plan(runs: Sequence[str]) -> str:
    """Why runs from before the plan are exploratory."""
    return f"the plan was written after {join(runs)} had started"


def unlike_plan(run: str, key: str, found: object, planned: object) -> str:
    """Why a run with other settings than the plan's is exploratory."""
    return f"{run}: {key} is {found}, but the plan says {planned}"


def unsealed(runs: Sequence[str]) -> str:
    """Why runs without a seal are exploratory."""
    return f"{join(runs)}: no seal, so changes after the end of the run cannot be detected"


def stopped_early(run: str, epochs: int, of: int) -> str:
    """Why a run that train.patience has stopped is exploratory."""
    return f"{run} stopped after {epochs} of {of} epochs (train.patience)"


def trained_again(runs: Sequence[str]) -> str:
    """Runs that the journal has as started anew after they had finished, or after their folder had been removed."""
    return f"{join(runs)}: trained again after {'it' if len(runs) == 1 else 'they'} had finished or had been removed"


def failures_removed(runs: Sequence[str]) -> str:
    """Runs whose folders have fewer failures than the journal."""
    return f"{join(runs)}: a failed attempt is missing from the run folder{'' if len(runs) == 1 else 's'}"


def not_as_noted(runs: Sequence[str]) -> str:
    """Runs whose folders are not what the journal noted at their end."""
    one = len(runs) == 1
    return (
        f"{join(runs)}: the journal of the comparison has no such end of {'this run' if one else 'these runs'}, so "
        f"{'it was' if one else 'they were'} removed, replaced or edited, or ended after the comparison was killed "
        "(then rerun its command)"
    )


def journal_edited() -> str:
    """That lines of the journal were edited or removed."""
    return "journal.jsonl was edited: its lines do not follow one another"


def timing_changed() -> str:
    """That the isolated timing is not the one that was measured last."""
    return "timing.json was removed or replaced after it was measured"


def of_tuning(reason: str) -> str:
    """A reason that is about the runs of the tuning."""
    return f"tuning: {reason}"


def tuning_removed() -> str:
    """That a tuned comparison has lost the runs of its tuning."""
    return "the runs of the tuning were removed"


def other_scores(runs: Sequence[str]) -> str:
    """The runs of the tuning whose scores are not those from which the plan has chosen."""
    return f"tuning: the scores of {join(runs)} are not those of the plan"


def not_in_plan(runs: Sequence[str]) -> str:
    """The finished runs of a folder that its plan does not name."""
    return (
        f"not in the plan and not included: {count(len(runs), 'finished run')} of this folder ({', '.join(runs)}); "
        "--report shows all of them"
    )


def waited_for_data(fraction: float) -> str:
    """Why a run that waited for data is excluded from timing."""
    return f"waited for data {100 * fraction:.0f} % of its step time"


def busy_machine(mean: float, most: float) -> str:
    """Why a run beside other processes is excluded from timing."""
    return f"other processes used {mean:.2f} of a core on average, {most:.2f} in one epoch"


def load_unknown() -> str:
    """Why a run is excluded from timing if the load by other processes is not recorded for every epoch."""
    return "the load by other processes was not recorded"


def not_timed() -> str:
    """Why a run without a timed step is excluded from timing."""
    return "no training step was timed (0 s)"


def no_primary() -> str:
    """Why a finished run counts as failed."""
    return "finished without mAP50-95 in its last epoch"


def insensitivity(found: Insensitivity | None, baseline: str, margin: float) -> str:
    """Why neither equivalence nor non-inferiority can be shown; empty if they can."""
    if found is None:
        return ""
    if found.reason == "floor":
        return (
            f"nothing was learned yet (mean mAP of {baseline} {found.mean:.2f} points, less than 10 times the margin "
            f"of {margin:g})"
        )
    if found.reason == "rising":
        return (
            f"training is unfinished (mean mAP of {baseline} {found.mean:.1f} points and still rising steeply: as many "
            f"epochs again would add {found.rise or 0:.1f} points at the final rate)"
        )
    return f"there is no room for a difference (mean mAP of {baseline} {found.mean:.1f} points)"


def remedy(reason: Literal["floor", "rising", "ceiling"]) -> str:
    """What would make a comparison sensitive."""
    return {
        "floor": "Train longer, or on easier data, before choosing.",
        "rising": "A longer training may change the result.",
        "ceiling": "Harder data may show one.",
    }[reason]


def resumed(times: int, fraction: float) -> str:
    """Why a run that was interrupted often is excluded from timing."""
    return (
        f"resumed {times} time{'s' * (times != 1)}; the first steps after each start are not timed, which are "
        f"{100 * fraction:.1f} % of its steps"
    )
