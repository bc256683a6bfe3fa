"""Where progress is a bar."""

import io
import sys

import pytest

from core.progress import Progress, shows_bars


class CellOutput(io.StringIO):
    """The stderr of a notebook's cell: no terminal, but it shows a line that is written over."""


CellOutput.__module__ = "ipykernel.iostream"


@pytest.mark.parametrize(("stream", "expected"), [(CellOutput(), True), (io.StringIO(), False)])
def test_a_bar_is_shown_in_a_notebook_and_not_in_a_file(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, expected: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert shows_bars() is expected
    with Progress(4, title="epoch 1/2") as progress:
        progress.update("loss 1.0", count=4)
    assert ("epoch 1/2" in stream.getvalue()) is expected
