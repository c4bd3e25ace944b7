"""Tables: CSV for programs, Markdown for the report and the README."""

from __future__ import annotations

from typing import Any

from isorobust.compare.analysis import verdict

ATTACK_TITLES = {
    "clean": "clean",
    "paper-fgsm": "paper's FGSM",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "strongest": "strongest",
    "worst-case": "worst case",
}
NORM_TITLES = {"linf": "L-infinity", "l2": "L2"}
SHOWN = ("paper-fgsm", "fgsm", "pgd", "worst-case")  # the protocols side by side: as published, standard, worst case
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


def percent(estimate: dict[str, float] | None) -> str:
    """`94.1 [93.0, 95.0]`, in percent."""
    if estimate is None:
        return ""
    return f"{100 * estimate['value']:.1f} [{100 * estimate['lo']:.1f}, {100 * estimate['hi']:.1f}]"


def points(estimate: dict[str, float]) -> str:
    """`+1.2 [-0.4, 2.8]`, in percentage points."""
    return f"{100 * estimate['value']:+.1f} [{100 * estimate['lo']:+.1f}, {100 * estimate['hi']:+.1f}]"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines)


def shown_points(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """The (norm, eps) that tables show: where the worst case ran, or the primary endpoint's radii."""
    numbers = next(iter(tree["arms"].values()))["robust"]
    worst = [(norm, eps) for norm, by_eps in numbers.items() for eps, attacks in by_eps.items() if "worst-case" in attacks]
    return worst or [(tree["primary"]["norm"], eps) for eps in tree["primary"]["eps"]]


def accuracy_table(tree: dict[str, Any]) -> str:
    """Rows: every radius where the worst case ran, then arms; columns: clean and the attacks of `SHOWN`."""
    attacks = [
        a
        for a in SHOWN
        if any(a in _at(numbers, norm, eps) for numbers in tree["arms"].values() for norm, eps in shown_points(tree))
    ]
    rows = []
    for norm, eps in shown_points(tree):
        for arm, numbers in tree["arms"].items():
            failed = tree["primary"]["failed-checks"].get(arm, [])
            name = arm + (f" (failed: {', '.join(failed)})" if failed else "")
            cells = [percent(_at(numbers, norm, eps).get(attack)) for attack in attacks]
            rows.append([f"{NORM_TITLES[norm]} {eps}", name, str(numbers["seeds"]), percent(numbers["clean"]), *cells])
    return markdown(["ball", "arm", "seeds", "clean", *(ATTACK_TITLES[attack] for attack in attacks)], rows)


def _at(numbers: dict[str, Any], norm: str, eps: str) -> dict[str, Any]:
    return numbers["robust"].get(norm, {}).get(eps, {})


def counts_line(tree: dict[str, Any]) -> str:
    """How many images and seeds stand behind the columns."""
    arm = next(iter(tree["arms"].values()))
    parts = [f"{arm['clean']['n']} test images"]
    worst = {a["worst-case"]["n"] for by_eps in arm["robust"].values() for a in by_eps.values() if "worst-case" in a}
    if worst:
        parts.append(f"worst case the first {max(worst)} of them on the first {_worst_seeds(tree)} seeds")
    return "n: " + ", ".join(parts) + ". Percent, with 95 % intervals over seeds and images."


def _worst_seeds(tree: dict[str, Any]) -> int:
    return max(arm["worst-case-seeds"] for arm in tree["arms"].values())


def verdict_table(tree: dict[str, Any]) -> str:
    """Rows: every other arm and radius; is it more robust than the reference, under each protocol?"""
    reference, primary = tree["primary"]["reference"], tree["primary"]
    rows = []
    for pair, numbers in tree["differences"].items():
        arm = pair.removesuffix(f"-vs-{reference}")
        rows.append([f"{arm}: clean accuracy is higher", points(numbers["clean"]), verdict(numbers["clean"]), ""])
        for norm, eps in shown_points(tree):
            for attack in SHOWN:
                estimate = numbers.get(norm, {}).get(eps, {}).get(attack)
                if estimate is None:
                    continue
                named = (arm, attack, norm) == (primary["arm"], primary["attack"], primary["norm"]) and eps in primary["eps"]
                claim = f"{arm}: more robust at {NORM_TITLES[norm]} {eps}, {ATTACK_TITLES[attack]}"
                rows.append([claim, points(estimate), verdict(estimate), "primary" if named else ""])
    return markdown([f"claim, against {reference}", "difference in points", "verdict", "endpoint"], rows)


def checks_table(tree: dict[str, Any]) -> str:
    """Rows: checks; columns: arms; the value, and FAILED where it is above its limit."""
    arms = list(tree["checks"])
    names = list(dict.fromkeys(name for checks in tree["checks"].values() for name in checks))
    rows = []
    for name in names:
        found = [tree["checks"][arm].get(name) for arm in arms]
        limit = next(check["limit"] for check in found if check)
        cells = ["" if c is None else f"{c['value']:.4g}" + ("" if c["passed"] else " FAILED") for c in found]
        rows.append([name, f"{limit:.4g}", *cells])
    return markdown(["check", "limit", *arms], rows)
