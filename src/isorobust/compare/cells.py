"""How numbers, attacks and arms are written in every table and figure."""

from __future__ import annotations

from typing import Any

ATTACK_TITLES = {
    "clean": "clean",
    "paper-fgsm": "paper's FGSM",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "strongest": "strongest",
    "worst-case": "worst case",
}
NORM_TITLES = {"linf": "L-infinity", "l2": "L2"}


def interval(estimate: dict[str, float], style: str = ".2f", unit: float = 1.0) -> str:
    """`0.12 [0.03, 0.21]`, in multiples of `unit`.

    Where a bound with a sign would read as 0, all three get up to two more decimals: on which side of 0 it lies decides a
    verdict.
    """
    numbers = [estimate[key] / unit for key in ("value", "lo", "hi")]
    if style.startswith("+") and style.endswith("f"):
        decimals = int(style[2:-1])
        styles = [f"+.{decimals + more}f" for more in range(3)]
        style = next((one for one in styles if all(float(format(bound, one)) for bound in numbers[1:] if bound)), style)
    value, lo, hi = (format(number, style) for number in numbers)
    return f"{value} [{lo}, {hi}]"


def percent(estimate: dict[str, float] | None) -> str:
    """`94.1 [93.0, 95.0]`, in percent."""
    return "" if estimate is None else interval(estimate, ".1f", 0.01)


def points(estimate: dict[str, float]) -> str:
    """`+1.2 [-0.4, +2.8]`, in percentage points."""
    return interval(estimate, "+.1f", 0.01)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines)


def named(tree: dict[str, Any], arm: str, shown: str | None = None) -> str:
    """An arm as every table writes it beside its numbers: `arm (failed: check, ...)`; `shown`: what to call it there."""
    return beside(shown or arm, tree.get("primary", {}).get("failed-checks", {}).get(arm, []))


def failed(checks: dict[str, dict[str, Any]]) -> list[str]:
    """Names of the checks that did not pass."""
    return [name for name, check in checks.items() if not check["passed"]]


def beside(name: str, checks: list[str]) -> str:
    """A name with the checks that failed beside it."""
    return name + (f" (failed: {', '.join(checks)})" if checks else "")
