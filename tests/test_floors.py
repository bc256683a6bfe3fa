"""The floors of the house: imports point down only, those inside functions too."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = {"train", "val", "detect", "compare"}
MAY_IMPORT = {
    "ops": set(),
    "configs": set(),
    "models": {"ops"},
    "data": {"ops"},
    "engine": {"ops"},
    "experiment": {"ops", "configs"},
    "yolo": {"ops", "configs", "models", "data", "engine"},
    "scripts": {"ops", "configs", "models", "data", "engine", "experiment", "yolo"},
    "studies": {"ops", "configs", "models", "data", "engine", "experiment", "yolo"},
    "benchmarks": {"ops", "configs", "models", "data", "engine", "experiment", "yolo", *SCRIPTS},
}
# Run as python -m FOLDER.NAME: an entry script in all but its place, so it may import what scripts may, and no module
# of ours may import it.
COMMANDS = {"data/check.py", "models/darknet.py"}
OURS = set(MAY_IMPORT) - {"scripts"} | SCRIPTS


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
    floor = "scripts" if place in SCRIPTS or path.relative_to(ROOT).as_posix() in COMMANDS else place
    found = imported(path.read_text(encoding="utf-8")) & (OURS | {"a relative import"})
    assert found <= MAY_IMPORT[floor] | ({place} if floor != "scripts" else set())


def test_nothing_imports_a_command() -> None:
    commands = {command.removesuffix(".py").replace("/", ".") for command in COMMANDS}
    assert {path for path in modules() if dotted(path.read_text(encoding="utf-8")) & commands} == set()
    assert dotted("from data import check\n") & commands and dotted("import data.check as c\n") & commands


def test_an_import_inside_a_function_is_seen() -> None:
    assert imported("def f():\n    from engine.trainer import Trainer\n") == {"engine"}


def test_comparisons_know_run_folders_only() -> None:
    """No module of experiment/ imports torch: a report is made where nothing is trained."""
    folder = ROOT / "experiment"
    readers = {path.name for path in folder.glob("*.py") if "torch" in imported(path.read_text(encoding="utf-8"))}
    assert readers == set() and (folder / "report.py").is_file()


def test_config_objects_are_read_at_the_doors_only() -> None:
    """configs is imported by the entry scripts and yolo.py; parts take plain keyword arguments."""
    parts = [path for path in modules() if path.relative_to(ROOT).as_posix() not in COMMANDS]
    readers = {p.relative_to(ROOT).parts[0] for p in parts if "configs" in imported(p.read_text(encoding="utf-8"))}
    assert readers <= {"configs", "yolo.py", "experiment", "benchmarks", "studies"} | {
        f"{script}.py" for script in SCRIPTS
    }
