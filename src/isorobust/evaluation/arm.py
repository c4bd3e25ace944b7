"""Attacking one arm: its checkpoint in, verdicts and headline numbers out."""

from __future__ import annotations

from typing import Any

import torch

from isorobust.attacks.settings import AttackSettings
from isorobust.common.params import eps_key
from isorobust.common.splits import Split
from isorobust.common.statistics import rate
from isorobust.evaluation.checks import run_checks
from isorobust.evaluation.evaluate import Bench, Evaluation, Victim, evaluate
from isorobust.evaluation.units import Store
from isorobust.networks.checkpoint import Checkpoint
from isorobust.progress import say
from isorobust.verdicts import Arrays


def attack_arm(
    checkpoint: Checkpoint,
    baseline: Checkpoint,
    test: Split,
    options: AttackSettings,
    store: Store,
    device: torch.device,
    is_surrogate: bool,
) -> tuple[dict[str, Any], Arrays]:
    """(headline numbers with checks, per-sample arrays) of one arm.

    Transfer images come from the baseline's network of the same seed; when the arm is the baseline
    itself (`is_surrogate`), from its next seed.
    """
    bench = Bench(test, checkpoint.spec["classes"], options, device)
    say(f"{len(bench.labels)} test images, per class: {bench.split.class_counts()}")
    victims = [_victim(checkpoint, seed, device) for seed in checkpoint.seeds]
    surrogates = [_surrogate(baseline, seed, device, is_surrogate) for seed in checkpoint.seeds]
    evaluation = evaluate(victims, surrogates, bench, store)
    checks = run_checks(victims, bench, evaluation)
    for name, check in checks.items():
        if not check["passed"]:
            say(f"check failed: {name}: {check['value']:.4g}, limit {check['limit']:.4g}")
    return {**_headline(evaluation, options), "checks": checks}, evaluation.arrays


def _victim(checkpoint: Checkpoint, seed: int, device) -> Victim:
    return Victim(seed, checkpoint.network(seed, device), checkpoint.model_hash(seed), checkpoint.spec["isometric"])


def _surrogate(baseline: Checkpoint, seed: int, device, is_surrogate: bool) -> Victim | None:
    seeds = baseline.seeds if not baseline.skipped else []
    others = [s for s in seeds if s != seed] if is_surrogate else seeds
    if not others:
        return None
    if is_surrogate:
        following = seeds[(seeds.index(seed) + 1) % len(seeds)]
    else:
        following = seed if seed in seeds else seeds[0]
    return _victim(baseline, following, device)


def _headline(evaluation: Evaluation, options: AttackSettings) -> dict[str, Any]:
    """Clean and worst-case accuracy; every other number is in the arrays and in compare.json."""
    arrays = evaluation.arrays
    numbers: dict[str, Any] = {"clean": rate(arrays["correct/clean"]).as_dict()}
    points = options.worst_case.eps.points() if options.worst_case else []
    worst: dict[str, Any] = {}
    for norm, eps in points:
        worst.setdefault(norm, {})[eps_key(eps)] = rate(arrays[f"correct/worst-case/{norm}/{eps_key(eps)}"]).as_dict()
    return {**numbers, "worst-case": worst} if worst else numbers
