"""What the comparison is worth: ``python -m benchmarks.simulate --sets 1000 --acts 3 --seeds 5``.

Draws comparisons whose truth is known, writes each as run folders with their plan, as compare.py leaves them but
without any training, reads them back and passes them through the analysis of every report. Counted is what a user
would have been told. ``--table`` gives a whole table of the evidence: error, power or detectable.

Values are mean + activation + seed + residual, sigma being the residual's standard deviation; all of it is assumed.
"""

import json
import math
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comparison.analysis import Analysis, Metric, analyse
from comparison.plan import Plan, make_plan, read_plan
from comparison.runs import FAILURE, Run, cell_name, read_runs
from comparison.statistics import power
from configs.cli import Parser, run_script

ROOT = Path(__file__).resolve().parents[1]
ACTS = ("relu", "leaky_relu", "silu", "mish", "gelu", "elu", "hardswish", "softplus")
NOISES = ("normal", "t3", "fall", "baseline")  # t(3); 3 % fall by 10 sigma; the baseline has three times the variance
SIGMA = 0.6  # mAP points
SEEDS_SD = 1.0  # mAP points: what seeds differ by in all activations alike
TIME_SD = 0.01  # of the logarithm of a run's time
COURSE = (0.60, 0.85, 1.0)  # of the last mAP, by epoch
EPOCH_SD = 0.5  # sigma: what an earlier epoch differs by besides
STEPS = 20
# Bounds in %: 5 % and two standard errors of 1,000 sets; 6.8 % is known of five activations with a noisy baseline.
MOST_ERROR = {"normal": 6.4, "t3": 6.4, "fall": 6.4, "baseline": 8.4}
COVERAGE = (93.0, 97.0)  # %
POWER_OFF = 3.0  # points that a power may differ from the expected one
DETECTABLE_OFF = 0.10  # share
GUARDED_POWER = {  # %, by activations and seeds, at 1, 2 and 3 sigma: 10,000 earlier sets in memory alone
    (2, 3): (12, 29, 51), (2, 5): (23, 66, 94), (2, 9): (45, 96, 100),
    (3, 3): (9, 30, 61), (3, 5): (18, 66, 95), (5, 3): (7, 31, 66), (5, 5): (14, 62, 95),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Design:
    """A kind of comparison to be simulated."""

    acts: int  # with the baseline
    seeds: int
    noise: str = "normal"
    missing: float = 0.0  # share of runs that fail
    effect: float = 0.0  # sigma: true differences of the candidates, with alternating sign

    @property
    def effects(self) -> NDArray[np.float64]:
        """True differences from the baseline in mAP points, the baseline's own 0 first."""
        signs = np.array([0, *(1 - 2 * (number % 2) for number in range(self.acts - 1))])
        return SIGMA * self.effect * signs


@dataclass
class Tally:
    """Counts over the sets of a design, of the primary figure unless said."""

    design: Design
    sets: int = 0
    without: int = 0  # sets that gave no interval, the baseline's runs having failed
    any_told: int = 0  # sets in which a candidate was called higher or lower
    told: int = 0  # candidates that were
    asked: int = 0  # candidates in all
    covered: int = 0  # sets in which every interval holds the true difference
    time_told: int = 0  # sets in which an interval of the time ratio excludes 1
    until_told: int = 0  # sets in which one at equal wall-clock excludes 0
    needs: list[float] = field(default_factory=list)  # half-width -+ error: a true difference beyond it is told

    def add(self, analysis: Analysis) -> None:
        """Count a set."""
        self.sets += 1
        comparison = analysis.primary.comparison
        differences = comparison.differences if comparison else ()
        told = sum(" is higher than " in words or " is lower than " in words for words in analysis.verdicts.values())
        self.any_told += told > 0
        self.told += told
        self.asked += len(analysis.verdicts)
        self.time_told += _excludes(analysis.time, 1.0)
        self.until_told += _excludes(analysis.until, 0.0)
        if not any(each.interval for each in differences):
            self.without += 1
            return
        truth = dict(zip(ACTS, self.design.effects, strict=False))
        known = [(each.estimate, each.interval, truth[each.name]) for each in differences if each.interval]
        self.covered += all(low <= true <= high for _, (low, high), true in known)
        for estimate, (low, high), true in known:
            self.needs += [(high - low) / 2 + estimate - true, (high - low) / 2 - estimate + true]

    def percent(self, count: int) -> float:
        """A count of sets as a percentage of those with intervals."""
        return 100 * count / max(self.sets - self.without, 1)

    @property
    def power(self) -> float:
        """% of the candidates that were called higher or lower."""
        return 100 * self.told / max(self.asked, 1)

    def detectable(self, chance: float = 0.8) -> float:
        """The true difference, in sigma, that would have been told in this share of cases: a shift moves no interval's
        width, so each case says beyond which difference its interval excludes 0."""
        return float(np.quantile(self.needs, chance)) / SIGMA


def _excludes(metric: Metric, nothing: float) -> bool:
    found = metric.comparison.differences if metric.comparison else ()
    return any(each.interval and not each.interval[0] <= nothing <= each.interval[1] for each in found)


# ------------------------------------------------------------------------------------------------------ drawing runs


def residuals(design: Design, generator: np.random.Generator) -> NDArray[np.float64]:
    """Residuals of the runs in mAP points, activations x seeds."""
    shape = (design.acts, design.seeds)
    if design.noise == "t3":
        return SIGMA * generator.standard_t(3, shape) / math.sqrt(3)
    drawn = SIGMA * generator.standard_normal(shape)
    if design.noise == "fall":
        drawn -= 10 * SIGMA * (generator.random(shape) < 0.03)
    if design.noise == "baseline":
        drawn[0] *= math.sqrt(3)
    return drawn


def draw_runs(design: Design, generator: np.random.Generator, *, folder: Path = Path()) -> list[Run]:
    """The runs of a comparison, as they would be read from `folder`."""
    points = 40 + design.effects[:, None] + SEEDS_SD * generator.standard_normal(design.seeds)
    points = points + residuals(design, generator)
    earlier = EPOCH_SD * SIGMA * generator.standard_normal((design.acts, design.seeds, len(COURSE)))
    earlier[..., -1] = 0
    courses = points[..., None] * COURSE + earlier
    seconds = 100 * np.exp(TIME_SD * generator.standard_normal((design.acts, design.seeds)))
    lost = generator.random((design.acts, design.seeds)) < design.missing
    return [
        _run(folder, ACTS[act], seed, courses[act, seed], float(seconds[act, seed]), failed=bool(lost[act, seed]))
        for act in range(design.acts)
        for seed in range(design.seeds)
    ]


def _run(folder: Path, act: str, seed: int, course: NDArray[np.float64], seconds: float, *, failed: bool) -> Run:
    """A run with what the analysis and the checks of a report read."""
    rows = tuple(
        {
            "epoch": epoch,
            "step": STEPS * epoch,
            "metrics/mAP50": round(0.015 * points, 6),
            "metrics/mAP50-95": round(0.01 * points, 6),
            "metrics/mAP75": round(0.0105 * points, 6),
            "metrics/AP_small": round(0.005 * points, 6),
            "metrics/AP_medium": round(0.01 * points, 6),
            "metrics/AP_large": round(0.013 * points, 6),
            "time_train_s": round(seconds / len(course), 4),
            "time_warmup_s": 0.0,
            "time_data_s": 0.1,
            "time_val_s": 1.0,
            "time_save_s": 0.1,
            "images_per_s": round(16 * STEPS * len(course) / seconds, 3),
            "step_median_s": round(seconds / len(course) / STEPS, 6),
            "peak_memory_mib": 500.0,
            "batches_crc32": 1000 * seed + epoch,
            "other_cores": 0.0,
        }
        for epoch, points in enumerate(course.tolist(), 1)
    )
    record = _record(act, seed, epochs=len(course))
    run = Run(folder=folder / cell_name(act, seed), act=act, seed=seed, status="finished", record=record, rows=rows)
    if failed:
        return replace(run, status="failed", reason="simulated failure", rows=rows[:1])
    record["results"] = {"AP": rows[-1]["metrics/mAP50-95"]}
    record |= {"best_epoch": len(rows), "last_epoch": dict(rows[-1]), "peak_memory_mib": 500.0}
    record["times"] = {"train": seconds, "warmup": 0.0, "data": 0.3, "validation": 3.0, "saving": 0.3}
    record["latency"] = {"ms_per_image": 5.0, "imgsz": 320, "batch": 1}
    return run


def _record(act: str, seed: int, *, epochs: int) -> dict[str, Any]:
    """run.json as it is at the start of a run."""
    model = {"kind": "yolo", "size": "n", "act": {"name": act}, "norm_act": "plain"}
    return {
        "format": 1,
        "config": {"model": model, "train": {"seed": seed, "epochs": epochs, "batch": 16, "imgsz": 320}},
        "differs": {"model.act.name": act},
        "code": {"commit": None, "dirty": None, "source_sha256": "simulated"},
        "data": {"train": "simulated", "val": "simulated"},
        "machine": {"cpu": "simulated", "threads": 1, "gpus": [], "packages": {}, "environment": {}},
        "device": "cpu",
        "operator": {"implementation": "none", "reason": "simulated"},
        "census": [],
        "batches_per_epoch": STEPS,
        "skipped": 0,
        "initial_weights": f"simulated {seed}",
    }


# ------------------------------------------------------------------------------------------------------- run folders


@lru_cache(maxsize=1)
def plan_of(design: Design) -> Plan:
    """The plan of the comparison, with the residuals' true sd as the one assumed."""
    acts = ACTS[: design.acts]
    return make_plan(
        acts=acts,
        baseline=acts[0],
        seeds=tuple(range(design.seeds)),
        cfg="yolo.yaml",
        specs={act: {"model.act": act} for act in acts},
        epochs=dict.fromkeys(acts, len(COURSE)),
        sigma_assumed=SIGMA / 100,
    )


def write_run(run: Run) -> None:
    """Write run.json, results.csv and, where it failed, failure.json."""
    run.folder.mkdir(parents=True)
    (run.folder / "run.json").write_text(json.dumps(run.record), encoding="utf-8")
    lines = [run.rows[0], *(row.values() for row in run.rows)]
    text = "".join(",".join(map(str, line)) + "\n" for line in lines)
    (run.folder / "results.csv").write_text(text, encoding="utf-8")
    if run.status == "failed":
        failure = {"act": run.act, "seed": run.seed, "reason": run.reason}
        (run.folder / FAILURE).write_text(json.dumps(failure), encoding="utf-8")


def through_folders(design: Design, generator: np.random.Generator, *, folder: Path) -> Analysis:
    """Draw a comparison, write it as a folder of run folders with a plan, read that, and analyse it."""
    plan_of(design).write(folder)
    for run in draw_runs(design, generator, folder=folder):
        write_run(run)
    plan = read_plan(folder)
    runs = read_runs([folder])
    return analyse(runs if plan is None else plan.as_compared(runs), plan)


def in_memory(design: Design, generator: np.random.Generator) -> Analysis:
    """The same without files."""
    return analyse(draw_runs(design, generator), plan_of(design))


def ask_command(folder: Path, analysis: Analysis) -> None:
    """Have compare.py write the report of the folder; RuntimeError where it does not say what the analysis does."""
    command = [sys.executable, "compare.py", "--report", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    texts = list(_texts(json.loads((folder / "report.json").read_text(encoding="utf-8"))))
    for words in (*analysis.verdicts.values(), *analysis.time_verdicts.values()):
        if not any(words in text for text in texts):
            raise RuntimeError(f"{folder / 'report.json'} does not say: {words}")


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


# ------------------------------------------------------------------------------------------------------- the tables


def simulate(design: Design, *, sets: int, seed: int, folder: Path | None = None, through: int = 0) -> Tally:
    """Draw and analyse as many sets; by way of run folders below `folder` where one is given.

    `through`: so many of the first also go through the command, which draws the whole report.
    """
    generator = np.random.default_rng([seed, design.acts, design.seeds, NOISES.index(design.noise), *_whole(design)])
    tally = Tally(design)
    for number in range(sets):
        if folder is None:
            tally.add(in_memory(design, generator))
            continue
        place = folder / f"set{number}"
        analysis = through_folders(design, generator, folder=place)
        tally.add(analysis)
        if number < through:
            ask_command(place, analysis)
        shutil.rmtree(place)
    return tally


def _whole(design: Design) -> tuple[int, int]:
    return round(1000 * design.missing), round(1000 * design.effect)


def error_designs(sizes: Sequence[tuple[int, int]]) -> list[Design]:
    """A/A comparisons: no activation differs."""
    kinds: list[dict[str, Any]] = [{}, {"noise": "t3"}, {"missing": 0.1}, {"noise": "t3", "missing": 0.1}]
    kinds += [{"noise": "fall"}, {"noise": "baseline"}]
    return [Design(acts=acts, seeds=seeds, **each) for each in kinds for acts, seeds in sizes]


def power_designs(sizes: Sequence[tuple[int, int]]) -> list[Design]:
    """Comparisons whose candidates differ by 1, 2 and 3 sigma."""
    return [Design(acts=acts, seeds=seeds, effect=effect) for acts, seeds in sizes for effect in (1.0, 2.0, 3.0)]


def error_row(tally: Tally) -> tuple[list[str], bool]:
    """Family-wise errors and joint coverage; coverage has an upper bound where residuals are normal alone."""
    design, error, covered = tally.design, tally.percent(tally.any_told), tally.percent(tally.covered)
    holds = error <= MOST_ERROR[design.noise] and (covered <= COVERAGE[1] or design.noise != "normal")
    missing = f"{100 * design.missing:g} %" if design.missing else "none"
    further = [f"{tally.percent(count):.1f}" for count in (tally.time_told, tally.until_told)]
    figures = [f"{error:.1f}", f"{covered:.1f}", *further, str(tally.without)]
    return [str(design.acts), str(design.seeds), design.noise, missing, str(tally.sets), *figures], holds


def power_row(tally: Tally) -> tuple[list[str], bool]:
    """Power beside the expected one, and coverage where there are differences."""
    design, covered = tally.design, tally.percent(tally.covered)
    candidates = design.acts - 1
    formula = 100 * power(design.effect, sigma=1, candidates=candidates, seeds=design.seeds)
    known = GUARDED_POWER.get((design.acts, design.seeds))
    expected = float(known[int(design.effect) - 1]) if known and design.effect in (1.0, 2.0, 3.0) else formula
    holds = abs(tally.power - expected) <= POWER_OFF and COVERAGE[0] <= covered <= COVERAGE[1]
    size = [str(design.acts), str(design.seeds), f"{design.effect:g} sigma", str(tally.sets)]
    return [*size, f"{tally.power:.1f}", f"{expected:.0f}", f"{formula:.1f}", f"{covered:.1f}"], holds


def detectable_row(tally: Tally) -> tuple[list[str], bool]:
    """The difference found with 80 % chance: as printed before the runs, and simulated."""
    plan, simulated = plan_of(tally.design), tally.detectable()
    printed = plan.detectable() / plan.sigma_assumed
    off = printed / simulated - 1
    row = [str(tally.design.acts), str(tally.design.seeds), str(tally.sets), f"{printed:.2f}", f"{simulated:.2f}"]
    return [*row, f"{100 * off:+.1f} %"], abs(off) <= DETECTABLE_OFF


SIZES = ((2, 3), (2, 5), (2, 9), (3, 3), (3, 5), (5, 3), (5, 5))
ERROR_HEAD = (
    "activations", "seeds", "residuals", "failed", "sets", "error %", "coverage %", "error of time %",
    "error at equal wall-clock %", "sets without interval",
)  # fmt: skip
POWER_HEAD = (
    "activations",
    "seeds",
    "difference",
    "sets",
    "power %",
    "expected %",
    "unguarded formula %",
    "coverage %",
)
DETECTABLE_HEAD = ("activations", "seeds", "sets", "printed beforehand, sigma", "simulated, sigma", "off")
TABLES = {
    "error": (ERROR_HEAD, error_designs, error_row),
    "power": (POWER_HEAD, power_designs, power_row),
    "detectable": (DETECTABLE_HEAD, lambda sizes: [Design(acts=a, seeds=s) for a, s in sizes], detectable_row),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate and print tables in Markdown; 1 where a bound does not hold."""
    arguments = parse(argv)
    sizes = [(arguments.acts, arguments.seeds)] if arguments.acts else SIZES
    every = True
    for name in arguments.table:
        head, designs, row_of = TABLES[name]
        print(f"| {' | '.join([*head, 'holds'])} |\n|{'---|' * (len(head) + 1)}", flush=True)
        for design in designs(sizes):
            with tempfile.TemporaryDirectory(prefix="simulated-") as place:
                how = {"sets": arguments.sets, "seed": arguments.rng, "through": arguments.through}
                tally = simulate(design, folder=None if arguments.in_memory else Path(place), **how)
            row, holds = row_of(tally)
            every = every and holds
            print(f"| {' | '.join([*row, 'yes' if holds else 'NO'])} |", flush=True)
        print()
    return 0 if every else 1


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m benchmarks.simulate", description=__doc__)
    add = parser.add_argument
    add("--sets", type=int, default=1000, help="comparisons of each kind")
    add("--acts", type=int, help="activations with the baseline; None: the sizes of the whole table")
    add("--seeds", type=int, help="seeds of each; together with --acts")
    add("--table", nargs="+", default=list(TABLES), choices=list(TABLES), help="which tables")
    add("--rng", type=int, default=0, help="seed of the simulation")
    add("--through", type=int, default=0, help="of each kind, how many also go through compare.py --report")
    add("--in-memory", action="store_true", help="without files")
    arguments = parser.parse_args(argv)
    if (arguments.acts is None) != (arguments.seeds is None):
        parser.error("--acts and --seeds go together")
    if arguments.acts is not None and not (2 <= arguments.acts <= len(ACTS) and arguments.seeds >= 2):
        parser.error(f"--acts {arguments.acts} --seeds {arguments.seeds}: expected 2 to {len(ACTS)}, and 2 or more")
    if arguments.sets < 1:
        parser.error(f"--sets {arguments.sets}: expected 1 or more")
    return arguments


if __name__ == "__main__":
    run_script(main)
