"""Text for people."""

from core.text import format_duration


def test_durations():
    texts = {0.04: "0.0 s", 9.9: "9.9 s", 42.2: "42 s", 59.7: "1 min 00 s", 185: "3 min 05 s", 7800: "2 h 10 min"}
    assert {seconds: format_duration(seconds) for seconds in texts} == texts
