"""The journal of a comparison, journal.jsonl: a line for each start and end of a run.

A run that was removed and trained again, and a failure that was removed, leave a trace there.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from comparison.runs import FAILURE, Run, earlier_failures

JOURNAL = "journal.jsonl"
Event = Literal["started", "resumed", "finished", "failed"]


def note(folder: Path, run: str, event: Event) -> None:
    """Append an event of a run to the journal of its comparison."""
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), "run": run, "event": event})
    with open(folder / JOURNAL, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def retrained(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """The names of runs that were started anew after they had finished, and of those with fewer failures than noted."""
    events = {folder: _read(folder / JOURNAL) for folder in {run.folder.parent for run in runs}}
    again, lost = [], []
    for run in runs:
        own = events[run.folder.parent][run.folder.name]
        if "finished" in own and "started" in own[own.index("finished") :]:
            again.append(run.folder.name)
        kept = len(earlier_failures(run.folder)) + (run.folder / FAILURE).is_file()
        if own.count("failed") > kept:
            lost.append(run.folder.name)
    return again, lost


def _read(file: Path) -> dict[str, list[str]]:
    """The events by run; lines that are damaged are passed over, as comparisons of earlier versions have no journal."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else ():
        try:
            entry = json.loads(line)
            found[str(entry["run"])].append(str(entry["event"]))
        except (ValueError, LookupError, TypeError):
            continue
    return found
