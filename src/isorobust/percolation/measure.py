"""How much of input space is connected, by its dimension: the recipe's network on images scaled down, trained and not.

Source of the conjecture: Vrabel, Shem-Ur, Oz, Krueger, arXiv 2409.05800, section on percolation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from isorobust.common.splits import Split, check_alike
from isorobust.common.statistics import difference_of_own, rate
from isorobust.connectivity.measure import measure
from isorobust.connectivity.settings import JUDGED, ConnectivitySettings
from isorobust.errors import found
from isorobust.networks.initial import initial
from isorobust.networks.settings import NetworkSettings
from isorobust.networks.zoo import build, predict
from isorobust.objectives.settings import Arm, CrossEntropy
from isorobust.percolation.settings import PercolationSettings
from isorobust.training.fit import fit
from isorobust.training.settings import TrainingSettings

SCALED_AT_ONCE = 1000
PAIRS = {"block": "percolation", "pairs_alone": True}  # how `measure` is asked: from which block, and for what


def resized(split: Split, size: int) -> Split:
    """Images `[N, C, size, size]`: each new pixel the mean of those it covers."""
    if split.images.shape[2:] == (size, size):
        return split
    parts = torch.from_numpy(split.images).split(SCALED_AT_ONCE)
    return Split(
        torch.cat([F.adaptive_avg_pool2d(part.float(), size).round().to(torch.uint8) for part in parts]).numpy(), split.labels
    )


def percolation(
    train: Split,
    val: Split,
    test: Split,
    network: NetworkSettings,
    training: TrainingSettings,
    seeds: list[int],
    options: PercolationSettings,
    paths: ConnectivitySettings,
    device: torch.device,
) -> dict[str, Any]:
    """Numbers by size and of random networks; docs/results.md lists them.

    Errors: UserError for sizes above the data's own, and for images that are not square.
    """
    height, width = train.images.shape[2:]
    if height != width:
        raise found("percolation", f"images of {height} x {width}", "square ones, or skip")
    for split, what in ((val, "val"), (test, "test")):
        check_alike(split, train, what)
    for size in options.sizes:
        if size > height:
            raise found("percolation.sizes", size, f"at most {height} (the images' size)")
    paths = paths.model_copy(update={"pairs": options.pairs, "seeds": None})
    seeds = seeds[: options.seeds]
    numbers: dict[str, Any] = {"seeds": len(seeds), "pairs": options.pairs, "sizes": {}}
    flags: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    for size in sorted(options.sizes):
        small = [resized(split, size) for split in (train, val, test)]
        here: dict[str, Any] = {"dimension": int(np.prod(small[0].images.shape[1:]))}
        first = _networks(network, small[0], seeds)
        fitted = fit(first, seeds, *small[:2], Arm(CrossEntropy(objective="cross-entropy")), training, device).load_into(first)
        here["accuracy"] = _accuracy(fitted, small[2], device)
        for state, models in (("trained", fitted), ("untrained", _networks(network, small[0], seeds))):
            told, arrays = measure(list(zip(seeds, models)), small[2], paths, device, state == "trained", **PAIRS)
            here[state] = told["kinds"]
            heights, gaps, ends, apart = (arrays[f"{name}/{JUDGED[state]}"] for name in ("heights", "gaps", "ends", "apart"))
            distinct = apart >= paths.distinct  # [S, P]; heights and gaps are [S, R + 1, P]
            everyone, joined = np.ones(ends.shape, bool), distinct & (ends <= paths.threshold)
            judged = {"low": (heights, everyone), "level": (gaps, distinct), "joined": (heights, joined)}
            for criterion, (values, counted) in judged.items():
                flags.setdefault((state, criterion), []).append((values <= paths.threshold, counted))
        numbers["sizes"][str(size)] = here
    numbers["rise"] = {}  # without what no pair speaks of
    for (state, criterion), each in flags.items():
        (small, of_small), (large, of_large) = each[0], each[-1]
        rounds = {
            str(done): change.as_dict()
            for done in range(large.shape[1])
            if (change := difference_of_own(large[:, done], of_large, small[:, done], of_small)) is not None
        }
        numbers["rise"].setdefault(state, {})[criterion] = rounds
    numbers["random"] = {} if options.random is None else _random(test, options, paths, device)
    return numbers


def _networks(network: NetworkSettings, split: Split, seeds: list[int]) -> list[nn.Module]:
    shape, classes = split.images.shape[1:], int(split.labels.max()) + 1
    return initial(lambda number: build(network, shape, classes, number).eval(), seeds)


def _accuracy(models: list[nn.Module], test: Split, device: torch.device) -> dict[str, float]:
    images = torch.from_numpy(test.images).to(device).float().div_(255)
    right = [predict(model.to(device), images).cpu().numpy() == test.labels for model in models]
    return rate(np.stack(right)).as_dict()


def _random(test: Split, options: PercolationSettings, paths: ConnectivitySettings, device: torch.device) -> dict[str, Any]:
    paths = paths.model_copy(update={"pairs": options.random.pairs})
    seeds = list(range(options.random.seeds))
    told = {}
    for network in options.random.networks:
        models = list(zip(seeds, _networks(network, test, seeds)))
        told[network.name] = measure(models, test, paths, device, False, **PAIRS)[0]["kinds"]
    return told
