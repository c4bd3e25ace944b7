"""Training the hierarchies of a recipe: networks of all seeds in one file, and their numbers on val."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from isorobust.common.splits import Split
from isorobust.common.statistics import interval_over_seeds, rate
from isorobust.errors import UserError
from isorobust.hierarchy.network import HierarchicalNetwork, build, hierarchical_loss
from isorobust.hierarchy.settings import HierarchySettings
from isorobust.hierarchy.tree import parse_tree
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.initial import initial
from isorobust.objectives.settings import Arm, CrossEntropy
from isorobust.training.arm import TrainedArm
from isorobust.training.fit import EVALUATION_BATCH, Images, Trained, fit
from isorobust.training.settings import TrainingSettings


def train_hierarchies(
    train: Split,
    val: Split,
    options: HierarchySettings,
    training: TrainingSettings,
    seeds: list[int],
    device: torch.device,
    where: str,
    data: str,
) -> TrainedArm:
    """Build and fit one network per hierarchy and seed; tensors are named `<hierarchy>/<name>`, curves `<hierarchy>/<quantity>`.

    `where` names the block in messages. Errors: UserError for a tree of other classes than the data's.
    """
    shape, classes = list(train.images.shape[1:]), int(train.labels.max()) + 1
    trees = {name: parse_tree(levels) for name, levels in options.trees.items()}
    for name, tree in trees.items():
        if tree.shape[1] != classes:
            raise UserError(
                f"{where}.trees.{name}: found {tree.shape[1]} classes; allowed: {classes}, 0 to {classes - 1} (those of the data)"
            )
    arm, training = (
        Arm(CrossEntropy(objective="cross-entropy"), options.isometry),
        training.model_copy(update={"epochs": options.epochs}),
    )
    tensors: dict[str, torch.Tensor] = {}
    metrics: dict[str, Any] = {}
    curves: dict[str, np.ndarray] = {}
    for name, tree in trees.items():
        networks = initial(lambda number, tree=tree: build(options.network, tree, int(np.prod(shape)), number), seeds)
        trained = fit(networks, seeds, train, val, arm, training, device, hierarchical_loss)
        tensors |= {f"{name}/{key}": tensor for key, tensor in trained.state.items()}
        curves |= {f"{name}/{key}": values.mean(axis=1) for key, values in trained.history.items()}
        metrics[name] = _metrics(networks, trained, tree, val)
    spec = {
        "data": data,
        "trees": options.trees,
        "network": options.network.model_dump(),
        "isometric": options.isometry.model_dump(),
        "shape": shape,
        "classes": classes,
        "seeds": seeds,
    }
    rows = [[epoch, *map(float, row)] for epoch, row in enumerate(np.column_stack(list(curves.values())), start=1)]
    metrics |= {"seeds": len(seeds), "epochs": options.epochs}
    return TrainedArm(Checkpoint(spec, tensors), metrics, ["epoch", *curves], rows)


@torch.no_grad()
def level_predictions(network: HierarchicalNetwork, split: Split) -> np.ndarray:
    """The groups predicted on every level, int64 `[L, N]`."""
    data = Images(split, torch.device("cpu"), next(network.parameters()).dtype)
    parts = torch.arange(len(split.labels)).split(EVALUATION_BATCH)
    return np.concatenate([np.stack([a.logits.argmax(1) for a in network.levels(data.take(part)[0])]) for part in parts], axis=1)


def _metrics(networks: list[HierarchicalNetwork], trained: Trained, tree: np.ndarray, val: Split) -> dict[str, Any]:
    predicted = np.stack([level_predictions(network, val) for network in trained.load_into(networks)])  # [S, L, N]
    levels: dict[str, Any] = {}
    for number, row in enumerate(tree, start=1):
        last = {part: trained.history[f"train_{part}_{number}"][-1] for part in ("cross_entropy", "isometric")}
        levels[f"level-{number}"] = {
            "groups": int(row.max()) + 1,
            "val_accuracy": rate(predicted[:, number - 1] == row[val.labels]).as_dict(),
            **{f"train_{part}": interval_over_seeds(values) for part, values in last.items()},
        }
    return levels
