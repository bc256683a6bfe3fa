"""One picture has the same pixels as a path, as a Pillow image and as an array, and ranges are not guessed."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from data.image import ImageError, convert_image, decode_image, read_image, verify_image
from data.sources import open_source
from tests.data.test_image import saved

RAMP = np.tile(np.linspace(0, 1, 64), (48, 1))
PICTURE = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)
ALPHA = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))


def bytes_of(unit: np.ndarray) -> np.ndarray:
    """The grey levels of values in 0..1 as RGB."""
    return np.repeat(np.round(unit * 255)[..., None], 3, axis=2)


def sixteen(top: int) -> np.ndarray:
    return np.round(RAMP * top).astype(np.uint16)


def opencv(suffix: str, array: np.ndarray) -> bytes:
    return cv2.imencode(suffix, array)[1].tobytes()


FILES = {
    "grey": saved(Image.fromarray(PICTURE).convert("L"), "PNG"),
    "jpeg": saved(Image.fromarray(PICTURE), "JPEG"),
    "grey jpeg": saved(Image.fromarray(PICTURE).convert("L"), "JPEG"),
    "cmyk": saved(Image.fromarray(PICTURE).convert("CMYK"), "JPEG"),
    "bitmap": saved(Image.fromarray(PICTURE).convert("1"), "PNG"),
    "palette": saved(Image.fromarray(PICTURE).quantize(9), "PNG"),
    "transparent palette": saved(Image.fromarray(PICTURE).quantize(9), "PNG", transparency=2),
    "transparent colour": saved(Image.fromarray(PICTURE), "PNG", transparency=tuple(PICTURE[0, 0].tolist())),
    "transparent": saved(Image.fromarray(np.dstack([PICTURE, ALPHA])), "PNG"),
    "grey and alpha": saved(Image.fromarray(np.dstack([PICTURE[..., 0], ALPHA])), "PNG"),
    "gif": saved(Image.fromarray(PICTURE).quantize(9), "GIF"),
    "lab": saved(Image.merge("LAB", Image.fromarray(PICTURE).split()), "TIFF"),
    "16 bits": saved(Image.fromarray(sixteen(65535)), "PNG"),
    "16 bits tiff": saved(Image.fromarray(sixteen(65535)), "TIFF"),
    "12 bits in 16": saved(Image.fromarray(sixteen(4095)), "PNG"),
    "16 bits colour": opencv(".png", PICTURE.astype(np.uint16) * 257),
    "12 bits colour": opencv(".png", PICTURE.astype(np.uint16) * 16),
    "floats": saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    "webp": saved(Image.fromarray(np.dstack([PICTURE, ALPHA])), "WEBP"),
}


@pytest.mark.parametrize("turn", [1, 3, 6])
@pytest.mark.parametrize("name", FILES)
def test_a_path_and_a_pillow_image_are_one_picture(name, turn, tmp_path):
    """Opened, loaded, and copied images; those that carry an EXIF orientation are turned, once."""
    data = FILES[name]
    if turn != 1 and name in ("jpeg", "16 bits", "palette", "floats", "16 bits tiff", "transparent", "cmyk"):
        exif = Image.Exif()
        exif[0x0112] = turn
        opened = Image.open(io.BytesIO(data))
        data = saved(opened, opened.format, exif=exif)
    path = tmp_path / "picture"
    path.write_bytes(data)
    expected = read_image(path)
    (frame,) = open_source(Image.open(path))
    np.testing.assert_array_equal(frame.image, expected)
    (frame,) = open_source(data)
    np.testing.assert_array_equal(frame.image, expected)
    loaded = Image.open(io.BytesIO(data))  # by its name, Pillow loads some turned TIFFs incorrectly
    loaded.load()
    if name != "12 bits colour":  # Pillow keeps the upper 8 bits of colours
        np.testing.assert_array_equal(convert_image(loaded), expected)
        np.testing.assert_array_equal(convert_image(Image.open(io.BytesIO(data)).copy()), expected)
        np.testing.assert_array_equal(convert_image(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))), expected)
    assert verify_image(path)[:2] == expected.shape[1::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["8 bits", "16 bits tiff", "floats"])
def test_orientation_of_a_tiff(orientation, kind):
    """Pillow turns a TIFF when it decodes it; stored pixels, turned by hand, are the reference."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.open(io.BytesIO(FILES[kind])) if kind in FILES else Image.fromarray(PICTURE)
    plain = decode_image(saved(stored, "TIFF"))
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(saved(Image.fromarray(plain), "PNG", exif=exif))))
    np.testing.assert_array_equal(decode_image(saved(stored, "TIFF", exif=exif)), np.asarray(turned))


def test_arrays_are_the_same_pictures():
    """Of every number of channels and every type that files have; `bgr` is OpenCV's order, alpha included."""
    for name, array in {
        "grey": np.asarray(Image.open(io.BytesIO(FILES["grey"]))),
        "bitmap": np.asarray(Image.open(io.BytesIO(FILES["bitmap"]))),
        "transparent": np.dstack([PICTURE, ALPHA]),
        "grey and alpha": np.dstack([PICTURE[..., 0], ALPHA]),
        "16 bits": sixteen(65535),
        "12 bits in 16": sixteen(4095)[..., None],
        "16 bits colour": PICTURE[..., ::-1].astype(np.uint16) * 257,
        "12 bits colour": PICTURE[..., ::-1].astype(np.uint16) * 16,
        "floats": RAMP.astype(np.float32),
    }.items():
        (frame,) = open_source(array)
        np.testing.assert_array_equal(frame.image, decode_image(FILES[name]), err_msg=name)
    (frame,) = open_source(np.dstack([PICTURE[..., ::-1], ALPHA]), bgr=True)
    np.testing.assert_array_equal(frame.image, decode_image(FILES["transparent"]))


def test_floats_from_0_to_1_are_scaled():
    np.testing.assert_array_equal(decode_image(FILES["floats"]), bytes_of(RAMP))
    holes = RAMP.astype(np.float32)
    holes[:9], holes[9:12, 5:] = np.nan, np.inf
    found = decode_image(saved(Image.fromarray(holes), "TIFF"))
    assert (found[:9] == 0).all() and (found[9:12, 5:] == 255).all()
    np.testing.assert_array_equal(found[12:], bytes_of(RAMP)[12:])


def tiff(array: np.ndarray, **tags: object) -> bytes:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    numbers = {"smin": 340, "smax": 341, "minimum": 280, "maximum": 281, "nodata": 42113}
    for name, value in tags.items():
        number = numbers[name]
        info.tagtype[number] = {340: 12, 341: 12, 280: 3, 281: 3, 42113: 2}[number]
        info[number] = value
    return saved(Image.fromarray(array), "TIFF", tiffinfo=info)


@pytest.mark.parametrize(
    ("values", "tags"),
    [
        (RAMP * 255, {}),
        (RAMP * 4095, {"smin": 0.0, "smax": 4095.0}),
        (RAMP * 65535, {"smax": 65535.0}),
        (RAMP * 2 - 1, {"smin": -1.0, "smax": 1.0}),
        (RAMP * 1000, {"minimum": 0, "maximum": 1000}),
    ],
)
def test_other_floats_are_scaled_by_what_the_file_says(values, tags):
    np.testing.assert_array_equal(decode_image(tiff(values.astype(np.float32), **tags)), bytes_of(RAMP))


def test_missing_values_are_black_and_change_no_range():
    values = RAMP.astype(np.float32)
    values[:20] = -9999
    found = decode_image(tiff(values, nodata="-9999"))
    assert (found[:20] == 0).all()
    np.testing.assert_array_equal(found[20:], bytes_of(RAMP)[20:])


@pytest.mark.parametrize(
    "values",
    [RAMP * 4095, RAMP * 65535, RAMP * 2 - 1, RAMP * 3, RAMP * np.nan, RAMP * 5000 + 1000, RAMP * 1e30],
)
def test_floats_of_unknown_range_are_refused(values, tmp_path):
    """By all doors, with the range in the message; a file that states another range is no exception."""
    values = values.astype(np.float32)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(values, smin=0.0, smax=0.5))
    span = f"{np.nanmin(values):.6g} to {np.nanmax(values):.6g}" if np.isfinite(values).any() else "finite"
    for attempt in (
        read_image,
        verify_image,
        lambda _: convert_image(Image.fromarray(values)),
        lambda _: convert_image(values),
    ):
        with pytest.raises(ImageError) as caught:
            attempt(path)
        assert caught.value.kind == "value-range" and span in str(caught.value).replace("\n", " ")


@pytest.mark.parametrize("top", [255, 4095, 16383, 65535])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "big-endian TIFF", "PPM"])
def test_integers_of_sixteen_bits_are_not_black(top, kind):
    """8 and 12 bits in 16 fill the range; more is 16 bits, however dark."""
    values = sixteen(top)
    if kind == "PPM":
        data = b"P5 64 48 65535\n" + values.astype(">u2").tobytes()
    elif kind == "PNG":
        data = saved(Image.fromarray(values), kind)
    else:
        data = saved(Image.fromarray(values if kind == "TIFF" else values.astype(">u2")), "TIFF")
    span = 65535 if top == 16383 else top
    np.testing.assert_allclose(decode_image(data), bytes_of(values / span), atol=0.51)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_colours_of_sixteen_bits_are_not_black(top, suffix):
    values = np.round(PICTURE / 255 * top).astype(np.uint16)
    found = decode_image(opencv(suffix, values[..., ::-1]))
    np.testing.assert_allclose(found, values / top * 255, atol=1)


def test_bits_that_the_file_states():
    """A PGM with 4 bits, and one with 10, both stretched; a TIFF that says that its 16 bits hold 14."""
    four = np.round(RAMP * 15).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(b"P5 64 48 15\n" + four.tobytes()), bytes_of(four / 15))
    colours = np.repeat(four[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode_image(b"P6 64 48 15\n" + colours.tobytes()), bytes_of(four / 15))
    ten = np.round(RAMP * 1023).astype(">u2")
    np.testing.assert_allclose(decode_image(b"P5 64 48 1023\n" + ten.tobytes()), bytes_of(ten / 1023), atol=0.51)
    found = decode_image(tiff(sixteen(16000), maximum=16383))
    np.testing.assert_allclose(found, bytes_of(sixteen(16000) / 16383), atol=0.51)


@pytest.mark.parametrize("values", [RAMP * 1e6, RAMP * 100 - 50])
def test_integers_of_unknown_range_are_refused(values):
    with pytest.raises(ImageError, match=f"{int(values.min())} to {int(values.max())}") as caught:
        decode_image(saved(Image.fromarray(values.astype(np.int32)), "TIFF"))
    assert caught.value.kind == "value-range"


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_without_its_end_gives_what_is_there(progressive, orientation, tmp_path):
    """By all doors; training and evaluation use it if little is missing, and the data issues say so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = cv2.resize(PICTURE, (640, 480), interpolation=cv2.INTER_CUBIC)
    data = saved(Image.fromarray(smooth), "JPEG", progressive=progressive, exif=exif)
    whole, path = decode_image(data), tmp_path / "a.jpg"
    path.write_bytes(data[: -len(data) // 100])
    found = read_image(path)
    assert found.shape == whole.shape
    there = found[:, 40:] if orientation == 6 else found[:-40]
    expected = whole[:, 40:] if orientation == 6 else whole[:-40]
    assert (np.abs(there.astype(int) - expected).mean() < 1) if progressive else np.array_equal(there, expected)
    np.testing.assert_array_equal(convert_image(Image.open(path)), found)
    verified = verify_image(path)
    assert verified[:2] == whole.shape[1::-1] and verified.fault
    path.write_bytes(data[:-2])  # only the end marker is missing
    np.testing.assert_array_equal(read_image(path), whole)


def test_half_a_jpeg_is_shown_but_not_trained_with(tmp_path):
    smooth = cv2.resize(PICTURE, (640, 480), interpolation=cv2.INTER_CUBIC)
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(Image.fromarray(smooth), "JPEG")[:15000])
    assert read_image(path).shape == (480, 640, 3)
    with pytest.raises(ImageError, match="%") as caught:
        verify_image(path)
    assert caught.value.kind == "damaged"
