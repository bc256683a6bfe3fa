"""Which image a GPU gets: made ahead of time, by groups when asked for, or PTX; and what is in the images."""

import re
from pathlib import Path

import pytest

from ops import build, nvrtc
from ops.groups import EVERYTHING, MISH, Group, pairs
from tests.ops.device_code import entries, registers

GROUP = Group("bfloat16", "across", 0)


class Nvrtc:
    """NVRTC that compiles nothing and notes what it is asked for."""

    def __init__(self):
        self.asked: list[list[str]] = []
        self.here = True

    def version(self) -> str:
        if not self.here:
            raise nvrtc.NvrtcError("NVRTC is missing")
        return "NVRTC 13.0"

    def architectures(self) -> tuple[int, ...]:
        return (75, 80, 86, 89, 90, 100, 120)

    def compile_source(self, sources, options, *, ptx) -> bytes:
        assert list(sources) == list(build.CUDA_SOURCES)
        target = options[1].removeprefix("--gpu-architecture=")
        assert ptx == target.startswith("compute_")
        self.asked.append([target, *options[2:]])
        return b"image"


@pytest.fixture
def compiler(cache, monkeypatch) -> Nvrtc:
    compiler = Nvrtc()
    for name in ("version", "architectures", "compile_source"):
        monkeypatch.setattr(nvrtc, name, getattr(compiler, name))
    return compiler


def ahead(monkeypatch, *architectures: str) -> None:
    monkeypatch.setattr(build, "ARCHITECTURES", architectures)
    monkeypatch.setattr(build, "INSTRUCTION_SETS", {})
    assert build.main([]) == 0


def test_a_group_is_compiled_when_asked_for_and_once(compiler):
    path = build.cuda_image("90", GROUP)
    assert build.cuda_image("90", GROUP) == path and path.name.startswith("cuda-sm_90-bfloat16-across-0-")
    macros = ["-DONLY_TYPE=bfloat16", "-DONLY_VARIANT=across", "-DONLY_WAY=Across<bf16>", "-DONLY_ACT=0"]
    assert compiler.asked == [["sm_90", *macros]] and path.suffix == ".cubin"
    others = {build.cuda_image(*each) for each in (("90", MISH), ("80", GROUP), ("90", GROUP._replace(act=1)))}
    assert len(others | {path}) == 4 and compiler.asked[1] == ["sm_90", "-DONLY_MISH"]


def test_ahead_of_time_all_kernels_are_built_for_known_gpus_and_as_ptx(compiler, cache, monkeypatch, capsys):
    ahead(monkeypatch, "75", "90")
    assert compiler.asked == [["sm_75"], ["sm_90"], ["compute_80"]]
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        *("CUDA, launches", "CUDA, sm_75", "CUDA, sm_90", "CUDA, compute_80")
    ]
    compiler.asked.clear()
    found = {build.cuda_image("90", group) for group in (MISH, GROUP, EVERYTHING)}
    assert not compiler.asked and found == set(cache.glob("cuda-sm_90-all-*.cubin"))


@pytest.mark.parametrize("here", [True, False], ids=["NVRTC", "no NVRTC"])
def test_a_gpu_newer_than_all_images_takes_the_ptx(compiler, cache, monkeypatch, here):
    ahead(monkeypatch, "90", "120")
    compiler.here = here
    compiler.asked.clear()
    for capability in ("87", "103", "130"):
        assert build.cuda_image(capability, GROUP) in cache.glob("cuda-compute_80-all-*.ptx")
    assert not compiler.asked
    if not here:
        with pytest.raises(build.Unavailable, match="NVRTC is missing, and no earlier build in"):
            build.cuda_image("75", GROUP)


def test_without_images_a_newer_gpu_gets_ptx_of_the_group(compiler):
    path = build.cuda_image("130", MISH)
    assert compiler.asked == [["compute_120", "-DONLY_MISH"]] and path.suffix == ".ptx"
    assert build.cuda_image("130", MISH) == path and len(compiler.asked) == 1
    with pytest.raises(build.Unavailable, match="NVRTC 13.0 does not support compute capability 61"):
        build.cuda_image("61", MISH)


def test_a_failure_names_target_and_group(compiler, monkeypatch):
    def failing(*arguments, **options) -> bytes:
        raise nvrtc.NvrtcError("NVRTC failed: no such luck")

    monkeypatch.setattr(nvrtc, "compile_source", failing)
    with pytest.raises(build.Unavailable, match=r"no such luck \(sm_90, bfloat16-across-0\)"):
        build.cuda_image("90", GROUP)


def test_the_groups_of_the_pair_are_all_of_its_kernels():
    names = [name for group in pairs() for name in group.kernels]
    assert len(pairs()) == 36 and all(len(group.kernels) == 6 for group in pairs())
    assert len(set(names)) == 3 * 3 * (2 + 2 * 4) + 2 and len(EVERYTHING.kernels) == len(set(names)) + 24


def image(target: str, group: Group) -> Path:
    try:
        return build.nvrtc_image(target, group)
    except build.Unavailable as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize(
    "group",
    [MISH, *(Group(*each) for each in (("bfloat16", "across", 0), ("float32", "scalar", 3), ("float16", "along", 1)))],
    ids=lambda group: group.name,
)
def test_an_image_has_the_kernels_of_its_group(cache, tmp_path, group):
    ptx = image("compute_80", group).read_text().rstrip("\0")
    assert sorted(entries(ptx)) == sorted(group.kernels)
    assert re.search(r"^\.target sm_80$", ptx, re.M)
    found = registers(image("sm_90", group).read_bytes(), tmp_path)
    assert sorted(found) == sorted(group.kernels)
