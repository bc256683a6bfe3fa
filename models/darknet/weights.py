"""Darknet's `.weights`: a header, then the float32 values of each convolution in the order of the cfg.

Header: int32 major, minor, revision, then `seen`, the images of the training so far, 64 bits wide from version 0.2 on
and 32 bits before. A convolution: its biases; with batch norm also scales, means and variances; then its weights
(filters, channels / groups, size, size). All little-endian. A file may end early, after the values of some layer
(`darknet partial`, as yolov4.conv.137): a backbone to start a training from.
"""

import os
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.limits import MAX_CLASSES
from models.blocks import ConvAct, ConvNormAct
from models.darknet.adapt import for_classes
from models.darknet.cfg import ACTIVATIONS
from models.darknet.graph import Layer, Plan, plan_network
from models.darknet.network import Darknet

FLOAT = np.dtype("<f4")


@dataclass(frozen=True)
class Header:
    """What stands before the values."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def layout(self) -> str:
        """Of the struct module."""
        return "<iiiQ" if self.major * 10 + self.minor >= 2 else "<iiiI"

    def to_bytes(self) -> bytes:
        """As they stand in a file."""
        return struct.pack(self.layout, self.major, self.minor, self.revision, self.seen)


@dataclass(frozen=True)
class WeightsFile:
    """A file whose size fits a plan: nothing but its header has been read."""

    path: Path
    header: Header
    values: int
    layers: int  # of the cfg that it holds values for: all, or the first so many
    plan: Plan  # whose values it holds

    def is_whole(self, plan: Plan) -> bool:
        """Whether it ends with the network, not early."""
        return self.layers == len(plan.layers)

    def holds(self, layer: Layer) -> bool:
        """Whether it has values for a layer of this size, in the same place of a network that may differ in others."""
        return layer.index < self.layers and self.plan.layers[layer.index].values == layer.values


def check_weights(path: str | os.PathLike, plan: Plan) -> WeightsFile:
    """Read the header and compare the file's size with the network's, or that of its first layers.

    FileNotFoundError, or ValueError that says how many values are missing or left over. Reads no value.
    """
    file = Path(path)
    header, values = _measure(file, plan.file)
    if values == plan.values:
        return WeightsFile(file, header, values, len(plan.layers), plan)
    held = 0
    for layer in plan.layers:
        held += layer.values
        if layer.values and held == values:
            return WeightsFile(file, header, values, layer.index + 1, plan)
    difference = plan.values - values
    which = f"{difference} are missing" if difference > 0 else f"{-difference} are left over"
    raise ValueError(
        f"{path}: {values} values, {plan.file} has {plan.values}: {which}, and the file does not end with one of its "
        "layers; expected the .weights that belong to this cfg"
    )


def _measure(file: Path, cfg: str) -> tuple[Header, int]:
    """The header of a file and the number of values behind it."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; expected the .weights of {cfg}")
    size = file.stat().st_size
    with open(file, "rb") as stream:
        start = stream.read(20)
    header = _header(start, file)
    length = struct.calcsize(header.layout)
    values, rest = divmod(size - length, FLOAT.itemsize)
    if rest:
        raise ValueError(f"{file}: {size} bytes, {rest} more than a header of {length} and whole float32 values; "
                         "expected a Darknet .weights that was copied whole")  # fmt: skip
    return header, values


def check_other_classes(path: str | os.PathLike, text: str, *, file: str) -> WeightsFile:
    """As `check_weights`, of a file that may have been trained on another number of classes than the cfg's text says.

    The number follows from the file's size, of which each class takes the same share.
    """
    plan = plan_network(text, file=file)
    try:
        return check_weights(path, plan)
    except ValueError:
        _, values = _measure(Path(path), file)
        one, two = (plan_network(for_classes(text, count, file=file), file=file).values for count in (1, 2))
        classes, rest = divmod(values - one, two - one)
        if rest or not 0 <= classes < MAX_CLASSES:
            raise
        return check_weights(path, plan_network(for_classes(text, classes + 1, file=file), file=file))


def start_from_weights(model: Darknet, path: str, census: Sequence[object], *, text: str) -> list[str]:
    """Load what fits of a `.weights` into the network of a cfg's `text`; return what to say about it.

    The file may end early, or be of another number of classes. ValueError where it is another network's.
    """
    file = check_other_classes(path, text, file=model.plan.file)
    count = read_weights(file, model)
    weighted = [layer for layer, _ in model.weighted()]
    notes = [f"weights: {count} of {len(weighted)} convolutions taken from {path}, seen {file.header.seen:,} images"]
    if file.plan.classes != model.num_classes and file.is_whole(model.plan):
        notes[0] += f", {file.plan.classes} classes"
    left = [layer.path for layer in weighted if not file.holds(layer)]
    if left:
        notes.append(f"  left as initialised: {', '.join(left[:8])}{', ...' if len(left) > 8 else ''}")
    names = Counter(
        f"{layer.section['activation']} -> {model.activations[layer.path].name}"
        for layer in model.plan.layers
        if layer.has_activation and file.holds(layer)
        and model.activations[layer.path] != ACTIVATIONS[layer.section["activation"]]
    )  # fmt: skip
    if names:
        listed = ", ".join(f"{count} {name}" for name, count in names.items())
        notes.append(f"  WARNING: trained with other activations, as far as the cfg says: {listed}")
    return notes


def _header(start: bytes, file: Path) -> Header:
    if len(start) < 16:
        raise ValueError(
            f"{file}: {len(start)} bytes; expected a Darknet .weights, which begins with a header of 16 or 20"
        )
    major, minor, revision = struct.unpack_from("<iii", start)
    if not (0 <= major < 1000 and 0 <= minor < 1000 and 0 <= revision < 1_000_000):
        raise ValueError(
            f"{file}: begins with the version {major}.{minor}.{revision}; expected a Darknet .weights, as 0.2.5"
        )
    header = Header(major, minor, revision)
    if len(start) < struct.calcsize(header.layout):
        raise ValueError(f"{file}: {len(start)} bytes; expected a header of 20 and values")
    return Header(*struct.unpack_from(header.layout, start))


def read_weights(file: WeightsFile, model: Darknet) -> int:
    """Put the values of a checked file into the network; returns how many layers got theirs.

    Layers whose size differs between the file and the network, as those before the heads do where the classes are
    others, stay as they are.
    ValueError naming the layer where values are no finite numbers, or a variance is negative. The network may have been
    written to by then.
    """
    count = 0
    with open(file.path, "rb") as stream, torch.no_grad():
        stream.seek(struct.calcsize(file.header.layout))
        for layer, module in model.weighted():
            if layer.index >= file.layers:
                break
            if not file.holds(layer):
                stream.seek(FLOAT.itemsize * file.plan.layers[layer.index].values, os.SEEK_CUR)
                continue
            for name, tensor in tensors(module):
                data = np.fromfile(stream, FLOAT, tensor.numel())
                if len(data) < tensor.numel():
                    raise ValueError(
                        f"{file.path}: became shorter while it was read; expected {model.plan.values} values"
                    )
                _require_numbers(data, name, layer, file.path)
                tensor.copy_(torch.from_numpy(data.astype(np.float32, copy=False)).view(tensor.shape))
            count += 1
    return count


def _require_numbers(data: np.ndarray, name: str, layer: Layer, path: Path) -> None:
    good = np.isfinite(data)
    if name == "variances":
        good &= data >= 0
    if not good.all():
        wrong = data[~good]
        raise ValueError(
            f"{path}: {len(wrong)} of the {len(data)} {name} of layer {layer.index} ({layer.section.file}, line "
            f"{layer.section.line}) are no numbers to compute with, as {wrong[0]}; expected finite ones, and no "
            "negative variance"
        )


def tensors(module: ConvNormAct | ConvAct) -> list[tuple[str, Tensor]]:
    """The tensors of a convolution under Darknet's names, in the order of a file."""
    if isinstance(module, ConvAct):
        assert module.conv.bias is not None
        return [("biases", module.conv.bias), ("weights", module.conv.weight)]
    norm = module.norm
    return [
        ("biases", norm.bias),
        ("scales", norm.weight),
        ("means", norm.get_buffer("running_mean")),
        ("variances", norm.get_buffer("running_var")),
        ("weights", module.conv.weight),
    ]


def write_weights(path: str | os.PathLike, model: Darknet, *, header: Header, layers: int | None = None) -> None:
    """Write the values of all layers, or of the first so many; an unfolded network in float32.

    What Darknet's format has no place for, learned parameters of activations, is refused with ValueError.
    """
    _refuse_homeless(model, path)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    limit = len(model.plan.layers) if layers is None else layers
    try:
        with open(temporary, "wb") as stream:
            stream.write(header.to_bytes())
            for layer, module in model.weighted():
                if layer.index < limit:
                    for _, tensor in tensors(module):
                        stream.write(
                            tensor.detach().cpu().float().contiguous().numpy().astype(FLOAT, copy=False).tobytes()
                        )
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_homeless(model: Darknet, path: str | os.PathLike) -> None:
    held = {id(tensor) for _, module in model.weighted() for _, tensor in tensors(module)}
    homeless: Sequence[str] = [name for name, each in model.named_parameters() if id(each) not in held]
    if homeless:
        raise ValueError(f"{path}: Darknet's format has no place for {homeless[0]}; expected activations without "
                         "learned parameters")  # fmt: skip
    if sum(tensor.numel() for _, module in model.weighted() for _, tensor in tensors(module)) != model.plan.values:
        raise ValueError(f"{path}: the network is not as its cfg has it; expected one whose norms are not folded")
