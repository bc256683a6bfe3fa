"""NVRTC by ctypes: where it is found, what it compiles and how it fails. No GPU is needed."""

import importlib
from pathlib import Path

import pytest
import torch

from ops import build, nvrtc
from ops.groups import MISH

SOURCE = {
    "kernel.cu": '#include "number.h"\nextern "C" __global__ void fill(float* x) { x[threadIdx.x] = NUMBER; }',
    "number.h": "#pragma once\n",
}
PTX = ["--gpu-architecture=compute_80", "-DNUMBER=3.5f"]


@pytest.fixture
def real() -> Path:
    """The file of NVRTC; skips the test without it."""
    try:
        return Path(nvrtc.library()._name)
    except nvrtc.NvrtcError as error:
        pytest.skip(str(error))


@pytest.fixture
def searched(monkeypatch, tmp_path) -> Path:
    """An empty folder as PyTorch's own, where NVRTC is looked for anew; no package of NVIDIA is installed."""
    whole = importlib.import_module
    missing = ImportError("No module named 'cuda'")

    def without_packages(name: str) -> object:
        if name.startswith("cuda"):
            raise missing
        return whole(name)

    (tmp_path / "torch" / "lib").mkdir(parents=True)
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "torch" / "__init__.py"))
    monkeypatch.setattr(importlib, "import_module", without_packages)
    nvrtc.library.cache_clear(), nvrtc.architectures.cache_clear()
    yield tmp_path / "torch" / "lib"
    monkeypatch.undo()
    nvrtc.library.cache_clear(), nvrtc.architectures.cache_clear()


def test_it_compiles_with_headers_and_macros(real):
    text = nvrtc.compile_source(SOURCE, PTX, ptx=True).decode()
    assert ".visible .entry fill(" in text and text.endswith("\0")
    image = nvrtc.compile_source(SOURCE, ["--gpu-architecture=sm_90", "-DNUMBER=1"], ptx=False)
    assert image.startswith(b"\x7fELF") and b".text.fill" in image
    assert nvrtc.version().startswith("NVRTC ") and {75, 80, 90} <= set(nvrtc.architectures())


def test_errors_of_the_source_are_told(real):
    with pytest.raises(nvrtc.NvrtcError, match=r'NVRTC failed: kernel.cu\(2\): error: identifier "NUMBER"') as raised:
        nvrtc.compile_source(SOURCE, PTX[:1], ptx=True)
    assert "\n" not in str(raised.value)


def test_windows_has_it_beside_pytorch(real, searched):
    (searched / "nvrtc64_130_0.alt.dll").write_text("another build of it, which comes with it")
    (searched / "nvrtc64_130_0.dll").symlink_to(real)
    assert ".entry fill" in nvrtc.compile_source(SOURCE, PTX, ptx=True).decode()
    assert nvrtc.library()._name == str(searched / "nvrtc64_130_0.dll")


def test_without_it_the_reason_is_told(searched, cache):
    with pytest.raises(
        build.Unavailable, match="NVRTC is neither in .*torch.lib nor in a package.*no earlier build in"
    ):
        build.cuda_image("90", MISH)
    (searched / "nvrtc64_130_0.dll").write_text("damaged")
    with pytest.raises(build.Unavailable, match="NVRTC is neither"):
        build.cuda_image("90", MISH)
