"""The rows of a study: what a cell varies and what was measured, and how findings read them."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import cast

Value = str | int | float | bool | None
Row = dict[str, Value]


def number(row: Row, column: str) -> float:
    """A value that is a number."""
    value = row[column]
    assert isinstance(value, int | float), (column, value)
    return float(value)


def where(rows: Iterable[Row], **values: Value) -> list[Row]:
    """The rows with these values; one without such a column has None there."""
    return [row for row in rows if all(row.get(column) == value for column, value in values.items())]


def distinct(rows: Iterable[Row], column: str) -> list[int]:
    """The values of a column of integers, in order."""
    return sorted({cast(int, row[column]) for row in rows})


def by_seed(rows: Sequence[Row], column: str) -> list[float]:
    """A figure by seed, averaged over the rows of the seed."""
    samples = [[number(row, column) for row in where(rows, seed=seed)] for seed in distinct(rows, "seed")]
    return [sum(values) / len(values) for values in samples]


def ahead(rows: Sequence[Row], column: str, one: str, other: str) -> list[float]:
    """One activation minus the other by seed, each averaged over its rows of the seed."""
    pairs = zip(*(by_seed(where(rows, activation=name), column) for name in (one, other)), strict=True)
    return [a - b for a, b in pairs]


def to_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV with all columns of any."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
