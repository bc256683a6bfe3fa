"""Are the differences that were published larger than chance? No training: the printed numbers, computed anew.

A cell is a row of a table in `studies.published_tables`. CIFAR-10: Welch's test from means, standard deviations and 23
runs, with Holm's correction over the 13 comparisons. COCO: single runs, so the largest standard deviation of repeated
trainings at which a difference would still be significant. The depth figure was printed twice: how far the two differ.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from studies import published_statistics
from studies.intervals import ALPHA, interval_text, mean_text
from studies.pictures import COLOURS
from studies.published_statistics import BELOW, Z, exact
from studies.published_tables import (
    CAUTIOUS_SD,
    CIFAR10,
    COCO,
    DEPTH,
    FLATTEN_T_SWISH_OF_3,
    LAYERS,
    MISH,
    SEED_SD,
)
from studies.rows import Row, number, where
from studies.tables import table
from studies.verdicts import Finding, Judged, decide, finding, judge, seeds_needed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Are the published differences larger than chance?"
CLAIM = "Mish beats the other activations (bold type in the tables)"
MINUTES = 0.2
EXTRA = ""
PICTURE = (17.0, 6.2)


def cells(*, quick: bool) -> list[Row]:
    """All rows of the three tables."""
    tables: dict[str, Mapping[str, object]] = {"cifar10": CIFAR10, "coco": COCO, "depth": DEPTH}
    return [{"table": name, "row": row} for name, rows in tables.items() for row in rows]


def measure(cell: Row) -> Row:
    """The statistics of a row."""
    return {
        "cifar10": published_statistics.cifar10,
        "coco": published_statistics.coco,
        "depth": published_statistics.depth,
    }[str(cell["table"])](str(cell["row"]))


# ------------------------------------------------------------------------------------------------------------- findings


def conclude(rows: Sequence[Row]) -> list[Finding]:
    """CIFAR-10, COCO and the noise of the depth figure."""
    cifar10, coco, depth = (where(rows, table=table) for table in ("cifar10", "coco", "depth"))
    return [_about_cifar10(cifar10), _about_coco(coco), _about_depth(depth)]


def _weakest(rows: Sequence[Row], run_sd: float) -> Judged:
    """The row with the least difference: Mish beats all only if it beats this one, at no correction.

    ``run_sd``: of the difference of two runs.
    """
    row = min(rows, key=lambda each: number(each, "difference"))
    estimate, low, high = _difference(row)
    p = max(number(each, "p") for each in rows)
    return Judged(
        estimate=estimate,
        interval=(low, high),
        margin=0.0,
        p=p,
        verdict=decide(estimate, (low, high), 0.0, p),
        seeds_needed=seeds_needed(estimate, run_sd, 0.0),
    )


def _about_cifar10(rows: Sequence[Row]) -> Finding:
    kept = [row for row in rows if number(row, "p_holm") < ALPHA]
    lost = [row for row in rows if row not in kept]
    (isru,) = where(rows, row="ISRU")
    closest = str(min(rows, key=lambda row: number(row, "difference"))["row"])
    widths = [str(row["row"]) for row in rows if not row["width_consistent"]]
    gap = max(abs(number(row, "p") - number(row, "p_printed")) for row in rows if row["p_printed"] != BELOW)
    above = [str(row["row"]) for row in rows if row["p_printed"] == BELOW and number(row, "p") >= 0.0001]
    ahead = sum(number(row, "difference") > 0 for row in kept)
    widest = max(abs(number(row, end)) for row in lost for end in ("low", "high")) if lost else 0.0
    found = (
        f"Welch's p-values from the published means and standard deviations differ from the printed ones by at most "
        f"{gap:.4f}; printed as {BELOW} and found to be more: {', '.join(above) or 'none'}. By Holm's correction, "
        f"{len(kept)} of {len(rows)} comparisons are significant, {ahead} of them in Mish's favour. Of the others, no "
        f"end of an interval is further than {widest:.2f} points from 0. The ISRU row is wrong: its mean "
        f"{number(isru, 'mean_printed'):.2f} % and standard deviation {number(isru, 'sd_printed'):.4f} are those of "
        f"Flatten T-Swish in the README's table of 3 runs ({FLATTEN_T_SWISH_OF_3[0]:.2f} and "
        f"{FLATTEN_T_SWISH_OF_3[1]:.4f}); its interval and Cohen's d ({number(isru, 'd_printed'):.3f}) mean "
        f"{number(isru, 'mean_of_interval'):.2f} % and {number(isru, 'sd_of_profile'):.2f}, which are used here (d = "
        f"{number(isru, 'd'):.3f}). Printed intervals whose width does not follow from the deviations: "
        f"{', '.join(widths) or 'none'}."
    )
    return finding(
        claim="Mish beats the other activations on CIFAR-10, each of them",
        published="13 activations, 23 runs each: mean 87.48 % for Mish, p < 0.0001 against 9 of them (Table 1)",
        found=found,
        judged=_weakest(rows, math.hypot(exact(MISH)[1], exact(CIFAR10[closest])[1])),
        unit=f"points more than {closest}, the best of the others",
        brief=f"{len(kept)} of {len(rows)} comparisons are significant",
        part="CIFAR-10",
        tables=table(
            "CIFAR-10 test accuracy, Mish minus the other in points, by Welch's test",
            ("activation", "difference", "p", "p by Holm", "printed p"),
            (
                [
                    _label(row),
                    interval_text(*_difference(row)),
                    *(f"{number(row, column):.2g}" for column in ("p", "p_holm")),
                    str(row["p_printed"]),
                ]
                for row in sorted(rows, key=lambda row: -number(row, "difference"))
            ),
        ),
    )


def _about_coco(rows: Sequence[Row]) -> Finding:
    paper, later = (where(rows, group=group) for group in ("paper", "later"))
    counts = [
        f"{sum(number(row, 'largest_sd_holm') > sd for row in group)} of {len(group)}"
        for group in (paper, later)
        for sd in (SEED_SD, CAUTIOUS_SD)
    ]
    mean = mean_text([number(row, "difference") for row in paper])
    found = (
        "Each number is a single run, without a published standard deviation for these detectors. A difference is "
        "significant by Holm's correction if repeated trainings vary by less than the table's last column says. What "
        f"is known of other detectors on COCO: the README of GoLU has up to {SEED_SD} after a ± sign, taken here as a "
        "standard deviation, which the interval above rests on, and a maintainer of MMDetection calls less than "
        f"{CAUTIOUS_SD} normal (mmdetection#3496). At {SEED_SD}, {counts[0]} pairs of the paper are significant, at "
        f"{CAUTIOUS_SD} {counts[1]}. One published difference is 0.0, so Mish cannot have beaten leaky ReLU in each. "
        f"Of {len(later)} pairs published later by the same author, {counts[2]} and {counts[3]} are. Over the "
        f"{len(paper)} models, the mean difference is {mean} AP."
    )
    return finding(
        claim="Mish beats leaky ReLU in detection on COCO, in each detector",
        published="+2.1 AP50 for YOLOv4 with CSPDarknet-53 (abstract), which is pacsp-s; +0.1 to +1.4 AP (Table 5)",
        found=found,
        judged=_weakest(paper, math.sqrt(2) * SEED_SD),
        unit="AP, the smallest of the differences",
        brief=f"{counts[0]} pairs are significant if the standard deviation of a run is {SEED_SD} AP, {counts[1]} at "
        f"{CAUTIOUS_SD}",
        part="COCO",
        tables=table(
            "COCO, Mish minus leaky ReLU, and the largest standard deviation of a run at which it is significant",
            ("model", "difference, AP", "largest standard deviation, AP"),
            (
                [
                    str(row["row"]) + ("" if row["group"] == "paper" else ", later"),
                    f"{number(row, 'difference'):+.1f}",
                    f"{number(row, 'largest_sd_holm'):.2f}",
                ]
                for row in rows
            ),
        ),
    )


def _about_depth(rows: Sequence[Row]) -> Finding:
    by_name = {str(row["row"]): row for row in rows}
    mish, swish = by_name["Mish"], by_name["Swish"]
    gaps = [number(mish, f"mean_{version}") - number(swish, f"mean_{version}") for version in ("first", "second")]
    limit = Z * math.hypot(number(mish, "run_sd_from_20"), number(swish, "run_sd_from_20"))
    above = [
        layers
        for layers, one, other in zip(LAYERS, np.mean(DEPTH["Mish"], 0), np.mean(DEPTH["Swish"], 0), strict=True)
        if layers >= 20 and one - other > limit / math.sqrt(2)
    ]
    found = (
        "The figure was published in two versions, taken here as two runs. Mish minus Swish averaged over 15 to 25 "
        f"layers is {gaps[0]:.1f} in the first and {gaps[1]:.1f} in the second. From 20 layers, a single pair of runs "
        f"differs by chance by up to {limit:.1f} points; the mean of the two versions exceeds what chance explains "
        f"(95 %) at {', '.join(map(str, above)) or 'no number of'} layers. Two runs are too few to judge."
    )
    return finding(
        claim="Accuracy falls less with Mish as layers are added: the noise of the figure itself",
        published="one run a point, without a standard deviation (Fig. 4a, and a second version on the poster)",
        found=found,
        judged=judge(gaps, margin=1.0),
        unit="points more than Swish, mean of 15 to 25 layers",
        primary=False,
        tables=table(
            "Standard deviation of one run and the largest gap, from the differences of the two versions, points",
            ("activation", "standard deviation", "largest gap", "at layers"),
            (
                [
                    name,
                    *(f"{number(row, column):.1f}" for column in ("run_sd", "largest_gap")),
                    str(row["largest_gap_layers"]),
                ]
                for name, row in by_name.items()
            ),
        ),
    )


def _label(row: Row) -> str:
    return f"{row['row']}, mean corrected" if row.get("row_consistent") is False else str(row["row"])


def _difference(row: Row) -> tuple[float, float, float]:
    """A difference with both ends of its interval."""
    return number(row, "difference"), number(row, "low"), number(row, "high")


# -------------------------------------------------------------------------------------------------------------- picture


def draw(rows: Sequence[Row], figure: "Figure") -> None:
    """Differences with 95 % intervals, filled where significant by Holm, and the two versions of the depth figure."""
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.15, 1))
    cifar10 = sorted(where(rows, table="cifar10"), key=lambda row: number(row, "difference"))
    coco = where(rows, table="coco")[::-1]
    _draw_differences(left, cifar10, [number(row, "p_holm") < ALPHA for row in cifar10])
    _draw_differences(middle, coco, [number(row, "largest_sd_holm") > SEED_SD for row in coco])
    left.set_title("CIFAR-10, 23 runs each: Mish minus the other\n95 % intervals by Welch")
    left.set_xlabel("test accuracy, points")
    middle.set_title(
        f"COCO, single runs: Mish minus leaky ReLU\n95 % intervals if a run's standard deviation is {SEED_SD} AP"
    )
    middle.set_xlabel("AP, points")
    border = len(where(coco, group="later")) - 0.5
    middle.axhline(border, color="0.6", linestyle=":")
    middle.text(2.45, border + 0.15, "in the paper or YOLOv4's", ha="right", va="bottom", fontsize=8)
    middle.text(2.45, border - 0.2, "later", ha="right", va="top", fontsize=8)
    for name, color in zip(DEPTH, (COLOURS[each.lower()] for each in DEPTH), strict=True):
        for version, style, word in zip(DEPTH[name], ("o-", "s--"), ("first", "second"), strict=True):
            right.plot(LAYERS, version, style, color=color, markersize=4, label=f"{name}, {word}")
    right.set_title("The depth figure as published twice (MNIST)\none run a point, no intervals published")
    right.set_xlabel("layers")
    right.set_ylabel("test accuracy, %")
    right.legend(fontsize=8)
    right.grid(alpha=0.3)


def _draw_differences(axis: "Axes", rows: Sequence[Row], significant: Sequence[bool]) -> None:
    for flag, color, fill, label in (
        (True, "C0", "C0", "significant by Holm"),
        (False, "0.45", "white", "not significant"),
    ):
        chosen = [(place, *_difference(row)) for place, row in enumerate(rows) if significant[place] is flag]
        places, middles, lows, highs = np.reshape(chosen, (-1, 4)).T
        error = [middles - lows, highs - middles]
        axis.errorbar(middles, places, xerr=error, fmt="o", color=color, markerfacecolor=fill, linewidth=2, label=label)
    axis.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axis.axvline(0, color="black", linewidth=0.8)
    axis.legend(loc="lower right", fontsize=8)
    axis.grid(axis="x", alpha=0.3)
