"""Running an entry script in this process, as the command line would."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from configs.cli import run_script


def run(main: Callable[[Sequence[str]], int], script: str, *arguments: object) -> int:
    """The exit code of a script's ``main`` with these arguments."""
    before, sys.argv = sys.argv, [script]
    try:
        with pytest.raises(SystemExit) as end:
            run_script(lambda: main([str(argument) for argument in arguments]))
    finally:
        sys.argv = before
    return int(end.value.code or 0)


def tree(folder: Path) -> dict[str, bytes | None]:
    """All paths in a folder, with the content of the files."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}
