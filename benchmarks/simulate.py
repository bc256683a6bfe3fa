"""Simulate the error rate and power of comparisons: ``python -m benchmarks.simulate --sets 1000 --acts 3 --seeds 5``.

Comparisons with known true differences are drawn, written as run folders with a plan like those of compare.py (without
training), read back and passed through the analysis of the report; their verdicts are counted. ``--table`` selects the
tables: error, power, detectable, or of intervals alone, with a noisy candidate: scatter (against the baseline) and
pairs (candidates against each other).

Model: value = mean + activation + seed + residual; sigma is the standard deviation of the residual.
"""

import math
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.simulated_runs import (
    ACTS,
    NOISES,
    SCATTER,
    SIGMA,
    Design,
    check_command,
    in_memory,
    plan_of,
    residuals,
    through_folders,
)
from comparison.all_pairs import all_pairs
from comparison.power import power
from comparison.statistics import Difference, Values, compare
from comparison.summary import Kind, Metric, Outcome
from configs.cli import Parser, run_script

SIGNIFICANT: tuple[Kind, ...] = ("higher", "lower", "higher-within-margin", "lower-within-margin")
COVERAGE = (93.0, 98.0)  # %
POWER_TOLERANCE = 3.0  # percentage points, of 1,000 sets
DETECTABLE_TOLERANCE = 0.10  # relative
CONSERVATIVE_POWER = {  # %, by activations and seeds, at 1, 2 and 3 sigma: from 40,000 sets of separate code
    (2, 3): (12, 29, 51), (2, 5): (23, 67, 93), (2, 9): (46, 96, 100),
    (3, 3): (8, 27, 55), (3, 5): (16, 60, 93), (5, 3): (6, 26, 60), (5, 5): (12, 57, 92),
}  # fmt: skip


@dataclass
class Tally:
    """Counts over the sets of a design, for the primary metric unless stated otherwise."""

    design: Design
    sets: int = 0
    without: int = 0  # sets without an interval, because the runs of the baseline failed
    any_significant: int = 0  # sets with a candidate that is significantly higher or lower
    significant: int = 0  # such candidates
    candidates: int = 0
    covered: int = 0  # sets in which every interval contains the true difference
    time_significant: int = 0  # sets in which an interval of the time ratio excludes 1
    until_significant: int = 0  # sets in which an interval at equal time excludes 0
    needs: list[float] = field(default_factory=list)  # half-width -+ error: a larger true difference is significant

    def add(self, outcome: Outcome) -> None:
        """Count a set."""
        self.sets += 1
        comparison = outcome.primary.comparison
        differences = list(comparison.differences.values()) if comparison else []
        significant = len(outcome.of_kind(*SIGNIFICANT))
        self.any_significant += significant > 0
        self.significant += significant
        self.candidates += len(outcome.verdicts)
        self.time_significant += _excludes(outcome.time, 1.0)
        self.until_significant += _excludes(outcome.metrics["until"], 0.0)
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
        """Percentage of the candidates that are significantly higher or lower."""
        return 100 * self.significant / max(self.candidates, 1)

    def detectable(self, chance: float = 0.8) -> float:
        """The true difference, in sigma, that is significant with this probability.

        A shift does not change the width of an interval, so each case tells from which difference on it excludes 0.
        """
        return float(np.quantile(self.needs, chance)) / SIGMA


def _excludes(metric: Metric, null: float) -> bool:
    differences = metric.comparison.differences.values() if metric.comparison else ()
    return any(each.interval and not each.interval[0] <= null <= each.interval[1] for each in differences)


# ------------------------------------------------------------------------------------------------------- the tables


def simulate(design: Design, *, sets: int, seed: int, folder: Path | None = None, through: int = 0) -> Tally:
    """Draw and analyse sets, through run folders below `folder` if given.

    The first `through` of them are also reported with compare.py.
    """
    generator = np.random.default_rng([seed, design.acts, design.seeds, NOISES.index(design.noise), *_whole(design)])
    tally = Tally(design)
    for number in range(sets):
        if folder is None:
            tally.add(in_memory(design, generator))
            continue
        place = folder / f"set{number}"
        outcome = through_folders(design, generator, folder=place)
        tally.add(outcome)
        if number < through:
            check_command(place, outcome)
        shutil.rmtree(place)
    return tally


def _whole(design: Design) -> tuple[int, int]:
    return round(1000 * design.missing), round(1000 * design.effect)


def error_designs(sizes: Sequence[tuple[int, int]]) -> list[Design]:
    """Comparisons without true differences."""
    kinds = (*((noise, 0.0) for noise in NOISES), ("normal", 0.1), ("t3", 0.1))
    return [
        Design(acts=acts, seeds=seeds, noise=noise, missing=missing)
        for noise, missing in kinds
        for acts, seeds in sizes
    ]


def power_designs(sizes: Sequence[tuple[int, int]]) -> list[Design]:
    """Comparisons whose candidates differ by 1, 2 and 3 sigma."""
    return [Design(acts=acts, seeds=seeds, effect=effect) for acts, seeds in sizes for effect in (1.0, 2.0, 3.0)]


def max_error(sets: int) -> float:
    """The bound of the error rate in %: 5 % plus two standard errors, 6.4 % for 1,000 sets."""
    return 5 + 200 * math.sqrt(0.05 * 0.95 / sets)


def error_row(tally: Tally) -> tuple[list[str], bool]:
    """Family-wise error rates and joint coverage, which has an upper bound only for normal residuals."""
    design, error, covered = tally.design, tally.percent(tally.any_significant), tally.percent(tally.covered)
    holds = error <= max_error(tally.sets) and (covered <= COVERAGE[1] or design.noise != "normal")
    missing = f"{100 * design.missing:g} %" if design.missing else "none"
    further = [f"{tally.percent(count):.1f}" for count in (tally.time_significant, tally.until_significant)]
    figures = [f"{error:.1f}", f"{covered:.1f}", *further, str(tally.without)]
    return [str(design.acts), str(design.seeds), design.noise, missing, str(tally.sets), *figures], holds


def power_row(tally: Tally) -> tuple[list[str], bool]:
    """Power, its expected value, and coverage for comparisons with true differences."""
    design, covered = tally.design, tally.percent(tally.covered)
    candidates = design.acts - 1
    formula = 100 * power(design.effect, sigma=1, candidates=candidates, seeds=design.seeds)
    known = CONSERVATIVE_POWER.get((design.acts, design.seeds))
    expected = float(known[int(design.effect) - 1]) if known and design.effect in (1.0, 2.0, 3.0) else formula
    tolerance = POWER_TOLERANCE * math.sqrt(1000 / tally.sets)
    holds = abs(tally.power - expected) <= tolerance and COVERAGE[0] <= covered <= COVERAGE[1]
    size = [str(design.acts), str(design.seeds), f"{design.effect:g} sigma", str(tally.sets)]
    return [*size, f"{tally.power:.1f}", f"{expected:.0f}", f"{formula:.1f}", f"{covered:.1f}"], holds


def detectable_row(tally: Tally) -> tuple[list[str], bool]:
    """The difference detected with 80 % probability: as printed before the runs, and simulated."""
    plan, simulated = plan_of(tally.design), tally.detectable()
    printed = plan.detectable(1.0)
    deviation = printed / simulated - 1
    row = [str(tally.design.acts), str(tally.design.seeds), str(tally.sets), f"{printed:.2f}", f"{simulated:.2f}"]
    return [*row, f"{100 * deviation:+.1f} %"], abs(deviation) <= DETECTABLE_TOLERANCE


def scatter_errors(acts: int, seeds: int, *, sets: int, seed: int, pairs: bool = False) -> dict[int, float]:
    """Family-wise error rate in % by the last candidate's sd in units of the others'; intervals alone, without runs.

    ``pairs``: of the candidates against each other instead of against the baseline.
    """
    errors = {}
    for factor in SCATTER:
        generator = np.random.default_rng([seed, acts, seeds, factor])
        design = Design(acts=acts, seeds=seeds, noise="normal" if factor == 1 else f"candidate x{factor}")
        wrong = 0
        for _ in range(sets):
            table = residuals(design, generator).tolist()
            values = {ACTS[act]: dict(enumerate(row)) for act, row in enumerate(table)}
            found = all_pairs(values, baseline=ACTS[0]) if pairs else _differences(values)
            wrong += any(each.interval and not each.interval[0] <= 0 <= each.interval[1] for each in found)
        errors[factor] = 100 * wrong / sets
    return errors


def _differences(values: Values) -> Sequence[Difference]:
    return list(compare(values, baseline=ACTS[0]).differences.values())


SIZES = ((2, 3), (2, 5), (2, 9), (3, 3), (3, 5), (5, 3), (5, 5))
ERROR_HEAD = (
    "activations", "seeds", "residuals", "failed", "sets", "error %", "coverage %", "error of time %",
    "error at equal time %", "sets without interval",
)  # fmt: skip
POWER_HEAD = (
    "activations",
    "seeds",
    "difference",
    "sets",
    "power %",
    "expected %",
    "formula without conservative errors %",
    "coverage %",
)
SCATTER_HEAD = ("activations", "seeds", "sets", *(f"error %, candidate x{factor}" for factor in SCATTER))
SCATTER_SETS = 10  # times --sets
DETECTABLE_HEAD = ("activations", "seeds", "sets", "printed beforehand, sigma", "simulated, sigma", "deviation")
TABLES = {
    "error": (ERROR_HEAD, error_designs, error_row),
    "power": (POWER_HEAD, power_designs, power_row),
    "detectable": (DETECTABLE_HEAD, lambda sizes: [Design(acts=a, seeds=s) for a, s in sizes], detectable_row),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate and print tables in Markdown; 1 if a bound does not hold."""
    arguments = parse(argv)
    sizes = [(arguments.acts, arguments.seeds)] if arguments.acts else SIZES
    all_hold = True
    for name in [each for each in arguments.table if each in ("scatter", "pairs")]:
        print_scatter(sizes, sets=SCATTER_SETS * arguments.sets, seed=arguments.rng, pairs=name == "pairs")
    for name in [each for each in arguments.table if each in TABLES]:
        head, designs, row_of = TABLES[name]
        print(f"| {' | '.join([*head, 'holds'])} |\n|{'---|' * (len(head) + 1)}", flush=True)
        for design in designs(sizes):
            with tempfile.TemporaryDirectory(prefix="simulated-") as place:
                folder = None if arguments.in_memory else Path(place)
                tally = simulate(
                    design, sets=arguments.sets, seed=arguments.rng, folder=folder, through=arguments.through
                )
            row, holds = row_of(tally)
            all_hold = all_hold and holds
            print(f"| {' | '.join([*row, 'yes' if holds else 'NO'])} |", flush=True)
        print()
    return 0 if all_hold else 1


def print_scatter(sizes: Sequence[tuple[int, int]], *, sets: int, seed: int, pairs: bool) -> None:
    """Print the table of error rates with a noisy candidate; no bound is required."""
    print(f"| {' | '.join(SCATTER_HEAD)} |\n|{'---|' * len(SCATTER_HEAD)}", flush=True)
    for acts, seeds in [(acts, seeds) for acts, seeds in sizes if acts > 2 or not pairs]:
        errors = scatter_errors(acts, seeds, sets=sets, seed=seed, pairs=pairs)
        print(f"| {acts} | {seeds} | {sets} | {' | '.join(f'{each:.1f}' for each in errors.values())} |", flush=True)
    print()


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m benchmarks.simulate", description=__doc__)
    add = parser.add_argument
    add("--sets", type=int, default=1000, help="comparisons of each design")
    add("--acts", type=int, help="activations, including the baseline; default: all sizes of the table")
    add("--seeds", type=int, help="seeds per activation; requires --acts")
    add("--table", nargs="+", default=list(TABLES), choices=[*TABLES, "scatter", "pairs"], help="tables to print")
    add("--rng", type=int, default=0, help="seed of the simulation")
    add("--through", type=int, default=0, help="sets of each design to report with compare.py as well")
    add("--in-memory", action="store_true", help="do not write run folders")
    arguments = parser.parse_args(argv)
    if (arguments.acts is None) != (arguments.seeds is None):
        parser.error("--acts and --seeds must be given together")
    if arguments.acts is not None and not (2 <= arguments.acts <= len(ACTS) and arguments.seeds >= 2):
        parser.error(f"--acts {arguments.acts} --seeds {arguments.seeds}: expected 2 to {len(ACTS)}, and 2 or more")
    if arguments.sets < 1:
        parser.error(f"--sets {arguments.sets}: expected 1 or more")
    return arguments


if __name__ == "__main__":
    run_script(main)
