"""The detector: backbone, neck and head, and what differs between families: preprocess, loss, decode, fused."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from core.geometry import Geometry, letterbox
from core.types import Detections, DetectorModel, Targets
from models.backbone import Backbone
from models.blocks import folded
from models.decode import decode, nms
from models.head import Head
from models.loss import detection_loss
from models.neck import Neck


class Detector(DetectorModel):
    """An anchor-free detector of three levels; images (B, 3, H, W) in 0..1 with sides divisible by `stride`."""

    loss_names = ("box", "cls", "dfl")
    fitting: Mapping[str, bool] = {"stretch": False, "smooth": True}  # of training images, as `preprocess` does it

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck,
        head: Head,
        *,
        names: Sequence[str],
        gains: Mapping[str, float],
        assignment: Mapping[str, Any],
        activations: Mapping[str, Mapping[str, Any]],
    ):
        """`gains` of the loss terms box, cls and dfl; `assignment` holds topk, alpha and beta.

        `activations` is what was asked for at each stage, as in {"neck.T4": {"name": "mish"}, ...}, for the census.
        """
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.names = list(names)
        self.num_classes = len(self.names)
        self.strides = head.strides
        self.stride = max(self.strides)
        self.gains, self.assignment = dict(gains), dict(assignment)
        self.activations = {stage: dict(spec) for stage, spec in activations.items()}

    def forward(self, images: Tensor) -> list[Tensor]:
        """Three raw maps (B, 4 * reg_max + classes, H / stride, W / stride), finest first."""
        return self.head(*self.neck(*self.backbone(images)))

    def preprocess(
        self, image: np.ndarray, size: int, *, rect: bool = False, original: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, Geometry]:
        """Letterbox an image (H, W, 3) to a square of `size`, or where `rect` to the next multiples of the stride."""
        return letterbox(image, size, rect_stride=self.stride if rect else None, original=original)

    def loss(self, outputs: Sequence[Tensor], targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the raw maps, a float32 scalar, and its detached terms box, cls and dfl."""
        return detection_loss(
            outputs,
            targets,
            strides=self.strides,
            num_classes=self.num_classes,
            gains=self.gains,
            **self.assignment,
        )

    def decode(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes (B, A, 4) xyxy in network pixels and scores (B, A, classes), float32."""
        return decode(outputs, strides=self.strides, num_classes=self.num_classes)

    def nms(self, boxes: Tensor, scores: Tensor, **options: Any) -> list[Detections]:
        """The detections of each image; `models.decode.nms` says what the options are."""
        return nms(boxes, scores, **options)

    def fused(self) -> "Detector":
        """A copy for inference with every batch norm folded into its convolution."""
        return folded(self)

    def set_biases(self) -> None:
        """Start the head's last biases, once the weights are drawn."""
        self.head.set_biases()


@torch.no_grad()
def initialise(detector: Any, *, seed: int) -> None:
    """Draw the weights of all convolutions, each from a stream of its own keyed by the seed and its name.

    So they do not depend on what else the network holds, the activations least of all. The bounds are
    1 / sqrt(inputs), as PyTorch has them: batch norm makes a layer's scale matter only in relation to the learning
    rate, and the rates in use are tuned to this one.
    """
    for path, module in detector.named_modules():
        if isinstance(module, nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.is_meta:
                    continue
                # The same numbers wherever the network stands; on the CPU they are drawn where they belong.
                draw = parameter if parameter.is_cpu else torch.empty(parameter.shape, device="cpu")
                draw.uniform_(-bound, bound, generator=_stream(seed, f"{path}.{name}"))
                if draw is not parameter:
                    parameter.copy_(draw)
    detector.set_biases()


def _stream(seed: int, name: str) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "big") >> 1)


def flops(model: nn.Module, imgsz: int = 640) -> float:
    """GFLOPs of one image of `imgsz` pixels a side: two for each multiply-add of the convolutions. Computes nothing."""
    tensors = {name: tensor.detach().to("meta") for name, tensor in model.state_dict(keep_vars=True).items()}
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        functional_call(model, tensors, (torch.empty(1, 3, imgsz, imgsz, device="meta"),))
    return counter.get_total_flops() / 1e9
