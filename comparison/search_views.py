"""The table of a search: its candidates, the best of the last round first."""

from collections.abc import Callable

from comparison.choices import SearchRow, SearchSummary
from comparison.tables import Cell, Column, Table, build, points


def search_table(search: SearchSummary | None) -> Table:
    """One row for each candidate: its activations, its ratio to the bound's baseline, and its mAP in each round."""
    if search is None:
        return build((), ())

    def act_in(place: int) -> Callable[[SearchRow], Cell]:
        return lambda row: Cell(row.acts[place], row.acts[place], "text")

    def score_in(place: int) -> Callable[[SearchRow], Cell]:
        def cell(row: SearchRow) -> Cell:
            if place >= len(row.points):
                return Cell("–")
            score = row.points[place]
            return Cell("failed") if score is None else Cell(points(score), score)

        return cell

    def mean(row: SearchRow) -> Cell:
        return Cell("–") if row.mean is None else Cell(points(row.mean) + " *" * row.chosen, row.mean)

    def ratio(row: SearchRow) -> Cell:
        return Cell("–") if row.ratio is None else Cell(f"{row.ratio:.3f}", row.ratio)

    columns: list[tuple[Column, Callable[[SearchRow], Cell]]] = [
        *((Column(group, text=True), act_in(place)) for place, group in enumerate(search.groups)),
        *([(Column("ratio", f"{search.place}, to the baseline"), ratio)] if search.place else []),
        *((Column(f"seed {seed}", "mAP, points"), score_in(place)) for place, seed in enumerate(search.seeds)),
        (Column("mean", "mAP, points"), mean),
    ]
    return build(search.rows, columns)
