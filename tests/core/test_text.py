"""Text for people."""

import errno
import os

import pytest

from core.text import format_duration, is_printable, one_line, printable


def test_durations():
    texts = {0.04: "0.0 s", 9.9: "9.9 s", 42.2: "42 s", 59.7: "1 min 00 s", 185: "3 min 05 s", 7800: "2 h 10 min"}
    assert {seconds: format_duration(seconds) for seconds in texts} == texts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("خانه\u200cها", "خانه\u200cها"),
        ("👩\u200d👧", "👩\u200d👧"),
        ("バス\u3000停", "バス 停"),
        ("a\u00a0b", "a b"),
        ("a\tb\x1b[31m\n", "a?b?[31m?"),
        ("a\u202eb\u200f", "a?b?"),
    ],
)
def test_only_harmful_characters_are_replaced(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert is_printable(text) == ("?" not in shown)


def test_an_error_of_the_system_is_told_without_its_number(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        (tmp_path / "absent" / "file").read_text()
    assert one_line(raised.value) == f"{tmp_path / 'absent' / 'file'}: {os.strerror(errno.ENOENT)}"
    assert one_line(OSError(errno.ENOSPC, "last.pt cannot be written")) == "last.pt cannot be written"
