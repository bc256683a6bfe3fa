"""Starting a script as several processes, from a program that goes on afterwards."""

import signal
import sys
from pathlib import Path

import pytest

from engine.launch import launch

NUMBERS = sorted(signal.valid_signals())


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 3])
def test_signals_are_handled_as_before(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes forked later inherit the handlers; with the launcher's, a pool can wait for ever at its end."""
    script = tmp_path / "script.py"
    script.write_text("import os, sys; sys.exit(int(sys.argv[1]) if os.environ['RANK'] == '1' else 0)")
    monkeypatch.setattr(sys, "argv", [str(script)])
    before = [signal.getsignal(number) for number in NUMBERS]
    assert launch(2, [str(code)]) == code
    assert [signal.getsignal(number) for number in NUMBERS] == before
