"""Images are decoded as viewers display them; incomplete and other files are reported."""

import io
import resource
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from data.image import (
    ImageError,
    convert_image,
    decode_image,
    decode_what_is_there,
    read_image,
    verify_image,
)

PIXELS = np.zeros((40, 60, 3), np.uint8)
PIXELS[:20, :30], PIXELS[:20, 30:], PIXELS[20:, :30] = (200, 30, 40), (20, 180, 60), (30, 60, 220)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation, kind):
    """Stored pixels as written by a rotated camera; Pillow's transposition is the reference."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(PIXELS), kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    found = decode_image(data)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (60 if kind == "WEBP" else 3)  # its colours are coarse
    assert found.flags["C_CONTIGUOUS"]


def smooth_picture(width: int, height: int) -> np.ndarray:
    """Random colours without detail finer than 16 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("reduce", [2, 4, 8])
def test_reduced_decoding_gives_what_area_averaging_would(reduce):
    """Within a level or two on average, nowhere shifted; sides that are no multiples are rounded up."""
    data = saved(Image.fromarray(smooth_picture(317, 243)), "JPEG", quality=95)
    whole = decode_image(data)
    found, fault = decode_what_is_there(data, reduce=reduce)
    size = -(-whole.shape[1] // reduce), -(-whole.shape[0] // reduce)
    assert fault is None and found.shape == (size[1], size[0], 3) and found.flags["C_CONTIGUOUS"]
    shifts = {}
    for shift in (-0.5, 0.0, 0.5):  # of the reduced pixels, along x: only without it do both agree
        matrix = np.array([[1, 0, shift * reduce], [0, 1, 0.0]])
        moved = cv2.warpAffine(whole, matrix, whole.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
        rows, columns = size[1] - 1, size[0] - 1  # the last ones may stand for a part of a pixel
        cut = moved[: rows * reduce, : columns * reduce]
        expected = cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_AREA)
        shifts[shift] = np.abs(found[:rows, :columns].astype(int) - expected)[2:-2, 2:-2].mean()
    assert shifts[0.0] < 2.5 and shifts[0.0] < 0.5 * min(shifts[-0.5], shifts[0.5])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_pictures_are_upright(orientation):
    picture, exif = Image.fromarray(smooth_picture(317, 243)), Image.Exif()
    exif[0x0112] = orientation
    lying, _ = decode_what_is_there(saved(picture, "JPEG", quality=95), reduce=4)
    found, _ = decode_what_is_there(saved(picture, "JPEG", exif=exif, quality=95), reduce=4)
    expected = Image.fromarray(lying)
    expected.getexif()[0x0112] = orientation
    assert np.array_equal(found, np.asarray(ImageOps.exif_transpose(expected)))


def test_only_jpegs_are_reduced():
    picture = Image.fromarray(PIXELS)
    for kind, expected in (("JPEG", (20, 30, 3)), ("PNG", (40, 60, 3)), ("WEBP", (40, 60, 3)), ("BMP", (40, 60, 3))):
        assert decode_what_is_there(saved(picture, kind), reduce=2)[0].shape == expected
    grey = saved(picture.convert("L"), "JPEG")
    assert decode_what_is_there(grey, reduce=4)[0].shape == (10, 15, 3)


def test_verify_gives_the_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(Image.fromarray(PIXELS), "JPEG", exif=exif))
    assert verify_image(path) == (40, 60, None)
    assert read_image(path).shape == (60, 40, 3)


def test_grey_is_expanded_to_three_channels():
    found = decode_image(saved(Image.fromarray(PIXELS).convert("L"), "PNG"))
    assert found.shape == (40, 60, 3) and (found[..., 0] == found[..., 2]).all()


def test_transparency_is_blended_onto_white():
    layer = np.dstack([PIXELS, np.full((40, 60), 255, np.uint8)])
    layer[:20, :30, 3], layer[20:, :30, 3] = 0, 128
    found = decode_image(saved(Image.fromarray(layer), "PNG"))
    assert (found[5, 5] == 255).all()
    np.testing.assert_allclose(found[30, 5], 128 / 255 * np.array([30, 60, 220]) + 127 / 255 * 255, atol=1.5)
    np.testing.assert_array_equal(found[5, 40], PIXELS[5, 40])


def test_palette_with_a_transparent_entry():
    palette = Image.fromarray(PIXELS).quantize(4)
    index = palette.getpixel((5, 5))
    found = decode_image(saved(palette, "PNG", transparency=index))
    assert (found[5, 5] == 255).all() and np.abs(found[5, 40].astype(int) - PIXELS[5, 40]).max() < 8


def test_sixteen_bits_are_scaled():
    ramp = np.linspace(0, 65535, 2400).reshape(40, 60).astype(np.uint16)
    found = decode_image(saved(Image.fromarray(ramp), "PNG"))
    np.testing.assert_allclose(found[..., 0], ramp / 257, atol=0.51)


def test_cmyk_is_converted_as_by_pillow():
    data = saved(Image.fromarray(PIXELS).convert("CMYK"), "JPEG", quality=100, subsampling=0)
    assert np.abs(decode_image(data)[5:15, 5:25].astype(int) - PIXELS[5:15, 5:25]).max() <= 6


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


JPEG = saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "JPEG")
PNG = saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "PNG")


@pytest.mark.filterwarnings("ignore:Image size")  # Pillow warns about large images before they are refused
@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"not an image", "not-an-image"),
        (JPEG[: len(JPEG) // 3], "damaged"),
        (PNG[: len(PNG) // 2], "damaged"),
        (png_claiming(20_000, 20_000), "too-large"),
        (png_claiming(12_500, 12_500), "too-large"),
        (png_claiming(60_000, 60_000), "too-large"),
        (png_claiming(0, 10), "damaged"),
        (None, "missing"),
    ],
)
def test_unusable_files_are_classified(tmp_path, data, kind):
    path = tmp_path / "image"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        verify_image(path)
    assert caught.value.kind in (kind, "not-an-image") if kind == "damaged" else caught.value.kind == kind
    assert isinstance(caught.value, ValueError)


def test_random_bytes_never_crash():
    rng = np.random.default_rng(0)
    picture = Image.open(io.BytesIO(PNG))
    others = [saved(picture, "AVIF"), saved(picture, "TIFF"), saved(picture.convert("L").convert("F"), "TIFF")]
    for data in (JPEG, PNG, *others):
        for _ in range(150):
            broken = bytearray(data)
            for place in rng.integers(0, len(data), rng.integers(1, 8)):
                broken[place] = rng.integers(256)
            try:
                image = decode_image(bytes(broken))
            except ImageError:
                continue
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_a_png_with_a_huge_chunk_length_allocates_no_memory():
    """OpenCV would allocate two gigabytes for the length in these four bytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = bytearray(saved(Image.fromarray(PIXELS), "PNG"))
    place = data.index(b"IDAT") - 4
    data[place : place + 4] = (2**31 - 1).to_bytes(4, "big")
    np.testing.assert_array_equal(decode_image(bytes(data)), PIXELS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_implausibly_many_pixels_are_not_decoded():
    data = png_claiming(12_000, 12_000)
    with pytest.raises(ImageError, match="claims 12000 x 12000 pixels in"):
        decode_image(data)


def test_formats_that_need_other_programs_are_refused():
    """Pillow would start Ghostscript for this."""
    with pytest.raises(ImageError) as problem:
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    assert problem.value.kind == "not-an-image"


def without_checksum(png: bytes) -> bytes:
    """A PNG with a byte of its pixels changed."""
    place = png.index(b"IDAT") + 40
    return png[:place] + bytes([png[place] ^ 255]) + png[place + 1 :]


HEADER = b"\0\0\0\x18ftyp%b\0\0\0\0mif1heic"


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (HEADER % b"heic", "not-an-image", "HEIC"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "not-an-image", "SVG"),
        (b"\n<!DOCTYPE html><title>", "not-an-image", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "not-an-image", "git lfs pull"),
        (saved(Image.fromarray(PIXELS), "TIFF", compression="tiff_lzw")[:-40], "damaged", "ends early"),
        (without_checksum(PNG), "damaged", "decoded"),
        (b"", "empty", "empty"),
    ],
)
def test_what_is_no_usable_image_is_named(data, kind, words):
    with pytest.raises(ImageError, match=words) as caught:
        decode_image(data)
    assert caught.value.kind == kind


def test_grey_tiffs_with_sign_are_refused_by_all(tmp_path):
    """Pillow gives values from -128 as if they had no sign."""
    path = tmp_path / "a.tif"
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(path, tiffinfo={339: 2})
    for read in (read_image, verify_image, lambda file: convert_image(Image.open(file))):
        with pytest.raises(ImageError, match="-128 to 127"):
            read(path)


def test_bitmaps_with_five_bits_have_white():
    """OpenCV would make 248 of it, Pillow 255."""
    rows = struct.pack("<8H", *(0, 0x7FFF) * 4)
    sizes = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 16, 0, len(rows), 0, 0, 0, 0)
    image = decode_image(b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + sizes + rows)
    assert image[0, :, 0].tolist() == [0, 255, 0, 255]


def closed(load: bool) -> Image.Image:
    picture = Image.open(io.BytesIO(JPEG))
    if load:
        picture.load()
    picture.close()
    return picture


def left() -> Image.Image:
    with Image.open(io.BytesIO(JPEG)) as picture:
        pass
    picture.fp = None  # as after a file of this name was opened
    return picture


@pytest.mark.parametrize(
    "picture", [closed(False), closed(True), left(), Image.new("RGB", (0, 0)), Image.new("L", (0, 5))]
)
def test_pillow_images_without_pixels_are_refused(picture):
    with pytest.raises(ImageError):
        convert_image(picture)
