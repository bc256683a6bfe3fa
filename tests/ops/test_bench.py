"""The benchmark on tiny maps: complete tables, ratios within rounds, written files."""

import json

import pytest

from ops import bench


def test_a_ratio_compares_within_a_round():
    assert bench.ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0


@pytest.mark.slow
def test_tables_numbers_and_picture(tmp_path, capsys):
    numbers, picture = tmp_path / "numbers.json", tmp_path / "picture.png"
    words = ["--types", "fp32", "bf16", "--sides", "4", "8", "--rounds", "3", "--threads", "1"]
    assert bench.main([*words, "--json", str(numbers), "--picture", str(picture)]) == 0
    content = json.loads(numbers.read_text())
    functions = {"copy / add", *bench.FUNCTIONS}
    assert {(row["type"], row["elements"], row["function"]) for row in content["rows"]} == {
        (kind, 16 * 64 * side * side, name) for kind in ("fp32", "bf16") for side in (4, 8) for name in functions
    }
    assert {row["layout"] for row in content["pairs"]} == {"contiguous", "channels_last"}
    assert all(row["forward_ms"] > 0 and row["backward_by_add"] > 0 for row in content["rows"])
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in functions) and picture.stat().st_size > 5000
