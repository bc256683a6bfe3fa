"""The Python door: ``YOLO("runs/train/exp/weights/best.pt").predict("image.jpg")`` and ``.val()``.

val.py and detect.py stand on it. Arrays are RGB unless ``bgr=True`` says that they come from OpenCV.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from configs.errors import explain
from configs.loading import CONFIGS
from configs.schema import Config, Data, load
from core.device import pick_device, synchronize
from core.geometry import Geometry
from core.limits import MAX_CLASSES
from core.types import Detections
from data import build_eval_loader, load_dataset
from data.image import read_image
from data.names import find_names
from data.sources import Frame, Source, open_source
from data.synthetic import read_stamp
from engine.checkpoint import inference_weights, load_checkpoint
from engine.detections import Result
from engine.evaluation.evaluate import EvalResult, evaluate
from models import CensusRow, Darknet, Detector, build_model, census, plan_darknet
from models.darknet.weights import check_weights, read_weights
from models.decode import nms
from ops.mish import prepare

__all__ = ["YOLO", "Result"]

CENSUS_KEYS = ("part", "stage", "activation", "parameters", "sites")  # what depends on the network, not on the machine
MOST_PIXELS = 8192  # longest side of the network's input
MOST_WORKERS = 1024
TIMED_IMAGES = 32


class YOLO:
    """A trained detector: the checkpoint of a run, best.pt or last.pt, or a Darknet .weights with its .cfg."""

    def __init__(
        self,
        weights: str | os.PathLike,
        *,
        cfg: str | os.PathLike | None = None,
        names: str | os.PathLike | None = None,
        device: str | None = None,
        half: bool = False,
        fuse: bool = True,
    ) -> None:
        """Build the network that the checkpoint describes and load its weights, the moving average where it has one.

        ``cfg``: of a Darknet .weights, which does not describe its network. ``names``: a file with its class names, a
        line each; by default a .names beside the weights or the cfg, or COCO's where there are 80 classes. ``device``:
        auto (None), cpu, cuda, cuda:N, N. ``half``: compute in fp16, on a GPU only. ``fuse``: fold batch norm into the
        convolutions. FileNotFoundError or ValueError where a file is missing or not as it should be, or where the
        device is not there.
        """
        self.device, self.device_text = pick_device(device or "auto")
        if half and self.device.type == "cpu":
            raise ValueError("half: fp16 needs a GPU, and the device is the CPU; leave it out")
        self.weights = Path(weights)
        self.names_from: str | None = None  # of Darknet's weights, which hold none
        if cfg is None:
            if self.weights.suffix == ".weights":
                raise ValueError(f"{weights}: a Darknet .weights does not describe its network; give its .cfg as cfg")
            if names is not None:
                raise ValueError(f"names: {names}; the class names of {weights} are in the checkpoint, leave it out")
            model = self._from_checkpoint()
        else:
            model = self._from_darknet(Path(cfg), names)
        if any(row.activation == "mish" for row in self.census):
            prepare(self.device)  # its kernel is built before any clock starts
        model = (model.fused() if fuse else model.eval()).to(self.device)
        self.model: Detector | Darknet = model.half() if half else model

    def _from_checkpoint(self) -> Detector | Darknet:
        content = load_checkpoint(self.weights)
        self.config = _config(self.weights, content["config"])
        self.names = _names(self.weights, content["names"])
        weights_there = inference_weights(content)
        with torch.device("meta"):  # without memory: a config must not take more of it than the weights in the file
            outline = build_model(self.config.model, names=self.names, seed=0)
        _require_fitting(outline, weights_there, self.weights)
        model = build_model(self.config.model, names=self.names, seed=0)
        self.census: list[CensusRow] = census(model)
        _refuse_other_activations(self.weights, self.census, content["census"])
        model.load_state_dict(weights_there)
        return model

    def _from_darknet(self, cfg: Path, names: str | os.PathLike | None) -> Darknet:
        if cfg.suffix != ".cfg":
            raise ValueError(f"cfg: {cfg}; a Darknet .cfg is expected, with the .weights that belong to it")
        self.config = load(cfg)
        plan = plan_darknet(self.config.darknet)
        if not plan.heads:
            raise ValueError(f"{cfg}: a classifier, without a [yolo] layer; expected a detector's .cfg")
        file = check_weights(self.weights, plan)  # before there is a network: a wrong cfg must not take memory
        if not file.is_whole(plan):
            raise ValueError(
                f"{self.weights}: ends early, after {file.layers} of {len(plan.layers)} layers of {cfg}: a backbone to "
                f"start a training from; {plan.values - file.values} values are missing to detect with"
            )
        self.names, self.names_from = find_names(plan.classes, names, beside=(self.weights, cfg))
        model = build_model(self.config.darknet, names=self.names, seed=0)
        self.census = census(model)
        read_weights(file, model)
        return model

    @property
    def imgsz(self) -> int:
        """The side in pixels that the network was trained at, or that its Darknet cfg asks for."""
        if self.names_from is not None and isinstance(self.model, Darknet):
            return self.model.side
        return self.config.train.imgsz or 640

    @property
    def iou(self) -> float:
        """The overlap of suppression that is customary for these weights."""
        return self.config.model.nms_iou

    def describe(self) -> str:
        """Weights, network, classes, side, device in one line; of Darknet's weights also the parts and their rule."""
        activations = ", ".join(dict.fromkeys(row.activation for row in self.census))
        precision = "fp16" if next(self.model.parameters()).dtype == torch.float16 else "fp32"
        model = self.config.model
        line = (
            f"{self.weights}: {model.kind} {Path(model.cfg).name if model.kind == 'darknet' else model.size} with "
            f"{activations}, {len(self.names)} classes, {self.imgsz} pixels; {self.device_text}, {precision}"
        )
        if isinstance(self.model, Darknet) and self.names_from is not None:
            line += f"\n{self.model.describe()}\nclass names: {self.names_from}"
        return line

    def predict(
        self,
        source: Any,
        *,
        conf: float = 0.25,
        iou: float | None = None,
        max_det: int = 300,
        classes: Sequence[int | str] | None = None,
        imgsz: int | None = None,
        batch: int = 1,
        rect: bool = True,
        agnostic: bool = False,
        bgr: bool = False,
    ) -> list[Result]:
        """Detect in everything that ``source`` holds (data/sources.py: path, folder, glob, video, array, list, ...).

        ``conf``: lowest score; ``iou``: overlap from which two boxes of a class are one (of any class where
        ``agnostic``); ``max_det``: most detections a picture; ``classes``: keep these labels or names only;
        ``imgsz``: long side of the network's input, by default that of training; ``rect``: pad to the next multiple
        of the stride instead of a square. The results do not depend on ``batch``.
        A camera or stream never ends: for these take ``stream``.
        """
        frames = source if isinstance(source, Source) else open_source(source, bgr=bgr)
        if frames.is_live:
            raise ValueError(f"source {frames.description}: a camera or stream has no end; take YOLO.stream instead")
        options: dict[str, Any] = {"conf": conf, "iou": iou, "max_det": max_det, "classes": classes, "imgsz": imgsz}
        return list(self.stream(frames, batch=batch, rect=rect, agnostic=agnostic, **options))

    def stream(
        self,
        source: Any,
        *,
        conf: float = 0.25,
        iou: float | None = None,
        max_det: int = 300,
        classes: Sequence[int | str] | None = None,
        imgsz: int | None = None,
        batch: int = 1,
        rect: bool = True,
        agnostic: bool = False,
        bgr: bool = False,
    ) -> Iterator[Result]:
        """As ``predict``, one result after the other, holding no more than ``batch`` pictures."""
        iou = self.iou if iou is None else iou
        check_thresholds(conf=conf, iou=iou, max_det=max_det)
        side = self._side(imgsz)
        if batch < 1:
            raise ValueError(f"batch: found {batch}; a whole number from 1 on is expected")
        suppress = {"conf": conf, "iou": iou, "max_det": max_det, "wanted": self.labels(classes), "agnostic": agnostic}
        frames = source if isinstance(source, Source) else open_source(source, bgr=bgr)
        return self._stream(frames, side, batch, rect, suppress)

    def _stream(
        self, frames: Source, side: int, batch: int, rect: bool, suppress: Mapping[str, Any]
    ) -> Iterator[Result]:
        waiting: list[Frame] = []
        for frame in frames:
            waiting.append(frame)
            if len(waiting) == batch:
                yield from self._detect_all(waiting, side, rect, suppress)
                waiting = []
        if waiting:
            yield from self._detect_all(waiting, side, rect, suppress)

    def _detect_all(self, frames: Sequence[Frame], side: int, rect: bool, suppress: Mapping[str, Any]) -> list[Result]:
        """Detect in some frames, those of one shape together: padding them alike would change what is found."""
        results: dict[int, Result] = {}
        groups: dict[tuple[int, ...], list[int]] = {}
        inputs: list[tuple[np.ndarray, Geometry, float]] = []
        for place, frame in enumerate(frames):
            start = time.perf_counter()
            fitted, geometry = self.model.preprocess(frame.image, side, rect=rect)
            inputs.append((fitted, geometry, (time.perf_counter() - start) * 1e3))
            groups.setdefault(fitted.shape, []).append(place)
        for shape, places in groups.items():
            images = np.stack([inputs[place][0] for place in places])
            found, spent = self._detect(images, suppress)
            for place, one in zip(places, found, strict=True):
                geometry, before = inputs[place][1:]
                speed = {"preprocess": before} | {part: value / len(places) for part, value in spent.items()}
                boxes, scores, labels = (
                    value.cpu().numpy() for value in (geometry.to_image(one.boxes, clip=True), one.scores, one.labels)
                )
                results[place] = Result(boxes, scores, labels, self.names, frames[place], speed, (shape[0], shape[1]))
        return [results[place] for place in range(len(frames))]

    @torch.inference_mode()
    def _detect(self, images: np.ndarray, suppress: Mapping[str, Any]) -> tuple[list[Detections], dict[str, float]]:
        """Pictures (B, H, W, 3) uint8 to each one's detections in network pixels, and the milliseconds by part."""
        start = time.perf_counter()
        tensor = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        weight = next(self.model.parameters())
        boxes, scores = self.model.decode(self.model(tensor.to(weight.dtype).contiguous() / 255))
        synchronize(self.device)
        middle = time.perf_counter()
        found = _suppress(boxes, scores, nms=self.model.nms, **suppress)
        synchronize(self.device)
        return found, {"inference": (middle - start) * 1e3, "nms": (time.perf_counter() - middle) * 1e3}

    def val(
        self,
        data: str | os.PathLike | None = None,
        *,
        split: str = "val",
        batch: int = 16,
        imgsz: int | None = None,
        conf: float = 0.001,
        iou: float | None = None,
        max_det: int = 300,
        rect: bool = True,
        workers: int = 0,
        single_cls: bool | None = None,
        strict_data: bool = False,
        progress: bool = True,
    ) -> EvalResult:
        """Evaluate on a split of a data set with pycocotools; the numbers do not depend on ``batch``.

        ``data``: a data YAML, by default the data that the network was trained on. ``single_cls``: all objects and
        detections as of one class, by default as in training. ``strict_data``: ValueError where anything in the data
        is damaged, which is skipped otherwise and listed in ``result.truth.issues``. ValueError where the classes of
        the data are not those of the weights.
        """
        iou = self.iou if iou is None else iou
        check_thresholds(conf=conf, iou=iou, max_det=max_det)
        side = self._side(imgsz)
        for name, value, least, most in (("batch", batch, 1, 10**9), ("workers", workers, 0, MOST_WORKERS)):
            if not least <= value <= most:
                raise ValueError(f"{name}: found {value}; a whole number from {least} to {most} is expected")
        single = self.config.train.single_cls if single_cls is None else single_cls
        truth = load_dataset(self._data(data), split, strict=strict_data, single_cls=single, progress=progress)
        if not single:
            self._require_classes(truth.classes, f"the {split} split of {truth.source}")
        loader = build_eval_loader(
            truth,
            imgsz=side,
            batch=batch,
            workers=workers,
            preprocess=self.model.preprocess,
            rect=rect,
            progress=progress,
            pin_memory=self.device.type == "cuda",
        )
        result = evaluate(
            _OneClass(self.model) if single else self.model,
            loader,
            device=self.device,
            truth=truth,
            conf=conf,
            iou=iou,
            max_det=max_det,
            progress=progress,
            official=True,
            single_cls=single,
        )
        if not np.isfinite(result.speed["preprocess"]):  # it happened in the loader's processes
            speed = result.speed | {"preprocess": self._preprocess_ms(truth.paths, side, rect)}
            result = dataclasses.replace(result, speed=speed)
        return result

    def _data(self, data: str | os.PathLike | None) -> Data:
        if data is not None:
            return load(CONFIGS / "yolo.yaml", {"data": os.fspath(data)}).data
        if self.names_from is not None:
            raise ValueError(
                f"{self.weights}: Darknet's weights do not say what data they were trained on; give --data"
            )
        own = self.config.data
        if own.embedded is None or read_stamp(own.root) is not None:
            return own
        # Not drawn there: weights from elsewhere do not say where on this machine something is written.
        here = load(CONFIGS / "yolo.yaml").data
        if here.embedded != own.embedded:
            raise ValueError(f"{self.weights}: its data set {own.root} is not on this machine; give it with --data")
        return here

    def _require_classes(self, classes: Sequence[str], where: str) -> None:
        if list(classes) == self.names:
            return
        if isinstance(self.model, Darknet) and len(classes) == len(self.names):
            # Names of other spelling (aeroplane, airplane) are the rule there; at another place they are an error.
            moved = [name for place, name in enumerate(classes) if self.names[place] != name and name in self.names]
            if not moved:
                return
            raise ValueError(
                f"{where}: class {list(classes).index(moved[0])} is {moved[0]!r}, which is class "
                f"{self.names.index(moved[0])} in {self.names_from or self.weights}; expected the same order"
            )
        message = f"{where} has {len(classes)} classes, the weights {self.weights} have {len(self.names)}"
        for place, (theirs, own) in enumerate(zip(classes, self.names, strict=False)):
            if theirs != own:
                raise ValueError(f"{message}; class {place} is {theirs!r} there and {own!r} in the weights")
        raise ValueError(f"{message}; expected the same names in the same order")

    def _preprocess_ms(self, paths: Sequence[str | os.PathLike], side: int, rect: bool) -> float:
        """Milliseconds of fitting an image into the network's input, decoding left out, as a mean over some."""
        spent = []
        for path in list(paths)[:TIMED_IMAGES]:
            image = read_image(path)
            start = time.perf_counter()
            self.model.preprocess(image, side, rect=rect)
            spent.append(time.perf_counter() - start)
        return sum(spent) / len(spent) * 1e3 if spent else float("nan")

    def labels(self, classes: Sequence[int | str] | None) -> list[int] | None:
        """Positions of classes that are given by position or by name; ValueError for one that there is not."""
        if classes is None:
            return None
        found = []
        for each in classes:
            if isinstance(each, str) and each in self.names:
                found.append(self.names.index(each))
            elif str(each).isdecimal() and int(each) < len(self.names):
                found.append(int(each))
            else:
                known = ", ".join(f"{k} {name}" for k, name in enumerate(self.names[:20]))
                more = f", ... ({len(self.names)} in all)" if len(self.names) > 20 else ""
                raise ValueError(f"classes: found {each!r}; the weights know {known}{more}")
        if not found:
            raise ValueError("classes: an empty list; expected labels or names, or nothing for all")
        return found

    def _side(self, imgsz: int | None) -> int:
        side = self.imgsz if imgsz is None else imgsz
        stride = self.model.stride
        if side % stride or not 0 < side <= MOST_PIXELS:
            near = min(max(stride, (side + stride // 2) // stride * stride), MOST_PIXELS)
            raise ValueError(
                f"imgsz: found {side}; a multiple of the stride {stride} up to {MOST_PIXELS} is expected, as {near}"
            )
        return side


class _OneClass(nn.Module):
    """A detector whose classes count as one: a box's score is its best."""

    def __init__(self, detector: Detector | Darknet) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.detector(images)

    def decode(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        boxes, scores = self.detector.decode(outputs)
        return boxes, scores.amax(dim=-1, keepdim=True)

    def nms(self, boxes: Tensor, scores: Tensor, **options: Any) -> list[Detections]:
        return self.detector.nms(boxes, scores, **options)


def check_thresholds(*, conf: float, iou: float, max_det: int) -> None:
    """ValueError where a threshold is no share or the number of detections not positive."""
    for name, value in (("conf", conf), ("iou", iou)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: found {value}; a number from 0 to 1 is expected")
    if max_det < 1:
        raise ValueError(f"max_det: found {max_det}; a whole number from 1 on is expected")


def _suppress(
    boxes: Tensor,
    scores: Tensor,
    *,
    wanted: list[int] | None,
    nms: Callable[..., list[Detections]] = nms,
    **options: Any,
) -> list[Detections]:
    """Each box for its best class only; boxes whose best class is not ``wanted`` are no rivals of the others."""
    if wanted is not None:
        kept = torch.isin(scores.argmax(dim=-1), torch.tensor(wanted, device=scores.device))
        scores = scores * kept[..., None]
    return nms(boxes, scores, multi_label=False, **options)


def _config(path: Path, tree: Any) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        reason = explain(error, Config, name="config")
        raise ValueError(f"{path}: the checkpoint's config is not of this version: {reason}") from error


def _names(path: Path, names: Any) -> list[str]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: the checkpoint's class names are not a list of names")
    if len(names) > MAX_CLASSES:
        raise ValueError(f"{path}: the checkpoint has {len(names)} classes, expected at most {MAX_CLASSES}")
    return names


def _refuse_other_activations(path: Path, built: Sequence[CensusRow], trained: Any) -> None:
    """ValueError where the weights were trained with other activations than the checkpoint's config builds."""
    own = [tuple(dataclasses.asdict(row)[key] for key in CENSUS_KEYS) for row in built]
    rows = trained if isinstance(trained, list) and all(isinstance(row, dict) for row in trained) else []
    theirs = [tuple(row.get(key) for key in CENSUS_KEYS) for row in rows]
    different = [row for row in theirs if row not in own] or [row for row in own if row not in theirs]
    if different:
        part, stage, name = different[0][:3]
        raise ValueError(
            f"{path}: the weights were trained with other activations than the config in the checkpoint "
            f"builds: {len(different)} stages differ, as {part}.{stage}: {name}"
        )


def _require_fitting(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """ValueError naming the first of the weights that is not one for one a network's own, of its shape and type."""
    own = model.state_dict()
    for name in [*own, *weights]:
        here, there = own.get(name), weights.get(name)
        if here is None or there is None or here.shape != there.shape or here.dtype != there.dtype:
            found = "missing" if there is None else _form(there)
            expected = "nothing of this name" if here is None else _form(here)
            raise ValueError(
                f"{path}: the weights do not fit the checkpoint's own config: {name} is {found}, expected {expected}"
            )


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
