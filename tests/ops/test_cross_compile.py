"""The CPU kernels for processors and systems other than this one's: compiled, not run.

With the package ziglang (`pip install ziglang`), which brings clang and the headers of other systems.
"""

import importlib.util
import re
import subprocess
import sys

import pytest

from ops import build

pytestmark = pytest.mark.slow

SOURCES = [str(build.SOURCES / name) for name in build.CPU_SOURCES]
FUNCTIONS = ("mish_map", "norm_statistics", "norm_act_forward", "norm_act_reduce", "norm_act_backward")
# How an object file begins: ELF for processor 183, Mach-O for processors 0x0100000c and 0x01000007.
TARGETS = {
    "aarch64-linux-gnu": rb"\x7fELF.{14}\xb7\x00",
    "aarch64-macos": rb"\xcf\xfa\xed\xfe\x0c\x00\x00\x01",
    "x86_64-macos": rb"\xcf\xfa\xed\xfe\x07\x00\x00\x01",
}


@pytest.mark.parametrize("target", TARGETS)
def test_clang_builds_the_baseline_for_other_systems(tmp_path, monkeypatch, target):
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("no package ziglang")
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(tmp_path))  # what comes from its cache comes without remarks
    flags = [*(flag for flag in build.CPU_FLAGS if flag != "-shared"), "-Rpass=loop-vectorize", "-c"]  # nothing linked
    content, said = b"", ""
    for source in SOURCES:
        object_file = tmp_path / "kernels.o"
        command = [sys.executable, "-m", "ziglang", "c++", "-target", target, *flags, source, "-o", str(object_file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        content, said = content + object_file.read_bytes(), said + done.stderr
        assert re.match(TARGETS[target], object_file.read_bytes(), re.S)
    assert all(name.encode() in content for name in FUNCTIONS)
    assert len(re.findall(r"remark: vectorized loop", said)) >= 40, said[-2000:]  # by NEON or SSE2


def test_the_baseline_uses_no_instructions_of_one_processor():
    compiler = build.cpp_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    for source in SOURCES:
        flags = [flag for flag in build.CPU_FLAGS if flag != "-shared"]
        done = subprocess.run([compiler, *flags, "-E", source], capture_output=True, text=True, timeout=60, check=True)
        # What the preprocessor leaves of our own files: `# LINE "FILE"` precedes the lines of a file.
        parts = re.split(r"^# \d+ \"(.*)\".*$", done.stdout, flags=re.M)
        own = "".join(text for file, text in zip(parts[1::2], parts[2::2], strict=True) if str(build.SOURCES) in file)
        assert "parallel_for" in own and not re.search(r"\b_mm\d*_|\b__m\d+|\basm\b", own)
