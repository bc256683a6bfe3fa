"""A training run: its folder, checkpoints, loggers and pictures, around the loop of engine/training.py."""

from __future__ import annotations

import contextlib
import errno
import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from uuid import uuid4

import numpy as np
import torch

from core.commands import command, near
from core.distributed import copy_from_main, from_main, gather, is_main, largest, remember_folder, world
from core.files import lock_run_folder, make_run_folder, write_text
from core.metrics import FITNESS
from core.progress import write_line
from core.text import one_line
from core.types import Batch
from data.issues import count_issues, list_issues, summarize_issues, write_issues
from engine.checkpoint import initial_weights, save_checkpoint
from engine.contention import OtherProcesses, SlowSteps
from engine.energy import EnergyMeter
from engine.evaluation.evaluate import EvalResult, detect, in_turn, score
from engine.evaluation.ground_truth import GroundTruth
from engine.failures import failure_reason
from engine.loggers import EpochEnd, Logger, Row, RunStart, make_loggers
from engine.loggers.console import start_summary
from engine.machine import PeakMemory, fingerprint, processes, processes_here
from engine.pictures import plots
from engine.profile import profile_steps
from engine.resume import Resumed
from engine.run_checkpoint import restore, training_content, weights_content
from engine.run_record import convolutions_sha256, read_record, run_record, start_entry, update_run, write_run
from engine.setup import TrainSetup, build_trainer

DRAWN_BATCHES = 3
NO_OBJECTS = "without objects in the validation images"


class TrainingRun:
    """A run in its folder. Use it as a context manager, which starts the loggers and closes them after an error.

    Each of several processes that train together has one; that of rank 0 writes and prints.
    """

    def __init__(self, setup: TrainSetup, resumed: Resumed | None = None, *, loggers: Sequence[Logger] = ()) -> None:
        """Load weights, build the trainer or restore it from a checkpoint, and create the run folder.

        ``loggers``: further ones, besides those that the config names.
        """
        self.setup, self.config = setup, setup.config
        self.train_loader, self.val_loader = setup.train_loader, setup.val_loader
        self.classes = setup.splits["train"].classes
        self.truth = GroundTruth.from_annotations(setup.splits["val"])
        self.issues = list_issues({split: annotations.issues for split, annotations in setup.splits.items()})
        self.loggers = [*make_loggers(self.config.run.loggers), *loggers] if is_main() else []
        self.skipped = ""
        if self.truth.crowd.all():  # or empty
            setup.notes.append(f"best.pt will be the last epoch: no mAP {NO_OBJECTS}")
        if self.issues:
            self.skipped = summarize_issues(self.issues, [split.skipped for split in setup.splits.values()])
            setup.notes.append(self.skipped)
        notices = [*setup.splits["train"].notices, *self.truth.notes]
        setup.notes.extend(dict.fromkeys(notices))  # both are of the same file if images are held out of it
        setup.notes.extend(f"validation: {note}" for note in self.truth.limit_notes(setup.nms.max_det))
        if self.config.weights and resumed is None:
            setup.notes.extend(initial_weights(setup.model, self.config, setup.census))
        self.initial_sha256 = convolutions_sha256(setup.model) if resumed is None else None
        self.trainer = build_trainer(setup)
        if resumed is not None:
            restore(setup, self.trainer, resumed.checkpoint, skipped=self.skipped)
        if self.config.train.profile:
            setup.notes.append(profile_steps(self.trainer, self.train_loader, self.config.train.profile))
        together = processes_here()
        self.memory, self.others = PeakMemory(setup.device.device), OtherProcesses(together)
        usual = [row["step_median_s"] for row in self.trainer.state.rows if row.get("step_median_s")]
        self.slow_steps = SlowSteps(OtherProcesses(together), usual)
        # The energy of an epoch that was interrupted is not known, nor that of other processes.
        self.energy = EnergyMeter(setup.device.device) if self.trainer.state.batch == 0 and world() == 1 else None
        self.last_predictions: np.ndarray | None = None  # of the newest validation, as in EvalResult
        self.id = uuid4().hex
        self.processes = processes(setup.device.device, sync_norms=self.trainer.sync_norms)
        if is_main():
            self._open_folder(resumed)
        self.folder = from_main(lambda: self.folder)
        remember_folder(str(self.folder.absolute()))

    def _open_folder(self, resumed: Resumed | None) -> None:
        """Create and lock the run folder, or go on in that of a resumed run."""
        setup = self.setup
        if resumed is not None and resumed.folder is not None:
            self.id, self.folder = resumed.checkpoint.get("run_id") or self.id, resumed.folder
            self._lock = lock_run_folder(self.folder)
            setup.notes.extend(self._other_threads())
            self._update_run_files(moved=resumed.moved)
            return
        run = self.config.run
        self.folder = make_run_folder(run.project, run.name, run.exist_ok)
        self._lock = lock_run_folder(self.folder)
        if resumed is not None:
            setup.notes.append(
                f"{resumed.path} is not the weights/last.pt of a folder whose run.json has its run's id, so the run "
                f"goes on in {self.folder}"
            )
        self._write_run_files()
        (self.folder / "weights").mkdir(exist_ok=True)
        self.save_last()
        plots.plot_dataset(self.folder / "labels.png", setup.splits["train"])

    def _other_threads(self) -> list[str]:
        """A note if the newest start of a resumed run had another number of threads."""
        starts, now = read_record(self.folder).get("starts") or [{}], torch.get_num_threads()
        before = (starts[-1].get("machine") or {}).get("threads")
        if before in (None, now) or self.setup.device.device.type != "cpu":
            return []
        return [f"resumed with --threads {now}, not {before}: rounding differs from that of an undisturbed run"]

    def _start_entry(self) -> dict[str, object]:
        state = self.trainer.state
        place = {"epoch": state.epoch + 1, "batch": state.batch + 1}
        return start_entry(device=self._device(), **place, processes=self.processes)

    def _device(self) -> str:
        """Device, precision, memory format and, unless it is eager, the forward pass."""
        return "; ".join(filter(None, (self.setup.device.describe(), self.trainer.forward_name)))

    def _write_run_files(self) -> None:
        """Write run.json, which is the proof that the folder belongs to this run, and what else describes it."""
        record = run_record(
            config=self.config.model_dump(mode="json"),
            differs=self.config.difference(),
            data_hash=self.setup.data_sha256,
            census=self.setup.census,
            operator=self.setup.operator,
            start=self._start_entry(),
            id=self.id,
            initial_weights=self.initial_sha256,
            batches_per_epoch=len(self.train_loader),
            skipped=count_issues(self.issues),
            images=self.setup.images,
        )
        write_run(self.folder / "run.json", record)
        write_text(self.folder / "config.yaml", self.config.as_yaml())
        write_issues(self.folder, self.issues)

    def _update_run_files(self, *, moved: bool) -> None:
        """Record a resume, and where the data are now if they were `moved`."""
        starts = [*read_record(self.folder).get("starts", []), self._start_entry()]
        values: dict[str, object] = {"id": self.id, "starts": starts}
        if moved:
            values["config"] = self.config.model_dump(mode="json")
            write_text(self.folder / "config.yaml", self.config.as_yaml())
        update_run(self.folder / "run.json", **values)

    def _start_summary(self) -> str:
        splits = ", ".join(f"{split} {len(annotations)} images" for split, annotations in self.setup.splits.items())
        return start_summary(
            differs=self.config.difference(),
            code=fingerprint(),
            device=self._device(),
            operator=self.setup.operator,
            census=self.setup.census_text,
            parameters=sum(parameter.numel() for parameter in self.trainer.model.parameters()),
            gflops=self.setup.gflops,
            imgsz=self.setup.imgsz,
            folder=self.folder,
            data=f"{self.config.data.root}: {splits}, {len(self.classes)} classes; {self.train_loader.describe()}",
        )

    def __enter__(self) -> TrainingRun:
        """Start the loggers."""
        if not is_main():
            return self
        start = RunStart(
            folder=self.folder,
            config=self.config.model_dump(mode="json"),
            loss_names=self.trainer.loss_names,
            epochs=self.setup.epochs,
            rows=self.trainer.state.rows,
            text="\n".join([self._start_summary(), *self.setup.notes]),
        )
        for logger in self.loggers:
            logger.start(start)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the loggers if the run ends with an error; otherwise `final_results.finish` has done it."""
        if error is not None:
            # An outcome of the network, unlike a failure of the machine.
            if isinstance(error, FloatingPointError) and is_main():
                with contextlib.suppress(OSError, ValueError):
                    update_run(self.folder / "run.json", diverged=one_line(error))
            for logger in self.loggers:
                with contextlib.suppress(Exception):  # the first error is the one to report
                    logger.fail(error)

    # ------------------------------------------------------------------------------------------------- each epoch

    @property
    def title(self) -> str:
        """Title of the current epoch."""
        return f"epoch {self.trainer.state.epoch + 1}/{self.setup.epochs}"

    @property
    def save_seconds(self) -> float:
        """Seconds between two checkpoints within an epoch."""
        return 60 * self.config.train.save_minutes or math.inf

    def before_step(self, number: int, batch: Batch) -> None:
        """Draw the first batches of the first epoch; say so if other processes slow the steps."""
        seconds = self.trainer.clock.last_step
        if is_main() and seconds is not None:
            slowed, line = self.slow_steps.add(seconds)
            self.trainer.clock.add("contended", slowed)
            if line is not None:
                write_line(f"{self.title}, batch {number + 1}: {line}")
        if is_main() and self.trainer.state.epoch == 0 and number < DRAWN_BATCHES and self.folder.is_dir():
            plots.plot_train_batch(self.folder / f"train_batch{number}.jpg", batch, self.classes)

    def validate(self, *, official: bool = False) -> EvalResult | None:
        """Evaluate the weights that count (the EMA's); `official`: with pycocotools, and not stopped by signals.

        Several processes detect in every n-th batch each; rank 0 scores, and the others get None.
        """
        model = self.trainer.eval_model
        if not self.trainer.sync_norms:
            copy_from_main(list(model.buffers()))
        found = gather(
            detect(
                model,
                self.val_loader if official else self.trainer.until_stopped(self.val_loader),
                truth=self.truth,
                nms=self.setup.nms,
                amp_dtype=self.setup.device.amp_dtype,
                loss=not official,
            )
        )
        if found is None:
            return None
        return score(in_turn(found), truth=self.truth, nms=self.setup.nms, official=official)

    def end_epoch(self, losses: Mapping[str, float], result: EvalResult | None) -> None:
        """Close the epoch: its row, best.pt, epochN.pt, last.pt, then the loggers.

        last.pt is the last checkpoint written: a run killed before it repeats this epoch and all it wrote.
        """
        state = self.trainer.state
        row = self._close_epoch(losses, result)
        if is_main():
            self._keep_epoch(row, result)
        state.best, state.best_epoch = from_main(lambda: (state.best, state.best_epoch))

    def _keep_epoch(self, row: Row, result: EvalResult | None) -> None:
        """Write what a closed epoch leaves."""
        trainer, state = self.trainer, self.trainer.state
        self.last_predictions = result.predictions if result is not None else None
        parameters = dict(trainer.eval_model.named_parameters())
        activations = {name: parameters[name].detach() for name in self.setup.learnable}
        row |= {f"act/{name}": float(value.mean()) for name, value in activations.items()}
        with trainer.clock.span("saving"):
            state.rows.append(row)
            if result is not None and self.is_best(result):
                state.best = fitness(result)
                state.best_epoch = None if state.best is None else state.epoch
                self.save_best(result)
            if self.config.train.save_period and state.epoch % self.config.train.save_period == 0:
                save_checkpoint(
                    self.folder / "weights" / f"epoch{state.epoch}.pt",
                    training_content(self.setup, self.trainer, run_id=self.id),
                )
            self.save_last()
            seconds = sum(trainer.clock.total.values()) / state.epoch
            end = EpochEnd(row, activations, seconds_left=(self.setup.epochs - state.epoch) * seconds)
            for logger in self.loggers:
                logger.epoch(end)

    def _close_epoch(self, losses: Mapping[str, float], result: EvalResult | None) -> Row:
        """Close the epoch in the trainer's state and clock; return its row of results.csv but for the act/* columns."""
        trainer, crc32 = self.trainer, self.trainer.state.batches_crc32
        images = len(self.train_loader.dataset) * trainer.state.batch / len(self.train_loader)
        trainer.state.close_epoch()
        times = trainer.clock.close_epoch()
        row: Row = {"epoch": trainer.state.epoch, "step": trainer.state.step}
        row |= {f"train/{name}_loss": value for name, value in losses.items()}
        if result is not None:
            row |= {name: float(value) for name, value in result.stats.columns().items()}
            row |= {f"val/{name}_loss": float(value) for name, value in result.losses.items()}
            row["val_crc32"] = result.batches_crc32
        seconds = times["train"] + times["warmup"]
        joules = self.energy.joules() if self.energy is not None else None
        self.energy = self.energy or (EnergyMeter(self.setup.device.device) if world() == 1 else None)
        return row | {
            "lr": float(trainer.optimizer.param_groups[0]["lr"]),
            "time_train_s": times["train"],
            "time_warmup_s": times["warmup"],
            "time_data_s": times["data"],
            "time_val_s": times["validation"],
            # Since the last row: the end of the previous epoch, and saves within this one.
            "time_save_s": times["saving"],
            "time_contended_s": times["contended"],
            "images_per_s": images / seconds if seconds else 0.0,
            "step_median_s": times["step"],
            "peak_memory_mib": largest([self.memory.mib()])[0],
            "other_cores": self.others.cores(),
            "batches_crc32": crc32,
            **({} if joules is None else {"energy_j": joules}),
            **({"time_allreduce_s": times["waiting"]} if world() > 1 else {}),
        }

    def is_best(self, result: EvalResult) -> bool:
        """Whether best.pt is replaced: the mAP50-95 is higher than after every earlier epoch, or none has one."""
        score, best = fitness(result), self.trainer.state.best
        return best is None or (score is not None and score > best)

    def out_of_patience(self) -> bool:
        """Whether the mAP50-95 has not improved for `train.patience` epochs."""
        state, patience = self.trainer.state, self.config.train.patience
        return patience > 0 and state.best_epoch is not None and state.epoch - state.best_epoch >= patience

    # ------------------------------------------------------------------------------------------- stops and failures

    def stop_message(self) -> str:
        """One line on where a stopped run stands, and the command that resumes it."""
        state = self.trainer.state
        done = f"stopped at epoch {state.epoch + 1}, after batch {state.batch} of {len(self.train_loader)}"
        return f"{done}; resume with\n  {self._resume_command()}"

    def failure_message(self, error: Exception) -> str | None:
        """One line on an error that is not a bug, and how to resume; None for any other error."""
        reason = failure_reason(error, self.setup, self.trainer.state)
        if reason is None:
            return None
        if not (self.folder / "weights" / "last.pt").is_file():
            return f"{reason}; no checkpoint was saved"
        return f"{reason}; resume from the last checkpoint with: {self._resume_command()}"

    def _resume_command(self) -> str:
        return command("train.py", "--resume", near(self.folder / "weights" / "last.pt"))

    # ---------------------------------------------------------------------------------------------- checkpoints

    def save_last(self) -> None:
        """Write last.pt. Raises OSError if that fails, or after it if the run folder had been removed."""
        self.trainer.clock.settle()
        if not is_main():
            return
        weights = self.folder / "weights"
        removed = not weights.is_dir()
        weights.mkdir(parents=True, exist_ok=True)
        if removed:
            self._write_run_files()
        save_checkpoint(weights / "last.pt", training_content(self.setup, self.trainer, run_id=self.id))
        if removed:
            raise FileNotFoundError(errno.ENOENT, f"the run folder {self.folder} was removed; last.pt is written anew")

    def save_best(self, result: EvalResult) -> None:
        """Write the weights that were evaluated to best.pt."""
        numbers = {name: float(value) for name, value in result.stats.numbers.items()}
        content = weights_content(self.setup, self.trainer.eval_model.state_dict())
        save_checkpoint(self.folder / "weights" / "best.pt", {**content, "stats": numbers})


def fitness(result: EvalResult) -> float | None:
    """The mAP50-95; None if it is undefined, COCO's -1: an average over no objects."""
    value = float(result.stats.numbers[FITNESS])
    return value if value >= 0 else None
