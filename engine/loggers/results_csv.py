"""results.csv: one row per epoch. The file is rewritten as a whole each time, so it never ends within a row."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from core.files import write_text
from core.metrics import results_table
from engine.loggers import EpochEnd, Logger, Row, RunStart, is_defined


class ResultsCsv(Logger):
    """Writes results.csv with the columns of core.metrics, followed by any others that the rows have."""

    def start(self, run: RunStart) -> None:
        """Replace the rows of a file from before a resume by those of the checkpoint."""
        self.path = run.folder / "results.csv"
        self.columns = [metric.key for metric in results_table(run.loss_names)]
        self.rows = [dict(row) for row in run.rows]
        if self.rows:
            write_rows(self.path, self.rows, self.columns)

    def epoch(self, epoch: EpochEnd) -> None:
        """Add the row of an epoch, or replace it."""
        self.rows = [row for row in self.rows if row.get("epoch") != epoch.row.get("epoch")] + [dict(epoch.row)]
        write_rows(self.path, self.rows, self.columns)


def write_rows(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Write rows as CSV: the given columns, then further ones in the order in which they occur."""
    others = dict.fromkeys(name for row in rows for name in row if name not in columns)
    names = [*columns, *others]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[_cell(name, row.get(name)) for name in names] for row in rows])
    write_text(path, text.getvalue())


def _cell(name: str, value: object) -> str:
    """A value as text with six significant digits; empty if undefined."""
    if not is_defined(name, value):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
