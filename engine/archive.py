"""What the file of a checkpoint may hold: tensors and plain values, in no more memory than the file itself takes.

``torch.load(..., weights_only=True)`` runs no code of a file, but it takes more than ``torch.save`` writes for tensors
and plain values: ``bytearray(n)`` of any n, tensors without data, storages that claim more bytes than their record has.
So a file is looked at first and copied afterwards.
"""

import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

MAX_STRUCTURE_BYTES = 64 << 20  # of all that is no tensor
MAX_DEPTH = 40
MAX_SHARED = 2  # times the size of the file, for tensors of which several show the same numbers
RECORDS = re.compile(
    r"[^/]+/(data\.pkl|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id|data/\d+)"
)
STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {name}Storage" for name in STORAGES),
}


def read_archive(path: Path) -> Any:
    """The structure in a file of ``torch.save``, its tensors on the CPU and owning their memory.

    ValueError where it holds anything but tensors and plain values or claims more than it has; a damaged file raises
    whatever torch.load raises for it.
    """
    values = _require_plain(path)
    # Mapped, a tensor that claims more than its record has ends with the file; read, torch would go on behind it.
    mapped = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return _Copy(values, MAX_SHARED * path.stat().st_size).of(mapped)


def _require_plain(path: Path) -> int:
    """ValueError where a file is not what torch.save makes of tensors and plain values; unpickles nothing.

    Returns the bytes of all that is no tensor, and so the most values that it holds: each takes one at least.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = {entry.filename for entry in entries}
        strange = next((name for name in sorted(names) if not RECORDS.fullmatch(name)), None)
        if strange is not None:
            raise ValueError(f"holds {strange!r}, which torch.save does not write")
        if len(names) < len(entries) or len({name.split("/")[0] for name in names}) != 1:
            raise ValueError("holds a record twice, or two archives in one")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("holds compressed records; torch.save stores without compression")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its records claim more bytes than the file has")
        structure = next((entry for entry in entries if entry.filename.endswith("/data.pkl")), None)
        if structure is None or structure.file_size > MAX_STRUCTURE_BYTES:
            raise ValueError(f"has no data.pkl, or one of more than {MAX_STRUCTURE_BYTES} bytes")
        data = archive.read(structure)
    for code, argument, _ in pickletools.genops(data):
        if code.name == "PROTO" and argument != 2:
            raise ValueError(f"is pickled by protocol {argument}; torch.save uses 2")
        if code.name == "GLOBAL" and argument not in GLOBALS:
            raise ValueError(f"holds {str(argument).replace(' ', '.')}, no tensor and no plain value")
    return len(data)


class _Copy:
    """Copies a loaded structure into plain values and tensors that own their memory, within bounds."""

    def __init__(self, most_values: int, most_bytes: int) -> None:
        self.values_left, self.bytes_left = most_values, most_bytes

    def of(self, value: Any, depth: int = 0) -> Any:
        """The copy of a value; ValueError where it is none of those that a checkpoint holds, or one too many."""
        self.values_left -= 1
        if self.values_left < 0 or depth > MAX_DEPTH:  # a list can hold another twice, and that another twice, ...
            raise ValueError(f"holds the same values again and again, or values deeper than {MAX_DEPTH}")
        if value is None or isinstance(value, (bool, int, float, str)):  # noqa: UP038 - a union is made at each call
            return value
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, dict):
            if not all(isinstance(key, str | int) for key in value):
                raise ValueError("holds a mapping with keys that are neither text nor numbers")
            # A file can give an OrderedDict attributes called get or items; those of the class are meant.
            return {key: self.of(dict.__getitem__(value, key), depth + 1) for key in value}
        if type(value) in (list, tuple):
            return type(value)([self.of(each, depth + 1) for each in value])
        raise ValueError(f"holds a {type(value).__name__}, no tensor and no plain value")

    def _tensor(self, value: torch.Tensor) -> torch.Tensor:
        self.bytes_left -= value.numel() * value.element_size()
        if value.layout != torch.strided or value.device.type != "cpu" or self.bytes_left < 0:
            raise ValueError(f"holds tensors of more bytes than the file has, as one of shape {tuple(value.shape)}")
        return value.detach().clone()
