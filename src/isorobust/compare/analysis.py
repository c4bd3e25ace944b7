"""From per-sample verdicts to rates, paired differences and verdicts on claims."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import numpy as np

from isorobust import claims
from isorobust.claims import HOLDS, REFUTED, UNDECIDED
from isorobust.common import artifacts
from isorobust.common.params import eps_key
from isorobust.common.statistics import LEVEL, difference, rate
from isorobust.compare.cells import failed
from isorobust.compare.results import ArmResults
from isorobust.compare.settings import CompareSettings
from isorobust.errors import UserError
from isorobust.verdicts import points_of, ran_at

CONTROL = "adversarial"  # the positive control: where it is no more robust, nothing is
SUMMARY_LIMIT = 20


def compare(
    results: list[ArmResults],
    settings: CompareSettings,
    data: str,
    twins: dict[str, str],
    retuned: Collection[str] = (),
    before: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The tree of compare.json: arms, paired differences, checks, the primary endpoint.

    Every arm is held against the reference, and every twin against the arm that it adds the
    isometric term to (`twins`: arm -> that arm). `retuned`: those of them for which that arm's own
    numbers were chosen again; such a difference is not the term's alone, so the tree's `twins` leave them out.
    `before`: the tree that was published, for arms of which no verdicts are at hand.
    """
    by_arm = {result.arm: result for result in results}
    for arm in (settings.reference, settings.primary.arm):
        if arm not in by_arm:
            raise UserError(f"params.yaml: recipes.{data}.compare: {arm!r} was not trained; allowed: {', '.join(by_arm)}")
    reference = by_arm[settings.reference]
    pairs = [(result, reference) for result in results if result.arm != settings.reference]
    pairs += [(result, by_arm[twins[result.arm]]) for result in results if twins.get(result.arm, reference.arm) != reference.arm]
    tree: dict[str, Any] = {
        "data": data,
        "level": LEVEL,
        "arms": {result.arm: _arm(result, before) for result in results},
        "twins": {arm: base for arm, base in twins.items() if arm in by_arm and arm not in retuned},
        "differences": {f"{result.arm}-vs-{other.arm}": _differences(result, other, before) for result, other in pairs},
        "checks": {result.arm: result.attacked["checks"] for result in results},
        "geometry": {result.arm: result.measured for result in results if result.measured},
    }
    tree["primary"] = _primary(tree, settings)
    return tree


def add_reclassifiers(
    tree: dict[str, Any],
    results: list[ArmResults],
    plugged: list[ArmResults],
    settings: CompareSettings,
    before: dict[str, Any] | None = None,
) -> None:
    """Puts the reclassifiers beside the arms, each held against the reference; their worst case is the mixed surrogate attack."""
    reference = next(result for result in results if result.arm == settings.reference)
    for one in plugged:
        tree["arms"][one.arm] = _arm(one, before)
        tree["differences"][f"{one.arm}-vs-{reference.arm}"] = _differences(one, reference, before)
        tree["checks"][one.arm] = one.attacked["checks"]
        tree["primary"]["failed-checks"][one.arm] = failed(one.attacked["checks"])


def _arm(result: ArmResults, before: dict[str, Any] | None = None) -> dict[str, Any]:
    if not result.arrays:
        return before["arms"][result.arm]
    robust: dict[str, Any] = {}
    felled: dict[str, Any] = {}
    for norm, eps in points_of(result.arrays):
        rates = {name: rate(flags).as_dict() for name, flags in ran_at(result.arrays, norm, eps).items()}
        robust.setdefault(norm, {})[eps] = rates
        fallen = result.arrays.get(f"fallen/worst-case/{norm}/{eps}")
        if fallen is not None:
            parts = result.arrays["parts/worst-case"].tolist()
            shares = {part: float((fallen == k).mean()) for k, part in enumerate(parts, start=1)}
            felled.setdefault(norm, {})[eps] = {"before": float((fallen == -1).mean()), **shares}
    worst = [len(flags) for key, flags in result.arrays.items() if key.startswith("correct/worst-case/")]
    return {
        "seeds": len(result.seeds),
        "worst-case-seeds": max(worst, default=0),
        "clean": rate(result.arrays["correct/clean"]).as_dict(),
        "robust": robust,
        "felled-by": felled,
    }


def _differences(result: ArmResults, reference: ArmResults, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Paired by seed and sample, over the seeds that both arms have; as published where verdicts of one are not at hand."""
    if not (result.arrays and reference.arrays):
        return _as_published(result, reference, before)
    labels = result.arrays["labels"], reference.arrays["labels"]
    count = min(map(len, labels))  # each of the first images of the file
    if not np.array_equal(*(of[:count] for of in labels)):
        raise UserError(f"{result.arm} and {reference.arm} were attacked on other test images; run `dvc repro` for both")
    tree: dict[str, Any] = {
        "clean": _paired(result, reference, result.arrays["correct/clean"], reference.arrays["correct/clean"])
    }
    for norm, eps in points_of(result.arrays):
        there = ran_at(reference.arrays, norm, eps)
        for attack, flags in ran_at(result.arrays, norm, eps).items():
            if attack in there:
                tree.setdefault(norm, {}).setdefault(eps, {})[attack] = _paired(result, reference, flags, there[attack])
    return tree


def _as_published(result: ArmResults, reference: ArmResults, before: dict[str, Any]) -> dict[str, Any]:
    """Errors: UserError if the pair was not published, or an arm that ran anew since is not what it was."""
    lacking = " and ".join(one.arm for one in (result, reference) if not one.arrays)
    name = f"{result.arm}-vs-{reference.arm}"
    if name not in before["differences"]:
        raise UserError(f"{name}: no verdicts of {lacking} are published, to pair them with; run {lacking} here too")
    for one in (result, reference):
        if one.arrays and json.loads(artifacts.json_bytes(_arm(one))) != before["arms"].get(one.arm):
            raise UserError(f"{name}: no verdicts of {lacking} are published, and {one.arm} is not what it was; run both here")
    return before["differences"][name]


def _paired(result: ArmResults, reference: ArmResults, flags: np.ndarray, other: np.ndarray) -> dict[str, float]:
    mine, theirs = result.seeds[: len(flags)], reference.seeds[: len(other)]
    common = [seed for seed in mine if seed in theirs]
    if not common:
        raise UserError(f"{result.arm} and {reference.arm} share no seeds; run `dvc repro` for both")
    count = min(flags.shape[1], other.shape[1])
    pair = flags[[mine.index(s) for s in common], :count], other[[theirs.index(s) for s in common], :count]
    return difference(*pair).as_dict()


def verdict(interval: dict[str, float]) -> str:
    """On the claim that the difference is positive."""
    return claims.verdict(interval["lo"], interval["hi"])


def gain(interval: dict[str, float]) -> str:
    """The same interval in the words of the factorial view: what adding the isometric term did."""
    return {HOLDS: "gains", REFUTED: "loses", UNDECIDED: UNDECIDED}[verdict(interval)]


def factorial(tree: dict[str, Any], norm: str, eps: list[str], attack: str) -> list[dict[str, Any]]:
    """One entry per twin and measure (clean accuracy, then `attack` at each eps): without the term, with it, paired difference.

    `smallest` is half the width of the difference's interval.
    """
    entries = []
    for twin, base in tree["twins"].items():
        pair = tree["differences"][f"{twin}-vs-{base}"]
        with_, without = tree["arms"][twin], tree["arms"][base]
        measures = [("clean", without["clean"], with_["clean"], pair["clean"])]
        for key in eps:
            if attack in pair.get(norm, {}).get(key, {}):
                rates = (arm["robust"][norm][key][attack] for arm in (without, with_))
                measures.append((key, *rates, pair[norm][key][attack]))
        for measure, before, after, change in measures:
            smallest = (change["hi"] - change["lo"]) / 2
            entries.append(
                {
                    "regulariser": base,
                    "twin": twin,
                    "measure": measure,
                    "without": before,
                    "with": after,
                    "difference": change,
                    "smallest": smallest,
                    "verdict": gain(change),
                }
            )
    return entries


def _primary(tree: dict[str, Any], settings: CompareSettings) -> dict[str, Any]:
    primary = settings.primary
    differences = tree["differences"][f"{primary.arm}-vs-{settings.reference}"].get(primary.norm, {})
    points = {}
    for eps in map(eps_key, primary.eps):
        if primary.attack not in differences.get(eps, {}):
            raise UserError(
                f"params.yaml: recipes.{tree['data']}.compare.primary: {primary.attack} did not run at {primary.norm} {eps}"
            )
        interval = differences[eps][primary.attack]
        points[eps] = {**interval, "verdict": verdict(interval)}
    return {
        "arm": primary.arm,
        "reference": settings.reference,
        "attack": primary.attack,
        "norm": primary.norm,
        "eps": points,
        "failed-checks": {arm: failed(checks) for arm, checks in tree["checks"].items()},
    }


def summary(tree: dict[str, Any]) -> dict[str, Any]:
    """The headline: the primary difference, failed checks, its arms, the positive control, then others, at most 20 numbers."""
    primary = tree["primary"]
    shown: dict[str, Any] = {
        "primary": {eps: {k: point[k] for k in ("value", "lo", "hi")} for eps, point in primary["eps"].items()},
        "failed_checks": sum(map(len, primary["failed-checks"].values())),
    }
    left = SUMMARY_LIMIT - 3 * len(primary["eps"]) - 1
    first = [primary["reference"], primary["arm"], CONTROL]
    names = sorted(tree["arms"], key=lambda arm: first.index(arm) if arm in first else len(first))
    for arm in names:
        robust = tree["arms"][arm]["robust"].get(primary["norm"], {})
        row = {"clean": tree["arms"][arm]["clean"]["value"]}
        row |= {f"{primary['attack']}_{eps}": robust[eps][primary["attack"]]["value"] for eps in primary["eps"]}
        if len(row) > left:
            break
        left -= len(row)
        shown[arm] = row
    return shown
