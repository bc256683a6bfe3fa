"""Python API: ``YOLO("yolo-mish.yaml").train(data="my.yaml")``, ``.predict("image.jpg")``, ``.val()``, ``.export()``.

The scripts use it, or what it stands on. Arrays are RGB; pass ``bgr=True`` for arrays from OpenCV.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
import yaml

from configs.keywords import overrides_from, refuse_foreign
from configs.loading import CONFIGS, DARKNET_SUFFIX, Tree, find
from configs.schema import Config, Data, load
from core.arguments import ImageSize, class_numbers, given, shown
from core.device import pick_device
from core.options import Classes, EvalKeywords, EvalOptions, NmsOptions, PredictKeywords, PredictOptions
from data import build_eval_loader, load_dataset
from data.sources import Source, open_source
from data.synthetic import read_stamp
from deploy.export import Exported, Trained, export_file, require_exportable
from deploy.images import CHECKED, draw_images, read_images
from deploy.options import ExportKeywords, ExportOptions
from deploy.runtime import DeployedDetector, open_runtime
from deploy.targets import require_options, target_of
from engine.checkpoint import build_described, build_from_checkpoint, build_from_darknet
from engine.detections import Result
from engine.evaluation.evaluate import EvalResult, evaluate, score, with_progress
from engine.evaluation.ground_truth import GroundTruth
from engine.evaluation.tiled import detect_in_tiles
from engine.loggers import Logger
from engine.predictor import Predictor
from engine.published import locate
from engine.resume import NEWEST
from engine.tracking import Tracks
from engine.train_result import TrainResult
from engine.training import start
from models import CensusRow, Darknet, Detector
from ops.mish import prepare

__all__ = ["YOLO", "Logger", "Result", "TrainResult"]

MAX_IMGSZ = 8192
CONFIG_SUFFIXES = (".yaml", ".yml", DARKNET_SUFFIX)


class YOLO:
    """A detector: a checkpoint of a run, published weights, Darknet .weights, or a file of ``export``; or one to train,
    from a configuration."""

    config: Config
    census: list[CensusRow]
    names: list[str]
    names_from: str | None = None  # where the class names of Darknet weights come from
    _network: Detector | Darknet | DeployedDetector | None = None  # None: of a configuration, not yet trained

    def __init__(
        self,
        weights: str | os.PathLike,
        *,
        cfg: str | os.PathLike | None = None,
        names: str | os.PathLike | None = None,
        device: str | int | torch.device | None = None,
        half: bool = False,
        fuse: bool = True,
    ) -> None:
        """Build the network of the checkpoint and load its weights (the EMA if it has one).

        ``weights``: best.pt, last.pt, .weights, what `python -m weights.publish` wrote (its file, its folder, or the
        name of a folder in weights/), or an http address of such a file that ends in ``#sha256=`` and its hash; or,
        for ``train``, a configuration (.yaml, by path or by name in configs/, or a Darknet .cfg).

        ``cfg``: the network of Darknet .weights. ``names``: a file with their class names, one per line; by default a
        .names file beside the weights or the cfg, or COCO's for 80 classes. ``device``: auto (None), cpu, cuda, cuda:N,
        N. ``half``: compute in fp16, on a GPU only. ``fuse``: fold batch norms into the convolutions. Raises
        FileNotFoundError or ValueError for a missing or invalid file or an unavailable device.
        """
        self._chosen_device = None if device is None else str(device)
        self.device, self.device_text = pick_device(self._chosen_device or "auto")
        if not isinstance(weights, str | os.PathLike):
            raise ValueError(f"weights: found {shown(weights)}, expected the path of a checkpoint or Darknet .weights")
        if half and self.device.type == "cpu":
            raise ValueError("half: fp16 needs a GPU, and the device is the CPU; leave it out")
        self.weights, self._half, self._fuse = locate(os.fspath(weights)), half, fuse
        self._cfg = None if cfg is None else os.fspath(cfg)
        if cfg is None and names is None and self.weights.suffix in CONFIG_SUFFIXES:
            self._cfg = str(find(self.weights, CONFIGS))
            self.config, self.census, self.names = load(self._cfg), [], []
            return
        self._load(cfg, names)

    def _load(self, cfg: str | os.PathLike | None = None, names: str | os.PathLike | None = None) -> None:
        """Build the network that ``self.weights`` belongs to, with these weights, on the device."""
        weights, half = self.weights, self._half
        model: Detector | Darknet
        self.names_from = None
        if cfg is not None:
            model, self.config, self.census, self.names_from = build_from_darknet(weights, Path(cfg), names=names)
        elif weights.suffix == ".weights":
            raise ValueError(f"{weights}: a Darknet .weights does not describe its network; give its .cfg as cfg")
        elif names is not None:
            raise ValueError(f"names: {names}; the class names of {weights} are in the checkpoint, leave it out")
        elif target_of(weights) is not None:
            self._network = self._from_export(half)
            return
        else:
            model, self.config, self.census = build_from_checkpoint(weights)
        self.names = model.names
        if any(row.activation == "mish" for row in self.census):
            prepare(self.device)  # compile the kernel before any clock starts
        model = (model.fused() if self._fuse else model.eval()).to(self.device)
        self._network = model.half() if half else model

    def _from_export(self, half: bool) -> DeployedDetector:
        runtime = open_runtime(self.weights)
        found = runtime.metadata
        if self.device.type != "cpu":
            self.device, _ = pick_device("cpu")
        if half:
            raise ValueError(f"half: {self.weights} computes in {found.precision}, as it was exported; leave it out")
        reference, self.config, self.census = build_described(
            self.weights, config=found.config, names=found.names, rows=found.census
        )
        self.names, self.names_from, self.device_text = list(found.names), found.names_from, runtime.description
        return DeployedDetector(runtime, reference, path=self.weights)

    @property
    def model(self) -> Detector | Darknet | DeployedDetector:
        """The network with its weights; ValueError before the training of a configuration."""
        if self._network is None:
            raise ValueError(
                f"{self.weights}: a configuration, without weights; train it first, as in .train(data=...)"
            )
        return self._network

    def train(
        self,
        data: str | os.PathLike | None = None,
        *,
        callbacks: Sequence[Logger] = (),
        resume: bool = False,
        **options: Any,
    ) -> TrainResult:
        """Train as train.py does, into a run folder; afterwards this object has the best weights of the run.

        A configuration is trained from its start, weights are fine-tuned: their network at their image size, on
        ``data`` (a data YAML, a folder or an annotation file; by default that of the configuration or the weights).
        ``callbacks``: loggers (`engine.loggers.Logger`) that are called at the start, after each epoch and at the end.
        ``resume``: continue the interrupted run of these weights, a last.pt, instead.

        Keyword arguments are the flags of train.py (``epochs``, ``imgsz``, ``batch``, ``lr0``, ``device``, ...), the
        last parts of keys of configs/yolo.yaml (``act``, ``mosaic``, ...), or whole keys, as in
        ``**{"model.neck.act": "relu"}``; the defaults are those of train.py.

        Ctrl-C ends the training after a whole step and returns the run so far, which can be resumed. Raises TypeError
        or ValueError for wrong arguments and data, FileNotFoundError for what is missing, and
        `engine.training.TrainingFailed` if the machine, the data or a diverging loss ended the run.
        """
        given = overrides_from("train", options)
        if data is not None:
            given["data"] = os.fspath(data)
        if resume:
            return self._start(given, resumed_from=str(self.weights), callbacks=callbacks)
        if self._chosen_device is not None:
            given = {"train.device": self._chosen_device} | given
        if self._network is None or self._cfg is not None:
            if self._network is not None:  # Darknet's
                given = {"weights": str(self.weights)} | given
            return self._start(given, cfg=self._cfg, callbacks=callbacks)
        with tempfile.TemporaryDirectory() as folder:
            cfg = Path(folder, f"{self.weights.name}.yaml")
            cfg.write_text(self._as_trained(has_data="data" in given), encoding="utf-8")
            return self._start(given, cfg=str(cfg), callbacks=callbacks)

    @classmethod
    def resume(
        cls, run: str | os.PathLike = NEWEST, *, callbacks: Sequence[Logger] = (), **options: Any
    ) -> TrainResult:
        """Continue an interrupted run, given by its folder or its last.pt; by default the newest below runs/train.

        ``data``: where its data are now, if they were moved. Of its settings, ``device``, ``workers`` and others that
        do not change the result can be given anew. Returns and raises what ``train`` does.
        """
        return start(overrides_from("resume", options), resumed_from=os.fspath(run), loggers=callbacks)

    def _start(
        self, given: Tree, *, callbacks: Sequence[Logger], cfg: str | None = None, resumed_from: str | None = None
    ) -> TrainResult:
        run = start(given, cfg=cfg, resumed_from=resumed_from, loggers=callbacks)
        found = next((path for path in (run.best, run.last) if path.is_file()), None)
        if found is not None:
            self.weights, self._cfg = found, None
            self._load()
        return run

    def _as_trained(self, *, has_data: bool) -> str:
        """The configuration by which weights are fine-tuned: their network, image size and, unless there are, data."""
        if isinstance(self.model, DeployedDetector):
            raise ValueError(f"{self.weights}: an exported file cannot be trained; give the weights it was made of")
        config = self.config.model_dump(mode="json")
        kept = {key: config["train"][key] for key in ("imgsz", "single_cls")}
        found = {"base": "yolo.yaml", "model": config["model"], "weights": str(self.weights.absolute()), "train": kept}
        if not has_data:
            found["data"] = self._data(None).model_dump(mode="json")
        return yaml.safe_dump(found, allow_unicode=True)

    @property
    def imgsz(self) -> int:
        """Image size in pixels the network was trained at, or that of its Darknet cfg or of an exported file."""
        if isinstance(self.model, DeployedDetector):
            return max(self.model.metadata.imgsz)
        if self.names_from is not None and isinstance(self.model, Darknet):
            return self.model.side
        return self.config.train.imgsz or 640

    @property
    def iou(self) -> float:
        """Default NMS IoU threshold of this kind of network."""
        if isinstance(self.model, DeployedDetector):
            return self.model.metadata.nms.iou
        return self.config.model.nms_iou

    def describe(self) -> str:
        """Weights, network, classes, image size and device in one line; for Darknet weights also the parts."""
        activations = ", ".join(dict.fromkeys(row.activation for row in self.census))
        precision = "fp16" if next(self.model.parameters()).dtype == torch.float16 else "fp32"
        size = str(self.imgsz)
        if isinstance(self.model, DeployedDetector):
            precision, size = self.model.metadata.precision, self.model.metadata.describe_size()
        model = self.config.model
        line = (
            f"{self.weights}: {model.kind} {Path(model.cfg).name if model.kind == 'darknet' else model.size} with "
            f"{activations}, {len(self.names)} classes, {size} pixels; {self.device_text}, {precision}"
        )
        if isinstance(self.model, Darknet) and self.names_from is not None:
            line += f"\n{self.model.describe()}\nclass names: {self.names_from}"
        return line

    def track(self, source: Any, *, bgr: bool = False, **options: Unpack[PredictKeywords]) -> list[Result]:
        """``predict`` with an id for each object of a video, or of images in order, in ``result.track_ids``.

        By ByteTrack of the package trackers, without which it is a ValueError. For a camera or stream, use
        ``stream(source, track=True)``.
        """
        return self.predict(source, bgr=bgr, track=True, **options)

    def predict(
        self, source: Any, *, bgr: bool = False, track: bool = False, **options: Unpack[PredictKeywords]
    ) -> list[Result]:
        """Detect objects in every image of ``source``: a path, folder, glob, video, array, list, ... (data/sources.py).

        Keyword arguments, with their defaults in core.options.PredictOptions:

        - ``conf``: confidence threshold; ``iou``: NMS IoU threshold; ``max_det``: maximum detections per image
        - ``classes``: detect these classes only, one or several, by number or name; ``agnostic``: apply NMS across
          classes
        - ``imgsz``: long side of the network input in pixels, or (height, width); by default that of training
        - ``rect``: pad images to a multiple of the stride instead of a square
        - ``batch``: batch size; does not change the results
        - ``workers``: threads that read image files ahead, by default one per core, at most 8
        - ``tile``: for small objects in large images, detect in overlapping tiles of this side in pixels (0: that of
          the network's input) and in the whole image, and merge the boxes
        - ``bgr``: arrays are in OpenCV's channel order; ``track``: see ``YOLO.track``

        None stands for the default of each. Raises ValueError for a value of another type or out of range.
        A camera or stream has no end; use ``stream`` for it.
        """
        frames = source if isinstance(source, Source) else open_source(source, bgr=bgr)
        if frames.is_live:
            raise ValueError(f"source {frames.description}: a camera or stream has no end; use YOLO.stream instead")
        return list(self.stream(frames, track=track, **options))

    def stream(
        self, source: Any, *, bgr: bool = False, track: bool = False, **options: Unpack[PredictKeywords]
    ) -> Iterator[Result]:
        """Yield the results of ``predict`` one by one, with at most ``batch`` and ``workers`` images in memory."""
        refuse_foreign("predict", options)
        chosen = PredictOptions(**given("predict", options, PredictKeywords.__annotations__))
        tracks = Tracks(chosen.conf) if track else None
        if tracks is not None:
            chosen = replace(chosen, conf=tracks.lowest)
        nms = self.nms_options(chosen, multi_label=False, agnostic=chosen.agnostic)
        predictor = self._predictor(chosen, nms, self.labels(chosen.classes))
        frames = source if isinstance(source, Source) else open_source(source, bgr=bgr)
        found = predictor.run(frames, workers=chosen.workers)
        return found if tracks is None else tracks.follow(found, vid_stride=frames.vid_stride)

    def _predictor(
        self, options: PredictOptions | EvalOptions, nms: NmsOptions, classes: Sequence[int] | None = None
    ) -> Predictor:
        return Predictor(
            self.model,
            names=self.names,
            device=self.device,
            nms=nms,
            imgsz=self.input_size(options.imgsz),
            rect=options.rect,
            batch=options.batch,
            classes=classes,
            tile=options.tile,
        )

    def val(
        self, data: str | os.PathLike | None = None, *, progress: bool = True, **options: Unpack[EvalKeywords]
    ) -> EvalResult:
        """Evaluate on a split of a data set with pycocotools.

        ``data``: a data YAML, by default that of the training. Keyword arguments, with their defaults in
        core.options.EvalOptions:

        - ``split``: val, test or train
        - ``conf``: confidence threshold; ``iou``: NMS IoU threshold; ``max_det``: maximum detections per image
        - ``imgsz``: long side of the network input in pixels, or (height, width); by default that of training
        - ``rect``: pad images to a multiple of the stride instead of a square
        - ``batch``: batch size; does not change the numbers; ``workers``: processes that load ahead, by
          default one per core and per two batches, at most 8
        - ``single_cls``: treat all classes as one, by default as in training
        - ``strict_data``: raise ValueError for damaged data, which are otherwise skipped and listed in
          ``result.truth.issues``; ``allow_skipped``: even if they are more than half
        - ``tile``: detect as ``predict`` does with ``tile``, and score on the whole images

        Raises ValueError if the classes of the data are not those of the weights.
        """
        refuse_foreign("val", options)
        chosen = EvalOptions(**given("val", options, EvalKeywords.__annotations__))
        nms = self.nms_options(chosen, multi_label=True)
        imgsz = self.input_size(chosen.imgsz)
        single = self.config.train.single_cls if chosen.single_cls is None else chosen.single_cls
        annotations = load_dataset(
            self._data(data),
            chosen.split,
            strict=chosen.strict_data,
            allow_skipped=chosen.allow_skipped or self.config.train.allow_skipped,
            single_cls=single,
            progress=progress,
        )
        if not single:
            self._require_classes(annotations.classes, f"the {chosen.split} split of {annotations.source}")
        truth = GroundTruth.from_annotations(annotations)
        if chosen.tile is not None:
            if single and len(self.names) > 1:
                raise ValueError(f"tile: the {len(self.names)} classes of {self.weights} cannot be merged in tiles")
            found = detect_in_tiles(
                self._predictor(chosen, nms), annotations, truth=truth, progress=progress, workers=chosen.workers
            )
            return score(found, truth=truth, nms=nms, official=True)
        loader = build_eval_loader(
            annotations,
            imgsz=imgsz,
            batch=chosen.batch,
            workers=chosen.workers,
            preprocess=self.model.preprocess,
            rect=chosen.rect,
            progress=progress,
            pin_memory=self.device.type == "cuda",
        )
        return evaluate(
            self.model,
            with_progress(loader, total=len(loader)) if progress else loader,
            truth=truth,
            nms=nms,
            official=True,
            merge_classes=single,
        )

    def export(
        self,
        format: str = "onnx",
        *,
        data: str | os.PathLike | None = None,
        output: str | os.PathLike | None = None,
        progress: bool = True,
        **options: Unpack[ExportKeywords],
    ) -> Exported:
        """Write a file for another runtime, run it, and compare it with PyTorch on real images (docs/export.md).

        ``format``: onnx, torchscript, torch_export, openvino, ncnn, coreml, tflite or tensorrt. ``data``: a data YAML
        for the images of the check, and of the quantisation, which requires it. ``output``: where to write, by default
        beside the weights. Keyword arguments, with their defaults, in deploy.options.ExportOptions.

        Raises ValueError for what the format does not support, FloatingPointError if the results differ.
        """
        refuse_foreign("export", options)
        chosen = ExportOptions(**given("export", options, ExportKeywords.__annotations__))
        require_options(format, chosen)
        trained = self.exportable(chosen, has_data=data is not None)

        def images_of(split: str, count: int) -> list[np.ndarray]:
            return read_images(load_dataset(self._data(data), split, verify=False, progress=progress), count)

        return export_file(
            trained,
            format,
            chosen,
            images=draw_images() if data is None else images_of("val", CHECKED),
            calibration=images_of("train", chosen.calibration) if chosen.int8 else [],
            output=None if output is None else Path(output),
            say=print if progress else lambda _: None,
        )

    def exportable(self, options: ExportOptions, *, has_data: bool) -> Trained:
        """What is exported; ValueError for a file that was exported already, for fp16, and for int8 without data."""
        model = require_exportable(self.model, self.weights, options, has_data=has_data)
        size = self.input_size(options.imgsz)
        if not isinstance(size, tuple):
            size = model.input_size(size)[::-1] if isinstance(model, Darknet) else (size, size)
        config = self.config.model_dump(mode="json")
        return Trained(model, self.weights, self.census, config, size, self.iou, self.names_from)

    def nms_options(
        self, options: PredictOptions | EvalOptions, *, multi_label: bool, agnostic: bool = False
    ) -> NmsOptions:
        """The NMS options, with the default IoU threshold of the network if none is given."""
        iou = self.iou if options.iou is None else options.iou
        return NmsOptions(options.conf, iou, options.max_det, multi_label=multi_label, agnostic=agnostic)

    def _data(self, data: str | os.PathLike | None) -> Data:
        if data is not None:
            if not isinstance(data, str | os.PathLike):
                raise ValueError(f"data: found {shown(data)}, expected the path of a data YAML")
            return load(CONFIGS / "yolo.yaml", {"data": os.fspath(data)}).data
        if self.names_from is not None:
            raise ValueError(f"{self.weights}: Darknet weights do not name the data they were trained on; give --data")
        trained_on = self.config.data
        if trained_on.embedded is None or read_stamp(trained_on.root) is not None:
            return trained_on
        # Never draw it at the path in the checkpoint: weights from elsewhere must not decide where files are written.
        here = load(CONFIGS / "yolo.yaml").data
        if here.embedded != trained_on.embedded:
            raise ValueError(f"{self.weights}: its data set {trained_on.root} is not on this machine; give --data")
        return here

    def _require_classes(self, classes: Sequence[str], where: str) -> None:
        if list(classes) == self.names:
            return
        network = self.model.reference if isinstance(self.model, DeployedDetector) else self.model
        if isinstance(network, Darknet) and len(classes) == len(self.names):
            # Other spellings (aeroplane, airplane) are common there; the same name at another position is an error.
            moved = [name for place, name in enumerate(classes) if self.names[place] != name and name in self.names]
            if not moved:
                return
            raise ValueError(
                f"{where}: class {list(classes).index(moved[0])} is {moved[0]!r}, which is class "
                f"{self.names.index(moved[0])} in {self.names_from or self.weights}; expected the same order"
            )
        message = f"{where} has {len(classes)} classes, the weights {self.weights} have {len(self.names)}"
        for place, (found, expected) in enumerate(zip(classes, self.names, strict=False)):
            if found != expected:
                raise ValueError(f"{message}; class {place} is {found!r} in the data and {expected!r} in the weights")
        raise ValueError(f"{message}; expected the same names in the same order")

    def labels(self, classes: Classes | None) -> list[int] | None:
        """Class numbers of one or several classes given by number or name; raises ValueError for an unknown one."""
        return None if classes is None else class_numbers(classes, self.names)

    def input_size(self, imgsz: ImageSize | None) -> ImageSize:
        """The size of the input, by default that of training; ValueError if it is no multiple of the stride."""
        if isinstance(self.model, DeployedDetector):
            imgsz = self.model.input_size(imgsz)
        size = self.imgsz if imgsz is None else imgsz
        stride = self.model.stride
        sides = size if isinstance(size, tuple) else (size,)
        if any(side % stride or not 0 < side <= MAX_IMGSZ for side in sides):
            near = [min(max(stride, (side + stride // 2) // stride * stride), MAX_IMGSZ) for side in sides]
            found, such = (" ".join(map(str, numbers)) for numbers in (sides, near))
            raise ValueError(
                f"imgsz: found {found}, expected a multiple of the stride {stride} up to {MAX_IMGSZ}, such as {such}"
            )
        return size
