"""The training of a run, from its configuration to its result: the loop of train.py and of ``YOLO.train``."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence

from configs.flags import AUTO
from configs.schema import Config, load
from core.arguments import shown
from core.commands import command
from engine import final_results
from engine.batch_size import choose_batch
from engine.failures import FAILURES
from engine.loggers import Logger, Row
from engine.resume import Resumed, naming_data_flag, resume
from engine.run import TrainingRun
from engine.setup import build, require_shares
from engine.train_result import TrainResult
from engine.trainer import Stopped

METRICS = "metrics/"  # before the names of COCO's numbers in a row


class TrainingFailed(RuntimeError):
    """A run that was ended by its machine, its data or a diverging loss: one line, with the command to resume it."""


def configure(
    cfg: str | None, overrides: Mapping[str, object], *, resumed_from: str | None = None
) -> tuple[Config, Resumed | None]:
    """The configuration of a run: that of a file and ``overrides`` by dotted key, or of the run that is resumed.

    ``train.batch=auto`` is measured. ``resumed_from``: as `engine.resume.resume` takes it. FileNotFoundError or
    ValueError for what is missing or wrong.
    """
    given = dict(overrides)
    if resumed_from is not None:
        if given.get("train.batch") == AUTO:
            raise ValueError("--batch auto: a resumed run keeps its batch size; leave it out")
        resumed = resume(resumed_from, cfg=cfg, overrides=given)
        return resumed.config, resumed
    assert cfg is not None
    if given.get("train.batch") == AUTO:
        given["train.batch"], chosen = choose_batch(load(cfg, {**given, "train.batch": 1}))
        print(chosen, flush=True)
    return load(cfg, given), None


def train(config: Config, resumed: Resumed | None = None, *, loggers: Sequence[Logger] = ()) -> TrainResult:
    """Train a run in this process, alone or with the others of its launcher; ``loggers`` besides those of the config.

    A run that a signal stops is saved and returned as it is. Raises FileNotFoundError or ValueError before anything is
    written, TrainingFailed if the machine, the data or a diverging loss ended the run.
    """
    with naming_data_flag(resumed):
        setup = build(config)
    run = TrainingRun(setup, resumed, loggers=loggers)
    trainer, state, clock = run.trainer, run.trainer.state, run.trainer.clock
    try:
        with run:
            with trainer.stop_on_signals():
                while state.epoch < setup.epochs and not run.out_of_patience():
                    losses = trainer.one_epoch(
                        run.train_loader,
                        title=run.title,
                        count=setup.batches(state.epoch),
                        on_batch=run.before_step,
                        save=run.save_last,
                        save_seconds=run.save_seconds,
                    )
                    result = None
                    if config.train.val or state.epoch + 1 == setup.epochs:
                        with clock.span("validation"):
                            result = run.validate()
                    run.end_epoch(losses, result)
            metrics = final_results.finish(run)
    except Stopped:
        run.save_last()
        return _stopped(run, trainer.stopping)
    except KeyboardInterrupt:
        if state.epoch < setup.epochs and not run.out_of_patience():
            raise  # the second one, in the middle of a step
        return _stopped(run, signal.SIGINT)  # last.pt is that of the last epoch, and a resumed run makes its results
    except FAILURES as error:
        message = run.failure_message(error)
        if message is None:
            raise
        raise TrainingFailed(message) from error
    return TrainResult(run.folder, metrics, state.rows)


def start(
    overrides: Mapping[str, object],
    *,
    cfg: str | None = None,
    resumed_from: str | None = None,
    loggers: Sequence[Logger] = (),
) -> TrainResult:
    """Configure and train a run in a program of the user's, which goes on after Ctrl-C but not after SIGTERM.

    The arguments are those of `configure`, and further loggers. Raises what `configure` and `train` do.
    """
    wrong = next((each for each in loggers if not isinstance(each, Logger)), None)
    if wrong is not None:
        raise ValueError(f"callbacks: found {shown(wrong)}, expected a list of loggers (engine.loggers.Logger)")
    config, resumed = configure(cfg, overrides, resumed_from=resumed_from)
    if require_shares(config) > 1:
        raise ValueError(
            f"device {config.train.device}: Python trains on one device; for several, start a process each with "
            f"{command('train.py', '--device', config.train.device)} ..."
        )
    run = train(config, resumed, loggers=loggers)
    if not run.finished:
        print(run.message, flush=True)
    if run.stopped_by == signal.SIGTERM:
        signal.raise_signal(signal.SIGTERM)  # saved; now what it does to this program
    return run


def _stopped(run: TrainingRun, number: int) -> TrainResult:
    """The result of a run that a signal has ended."""
    rows = run.trainer.state.rows
    return TrainResult(run.folder, _last_metrics(rows), rows, number, run.stop_message())


def _last_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """COCO's numbers in the newest row that has them."""
    for row in reversed(rows):
        found = {name.removeprefix(METRICS): value for name, value in row.items() if name.startswith(METRICS)}
        if found:
            return found
    return {}
