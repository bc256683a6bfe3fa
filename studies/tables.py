"""Tables of findings, as text that is read in a terminal and is Markdown too."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells of text by row, with a title and a heading for each column."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def lines(self) -> list[str]:
        """The lines of a Markdown table, whose columns are aligned."""
        rows = [[cell.replace("|", "/") for cell in row] for row in (self.head, *self.rows)]
        widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
        padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
        padded.insert(1, ["-" * width for width in widths])
        return [f"| {' | '.join(row)} |" for row in padded]


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> tuple[Table, ...]:
    """A table as a tuple of one, or none if there are no rows: to be added to others."""
    lines = tuple(tuple(row) for row in rows)
    return (Table(title=title, head=tuple(head), rows=lines),) if lines else ()
