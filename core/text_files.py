"""Text files that users bring, whatever system wrote them: encodings, byte order marks, line ends."""

import codecs
import os
from pathlib import Path

from core.text import say_once

MARKS = (  # the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LEGACY = "cp1252"  # Latin-1 as Windows writes it
SAMPLE = 4096  # bytes in which the zero bytes of UTF-16 are counted
SHORTEST = 6  # bytes of a text in UTF-16 or UTF-32


def read_text_file(path: str | os.PathLike[str], *, limit: int, what: str = "text", any_encoding: bool = False) -> str:
    """The text of a file with `\\n` for all line ends; see `decode_text`. ValueError beyond `limit` bytes."""
    return decode_text(read_limited(path, limit=limit, what=what), name=os.fspath(path), any_encoding=any_encoding)


def read_limited(path: str | os.PathLike[str], *, limit: int, what: str) -> bytes:
    """The content of a file; ValueError beyond `limit` bytes, before anything is read."""
    size = os.path.getsize(path)
    if size > limit:
        raise ValueError(f"{os.fspath(path)}: {size} bytes, expected {what} of at most {limit}")
    return Path(path).read_bytes()


def decode_text(data: bytes, *, name: str, any_encoding: bool = False) -> str:
    """Text in UTF-8 or UTF-16, with or without byte order mark, else in Windows-1252, which a line on stderr says.

    ValueError naming the file `name` for data that are no text in any of them, unless `any_encoding`, which is for text
    that matters in its ASCII part only: other characters are then replaced.
    """
    encoding, data = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if any_encoding:
            return _plain_ends(data.decode(encoding, errors="replace"))
        text = data.decode(LEGACY, errors="replace")
        if encoding != "utf-8" or "\ufffd" in text or not _is_text(text):
            raise ValueError(f"{name}: not UTF-8 text: {error}") from error
        say_once(f"{name}: not UTF-8, read as Windows-1252 (Latin-1)")
    return _plain_ends(text)


def _plain_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _encoding(data: bytes) -> tuple[str, bytes]:
    """The encoding of a text, and the data without the mark."""
    for mark, encoding in MARKS:
        if data.startswith(mark) and (encoding == "utf-8" or len(data) >= SHORTEST):
            return encoding, data[len(mark) :]
    # Without a mark, UTF-16 shows in the zero halves of its ASCII characters.
    sample = data[: SAMPLE if len(data) > SAMPLE else len(data) // 2 * 2]
    for encoding, half, other in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        is_zero = sample[half::2].count(0) > len(sample) // 4 and not sample[other::2].count(0)
        if is_zero and len(data) >= SHORTEST and _is_text(sample.decode(encoding, errors="replace")):
            return encoding, data
    return "utf-8", data


def _is_text(text: str) -> bool:
    return all(each.isprintable() or each in "\t\n\r\f" for each in text)
