"""What a training returns in Python: its folder, its metrics, and its history."""

from __future__ import annotations

import html
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.metrics import FITNESS
from core.templates import image_tag
from engine.loggers import Row

SHOWN = ("results.png", "val_batch0_pred.jpg")  # pictures in a notebook


@dataclass(frozen=True)
class TrainResult:
    """A run, finished or stopped."""

    folder: Path
    metrics: Mapping[str, float]  # COCO's twelve of the best weights; of a stopped run those of its last validation
    rows: Sequence[Row]  # of results.csv, one for each finished epoch
    stopped_by: int = 0  # the number of the signal that stopped the run, such as Ctrl-C's 2; 0: it is finished
    message: str = ""  # of a stopped run: where it stands, and the command that resumes it

    @property
    def finished(self) -> bool:
        """Whether all epochs are trained and the best weights are scored."""
        return not self.stopped_by

    @property
    def best(self) -> Path:
        """The weights of the best epoch; before the end of the first epoch there are none."""
        return self.folder / "weights" / "best.pt"

    @property
    def last(self) -> Path:
        """The checkpoint that a stopped run is resumed from."""
        return self.folder / "weights" / "last.pt"

    @property
    def history(self) -> Any:
        """The rows of results.csv: a pandas DataFrame where pandas is installed, else a list of dicts."""
        rows = [dict(row) for row in self.rows]
        if importlib.util.find_spec("pandas") is None:
            return rows
        import pandas

        return pandas.DataFrame(rows)

    def __str__(self) -> str:
        """Folder, state and mAP in one line."""
        score = self.metrics.get(FITNESS, -1)
        state = f"{'finished' if self.finished else 'stopped'} after {len(self.rows)} epochs"
        return f"{self.folder}: {state}" + (f", {FITNESS} {score:.3f}" if score >= 0 else "")

    def _repr_html_(self) -> str:
        """The run in a notebook: the line, the curves of its losses and metrics, and detections of its best weights."""
        pictures = [self.folder / name for name in SHOWN if (self.folder / name).is_file()]
        return f"<p>{html.escape(str(self))}</p>" + "".join(map(image_tag, pictures))
