"""The end of a run: its best weights are scored, and its last files and its summary are written."""

from __future__ import annotations

from pathlib import Path

from core.commands import command, near
from core.device import out_of_memory
from core.distributed import from_main, is_main, world
from core.files import file_sha256
from core.metrics import FITNESS
from core.types import Batch
from engine.checkpoint import load_checkpoint
from engine.diagnostics import IMAGES, Diagnostics, diagnose, latency_ms
from engine.evaluation.coco import write_ground_truth, write_predictions
from engine.evaluation.errors import find_errors
from engine.loggers import RunEnd
from engine.loggers.console import end_summary
from engine.pictures import error_page, evaluation_plots, plots
from engine.run import NO_OBJECTS, TrainingRun
from engine.run_record import finish_run


def finish(run: TrainingRun) -> dict[str, float]:
    """Score the best weights with pycocotools, draw the pictures, complete run.json, and close the loggers.

    Returns COCO's twelve numbers of the best weights. Of several processes, all detect and rank 0 does the rest.
    """
    trainer, folder, state = run.trainer, run.folder, run.trainer.state
    trainer.clock.close_epoch()
    _write_last_predictions(run)
    best = folder / "weights" / "best.pt"
    if is_main():
        batch = next(iter(run.val_loader))  # once: data workers that read ahead would disturb the latency
        diagnostics, scored = _diagnose(run, batch), _scored(run)
    found = from_main(best.is_file)
    if found:
        trainer.eval_model.load_state_dict(load_checkpoint(best)["model"])
    result = run.validate(official=True)
    if result is None:
        return {}
    if not found:
        run.save_best(result)
    numbers = result.stats.numbers
    plots.plot_results(folder / "results.png", state.rows)
    evaluation_plots.plot_evaluation(folder, result)
    write_predictions(folder / "predictions.json", result.predictions, result.truth)
    if run.config.run.plan is None:  # a comparison has one page for all its runs
        errors = find_errors(result.truth, result.predictions, confidence=result.stats.confidence)
        error_page.write_errors(folder, errors, result.truth, title=f"Errors on val: {folder}", progress=False)
    times, memory = dict(trainer.clock.total), max(row["peak_memory_mib"] for row in state.rows)
    latency = latency_ms(trainer.eval_model, batch, amp_dtype=run.setup.device.amp_dtype)
    finish_run(
        folder,
        results=numbers,
        best_epoch=state.best_epoch,
        last_epoch=state.rows[-1],
        times=times,
        peak_memory_mib=memory,
        latency={"ms_per_image": latency, "imgsz": run.setup.imgsz, "batch": 1},
        diagnostics=diagnostics,
        **_shared_time(run),
        weights_sha256=file_sha256(folder / "weights" / "last.pt"),
        energy={"source": run.energy.source if run.energy is not None else "not measured"},
        **{
            f"{name}_sha256": file_sha256(folder / f"{name}.json")
            for name in ("predictions", "predictions_last", "ground_truth")
        },
    )
    beyond = result.stats.at_max_det.get(FITNESS)
    if beyond is not None:
        scored += f"; {beyond:.3f} without COCO's limit of 100 detections per image and class"
    last = state.rows[-1].get(f"metrics/{FITNESS}", -1)
    summary = end_summary(
        numbers=numbers,
        times=times,
        memory_mib=memory,
        device=run.setup.device.device.type,
        operator=run.setup.operator,
        folder=folder,
        epoch=scored + (f"; last epoch {last:.3f}" if last >= 0 else ""),
        skipped=run.skipped,
        next_command=next_command(run.setup.splits["val"].path(0), folder),
    )
    for logger in run.loggers:
        logger.end(RunEnd(numbers, summary))
    return {name: float(value) for name, value in numbers.items()}


def next_command(image: str, folder: Path) -> str:
    """Return the detect.py command to try after the run, on an image."""
    weights = near(folder.absolute() / "weights" / "best.pt")
    return command("detect.py", "--weights", weights, "--source", near(Path(image)))


def _shared_time(run: TrainingRun) -> dict[str, object]:
    """Of several processes, the share of the steps' time that they waited for the sums of their gradients."""
    if world() == 1:
        return {}
    rows = run.trainer.state.rows
    steps = sum(row["time_train_s"] + row["time_warmup_s"] for row in rows)
    waiting = sum(row.get("time_allreduce_s", 0.0) for row in rows)
    return {"allreduce_share": waiting / steps if steps else None}


def _scored(run: TrainingRun) -> str:
    """Which weights are scored at the end and are in best.pt."""
    state = run.trainer.state
    if state.best_epoch is None:
        return f"last epoch of {state.epoch}, which is best.pt: no mAP {NO_OBJECTS}"
    if not (run.folder / "weights" / "best.pt").is_file():
        return f"last epoch of {state.epoch}, now in best.pt: that of epoch {state.best_epoch} is gone, by pycocotools"
    return f"best epoch {state.best_epoch} of {state.epoch}, by pycocotools"


def _write_last_predictions(run: TrainingRun) -> None:
    """Write the detections of the last epoch's weights and the objects they are scored against.

    A run that was stopped after its last epoch has them no more and detects once more.
    """
    predictions = run.last_predictions
    if from_main(lambda: predictions is None):
        result = run.validate()
        predictions = None if result is None else result.predictions
    if predictions is None:  # not on rank 0
        return
    write_predictions(run.folder / "predictions_last.json", predictions, run.truth)
    write_ground_truth(run.folder / "ground_truth.json", run.truth)


def _diagnose(run: TrainingRun, batch: Batch) -> Diagnostics | None:
    """Diagnostics of the last epoch's weights on the first validation batch; None if they do not fit in memory."""
    try:
        return diagnose(run.trainer.eval_model, batch, images=min(IMAGES, run.config.train.batch))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None
