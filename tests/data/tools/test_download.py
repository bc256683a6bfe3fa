"""Downloads from a server that cuts connections, lies about sizes or sends wrong bytes."""

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data.tools import download as module
from data.tools.download import TABLE, Archive, DataSet, data_sets, download, main
from tests.support.server import Server, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with serving() as server:
        server.content = zipped({"images/a.bin": noise(200_000), "annotations/a.json": b"{}"})
        yield server


def noise(count: int) -> bytes:
    return np.random.default_rng(0).bytes(count)


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def data_set(server: Server, name: str = "a.zip", **changes: object) -> DataSet:
    values = {
        "url": f"http://127.0.0.1:{server.server_port}/{name}",
        "bytes": len(server.content),
        "unpacked": 200_002,
        "md5": hashlib.md5(server.content).hexdigest(),
    }
    file = Archive.model_validate(values | changes)
    return DataSet(about="noise", licence="none", home="nowhere", folder="noise", files=[file])


def is_whole(folder: Path) -> bool:
    """Whether the files are there, and nothing else but what says so."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return names == {"images/a.bin", "annotations/a.json", ".a.zip.unpacked"} and (
        folder / "images/a.bin"
    ).read_bytes() == noise(200_000)


def test_a_download_is_unpacked_and_not_repeated(server: Server, tmp_path: Path) -> None:
    download(data_set(server), tmp_path / "new", [])
    assert is_whole(tmp_path / "new") and server.asked == [""]
    download(data_set(server), tmp_path / "new", [])
    assert server.asked == [""]


def test_a_cut_connection_is_continued_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cut_after, server.cuts = 60_000, 3
    download(data_set(server), tmp_path, [])
    assert is_whole(tmp_path) and server.sent == len(server.content)
    assert server.asked == ["", "bytes=60000-", "bytes=120000-", "bytes=180000-"]


def test_a_server_without_ranges_is_asked_for_the_whole_again(server: Server, tmp_path: Path) -> None:
    server.cut_after, server.cuts, server.ranges = 60_000, 1, False
    download(data_set(server), tmp_path, [])
    assert is_whole(tmp_path)


def test_a_download_that_brings_nothing_ends_and_the_next_call_continues_it(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(server.content[:50_000])
    server.cut_after, server.cuts = 0, 1000
    with pytest.raises(ConnectionError, match=r"stopped at 50,000 of 200,\d\d\d bytes .* continues it"):
        download(data_set(server), tmp_path, [])
    assert len(server.asked) == module.ATTEMPTS
    server.cuts = 0
    download(data_set(server), tmp_path, [])
    assert is_whole(tmp_path) and server.asked[-1] == "bytes=50000-"


@pytest.mark.parametrize("claims", [10, 10_000_000])
def test_a_file_of_another_size_is_refused_before_it_is_downloaded(server: Server, tmp_path: Path, claims: int) -> None:
    server.claims = claims
    with pytest.raises(ValueError, match=f"a file of {claims:,} bytes, expected {len(server.content):,}"):
        download(data_set(server), tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_wrong_bytes_are_refused_and_removed(server: Server, tmp_path: Path) -> None:
    expected = data_set(server)
    server.content = server.content[:-1] + b"?"
    with pytest.raises(ValueError, match="MD5 checksum"):
        download(expected, tmp_path, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code, error", [(404, ValueError), (403, ValueError), (503, ConnectionError)])
def test_an_error_of_the_server_is_named(server: Server, tmp_path: Path, code: int, error: type[Exception]) -> None:
    server.code = code
    with pytest.raises(error, match=str(code)):
        download(data_set(server), tmp_path, [])
    assert len(server.asked) == (1 if code < 500 else module.ATTEMPTS)


def test_a_full_disk_is_seen_before_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = len(server.content) + 200_002
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(ValueError, match="disk space are needed"):
        download(data_set(server), tmp_path, [])
    assert server.asked == []
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    download(data_set(server), tmp_path, [])


def test_members_stay_in_the_folder(server: Server, tmp_path: Path) -> None:
    server.content = zipped({"../outside": b"x", "/absolute": b"y"})
    download(data_set(server), tmp_path / "in", [])
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../outside"))
    server.content = stream.getvalue()
    with pytest.raises(ValueError, match="outside"):
        download(data_set(server, "b.tar"), tmp_path / "in", [])
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_damaged_archive_is_named(server: Server, tmp_path: Path) -> None:
    server.content = b"no archive"
    with pytest.raises(ValueError, match=r"a\.zip: File is not a zip file"):
        download(data_set(server), tmp_path, [])


def test_coco_in_one_command(
    server: Server, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files as COCO's, from another server; the data YAML of the project finds them."""
    from configs import loading
    from configs.loading import load_data

    categories = [{"id": 1, "name": "cat"}]
    empty = json.dumps({"images": [], "annotations": [], "categories": categories}).encode()
    content = {f"annotations/instances_{split}2017.json": empty for split in ("train", "val")}
    server.content = zipped(content | {"train2017/a.jpg": b"", "val2017/b.jpg": b""})
    coco = data_set(server).model_copy(update={"folder": "coco", "data": "coco.yaml"})
    coco.files[0].split = "train"
    monkeypatch.setattr(module, "data_sets", lambda _: {"coco2017": coco})
    monkeypatch.setattr(module, "INSTALLED", True)
    monkeypatch.setattr(loading, "INSTALLED", True)
    assert main(["coco2017"]) == 0
    assert "--data coco.yaml" in capsys.readouterr().out
    sections = load_data("coco.yaml")
    for split in ("train", "val"):
        assert Path(sections[split]["images"]).is_dir() and Path(sections[split]["annotations"]).is_file()
    assert main(["coco2017", "--to", "elsewhere"]) == 0
    assert "--data elsewhere" in capsys.readouterr().out and (here / "elsewhere/val2017/b.jpg").is_file()
    server.code = 503
    assert main(["coco2017", "--to", "third"]) == 1
    assert capsys.readouterr().err.startswith("data.download: error: http://127.0.0.1")


@pytest.mark.parametrize(
    "words, message",
    [
        (["coco"], "'coco' is not a known data set, did you mean 'coco2017'?"),
        (["x"], "'x' is not a known data set, expected one of coco2017, voc2007"),
        (["coco2017", "--splits", "test"], "--splits test: coco2017 has val and train"),
    ],
)
def test_wrong_names(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2 and capsys.readouterr().err == f"python -m data.download: error: {message}\n"


def test_without_a_name_it_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out
    for name, entry in data_sets(TABLE).items():
        assert name in lines and entry.licence in lines and all(file.split != "" for file in entry.files)
