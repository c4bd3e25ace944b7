"""How an arm is drawn: a colour for its regulariser, line and marker for what was added to it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from typing import Any

from isorobust.drawing import Figure, plt

# The colour of every regulariser, whichever arms a figure shows; the isometric arms are variants of the baseline.
COLORS = {"baseline": "C0", "jacobian": "C1", "trades": "C2", "adversarial": "C3", "noise": "C4", "reclassifier": "C5"}
SPARE_COLORS = ("C6", "C8", "C9", "C7", *(plt.get_cmap("tab20")(i) for i in range(1, 20, 2)))  # for arms unknown here
VARIANTS = {  # what a name adds to its regulariser -> line and marker, hollow for all but the regulariser itself
    "": ("-", "o"),
    "isometric": ("--", "o"),
    "isometric-published": (":", "s"),
    "isometric-all-layers": ("-.", "^"),
    "isometric-allpairs": ((0, (3, 1, 1, 1, 1, 1)), "v"),
    "isometric-features": ((0, (8, 2)), "D"),
    "isometric-tuned": ((0, (5, 1, 1, 1)), "*"),
}
SPARE_VARIANTS = ((":", "P"), ("-.", "h"), ("--", "X"))


def styles(arms: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Arm -> how every figure draws it: colour by regulariser; line, marker and hollow by variant.

    Names that are not known here take the spare colours and variants in the order of `arms`.
    """
    colors, spare, drawn = dict(COLORS), cycle(SPARE_COLORS), {}
    variants: dict[str, tuple[Any, str]] = dict(VARIANTS)
    others = cycle(SPARE_VARIANTS)
    for arm in arms:
        family, variant = _family(arm)
        if family not in colors:
            colors[family] = next(spare)
        if variant not in variants:
            variants[variant] = next(others)
        line, marker = variants[variant]
        face = "white" if variant else colors[family]
        drawn[arm] = {"color": colors[family], "linestyle": line, "marker": marker, "markerfacecolor": face}
    return drawn


def _family(arm: str) -> tuple[str, str]:
    """(regulariser, variant): `jacobian-isometric` is `isometric` of `jacobian`, `isometric` that of `baseline`."""
    if arm.split("-")[0] == "isometric":
        return "baseline", arm
    for family in COLORS:
        if arm == family or arm.startswith(f"{family}-"):
            return family, arm[len(family) + 1 :]
    family, found, rest = arm.partition("-isometric")
    return family, f"{found}{rest}"[1:]


def empty_figure(told: str) -> Figure:
    """Stands where a recipe leaves a study out, so that the file is there all the same."""
    drawn = plt.figure(figsize=(5, 1))
    drawn.text(0.5, 0.5, told, ha="center", va="center")
    return drawn
