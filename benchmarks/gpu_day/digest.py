"""What the summary says about each job: a few lines from its figures or its output."""

import re
from collections.abc import Callable, Mapping
from typing import Any

Figures = Mapping[str, Any]


def lines_of(kind: str, figures: Figures, output: str) -> list[str]:
    """The lines for a job, from the figures that it wrote (empty if none) and what it printed."""
    return DIGESTS[kind](figures, output)


def own(figures: Figures, output: str) -> list[str]:
    """The lines that the job itself has written, or the last that it has printed."""
    return list(figures.get("summary", [])) or last(figures, output)


def last(figures: Figures, output: str) -> list[str]:
    """The last line."""
    return [line.strip() for line in output.splitlines() if line.strip()][-1:]


def sanitizer(figures: Figures, output: str) -> list[str]:
    """compute-sanitizer's totals, and its first finding."""
    totals = re.findall(r"^=+ (.*SUMMARY: .*)$", output, re.M)
    findings = re.findall(r"^=+ ((?:Invalid|Error|Warning|Race|Barrier|Program hit).*)$", output, re.M)
    return totals + findings[:1] or last(figures, output)


def kernels(figures: Figures, output: str) -> list[str]:
    """By type and size: bandwidth, share of copy's, ratio to ReLU and gain over F.mish; then the pair by map."""
    lines = []
    for rows in _groups(figures.get("rows", []), "type", "elements"):
        by_name = {row["function"]: row for row in rows}
        ours, relu = by_name["ops.mish"], by_name["ReLU"]
        for way, bound in (("forward", "by_copy"), ("backward", "by_add")):
            share, rate = 100 / ours[f"{way}_{bound}"], ours[f"{way}_gb_per_s"]
            lines.append(
                f"{ours['type']} {ours['elements']:.1e} {way}: {rate:.0f} GB/s, {share:.0f} % of {bound[3:]}'s, "
                f"{ours[f'{way}_ms'] / relu[f'{way}_ms']:.2f}x ReLU, F.mish {ours[f'{way}_gain']:.2f}x; "
                f"host {ours[f'{way}_host_us']:.0f} us (ReLU {relu[f'{way}_host_us']:.0f})"
            )
    parts = {_place(row, row["pass"]): row for row in figures.get("passes", [])}
    for rows in _groups(figures.get("pairs", []), "type", "layout", "channels", "side"):
        by_name = {row["pair"]: row for row in rows}
        ours, plain = by_name["norm_act, Mish"], by_name["BatchNorm2d, F.mish"]
        rates = [f"{row['gb_per_s']:.0f}" for key, row in parts.items() if key[:-1] == _place(ours)]
        lines.append(
            f"pair {ours['type']} {ours['layout']} {ours['channels']}x{ours['side']}: {1e3 * ours['ms']:.0f} us, "
            f"{ours['by_relu']:.2f}x BN+ReLU, BN+F.mish {plain['ms'] / ours['ms']:.2f}x; "
            f"host {ours['host_us']:.0f} us; GB/s {' '.join(rates)}"
        )
    return lines or last(figures, output)


def _place(row: Figures, *more: str) -> tuple[Any, ...]:
    return (row["type"], row["layout"], row["channels"], row["side"], *more)


def _groups(rows: list[Figures], *keys: str) -> list[list[Figures]]:
    """Rows that agree in these keys, together, in order."""
    groups: dict[tuple[Any, ...], list[Figures]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.values())


def step(figures: Figures, output: str) -> list[str]:
    """Wall and GPU-busy milliseconds by network, and the ratios with their intervals."""
    if not figures:
        return last(figures, output)
    times = []
    for name, row in figures["networks"].items():
        busy = "" if row["busy_ms"] is None else f" (busy {row['busy_ms']:.1f})"
        times.append(f"{name} {row['median_ms']:.1f}{busy}")
    ratios = [
        f"{row['one']} / {row['other']} {row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        for row in figures["ratios"]
    ]
    lines = [f"ms: {'; '.join(times)}"]
    return lines + ["; ".join(ratios[at : at + 2]) for at in range(0, len(ratios), 2)]


def comparison(figures: Figures, output: str) -> list[str]:
    """The verdict of the report, one line for each candidate, and where the page lies."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return [line for line in lines if line.startswith("mish") or "report.html" in line][-3:] or lines[-1:]


DIGESTS: dict[str, Callable[[Figures, str], list[str]]] = {
    "own": own,
    "last": last,
    "tests": last,
    "sanitizer": sanitizer,
    "kernels": kernels,
    "step": step,
    "comparison": comparison,
}
