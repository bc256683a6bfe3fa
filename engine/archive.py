"""Safe reading of checkpoint files: tensors and plain values only, in no more memory than the file takes.

``torch.load(..., weights_only=True)`` runs no code from a file, but accepts more than ``torch.save`` writes for tensors
and plain values: ``bytearray(n)`` of any n, tensors without data, storages that claim more bytes than their record has.
So the file is checked first, and its content copied afterwards.
"""

import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

MAX_STRUCTURE_BYTES = 64 << 20  # of everything except tensors
MAX_DEPTH = 40
MAX_SHARED = 2  # times the file size: tensors may share storage
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
    """The content of a ``torch.save`` file, its tensors on the CPU with their own memory.

    Raises ValueError if it holds anything but tensors and plain values, or claims more memory than the file has; for a
    damaged file, whatever torch.load raises.
    """
    values = _require_plain(path)
    # Memory-mapped, a tensor that claims more than its record cannot extend beyond the file.
    mapped = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return _Copy(values, MAX_SHARED * path.stat().st_size).of(mapped)


def _require_plain(path: Path) -> int:
    """Raise ValueError unless a file has the form of torch.save with tensors and plain values; unpickles nothing.

    Returns the bytes of everything except tensors, an upper bound of the number of values.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = {entry.filename for entry in entries}
        unknown = next((name for name in sorted(names) if not RECORDS.fullmatch(name)), None)
        if unknown is not None:
            raise ValueError(f"holds {unknown!r}, which torch.save does not write")
        if len(names) < len(entries) or len({name.split("/")[0] for name in names}) != 1:
            raise ValueError("holds a duplicate record, or two archives")
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
            raise ValueError(f"holds {str(argument).replace(' ', '.')}, neither a tensor nor a plain value")
    return len(data)


class _Copy:
    """Copies loaded content into plain values and tensors with their own memory, within limits."""

    def __init__(self, most_values: int, most_bytes: int) -> None:
        self.values_left, self.bytes_left = most_values, most_bytes

    def of(self, value: Any, depth: int = 0) -> Any:
        """The copy of a value; raises ValueError for an unexpected type or too many values."""
        self.values_left -= 1
        if self.values_left < 0 or depth > MAX_DEPTH:  # nested lists can repeat each other exponentially often
            raise ValueError(f"holds more values than its size allows, or nested deeper than {MAX_DEPTH}")
        if value is None or isinstance(value, (bool, int, float, str)):  # noqa: UP038 - a union would be created at each call
            return value
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, dict):
            if not all(isinstance(key, str | int) for key in value):
                raise ValueError("holds a mapping with keys that are neither text nor numbers")
            # A file can give an OrderedDict attributes called get or items; use those of the class.
            return {key: self.of(dict.__getitem__(value, key), depth + 1) for key in value}
        if type(value) in (list, tuple):
            return type(value)([self.of(each, depth + 1) for each in value])
        raise ValueError(f"holds a {type(value).__name__}, neither a tensor nor a plain value")

    def _tensor(self, value: torch.Tensor) -> torch.Tensor:
        self.bytes_left -= value.numel() * value.element_size()
        if value.layout != torch.strided or value.device.type != "cpu" or self.bytes_left < 0:
            raise ValueError(
                f"holds tensors of more bytes than the file has, such as one of shape {tuple(value.shape)}"
            )
        return value.detach().clone()
