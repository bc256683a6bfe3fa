"""Many strings, such as file names, in one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np

from data.polygons import starts_of


class TextColumn(Sequence[str]):
    """Strings in one buffer: unlike with a list of str, reading them in a forked worker copies no memory page."""

    def __init__(self, buffer: np.ndarray, starts: np.ndarray):
        """`buffer` uint8 UTF-8, `starts` (n + 1,) offsets into it."""
        self.buffer, self.starts = buffer, starts

    @staticmethod
    def of(texts: Sequence[str]) -> TextColumn:
        """Pack strings."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        starts = starts_of(np.array([len(text) for text in encoded], np.int64))
        return TextColumn(np.frombuffer(b"".join(encoded), np.uint8), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index = index % len(self)
        return self.buffer[self.starts[index] : self.starts[index + 1]].tobytes().decode("utf-8", "surrogatepass")
