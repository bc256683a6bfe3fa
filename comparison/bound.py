"""The bound of a search (--search-bound): latency on a runtime, or time of a training step, relative to the baseline's.

It is measured before any training, for neither depends on trained weights: batches of untrained networks beside the
baseline, interleaved in random order. Times taken beside other processes do not count, and are measured again.
"""

import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from comparison.arms import Arm
from comparison.checks import MAX_OTHER_CORES
from comparison.choices import Bound
from comparison.job import run_module
from comparison.plan import Overrides
from core.files import write_text
from core.seal import SEAL, seal_of

STEP = "step"  # of training, beside the runtimes
ROUNDS = 30
FILE = "bound.json"  # in the folder of the search
Measure = Callable[[Sequence[Arm]], Mapping[str, Any]]
"""Times networks side by side, the baseline first: times_ms by arm, a value for each round, and other_cores."""


class Disturbed(Exception):  # noqa: N818 - not an error
    """Other processes were busy during a measurement; it can be repeated."""


def parse_bound(text: str) -> tuple[str, float]:
    """The name and the limit of "onnxruntime=1.10"; ValueError for anything else."""
    name, _, number = text.partition("=")
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not name.strip() or not 0 < limit < math.inf:
        raise ValueError(
            f"--search-bound {text}: expected a runtime of --deploy, or {STEP} for the training step, and the largest "
            "ratio to the baseline, as in onnxruntime=1.10"
        )
    return name.strip(), limit


def within(
    bound: tuple[str, float], baseline: Arm, batches: Iterable[Sequence[Arm]], folder: Path, measure: Measure, most: int
) -> tuple[Bound, list[str]]:
    """Measure batches until ``most`` arms are within the bound; returns all ratios, and the names of these arms.

    Batches that the file in ``folder`` has are not measured again. Raises Disturbed, and ValueError if none is within.
    """
    place, limit = bound
    content = read(folder) or {"format": 1, "place": place, "batches": []}
    if content["place"] != place:
        raise ValueError(f"{folder / FILE}: measured for {content['place']}; choose another --name")
    ratios: dict[str, float] = {}
    for number, batch in enumerate(batches):
        names = [baseline.name, *(arm.name for arm in batch)]
        if number == len(content["batches"]):
            print(f"timing {len(batch)} untrained mixtures beside {baseline.name}: {place} ...", flush=True)
            found = dict(measure([baseline, *batch]))
            cores = found["other_cores"]
            if cores is None or cores > MAX_OTHER_CORES:
                used = "an unknown number of" if cores is None else f"{cores:.2f}"
                raise Disturbed(
                    f"--search-bound: other processes used {used} cores during the measurement, so its times do not "
                    f"count (at most {MAX_OTHER_CORES:g})"
                )
            content["batches"].append(found)
            content[SEAL] = seal_of(content, b"")
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / FILE, json.dumps(content, indent=1) + "\n")
        if list(content["batches"][number]["times_ms"]) != names:
            raise ValueError(f"{folder / FILE}: it has other mixtures; choose another --name")
        ratios |= ratios_of(content["batches"][number])
        if sum(ratio <= limit for ratio in ratios.values()) >= most:
            break
    inside = [name for name, ratio in ratios.items() if ratio <= limit][:most]
    if not inside:
        fastest = min(ratios, key=lambda name: ratios[name])
        raise ValueError(
            f"--search-bound {place}={limit:g}: none of {len(ratios)} mixtures is within it; the fastest, {fastest}, "
            f"takes {ratios[fastest]:.3f} times as long as {baseline.name}"
        )
    return Bound(place=place, limit=limit, baseline=baseline.name, ratios=ratios), inside


def ratios_of(batch: Mapping[str, Any]) -> dict[str, float]:
    """By mixture, the median over the rounds of the ratio to the baseline, which comes first, in the same round."""
    (_, base), *others = batch["times_ms"].items()
    return {name: round(median(x / y for x, y in zip(times, base, strict=True)), 4) for name, times in others}


def read(folder: Path) -> dict[str, Any]:
    """The measurements in the folder of a search, {} without any. ValueError if they are damaged or were changed."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["batches"], list) or not isinstance(content["place"], str):
            raise TypeError
        changed = content[SEAL] != seal_of(content, b"")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged; restore it, or remove it to measure again") from error
    if changed:
        raise ValueError(f"{path}: changed after it was written (the seal does not match); restore it")
    return content if isinstance(content, dict) else {}


def unlike(bound: Bound, folder: Path) -> list[str]:
    """The mixtures whose frozen ratios are not those in the folder of the search."""
    measured: dict[str, float] = {}
    for batch in read(folder).get("batches", ()):
        measured |= ratios_of(batch)
    return [name for name, ratio in bound.ratios.items() if measured.get(name) != ratio]


def measure_latency(
    target: str, threads: int, arms: Sequence[Arm], common: Overrides, *, cfg: str
) -> Mapping[str, Any]:
    """The latency of untrained networks on a runtime, in a separate process."""
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "latency.json"
        words = ["--target", target, "--deploy-threads", str(threads), "--rounds", str(ROUNDS), "--output", str(output)]
        words += ["--cfg", cfg, "--acts", *(arm.name for arm in arms)]
        if common:
            words += ["--set", *(f"{key}={json.dumps(value)}" for key, value in common.items())]
        run_module("comparison.untrained_latency", *words, error="--search-bound")
        content = json.loads(output.read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        return content
