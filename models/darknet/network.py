"""A Darknet network built from its plan: the layers as modules by part and stage, preprocessing, loss, decoding."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from torch import Tensor, nn

from core.arguments import ImageSize
from core.geometry import Geometry, centred, stretch
from core.options import NmsOptions
from core.types import Detections, DetectorModel, Targets
from models.activations import ActivationSpec, make_activation
from models.blocks import AddAct, ConvAct, ConvNormAct, folded
from models.darknet.graph import IMAGE, RULE, Layer, Plan
from models.darknet.layers import Add, BoxHead, MaxPool, Route, Softmax, decode_heads, diou_nms
from models.darknet.loss import LossRule, darknet_loss
from models.decode import nms

NORM_EPS = 1e-6  # agrees with stored outputs of Darknet to 5e-5; 1e-5 differs by 0.014
NORM_MOMENTUM = 0.1  # of the running statistics, as in Darknet on the CPU; smaller values lag behind in short trainings
PRIOR = 0.01  # initial objectness of every prediction
PADDING_GREY = 128  # 0.5 in Darknet's letterbox


class Darknet(DetectorModel):
    """The network of a `.cfg`; images (B, 3, H, W) in 0..1 with height and width divisible by `stride`."""

    loss_names = ("box", "obj", "cls")

    def __init__(
        self,
        plan: Plan,
        *,
        names: Sequence[str],
        activations: Mapping[str, ActivationSpec],
        fuse: bool,
        gains: Mapping[str, float] | None = None,
        label_smoothing: float | None = None,
    ):
        """`activations` by the path of the layer, as in {"neck.N4.57": mish}.

        `gains` of the loss terms box, obj and cls multiply the normalizers of the cfg (None: 1). `label_smoothing`
        overrides that of the cfg (None).
        """
        super().__init__()
        self.plan = plan
        self.names = list(names)
        self.num_classes = len(self.names)
        self.stride = max(layer.stride for layer in plan.layers)
        self.strides = tuple(head.stride for head in plan.heads)
        self.box_heads = tuple(_box_head(layer) for layer in plan.heads)
        self.loss_rules = tuple(LossRule.of(head.section, label_smoothing=label_smoothing) for head in plan.heads)
        self.gains = dict(gains) if gains is not None else dict.fromkeys(self.loss_names, 1.0)
        self.activations = dict(activations)
        for layer in plan.layers:
            if layer.kind != "yolo":
                stage = _child(_child(self, layer.part), layer.stage)
                stage.add_module(str(layer.index), _module(layer, self.activations.get(layer.path), fuse=fuse))
        for head in plan.heads:
            before = self.get_submodule(plan.layers[head.sources[0]].path)
            if head.section["new_coords"] and isinstance(before, ConvAct):
                before.wide = True
        last_reader = {source: layer.index for layer in plan.layers for source in layer.sources}
        self._last_use: dict[int, list[int]] = {}
        for source, reader in last_reader.items():
            self._last_use.setdefault(reader, []).append(source)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The raw maps (B, n * (5 + classes), H / stride, W / stride) of the heads in the order of the cfg.

        For a classifier its scores (B, classes, 1, 1).
        """
        features, outputs = {IMAGE: images}, []
        for layer in self.plan.layers:
            inputs = [features[source] for source in layer.sources]
            if layer.kind == "yolo":
                outputs.append(inputs[0])
            else:
                features[layer.index] = self.get_submodule(layer.path)(*inputs)
            for source in self._last_use.get(layer.index, ()):
                del features[source]
        return outputs or [features[self.plan.layers[-1].index]]

    def preprocess(
        self, image: np.ndarray, size: ImageSize, *, rect: bool = False, original: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, Geometry]:
        """Resize an image (H, W, 3) to the network's input of long side `size`, or (height, width), as Darknet does.

        Stretched, or letterboxed if the cfg sets letter_box; bilinear in both cases. Darknet always fills the whole
        input, so `rect` is ignored. Boxes are not clipped to the image.
        """
        width, height = (size[1], size[0]) if isinstance(size, tuple) else self.input_size(size)
        if self.plan.net["letter_box"]:
            source_width, source_height = original or (image.shape[1], image.shape[0])
            inner = _fit(source_width, source_height, width, height)
            fitted = centred(image, inner, (width, height), fill=PADDING_GREY, original=original, smooth=False)
        else:
            fitted = stretch(image, (width, height), original=original, smooth=False)
        return fitted[0], replace(fitted[1], clips=False)

    def input_size(self, size: int) -> tuple[int, int]:
        """(width, height) of the input of long side `size`, with the aspect ratio of the cfg and whole strides."""
        width, height = self.plan.net["width"], self.plan.net["height"]
        other = max(self.stride, round(size * min(width, height) / max(width, height) / self.stride) * self.stride)
        return (size, other) if width >= height else (other, size)

    @property
    def fitting(self) -> dict[str, bool]:
        """Resizing of training images, as in `preprocess`: bilinear, without antialiasing."""
        return {"stretch": not self.plan.net["letter_box"], "smooth": False}

    @property
    def side(self) -> int:
        """The long side of the input in the cfg, in pixels."""
        return max(self.plan.net["width"], self.plan.net["height"])

    def loss(
        self,
        outputs: Sequence[Tensor],
        targets: Targets,
        *,
        over_processes: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the raw maps, a float32 scalar, and its detached terms box, obj and cls."""
        return darknet_loss(
            outputs,
            targets,
            heads=self.box_heads,
            rules=self.loss_rules,
            gains=self.gains,
            over_processes=over_processes,
        )

    def decode(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes (B, A, 4) xyxy in network pixels and scores (B, A, classes), float32."""
        if not self.box_heads:
            raise ValueError(f"{self.plan.file}: a classifier without [yolo] layers, which detects no boxes")
        return decode_heads(outputs, self.box_heads)

    def nms(self, boxes: Tensor, scores: Tensor, options: NmsOptions) -> list[Detections]:
        """The detections of each image, by the nms_kind of the cfg."""
        head = self.plan.heads[0].section
        if head["nms_kind"] == "diounms":
            return nms(boxes, scores, suppress=partial(diou_nms, beta=head["beta_nms"]), **asdict(options))
        return nms(boxes, scores, **asdict(options))

    def fused(self) -> "Darknet":
        """A copy for inference with every batch norm folded into its convolution."""
        return folded(self)

    def set_biases(self) -> None:
        """Set the biases of convolutions without a norm to 0, as Darknet does, but objectness to PRIOR.

        Nearly all predictions are background, whose loss would dominate the first epochs (RetinaNet, arXiv 1708.02002,
        sec. 3.3); Darknet has a warm-up of a thousand batches for that (`burn_in`).
        """
        for layer in self.plan.layers:
            module = self.get_submodule(layer.path) if layer.kind == "convolutional" else None
            if isinstance(module, ConvAct) and module.conv.bias is not None:
                nn.init.zeros_(module.conv.bias)
        for layer, head in zip(self.plan.heads, self.box_heads, strict=True):
            before = self.plan.layers[layer.sources[0]]
            module = self.get_submodule(before.path)
            if isinstance(module, ConvAct) and module.conv.bias is not None:
                module.conv.bias.view(len(head.anchors), -1)[:, 4] = math.log(PRIOR / (1 - PRIOR))

    def weighted(self) -> list[tuple[Layer, ConvNormAct | ConvAct]]:
        """The layers with values in a `.weights` file, in the order of the file."""
        modules = ((layer, self.get_submodule(layer.path)) for layer in self.plan.layers if layer.values)
        return [(layer, module) for layer, module in modules if isinstance(module, ConvNormAct | ConvAct)]

    def describe(self) -> str:
        """The activations of convolutions in the cfg by part, and the rule that defines the parts."""
        lines = []
        for part in ("backbone", "neck", "head"):
            layers = [layer for layer in self.plan.layers if layer.part == part and layer.kind == "convolutional"]
            counts = Counter(layer.section["activation"] for layer in layers)
            numbers = [layer.index for layer in self.plan.layers if layer.part == part]
            if numbers:
                listed = " + ".join(f"{count} {name}" for name, count in counts.items()) or "no convolution"
                lines.append(f"{part}: {len(numbers)} layers of {numbers[0]} to {numbers[-1]}; in the cfg {listed}")
        return "\n".join([*lines, f"parts: {RULE}"])


def _child(parent: nn.Module, name: str) -> nn.Module:
    if name not in parent._modules:
        parent.add_module(name, nn.Module())
    return parent.get_submodule(name)


def _module(layer: Layer, act: ActivationSpec | None, *, fuse: bool) -> nn.Module:
    """The module of a layer; `act` for layers with an activation."""
    section = layer.section
    if layer.kind == "convolutional":
        assert act is not None
        return _convolution(layer, act, fuse=fuse)
    if layer.kind == "shortcut":
        return Add() if act is None else AddAct(act)
    if layer.kind == "maxpool":
        return MaxPool(layer.size, stride=section["stride"], padding=layer.padding)
    if layer.kind == "route":
        return Route(groups=section["groups"], group=section["group_id"])
    if layer.kind == "upsample":
        return nn.Upsample(scale_factor=section["stride"], mode="nearest")
    if layer.kind == "avgpool":
        return nn.AdaptiveAvgPool2d(1)
    if layer.kind == "dropout":
        return nn.Dropout(section["probability"])
    return Softmax(groups=section["groups"])


def _convolution(layer: Layer, act: ActivationSpec, *, fuse: bool) -> ConvNormAct | ConvAct:
    section = layer.section
    dilation = section["dilation"] if section["size"] > 1 else 1
    options = {"padding": layer.padding * dilation, "dilation": dilation, "groups": section["groups"]}
    size, stride = section["size"], section["stride"]
    if section["batch_normalize"]:
        shape = {"kernel": size, "stride": stride, **options}
        block = partial(ConvNormAct, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        return block(layer.inputs, layer.channels, act=act, fuse=fuse, **shape)
    return ConvAct(nn.Conv2d(layer.inputs, layer.channels, size, stride, **options), make_activation(act))


def _box_head(layer: Layer) -> BoxHead:
    section = layer.section
    pairs = list(zip(section["anchors"][::2], section["anchors"][1::2], strict=True))
    chosen = section["mask"] or range(section["num"])
    return BoxHead(
        tuple(pairs[index] for index in chosen),
        section["classes"],
        layer.stride,
        section["scale_x_y"],
        bool(section["new_coords"]),
    )


def _fit(width: int, height: int, most_width: int, most_height: int) -> tuple[int, int]:
    """The largest (width, height) of this aspect ratio that fits, rounded down as in Darknet."""
    if most_width / width < most_height / height:
        return most_width, max(1, height * most_width // width)
    return max(1, width * most_height // height), most_height
