"""What is at an http address: an image, which is downloaded, or else a video or stream."""

from __future__ import annotations

import base64
import re
import time
from http.client import HTTPException, HTTPResponse
from pathlib import PurePosixPath
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from core.text import one_line
from data.image_files import is_animation, starts_like_an_image
from data.limits import MAX_DOWNLOAD_BYTES, MAX_DOWNLOAD_SECONDS
from data.video import UnreadableError

WEB_SCHEMES = ("http://", "https://")
TIMEOUT = 10.0  # seconds without any data
BLOCK = 1 << 16
SAFE = "/%:;,@!$&'()*+=~-._?"  # characters of an address that stay as they are
PAGES = ("text/", "application/json", "application/xhtml", "application/xml")
PLAYLIST = b"#EXTM3U"


def fetch_image(address: str) -> bytes | None:
    """The bytes of the image at an http or https address; None if a video or stream seems to be there.

    Content or declared type decide, not the name. UnreadableError if it is late, too large or a page.
    """
    try:
        with urlopen(_request(address), timeout=TIMEOUT) as response:
            return _image_of(response)
    except HTTPError as error:
        if error.code in (405, 501) or (error.code == 401 and not _is_basic(error)):
            return None  # FFmpeg may do what urllib does not
        advice = "; expected http://USER:PASSWORD@HOST/... of a user it knows" if error.code == 401 else ""
        raise UnreadableError(f"the server answers {error.code} {_line(error.reason)}{advice}") from error
    except (HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise UnreadableError(f"the server sends nothing for {TIMEOUT:.0f} s") from error
        raise UnreadableError(f"cannot be downloaded: {_line(reason)}") from error


def _is_basic(error: HTTPError) -> bool:
    """Whether a server asks for the user and password that were sent; cameras ask for what only FFmpeg knows."""
    asked = error.headers.get("WWW-Authenticate", "").lower()
    return "basic" in asked and "digest" not in asked


def _line(reason: object) -> str:
    return one_line(reason)[:200]


def without_password(address: str) -> str:
    """An address as it may be shown and written."""
    return re.sub(r"://[^/]*@", "://", address)


def address_stem(address: str) -> str:
    """The name of the file at an address, without suffix; its host if there is none."""
    host, _, path = re.split("[?#]", address.partition("://")[2])[0].partition("/")
    return PurePosixPath(unquote(path)).stem or host


def _request(address: str) -> Request:
    """The request a browser would make: spaces and other letters encoded, user and password in a header."""
    parts = urlsplit(address)
    user, _, host = parts.netloc.rpartition("@")
    place = urlunsplit((parts.scheme, host, quote(parts.path, safe=SAFE), quote(parts.query, safe=SAFE), ""))
    request = Request(place, headers={"User-Agent": "yolo-mish"})
    if user:
        request.add_header("Authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}")
    return request


def _image_of(response: HTTPResponse) -> bytes | None:
    kind = response.headers.get_content_type() if "Content-Type" in response.headers else ""
    if kind.startswith(("video/", "audio/", "multipart/")):
        return None
    deadline = time.monotonic() + MAX_DOWNLOAD_SECONDS
    data = bytearray(response.read1(BLOCK))
    if not kind.startswith("image/") and not starts_like_an_image(bytes(data)):
        if kind.startswith(PAGES) and not data.startswith(PLAYLIST):
            raise UnreadableError(f"is a page ({kind}); expected the address of the image, video or stream itself")
        return None
    while block := response.read1(BLOCK):
        data += block
        if len(data) > MAX_DOWNLOAD_BYTES:
            raise UnreadableError(f"is larger than {MAX_DOWNLOAD_BYTES} bytes")
        if time.monotonic() > deadline:
            raise UnreadableError(f"is not downloaded within {MAX_DOWNLOAD_SECONDS} s")
    image = bytes(data)
    return None if is_animation(image) else image
