"""CSV for programs and for DVC's plots: (header, rows)."""

from __future__ import annotations

from typing import Any

from isorobust.compare.tables import factorial_entries

CSV_HEADER = ["arm", "norm", "eps", "attack", "value", "lo", "hi", "n"]


def long_rows(tree: dict[str, Any]) -> list[list[Any]]:
    """One row per arm, norm, eps and attack; clean accuracy as attack `clean` at eps 0."""
    rows = []
    for arm, numbers in tree["arms"].items():
        rows.append([arm, "", 0.0, "clean", *_values(numbers["clean"])])
        for norm, by_eps in numbers["robust"].items():
            for eps, by_attack in by_eps.items():
                rows += [[arm, norm, eps, attack, *_values(estimate)] for attack, estimate in by_attack.items()]
    return rows


def _values(estimate: dict[str, float]) -> list[float]:
    return [estimate[k] for k in ("value", "lo", "hi", "n")]


def wide_rows(tree: dict[str, Any], arms: list[str], norm: str, attack: str) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) for a DVC plot: eps, then one column per arm of the list; empty where an arm was skipped."""
    curves = {}
    for arm in arms:
        numbers = tree["arms"].get(arm)
        points = numbers["robust"].get(norm, {}) if numbers else {}
        curves[arm] = {float(eps): p[attack]["value"] for eps, p in points.items() if attack in p}
        if numbers:
            curves[arm][0.0] = numbers["clean"]["value"]
    grid = sorted({eps for curve in curves.values() for eps in curve})
    return ["eps", *arms], [[eps, *(curves[arm].get(eps) for arm in arms)] for eps in grid]


def curve_rows(results, arms: list[str], column: str) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) by epoch for a DVC plot: one column per arm of the list."""
    found = {result.arm: {int(row["epoch"]): float(row[column]) for row in result.curves} for result in results}
    epochs = sorted({epoch for curve in found.values() for epoch in curve})
    return ["epoch", *arms], [[epoch, *(found.get(arm, {}).get(epoch) for arm in arms)] for epoch in epochs]


def factorial_rows(tree: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) of the factorial view for programs."""
    rows = []
    for entry in factorial_entries(tree):
        change = entry["difference"]
        values = [entry["without"]["value"], entry["with"]["value"], change["value"], change["lo"], change["hi"], change["n"]]
        rows.append([entry["regulariser"], entry["twin"], entry["measure"], *values, entry["smallest"], entry["verdict"]])
    header = ["regulariser", "twin", "measure", "without", "with", "difference", "lo", "hi", "n", "smallest", "verdict"]
    return header, rows
