"""Attacking an arm: per-sample, per-seed verdicts for every attack, norm and radius."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import isorobust
from isorobust.attacks import settings
from isorobust.attacks.judge import judge, judge_worst_case
from isorobust.attacks.perturb import Problem, perturb, worst_case_parts
from isorobust.common import artifacts
from isorobust.common.params import eps_key
from isorobust.common.runtime import derive_seed
from isorobust.common.splits import Split
from isorobust.errors import UserError
from isorobust.evaluation.units import Store, Unit, runtime
from isorobust.networks.zoo import predict
from isorobust.verdicts import Arrays, points_of, ran_at

# The modules that decide what a unit computes: an edit to one of them makes old units invalid.
UNIT_CODE = (
    "attacks/judge.py",
    "attacks/perturb.py",
    "networks/zoo.py",
    "objectives/isometry.py",
)


class Victim(NamedTuple):
    """One seed's network (pixels to logits) and the hash that names it; `term` as in `Problem`."""

    seed: int
    model: nn.Module
    hash: str
    term: dict[str, Any] | None = None


class Evaluation(NamedTuple):
    """arrays: what `results/<data>/attack/<arm>.npz` holds (docs/results.md); excess: per attack, how far it left the ball."""

    arrays: Arrays
    excess: dict[str, float]


class Bench:
    """The test images on the device, and what all units of one evaluation share.

    classes: how many the networks tell apart; the test images may hold fewer.
    """

    def __init__(self, split: Split, classes: int, options: settings.AttackSettings, device: torch.device | str = "cpu"):
        count = options.images or len(split.labels)
        if count > len(split.labels):
            raise UserError(f"attack.images: found {count}; allowed: at most {len(split.labels)} (the test images)")
        worst = options.worst_case
        if worst is not None and worst.images > count:
            raise UserError(f"attack.worst-case.images: found {worst.images}; allowed: at most {count} (the images under attack)")
        self.options, self.device = options, torch.device(device)
        self.split = split.first(count)
        self.classes = classes
        self.images = torch.from_numpy(self.split.images).to(self.device).float().div_(255)
        self.labels = torch.from_numpy(self.split.labels).to(self.device)
        code = [(Path(isorobust.__file__).parent / name).read_bytes() for name in UNIT_CODE]
        self.context = {"code": artifacts.digest(*code), "runtime": runtime(self.device), "classes": classes}
        self.digests: dict[tuple[int, int], str] = {}

    def batches(self, count: int | None, size: int | None) -> list[slice]:
        """Fixed batches in file order over the first `count` images."""
        count, size = min(count or len(self.labels), len(self.labels)), size or self.options.batch
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def problem(self, victim: Victim, name: str, norm: str, eps: float, batch: slice, surrogate: Victim | None = None) -> Problem:
        return Problem(
            model=victim.model,
            images=self.images[batch],
            labels=self.labels[batch],
            norm=norm,
            eps=eps,
            seed=derive_seed(self.options.seed, victim.seed, name, norm, eps_key(eps), batch.start),
            classes=self.classes,
            term=victim.term,
            surrogate=surrogate and surrogate.model,
        )

    def key(
        self, problem: Problem, batch: slice, victim: Victim, name: str, options: Any, surrogate: Victim | None
    ) -> dict[str, Any]:
        return {
            **self.context,
            "attack": name,
            "options": options.model_dump(exclude={"eps", "images", "seeds", "batch"}),
            "ball": [problem.norm, eps_key(problem.eps)],
            "seed": str(problem.seed),
            "model": victim.hash,
            "surrogate": surrogate and surrogate.hash,
            "images": self.digest(batch),
        }

    def digest(self, batch: slice) -> str:
        """Content of a batch's images and labels, taken once: every radius and seed asks for it."""
        where = batch.start, batch.stop
        if where not in self.digests:
            self.digests[where] = artifacts.digest(self.split.images[batch].tobytes(), self.split.labels[batch].tobytes())
        return self.digests[where]


def evaluate(victims: list[Victim], surrogates: list[Victim | None], bench: Bench, store: Store) -> Evaluation:
    """Run every chosen attack on every seed of an arm, then the derived verdicts `strongest` and `worst-case`.

    `surrogates[i]` is the model on which images for `victims[i]` are made by the attack `transfer`;
    None leaves that attack out (a baseline with a single seed has no other model).
    """
    options = bench.options
    labels = bench.split.labels
    predicted = np.stack([predict(v.model, bench.images).cpu().numpy() for v in victims]).astype(np.int16)
    arrays: Arrays = {
        "labels": labels,
        "seeds": np.array([v.seed for v in victims]),
        "predicted/clean": predicted,
        "correct/clean": predicted == labels,
    }
    excess: dict[str, float] = {}
    for name, attack in options.attacks.chosen().items():
        if name == "transfer" and None in surrogates:
            continue
        seeds = victims[: attack.seeds]
        batches = bench.batches(attack.images, attack.batch)
        points = (attack.eps or options.eps).points()
        units = {
            (norm, eps, row, batch.start): _attack_unit(
                bench, victim, surrogate if name == "transfer" else None, name, attack, norm, eps, batch
            )
            for norm, eps in points
            for row, (victim, surrogate) in enumerate(zip(seeds, surrogates))
            for batch in batches
        }
        results = store.run(units, name)
        for norm, eps in points:
            rows = [[results[norm, eps, row, batch.start] for batch in batches] for row in range(len(seeds))]
            guess = np.stack([np.concatenate([unit["predicted"] for unit in row]) for row in rows])
            still = np.stack([np.concatenate([unit["still"] for unit in row]) for row in rows])
            where = f"{name}/{norm}/{eps_key(eps)}"
            arrays[f"predicted/{where}"] = guess
            arrays[f"correct/{where}"] = guess == labels[: guess.shape[1]]
            arrays[f"unchanged/{where}"] = still
            excess[name] = max([excess.get(name, 0.0), *(float(unit["excess"]) for row in rows for unit in row)])
    _strongest(arrays)
    if options.worst_case is not None:
        excess["worst-case"] = _worst_case(arrays, victims, bench, store)
    arrays |= _examples(victims[0], bench)
    return Evaluation(arrays, excess)


def _attack_unit(bench: Bench, victim, surrogate, name: str, attack, norm: str, eps: float, batch: slice) -> Unit:
    problem = bench.problem(victim, name, norm, eps, batch, surrogate)
    return Unit(bench.key(problem, batch, victim, name, attack, surrogate), lambda: judge(name, problem, attack))


def _strongest(arrays: Arrays) -> None:
    """Per sample right under everything that ran on all seeds and images, clean included; no radius where nothing did."""
    clean = arrays["correct/clean"]
    for norm, eps in points_of(arrays):
        if whole := [flags for flags in ran_at(arrays, norm, eps).values() if flags.shape == clean.shape]:
            arrays[f"correct/strongest/{norm}/{eps}"] = np.logical_and.reduce([clean, *whole])


def _worst_case(arrays: Arrays, victims: list[Victim], bench: Bench, store: Store) -> float:
    """Adds `correct/worst-case/...` and `fallen/worst-case/...`; returns how far a part had left the ball, at most."""
    options = bench.options.worst_case
    parts = worst_case_parts(options, bench.classes)
    arrays["parts/worst-case"] = np.array(list(parts))
    batches = bench.batches(options.images, options.batch)
    count, seeds = batches[-1].stop, victims[: options.seeds]
    by_norm: dict[str, list[float]] = {}
    for norm, eps in options.eps.points():
        by_norm.setdefault(norm, []).append(eps)
    units = {}
    for norm, radii in by_norm.items():
        standing = _standing(arrays, norm, radii, len(seeds), count)
        for row, victim in enumerate(seeds):
            for batch in batches:
                unit = _worst_case_unit(bench, victim, parts, norm, radii, batch, standing[:, row, batch])
                units[norm, row, batch.start] = unit
    results = store.run(units, "worst-case")
    excess = 0.0
    for norm, radii in by_norm.items():
        rows = [[results[norm, row, batch.start] for batch in batches] for row in range(len(seeds))]
        fallen = np.stack([np.concatenate([unit["fallen"] for unit in row], axis=1) for row in rows], axis=1)  # [E, S, n]
        excess = max([excess, *(float(unit["excess"]) for row in rows for unit in row)])
        for eps, at_radius in zip(radii, fallen):
            arrays[f"correct/worst-case/{norm}/{eps_key(eps)}"] = at_radius == 0
            arrays[f"fallen/worst-case/{norm}/{eps_key(eps)}"] = at_radius
    return excess


def _standing(arrays: Arrays, norm: str, radii: list[float], seeds: int, count: int) -> np.ndarray:
    """Right when clean and under all attacks that ran at each of `radii` or at a smaller radius: bool `[E, S, n]`."""
    rows = []
    for largest in radii:
        standing = arrays["correct/clean"][:seeds, :count].copy()
        for eps in [eps for kind, eps in points_of(arrays) if kind == norm and float(eps) <= float(eps_key(largest))]:
            for flags in ran_at(arrays, norm, eps).values():
                height, width = (min(a, b) for a, b in zip(flags.shape, standing.shape))
                standing[:height, :width] &= flags[:height, :width]
        rows.append(standing)
    return np.stack(rows)


def _worst_case_unit(
    bench: Bench, victim: Victim, parts, norm: str, radii: list[float], batch: slice, standing: np.ndarray
) -> Unit:
    problems = [bench.problem(victim, "worst-case", norm, eps, batch) for eps in radii]
    key = bench.key(problems[0], batch, victim, "worst-case", bench.options.worst_case, None)
    key["options"] = {name: part.model_dump(exclude={"eps", "images", "seeds", "batch"}) for name, part in parts.items()}
    key["radii"] = [[eps_key(problem.eps), str(problem.seed)] for problem in problems]
    key["standing"] = artifacts.digest(np.packbits(standing).tobytes())
    return Unit(key, lambda: judge_worst_case(problems, parts, standing))


def _examples(victim: Victim, bench: Bench) -> Arrays:
    """The first test images and their PGD images at the radius of interest, for the figures: uint8 `[n, C, H, W]`."""
    options = bench.options
    count = min(options.examples, len(bench.labels))
    attack = options.attacks.pgd
    if not count or attack is None:
        return {}
    norm, eps = radius_of_interest(options)
    problem = bench.problem(victim, "examples", norm, eps, slice(0, count))
    adversarial = perturb("pgd", problem, attack).images
    return {
        "examples/clean": bench.split.images[:count],
        "examples/adversarial": (adversarial * 255).round().cpu().numpy().astype(np.uint8),
        "examples/predicted": predict(victim.model, adversarial).cpu().numpy().astype(np.int16),
        "examples/ball": np.array([norm, eps_key(eps)]),
    }


def radius_of_interest(options: settings.AttackSettings) -> tuple[str, float]:
    """The largest radius of the worst case's first norm, or the middle of the grid."""
    points = (options.worst_case.eps if options.worst_case else options.eps).points()
    first = [point for point in points if point[0] == points[0][0]]
    return first[-1] if options.worst_case else first[len(first) // 2]
