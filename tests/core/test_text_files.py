"""Text of any system is read as what it means."""

from pathlib import Path

import pytest

from configs.loading import embed_cfg, load_data, read_yaml
from core.text_files import decode_text, read_text_file
from core.yaml_text import parse_text_yaml
from data.names import read_names
from data.sources import open_source
from models.darknet.cfg import read_text
from tests.support.small_sets import write_coco

TEXT = "cat: é\nside: 416\n\nworld: 世界\n"
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_marks_and_line_ends_are_the_same_text(encoding: str, ends: str) -> None:
    mark = "\ufeff" if encoding.endswith("e") and "16" in encoding and ends == "\r\n" else ""  # big and little endian
    data = (mark + TEXT.replace("\n", ends)).encode(encoding)
    assert decode_text(data, name="file") == TEXT


def test_latin_1_is_read_with_a_word(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "old.names").write_bytes("café\r\n“ñ”\r\n".encode("cp1252"))
    assert read_names(tmp_path / "old.names") == ["café", "“ñ”"]
    assert capsys.readouterr().err.count("old.names: not UTF-8") == 1


@pytest.mark.parametrize(
    "data", [b"\0\1\2\3\xff\xfe\0", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff\xe0\0\x10JFIF"]
)
def test_other_data_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ValueError, match="photo: not UTF-8"):
        decode_text(data, name="photo")


def test_too_large_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("12345")
    with pytest.raises(ValueError, match="5 bytes, expected text of at most 4"):
        read_text_file(tmp_path / "a.txt", limit=4)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_all_files_that_users_bring_may_come_from_windows(encoding: str, tmp_path: Path) -> None:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
        return path

    cfg = "[net]\nwidth=32\n"
    assert read_text(write("x.cfg", cfg)) == cfg
    model: dict[str, object] = {"kind": "darknet", "cfg": str(tmp_path / "x.cfg")}
    embed_cfg({"model": model})
    assert model["text"] == cfg
    assert read_names(write("x.names", "cat\nhot dog\n")) == ["cat", "hot dog"]
    assert read_yaml(write("x.yaml", "train: {epochs: 3}\n")) == {"train": {"epochs": 3}}
    write_coco(tmp_path, {"a.png": (40, 30)}, [])
    data = "train: {images: images, annotations: annotations.json}\n"
    assert load_data(write("d.yaml", data))["train"]["images"] == str(tmp_path / "images")
    assert len(open_source(str(write("list.txt", "images/a.png\n")))) == 1


def test_class_names_that_yaml_takes_for_values_are_names() -> None:
    words = ["yes", "no", "on", "off", "null", "~", "1.0", "007", "1e3", "2001-01-01", "true", "12:30", "0x1F"]
    listed = "".join(f"- {word}\n" for word in words)
    assert parse_text_yaml(f"names:\n{listed}") == {"names": words}
    mapped = "".join(f"  {label}: {word}\n" for label, word in enumerate(words))
    assert list(parse_text_yaml(f"names:\n{mapped}")["names"].values()) == words
