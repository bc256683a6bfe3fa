"""Darknet `.weights` files: a header, then the float32 values of each convolution in the order of the cfg.

Header: int32 major, minor, revision, then `seen`, the number of training images so far, with 64 bits since version 0.2
and 32 bits before. A convolution: biases; with batch norm also scales, means and variances; then weights (filters,
channels / groups, size, size). All little-endian. A file may end after any layer (`darknet partial`, such as
yolov4.conv.137): a backbone to start a training from.
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
    """The header of a file."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def layout(self) -> str:
        """Its format for the struct module."""
        return "<iiiQ" if self.major * 10 + self.minor >= 2 else "<iiiI"

    def to_bytes(self) -> bytes:
        """Its bytes in a file."""
        return struct.pack(self.layout, self.major, self.minor, self.revision, self.seen)


@dataclass(frozen=True)
class WeightsFile:
    """A file whose size matches a plan; only its header has been read."""

    path: Path
    header: Header
    values: int
    layers: int  # the file holds the values of the first `layers` layers
    plan: Plan  # the network that it matches

    def is_whole(self, plan: Plan) -> bool:
        """Whether it holds the values of all layers."""
        return self.layers == len(plan.layers)

    def holds(self, layer: Layer) -> bool:
        """Whether it has values for a layer of this index and size; other layers of its network may differ."""
        return layer.index < self.layers and self.plan.layers[layer.index].values == layer.values


def check_weights(path: str | os.PathLike, plan: Plan) -> WeightsFile:
    """Read the header and check that the size of the file matches the network, or its first layers. Reads no values.

    FileNotFoundError, or ValueError with the number of missing or surplus values.
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
    which = f"{difference} are missing" if difference > 0 else f"{-difference} are surplus"
    raise ValueError(
        f"{path}: {values} values, {plan.file} has {plan.values}: {which}, and the file does not end after one of its "
        "layers; expected the .weights of this cfg"
    )


def _measure(file: Path, cfg: str) -> tuple[Header, int]:
    """The header of a file and the number of values that follow."""
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
                         "expected a complete Darknet .weights")  # fmt: skip
    return header, values


def check_other_classes(path: str | os.PathLike, text: str, *, file: str) -> WeightsFile:
    """Like `check_weights`, for a file that may have another number of classes than the cfg.

    The number follows from the size of the file, which is a linear function of it.
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
    """Load the values of a `.weights` that fit the network of a cfg `text`; return notes for the user.

    The file may end early or have another number of classes. ValueError if it belongs to another network.
    """
    file = check_other_classes(path, text, file=model.plan.file)
    count = read_weights(file, model)
    weighted = [layer for layer, _ in model.weighted()]
    notes = [f"weights: {count} of {len(weighted)} convolutions loaded from {path}, seen {file.header.seen:,} images"]
    if file.plan.classes != model.num_classes and file.is_whole(model.plan):
        notes[0] += f", {file.plan.classes} classes"
    left = [layer.path for layer in weighted if not file.holds(layer)]
    if left:
        notes.append(f"  not loaded: {', '.join(left[:8])}{', ...' if len(left) > 8 else ''}")
    names = Counter(
        f"{layer.section['activation']} -> {model.activations[layer.path].name}"
        for layer in model.plan.layers
        if layer.has_activation and file.holds(layer)
        and model.activations[layer.path] != ACTIVATIONS[layer.section["activation"]]
    )  # fmt: skip
    if names:
        listed = ", ".join(f"{count} {name}" for name, count in names.items())
        notes.append(f"  WARNING: trained with other activations, according to the cfg: {listed}")
    return notes


def _header(start: bytes, file: Path) -> Header:
    if len(start) < 16:
        raise ValueError(
            f"{file}: {len(start)} bytes; expected a Darknet .weights, which starts with a header of 16 or 20 bytes"
        )
    major, minor, revision = struct.unpack_from("<iii", start)
    if not (0 <= major < 1000 and 0 <= minor < 1000 and 0 <= revision < 1_000_000):
        raise ValueError(
            f"{file}: starts with version {major}.{minor}.{revision}; expected a Darknet .weights, such as 0.2.5"
        )
    header = Header(major, minor, revision)
    if len(start) < struct.calcsize(header.layout):
        raise ValueError(f"{file}: {len(start)} bytes; expected a header of 20 bytes and values")
    return Header(*struct.unpack_from(header.layout, start))


def read_weights(file: WeightsFile, model: Darknet) -> int:
    """Load the values of a checked file into the network; return the number of layers loaded.

    Skips layers whose size differs between file and network, such as those before the heads if the number of classes
    differs. ValueError naming the layer if a value is not finite or a variance is negative, in which case the network
    may have been modified.
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
                        f"{file.path}: was truncated while being read; expected {model.plan.values} values"
                    )
                _require_finite(data, name, layer, file.path)
                tensor.copy_(torch.from_numpy(data.astype(np.float32, copy=False)).view(tensor.shape))
            count += 1
    return count


def _require_finite(data: np.ndarray, name: str, layer: Layer, path: Path) -> None:
    valid = np.isfinite(data)
    if name == "variances":
        valid &= data >= 0
    if not valid.all():
        wrong = data[~valid]
        raise ValueError(
            f"{path}: {len(wrong)} of the {len(data)} {name} of layer {layer.index} ({layer.section.file}, line "
            f"{layer.section.line}) are invalid, such as {wrong[0]}; expected finite numbers and no "
            "negative variance"
        )


def tensors(module: ConvNormAct | ConvAct) -> list[tuple[str, Tensor]]:
    """The tensors of a convolution by their Darknet names, in the order of a file."""
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
    """Write the values of all layers, or of the first `layers` layers, in float32.

    ValueError for a folded network, and for learned parameters of activations, which the format cannot store.
    """
    _require_storable(model, path)
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


def _require_storable(model: Darknet, path: str | os.PathLike) -> None:
    storable = {id(tensor) for _, module in model.weighted() for _, tensor in tensors(module)}
    others = [name for name, parameter in model.named_parameters() if id(parameter) not in storable]
    if others:
        raise ValueError(f"{path}: the Darknet format cannot store {others[0]}; expected activations without "
                         "learned parameters")  # fmt: skip
    if sum(tensor.numel() for _, module in model.weighted() for _, tensor in tensors(module)) != model.plan.values:
        raise ValueError(f"{path}: the network does not match its cfg; expected one whose batch norms are not folded")
