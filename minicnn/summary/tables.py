"""Costs as aligned text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minicnn.summary.cost import Cost
from minicnn.summary.profile import Row, stages, total

FIGURES = {
    "weights": "parameters",
    "multiply_adds": "multiply-adds",
    "activations": "activations",
    "receptive_field": "receptive field",
    "columns": "largest im2col",
}
BY_STAGE = ("weights", "multiply_adds", "activations")


def table(rows: list[Row]) -> str:
    """The rows of one network, with their totals."""
    cells = [("layer", "op", "output", "parameters", "multiply-adds")]
    cells += [
        (row.layer, row.op, "x".join(map(str, row.shape)), f"{row.parameters:,}", f"{row.multiply_adds:,}")
        for row in rows
    ]
    everything = total(rows)
    cells.append(("total", "", "", f"{everything.weights:,}", f"{everything.multiply_adds:,}"))
    lines = aligned(cells, left=3)
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def comparison(networks: Mapping[str, list[Row]]) -> str:
    """Several networks side by side: what they cost in all, then map by map, the largest first."""
    cells = [["", *networks]]
    totals = [total(rows) for rows in networks.values()]
    cells += [[title, *(f"{getattr(cost, figure):,}" for cost in totals)] for figure, title in FIGURES.items()]
    by_size = [stages(rows) for rows in networks.values()]
    sizes = sorted({size for of_network in by_size for size in of_network}, key=_largest_first)
    for figure in BY_STAGE:
        cells += [[], [f"{FIGURES[figure]} by map"]]
        for size in sizes:
            here = [of_network.get(size) for of_network in by_size]
            if any(cost and getattr(cost, figure) for cost in here):
                cells.append([f"  {size}", *("" if cost is None else f"{getattr(cost, figure):,}" for cost in here)])
    return "\n".join(line.rstrip() for line in aligned(cells))


def _largest_first(size: str) -> tuple[int, str]:
    """Maps before what is none, larger ones before smaller ones."""
    height = size.partition("x")[0]
    return (-int(height) if height.isdigit() else 1), size


def costs(layers: Mapping[str, Cost]) -> str:
    """Rows of layers side by side; in brackets how many times as much as the first it is."""
    cells = [["", *layers]]
    for figure, title in {**FIGURES, "weights": "weights"}.items():
        numbers = [getattr(cost, figure) for cost in layers.values()]
        first = 0 if figure == "receptive_field" else numbers[0]
        shares = ["", *(f" ({n / first:.2f}×)" if first else "" for n in numbers[1:])]
        cells.append([title, *(f"{n:,}{share}" for n, share in zip(numbers, shares, strict=True))])
    return "\n".join(line.rstrip() for line in aligned(cells))


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of equal columns; the first `left` begin where they begin, the others end where they end.

    A row may have fewer cells than the first one, which names the columns.
    """
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=False))
        )
        for row in rows
    ]
