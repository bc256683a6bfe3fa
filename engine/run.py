"""A training run: what is built, kept, drawn, printed and resumed around the loop of train.py."""

import errno
import hashlib
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.device import DeviceConfig, out_of_memory
from core.files import lock_run_folder, write_text
from core.text import format_duration
from data.issues import count_issues, list_issues, summarize_issues, write_issues
from engine import run_logger as record
from engine.checkpoint import (
    inference_weights,
    load_checkpoint,
    load_matching,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from engine.clock import Clock
from engine.contention import OtherProcesses
from engine.ema import ModelEMA
from engine.evaluation.coco import write_predictions
from engine.evaluation.evaluate import EvalResult, evaluate
from engine.evaluation.ground_truth import GroundTruth
from engine.machine import PeakMemory, fingerprint
from engine.optim import build_optimizer, freeze, learning_rate
from engine.pictures import plots
from engine.profile import profile_steps
from engine.trainer import State, Trainer

DRAWN_BATCHES = 3
PRIMARY = "mAP50-95"


def steps_of(length: float, *, epochs: int, steps_per_epoch: int) -> int:
    """Steps of a length as the config gives it: below 1 a fraction of the run, from 1 on epochs."""
    return round((length if length >= 1 else length * epochs) * steps_per_epoch)


class TrainingRun:
    """Everything around the loop. ``config`` is read by attributes; the rest is built by train.py."""

    def __init__(
        self,
        config: Any,
        *,
        model: nn.Module,
        placement: DeviceConfig,
        splits: Mapping[str, Any],
        train_loader: Any,
        val_loader: Any,
        census: list[Any],
        census_text: str,
        gflops: float,
        operator: Mapping[str, str],
        learnable: list[str],
        data_sha256: Mapping[str, str],
        notes: list[str],
        read_weights: Callable[..., list[str]],
        checkpoint: Mapping[str, Any] | None,
        folder: Path | None,
    ) -> None:
        self.config, self.placement, self.operator = config, placement, operator
        self.splits, self.train_loader, self.val_loader = splits, train_loader, val_loader
        self.census, self.census_text, self.gflops, self.learnable = census, census_text, gflops, learnable
        self.data_sha256 = dict(data_sha256)
        self.problems = list_issues({split: data.issues for split, data in splits.items()})
        self.truth = GroundTruth.from_annotations(splits["val"], single_cls=config.train.single_cls)
        self.notes = [*notes, *([summarize_issues(self.problems)] if self.problems else [])]
        if config.weights and checkpoint is None:
            self.notes += read_weights(model, config.weights, census)
        self.initial_weights = convolutions_sha256(model) if checkpoint is None else None
        model.to(placement.device, memory_format=placement.memory_format)  # type: ignore[call-overload]
        self.trainer = self._trainer(model)
        if checkpoint is not None:
            self._resume(checkpoint)
        if config.train.profile:
            self.notes.append(profile_steps(self.trainer, train_loader, config.train.profile))
        self.memory = PeakMemory(placement.device)
        self.others = OtherProcesses()
        self.folder = folder or record.increment_path(config.run.project, config.run.name, config.run.exist_ok)
        self._claim = lock_run_folder(self.folder)
        (self.folder / "weights").mkdir(exist_ok=True)
        self.results = record.Results(self.folder / "results.csv", self.trainer.state.rows)
        self.board = record.TensorBoard(self.folder, first_step=self.trainer.state.epoch or None)
        if checkpoint is None or not (self.folder / "run.json").is_file():
            self._start_files()

    @property
    def val_options(self) -> dict[str, Any]:
        """What ``evaluate`` is told besides model, loader and truth."""
        val = self.config.val
        return {
            "device": self.placement.device,
            "amp_dtype": self.placement.amp_dtype,
            "conf": val.conf,
            "iou": val.iou,
            "max_det": val.max_det,
            "progress": False,
        }

    # ------------------------------------------------------------------------------------------------- building

    def _trainer(self, model: nn.Module) -> Trainer:
        train = self.config.train
        frozen = freeze(model, train.freeze)
        if frozen:
            self.notes.append(f"frozen: {', '.join(train.freeze)} ({len(frozen)} tensors)")
        optimizer = build_optimizer(
            model, name=train.optimizer, lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay
        )
        accumulate = max(1, round(train.nominal_batch / train.batch))
        steps_per_epoch = -(-len(self.train_loader) // accumulate)
        total = train.epochs * steps_per_epoch
        return Trainer(
            model=model,
            optimizer=optimizer,
            ema=ModelEMA(model, span=train.ema * total) if train.ema > 0 else None,
            scaler=torch.amp.GradScaler(self.placement.device.type, enabled=self.placement.needs_scaler),
            placement=self.placement,
            learning_rate=learning_rate(
                train.schedule,
                total_steps=total,
                warmup_steps=steps_of(train.warmup, epochs=train.epochs, steps_per_epoch=steps_per_epoch),
                lr=train.lr,
                lr_final=train.lr_final,
            ),
            clock=Clock(self.placement.device),
            accumulate=accumulate,
            clip=train.clip,
            imgsz=train.imgsz,
            multi_scale=train.multi_scale,
            seed=train.seed,
            loss_names=model.loss_names,  # type: ignore[arg-type]
        )

    def _resume(self, checkpoint: Mapping[str, Any]) -> None:
        trainer = self.trainer
        if checkpoint["data_sha256"] != self.data_sha256:
            raise ValueError("--resume: the annotations are not those that the run was started with")
        try:
            trainer.model.load_state_dict(checkpoint["model"])
            trainer.optimizer.load_state_dict(checkpoint["optimizer"])
            trainer.scaler.load_state_dict(checkpoint["scaler"])
            if trainer.ema is not None:
                trainer.ema.load_state_dict(checkpoint["ema"])
            trainer.state = State(**checkpoint["state"])
            trainer.clock.load_state_dict(checkpoint["clock"])
            set_rng_state(checkpoint["rng"])
        except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"--resume: the checkpoint does not fit its own config: {error}") from error
        self.notes.append(f"resumed at epoch {trainer.state.epoch + 1}, batch {trainer.state.batch + 1}")

    def _start_files(self) -> None:
        self.save_last()
        write_text(self.folder / "config.yaml", self.config.as_yaml())
        write_issues(self.folder, self.problems)
        record.write_run(
            self.folder / "run.json",
            record.run_record(
                config=self.config.model_dump(mode="json"),
                differs=self.config.difference(),
                data_hash=self.data_sha256,
                census=self.census,
                operator=self.operator,
                device=self.placement.describe(),
                initial_weights=self.initial_weights,
                batches_per_epoch=len(self.train_loader),
                skipped=count_issues(self.problems),
            ),
        )
        plots.plot_dataset(self.folder / "labels.png", self.splits["train"])

    # ------------------------------------------------------------------------------------------------- the loop

    @property
    def watching(self) -> dict[str, Any]:
        """What ``Trainer.one_epoch`` is told besides loader and title."""
        minutes = self.config.train.save_minutes
        return {
            "watch": self.draw_train_batch,
            "save": self.save_last,
            "save_seconds": 60 * minutes if minutes else float("inf"),
        }

    def draw_train_batch(self, number: int, batch: Any) -> None:
        """Draw the first batches of the first epoch."""
        if self.trainer.state.epoch == 0 and number < DRAWN_BATCHES and self.folder.is_dir():
            path = self.folder / f"train_batch{number}.jpg"
            plots.plot_train_batch(path, batch, self.splits["train"].classes)

    def title(self) -> str:
        """Return the title of the open epoch."""
        return f"epoch {self.trainer.state.epoch + 1}/{self.config.train.epochs}"

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the line printed after an epoch: losses, mAP, speed, and the time that the rest will take."""
        state, clock = self.trainer.state, self.trainer.clock
        left = (self.config.train.epochs - state.epoch) * sum(clock.total.values()) / max(1, state.epoch)
        measured = "".join(
            f"  {name} {row[f'metrics/{name}']:.3f}"
            for name in (PRIMARY, "mAP50")
            if row.get(f"metrics/{name}") is not None
        )
        losses = "  ".join(f"{name} {row[f'train/{name}_loss']:.3f}" for name in self.trainer.loss_names)
        return (
            f"epoch {state.epoch}/{self.config.train.epochs}  {losses}{measured}  "
            f"{row['images_per_s']:.0f} images/s  left {format_duration(left)}"
        )

    def close_epoch(self, losses: Mapping[str, float], result: EvalResult | None) -> dict[str, Any]:
        """Close the epoch in the trainer and its clock; return its row of results.csv."""
        trainer, crc32 = self.trainer, self.trainer.state.batches_crc32
        trainer.state.close_epoch()
        times = trainer.clock.close_epoch()
        row: dict[str, Any] = {"epoch": trainer.state.epoch, "step": trainer.state.step}
        row |= {f"train/{name}_loss": value for name, value in losses.items()}
        if result is not None:
            row |= {name: float(value) for name, value in result.stats.columns().items()}
            row |= {f"val/{name}_loss": float(value) for name, value in result.losses.items()}
        seconds = times["train"] + times["warmup"]
        return row | {
            "lr": float(trainer.optimizer.param_groups[0]["lr"]),
            "time_train_s": times["train"],
            "time_warmup_s": times["warmup"],
            "time_data_s": times["data"],
            "time_val_s": times["validation"],
            "time_save_s": times["saving"],  # of the checkpoint before: this epoch's is yet to be written
            "images_per_s": len(self.train_loader.dataset) / seconds if seconds else 0.0,
            "step_median_s": times["step"],
            "peak_memory_mib": self.memory.mib(),
            "other_cores": self.others.cores(),
            "batches_crc32": crc32,
        }

    def keep(self, row: dict[str, Any], result: EvalResult | None) -> None:
        """Write what an epoch gave: results.csv, TensorBoard, last.pt, and best.pt where it is the best so far."""
        state, epoch = self.trainer.state, self.trainer.state.epoch
        parameters = dict(self.trainer.evaluated.named_parameters())
        learned = {name: parameters[name].detach() for name in self.learnable}
        row |= {f"act/{name}": float(value.mean()) for name, value in learned.items()}
        state.rows.append(row)
        best = result is not None and result.stats.numbers[PRIMARY] > state.best
        if best and result is not None:
            state.best, state.best_epoch = result.stats.numbers[PRIMARY], epoch
            save_checkpoint(self.folder / "weights" / "best.pt", self._inference_content(result))
        # last.pt comes last: a run killed before it does this epoch again, and whatever it wrote.
        if self.config.train.save_period and epoch % self.config.train.save_period == 0:
            save_checkpoint(self.folder / "weights" / f"epoch{epoch}.pt", self._training_content())
        self.save_last()
        self.results.append(row)
        self.board.row(row, epoch)
        self.board.activations(learned, epoch)

    def out_of_patience(self) -> bool:
        """Whether the mAP has not risen for as many epochs as the config allows."""
        state, patience = self.trainer.state, self.config.train.patience
        return patience > 0 and state.best_epoch > 0 and state.epoch - state.best_epoch >= patience

    def stopped(self) -> int:
        """Save a run that a signal has stopped, say how to go on, and return the exit code of that signal."""
        self.save_last()
        self.board.close()
        state = self.trainer.state
        done = f"stopped at epoch {state.epoch + 1}, after batch {state.batch} of {len(self.train_loader)}"
        print(f"{done}; go on with\n  {self._resume_command()}", flush=True)
        return 128 + self.trainer.stop_signal

    def failed(self, error: Exception) -> int:
        """Say in one line what has ended the run and how to go on, and return exit code 1; raise what is no fault."""
        if out_of_memory(error):
            state, train = self.trainer.state, self.config.train
            reason = (
                f"out of memory at epoch {state.epoch + 1}, batch {state.batch + 1} of {len(self.train_loader)}, with "
                f"{train.batch} images of {train.imgsz} pixels: try --batch {max(1, train.batch // 2)} (with --nbs "
                f"{train.nominal_batch} the steps stay as large), a smaller --imgsz or model.size, or --cache off"
            )
        elif isinstance(error, RuntimeError):
            raise error
        else:
            reason = " ".join(str(error).split())
        last = self.folder / "weights" / "last.pt"
        kept = f"go on from the last checkpoint with: {self._resume_command()}" if last.is_file() else "nothing is kept"
        print(f"{Path(sys.argv[0]).name}: error: {reason}; {kept}", file=sys.stderr)
        return 1

    def _resume_command(self) -> str:
        return f"python train.py --resume {shlex.quote(str(self.folder / 'weights' / 'last.pt'))}"

    # ------------------------------------------------------------------------------------------- first and last

    def banner(self) -> str:
        """Return what a run prints at its start."""
        config = self.config
        data = f"{config.data.root}: " + ", ".join(
            f"{split} {len(annotations)} images" for split, annotations in self.splits.items()
        )
        lines = record.start_banner(
            differs=config.difference(),
            code=fingerprint(),
            device=self.placement.describe(),
            operator=self.operator,
            census=self.census_text,
            parameters=sum(parameter.numel() for parameter in self.trainer.model.parameters()),
            gflops=self.gflops,
            side=config.train.imgsz,
            folder=self.folder,
            data=f"{data}, {len(self.splits['train'].classes)} classes; {self.train_loader.describe()}",
        )
        return "\n".join([lines, *self.notes])

    def finish(self, next_command: str) -> str:
        """Score the best weights with pycocotools, draw the pictures, and return the summary."""
        trainer, folder, state = self.trainer, self.folder, self.trainer.state
        trainer.clock.close_epoch()
        scored = f"best epoch {state.best_epoch} of {state.epoch}"
        if (folder / "weights" / "best.pt").is_file():
            trainer.evaluated.load_state_dict(load_checkpoint(folder / "weights" / "best.pt")["model"])
        else:
            scored = f"last epoch of {state.epoch}, as best.pt was removed"
        result = evaluate(trainer.evaluated, self.val_loader, truth=self.truth, **self.val_options, official=True)
        plots.plot_results(folder / "results.png", state.rows)
        plots.plot_evaluation(folder, result)
        write_predictions(folder / "predictions.json", result.predictions, result.truth)
        self.board.close()
        times, memory = dict(trainer.clock.total), max(row["peak_memory_mib"] for row in state.rows)
        record.update_run(
            folder / "run.json",
            results=result.stats.numbers,
            best_epoch=state.best_epoch,
            last_epoch=state.rows[-1],
            times=times,
            peak_memory_mib=memory,
            latency={
                "ms_per_image": result.speed["inference"],
                "imgsz": self.config.train.imgsz,
                "batch": self.config.train.batch,
            },
        )
        last = state.rows[-1].get(f"metrics/{PRIMARY}")
        return record.end_summary(
            stats=result.stats.numbers,
            times=times,
            memory_mib=memory,
            device=self.placement.device.type,
            operator=self.operator,
            folder=folder,
            epoch=f"{scored}, by pycocotools; last epoch {last:.3f}",
            skipped=summarize_issues(self.problems) if self.problems else "",
            next_command=next_command,
        )

    # ---------------------------------------------------------------------------------------------- checkpoints

    def _common_content(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "names": list(self.splits["train"].classes),
            "census": [asdict(row) for row in self.census],
        }

    def _training_content(self) -> dict[str, Any]:
        trainer = self.trainer
        return {
            "kind": "training",
            **self._common_content(),
            "model": trainer.model.state_dict(),
            "ema": trainer.ema.state_dict() if trainer.ema is not None else None,
            "optimizer": trainer.optimizer.state_dict(),
            "scaler": trainer.scaler.state_dict(),
            "state": trainer.state.state_dict(),
            "clock": trainer.clock.state_dict(),
            "rng": rng_state(),
            "data_sha256": self.data_sha256,
        }

    def _inference_content(self, result: EvalResult) -> dict[str, Any]:
        numbers = {name: float(value) for name, value in result.stats.numbers.items()}
        weights = self.trainer.evaluated.state_dict()
        return {"kind": "weights", **self._common_content(), "model": weights, "stats": numbers}

    def save_last(self) -> None:
        """Write last.pt. Raises OSError where that fails, also where the folder was removed and is made anew for it."""
        weights = self.folder / "weights"
        removed = not weights.is_dir()
        weights.mkdir(parents=True, exist_ok=True)
        save_checkpoint(weights / "last.pt", self._training_content())
        if removed:
            raise FileNotFoundError(errno.ENOENT, f"the run folder {self.folder} was removed; last.pt is written anew")


def convolutions_sha256(model: nn.Module) -> str:
    """SHA-256 over the weights of the convolutions, by name: equal where networks differ in their activations only."""
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            digest.update(name.encode())
            digest.update(module.weight.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def start_from(model: nn.Module, path: str, census: list[Any]) -> list[str]:
    """Load what fits of a checkpoint's weights into ``model``; return what to say about it."""
    content = load_checkpoint(path)
    loaded, missing = load_matching(model, inference_weights(content))
    if not loaded:
        raise ValueError(f"{path}: none of its weights fit this network")
    notes = [f"weights: {len(loaded)} tensors taken from {path}, {len(missing)} not in it"]
    if missing:
        notes.append(f"  left as initialised: {', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}")
    theirs = {(row["part"], row["stage"]): row["activation"] for row in content["census"]}
    other = [
        f"{row.part}.{row.stage} {theirs[row.part, row.stage]} -> {row.activation}"
        for row in census
        if theirs.get((row.part, row.stage), row.activation) != row.activation
    ]
    if other:
        notes.append(f"  WARNING: trained with other activations: {', '.join(other)}")
    return notes
