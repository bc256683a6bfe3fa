"""Build the kernels in csrc/ and cache the results: ``python -m ops.build`` ahead of time, or each on first use.

Builds do not depend on PyTorch or Python (plain C functions, GPU images), so one build works with all versions of both.
They are stored in one folder, ``$YOLO_MISH_CACHE`` or ``~/.cache/yolo-mish/ops``. File names contain three hashes: of
the inputs (sources, flags, instruction set or GPU, machine, system, PyTorch's major version), of the compiler, and of
the content, so that a file that was copied or written in part is never loaded. Without a compiler, a build by any
compiler is used, so the folder can be copied to a machine without one.
"""

import argparse
import contextlib
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

import torch
from filelock import FileLock

from core.files import user_cache_folder
from ops import nvrtc
from ops.groups import EVERYTHING, Group

SOURCES = Path(__file__).parent / "csrc"
CPU_SOURCES = ("mish_cpu.cpp", "norm_act_cpu.cpp", "colours_cpu.cpp")
CPU_HEADERS = ("activations.h", "x86_16bit.h", "mish_math.h", "parallel.h")
LAUNCH_SOURCES = ("launch.cpp",)
CUDA_SOURCES = (  # the first one is compiled, it includes the others
    *("kernels.cu", "mish_cuda.cu", "norm_act_cuda.cu"),
    *("activations.h", "cuda_pieces.h", "mish_math.h"),
)

# Instruction sets by the names that PyTorch uses for its kernels: exactly the CPU features that PyTorch checks for.
INSTRUCTION_SETS = {
    "AVX512": (
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"),
        "-mprefer-vector-width=512",
    ),
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
    "baseline": (),
}
# Without errno and floating-point traps, which prevent vectorised loops. NaN and infinity are handled correctly.
CPU_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
ARCHITECTURES = ("75", "80", "86", "89", "90", "100", "120")  # compute capabilities built ahead of time
BASE = "80"  # that of the PTX for all others: the newest one that the sources tell from older ones
COMPILE_TIMEOUT = 300  # seconds


class Unavailable(RuntimeError):
    """A kernel is unavailable; the message tells the user why."""


def say(text: str) -> None:
    """Print a line for the user on stderr."""
    print(f"ops: {text}", file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------------------------------- cache


def cache_folder() -> Path:
    """The folder where builds are stored."""
    folder = os.environ.get("YOLO_MISH_CACHE")
    return Path(folder).expanduser() if folder else user_cache_folder() / "ops"


def fingerprint(*parts: object) -> str:
    """A short hash of the parts and of what every build depends on: machine, system, PyTorch's major version."""
    platform_parts = (platform.machine(), sys.platform, torch.__version__.split(".")[0])
    return hashlib.sha256("\0".join(map(str, (*platform_parts, *parts))).encode()).hexdigest()[:16]


def source_text(names: Sequence[str]) -> str:
    """The concatenated text of these files of csrc/."""
    return "\n".join((SOURCES / name).read_text(encoding="utf-8") for name in names)


def find(stem: str, key: str, compiler: str | None, suffix: str) -> Path | None:
    """The build of this name and key by this compiler, or the newest if `compiler` is None; None if missing."""
    by = "*" if compiler is None else fingerprint(compiler)
    builds = [path for path in cache_folder().glob(f"{stem}-{key}-{by}-*{suffix}") if _is_whole(path)]
    return max(builds, key=lambda path: path.stat().st_mtime, default=None)


def _content_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _is_whole(path: Path) -> bool:
    """Whether a build has the content that its name says."""
    try:
        return path.stem.endswith(f"-{_content_hash(path.read_bytes())}")
    except OSError:
        return False


def build(stem: str, key: str, compiler: str, suffix: str, make: Callable[[Path], None]) -> Path:
    """The path of a build, written by `make` unless it exists; concurrent processes build it only once.

    Raises Unavailable if the folder is not writable or `make` fails. An interrupted build blocks nothing: the lock ends
    with its process, and an incomplete file has another name.
    """
    found = find(stem, key, compiler, suffix)
    if found is not None:
        return found
    folder = cache_folder()
    name = f"{stem}-{key}-{fingerprint(compiler)}"
    part = folder / f"{name}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f"{name}.lock"):
            found = find(stem, key, compiler, suffix)
            if found is not None:  # another process was first
                return found
            for left in folder.glob(f"{name}.*.part"):  # of killed processes, as this one holds the lock
                left.unlink(missing_ok=True)
            try:
                say(f"building {stem} with {compiler} into {folder}, once; this takes seconds")
                make(part)
                if not part.is_file():
                    raise Unavailable(f"{compiler} wrote no file")
                path = folder / f"{name}-{_content_hash(part.read_bytes())}{suffix}"
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Unavailable(
            f"the cache {folder} cannot be used ({reason}); set YOLO_MISH_CACHE to another folder"
        ) from error
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock of a file and hold it; the system releases it when the process ends, also on Windows."""
    with FileLock(path):
        yield


def compile_with(command: Sequence[str]) -> None:
    """Run a compiler; Unavailable with the end of its output on failure."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} took more than {COMPILE_TIMEOUT} seconds") from error
    if done.returncode != 0:
        raise Unavailable(f"{command[0]} failed: {' '.join(done.stderr.split())[-400:]}")


@functools.cache
def version_of(program: str) -> str | None:
    """The path and version of a program, with its arguments; None if it is not installed."""
    first, *arguments = _words(program) or [""]
    path = shutil.which(first)
    if path is None:
        return None
    command = [path, *arguments]
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return f"{' '.join(command)} ({lines[0].strip()})" if done.returncode == 0 and lines else None


def cpp_compiler() -> str | None:
    """The C++ compiler: $CXX if set, with its arguments, else g++ or clang++; None if there is none."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    return next((name for name in names if version_of(name)), None)


def _words(command: str) -> list[str]:
    """A command with arguments, such as ``ccache g++``, as a list; empty if its quotes are unbalanced."""
    try:
        return shlex.split(command)
    except ValueError:
        return []


# ------------------------------------------------------------------------------------------------------------- the CPU


def instruction_set() -> str:
    """The instruction set that PyTorch's kernels use on this CPU, or `baseline` if ours do not support it."""
    capability = torch.backends.cpu.get_cpu_capability()
    return capability if capability in INSTRUCTION_SETS else "baseline"


def cpu_library(instructions: str | None = None, *, may_build: bool = True) -> Path:
    """The library of CPU kernels for an instruction set, by default that of this CPU; built if it does not exist.

    Raises Unavailable if it can be neither found nor built, or is not found and `may_build` is false.
    """
    instructions = instructions or instruction_set()
    flags = (*CPU_FLAGS, *INSTRUCTION_SETS[instructions])
    return _library("cpu", f"cpu-{instructions.lower()}", CPU_SOURCES, CPU_HEADERS, flags, may_build=may_build)


def launch_library() -> Path:
    """The library that launches CUDA kernels, built if it does not exist; Unavailable as for `cpu_library`."""
    return _library("launch", "launch", LAUNCH_SOURCES, (), CPU_FLAGS, may_build=True)


def _library(
    kind: str, stem: str, sources: Sequence[str], headers: Sequence[str], flags: Sequence[str], *, may_build: bool
) -> Path:
    key = fingerprint(kind, source_text((*sources, *headers)), *flags)
    compiler = cpp_compiler()
    identity = None if compiler is None else str(version_of(compiler))
    found = find(stem, key, identity, ".so")
    if found is not None:
        return found
    if compiler is None or identity is None:
        expected = os.environ.get("CXX") or "g++ or clang++"
        raise Unavailable(f"no C++ compiler ({expected}) and no earlier build in {cache_folder()}")
    if not may_build:
        raise Unavailable("not built yet")
    paths = [str(SOURCES / name) for name in sources]
    return build(
        stem, key, identity, ".so", lambda path: compile_with([*_words(compiler), *flags, *paths, "-o", str(path)])
    )


# ------------------------------------------------------------------------------------------------------------ the GPUs


def cuda_key(target: str, group: Group = EVERYTHING) -> str:
    """The hash of the inputs of a GPU image; `target`: sm_90 for machine code, compute_90 for PTX."""
    return fingerprint("cuda", source_text(CUDA_SOURCES), target, *group.macros)


def cuda_image(architecture: str, group: Group) -> Path:
    """The image with a group's kernels for a compute capability such as 90, built if it does not exist.

    In this order: machine code of all kernels, made ahead of time; of the group; a build of the group by NVRTC; and for
    a GPU that NVRTC does not know, or without NVRTC, PTX, which the driver compiles.

    Raises Unavailable if it can be neither found nor built.
    """
    try:
        compiler, known = nvrtc.version(), nvrtc.architectures()
    except nvrtc.NvrtcError as error:
        compiler, known, missing = None, (), str(error)
    else:
        missing = f"{compiler} does not support compute capability {architecture}"
    own, exact = f"sm_{architecture}", int(architecture) in known
    older = [f"compute_{each}" for each in known if each < int(architecture)][-1:]
    base = [f"compute_{BASE}"] if int(architecture) >= int(BASE) else []
    for target, kind in product([own] if exact else [own, *older, *base], (EVERYTHING, group)):
        found = _find_image(target, kind, compiler if exact else None)
        if found is not None:
            return found
    if not exact and not older:
        raise Unavailable(f"{missing}, and no earlier build in {cache_folder()}")
    return nvrtc_image(own if exact else older[0], group)


def _find_image(target: str, group: Group, compiler: str | None) -> Path | None:
    return find(f"cuda-{target}-{group.name}", cuda_key(target, group), compiler, _image_suffix(target))


def _image_suffix(target: str) -> str:
    return ".cubin" if target.startswith("sm_") else ".ptx"


def nvrtc_image(target: str, group: Group) -> Path:
    """The image of a group by NVRTC, built if it does not exist; `target` as in cuda_key. Unavailable on failure."""
    suffix = _image_suffix(target)
    options = ["--std=c++17", f"--gpu-architecture={target}", *group.macros]

    def make(path: Path) -> None:
        sources = {name: source_text([name]) for name in CUDA_SOURCES}
        path.write_bytes(nvrtc.compile_source(sources, options, ptx=suffix == ".ptx"))

    try:
        return build(f"cuda-{target}-{group.name}", cuda_key(target, group), nvrtc.version(), suffix, make)
    except nvrtc.NvrtcError as error:
        raise Unavailable(f"{error} ({target}, {group.name})") from error


# ------------------------------------------------------------------------------------------------------- ahead of time


def main(argv: Sequence[str] | None = None) -> int:
    """Build all kernels that the compilers of this machine can, for all CPUs of its architecture and all GPUs.

    For GPUs, machine code for ARCHITECTURES, and PTX for those that are newer or rarer.
    """
    parser = argparse.ArgumentParser(prog="python -m ops.build", description=__doc__.splitlines()[0])
    parser.add_argument("--cpu-only", action="store_true", help="do not build GPU kernels")
    arguments = parser.parse_args(argv)
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    built, missed = [], []
    steps: list[tuple[str, Callable[[], Path]]] = [
        (f"CPU, {name}", functools.partial(cpu_library, name)) for name in INSTRUCTION_SETS if x86 or name == "baseline"
    ]
    if not arguments.cpu_only:
        targets = [*(f"sm_{number}" for number in ARCHITECTURES), f"compute_{BASE}"]
        steps += [("CUDA, launches", launch_library)]
        steps += [(f"CUDA, {target}", functools.partial(nvrtc_image, target, EVERYTHING)) for target in targets]
    for name, step in steps:
        try:
            built.append(f"{name}: {step()}")
        except Unavailable as error:
            missed.append(f"{name}: not built, {error}")
    print("\n".join([*built, *missed]))
    return 0 if built else 1


if __name__ == "__main__":
    sys.exit(main())
