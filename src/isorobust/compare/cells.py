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


def named(tree: dict[str, Any], arm: str, shown: str | None = None) -> str:
    """An arm as every table writes it beside its numbers: `arm (failed: check, ...)`; `shown`: what to call it there."""
    return beside(shown or arm, tree.get("primary", {}).get("failed-checks", {}).get(arm, []))


def failed(checks: dict[str, dict[str, Any]]) -> list[str]:
    """Names of the checks that did not pass."""
    return [name for name, check in checks.items() if not check["passed"]]


def beside(name: str, checks: list[str]) -> str:
    """A name with the checks that failed beside it."""
    return name + (f" (failed: {', '.join(checks)})" if checks else "")
