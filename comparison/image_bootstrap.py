"""Bootstrap over the scored images: how far a difference in mAP depends on which images were drawn.

Images are drawn with replacement, the same ones for all runs, so that the difference is paired. The matches of each
run are found once; a resample weights them by how often it holds their image, which gives exactly the mAP of a data set
in which images are repeated. (The bootstrap of ``hotcoco.compare`` counts a repeated image once, as of 1.3.0, which
makes the standard deviation a fifth too small.)
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from comparison.evaluation import ClassMatches, Evaluation
from comparison.runs import Run
from comparison.statistics import Difference
from comparison.summary import ImageEffect, ImageSampling, Outcome, RunKey

RESAMPLES = 1000
SEED = 15
BLOCK = 2000  # columns of the largest temporary array


def draw_images(images: int, *, resamples: int = RESAMPLES, seed: int = SEED) -> NDArray[np.float32]:
    """How often each resample holds each image: (resamples, images), rows sum to `images`."""
    random = np.random.default_rng(seed)
    return random.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float32)


def resampled_map(evaluation: Evaluation, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """mAP50-95 in points of each resample, (resamples,): the mean over the classes with objects in it."""
    by_class = [_resampled_ap(each, weights, evaluation.recalls) for each in evaluation.classes]
    table = np.array([ap for ap in by_class if np.isfinite(ap).any()])
    if not len(table):
        return np.full(len(weights), math.nan)
    known = np.isfinite(table)
    total = np.where(known, table, 0).sum(axis=0)
    return 100 * np.divide(total, known.sum(axis=0), out=np.full(len(weights), math.nan), where=known.any(axis=0))


def _resampled_ap(
    matches: ClassMatches, weights: NDArray[np.float32], recalls: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AP of a class, averaged over IoU thresholds, in each resample; NaN without objects."""
    objects = (weights @ matches.objects.astype(np.float32)).astype(np.float64)
    hits = np.flatnonzero(matches.hit.any(axis=0))
    if not matches.objects.any():
        return np.full(len(weights), math.nan)
    if not len(hits):
        return np.where(objects > 0, 0.0, math.nan)
    seen = _weight_before(matches.image, np.ones(len(matches.image), bool), hits, weights)
    total = np.zeros(len(weights))
    for hit, ignored in zip(matches.hit, matches.ignored, strict=True):
        here = hit[hits]
        counted = seen[:, here]
        if ignored.any():
            counted = counted - _weight_before(matches.image, ignored, hits[here], weights)
        found = weights[:, matches.image[hits[here]]].cumsum(axis=1)
        precision = np.divide(found, counted, out=np.zeros(found.shape), where=counted > 0)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = np.divide(found, objects[:, None], out=np.zeros(found.shape), where=objects[:, None] > 0)
        reached = np.searchsorted(recalls, recall, side="right")  # recall thresholds up to each hit
        reached[recall == 0] = 0
        total += (precision * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(recalls)
    return np.where(objects > 0, total / len(matches.hit), math.nan)


def _weight_before(
    image: NDArray[np.int64], chosen: NDArray[np.bool_], hits: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The weight of the `chosen` detections up to and including each of `hits`: (resamples, hits).

    A product of the weights with the number of detections of each image, in blocks of columns.
    """
    column = np.searchsorted(hits, np.arange(len(image)))  # the first hit at or after each detection
    use = chosen & (column < len(hits))
    result = np.empty((len(weights), len(hits)), np.float32)
    before = np.zeros(len(weights), np.float32)
    for start in range(0, len(hits), BLOCK):
        width = min(BLOCK, len(hits) - start)
        inside = use & (column >= start) & (column < start + width)
        counts = np.zeros((weights.shape[1], width), np.float32)
        np.add.at(counts, (image[inside], column[inside] - start), 1)
        result[:, start : start + width] = before[:, None] + weights @ counts.cumsum(axis=1)
        before = result[:, start + width - 1]
    return result


def sample_images(
    outcome: Outcome, runs: Sequence[Run], evaluations: Mapping[RunKey, Evaluation | str], *, split: str = "val"
) -> ImageSampling:
    """The images of the split that was scored as a source of chance, for the runs of an outcome.

    `evaluations`: by activation and seed; a text says why a run has none.
    """
    primary = outcome.primary
    keys = [(act, seed) for act, arm in primary.arms.items() for seed in arm.values]
    known = {key: found for key in keys if isinstance(found := evaluations.get(key), Evaluation)}
    folders = {(run.act, run.seed): run.folder.name for run in runs}
    counts = {each.images for each in known.values()} | {
        value
        for run in runs
        for value in ((run.record.get("images") or {}).get(split), run.split == split and run.scores.get("images"))
        if isinstance(value, int) and not isinstance(value, bool)
    }
    return ImageSampling(
        images=counts.pop() if len(counts) == 1 else None,
        resamples=RESAMPLES,
        effects=image_effects(
            known,
            primary.comparison.differences if primary.comparison else {},
            baseline=outcome.baseline,
            alpha=outcome.alpha,
        ),
        missing=tuple(f"{folders[key]}: {why}" for key in keys if isinstance(why := evaluations.get(key), str)),
        split=split,
    )


def image_effects(
    evaluations: Mapping[RunKey, Evaluation],
    differences: Mapping[str, Difference],
    *,
    baseline: str,
    alpha: float,
    resamples: int = RESAMPLES,
) -> dict[str, ImageEffect]:
    """The effect of the choice of images on each candidate's difference, averaged over the seeds that both have.

    The interval over images is simultaneous for all candidates: the standard deviation over resamples times the
    (1 - alpha) quantile of the largest standardised deviation. The interval for new seeds and new images adds the
    variances, that is the squares of the half-widths (Zou and Donner 2008); what depends on seed and image together
    is in both, so it is rather too wide. Seeds whose images differ (data drawn anew) are resampled independently;
    then the interval over seeds holds for new images already.
    """
    groups = {key: number for number, key in enumerate(dict.fromkeys(each.truth for each in evaluations.values()))}
    drawn: dict[str, NDArray[np.float32]] = {}
    maps: dict[RunKey, NDArray[np.float64]] = {}
    for key, each in evaluations.items():
        if each.truth not in drawn:
            drawn[each.truth] = draw_images(each.images, resamples=resamples, seed=SEED + groups[each.truth])
        maps[key] = resampled_map(each, drawn[each.truth])
    deviations: dict[str, NDArray[np.float64]] = {}
    seeds_of: dict[str, list[int]] = {}
    for act in differences:
        seeds = [
            s for a, s in maps if a == act and (baseline, s) in maps and _same_images(evaluations, act, baseline, s)
        ]
        if seeds:
            gaps = np.mean([maps[act, seed] - maps[baseline, seed] for seed in seeds], axis=0)
            gaps = gaps[np.isfinite(gaps)]
            deviations[act], seeds_of[act] = gaps - gaps.mean(), seeds
    sds = {act: float(gaps.std(ddof=1)) for act, gaps in deviations.items()}
    standard = [np.abs(gaps) / sds[act] for act, gaps in deviations.items() if sds[act] > 0]
    length = min((len(each) for each in standard), default=0)
    critical = float(np.quantile(np.max([each[:length] for each in standard], axis=0), 1 - alpha)) if length else 0.0
    effects = {}
    for act, seeds in seeds_of.items():
        difference, half = differences[act], critical * sds[act]
        redrawn = len({evaluations[act, seed].truth for seed in seeds}) == len(seeds) > 1
        effects[act] = ImageEffect(
            sd=sds[act],
            interval=(difference.estimate - half, difference.estimate + half),
            both=_both(difference, 0.0 if redrawn else half),
            seeds=tuple(seeds),
            redrawn=redrawn,
        )
    return effects


def _same_images(evaluations: Mapping[RunKey, Evaluation], act: str, baseline: str, seed: int) -> bool:
    return evaluations[act, seed].truth == evaluations[baseline, seed].truth


def _both(difference: Difference, half: float) -> tuple[float, float] | None:
    """The interval for new seeds and new images; None without one over seeds."""
    if difference.interval is None:
        return None
    low, high = (math.hypot(end - difference.estimate, half) for end in difference.interval)
    return difference.estimate - low, difference.estimate + high
