"""What a reclassifier's predictions owe to the batch, and how sensitive its two heads are."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isorobust.attacks.perturb import perturb
from isorobust.attacks.settings import PGD
from isorobust.common.params import eps_key
from isorobust.common.runtime import derive_seed
from isorobust.common.statistics import rate
from isorobust.common.workers import spread
from isorobust.errors import UserError
from isorobust.reclassifier.batches import Setup, by_batch

BATCH_PGD = PGD(steps=20)  # makes the images for the table by batch size
ATTACKED_AT_ONCE = 1000  # images; bounds memory where logits do not depend on the batch


def batch_dependence(models, seeds, setup: Setup) -> dict[str, Any]:
    """Accuracy by batch size and class mix, predictions that flip under reshuffling, and the frozen mode.

    Clean, and under PGD images made once against the FC head and once against the dataset-level
    prototypes (right under both), which do not depend on a batch.
    """
    options = setup.options
    norm, eps = options.eps.points()[-1]
    labels, parts = setup.labels.cpu().numpy(), _filled(len(setup.labels), ATTACKED_AT_ONCE)
    sorted_order = np.argsort(labels, kind="stable")
    rank = np.empty_like(sorted_order)  # place of an image within its class
    rank[sorted_order] = np.concatenate([np.arange(count) for count in np.bincount(labels)])
    orders = {f"size/{size}": (np.arange(len(labels)), _filled(len(labels), size)) for size in options.batch_sizes}
    orders["mix/one-class"] = sorted_order, _filled_by_class(np.bincount(labels), options.batch)
    orders["mix/balanced"] = np.lexsort((labels, rank)), _filled(len(labels), options.batch)

    def of_seed(row: int) -> dict[str, np.ndarray]:
        model, seed, sets = models[row], seeds[row], [setup.images]
        for mode in ("fc", "ema"):
            surrogate = copy.deepcopy(model)
            surrogate.mode = mode
            problems = [setup.problem(surrogate, part, norm, eps, "batch", seed, mode) for part in parts]
            sets.append(torch.cat([perturb("pgd", problem, BATCH_PGD).images for problem in problems]))
        frozen = copy.deepcopy(model)
        frozen.mode = "ema"
        ways = {name: (model, *way) for name, way in orders.items()}
        ways["frozen"] = frozen, np.arange(len(labels)), setup.batches()
        flags = {"flips": _flips(model, setup, seed)}
        for name, (judge, order, batches) in ways.items():
            right = [_right_in(judge, images, labels, order, batches) for images in sets]
            flags |= {f"{name}/clean": right[0], f"{name}/pgd": np.logical_and.reduce(right)}
        return flags

    found = list(spread(of_seed, range(len(models)), setup.images.device))
    tree: dict[str, Any] = {"ball": [norm, eps_key(eps)]}
    for path in found[0]:
        *keys, last = path.split("/")
        node = tree
        for key in keys:
            node = node.setdefault(key, {})
        node[last] = rate(np.stack([flags[path] for flags in found])).as_dict()
    return tree


def _filled(count: int, size: int, start: int = 0) -> list[slice]:
    """Batches of `size`, the last of which may be smaller, over `count` places from `start`."""
    return [slice(first, min(first + size, start + count)) for first in range(start, start + count, size)]


def _filled_by_class(counts: np.ndarray, size: int) -> list[slice]:
    """Batches over images sorted by class, none with images of two classes."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    return [part for start, count in zip(starts.tolist(), counts.tolist()) for part in _filled(count, size, start)]


def _right_in(model: nn.Module, images: Tensor, labels: np.ndarray, order: np.ndarray, batches: list[slice]) -> np.ndarray:
    """Correctness `[n]` when the images fill these batches in this order."""
    index = torch.from_numpy(order).to(images.device)
    right = np.empty(len(order), dtype=bool)
    right[order] = by_batch(model, images[index], batches) == labels[order]
    return right


def _flips(model: nn.Module, setup: Setup, seed: int) -> np.ndarray:
    """Whether a clean image's prediction differs between any two of `shuffles` random orders, `[n]`."""
    seen = []
    for number in range(setup.options.shuffles):
        generator = torch.Generator().manual_seed(derive_seed(seed, "shuffle", number))
        order = torch.randperm(len(setup.labels), generator=generator).to(setup.images.device)
        guess = np.empty(len(order), dtype=np.int16)
        guess[order.cpu().numpy()] = by_batch(model, setup.images[order], setup.batches())
        seen.append(guess)
    return (np.stack(seen) != seen[0]).any(axis=0)


@torch.no_grad()
def sensitivity(models, setup: Setup) -> dict[str, dict[str, np.ndarray]]:
    """How much centred logits change per unit of feature perturbation: head (`fc`, `l2` frozen) -> measure -> `[S]`.

    Both heads' differences between logits are linear in the features: with rows W_k, and with rows
    2 t P_k. `worst` is the largest singular value of the centred rows, `random` the root mean square
    over directions; `per-margin` is `worst` over the mean margin of clean images that are right, which
    does not change when all logits are multiplied by a number.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for model in models:
        parts = [model.both(part) for part in setup.images.split(ATTACKED_AT_ONCE)]
        features, logits = (torch.cat(side) for side in zip(*parts))
        frozen = copy.deepcopy(model)
        frozen.mode = "ema"
        heads = {
            "fc": (model.head.weight, logits),
            "l2": (2 * model.log_temperature.exp() * model.prototypes, frozen.classify(features, logits)),
        }
        for name, (rows, out) in heads.items():
            values = torch.linalg.svdvals((rows - rows.mean(0)).double())
            right = out.argmax(1) == setup.labels
            if not right.any():
                raise UserError(
                    f"reclassifier-attack.images: found none of {len(right)} that the {name} head gets right; allowed: more"
                )
            top = out.topk(2, dim=1).values
            margin = float((top[:, 0] - top[:, 1])[right].double().mean())
            worst = float(values[0])
            measured = {
                "worst": worst,
                "random": float((values.square().sum() / rows.shape[1]).sqrt()),
                "margin": margin,
                "per-margin": worst / margin,
            }
            for key, value in measured.items():
                found.setdefault(name, {}).setdefault(key, []).append(value)
    return {head: {key: np.array(values) for key, values in numbers.items()} for head, numbers in found.items()}
