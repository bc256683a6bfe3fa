"""Templates of pages: an undefined name is an error, and pictures are part of the page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def templates(folder: Path, *, escape: bool = True) -> Environment:
    """The templates of a folder; `escape`: values are text, not HTML."""
    return Environment(loader=FileSystemLoader(folder), autoescape=escape, undefined=StrictUndefined, trim_blocks=True)


def data_uri(picture: bytes, kind: Literal["png", "jpeg"]) -> str:
    """The bytes of a picture as an address that an HTML page can contain."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"
