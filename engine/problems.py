"""The ledger of a data set in a run folder: what was skipped, in one file and counted in one line."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.files import write_text

LEDGER = "data_problems.json"


def listed(splits: Mapping[str, Any]) -> list[dict[str, str]]:
    """The entries of the `.ledger` of loaded splits: split, file, kind, what, where."""
    return [{"split": split, **problem.as_dict()} for split, data in splits.items() for problem in data.ledger]


def write_ledger(folder: str | os.PathLike, problems: Sequence[Mapping[str, str]]) -> None:
    """Write data_problems.json, or nothing where nothing was skipped."""
    if problems:
        write_text(Path(folder) / LEDGER, json.dumps(list(problems), indent=1) + "\n")


def counts(problems: Sequence[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """How many problems of which kind each split has, {split: {kind: count}}, kinds in the order of the alphabet."""
    splits = dict.fromkeys(problem["split"] for problem in problems)
    return {
        split: dict(sorted(Counter(problem["kind"] for problem in problems if problem["split"] == split).items()))
        for split in splits
    }


def counted(problems: Sequence[Mapping[str, str]]) -> str:
    """Their number by split and kind, as in '3 images or annotations skipped (train: 2 bad-box, 1 empty), ...'."""
    parts = [
        f"{split}: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}"
        for split, kinds in counts(problems).items()
    ]
    noun = "image or annotation" if len(problems) == 1 else "images or annotations"
    return f"{len(problems)} {noun} skipped ({'; '.join(parts)}), listed in {LEDGER}"
