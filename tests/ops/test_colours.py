"""Hue, saturation and value by the compiled loop, against matplotlib's conversions in float64."""

import ctypes

import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

from ops import build, colours

GAINS = [(1.0123, 0.77, 1.21), (0.987, 1.61, 0.63), (0.3, 2.0, 2.0), (1.9, 0.0, 1.0), (2.0, 2.0, 1.5), (1.0, 1.0, 0.0)]
LEVELS = np.array([0, 1, 2, 3, 7, 31, 64, 100, 127, 128, 129, 180, 200, 253, 254, 255], np.uint8)
COLOURS = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS), axis=-1).reshape(64, 64, 3)

compiled = pytest.mark.skipif(colours.prepare() is None, reason="no compiled loop with vectors")


def exact(image: np.ndarray, gains: tuple[float, float, float]) -> np.ndarray:
    """The result before rounding, in float64."""
    hsv = rgb_to_hsv(image / 255.0)
    hsv[..., 0] = hsv[..., 0] * gains[0] % 1
    hsv[..., 1:] = np.minimum(hsv[..., 1:] * gains[1:], 1)
    return hsv_to_rgb(hsv) * 255


@compiled
@pytest.mark.parametrize("gains", GAINS)
def test_colours_are_those_of_the_exact_formula_rounded(gains: tuple[float, float, float]) -> None:
    shifted = colours.shift_hsv(COLOURS, gains)
    assert shifted is not None and shifted.dtype == np.uint8
    assert np.abs(shifted - exact(COLOURS, gains)).max() <= 0.501  # half a level, and float32


@compiled
def test_gains_of_one_change_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 301, 3), np.uint8)
    np.testing.assert_array_equal(colours.shift_hsv(image, (1.0, 1.0, 1.0)), image)


@compiled
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (16, 16), (16, 17), (1, 511)])
def test_sizes_that_are_no_multiple_of_a_piece_views_and_a_fourth_channel(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 4), np.uint8)
    for form in (image, image[..., :3], image[:, ::-1]):
        shifted = colours.shift_hsv(form, GAINS[0])
        assert shifted is not None and shifted.shape == (*shape, 3)
        assert np.abs(shifted - exact(form[..., :3], GAINS[0])).max() <= 0.501


@pytest.mark.parametrize("instructions", build.INSTRUCTION_SETS)
def test_all_instruction_sets_give_the_same_colours(instructions: str) -> None:
    if list(build.INSTRUCTION_SETS).index(instructions) < list(build.INSTRUCTION_SETS).index(build.instruction_set()):
        pytest.skip(f"this CPU lacks {instructions}")
    try:
        run = ctypes.CDLL(str(build.cpu_library(instructions))).shift_hsv
    except build.Unavailable as error:
        pytest.skip(str(error))
    run.argtypes = (ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, *(ctypes.c_float,) * 3, ctypes.c_void_p)
    out = np.empty_like(COLOURS)
    run(COLOURS.size // 3, 3, COLOURS.ctypes.data, *GAINS[1], out.ctypes.data)
    assert np.abs(out - exact(COLOURS, GAINS[1])).max() <= 0.501


@pytest.mark.parametrize("fault", ["no library", "Windows", "no vectors"])
def test_without_a_loop_the_caller_is_told(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> None:
        raise build.Unavailable("no C++ compiler")

    if fault == "no library":
        monkeypatch.setattr(build, "cpu_library", unavailable)
    elif fault == "Windows":
        monkeypatch.setattr("platform.system", lambda: "Windows")
    else:
        monkeypatch.setattr(build, "instruction_set", lambda: "baseline")
    colours.prepare.cache_clear()
    try:
        assert colours.shift_hsv(COLOURS, GAINS[0]) is None
    finally:
        colours.prepare.cache_clear()
