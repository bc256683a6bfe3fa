"""What the structure of an image file says of it, against decoding the file completely."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from data import build_train_loader, image_structure, verify
from data.coco import read_coco
from data.image import ImageError, verify_image
from data.image_structure import inspect_image
from data.verify import verify_images
from data.workers import LoaderError
from tests.support.small_sets import box, write_coco

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
PICTURE = Image.fromarray(NOISE)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def text(key: str, value: str) -> PngImagePlugin.PngInfo:
    found = PngImagePlugin.PngInfo()
    found.add_text(key, value)
    return found


JPEG, PNG = saved(PICTURE, "JPEG"), saved(PICTURE, "PNG")
SOUND = {
    "baseline": JPEG,
    "progressive": saved(PICTURE, "JPEG", progressive=True),
    "restart markers": saved(PICTURE, "JPEG", restart_marker_blocks=2, comment="three"),
    "grey": saved(PICTURE.convert("L"), "JPEG"),
    "turned": saved(PICTURE, "JPEG", exif=exif(6)),
    "mirrored": saved(PICTURE, "JPEG", exif=exif(4)),
    "png": PNG,
    "interlaced palette": saved(PICTURE.convert("P"), "PNG", transparency=3),
    "alpha": saved(PICTURE.convert("RGBA"), "PNG", pnginfo=text("Software", "none")),
    "bits": saved(PICTURE.convert("1"), "PNG"),
}
DECODED = {
    "cmyk": saved(PICTURE.convert("CMYK"), "JPEG"),
    "trailing bytes": JPEG + b"more",
    "a turned png": saved(PICTURE, "PNG", exif=exif(8)),
    "xmp": saved(PICTURE, "PNG", pnginfo=text("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')),
    "16 bits": saved(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 900), "PNG"),
    "bmp": saved(PICTURE, "BMP"),
    "webp": saved(PICTURE, "WEBP"),
    "gif": saved(PICTURE, "GIF"),
}


def outcome(check, path) -> object:
    try:
        return check(path)
    except ImageError as error:
        return error.kind, error.what


@pytest.mark.parametrize("name", [*SOUND, *DECODED])
def test_the_structure_gives_what_decoding_gives(name, tmp_path, monkeypatch):
    path = tmp_path / "image"
    path.write_bytes((SOUND | DECODED)[name])
    expected = verify_image(path)
    decoded = []
    monkeypatch.setattr(image_structure, "verify_image", lambda file: decoded.append(file) or verify_image(file))
    assert inspect_image(path) == expected
    assert bool(decoded) == (name in DECODED)


@pytest.mark.parametrize("data", [JPEG, SOUND["progressive"], PNG], ids=["jpeg", "progressive", "png"])
def test_a_file_that_ends_early_is_met_wherever_it_ends(data, tmp_path):
    path = tmp_path / "image"
    last = range(-12, 0) if data[:2] == JPEG[:2] else []  # of a PNG, decoders do without them
    for end in (0, 1, 2, 3, 20, 100, 300, 600, len(data) // 3, len(data) // 2, len(data) - 40, *last):
        path.write_bytes(data[:end])
        found = outcome(inspect_image, path)
        assert found == outcome(verify_image, path), end
        assert isinstance(found[0], str) or found.fault, end  # met, not only equal


def test_a_changed_byte_of_a_png_is_met(tmp_path):
    path, data = tmp_path / "a.png", bytearray(PNG)
    data[data.index(b"IDAT") + 30] ^= 255
    path.write_bytes(data)
    assert outcome(inspect_image, path) == outcome(verify_image, path)
    assert outcome(inspect_image, path)[0] == "damaged"


def test_a_missing_file_is_named_as_by_decoding(tmp_path):
    assert outcome(inspect_image, tmp_path / "none.jpg") == ("missing", "does not exist")


def test_what_no_structure_shows_ends_training_with_the_file_and_is_skipped_once_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "MANY_IMAGES", 2)
    boxes = [box(k, k, [1, 1, 5, 5]) for k in (1, 2, 3)]
    path = write_coco(tmp_path, dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), (64, 48)), boxes)
    wrong_tables = bytearray(JPEG)
    wrong_tables[wrong_tables.index(b"\xff\xc4") + 4] = 0x77  # a Huffman table that no JPEG has
    (tmp_path / "images/b.jpg").write_bytes(wrong_tables)
    found = read_coco(path, tmp_path / "images", progress=False)

    usable = verify_images(found, progress=False)
    assert len(usable) == 3 and not usable.issues
    loader = build_train_loader(usable, imgsz=64, batch=3, cache="off")
    with pytest.raises(LoaderError, match=r"images/b\.jpg cannot be decoded.*data\.check finds"):
        list(loader)
    with pytest.raises(ValueError, match=r"images/b\.jpg cannot be decoded.*data\.check finds"):
        build_train_loader(usable, imgsz=64, batch=3, cache="ram", progress=False)

    for decode in (True, False):  # what was found once by decoding holds
        usable = verify_images(found, decode=decode, progress=False)
        assert usable.file_names[:] == ["a.jpg", "c.jpg"]
        assert [(issue.file, issue.kind) for issue in usable.issues] == [("b.jpg", "damaged")]


def test_strict_decodes(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "MANY_IMAGES", 1)
    path = write_coco(tmp_path, {"a.jpg": (64, 48)}, [])
    (tmp_path / "images/a.jpg").write_bytes(JPEG.replace(b"\xff\xc4\x00\x1f\x00", b"\xff\xc4\x00\x1f\x77", 1))
    found = read_coco(path, tmp_path / "images", progress=False)
    assert not verify_images(found, progress=False).issues
    with pytest.raises(ValueError, match=r"a\.jpg: cannot be decoded"):
        verify_images(found, strict=True, progress=False)
