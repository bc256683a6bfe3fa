"""Builds: once among many processes, never a wrong one, robust against kills, or a reason for failure."""

import multiprocessing
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ops import backend, build
from ops.mish import reference

ROOT = Path(__file__).parents[2]
TOLERANCES = {torch.float32: 5e-7, torch.float64: 1e-14, torch.float16: 1e-3, torch.bfloat16: 4e-3}


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A fake compiler, which logs each call and writes its version as the build."""

    def make(version: str = "1.0", *, seconds: float = 0, code: int = 0) -> Path:
        script, log = tmp_path / "stand-in", tmp_path / "log"
        script.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo "stand-in {version}" && exit 0\n'
            f'echo call >> "{log}"\nfor last; do :; done\necho partly > "$last"\nsleep {seconds}\n'
            f'[ {code} = 0 ] || {{ echo "no such luck" >&2; exit {code}; }}\necho "{version}" > "$last"\n'
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(script))
        build.version_of.cache_clear()
        return log

    return make


@pytest.mark.slow
def test_concurrent_first_uses_build_once(cache, compiler):
    log = compiler(seconds=0.5)
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        paths = {task.get(timeout=60) for task in [pool.apply_async(build.cpu_library) for _ in range(4)]}
    assert log.read_text() == "call\n" and len(paths) == 1 and paths.pop().read_text() == "1.0\n"


def test_a_system_without_fcntl_builds_too(cache, compiler, monkeypatch):
    compiler("1.0")
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    assert build.cpu_library().read_text() == "1.0\n"


def test_a_killed_build_blocks_nothing(cache, compiler):
    compiler(seconds=60)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        build.cpu_library()
        os._exit(0)
    deadline = time.monotonic() + 30
    while not list(cache.glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(cache.glob("*.part"))
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    compiler(version="1.0")
    assert build.cpu_library().read_text() == "1.0\n" and not list(cache.glob("*.part"))


def test_builds_from_other_inputs_are_never_used(cache, compiler, monkeypatch, tmp_path):
    compiler("1.0")
    paths = [build.cpu_library()]
    assert build.cpu_library() == paths[0]
    compiler("2.0")
    paths.append(build.cpu_library())
    monkeypatch.setattr(torch, "__version__", "99.0")
    paths.append(build.cpu_library())
    monkeypatch.setattr(platform, "machine", lambda: "abacus")
    paths.append(build.cpu_library())
    monkeypatch.setattr(build, "CPU_FLAGS", (*build.CPU_FLAGS, "-g"))
    paths.append(build.cpu_library())
    paths.append(build.cpu_library("AVX2" if build.instruction_set() != "AVX2" else "baseline"))
    sources = tmp_path / "csrc"
    shutil.copytree(build.SOURCES, sources)
    (sources / "parallel.h").write_text("// another\n")
    monkeypatch.setattr(build, "SOURCES", sources)
    paths.append(build.cpu_library())
    assert len(set(paths)) == len(paths)


def test_a_change_in_any_source_makes_another_gpu_image(monkeypatch, tmp_path):
    sources = tmp_path / "csrc"
    shutil.copytree(build.SOURCES, sources)
    monkeypatch.setattr(build, "SOURCES", sources)
    files, keys, left = set(), {build.cuda_key("90")}, ["kernels.cu"]
    while left:
        name = left.pop()
        files.add(name)
        text = (sources / name).read_text()
        left += [each for each in re.findall(r'#include "(.*)"', text) if each not in files]
        (sources / name).write_text(text + "// changed\n")
        keys.add(build.cuda_key("90"))
    assert len(keys) == 1 + len(files) and files == set(build.CUDA_SOURCES) and build.CUDA_SOURCES[0] == "kernels.cu"


def test_without_a_compiler_a_build_by_any_is_used(cache, compiler, monkeypatch):
    compiler("1.0")
    path = build.cpu_library()
    monkeypatch.setattr(build, "version_of", lambda program: None)
    assert build.cpu_library() == path
    monkeypatch.setattr(torch, "__version__", "99.0")
    with pytest.raises(build.Unavailable, match="compiler"):
        build.cpu_library()


def test_a_failing_compiler_and_an_unusable_folder_are_reported(cache, compiler, monkeypatch, tmp_path, capsys):
    compiler(code=3)
    with pytest.raises(build.Unavailable, match="no such luck"):
        build.cpu_library()
    assert not list(cache.glob("*.part")) and not list(cache.glob("*.so"))
    compiler()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("YOLO_MISH_CACHE", str(tmp_path / "file"))
    with pytest.raises(build.Unavailable, match="YOLO_MISH_CACHE"):
        build.cpu_library()
    choice = backend.choose(torch.device("cpu"))
    assert choice.kernels is None and "YOLO_MISH_CACHE" in capsys.readouterr().err


@pytest.mark.parametrize("left", [0, 1, 3])
def test_a_truncated_build_is_made_anew_and_never_loaded(left, cache, compiler, monkeypatch):
    log = compiler("1.0")
    path = build.cpu_library()
    path.write_bytes(path.read_bytes()[:left])
    assert build.cpu_library() == path and path.read_text() == "1.0\n" and log.read_text() == "call\n" * 2
    path.write_bytes(path.read_bytes()[:left])
    monkeypatch.setattr(build, "version_of", lambda program: None)  # on a machine without a compiler
    with pytest.raises(build.Unavailable, match="no C\\+\\+ compiler"):
        build.cpu_library()


def test_a_compiler_with_arguments_and_one_that_writes_nothing(cache, compiler, monkeypatch, tmp_path):
    log = compiler("1.0")
    monkeypatch.setenv("CXX", f"env {os.environ['CXX']}")  # as ccache g++
    assert build.cpu_library().read_text() == "1.0\n" and log.read_text() == "call\n"
    idle = tmp_path / "idle"
    idle.write_text('#!/bin/sh\n[ "$1" = --version ] && echo idle\nexit 0\n')
    idle.chmod(0o755)
    monkeypatch.setenv("CXX", str(idle))
    with pytest.raises(build.Unavailable, match="idle.* wrote no file"):
        build.cpu_library()
    monkeypatch.setenv("CXX", 'g++ "-O2')
    assert build.cpp_compiler() is None


def test_the_home_folder_in_the_name_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("YOLO_MISH_CACHE", "~/builds")
    assert build.cache_folder() == tmp_path / "builds"


def test_a_damaged_build_is_reported(cache, compiler):
    compiler()
    choice = backend.choose(torch.device("cpu"))  # the stand-in's build is no library
    assert choice.kernels is None and "cannot be loaded" in choice.reason


@pytest.mark.slow
def test_an_import_builds_and_writes_nothing(cache, compiler):
    log = compiler()
    subprocess.run([sys.executable, "-c", "import ops.mish, ops.norm_act"], cwd=ROOT, check=True, timeout=120)
    assert not cache.exists() and not log.exists()


@pytest.mark.slow
def test_the_baseline_instruction_set_gives_equal_results(tmp_path):
    compiler = build.cpp_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    path = tmp_path / "baseline.so"
    build.compile_with([compiler, *build.CPU_FLAGS, str(build.SOURCES / "mish_cpu.cpp"), "-o", str(path)])
    kernels = backend.CpuKernels(path, "baseline")
    for dtype, tolerance in TOLERANCES.items():
        x = torch.linspace(-87.3, 30, 50_001).to(dtype)
        y = torch.empty_like(x)
        kernels.map(0, x, x, y)
        smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        torch.testing.assert_close(y.double(), reference(x), rtol=tolerance, atol=max(smallest, 1e-37))
