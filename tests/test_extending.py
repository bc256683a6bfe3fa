"""The changes of docs/extending.md apply to the repository, touch at most two source files each, and work."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
TITLES = ["An activation", "A neck", "A metric", "A loss term", "A logger", "A data format"]


class Section(NamedTuple):
    title: str
    diff: str
    command: str


def sections() -> list[Section]:
    """The sections of the page; each has one diff and one command."""
    found = []
    for text in re.split(r"^## ", (ROOT / "docs/extending.md").read_text(encoding="utf-8"), flags=re.M)[1:]:
        (diff,) = re.findall(r"^```diff\n(.*?^)```$", text, re.M | re.S)
        (command,) = re.findall(r"^```bash\n(.*)\n```$", text, re.M)
        found.append(Section(text.splitlines()[0], diff, command))
    return found


def changed_files(diff: str) -> list[str]:
    return re.findall(r"^\+\+\+ b/(\S+)$", diff, re.M)


def git(*arguments: str, folder: Path, stdin: str | None = None) -> str:
    """The output of git in a folder, which is not searched for a repository further up."""
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, input=stdin, capture_output=True, encoding="utf-8", env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the tracked files."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone, to list the tracked files")
    folder = tmp_path / "copy"
    for name in filter(None, git("ls-files", "-z", folder=ROOT).split("\0")):
        if (ROOT / name).is_file():  # not deleted in the working tree
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def test_every_section_changes_at_most_two_source_files() -> None:
    assert [section.title for section in sections()] == TITLES
    for section in sections():
        changed = changed_files(section.diff)
        sources = [name for name in changed if not name.startswith("tests/") and not name.endswith(".md")]
        assert 1 <= len(sources) <= 2, (section.title, changed)


@pytest.mark.slow
@pytest.mark.parametrize("section", sections(), ids=lambda section: section.title)
def test_the_change_applies_and_its_command_succeeds(section: Section, copy: Path, warm_python: str) -> None:
    before = {name: (copy / name).read_bytes() for name in changed_files(section.diff) if (copy / name).exists()}
    git("apply", "-", folder=copy, stdin=section.diff)
    assert all((copy / name).read_bytes() != before.get(name) for name in changed_files(section.diff))
    program, *arguments = shlex.split(section.command)
    assert program == "python"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run([warm_python, *arguments], cwd=copy, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
