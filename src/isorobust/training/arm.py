"""Training one arm: networks of all seeds, their file, their numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from isorobust.common import artifacts
from isorobust.common.splits import Split
from isorobust.common.statistics import interval_over_seeds, rate
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.initial import initial
from isorobust.networks.settings import NetworkSettings
from isorobust.networks.zoo import build
from isorobust.objectives.settings import Arm
from isorobust.training.fit import fit
from isorobust.training.settings import TrainingSettings


class TrainedArm(NamedTuple):
    """checkpoint: the model file; metrics: the small JSON; header and rows: the curves, mean over seeds first."""

    checkpoint: Checkpoint
    metrics: dict[str, Any]
    header: list[str]
    rows: list[list[float]]

    def write(self, model: Path, metrics: Path, curves: Path) -> None:
        """Errors: UserError before anything is written where a number is NaN or infinite."""
        artifacts.write_json(metrics, self.metrics)
        self.checkpoint.save(model)
        artifacts.write_csv(curves, self.header, self.rows)


def train_arm(
    train: Split,
    val: Split,
    network: NetworkSettings,
    arm: Arm,
    training: TrainingSettings,
    seeds: list[int],
    device: torch.device,
    labels: dict[str, str],
) -> TrainedArm:
    """Build and fit one network per seed. `labels` (arm, data) go into the checkpoint's spec."""
    shape, classes = train.images.shape[1:], int(train.labels.max()) + 1
    networks = initial(lambda number: build(network, shape, classes, number), seeds)
    trained = fit(networks, seeds, train, val, arm, training, device)
    spec = {
        **labels,
        "network": network.model_dump(),
        "shape": list(shape),
        "classes": classes,
        "seeds": seeds,
        "objective": arm.objective.model_dump(),
        "isometric": arm.term(),
    }
    metrics: dict[str, Any] = {"val_accuracy": rate(trained.val_correct).as_dict()}
    for name in trained.history:
        if name != "val_accuracy":
            metrics[name] = interval_over_seeds(trained.history[name][-1])
    metrics |= {"seeds": len(seeds), "epochs": training.epochs}
    header, rows = curve_table(trained.history, seeds)
    return TrainedArm(Checkpoint(spec, trained.state), metrics, header, rows)


def curve_table(history: dict[str, np.ndarray], seeds: list[int]) -> tuple[list[str], list[list[float]]]:
    """(header, rows) of a history name -> `[epochs, S]`: every quantity's mean over seeds, then each seed's val accuracy."""
    header = ["epoch", *history, *(f"val_accuracy_seed_{seed}" for seed in seeds)]
    means = [values.mean(axis=1) for values in history.values()]
    table = np.column_stack([*means, history["val_accuracy"]])
    return header, [[epoch, *map(float, row)] for epoch, row in enumerate(table, start=1)]
