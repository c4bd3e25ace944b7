"""What an interval says about a claim, in the words that every table uses."""

from __future__ import annotations

HOLDS, REFUTED, UNDECIDED = "holds", "does not hold", "undecided"


def verdict(lo: float, hi: float) -> str:
    """On the claim that a number is positive: its interval [lo, hi] lies above 0, below 0, or holds 0 or a single point."""
    if lo > 0 and hi > lo:
        return HOLDS
    return REFUTED if hi < 0 and hi > lo else UNDECIDED


def direction(lo: float, hi: float) -> str:
    """The same interval in words that do not take sides."""
    return {HOLDS: "higher", REFUTED: "lower", UNDECIDED: UNDECIDED}[verdict(lo, hi)]
