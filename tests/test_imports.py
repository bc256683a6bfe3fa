"""The floors of the house: imports point down only, those inside functions too."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = {"train", "val", "detect", "compare", "export", "__main__"}
PARTS = {"core", "ops", "models", "data", "engine"}
MAY_IMPORT = {
    "core": set(),
    "configs": {"core"},
    "ops": {"core"},
    "models": {"core", "ops"},
    "data": {"core", "ops"},
    "engine": {"core", "configs", "ops", "models", "data"},
    "deploy": PARTS,
    "comparison": {"core", "configs"},
    "yolo": PARTS | {"configs", "deploy"},
    "weights": set(),
    "scripts": PARTS | {"configs", "comparison", "deploy", "yolo"},
    "studies": PARTS | {"configs", "comparison", "deploy", "yolo"},
    "benchmarks": PARTS | {"configs", "comparison", "deploy", "yolo", *SCRIPTS},
}
# Entry scripts in all but their place: run as python -m, they may import what scripts may, and no module outside their
# folder may import them, but for the short names kept in data/.
COMMANDS = {
    "models/darknet/__main__.py",
    "comparison/deploy_runs.py",
    "comparison/step_timing.py",
    "comparison/untrained_latency.py",
    "weights/publish.py",
} | {path.relative_to(ROOT).as_posix() for path in (ROOT / "data" / "tools").glob("*.py")}
SHORT_NAMES = {"data/check.py", "data/convert.py", "data/download.py", "data/tile.py"}
TIMED = {"studies/timings.py"}  # times steps by the functions of comparison/step_timing.py
OURS = set(MAY_IMPORT) - {"scripts"} | SCRIPTS


@functools.cache
def dotted(source: str) -> set[str]:
    """Full names that a module imports, anywhere in it, with what it takes from them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        elif isinstance(node, ast.ImportFrom):
            names.add("a relative import")
    return names


@functools.cache
def imported(source: str) -> set[str]:
    """Top-level names that a module imports, anywhere in it."""
    return {name.split(".")[0] for name in dotted(source)}


def modules() -> list[Path]:
    """Every Python file of the project but its tests."""
    folders = [folder for folder in MAY_IMPORT if (ROOT / folder).is_dir()]
    return sorted(ROOT.glob("*.py")) + sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_only(path: Path) -> None:
    place = path.relative_to(ROOT).parts[0].removesuffix(".py")
    commands = COMMANDS | SHORT_NAMES
    floor = "scripts" if place in SCRIPTS or path.relative_to(ROOT).as_posix() in commands else place
    found = imported(path.read_text(encoding="utf-8")) & (OURS | {"a relative import"})
    assert found <= MAY_IMPORT[floor] | ({place} if floor != "scripts" else set())


def test_nothing_imports_a_command() -> None:
    commands = {command.removesuffix(".py").replace("/", ".") for command in COMMANDS}
    importers = {path for path in modules() if dotted(path.read_text(encoding="utf-8")) & commands}
    assert {path.relative_to(ROOT).as_posix() for path in importers} - COMMANDS == SHORT_NAMES | TIMED
    assert dotted("from data.tools import check\n") & commands and dotted("import data.tools.check as c\n") & commands


def test_an_import_inside_a_function_is_seen() -> None:
    assert imported("def f():\n    from engine.trainer import Trainer\n") == {"engine"}


def test_comparisons_know_run_folders_only() -> None:
    """No module of comparison/ imports torch: a report is made where nothing is trained."""
    folder = ROOT / "comparison"
    readers = {path.name for path in folder.glob("*.py") if "torch" in imported(path.read_text(encoding="utf-8"))}
    readers -= {"step_timing.py"}  # a command, run in a separate process
    assert readers == set() and (folder / "report.py").is_file()


def test_config_objects_are_read_at_the_doors_only() -> None:
    """configs is imported by the entry scripts and yolo.py; parts take plain keyword arguments."""
    parts = [path for path in modules() if path.relative_to(ROOT).as_posix() not in COMMANDS | SHORT_NAMES]
    readers = {p.relative_to(ROOT) for p in parts if "configs" in imported(p.read_text(encoding="utf-8"))}
    doors = {Path("engine") / f"{name}.py" for name in ("setup", "resume", "checkpoint", "batch_size", "training")}
    folders = {path.parts[0] for path in readers - doors}
    assert folders <= {"configs", "yolo.py", "comparison", "benchmarks", "studies"} | {
        f"{script}.py" for script in SCRIPTS
    }
