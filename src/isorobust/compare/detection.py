"""The part of the comparison on detecting adversarial images by paths to them: its tree, tables and figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from isorobust import artifacts
from isorobust.claims import direction, verdict
from isorobust.compare.tables import markdown
from isorobust.detection.scores import ADAPTIVE, SCORES, UNSEEN, auroc_values
from isorobust.drawing import Figure, plt
from isorobust.statistics import mean

FOUND = ("barrier", "fitted", "endpoint-loss")
COLORS = {"barrier": "C3", "fitted": "C1", "endpoint-loss": "C0", "max-softmax": "C9", "fitted-loss": "0.5"}
CLAIMS = {
    "barrier-beyond-loss": ("barrier", "endpoint-loss"),
    "fitted-beyond-loss": ("fitted", "fitted-loss"),
}


def read(results: Path, arms: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Arm -> numbers and arrays of the arms that the recipe measures."""
    found = {}
    for arm in arms:
        numbers = artifacts.read_json(results / "detect" / f"{arm}.json")
        if not numbers.get("skipped"):
            found[arm] = {"numbers": numbers, "arrays": artifacts.read_npz(results / "detect" / f"{arm}.npz")}
    return found


def judged(one: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Claim -> `{value, lo, hi, n, verdict}`: mean AUROC over the attacks unseen in fitting, less that of the loss alone.

    The input's own loss is given whichever sign tells an attack better, because confident attacks lower it
    and the others raise it; the logistic regression on it learns its sign from the same images as the detector.
    """
    told = {}
    for claim, (score, control) in CLAIMS.items():
        changes = []
        for attack in _attacks(one):
            alone = auroc_values(one["arrays"], attack, control)
            if control == "endpoint-loss" and alone.mean() < 0.5:
                alone = 1 - alone
            changes.append(auroc_values(one["arrays"], attack, score) - alone)
        if changes:
            told[claim] = _judged(np.mean(changes, axis=0))
    return told


def _attacks(*found: dict[str, Any]) -> list[str]:
    return [attack for attack in UNSEEN if all(attack in one["numbers"]["auroc"] for one in found)]


def _judged(values: np.ndarray) -> dict[str, Any]:
    interval = mean(values, -1.0, 1.0).as_dict()
    return {**interval, "verdict": verdict(interval["lo"], interval["hi"])}


def tree(found: dict[str, dict[str, Any]], reference: str) -> dict[str, Any]:
    """What compare.json holds; differences: mean AUROC over the unseen attacks, arm less reference, paired by seed and image."""
    arms = {arm: {**one["numbers"], "claims": judged(one)} for arm, one in found.items()}
    differences: dict[str, Any] = {}
    for arm, one in found.items():
        base = found.get(reference)
        if base is None or arm in (reference, "untrained") or not (shared := _attacks(one, base)):
            continue
        if one["arrays"]["seeds"].tolist() != base["arrays"]["seeds"].tolist():
            continue
        both = one["arrays"], base["arrays"]
        differences[f"{arm}-vs-{reference}"] = {
            score: _judged(np.mean([np.subtract(*(auroc_values(x, attack, score) for x in both)) for attack in shared], axis=0))
            for score in SCORES
        }
    return {"arms": arms, "differences": differences}


def table(told: dict[str, Any]) -> str:
    """Rows: arms and attacks; how many images fooled, AUROC per score, share found at 5 % false positives."""
    rows = []
    for arm, numbers in told["arms"].items():
        for attack, scores in numbers["auroc"].items():
            found = numbers["tpr_at_5fpr"][attack]
            cells = [_two(scores[name]) for name in SCORES] + [_two(found[name]) for name in FOUND]
            rows.append([arm, attack, _two(numbers["fooled"][attack]), *cells])
    tpr = [f"found at 5 % FPR: {name}" for name in FOUND]
    return markdown(["arm", "attack", "fooled", *(f"AUROC: {name}" for name in SCORES), *tpr], rows)


def claims_table(told: dict[str, Any]) -> str:
    """Rows: arms; whether paths tell more than the loss, and the adaptive attacks on the two detectors."""
    rows = []
    for arm, numbers in told["arms"].items():
        cells = [f"{_two(one, '+.2f')} **{one['verdict']}**" for one in numbers["claims"].values()]
        under = []
        for attack, score in zip(ADAPTIVE, ("barrier", "fitted")):
            shown = [numbers[measure][attack][score] for measure in ("auroc", "tpr_at_5fpr") if attack in numbers[measure]]
            under.append(", ".join(map(_two, shown)))
        rows.append([arm, *(cells or ["", ""]), *under])
    header = ["arm", "AUROC of the barrier less the loss's own", "of the fitted score less that fitted to the loss"]
    return markdown([*header, "barrier under its adaptive attack: AUROC, found", "fitted under its own"], rows)


def differences_table(told: dict[str, Any]) -> str:
    """Rows: arms held against the reference; mean AUROC per score."""
    rows = [
        [pair.replace("-vs-", " less "), *(f"{_two(one, '+.2f')} {direction(one['lo'], one['hi'])}" for one in scores.values())]
        for pair, scores in told["differences"].items()
    ]
    return markdown(["over unseen attacks", *(f"AUROC: {name}" for name in SCORES)], rows)


def _two(interval: dict[str, float], style: str = ".2f") -> str:
    return f"{interval['value']:{style}} [{interval['lo']:{style}}, {interval['hi']:{style}}]"


def figure(found: dict[str, dict[str, Any]], data: str) -> Figure:
    """ROC curves, all seeds pooled: rows arms, columns attacks."""
    if not found:
        drawn = plt.figure(figsize=(5, 1))
        drawn.text(0.5, 0.5, f"The recipe of {data} does not measure detection.", ha="center", va="center")
        return drawn
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
                    axis.plot(*_roc(one["arrays"], attack, name), _style(name), color=COLORS[name], linewidth=1.1)
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
    drawn.suptitle(f"{data}: detecting adversarial images by the loss along paths to them", fontsize=11)
    return drawn


def _style(score: str) -> str:
    return "--" if score in ("max-softmax", "fitted-loss") else "-"


def _roc(arrays: dict[str, np.ndarray], attack: str, score: str) -> tuple[np.ndarray, np.ndarray]:
    clean = arrays[f"score/clean/{score}"][arrays["right"]]
    fooled = arrays[f"score/{attack}/{score}"][arrays[f"fooled/{attack}"]]
    limits = np.concatenate([[np.inf], np.unique(np.concatenate([clean, fooled]))[::-1]])
    return tuple(1 - np.searchsorted(np.sort(part), limits, "left") / len(part) for part in (clean, fooled))
