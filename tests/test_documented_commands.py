"""Commands in README.md, docs/ and docstrings can be typed in a clone: their scripts, modules and flags exist."""

import argparse
import ast
import importlib
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_imports import modules

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "weights/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OUTSIDE = {"pytest", "pip", "venv", "ruff", "mypy"}  # modules and programs that are not of this project
DYNAMIC = {"benchmarks.faults"}  # passes its arguments on to train.py
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ +)*(?:\S*/)?(?:uv run|python3?)(?: -m)? .+")


class Built(Exception):
    """Raised instead of parsing, with the parser that was built."""


def texts() -> list[tuple[Path, str]]:
    """The pages, and the docstrings of modules, which --help prints."""
    found = [(page, page.read_text(encoding="utf-8")) for page in PAGES]
    for path in modules():
        text = path.read_text(encoding="utf-8")
        if "python" in text or "uv run" in text:
            found.append((path, (ast.get_docstring(ast.parse(text)) or "").replace("``", "`")))
    return found


def commands() -> list[tuple[str, str]]:
    """(page, command) of every code block and inline code that starts Python or uv."""
    found = []
    for page, text in texts():
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
        lines = [line for block in blocks for line in block.splitlines()]
        rest = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.M | re.S)
        lines += [line.strip() for line in re.findall(r"^ {4}\S.*$", rest, re.M)]
        lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest)]
        found += [(str(page.relative_to(ROOT)), part.strip()) for line in lines for part in line.split("&&")]
    return sorted({(page, line) for page, line in found if COMMAND.fullmatch(line)})


def split(command: str) -> tuple[str, list[str]]:
    """What a command runs, a module or a script, and its arguments."""
    words = shlex.split(command, comments=True)
    while re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
        words = words[1:]
    words = words[2:] if words[1] == "run" else words[1:]
    return (words[1], words[2:]) if words[0] == "-m" else (words[0], words[1:])


def parser_of(name: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser that a script or module builds when it is called."""
    module = importlib.import_module(name.removesuffix(".py"))
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")

    def stop(parser: argparse.ArgumentParser, *arguments: object, **options: object) -> None:
        raise Built(parser)

    for function in ("parse_args", "parse_known_args"):
        monkeypatch.setattr(argparse.ArgumentParser, function, stop)
    monkeypatch.setattr(sys, "argv", [name])
    main: Callable[[], object] = module.main
    with pytest.raises(Built) as built:
        main() if not main.__code__.co_argcount or main.__defaults__ else main([])
    return built.value.args[0]


COMMANDS: dict[str, list[tuple[str, str]]] = {}
for page, line in commands():
    COMMANDS.setdefault(split(line)[0], []).append((page, line))


def test_commands_are_found() -> None:
    assert {"train.py", "val.py", "detect.py", "compare.py", "data.check", "models.darknet"} <= set(COMMANDS)
    assert sum(map(len, COMMANDS.values())) > 40


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - OUTSIDE))
def test_script_and_flags_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / (name if name.endswith(".py") else name.replace(".", "/"))
    assert path.is_file() or path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), COMMANDS[name]
    if name in DYNAMIC:
        return
    with monkeypatch.context() as patch:
        flags = set(parser_of(name, patch)._option_string_actions)
    for page, line in COMMANDS[name]:
        for word in split(line)[1]:
            flag = word.partition("=")[0]
            if re.match(r"--?[a-zA-Z]", flag) and flag.replace("_", "-") not in flags:
                pytest.fail(f"{page}: {line}: {name} has no flag {flag}")


def test_files_named_in_commands_for_pytest_exist() -> None:
    for name in sorted(OUTSIDE & set(COMMANDS)):
        for page, line in COMMANDS[name]:
            if page == "docs/extending.md":  # its examples add test files; tests/test_extending.py runs the commands
                continue
            for word in split(line)[1]:
                assert not word.startswith("tests/") or (ROOT / word).exists(), (page, line)


def test_files_named_in_the_pages_exist() -> None:
    """Sources, tests and documents that a page names by their path."""
    pattern = r"(?:benchmarks|comparison|configs|core|data|docs|engine|models|ops|studies|tests|weights)"
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(rf"`({pattern}/[\w./-]+\.(?:py|h|cpp|cu|md|html))`", text))
        named |= {str((page.parent / link).resolve()) for link in re.findall(r"\]\(([^)#:]+)[^)]*\)", text)}
        missing = [name for name in sorted(named) if not (ROOT / name).exists()]
        assert not missing, f"{page}: {missing}"
