"""The reclassifiers' part of the comparison: their tree, tables and figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from isorobust.claims import verdict
from isorobust.common import artifacts
from isorobust.compare.cells import NORM_TITLES, beside, failed, interval, markdown, percent, points
from isorobust.compare.results import ArmResults
from isorobust.compare.styles import empty_figure
from isorobust.drawing import Figure, plt

CLAIMS = {  # as the JSON of the stage attack names them
    "improves-base": "the plug-in improves the robust accuracy of its base (fine-tuned as long without it)",
    "direct-attack-overstates": "attacking the model itself overstates its robustness (beside the mixed surrogates)",
    "fc-more-sensitive": "the FC head is more sensitive than the l2 head",
}
SENSITIVITY = {  # of a head's logits, by its name in that JSON
    "worst": "largest change of logits per unit of features",
    "per-margin": "the same per unit of margin",
}
COLUMNS = {  # path in that JSON -> title
    "fc": "FC surrogate",
    "ema": "dataset-level surrogate",
    "soft": "soft surrogate",
    "ste": "the model itself",
}
ENDS = {"value": "", "lo": "_lo", "hi": "_hi"}  # of the ablation's columns
HEADS = {"fc": "fc", "l2": "ema"}  # head -> the mode in which it alone decides


def read(results: Path, used: list[ArmResults]) -> dict[str, dict[str, Any]]:
    """Name -> `trained`, `attacked` (JSON) and `ablation` (rows of text by column) of the reclassifiers in use."""
    return {
        one.arm: {
            "trained": one.trained,
            "attacked": one.attacked,
            "ablation": artifacts.read_csv(results / "train" / f"{one.arm}-ablation.csv"),
        }
        for one in used
    }


def balls(attacked: dict[str, Any]) -> list[tuple[str, str]]:
    """All (norm, eps key) of the mixed surrogate attack."""
    return [(norm, eps) for norm, by_eps in attacked["msa"].items() for eps in by_eps]


def table(found: dict[str, dict[str, Any]]) -> str:
    """Rows: reclassifiers and radii; each surrogate's own number beside the mixed attack's and the base's."""
    rows = []
    for name, parts in found.items():
        attacked = parts["attacked"]
        for norm, eps in balls(attacked):
            own = [attacked["surrogates"][mode][norm][eps] for mode in COLUMNS]
            others = [attacked[key][norm][eps] for key in ("msa", "adaptive", "alone", "base")]
            cells = [percent(estimate) for estimate in (attacked["clean"], attacked["base-clean"], *own, *others)]
            rows.append([_named(name, parts), f"{NORM_TITLES[norm]} {eps}", *cells])
    header = ["plug-in", "ball", "clean", "base, clean", *COLUMNS.values(), "**mixed surrogates**"]
    return markdown([*header, "and adaptive", "one among clean", "base, worst case"], rows)


def _named(name: str, parts: dict[str, Any]) -> str:
    return beside(name, failed(parts["attacked"]["checks"]))


def claims_table(found: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, parts in found.items():
        shown = _named(name, parts)
        for key, title in CLAIMS.items():
            claim = parts["attacked"]["claims"][key]
            if key == "fc-more-sensitive":
                for measure, one in claim.items():
                    told = [interval(one, "+.3f"), verdict(one["lo"], one["hi"])]
                    rows.append([shown, f"{title}: {SENSITIVITY[measure]}", "", *told])
                continue
            for norm, by_eps in claim.items():
                for eps, change in by_eps.items():
                    rows.append([shown, title, f"{NORM_TITLES[norm]} {eps}", points(change), verdict(change["lo"], change["hi"])])
    return markdown(["plug-in", "claim", "ball", "difference (points; logits)", "verdict"], rows)


def batch_table(found: dict[str, dict[str, Any]]) -> str:
    """Rows: how the same images fill batches; clean and PGD accuracy of each reclassifier."""
    first = next(iter(found.values()))["attacked"]["batch"]
    kinds = [("size", size, f"batches of {size}") for size in first["size"]]
    kinds += [("mix", mix, f"{mix} batches") for mix in first["mix"]]
    rows = []
    for group, key, title in kinds:
        cells = [percent(p["attacked"]["batch"][group][key][what]) for p in found.values() for what in ("clean", "pgd")]
        rows.append([title, *cells])
    frozen = [percent(p["attacked"]["batch"]["frozen"][what]) for p in found.values() for what in ("clean", "pgd")]
    flips = [cell for p in found.values() for cell in (percent(p["attacked"]["batch"]["flips"]), "")]
    rows += [["frozen (dataset-level prototypes alone)", *frozen], ["predictions that flip under reshuffling", *flips]]
    norm, eps = first["ball"]
    kinds = ("clean", f"PGD, {NORM_TITLES[norm]} {eps}")
    return markdown(["batches", *(f"{_named(*one)}, {what}" for one in found.items() for what in kinds)], rows)


def ablation_table(found: dict[str, dict[str, Any]]) -> str:
    """Rows: settings; clean and PGD accuracy on val of every reclassifier that was ablated, in percent. Empty if none was."""
    found = {name: parts for name, parts in found.items() if parts["ablation"]}
    if not found:
        return ""
    rows = []
    for i, first in enumerate(next(iter(found.values()))["ablation"]):
        cells = []
        for parts in found.values():
            row = parts["ablation"][i]
            cells += [percent({k: float(row[f"{what}{end}"]) for k, end in ENDS.items()}) for what in ("clean", "pgd")]
        rows.append([first["changed"], first["to"], *cells])
    header = [f"{_named(*one)}, {what} (val)" for one in found.items() for what in ("clean", "PGD")]
    return markdown(["changed", "to", *header], rows)


def figure(found: dict[str, dict[str, Any]], data: str) -> Figure:
    """Rows reclassifiers: what each attack leaves standing, ball by ball; accuracy by batch size; both heads' sensitivity."""
    if not found:
        return empty_figure(f"No reclassifier in the recipe of {data}.")
    columns = max(len(balls(parts["attacked"])) for parts in found.values()) + 2
    size = (4.5 * columns, 3.7 * len(found))
    drawn, axes = plt.subplots(len(found), columns, figsize=size, squeeze=False, layout="constrained")
    for (*bars, by_size, heads), (name, parts) in zip(axes, found.items()):
        attacked = parts["attacked"]
        for axis, (norm, eps) in zip(bars, balls(attacked)):
            _attacks(axis, attacked, norm, eps)
            axis.set_title(f"{name}, {NORM_TITLES[norm]} {eps}", fontsize=10)
        norm, eps = attacked["batch"]["ball"]
        _sizes(by_size, attacked["batch"])
        by_size.set_title(f"PGD: {NORM_TITLES[norm]} {eps}", fontsize=10)
        norm, eps = balls(attacked)[0]
        _heads(heads, attacked, norm, eps)
        heads.set_title(f"worst case: {NORM_TITLES[norm]} {eps}", fontsize=10)
    drawn.suptitle(f"{data}: the l2-reclassifier", fontsize=11)
    return drawn


def _attacks(axis, attacked: dict[str, Any], norm: str, eps: str) -> None:
    bars = {title: attacked["surrogates"][mode][norm][eps] for mode, title in COLUMNS.items()}
    named = {"mixed surrogates": "msa", "and adaptive": "adaptive", "base, worst case": "base"}
    bars |= {title: attacked[key][norm][eps] for title, key in named.items()}
    colors = ["0.5"] * len(COLUMNS) + ["C3", "C1", "C0"]
    places = range(len(bars) - 1, -1, -1)
    for place, e, color in zip(places, bars.values(), colors):
        error = [[100 * (e["value"] - e["lo"])], [100 * (e["hi"] - e["value"])]]
        axis.errorbar(100 * e["value"], place, xerr=error, fmt="o", color=color, capsize=3)
    axis.set(yticks=places, yticklabels=list(bars), xlabel="accuracy under the attack (%)", ylim=(-0.6, len(bars) - 0.4))
    axis.grid(axis="x", color="0.92")
    axis.margins(x=0.1)


def _sizes(axis, batch: dict[str, Any]) -> None:
    sizes = [int(size) for size in batch["size"]]
    for what, color in (("clean", "C0"), ("pgd", "C3")):
        values = 100 * np.array([[batch["size"][str(size)][what][k] for k in ("value", "lo", "hi")] for size in sizes])
        axis.plot(sizes, values[:, 0], "o-", color=color, label="clean" if what == "clean" else "PGD")
        axis.fill_between(sizes, values[:, 1], values[:, 2], color=color, alpha=0.15, linewidth=0)
        axis.axhline(100 * batch["frozen"][what]["value"], color=color, linestyle="--", linewidth=0.9)
        axis.axhline(100 * batch["mix"]["one-class"][what]["value"], color=color, linestyle=":", linewidth=1.2)
    axis.set(xscale="log", xlabel="batch size (dashed: frozen; dotted: one class)", ylabel="accuracy (%)", ylim=(0, 102))
    axis.legend(frameon=False, fontsize=8)


def _heads(axis, attacked: dict[str, Any], norm: str, eps: str) -> None:
    """Both heads of the plug-in's networks: sensitivity against accuracy under the head's own worst case. That of the l2 head
    as it is (filled) and per unit of margin (hollow), in multiples of the FC head's, which has other units."""
    unit = attacked["sensitivity"]["fc"]
    for head, measure, fill, color, label in (
        ("fc", "worst", "full", "C0", "FC head, both"),
        ("l2", "worst", "full", "C1", "l2 head, frozen, as it is"),
        ("l2", "per-margin", "none", "C1", "l2 head, frozen, per margin"),
    ):
        across = {key: value / unit[measure]["value"] for key, value in attacked["sensitivity"][head][measure].items()}
        robust = {key: 100 * value for key, value in attacked["surrogates"][HEADS[head]][norm][eps].items()}
        axis.errorbar(
            across["value"],
            robust["value"],
            xerr=[[across["value"] - across["lo"]], [across["hi"] - across["value"]]],
            yerr=[[robust["value"] - robust["lo"]], [robust["hi"] - robust["value"]]],
            fmt="o",
            fillstyle=fill,
            color=color,
            label=label,
            capsize=2,
        )
    across = "largest change of logits per unit\nof features (FC head = 1)"
    axis.set(xlabel=across, ylabel="accuracy, own worst case (%)", ylim=(0, 102))
    axis.legend(frameon=False, fontsize=8)
