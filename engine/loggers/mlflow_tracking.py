"""MLflow. The tracking server and the experiment come from MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from core.text import one_line
from engine.loggers import EpochEnd, Logger, RunEnd, RunStart, plotted, remembered_id
from engine.trainer import Stopped

EXPERIMENT = "yolo-mish"
MAX_PARAM = 500  # characters, the limit of the tracking server
BATCH = 100  # parameters per request, the limit of the tracking server


class MLflow(Logger):
    """Logs the config as parameters, the numbers of each epoch and the final ones as metrics."""

    run_id = ""

    def start(self, run: RunStart) -> None:
        """Start a run, or continue it after a resume; ValueError if there is no server that takes it."""
        try:
            self.client, self.last = MlflowClient(), 0
            self.run_id = remembered_id(run, "mlflow", lambda: self._create(run))
            self.client.set_terminated(self.run_id, "RUNNING")
        except MlflowException as error:
            raise ValueError(
                "mlflow: expected MLFLOW_TRACKING_URI to be the address of a server, as in http://127.0.0.1:5000, or a "
                f"folder, as in file:mlruns with MLFLOW_ALLOW_FILE_STORE=true: {one_line(error)[:200]}"
            ) from error

    def _create(self, run: RunStart) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self.client.get_experiment_by_name(name)
        identity = experiment.experiment_id if experiment is not None else self.client.create_experiment(name)
        run_id: str = self.client.create_run(identity, run_name=run.folder.name).info.run_id
        params = [Param(key, str(value)[:MAX_PARAM]) for key, value in _flatten(run.config).items()]
        for first in range(0, len(params), BATCH):
            self.client.log_batch(run_id, params=params[first : first + BATCH])
        return run_id

    def epoch(self, epoch: EpochEnd) -> None:
        """Log the numbers of an epoch."""
        self.last = epoch.row["epoch"]
        self._log(plotted(epoch.row))

    def end(self, run: RunEnd) -> None:
        """Log the final numbers and finish the run."""
        self._log({f"best/{name}": value for name, value in run.numbers.items()})
        self.client.set_terminated(self.run_id, "FINISHED")

    def fail(self, error: BaseException) -> None:
        """Finish the run as failed, or as killed after a signal."""
        if self.run_id:
            self.client.set_terminated(self.run_id, "KILLED" if isinstance(error, Stopped) else "FAILED")

    def _log(self, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(
            self.run_id, metrics=[Metric(name, value, now, self.last) for name, value in values.items()]
        )


def _flatten(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested keys joined with dots."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
    return flat
