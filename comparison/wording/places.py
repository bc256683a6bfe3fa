"""What the activations have and cost where they run after export."""

from collections.abc import Sequence

from comparison.statistics import Difference
from comparison.summary import POINTS, Kind, Outcome, Place, Summary
from comparison.wording.numbers import count, ends, join, level, signed, time_ratio

KIND_WORDS: dict[Kind, str] = {
    "higher": "significantly higher mAP",
    "lower": "significantly lower mAP",
    "higher-within-margin": "mAP higher by less than the margin",
    "lower-within-margin": "mAP lower by less than the margin",
    "equivalent": "equivalent in mAP",
    "non-inferior": "non-inferior in mAP",
    "inconclusive": "mAP inconclusive",
}


def answers(places: Sequence[Place], outcome: Outcome) -> tuple[str, ...]:
    """A sentence for each runtime: verdict, latency and the loss in int8 of each candidate; none if exploratory."""
    if outcome.exploratory:
        return ()
    sentences = []
    for runtime in dict.fromkeys(place.runtime for place in places):
        here = [place for place in places if place.runtime == runtime]
        parts = [f"{act}: {', '.join(_of_candidate(act, here, outcome))}" for act in outcome.candidates]
        threads = count(here[0].threads, "thread") if here[0].threads else "latency not measured"
        sentences.append(f"In {here[0].name} ({threads}), compared with {outcome.baseline}: {'; '.join(parts)}.")
    return tuple(sentences)


def _of_candidate(act: str, places: Sequence[Place], outcome: Outcome) -> list[str]:
    parts = [KIND_WORDS[kind]] if (kind := outcome.verdicts[act].kind) in KIND_WORDS else []
    for place in places:
        what = f"{place.precision} latency" if len(places) > 1 else "latency"
        ratio = place.latency.difference(act)
        parts += [f"{what} {time_ratio(ratio)}"] if ratio is not None else []
        loss = place.loss.difference(act) if place.loss else None
        parts += [_loss(loss, place)] if loss is not None else []
    return parts or ["not measured"]


def _loss(difference: Difference, place: Place) -> str:
    """As in: loses 0.40 points less in int8 (+0.10 to +0.70), where its mAP is +1.20 points (+0.90 to +1.50)."""
    more = "more" if difference.estimate < 0 else "less"
    sure = "no interval"
    if difference.interval is not None:
        low, high = difference.interval
        sure = ends(difference.interval) + ("" if low > 0 or high < 0 else ", inconclusive")
    lost = f"loses {abs(difference.estimate):.2f} points {more} in {place.precision} ({sure})"
    left = place.score.difference(difference.name)
    return lost if left is None else f"{lost}, where its mAP is {_own(left)} points"


def notes(summary: Summary) -> list[str]:
    """How the numbers after export came about, what they hold for, and what is missing."""
    places, outcome = summary.places, summary.planned
    if not places:
        return []
    threads = sorted({place.threads for place in places if place.threads})
    lines = [
        "The weights of the last epoch of every run, exported with export.py's defaults, each file compared with "
        "PyTorch and scored by the evaluator of val.py. Every image is padded to the square size of the file, so the "
        "mAP may differ from that of the runs. int8: quantised after training, calibrated on training images. These "
        "numbers were not declared in the plan: descriptive.",
        f"Latency: {join([count(each, 'thread') for each in threads]) or 'not measured'}, batch 1, without NMS; the "
        "median over rounds of each file, all files of a runtime interleaved in random order in one process. Ratios "
        f"are those of geometric means over seeds, with simultaneous {level(outcome.alpha)} intervals. Peak memory: "
        "what loading and running a file adds to a fresh process.",
    ]
    loads = {f"{place.name}: {place.load}": None for place in places}
    lines.append(" ".join(loads))
    for place in places:
        if place.losses:
            listed = "; ".join(f"{act} {_own(each)}" for act, each in place.losses.items())
            lines.append(
                f"{place.precision} minus fp32 in {place.name}, {POINTS} (paired by seed, simultaneous by Bonferroni): "
                f"{listed}."
            )
        lines += [f"Not measured in {place.name}, {place.precision}: {each}." for each in place.missing]
    return lines


def _own(difference: Difference) -> str:
    interval = "" if difference.interval is None else f" ({ends(difference.interval)})"
    return f"{signed(difference.estimate)}{interval}"


def title(places: Sequence[Place], outcome: Outcome) -> str:
    """The title of the figure: mAP against latency."""
    start = "Exploratory: mAP" if outcome.exploratory else "mAP"
    return f"{start} against latency after export, {count(len(outcome.seeds), 'seed')}"
