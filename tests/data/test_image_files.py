"""Which files are images: the same for data sets and detection."""

from PIL import Image

from data.image_files import list_images, passed_over
from tests.data.test_image import PIXELS, saved


def test_what_is_an_image_is_decided_by_suffix_and_else_by_content(tmp_path):
    """One decision for all doors; what is no image is counted, except for the usual company of images."""
    picture = Image.fromarray(PIXELS)
    kinds = {"a.jpg": "JPEG", "b.JFIF": "JPEG", "c.jp2": "JPEG2000", "d.gif": "GIF", "e.jpe": "JPEG", "f.pnm": "PPM"}
    kinds |= {"g": "PNG", "h.jpg_large": "JPEG", "i.dat": "TIFF", "deep/j.webp": "WEBP"}
    (tmp_path / "deep").mkdir()
    for name, kind in kinds.items():
        (tmp_path / name).write_bytes(saved(picture, kind))
    (tmp_path / "broken.png").write_bytes(b"")  # reported where it is read
    (tmp_path / "raw.dng").write_bytes(saved(picture, "TIFF"))  # a preview, in such a file
    for name in ("a.txt", "classes.txt", ".DS_Store", "._a.jpg", "Thumbs.db", "deep/j.xml", "clip.mp4", "notes.md"):
        (tmp_path / name).write_bytes(b"BM P6 text")
    images, others = list_images(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in images} == {*kinds, "broken.png"}
    assert [path.name for path in others] == ["clip.mp4", "notes.md", "raw.dng"]
    assert "3 files" in passed_over(others) and "clip.mp4" in passed_over(others)
