"""Copy what a comparison's verdict rests on, so that others can audit it: `python -m benchmarks.publish FOLDER TO`.

Plan, tuning, scores and the raw record of every run are copied, about 15 KB a run, with the report's tables, the main
pictures and report.json, as published.json. Weights and detections are not; each run's record has the SHA-256 of the
detections. `python compare.py --report TO` then gives the same verdict, which is checked before anything is written.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from comparison.deployment import DEPLOYED, LATENCY
from comparison.journal import JOURNAL
from comparison.plan import PLAN
from comparison.report import report
from comparison.runs import SCORES, run_folders
from comparison.search import FOLDER as SEARCH
from comparison.timing_record import TIMING
from comparison.tuning import COMMON
from comparison.tuning import FOLDER as TUNING

RAW = ("run.json", "results.csv", SCORES, DEPLOYED, "failure*.json")  # of a run
ABOUT = (PLAN, JOURNAL, TIMING, "timing.csv", LATENCY)  # of a comparison
TABLES = ("table.csv", "runs.csv")
PICTURES = ("answer_wide.png", "curves_wide.png", "runs.png", "times.png", "tuning.png", "places.png")
VERDICT = ("verdicts", "time_verdicts", "recommendation", "tuning", "search")  # keys of report.json
PARTS = (TUNING, COMMON, f"{SEARCH}/round-*")  # subfolders of a comparison that hold runs


def publish(folder: Path, target: Path) -> int:
    """Copy a finished comparison; returns the number of runs. ValueError if the copy has another verdict."""
    if target.exists():
        raise ValueError(f"{target} exists; remove it first")
    with tempfile.TemporaryDirectory() as place:
        again = Path(place, target.name)
        _copy_comparison(folder, again)
        report([again], again)
        published, found = (verdict(each / "report.json") for each in (folder, again))
        if wrong := [key for key in VERDICT if published[key] != found[key]]:
            raise ValueError(f"{folder}: report.json has other {', '.join(wrong)} than its runs; report it again")
    runs = _copy_comparison(folder, target)
    _copy(folder, target, TABLES)
    _copy(folder / "pictures", target, PICTURES)
    shutil.copyfile(folder / "report.json", target / "published.json")
    return runs


def verdict(report_json: Path) -> dict[str, object]:
    """What a report concludes."""
    content = json.loads(report_json.read_text(encoding="utf-8"))
    return {key: content.get(key) for key in VERDICT}  # older ones have no search


def _copy_comparison(folder: Path, target: Path) -> int:
    """Copy the plan and the runs of a comparison and of its parts; returns the number of runs."""
    _copy(folder, target, ABOUT)
    runs = run_folders(folder)
    for run in runs:
        _copy(run, target / run.name, RAW)
    parts = [part for pattern in PARTS for part in sorted(folder.glob(pattern)) if (part / PLAN).is_file()]
    return len(runs) + sum(_copy_comparison(part, target / part.relative_to(folder)) for part in parts)


def _copy(folder: Path, target: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            to = target / path.relative_to(folder)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of a comparison, with its plan.json")
    parser.add_argument("to", type=Path, help="new folder, as in docs/results/NAME")
    options = parser.parse_args(arguments)
    try:
        if not (options.folder / PLAN).is_file():
            raise ValueError(f"{options.folder}: expected the folder of a comparison, with its plan.json")
        print(f"{options.to}: {publish(options.folder, options.to)} runs")
    except (ValueError, OSError) as error:
        print(f"benchmarks.publish: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
