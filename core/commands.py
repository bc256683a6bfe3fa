"""Commands that programs print: they work when pasted into a shell in the current folder."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = not (ROOT / "pyproject.toml").exists()  # from a wheel, of which it is no part


def command(program: str, *arguments: object) -> str:
    """The command line of a script (`train.py`) or module (`data.convert`) of this project, quoted for the shell."""
    start = _installed(program) if INSTALLED else [_python(), *_script(program)]
    words = [*start, *map(str, arguments)]
    line = subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
    if INSTALLED or program.endswith(".py") or Path.cwd() == ROOT or os.name == "nt":
        return line
    return f"PYTHONPATH={shlex.quote(str(ROOT))} {line}"


def _installed(program: str) -> list[str]:
    name = "yolo-mish"
    found = shutil.which(name)
    return [name if found else near(Path(sys.executable).with_name(name)), program.removesuffix(".py").split(".")[-1]]


def _script(program: str) -> list[str]:
    if not program.endswith(".py"):
        return ["-m", program]
    return [near(ROOT / program)]


def _python() -> str:
    """The interpreter: `python` where the shell finds this one under that name."""
    this = sys.executable
    found = shutil.which("python")
    # `uv run` puts its environment on the path for the time of the run only.
    lasting = "UV_RUN_RECURSION_DEPTH" not in os.environ
    if not this or (found and lasting and os.path.dirname(found) == os.path.dirname(this)):
        return "python"
    return near(Path(this))


def near(path: Path) -> str:
    """A path relative to the current folder if it is below it, else absolute; symbolic links are kept."""
    path, here = Path(os.path.abspath(path)), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
