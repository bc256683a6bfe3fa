"""Exported files through their runtimes: arrays in, arrays out; and as a detector for the evaluator and detect.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from core.arguments import ImageSize
from core.geometry import Geometry
from core.options import NmsOptions
from core.text import printable
from core.types import Detections, DetectorModel, Targets
from deploy.metadata import Metadata
from deploy.targets import find_target, module_of, require_packages, target_of


class Runtime(ABC):
    """An exported file, loaded by the library that runs it, on the CPU."""

    metadata: Metadata
    description: str  # library, version, threads

    @abstractmethod
    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Outputs of images (B, 3, H, W) float32 in 0..1; B is 1 unless the file is dynamic."""


def open_runtime(path: str | Path, *, threads: int | None = None) -> Runtime:
    """Load an exported file; `threads`: None for the library's default.

    ValueError for a file of no target or of another project, and for a missing package; FileNotFoundError.
    """
    path = Path(path)
    name = target_of(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if name is None:
        raise ValueError(f"{path}: not an exported file; expected one that export.py wrote")
    if find_target(name).runtime is None:
        raise ValueError(f"{path}: {find_target(name).title} has no runtime here; its files run on its own systems")
    require_packages(name, to_run=True)
    opened: Runtime = module_of(name).open_file(path, threads=threads)
    return opened


class DeployedDetector(DetectorModel):
    """An exported file as a detector; pre- and postprocessing are those of the network it was exported from.

    A file of fixed size pads every image to that size (`rect` is ignored) and takes images one by one.
    """

    def __init__(self, runtime: Runtime, reference: DetectorModel, *, path: Path) -> None:
        """`reference`: the network of the file's configuration; its weights are not used (meta device)."""
        super().__init__()
        self.runtime, self.path, self.metadata = runtime, path, runtime.metadata
        self._reference = [reference]  # in a list: no module of this one
        self.names, self.stride = list(self.metadata.names), self.metadata.stride
        # Where and in what type callers hand images over.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    @property
    def reference(self) -> DetectorModel:
        """The network that the file was exported from, without its weights."""
        return self._reference[0]

    @property
    def loss_names(self) -> Sequence[str]:
        """Those of the network."""
        return self.reference.loss_names

    @property
    def fitting(self) -> Mapping[str, bool]:
        """That of the network."""
        return self.reference.fitting

    def forward(self, images: Tensor) -> list[Tensor]:
        """The file's outputs for images (B, 3, H, W) in 0..1; detections of NMS inside as a map of scores."""
        found = self.metadata
        height, width = images.shape[2:]
        if not found.dynamic and (height, width) != tuple(found.imgsz):
            raise ValueError(
                f"{self.path}: images of {height}x{width} pixels, but it was exported for {found.imgsz[0]}x"
                f"{found.imgsz[1]}; export it with --imgsz {height} {width} or --dynamic"
            )
        arrays = np.ascontiguousarray(images.detach().float().cpu().numpy())
        if found.dynamic and not found.nms.inside:
            outputs = self.runtime.run(arrays)
        else:
            rows = [self.runtime.run(arrays[k : k + 1]) for k in range(len(arrays))]
            if found.nms.inside:
                return [self._spread(torch.from_numpy(np.array(row[0], np.float32))) for row in rows]
            outputs = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        return [torch.from_numpy(np.array(output, np.float32)) for output in outputs]

    def _spread(self, detections: Tensor) -> Tensor:
        """Detections (n, 6) of an image as (n, 4 + classes): boxes, and each score in the column of its class."""
        scores = torch.zeros(len(detections), len(self.names))
        scores[torch.arange(len(detections)), detections[:, 5].long()] = detections[:, 4]
        return torch.cat((detections[:, :4], scores), dim=1)

    def preprocess(
        self, image: np.ndarray, size: ImageSize, *, rect: bool = False, original: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, Geometry]:
        """As the network does, into the size of a fixed file."""
        return self.reference.preprocess(image, size, rect=rect and self.metadata.dynamic, original=original)

    def decode(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes (B, A, 4) xyxy in network pixels and scores (B, A, classes), float32."""
        if self.metadata.nms.inside:
            table = nn.utils.rnn.pad_sequence(list(outputs), batch_first=True)
            return table[..., :4], table[..., 4:]
        if self.metadata.outputs == "heads":
            return self.reference.decode(outputs)
        boxes, scores = outputs
        return boxes, scores

    def nms(self, boxes: Tensor, scores: Tensor, options: NmsOptions) -> list[Detections]:
        """The detections of each image; ValueError for options that the NMS inside a file has decided otherwise."""
        inside = self.metadata.nms
        if inside.inside:
            if options.multi_label:
                raise ValueError(f"{self.path}: its NMS keeps one class a box, and mAP needs all; export without --nms")
            if options.agnostic or options.iou != inside.iou or options.conf < inside.conf:
                raise ValueError(
                    f"{self.path}: NMS inside it has IoU threshold {inside.iou}, confidence {inside.conf} and is per "
                    "class; a higher --conf can be chosen, others need an export without --nms"
                )
        return self.reference.nms(boxes, scores, options)

    def loss(
        self,
        outputs: Sequence[Tensor],
        targets: Targets,
        *,
        over_processes: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """ValueError: an exported file has no loss."""
        raise ValueError(f"{self.path}: an exported file has no loss; use the checkpoint")

    def fused(self) -> DeployedDetector:
        """Itself: norms were folded by the export."""
        return self

    def input_size(self, size: ImageSize | None) -> tuple[int, int]:
        """(height, width) for a requested size, None for the file's; ValueError if a fixed file has another."""
        found = self.metadata
        if size is None:
            return found.imgsz
        wanted = size if isinstance(size, tuple) else self._sides(size)
        if not found.dynamic and wanted != tuple(found.imgsz):
            raise ValueError(
                f"imgsz: found {wanted[0]} {wanted[1]}, but {printable(self.path)} was exported for {found.imgsz[0]} "
                f"{found.imgsz[1]}; export it with that --imgsz or --dynamic"
            )
        return wanted

    def _sides(self, side: int) -> tuple[int, int]:
        """(height, width) of the input of a long side: a square, or what the cfg makes of it."""
        of_cfg = getattr(self.reference, "input_size", None)
        width, height = of_cfg(side) if of_cfg is not None else (side, side)
        return height, width
