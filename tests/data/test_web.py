"""An image at an http address is an image; everything else there is a stream or refused in one line."""

import io
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data.web
from data.image import decode_image
from data.sources import open_source
from data.video import UnreadableError
from data.web import fetch_image
from tests.data.test_image import JPEG, PIXELS, PNG, saved

TIFF = saved(Image.fromarray(PIXELS), "TIFF", compression="tiff_lzw")
FRAMES = io.BytesIO()
Image.new("RGB", (30, 20)).save(FRAMES, "GIF", save_all=True, append_images=[Image.new("RGB", (30, 20), "red")])
ANSWERS: dict[str, tuple[int, str, bytes]] = {
    "/x.jpg": (200, "image/jpeg", JPEG),
    "/a%20b/%C3%BC.png?size=1": (200, "image/png", PNG),
    "/no-suffix": (200, "application/octet-stream", PNG),
    "/text.jpg": (200, "text/plain", JPEG),
    "/untyped": (200, "", TIFF),
    "/moves.gif": (200, "image/gif", FRAMES.getvalue()),
    "/still.gif": (200, "image/gif", saved(Image.fromarray(PIXELS), "GIF")),
    "/page.jpg": (200, "text/html; charset=utf-8", b"<!doctype html><p>P6 not found"),
    "/error": (200, "application/json", b"{}"),
    "/drawing": (200, "image/svg+xml", b"<svg/>"),
    "/broken.jpg": (200, "image/jpeg", b"nothing"),
    "/camera": (200, "multipart/x-mixed-replace; boundary=a", b"--a"),
    "/list": (200, "text/plain", b"#EXTM3U"),
    "/clip": (200, "video/mp4", b"\0\0\0 ftypisom"),
    "/gone.jpg": (404, "text/html", b"gone"),
    "/refused": (403, "text/html", b""),
    "/private": (401, "text/html", b""),
    "/large.png": (200, "image/png", PNG + bytes(300_000)),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # noqa: N802
        if self.path == "/slow.jpg":
            time.sleep(0.6)
            return
        if self.path == "/moved.jpg":
            self.send_response(302)
            self.send_header("Location", "/x.jpg")
            self.end_headers()
            return
        if self.path == "/secret.jpg" and self.headers["Authorization"] != "Basic bWU6cEBzcw==":
            self.path = "/private"
        code, kind, body = ANSWERS[self.path if self.path != "/secret.jpg" else "/x.jpg"]
        self.send_response(code)
        if kind:
            self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        return None


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "name", "body"),
    [
        ("/x.jpg", "x", JPEG),
        ("/a b/ü.png?size=1", "ü", PNG),
        ("/a%20b/%C3%BC.png?size=1", "ü", PNG),
        ("/no-suffix", "no-suffix", PNG),
        ("/text.jpg", "text", JPEG),
        ("/untyped", "untyped", TIFF),
        ("/still.gif", "still", ANSWERS["/still.gif"][2]),
        ("/moved.jpg", "moved", JPEG),
    ],
)
def test_an_image_at_an_address_is_an_image(host: str, path: str, name: str, body: bytes) -> None:
    """Also in a list; its content or declared type decides, not its name."""
    source = open_source(f"http://{host}{path}")
    (frame,) = source
    assert not source.is_live and not frame.is_video and frame.name == name and frame.path == f"http://{host}{path}"
    np.testing.assert_array_equal(frame.image, decode_image(body))
    (frame,) = open_source([f"HTTP://{host}{path}"])
    np.testing.assert_array_equal(frame.image, decode_image(body))


@pytest.mark.parametrize("path", ["/camera", "/clip", "/list", "/moves.gif", "/private", "/none.mp4", "/none.m3u8"])
def test_other_media_at_an_address_are_streams(host: str, path: str) -> None:
    assert open_source(f"http://{host}{path}").is_live


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/page.jpg", "text/html"),
        ("/error", "json"),
        ("/drawing", "SVG"),
        ("/broken.jpg", "not an image"),
        ("/gone.jpg", "404"),
        ("/refused", "403"),
        ("/slow.jpg", "0 s"),
        ("/large.png", "larger than 200000"),
    ],
)
def test_nothing_usable_at_an_address(host: str, path: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the address, without its password."""
    monkeypatch.setattr(data.web, "TIMEOUT", 0.3)
    monkeypatch.setattr(data.web, "MAX_DOWNLOAD_BYTES", 200_000)
    with pytest.raises(ValueError, match=message) as caught:
        list(open_source(f"http://me:pw@{host}{path}"))
    assert (
        f"http://{host}{path}" in str(caught.value) and "pw@" not in str(caught.value) and "\n" not in str(caught.value)
    )


def test_a_closed_port_and_an_impossible_address() -> None:
    for address in ("http://127.0.0.1:9/x.jpg", "http://127.0.0.1:99999/x.jpg", "http://[::1/x.jpg", "http:///x.jpg"):
        with pytest.raises(ValueError, match="source http"):
            open_source(address)
        with pytest.raises(ValueError, match="source http"):
            list(open_source([address]))


def test_slow_drips_end(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.web, "MAX_DOWNLOAD_SECONDS", 0)
    with pytest.raises(UnreadableError, match="within 0 s"):
        fetch_image(f"http://{host}/large.png")


def test_user_and_password(host: str) -> None:
    (frame,) = open_source(f"http://me:p%40ss@{host}/secret.jpg")
    assert frame.path == f"http://{host}/secret.jpg"


def test_a_list_file_with_addresses(host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that fails is reported and skipped."""
    Image.fromarray(PIXELS).save(tmp_path / "x.png")
    (tmp_path / "list.txt").write_text(f"http://{host}/x.jpg\nx.png\nhttp://{host}/gone.jpg\nhttp://{host}/clip\n")
    assert [frame.name for frame in open_source(tmp_path / "list.txt")] == ["x", "x_2"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "404" in lines[0] and "not an image" in lines[1]


def test_a_local_file_of_that_name_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "http:" / "127.0.0.1:9").mkdir(parents=True)
    Image.fromarray(PIXELS).save(tmp_path / "http:" / "127.0.0.1:9" / "x.png")
    monkeypatch.chdir(tmp_path)
    for source in ("http://127.0.0.1:9/x.png", ["http://127.0.0.1:9/x.png"]):
        (frame,) = open_source(source)
        np.testing.assert_array_equal(frame.image, PIXELS)
