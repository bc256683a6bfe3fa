"""Templates of pages: an undefined name is an error, and pictures are part of the page."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def templates(folder: Path, *, escape: bool = True) -> Environment:
    """The templates of a folder; `escape`: values are text, not HTML."""
    return Environment(loader=FileSystemLoader(folder), autoescape=escape, undefined=StrictUndefined, trim_blocks=True)


def data_uri(picture: bytes, kind: Literal["png", "jpeg"]) -> str:
    """The bytes of a picture as an address that an HTML page can contain."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def image_tag(path: Path) -> str:
    """The picture in a PNG or JPEG file as part of an HTML page or of a notebook's output."""
    address = data_uri(path.read_bytes(), "png" if path.suffix == ".png" else "jpeg")
    return f'<img src="{address}" alt="{html.escape(path.name)}" style="max-width: 100%">'
