"""From runs to comparisons: the one step that the report, the command and the simulations share.

``analyse`` picks the cells (activation, seed) of each metric, leaves out the times that are no evidence, counts what
failed, says whether the verdict is the planned one, and hands the numbers to ``experiment.statistics``.
Detection figures are in mAP points (100 x the fraction of the files), times in seconds, memory in MiB.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiment.plan import Plan
from experiment.runs import Run
from experiment.statistics import Comparison


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The values of one activation in one metric."""

    act: str
    values: Mapping[int, float]  # by seed
    mean: float | None  # None without a value
    sd: float | None  # None below two values


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure of all activations, and its comparison with the baseline where one is made."""

    key: str  # the column, or what it was computed from: "metrics/mAP50-95", "time", "best", "until"
    title: str
    unit: str  # "mAP points", "s", "MiB", ...
    cells: tuple[Cells, ...]  # in the order of the activations, baseline first
    comparison: Comparison | None  # None where no test is made (memory) or none can be (note says why)
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Voided:
    """A run whose time is no evidence."""

    act: str
    seed: int
    folder: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the runs say. `primary` alone carries a verdict; time is a family of its own; the rest is description."""

    baseline: str
    acts: tuple[str, ...]  # baseline first
    seeds: tuple[int, ...]
    alpha: float  # of this look
    margin: float  # mAP points within which two count as the same
    primary: Metric  # mAP50-95 of the last epoch
    secondary: tuple[Metric, ...]  # mAP50, AP small/medium/large, best epoch: intervals as they are, no verdict
    time: Metric  # training time, ratios
    until: Metric  # mAP50-95 at equal wall-clock: "unfinished schedule"
    until_seconds: Mapping[int, float]  # by seed: the time at which `until` is read
    costs: tuple[Metric, ...]  # memory, images/s, inference latency: no test
    failed: Mapping[str, tuple[int, int]]  # activation -> (failed, failed and finished)
    unfinished: tuple[str, ...]  # "mish, seed 3": neither finished nor failed
    voided: tuple[Voided, ...]
    exploratory: tuple[str, ...]  # reasons; empty where the verdict is the planned one
    verdicts: Mapping[str, str]  # candidate -> words on the primary figure
    time_verdicts: Mapping[str, str]  # candidate -> words on training time
    headline: str  # the verdict in one line: largest observed, or what cannot be told
    larger: "Analysis | None" = None  # all the runs, exploratory, where there are more than the plan's


def analyse(runs: Sequence[Run], plan: Plan | None, *, baseline: str | None = None) -> Analysis:
    """Compare the runs as the plan says; without one, the first activation is the baseline and all is exploratory."""
    raise NotImplementedError
