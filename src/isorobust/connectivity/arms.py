"""The networks of an arm, trained or as they were before training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from isorobust.common.params import check
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.initial import initial
from isorobust.networks.settings import NetworkSettings
from isorobust.networks.zoo import build, predict


def networks(checkpoint: Checkpoint, seeds: int | None, trained: bool) -> list[tuple[int, nn.Module]]:
    """(seed, model) of the first `seeds` seeds of an arm; if not `trained`, each with its first weights."""
    chosen = checkpoint.seeds[:seeds]
    if trained:
        return [(seed, checkpoint.network(seed)) for seed in chosen]
    options = check(NetworkSettings, checkpoint.spec["network"], f"{checkpoint.path}: network")
    shape, classes = tuple(checkpoint.spec["shape"]), checkpoint.spec["classes"]
    first = initial(lambda number: build(options, shape, classes, number).eval(), chosen)
    return list(zip(chosen, first))


@torch.no_grad()
def recognised(model: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    """Positions of the images that the model gets right."""
    return (predict(model, images) == labels).nonzero().flatten().cpu().numpy()
