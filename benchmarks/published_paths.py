"""Published records name no folder of the machine that wrote them: absolute paths are replaced, and seals made anew.

The data folder becomes datasets/NAME, the folder of the comparison its name, and any other path its last part. Seals,
the journal's hashes and the plan that a run names are made anew only where they held, so what was changed before is
found as before.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from comparison.deployment import DEPLOYED
from comparison.journal import JOURNAL, content_sha256, evidence
from comparison.plan import PLAN, read_plan
from comparison.runs import SCORES
from core.seal import SEAL, seal_of

# In any text: from a root or a drive to the end of the last part. PureWindowsPath reads both kinds of separators.
ABSOLUTE = re.compile(r"(?<![\w.~<$}/\\-])(?:/|[A-Za-z]:[\\/]|\\\\)[\w.@][\w.@+=~-]*(?:[\\/]+[\w.@+=~,-]*)*")
RUN, RESULTS = "run.json", "results.csv"
Files = Mapping[Path, bytes]


def replace_paths(folder: Path) -> dict[str, str]:
    """Replace the absolute paths in the records of a comparison, in place.

    Returns the SHA-256 that each changed file had before, by its name in the folder.
    """
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".csv")}
    noted = {path.parent: evidence(path.parent)["files"] for path in before if path.name == RUN}
    known = _known(folder, before)
    for path in (each for each in before if each.name == PLAN):
        old = _reference(path.parent)
        _rewrite(path, before, known)
        known[old] = _reference(path.parent)
    records = [each for each in before if each.suffix == ".json" and each.name != PLAN]
    for path in sorted(records, key=lambda each: each.name != RUN):  # other seals contain that of the run
        _rewrite(path, before, known)
    for path in (each for each in before if each.suffix == ".csv" and each.name != RESULTS):
        path.write_bytes(without_paths(before[path].decode(), known).encode())
    hashes = {content_sha256(content): content_sha256(path.read_bytes()) for path, content in before.items()}
    hashes |= {old: evidence(run)["files"] for run, old in noted.items()}
    journals = {path: path.read_bytes() for path in sorted(folder.rglob(JOURNAL))}
    for path in journals:
        path.write_bytes(_rewritten(journals[path], hashes, known))
    files = (before | journals).items()
    return {path.relative_to(folder).as_posix(): content_sha256(old) for path, old in files if path.read_bytes() != old}


def without_paths(value: Any, known: Mapping[str, str]) -> Any:
    """A text, or a JSON value with texts and keys, in which the known texts and absolute paths are replaced."""
    if isinstance(value, dict):
        return {without_paths(key, known): without_paths(each, known) for key, each in value.items()}
    if isinstance(value, list):
        return [without_paths(each, known) for each in value]
    if not isinstance(value, str):
        return value
    for old in sorted((each for each in known if each in value), key=len, reverse=True):
        whole = rf"(?<![\w.~-]){re.escape(old)}(?![\w.@+=~-])"  # /data/set is no part of /data/set.yaml
        value = known[old].join(re.split(whole, value))
    return ABSOLUTE.sub(lambda found: PureWindowsPath(found[0]).name, value)


def _known(folder: Path, before: Files) -> dict[str, str]:
    """What replaces the folders that are known: those of the data, and of the comparison and its parts."""
    found: dict[str, str] = {}
    for path, content in before.items():
        data: Mapping[str, Any] = {}
        if path.name == RUN:
            config = json.loads(content)["config"]
            data = config.get("data") or {}
            part = path.parents[1].relative_to(folder.parent)
            found[str((config.get("run") or {}).get("project"))] = part.as_posix()
        elif path.name == PLAN:
            data = json.loads(content).get("redrawn") or {}
        root = str(data.get("root"))
        found[root] = f"datasets/{PureWindowsPath(root).name}"
    return {old: new for old, new in found.items() if ABSOLUTE.match(old)}


def _reference(folder: Path) -> str:
    plan = read_plan(folder)
    assert plan is not None
    return plan.reference


def _rewrite(path: Path, before: Files, known: Mapping[str, str]) -> None:
    """Replace the paths in a JSON file, and its seal if it held; its layout stays."""
    old = json.loads(before[path])
    new = without_paths(old, known)
    if SEAL in old and old[SEAL] == seal_of(old, _sealed_with(path, before.__getitem__)):
        new[SEAL] = seal_of(new, _sealed_with(path, Path.read_bytes))
    if new != old:
        first = re.match(rb"\{\n( *)", before[path])
        indent = len(first[1]) if first else None
        text = json.dumps(new, indent=indent, ensure_ascii=before[path].isascii())
        path.write_bytes(f"{text}\n".encode())


def _sealed_with(path: Path, read: Callable[[Path], bytes]) -> bytes:
    """What the seal of a file covers besides its content."""
    if path.name == RUN:
        return read(path.with_name(RESULTS))
    if path.name in (SCORES, DEPLOYED):
        return str(json.loads(read(path.with_name(RUN))).get(SEAL)).encode()
    return b""


def _rewritten(journal: bytes, hashes: Mapping[str, str], known: Mapping[str, str]) -> bytes:
    """A journal with the new hashes of the files; a line that followed those before it does so again."""
    old = new = b""
    for line in journal.splitlines(keepends=True):
        after = line
        try:
            entry = without_paths(json.loads(line), known)
            entry |= {key: hashes.get(entry[key], entry[key]) for key in ("files", "failure") if key in entry}
            if entry.get("before") == content_sha256(old):
                entry["before"] = content_sha256(new)
            after = json.dumps(entry).encode() + b"\n"
        except (ValueError, TypeError, AttributeError):  # a damaged line stays one
            pass
        old, new = old + line, new + after
    return new
