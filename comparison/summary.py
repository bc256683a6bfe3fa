"""The typed summary of a comparison. `report.json` is its dump; tables, figures, the page and the terminal render it.

Detection metrics are in mAP points (100 x the fraction in the files), times in seconds, memory in MiB.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, NamedTuple

from comparison.all_pairs import PairDifference
from comparison.choices import SearchSummary, TuningSummary
from comparison.statistics import Comparison, Difference

STEP = "step"  # key of the metric of an isolated timing
FORMAT = 2
PRIMARY = "metrics/mAP50-95"
POINTS = "mAP points"

Kind = Literal[
    "higher", "lower", "higher-within-margin", "lower-within-margin", "equivalent", "non-inferior", "inconclusive",
    "insensitive", "exploratory", "none",
]  # fmt: skip
RunKey = tuple[str, int]
"""Activation label and seed: one run of the comparison."""
Field = str | int | float | None
"""A field of a CSV row."""
Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


class Failures(NamedTuple):
    """How many runs of an activation failed, of how many that ended."""

    failed: int
    ended: int
    diverged: int = 0  # of the failed ones: the loss was not finite, an outcome of the network and not of the machine


@dataclass(frozen=True, kw_only=True)
class FailureRate:
    """How often runs of an activation failed."""

    failed: int
    ended: int
    diverged: int
    low: float  # exact interval of the rate, of the level of the analysis
    high: float
    p: float | None  # of Fisher's exact test, two-sided, against the baseline; not corrected for several candidates


@dataclass(frozen=True, kw_only=True)
class Insensitivity:
    """Why neither equivalence nor non-inferiority can be shown (no assay sensitivity)."""

    reason: Literal["floor", "rising", "ceiling"]
    mean: float  # of the baseline, mAP points
    rise: float | None  # mAP points that as many epochs again would add at the final rate


@dataclass(frozen=True, kw_only=True)
class Values:
    """One metric of one activation, by seed."""

    values: Mapping[int, float]
    mean: float | None  # None without a value
    sd: float | None  # None below two values


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric of all activations, and its comparison with the baseline."""

    key: str  # the column of results.csv, or a derived metric: "time", "best", "until"
    title: str
    unit: str  # "mAP points", "s", "MiB", ...
    arms: Mapping[str, Values]  # by activation label, baseline first
    comparison: Comparison | None  # None if the metric is not tested, or cannot be (the note says why)
    note: str = ""

    @property
    def measured(self) -> bool:
        """Whether any run has a value."""
        return any(values.mean is not None for values in self.arms.values())

    def mean(self, act: str) -> float | None:
        """The mean of an activation, None without a value."""
        return self.arms[act].mean if act in self.arms else None

    def difference(self, act: str) -> Difference | None:
        """The difference or ratio of a candidate, None without a comparison."""
        return self.comparison.differences.get(act) if self.comparison else None


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """A run excluded from timing."""

    act: str
    seed: int
    folder: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The conclusion on one candidate in one metric; `text` does not repeat the candidate's name."""

    kind: Kind
    text: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a set of runs. The primary metric and the training time carry verdicts; the rest is descriptive."""

    baseline: str
    acts: tuple[str, ...]  # activation labels, baseline first
    seeds: tuple[int, ...]
    alpha: float  # of this analysis
    margin: float  # equivalence margin, mAP points
    metrics: Mapping[str, Metric]
    until_seconds: Mapping[int, float]  # by seed: the training time at which the metric "until" is read
    failed: Mapping[str, Failures]
    failure_rates: Mapping[str, FailureRate]
    insensitive: Insensitivity | None  # None if the runs can show equivalence
    remarks: tuple[str, ...]  # who scatters how much; runs that collapsed, and the verdicts without them
    unfinished: tuple[str, ...]  # "mish, seed 3": neither finished nor failed
    excluded: tuple[Excluded, ...]
    exploratory: tuple[str, ...]  # reasons; empty if the verdict is the planned one
    verdicts: Mapping[str, Verdict]  # candidate -> conclusion on the primary metric
    time_verdicts: Mapping[str, Verdict]  # candidate -> conclusion on the cost
    headline: str  # the largest observed mAP
    pairs: tuple[PairDifference, ...] = ()  # candidates against each other, if the plan declares it
    isolated_time: Metric | None = None  # of a training step, where the training times of the runs do not count

    @property
    def primary(self) -> Metric:
        """mAP50-95 of the last epoch."""
        return self.metrics[PRIMARY]

    @property
    def time(self) -> Metric:
        """Training time, compared as ratios."""
        return self.metrics["time"]

    @property
    def cost(self) -> Metric:
        """Training time or, where it cannot be compared, the isolated timing of a training step; as ratios."""
        return self.isolated_time or self.time

    @property
    def candidates(self) -> tuple[str, ...]:
        """All activations but the baseline."""
        return self.acts[1:]

    def of_kind(self, *kinds: Kind) -> list[str]:
        """The candidates with such a verdict on the primary metric."""
        return [act for act, verdict in self.verdicts.items() if verdict.kind in kinds]

    def fails_more(self, act: str) -> bool:
        """Whether a larger fraction of a candidate's runs than of the baseline's failed."""
        one, base = self.failed[act], self.failed[self.baseline]
        return one.failed * base.ended > base.failed * one.ended

    def excluded_runs(self) -> set[RunKey]:
        """The runs excluded from timing."""
        return {(each.act, each.seed) for each in self.excluded}


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """Seeds per activation, and hours for all activations, that reach a goal with 80 % probability."""

    goal: Literal["difference", "equivalence"]
    points: float
    seeds: int | None  # None above 1000
    seeds_conservative: int | None  # for the 80 % upper confidence limit of the residual sd
    hours: float | None
    hours_conservative: float | None


@dataclass(frozen=True, kw_only=True)
class RequiredSeeds:
    """What further seeds would show."""

    sigma: float  # residual sd of one run, mAP points, of the candidate that scatters most
    sigma_upper: float  # its 80 % upper confidence limit
    detectable: float | None  # the difference that these seeds detect with 80 % probability
    hours_per_seed: float | None  # all activations
    rows: tuple[Requirement, ...]


@dataclass(frozen=True, kw_only=True)
class ImageEffect:
    """How far a candidate's difference in mAP50-95 depends on the choice of scored images (image_bootstrap.py)."""

    sd: float  # over resampled images, of the difference averaged over `seeds`; mAP points
    interval: tuple[float, float]  # over images, simultaneous
    both: tuple[float, float] | None  # for new seeds and new images; None without an interval over seeds
    seeds: tuple[int, ...]  # whose detections of the last epoch are known for candidate and baseline
    redrawn: bool  # each seed has its own images, so the interval over seeds covers them


@dataclass(frozen=True, kw_only=True)
class ImageSampling:
    """The images of the scored split as a second source of chance, beside the seeds."""

    images: int | None  # of the split; None if not recorded
    resamples: int
    effects: Mapping[str, ImageEffect]  # by candidate; without those that cannot be resampled
    missing: tuple[str, ...]  # "relu-s0: no predictions_last.json"
    split: str = "val"  # that the primary metric is measured on

    @property
    def kind(self) -> str:
        """Which images they are: "validation", "test"."""
        return "validation" if self.split == "val" else self.split


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """mAP of a finished run by epoch and by training time so far."""

    activation: str
    seed: int
    epochs: tuple[float, ...]
    seconds: tuple[float, ...]
    points: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all runs share and where they differ."""

    words: tuple[str, ...]  # data, model, image size, epochs, device
    same: Mapping[str, str | int | float | bool]
    differs: Mapping[str, tuple[str, ...]]
    pairing: tuple[str, ...]  # deviations from equal starting weights and batches within a seed
    unpaired: Mapping[str, tuple[str, ...]]  # "weights", "batches": the keys by which the arms make them differ


@dataclass(frozen=True, kw_only=True)
class TimingRow:
    """One network of an isolated timing."""

    act: str
    norm_act: str
    implementation: str
    median_ms: float
    ratio: float  # to the first row, with its simultaneous 95 % interval
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Timing:
    """An isolated timing of the training step (comparison/step_timing.py)."""

    words: str = ""
    load: str = ""  # the load by other processes, in words
    excluded: bool = False  # it was too high
    rows: tuple[TimingRow, ...] = ()
    # Milliseconds of a step by activation and round; empty unless the times count and are those of the comparison.
    rounds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A runtime and a precision in which the trained networks run after export (--deploy); descriptive.

    The metrics have a value for each run; latency is compared by ratios.
    """

    runtime: str  # with its version
    precision: str
    threads: int
    score: Metric  # mAP50-95 of the exported files
    latency: Metric  # ms at batch 1; without values if the times do not count
    size: Metric
    memory: Metric
    load: str  # of the machine by other processes, in words
    loss: Metric | None  # int8: the mAP minus that of the fp32 file, compared between activations
    losses: Mapping[str, Difference]  # the same of each activation by itself
    missing: tuple[str, ...]  # "mish, seed 3: why"

    @property
    def name(self) -> str:
        """The runtime without its version."""
        return " ".join(word for word in self.runtime.split() if not word[:1].isdigit())


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All that a report says."""

    format: int
    planned: Outcome  # of the planned runs; of all runs without a plan
    larger: Outcome | None  # of all runs, exploratory, if there are more than the plan's
    recommendation: tuple[str, ...]
    required_seeds: RequiredSeeds | None
    runs: tuple[Mapping[str, Field], ...]  # rows of runs.csv
    curves: tuple[LearningCurve, ...]
    setting: Setting
    plan: Mapping[str, Json] | None
    plan_words: tuple[tuple[str, str], ...]
    timing: Timing
    image_sampling: ImageSampling
    causes: Mapping[str, tuple[Metric, ...]]  # by group; descriptive
    tuning: TuningSummary | None = None
    search: SearchSummary | None = None
    places: tuple[Place, ...] = ()  # where it runs after export, if that was measured

    @property
    def noun(self) -> str:
        """What is compared: "activation", or "arm" if the arms differ in other keys too."""
        return "arm" if self.plan is not None and self.plan["varies"] else "activation"

    @property
    def varies(self) -> tuple[str, ...]:
        """The config keys in which the arms differ, if they are other than activations."""
        varies = self.plan["varies"] if self.plan is not None else None
        return tuple(map(str, varies)) if isinstance(varies, list) else ()

    @property
    def equal_time_planned(self) -> bool:
        """Whether the epochs were planned to fit the training time of the fastest activation."""
        return self.plan is not None and self.plan["budget"] == "time"


def to_json(summary: Summary) -> str:
    """The text of report.json: the fields of the planned outcome at the top level, beside the others."""
    content = asdict(summary)
    planned = content.pop("planned")
    for name in ("places", "search"):
        if not content[name]:
            del content[name]
    return json.dumps(_finite({**content, **planned}), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: object) -> Json:
    """The value for JSON, in which infinity becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    assert value is None or isinstance(value, str | int | float)
    return value
