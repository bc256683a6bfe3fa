"""What ``compare`` returns in Python: the folder of a comparison and what its report says."""

from __future__ import annotations

import csv
import html
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.templates import image_tag

PICTURES = ("runs.png", "curves_wide.png")  # in a notebook


@dataclass(frozen=True)
class CompareResult:
    """A comparison; one that was stopped goes on if the same call is made again."""

    folder: Path
    message: str = ""  # of a stopped comparison: why, and how it goes on

    @property
    def finished(self) -> bool:
        """Whether all runs have ended and the report is of all of them."""
        return not self.message

    @property
    def report(self) -> dict[str, Any]:
        """The content of report.json; FileNotFoundError if the comparison was stopped before its report."""
        content: dict[str, Any] = json.loads((self.folder / "report.json").read_text(encoding="utf-8"))
        return content

    @property
    def table(self) -> Any:
        """A row for each activation or arm, as in table.csv: a pandas DataFrame where pandas is installed, else a list
        of dicts of text."""
        if importlib.util.find_spec("pandas") is None:
            with (self.folder / "table.csv").open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        import pandas

        return pandas.read_csv(self.folder / "table.csv")

    def __str__(self) -> str:
        """The recommendation, or where a stopped comparison stands."""
        if not (self.folder / "report.json").is_file():
            return f"{self.folder}: {self.message or 'no report yet'}"
        return f"{self.folder}: {' '.join(self.report['recommendation'])}"

    def _repr_html_(self) -> str:
        """The comparison in a notebook: its recommendation and the mAP of every run."""
        found = [path for name in PICTURES if (path := self.folder / "pictures" / name).is_file()]
        return f"<p>{html.escape(str(self))}</p>" + "".join(map(image_tag, found))
