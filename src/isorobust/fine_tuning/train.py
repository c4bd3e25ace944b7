"""Fine-tuning the plug-in around a trained arm, beside the same network without it."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from isorobust.common.params import Settings, check
from isorobust.common.splits import Split
from isorobust.common.statistics import interval_over_seeds, rate
from isorobust.common.workers import one_thread
from isorobust.fine_tuning.settings import ReclassifierSettings
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.stack import Stack
from isorobust.networks.zoo import Network
from isorobust.objectives.losses import Batch, Loss, stacked_cross_entropy, training_loss
from isorobust.objectives.settings import PER_NETWORK, Arm, Isometry, Objective
from isorobust.reclassifier.checkpoint import CONTROL, EXTRA, PLUG_IN, plug_in
from isorobust.reclassifier.prototypes import BatchPrototypes, batch_prototypes, l2_logits, mixed, moved
from isorobust.training.arm import TrainedArm, curve_table
from isorobust.training.fit import Images, Trained, fit
from isorobust.training.settings import TrainingSettings

PerNetwork = Annotated[float, PER_NETWORK]


class Numbers(Settings):
    """What may differ between networks of one stack; `learned`, `soft` and `l2` are 0 or 1."""

    mix: PerNetwork
    momentum: PerNetwork
    temperature: PerNetwork
    learned: PerNetwork
    soft: PerNetwork = 0.0  # 1: fine-tuned with soft assignments, not hard ones with the gradient of soft ones
    l2: PerNetwork = 1.0

    @classmethod
    def of(cls, options: ReclassifierSettings) -> Numbers:
        shared = options.model_dump(include={"mix", "momentum", "temperature"})
        return cls(**shared, learned=float(options.learn_temperature))


def train_reclassifier(
    base: Checkpoint,
    train: Split,
    val: Split,
    options: ReclassifierSettings,
    training: TrainingSettings,
    device: torch.device,
    labels: dict[str, str],
) -> TrainedArm:
    """Every seed's network is fine-tuned twice on the same batches: with cross-entropy on the l2 logits
    added to the objective of the base (adversarial inputs and isometric term included), and with that
    objective alone, the control. `labels` (arm, data) go into the checkpoint's spec.
    """
    own = Numbers.of(options)
    cells = [own, own.model_copy(update={"l2": 0.0})]
    tuned = fine_tune(base, base.seeds, cells, train, val, options, training, device)
    count = len(base.seeds)
    halves = {PLUG_IN: slice(0, count), CONTROL: slice(count, 2 * count)}
    tensors = {f"{PLUG_IN}/{name}": t[halves[PLUG_IN]].clone() for name, t in tuned.state.items()}
    tensors |= {f"{CONTROL}/{name}": t[halves[CONTROL]].clone() for name, t in tuned.state.items() if name not in EXTRA}
    spec = {**base.spec, **labels, "base": base.spec["arm"], "reclassifier": options.model_dump(include={"mix", "momentum"})}
    checkpoint = Checkpoint(spec, tensors)
    history = {name: values[:, halves[PLUG_IN]] for name, values in tuned.history.items()}
    metrics: dict[str, Any] = {
        "val_accuracy": rate(_right(checkpoint, val, training.batch_size)).as_dict(),
        "val_accuracy_fc": rate(tuned.val_correct[halves[PLUG_IN]]).as_dict(),
        "val_accuracy_control": rate(tuned.val_correct[halves[CONTROL]]).as_dict(),
        "temperature": interval_over_seeds(tensors[f"{PLUG_IN}/log_temperature"].exp().numpy()),
        "seeds": count,
        "epochs": options.epochs,
    }
    header, rows = curve_table(history, base.seeds)
    return TrainedArm(checkpoint, metrics, header, rows)


def fine_tune(
    base: Checkpoint,
    seeds: list[int],
    cells: list[Numbers],
    train: Split,
    val: Split,
    options: ReclassifierSettings,
    training: TrainingSettings,
    device: torch.device,
) -> Trained:
    """Networks of all cells and seeds, cell by cell, fine-tuned together where the base's were trained together."""
    networks, each, order = [], [], []
    objective = check(Objective, base.said("objective"), f"{base.path}: objective")
    isometry = base.said("isometric")
    term = None if isometry is None else check(Isometry, isometry, f"{base.path}: isometric")
    with one_thread():
        starts = {seed: _class_means(base.network(seed), train) for seed in seeds}
    for cell in cells:
        for seed in seeds:
            network = base.network(seed)
            network.register_parameter("log_temperature", nn.Parameter(torch.tensor(cell.temperature).log()))
            network.register_buffer("prototypes", starts[seed].clone())
            networks.append(network)
            each.append(Arm(cell))
            order.append(seed)

    def loss(stack: Stack, batch: Batch, arm: Arm) -> Loss:
        return _loss(stack, batch, Arm(objective, term), arm.objective)

    rounds = training.model_copy(update={"epochs": options.epochs, "learning_rate": options.learning_rate})
    return fit(networks, order, train, val, each, rounds, device, loss)


def _loss(stack: Stack, batch: Batch, base: Arm, numbers: Numbers) -> Loss:
    """The base's loss plus cross-entropy on the l2 logits; moves the dataset-level prototypes of the stack."""
    loss = training_loss(stack, batch, base)
    features, logits = loss.activations.hidden[-1], loss.activations.logits
    dataset = stack.buffers["prototypes"]
    prototypes = mixed(dataset, _assigned(features, logits, numbers.soft), _column(numbers.mix))
    ce = stacked_cross_entropy(l2_logits(features, prototypes, _column(_temperature(stack, numbers))), batch.labels)
    stack.buffers["prototypes"] = moved(dataset, features.detach(), batch.labels, _column(numbers.momentum))
    return loss._replace(total=loss.total + numbers.l2 * ce, parts={**loss.parts, "l2_cross_entropy": ce})


def _assigned(features: Tensor, logits: Tensor, soft: float | Tensor) -> BatchPrototypes:
    found = batch_prototypes(features, logits, "ste")
    if not isinstance(soft, Tensor) and soft == 0:
        return found
    share = _column(soft)
    return found._replace(means=share * batch_prototypes(features, logits, "soft").means + (1 - share) * found.means)


def _temperature(stack: Stack, numbers: Numbers) -> Tensor:
    log = stack.weights["log_temperature"]
    return (numbers.learned * log + (1 - numbers.learned) * log.detach()).exp()


def _column(number: float | Tensor) -> float | Tensor:
    """`[S]` to `[S, 1, 1]`, so that it meets `[S, N, K]`."""
    return number.view(-1, 1, 1) if isinstance(number, Tensor) else number


@torch.no_grad()
def _class_means(network: Network, split: Split) -> Tensor:
    """Class means `[K, D]` of a split's features, accumulated in float64."""
    data = Images(split, next(network.parameters()).device, torch.float32)
    sums, counts = 0, 0
    classes = network.head.out_features
    for index in torch.arange(len(split.labels)).split(1000):
        images, labels = data.take(index)
        weights = nn.functional.one_hot(labels, classes).double()
        counts = counts + weights.sum(0)
        sums = sums + weights.T @ network.features(images).double()
    return (sums / counts.clamp(min=1).unsqueeze(1)).float()


@torch.no_grad()
def _right(checkpoint: Checkpoint, split: Split, batch: int) -> np.ndarray:
    """Correctness `[S, N]` of the plug-in in batches in file order."""
    data = Images(split, torch.device("cpu"), torch.float32)
    rows = []
    for seed in checkpoint.seeds:
        model = plug_in(checkpoint, seed)
        parts = [data.take(index) for index in torch.arange(len(split.labels)).split(batch)]
        rows.append(torch.cat([model(images).argmax(1) == labels for images, labels in parts]))
    return torch.stack(rows).numpy()
