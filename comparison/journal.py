"""The journal of a comparison, journal.jsonl: a line for each start and end of a run, and for each isolated timing.

A line at the end of a run has the hashes of what the run left, and every line the hash of all lines before it. So a run
that was removed, replaced or trained again, a failure that was removed or invented, and an edited journal are found.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from comparison.runs import FAILURE, Run, earlier_failures
from core.files import appending

JOURNAL = "journal.jsonl"
Event = Literal["started", "restarted", "resumed", "finished", "failed", "timed"]
ENDED = ("finished", "failed")


def note(folder: Path, run: str, event: Event) -> None:
    """Append an event of a run, or of the file of a timing, to the journal of its comparison."""
    entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "run": run, "event": event}
    if event in ENDED:
        entry |= evidence(folder / run)
    elif event == "timed":
        entry["files"] = content_sha256((folder / run).read_bytes())
    with appending(folder / JOURNAL) as file:
        file.seek(0)
        before = file.read()
        if before and not before.endswith(b"\n"):  # a process died while it wrote
            file.write(b"\n")
            before += b"\n"
        file.write(json.dumps({**entry, "before": content_sha256(before)}).encode() + b"\n")


def note_ended(folder: Path, statuses: Mapping[str, str]) -> None:
    """Note the ends of runs whose starts were noted, but not their ends, as the comparison was killed before."""
    events = read_journal(folder).events
    for run, status in statuses.items():
        if status in ENDED and run in events and events[run][-1]["event"] not in ENDED:
            note(folder, run, "finished" if status == "finished" else "failed")


@dataclass(frozen=True, kw_only=True)
class Journal:
    """The events by run, and whether each line follows those before it."""

    events: Mapping[str, list[dict[str, Any]]]
    chained: bool


def read_journal(folder: Path) -> Journal:
    """The journal of a comparison; damaged lines are passed over, and earlier versions wrote none."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    file, before, chained = folder / JOURNAL, b"", True
    for line in file.read_bytes().splitlines(keepends=True) if file.is_file() else ():
        try:
            entry = json.loads(line)
            found[str(entry["run"])].append({"event": str(entry["event"]), **entry})
            chained &= entry.get("before") == content_sha256(before)
        except (ValueError, LookupError, TypeError):
            pass
        before += line
    return Journal(events=found, chained=chained)


def timings(file: Path) -> tuple[int, bool]:
    """How often an isolated timing was measured into this file, and whether it holds the last one, as far as noted."""
    noted = [each for each in read_journal(file.parent).events.get(file.name, ()) if each["event"] == "timed"]
    held = file.is_file() and bool(noted) and noted[-1].get("files") == content_sha256(file.read_bytes())
    return len(noted), held or not noted


@dataclass(frozen=True, kw_only=True)
class Irregular:
    """The names of runs whose folders are not what the journal says."""

    again: tuple[str, ...] = ()  # started anew after they had finished, or after their folder was removed
    lost: tuple[str, ...] = ()  # fewer failures than noted
    other: tuple[str, ...] = ()  # removed, replaced or changed since their end, or their end is not noted
    edited: bool = False  # the journal itself


def irregular(folder: Path, runs: Mapping[str, Run | None], *, complete: bool) -> Irregular:
    """What the journal of a comparison says against its runs, by their names in the plan; None if there is no such run.

    `complete`: the journal has the end of every run and is chained, which those of earlier versions are not.
    """
    journal = read_journal(folder)
    again, lost, other = [], [], []
    for name, run in runs.items():
        events = journal.events.get(name, [])
        names = [each["event"] for each in events]
        if _trained_again(names, complete=complete):
            again.append(name)
        elif complete and not _as_noted(events, run):
            other.append(name)
        if run is not None and names.count("failed") > len(_failures(run)):
            lost.append(name)
    return Irregular(again=tuple(again), lost=tuple(lost), other=tuple(other), edited=complete and not journal.chained)


def _trained_again(names: Sequence[str], *, complete: bool) -> bool:
    after = names[names.index("finished") :] if "finished" in names else []
    if "started" in after:
        return True
    return complete and ("restarted" in after or names.count("started") > 1)


def _as_noted(events: Sequence[Mapping[str, Any]], run: Run | None) -> bool:
    """Whether the files of a run are those of its last noted end, and its failures those that were noted."""
    ends = [each for each in events if each["event"] in ENDED]
    if run is None:
        return not ends
    if run.status == "unfinished":
        return not any(each["event"] == "finished" for each in ends)
    if not ends or any(each["event"] != run.status for each in ends[-1:]):
        return False
    failures = [each.get("failure") for each in ends if each["event"] == "failed"]
    files_changed = ends[-1].get("files") != evidence(run.folder)["files"]
    return not files_changed and failures[: len(_failures(run))] == _failures(run)


def _failures(run: Run) -> list[str]:
    files = [*earlier_failures(run.folder), run.folder / FAILURE]
    return [content_sha256(each.read_bytes()) for each in files if each.is_file()]


def evidence(run: Path) -> dict[str, str]:
    """The hashes of the files that a comparison reads of a run."""
    found = {}
    failure, files = run / FAILURE, [run / name for name in ("run.json", "results.csv")]
    if failure.is_file():
        found["failure"] = content_sha256(failure.read_bytes())
    content = [each.read_bytes() if each.is_file() else b"" for each in files]
    return {**found, "files": content_sha256(b"\0".join(content))}


def content_sha256(content: bytes) -> str:
    """The hash by which the journal knows a content."""
    return hashlib.sha256(content).hexdigest()
