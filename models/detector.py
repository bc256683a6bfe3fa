"""The detector: backbone, neck and head, with preprocessing, loss and decoding; initial weights; FLOPs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from core.arguments import ImageSize
from core.geometry import Geometry, letterbox
from core.options import NmsOptions
from core.types import Detections, DetectorModel, Targets
from models.activations import ActivationSpec
from models.backbone import CSPBackbone
from models.blocks import folded
from models.decode import decode, nms
from models.head import DecoupledHead
from models.loss import LOSS_NAMES, detection_loss
from models.neck import Neck

if TYPE_CHECKING:
    from models.darknet.network import Darknet


class AssignmentOptions(TypedDict):
    """Parameters of `models.assign.assign`."""

    topk: int
    alpha: float
    beta: float


class Detector(DetectorModel):
    """An anchor-free detector; images (B, 3, H, W) in 0..1 with height and width divisible by `stride`."""

    loss_names = LOSS_NAMES
    fitting: Mapping[str, bool] = {
        "stretch": False,
        "smooth": True,
    }  # resizing of training images, as in `preprocess`

    def __init__(
        self,
        backbone: CSPBackbone,
        neck: Neck,
        head: DecoupledHead,
        *,
        names: Sequence[str],
        gains: Mapping[str, float],
        assignment: AssignmentOptions,
        activations: Mapping[str, ActivationSpec],
    ):
        """`gains` of the loss terms by name; `activations` requested for each stage, as in {"neck.T4": ...}.

        The census checks the network against `activations`.
        """
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.names = list(names)
        self.num_classes = len(self.names)
        self.strides = head.strides
        self.stride = max(self.strides)
        self.gains, self.assignment = dict(gains), assignment
        self.activations = dict(activations)

    def forward(self, images: Tensor) -> list[Tensor]:
        """A raw map (B, 4 * reg_max + classes, H / stride, W / stride) per level, finest first."""
        return self.head(self.neck(self.backbone(images)))

    def preprocess(
        self, image: np.ndarray, size: ImageSize, *, rect: bool = False, original: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, Geometry]:
        """Letterbox an image (H, W, 3) to a square of `size`, or to (height, width).

        With `rect`, pad only to the next multiples of the stride.
        """
        return letterbox(image, size, rect_stride=self.stride if rect else None, original=original)

    def loss(
        self,
        outputs: Sequence[Tensor],
        targets: Targets,
        *,
        over_processes: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the raw maps, a float32 scalar, and its detached terms by name."""
        return detection_loss(
            outputs,
            targets,
            strides=self.strides,
            num_classes=self.num_classes,
            gains=self.gains,
            over_processes=over_processes,
            **self.assignment,
        )

    def decode(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes (B, A, 4) xyxy in network pixels and scores (B, A, classes), float32."""
        return decode(outputs, strides=self.strides, num_classes=self.num_classes)

    def nms(self, boxes: Tensor, scores: Tensor, options: NmsOptions) -> list[Detections]:
        """The detections of each image."""
        return nms(boxes, scores, **asdict(options))

    def fused(self) -> Detector:
        """A copy for inference with every batch norm folded into its convolution."""
        return folded(self)

    def set_biases(self) -> None:
        """Set the initial biases of the head; called once the weights are drawn."""
        self.head.set_biases()


@torch.no_grad()
def initialise(detector: Detector | Darknet, *, seed: int) -> None:
    """Draw the weights of all convolutions, each from a random stream keyed by the seed and the parameter's name.

    Weights therefore do not depend on the rest of the network, in particular on its activations. The bounds are
    1 / sqrt(inputs), PyTorch's default: after batch norm the scale of a layer matters only relative to the learning
    rate, and the learning rates in use are tuned to this scale.
    """
    for path, module in detector.named_modules():
        if isinstance(module, nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.is_meta:
                    continue
                # The same numbers on every device: drawn on the CPU, in place if the parameter is there.
                draw = parameter if parameter.is_cpu else torch.empty(parameter.shape, device="cpu")
                draw.uniform_(-bound, bound, generator=_stream(seed, f"{path}.{name}"))
                if draw is not parameter:
                    parameter.copy_(draw)
    detector.set_biases()


def _stream(seed: int, name: str) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "big") >> 1)


def flops(model: nn.Module, imgsz: int = 640) -> float:
    """GFLOPs for one image of `imgsz` x `imgsz` pixels, counting a multiply-add as two; runs on the meta device."""
    tensors = {name: tensor.detach().to("meta") for name, tensor in model.state_dict(keep_vars=True).items()}
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        functional_call(model, tensors, (torch.empty(1, 3, imgsz, imgsz, device="meta"),))
    return counter.get_total_flops() / 1e9
