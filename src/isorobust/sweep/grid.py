"""Training every cell of a tuned arm's grid and choosing among them on val."""

from __future__ import annotations

from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch

from isorobust.common.runtime import generator
from isorobust.common.splits import Split
from isorobust.common.statistics import rate
from isorobust.errors import found
from isorobust.networks.initial import initial
from isorobust.networks.settings import NetworkSettings
from isorobust.networks.stack import Stack
from isorobust.networks.zoo import build
from isorobust.objectives.losses import Batch, pgd_images
from isorobust.objectives.settings import Adversarial, Arm, Objective, Tuned, cells, in_common, with_choice
from isorobust.sweep.settings import SweepSettings
from isorobust.training.fit import fit
from isorobust.training.settings import TrainingSettings

ATTACK_BATCH = 500


class Cell(NamedTuple):
    """choice: the numbers (`objective`, `isometry`); clean bool `[S, N]` and robust bool `[S, n]` on val."""

    choice: dict[str, Any]
    clean: np.ndarray
    robust: np.ndarray


class Swept(NamedTuple):
    cells: list[Cell]
    chosen: int
    met: bool  # whether any cell reached min_clean

    def metrics(self) -> dict[str, Any]:
        """The choice with its rates on val; they are biased upwards by the choice and no result."""
        cell = self.cells[self.chosen]
        return {
            "chosen": cell.choice,
            "val_clean": rate(cell.clean).as_dict(),
            "val_pgd": rate(cell.robust).as_dict(),
            "min_clean_met": self.met,
            "cells": len(self.cells),
        }

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """(header, rows): every cell's numbers, mean clean and PGD accuracy on val, 1 where chosen."""
        names = [(part, name) for part in ("objective", "isometry") for name in self.cells[0].choice[part]]
        rows = [
            [*(cell.choice[part][name] for part, name in names), *map(float, _means(cell)), int(i == self.chosen)]
            for i, cell in enumerate(self.cells)
        ]
        return [*(name for _, name in names), "val_clean", "val_pgd", "chosen"], rows


def sweep(
    train: Split,
    val: Split,
    network: NetworkSettings,
    base: Objective,
    block: Tuned,
    training: TrainingSettings,
    options: SweepSettings,
    device: torch.device,
    where: str,
) -> Swept:
    """Train all cells on the sweep's seeds and choose: of those whose mean clean accuracy on val reaches
    `min_clean` the one with the highest PGD accuracy there; if none does, the one with the highest clean accuracy.

    Cells that differ in weights only are trained in one stack where seeds are (MLPs). Every cell has
    the same initial weights and data orders. `where` names the arm in messages.
    """
    if options.images > len(val.labels):
        raise found(f"{where}: sweep.images", options.images, f"at most {len(val.labels)} (the val images)")
    choices = cells(block)
    arms = [with_choice(base, choice, where) for choice in choices]
    judged: dict[int, Cell] = {}
    order = sorted(range(len(arms)), key=lambda i: _shape(arms[i]))
    for _, group in groupby(order, key=lambda i: _shape(arms[i])):
        members = list(group)
        for i, (clean, robust) in zip(
            members, _train([arms[i] for i in members], train, val, network, training, options, device)
        ):
            judged[i] = Cell(choices[i], clean, robust)
    result = [judged[i] for i in range(len(choices))]
    chosen, met = choose(result, options.min_clean)
    return Swept(result, chosen, met)


def choose(result: list[Cell], min_clean: float) -> tuple[int, bool]:
    """(index of the choice, whether any cell reached `min_clean`); ties go to the first."""
    means = [_means(cell) for cell in result]
    allowed = [i for i, (clean, _) in enumerate(means) if clean >= min_clean]
    if allowed:
        return max(allowed, key=lambda i: means[i][1]), True
    return max(range(len(means)), key=lambda i: means[i][0]), False


def _means(cell: Cell) -> tuple[float, float]:
    return float(cell.clean.mean()), float(cell.robust.mean())


def _shape(arm: Arm) -> str:
    """Equal for arms that can share a stack."""
    return str({**in_common(arm.objective), **in_common(arm.isometry)})


def _train(arms: list[Arm], train, val, network, training, options: SweepSettings, device) -> list[tuple[np.ndarray, np.ndarray]]:
    shape, classes = train.images.shape[1:], int(train.labels.max()) + 1
    seeds = [seed for _ in arms for seed in options.seeds]
    networks = initial(lambda number: build(network, shape, classes, number), seeds)
    each = [arm for arm in arms for _ in options.seeds]
    trained = fit(networks, seeds, train, val, each, training, device)
    networks = trained.load_into(networks)
    count = len(options.seeds)
    results = []
    for start in range(0, len(networks), count):
        robust = _robust(networks[start : start + count], val.first(options.images), options, device)
        results.append((trained.val_correct[start : start + count], robust))
    return results


def _robust(networks, val: Split, options: SweepSettings, device) -> np.ndarray:
    """Right on the clean image and under PGD, bool `[S, n]`."""
    stack = Stack(networks).to(device).eval()
    attack = Adversarial(objective="adversarial", norm=options.norm, eps=options.eps, steps=options.steps)
    images = torch.from_numpy(val.images).to(device).float().div_(255)
    labels = torch.from_numpy(val.labels).to(device)
    flags = []
    for part in torch.arange(len(labels)).split(ATTACK_BATCH):
        streams = [generator(seed, "sweep", int(part[0])) for seed in options.seeds]
        batch = Batch(images[part].expand(stack.size, -1, -1, -1, -1), labels[part].expand(stack.size, -1), streams)
        attacked = pgd_images(stack, batch, attack)
        with torch.no_grad():
            right = [stack(x).argmax(2) == batch.labels for x in (batch.images, attacked)]
        flags.append((right[0] & right[1]).cpu().numpy())
    return np.concatenate(flags, axis=1)
