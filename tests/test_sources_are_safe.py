"""No source of the project runs text, unpickles code, or starts a shell: read from its syntax trees."""

import ast
from pathlib import Path

import pytest

from tests.test_imports import ROOT

FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "input", "breakpoint"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open"),
    *("dill.load", "dill.loads", "joblib.load", "cloudpickle.load", "cloudpickle.loads"),
    *("os.system", "os.popen", "os.execv", "os.execve", "os.execvp", "os.spawnv", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "torch.jit.load"),
    *("torch.hub.load", "tempfile.mktemp"),
}
ALLOWED = {
    "__main__.py": {"os.execv"},  # Python itself, on the folder of the package
    "deploy/torchscript.py": {"torch.jit.load"},  # a program by its nature, which --weights names
}
PROCESSES = {f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")}
LOADERS = {"_Loader", "SafeLoader", "yaml.SafeLoader", "yaml.CSafeLoader"}


def faults(source: str) -> list[str]:
    """What a source does that none may, with the line."""
    found = []
    names = aliases(source)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func, names)
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        bad = called in FORBIDDEN
        bad |= called == "torch.load" and not is_true(options.get("weights_only"))
        bad |= called in ("numpy.load",) and "allow_pickle" in options and not is_false(options["allow_pickle"])
        bad |= called == "yaml.load" and dotted(options.get("Loader"), names) not in LOADERS
        bad |= called in PROCESSES and not (node.args and isinstance(node.args[0], ast.List | ast.Name | ast.BinOp))
        bad |= "shell" in options and not is_false(options["shell"])
        if bad:
            found.append(f"line {node.lineno}: {called}")
    return found


def aliases(source: str) -> dict[str, str]:
    """Local names of what is imported, as np -> numpy, anywhere in a module."""
    names = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted(node: ast.AST | None, names: dict[str, str]) -> str:
    """The full name of what is called, empty where it has none."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return ""


def is_true(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def is_false(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def sources() -> list[Path]:
    """Every Python file of the project but its tests."""
    skipped = {"tests", "runs", "datasets", "shared", "build"}
    folders = [each for each in ROOT.iterdir() if each.name[0] != "." and each.name not in skipped]
    return sorted([*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))])


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_what_it_reads(path: Path) -> None:
    found = {fault.partition(": ")[2] for fault in faults(path.read_text(encoding="utf-8"))}
    assert found == ALLOWED.get(path.relative_to(ROOT).as_posix(), set())


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "import pickle as p\np.load(file)",
        "from pickle import loads as take\ntake(data)",
        "import os\nos.system('ls')",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "from subprocess import run\nrun(f'ls {name}')",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
    ],
)
def test_what_is_looked_for_is_found(line: str) -> None:
    assert len(faults(line)) == 1
