"""Copy what a comparison's verdict rests on, so that others can audit it: `python -m benchmarks.publish FOLDER TO`.

Plan, tuning, scores and the raw record of every run are copied, about 15 KB a run, with the report's tables, the main
pictures and report.json, as published.json. Weights and detections are not; each run's record has the SHA-256 of the
detections. Absolute paths are replaced; originals.json has the SHA-256 of each file before. `python compare.py --report
TO` then gives the same report, which is checked before anything is written.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.published_paths import replace_paths, without_paths
from comparison.bound import FILE as BOUND
from comparison.deployment import DEPLOYED, LATENCY
from comparison.journal import JOURNAL
from comparison.plan import PLAN
from comparison.report import report
from comparison.runs import SCORES, run_folders
from comparison.search import FOLDER as SEARCH
from comparison.timing_record import TIMING
from comparison.tuning import COMMON
from comparison.tuning import FOLDER as TUNING
from core.commands import command
from core.text import one_line

RAW = ("run.json", "results.csv", SCORES, DEPLOYED, "failure*.json")  # of a run
ABOUT = (PLAN, JOURNAL, TIMING, "timing.csv", LATENCY, f"{SEARCH}/{BOUND}")  # of a comparison
TABLES = ("table.csv", "runs.csv")
PICTURES = ("answer_wide.png", "curves_wide.png", "runs.png", "times.png", "tuning.png", "places.png")
VERDICT = ("verdicts", "time_verdicts", "recommendation", "tuning", "search")  # keys of report.json
ORIGINALS = "originals.json"
ABOUT_ORIGINALS = "SHA-256 of each file before absolute paths in it were replaced, and seals and hashes made anew"
PARTS = (TUNING, COMMON, f"{SEARCH}/round-*")  # subfolders of a comparison that hold runs


def publish(folder: Path, target: Path) -> int:
    """Copy a finished comparison; returns the number of runs. ValueError if the copy has another verdict."""
    if target.exists():
        raise ValueError(f"{target} exists; remove it first")
    with tempfile.TemporaryDirectory() as place:
        again, ready = Path(place, "again", target.name), Path(place, "ready", target.name)
        _copy_comparison(folder, again)
        _report(again)
        published, found = (verdict(each / "report.json") for each in (folder, again))
        if wrong := [key for key in VERDICT if published[key] != found[key]]:
            raise ValueError(f"{folder}: report.json has other {', '.join(wrong)} than its runs; report it again")
        runs = _copy_comparison(folder, ready)
        _copy(folder, ready, TABLES)
        _copy(folder / "pictures", ready, PICTURES)
        shutil.copyfile(folder / "report.json", ready / "published.json")
        shutil.copyfile(again / "report.json", ready / "report.json")  # to be compared, with its paths replaced
        originals = replace_paths(ready)
        originals.pop("report.json", None)
        expected = json.loads((ready / "report.json").read_text(encoding="utf-8"))
        (ready / "report.json").unlink()
        if originals:
            content = {"about": ABOUT_ORIGINALS, "sha256": originals}
            (ready / ORIGINALS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(again)
        shutil.copytree(ready, again)
        if without_paths(_report(again), {}) != expected:
            raise ValueError(f"{folder}: without absolute paths, its records give another report; use relative ones")
        shutil.copytree(ready, target)
    return runs


def _report(folder: Path) -> Any:
    """The content of the report.json of a comparison, written anew."""
    report([folder], folder)
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


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
        if not (options.folder / "report.json").is_file():
            again = command("compare.py", "--report", options.folder)
            raise ValueError(f"{options.folder}: no report.json; write it by {again}")
        print(f"{options.to}: {publish(options.folder, options.to)} runs")
    except (ValueError, OSError) as error:
        print(f"benchmarks.publish: error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
