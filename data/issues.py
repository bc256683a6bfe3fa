"""What was wrong with a data set and therefore skipped: one entry a problem, in the order of the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from core.text import printable


@dataclass(frozen=True)
class Problem:
    """One skipped image or annotation."""

    file: str  # the image's file_name, or the annotation file where no image is concerned
    kind: str  # a short fixed word, as in KINDS
    what: str  # what was found and what was expected
    where: str  # the record: the annotation file and the place in it

    def as_dict(self) -> dict[str, str]:
        """Plain form for a JSON file."""
        return asdict(self)

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.what} ({self.where})")


KINDS = {
    "bad-record": "a record of the annotation file that is not what COCO says",
    "bad-box": "a box with NaN, infinite, negative or zero size, or not of four numbers",
    "outside": "a box that does not touch its image",
    "orphan": "an annotation of an image that is not listed",
    "unknown-category": "an annotation of a category that is not listed",
    "duplicate-image": "an image id that occurred before",
    "duplicate-annotation": "an annotation id that occurred before",
    "unsafe-path": "a file name that leads out of the folder of images",
    "missing": "an image file that does not exist or cannot be read",
    "empty": "an image file of no bytes",
    "not-an-image": "a file that is no image in a known format",
    "damaged": "an image that cannot be decoded to its end",
    "too-large": "an image of more pixels than are accepted",
    "wrong-size": "an image whose size differs from the annotation file's",
}


def summary(problems: Iterable[Problem]) -> str:
    """Counts by kind in one line, as in '3 skipped: 2 bad-box, 1 missing'; 'nothing skipped' where there are none."""
    counts = Counter(problem.kind for problem in problems)
    if not counts:
        return "nothing skipped"
    return f"{sum(counts.values())} skipped: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def refuse(problems: Iterable[Problem]) -> None:
    """Raise ValueError for the first problem, as strict loading asks."""
    listed = list(problems)
    if listed:
        more = f"; and {len(listed) - 1} more problems" if len(listed) > 1 else ""
        raise ValueError(f"{listed[0]}{more}")
