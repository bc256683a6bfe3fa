"""Data issues: images and annotations that are skipped or used in part, one entry each, in the order of the files."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from core.files import write_text
from core.text import printable

ISSUES_FILE = "data_problems.json"

KINDS = {
    "bad-record": "an annotation file record that does not follow the COCO format",
    "bad-box": "a box with NaN, infinite, negative or zero size, or without exactly four numbers",
    "outside": "a box that does not overlap its image",
    "orphan": "an annotation of an image that is not listed",
    "unknown-category": "an annotation of a category that is not listed",
    "duplicate-image": "an image id that occurred before",
    "unsafe-path": "a file name that leads out of the image folder",
    "ambiguous-path": "a file name that is not there and that more than one file fits, or one file several names",
    "missing": "an image file that does not exist or cannot be read",
    "empty": "an empty image file",
    "not-an-image": "a file that is not an image in a known format",
    "damaged": "an image that cannot be decoded completely",
    "too-large": "an image with more pixels than are accepted",
    "value-range": "an image with values of more than 8 bits whose range is unknown",
    "truncated": "a JPEG that ends early, of which less than a tenth is missing; what is there is used",
    "wrong-size": "an image whose size differs from the annotation file",
}
USED = frozenset(("truncated",))  # kinds of which nothing is skipped


@dataclass(frozen=True)
class Issue:
    """An image or annotation that is skipped or used in part."""

    file: str  # file_name of the image, or the annotation file if no image is concerned
    kind: str  # a key of KINDS
    what: str  # what was found and what was expected
    where: str  # the record: annotation file and position in it

    def as_dict(self) -> dict[str, str]:
        """Plain form for a JSON file."""
        return asdict(self)

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.what} ({self.where})")


def summary(issues: Iterable[Issue]) -> str:
    """Counts by kind in one line, as in '3 skipped: 2 bad-box, 1 missing', or 'nothing skipped'."""
    counts = sorted(Counter(issue.kind for issue in issues).items())
    skipped, used = ([(kind, count) for kind, count in counts if (kind in USED) == use] for use in (False, True))
    lists = [", ".join(f"{count} {kind}" for kind, count in chosen) for chosen in (skipped, used)]
    text = f"{sum(count for _, count in skipped)} skipped: {lists[0]}" if skipped else "nothing skipped"
    return f"{text}; used in part: {lists[1]}" if used else text


def refuse(issues: Sequence[Issue]) -> None:
    """Raise ValueError with the first issue, if any (strict loading)."""
    if issues:
        more = f"; and {len(issues) - 1} more issues" if len(issues) > 1 else ""
        raise ValueError(f"{issues[0]}{more}")


# ----------------------------------------------------------------------------------- issues of all splits of a data set


def list_issues(issues: Mapping[str, Iterable[Issue]]) -> list[dict[str, str]]:
    """The issues of all splits as plain entries: split, file, kind, what, where."""
    return [{"split": split, **issue.as_dict()} for split, listed in issues.items() for issue in listed]


def write_issues(folder: str | os.PathLike[str], issues: Sequence[Mapping[str, str]]) -> None:
    """Write data_problems.json unless nothing was skipped."""
    if issues:
        write_text(Path(folder) / ISSUES_FILE, json.dumps(list(issues), indent=1) + "\n")


def count_issues(issues: Sequence[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """Number of issues as {split: {kind: count}}, kinds in alphabetical order."""
    splits = dict.fromkeys(issue["split"] for issue in issues)
    return {
        split: dict(sorted(Counter(issue["kind"] for issue in issues if issue["split"] == split).items()))
        for split in splits
    }


def summarize_issues(issues: Sequence[Mapping[str, str]], shares: Iterable[str] = ()) -> str:
    """Counts by split and kind, as in '3 images or annotations skipped (train: 2 bad-box, 1 empty), ...'.

    `shares`: sentences on splits of which a notable share was skipped; empty ones are left out.
    """
    parts = []
    for verb, use in (("skipped", False), ("used in part", True)):
        chosen = [issue for issue in issues if (issue["kind"] in USED) == use]
        if chosen:
            noun = "image or annotation" if len(chosen) == 1 else "images or annotations"
            parts.append(f"{len(chosen)} {noun} {verb} ({_by_split(chosen)})")
    text = f"{', '.join(parts)}, listed in {ISSUES_FILE}"
    return "; ".join([text, *dict.fromkeys(share for share in shares if share)])


def _by_split(issues: Sequence[Mapping[str, str]]) -> str:
    return "; ".join(
        f"{split}: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}"
        for split, kinds in count_issues(issues).items()
    )
