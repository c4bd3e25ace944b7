"""The part of the comparison on detecting adversarial images by paths to them: its tree, tables and figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from isorobust.claims import direction, verdict
from isorobust.common import artifacts
from isorobust.common.statistics import mean
from isorobust.compare.cells import interval, markdown
from isorobust.compare.styles import empty_figure
from isorobust.connectivity.settings import UNTRAINED
from isorobust.detection.scores import ADAPTIVE, SCORES, UNSEEN, auroc_values
from isorobust.drawing import Figure, plt

FOUND = ("barrier", "fitted", "endpoint-loss")
SHOWN = ("pgd", "matched")  # the attacks whose curves the report compares with those of clean images
COLORS = {
    **{"barrier": "C3", "fitted": "C1", "ends": "C2"},
    **{"endpoint-loss": "C0", "max-softmax": "C9", "fitted-loss": "0.5", "unusual-loss": "C4"},
}
CLAIMS = {  # claim -> score, control
    "barrier-beyond-loss": ("barrier", "endpoint-loss"),
    "barrier-beyond-unusual-loss": ("barrier", "unusual-loss"),
    "barrier-beyond-ends": ("barrier", "ends"),
    "fitted-beyond-loss": ("fitted", "fitted-loss"),
}
CURVES_NOTE = (
    "Loss curves to clean and to attacked images, averaged over the references; heights, gaps, areas and losses as natural "
    "logarithms, which is how the fitted score sees them:"
)
EQUAL_LOSS = "equal-loss"  # the claim on images of matched loss, where the loss tells nothing


def read(results: Path, arms: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Arm -> numbers and arrays of the arms that the recipe measures."""
    found = {}
    for arm in arms:
        numbers = artifacts.read_json(results / "detect" / f"{arm}.json")
        if not numbers.get("skipped"):
            found[arm] = {"numbers": numbers, "arrays": artifacts.read_npz(results / "detect" / f"{arm}.npz")}
    return found


def judged(one: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Claim -> `{value, lo, hi, n, verdict, attacks}`: mean AUROC over the attacks unseen in fitting, less that of a control.

    For all scores, the controls too, higher speaks for an adversarial input. The last claim is on images of
    matched loss alone, where what is left of the loss is the control.
    """
    attacks, arrays, told = _attacks(one), one["arrays"], {}
    if attacks:
        for claim, (score, control) in CLAIMS.items():
            changes = [auroc_values(arrays, attack, score) - auroc_values(arrays, attack, control) for attack in attacks]
            told[claim] = {**_judged(np.mean(changes, axis=0), _fooled(attacks, arrays)), "attacks": len(attacks)}
    if "matched" in attacks:
        change = np.subtract(*(auroc_values(arrays, "matched", score) for score in ("barrier", "endpoint-loss")))
        told[EQUAL_LOSS] = {**_judged(change, _fooled(["matched"], arrays)), "attacks": 1}
    return told


def _fooled(attacks: list[str], *found: dict[str, np.ndarray]) -> int:
    return int(np.any([arrays[f"fooled/{attack}"].any(axis=0) for attack in attacks for arrays in found], axis=0).sum())


def _attacks(*found: dict[str, Any]) -> list[str]:
    return [attack for attack in UNSEEN if all(attack in one["numbers"]["auroc"] for one in found)]


def _judged(values: np.ndarray, count: int) -> dict[str, Any]:
    """Mean of differences `[S, N]`; `count`: the images that fooled a seed under any of the attacks."""
    found = mean(values, -1.0, 1.0, count).as_dict()
    return {**found, "verdict": verdict(found["lo"], found["hi"])}


def tree(found: dict[str, dict[str, Any]], reference: str) -> dict[str, Any]:
    """What compare.json holds; differences: mean AUROC over the unseen attacks, arm less reference, paired by seed and image."""
    arms = {arm: {**one["numbers"], "claims": judged(one)} for arm, one in found.items()}
    differences: dict[str, Any] = {}
    for arm, one in found.items():
        base = found.get(reference)
        if base is None or arm in (reference, UNTRAINED) or not (shared := _attacks(one, base)):
            continue
        if one["arrays"]["seeds"].tolist() != base["arrays"]["seeds"].tolist():
            continue
        both = one["arrays"], base["arrays"]
        differences[f"{arm}-vs-{reference}"] = {
            score: _judged(
                np.mean([np.subtract(*(auroc_values(x, attack, score) for x in both)) for attack in shared], axis=0),
                _fooled(shared, *both),
            )
            for score in SCORES
        }
    return {"arms": arms, "differences": differences}


def table(told: dict[str, Any]) -> str:
    """Rows: arms and attacks; share of right images fooled, by how much they were changed, AUROC per score, share found."""
    rows = []
    for arm, numbers in told["arms"].items():
        clean = ["clean", "", "", "", *[""] * len(SCORES), *(interval(numbers["fpr"][name]) for name in FOUND)]
        rows.append([arm, *clean])
        for attack, scores in numbers["auroc"].items():
            found = numbers["tpr_at_5fpr"][attack]
            # Published numbers may be from before a score was there.
            cells = [interval(scores[name]) if name in scores else "" for name in SCORES]
            cells += [interval(found[name]) for name in FOUND]
            fooled, change = numbers["fooled"][attack], numbers["change"][attack]
            moved = f"{change['l2']['value']:.2f}, {change['linf']['value']:.2f}"
            rows.append([arm, attack, interval(fooled), str(scores["barrier"]["n"]), moved, *cells])
    above = [f"above the threshold: {name}" for name in FOUND]
    return markdown(
        [
            "arm",
            "attack",
            "fooled",
            "images fooled in any seed",
            "change, L2 and L-infinity",
            *(f"AUROC: {name}" for name in SCORES),
            *above,
        ],
        rows,
    )


def curves_table(told: dict[str, Any]) -> str:
    """Rows: arms, attacks and features of the loss curves; clean and attacked images beside each other."""
    rows = [
        [arm, attack, name, *(interval(row[key]) for key in ("real", "adversarial", "difference", "effect", "auroc"))]
        for arm, numbers in told["arms"].items()
        for attack in SHOWN
        for name, row in numbers["curves"].get(attack, {}).items()
    ]
    return markdown(["arm", "attack", "of the curve", "to clean", "to attacked", "difference", "effect size", "AUROC"], rows)


def claims_table(told: dict[str, Any]) -> str:
    """Rows: arms; whether paths tell more than the loss, and what the adaptive attacks leave of the two detectors."""
    rows = []
    for arm, numbers in told["arms"].items():
        cells = []
        for claim in (*CLAIMS, EQUAL_LOSS):
            one = numbers["claims"].get(claim)
            cells.append(f"{interval(one, '+.2f')} **{one['verdict']}**" if one else "")
        for attack, score in zip(ADAPTIVE, ("barrier", "fitted")):
            there = numbers["tpr_at_5fpr"].get(attack)
            cells.append(f"{interval(there[score])}, n = {there[score]['n']}" if there else "")
        rows.append([arm, *cells])
    header = [
        "arm",
        "barrier less the image's loss",
        "barrier less how unusual that loss is",
        "barrier less the higher end's loss",
        "fitted less fitted to the loss",
    ]
    return markdown(
        [*header, "barrier less the image's loss, at equal loss", "adaptive: barrier finds", "adaptive: fitted finds"], rows
    )


def differences_table(told: dict[str, Any]) -> str:
    """Rows: arms held against the reference; mean AUROC per score."""
    rows = []
    for pair, scores in told["differences"].items():
        cells = [
            f"{interval(scores[name], '+.2f')} {direction(scores[name]['lo'], scores[name]['hi'])}" if name in scores else ""
            for name in SCORES
        ]
        rows.append([pair.replace("-vs-", " less "), *cells])
    return markdown(["over unseen attacks", *(f"AUROC: {name}" for name in SCORES)], rows)


def figure(found: dict[str, dict[str, Any]], data: str) -> Figure:
    """ROC curves, mean over seeds: rows arms, columns attacks."""
    if not found:
        return empty_figure(f"The recipe of {data} does not measure detection.")
    attacks = [*UNSEEN, *ADAPTIVE]
    size = (1.75 * len(attacks), 1.9 * len(found) + 0.8)
    drawn, axes = plt.subplots(
        len(found), len(attacks), figsize=size, squeeze=False, sharex=True, sharey=True, layout="constrained"
    )
    for row, (arm, one) in zip(axes, found.items()):
        for axis, attack in zip(row, attacks):
            axis.plot([0, 1], [0, 1], color="0.85", linewidth=0.8)
            if attack in one["numbers"]["auroc"]:
                for name in SCORES:
                    axis.plot(*_roc(one["arrays"], attack, name), linestyle=_style(name), color=COLORS[name], linewidth=1.1)
            axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            axis.set_box_aspect(1)
            axis.tick_params(labelsize=7)
        row[0].set_ylabel(f"{arm}\nfound", fontsize=8)
    for axis, attack in zip(axes[0], attacks):
        axis.set_title(attack, fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("false positives", fontsize=8)
    handles = [plt.Line2D([], [], color=COLORS[name], linestyle=_style(name)) for name in SCORES]
    drawn.legend(handles, SCORES, loc="outside lower center", ncols=len(SCORES), frameon=False, fontsize=8)
    drawn.suptitle(f"{data}: detecting adversarial images by the loss along paths to them (mean over seeds)", fontsize=11)
    return drawn


def _style(score: str) -> str:
    dashed = {"ends": ":", "max-softmax": (0, (1, 3)), "fitted-loss": (2, (2, 4)), "unusual-loss": (0, (4, 1, 1, 1))}
    return dashed.get(score, "-")


def _roc(arrays: dict[str, np.ndarray], attack: str, score: str) -> tuple[np.ndarray, np.ndarray]:
    """(false positives, found): the mean of the seeds' curves."""
    grid, found = np.linspace(0, 1, 201), []
    for clean, there, right, fooled in zip(
        *(arrays[f"score/{kind}/{score}"] for kind in ("clean", attack)), arrays["right"], arrays[f"fooled/{attack}"]
    ):
        clean, there = np.sort(clean[right]), np.sort(there[fooled])
        limits = np.concatenate([[np.inf], np.unique(np.concatenate([clean, there]))[::-1]])
        false, true = (1 - np.searchsorted(part, limits, "left") / len(part) for part in (clean, there))
        found.append(np.interp(grid, false, true))
    return grid, np.mean(found, axis=0)
