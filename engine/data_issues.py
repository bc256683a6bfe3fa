"""The data issues of a run: what was skipped when the data were read, listed in a file and counted in one line."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from core.files import write_text
from data.issues import Problem

FILE = "data_problems.json"


def list_issues(ledgers: Mapping[str, Iterable[Problem]]) -> list[dict[str, str]]:
    """The issues of all splits as plain values: split, file, kind, what, where."""
    return [{"split": split, **issue.as_dict()} for split, ledger in ledgers.items() for issue in ledger]


def write_issues(folder: str | os.PathLike, issues: Sequence[Mapping[str, str]]) -> None:
    """Write data_problems.json into a folder, or nothing if there are no issues."""
    if issues:
        write_text(Path(folder) / FILE, json.dumps(list(issues), indent=1) + "\n")


def count_issues(issues: Sequence[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """The number of issues by split and kind, {split: {kind: count}}, kinds in alphabetical order."""
    splits = dict.fromkeys(issue["split"] for issue in issues)
    return {
        split: dict(sorted(Counter(issue["kind"] for issue in issues if issue["split"] == split).items()))
        for split in splits
    }


def summarize_issues(issues: Sequence[Mapping[str, str]]) -> str:
    """One line, as in '3 images or annotations skipped (train: 2 bad-box, 1 empty), ...'."""
    parts = [
        f"{split}: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}"
        for split, kinds in count_issues(issues).items()
    ]
    noun = "image or annotation" if len(issues) == 1 else "images or annotations"
    return f"{len(issues)} {noun} skipped ({'; '.join(parts)}), listed in {FILE}"
