"""Memory accesses of the vector kernels in PTX and machine code: 16 bytes each, for all architectures.

A compiler may split them without changing any result: before sm_100, the assignment of a 16-byte piece has become four
stores of 4 bytes, which take four times as many transactions.
"""

import re

import pytest

from ops import build
from tests.ops.device_code import compiled, disassembled, entries

pytestmark = pytest.mark.slow

WIDE = r"(?:v4\.[buf]32|v2\.[buf]64)"
# 16-byte loads and stores of a thread at a time.
PAIR = {"norm_statistics": (4, 0), "norm_act_forward": (4, 4), "norm_act_reduce": (4, 2), "norm_act_backward": (4, 2)}
MISH = {"mish_0": (2, 2), "mish_1": (4, 2), "mish_2": (4, 2)}


def expected(name: str) -> tuple[int, int, int] | None:
    """Wide loads, wide stores and all other stores of a kernel, None for those that access single elements."""
    if name.endswith("_vector"):
        return *MISH[name[:6]], 1  # an element of the tail
    way = name.rpartition("_")[2]
    if way not in ("along", "across"):
        return None
    loads, stores = next(numbers for prefix, numbers in PAIR.items() if name.startswith(prefix))
    sums = 1 if way == "along" else 4 if "float32" in name else 8  # a pair of them per channel of a piece
    others = {"norm_statistics": sums + 1, "norm_act_reduce": sums}  # and the estimate of the mean
    return loads, stores, next((number for prefix, number in others.items() if name.startswith(prefix)), 0)


@pytest.mark.parametrize("architecture", build.ARCHITECTURES)
def test_vector_kernels_access_16_bytes_at_a_time(architecture):
    kernels = entries(compiled(architecture, machine_code=False)[0])
    vectors = {name: numbers for name in kernels if (numbers := expected(name)) is not None}
    assert len(vectors) == 3 * 4 + 2 * 3 * (2 + 2 * 4)
    for name, numbers in vectors.items():
        accesses = re.findall(r"\b(?:ld|st)\.(?!param|shared)\S+", kernels[name])
        wide = [sum(bool(re.fullmatch(rf"{way}\.global\.(?:nc\.)?{WIDE}", each)) for each in accesses)
                for way in ("ld", "st")]  # fmt: skip
        stores = sum(each.startswith("st.") for each in accesses)
        assert (*wide, stores - wide[1]) == numbers, (name, accesses)


def test_machine_code_stores_16_bytes_at_a_time(tmp_path):
    text = disassembled(compiled("90", machine_code=True)[1], tmp_path, "-sass")
    found = dict(re.findall(r"Function : (\w+)\n(.*?)\n\s*\.{10}", text, re.S))
    vectors = {name: numbers for name in found if (numbers := expected(name)) is not None}
    assert len(vectors) == 3 * 4 + 2 * 3 * (2 + 2 * 4)
    for name, (loads, stores, others) in vectors.items():
        wide = [len(re.findall(rf"\b{way}\.E\.128\b(?!\.STRONG)", found[name])) for way in ("LDG", "STG")]
        assert wide == [loads, stores], name
        assert len(re.findall(r"\bSTG\b", found[name])) == stores + others, name
