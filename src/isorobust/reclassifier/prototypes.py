"""Hybrid Prototype Mixing (arXiv 2606.01746): functions of features `[..., N, D]` and FC logits `[..., N, K]`.

Leading dimensions are separate batches (or networks); a batch is classified as a whole.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Assignment = Literal["hard", "soft", "ste"]


class BatchPrototypes(NamedTuple):
    """means `[..., K, D]`, 0 for classes that are not `present` `[..., K]`."""

    means: Tensor
    present: Tensor


def assignments(logits: Tensor, kind: Assignment) -> Tensor:
    """Weights `[..., N, K]` of the samples in the classes' means, from FC logits `[..., N, K]`.

    hard: one-hot of the predicted class. soft: softmax. ste: hard with the gradient of soft
    (straight-through estimator). Errors: ValueError for another kind.
    """
    if kind not in ("hard", "soft", "ste"):
        raise ValueError(f"assignment must be 'hard', 'soft' or 'ste', found {kind!r}")
    soft = logits.softmax(-1)
    if kind == "soft":
        return soft
    hard = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(soft)
    return hard if kind == "hard" else hard + (soft - soft.detach())


def class_means(features: Tensor, weights: Tensor) -> Tensor:
    """Weighted means `[..., K, D]` of features under weights `[..., N, K]`; 0 for a class without weight."""
    mass = weights.sum(-2).unsqueeze(-1)  # [..., K, 1]
    sums = weights.transpose(-1, -2) @ features
    return torch.where(mass > 0, sums / torch.where(mass > 0, mass, 1), 0)


def batch_prototypes(features: Tensor, logits: Tensor, kind: Assignment) -> BatchPrototypes:
    """Class means of a batch under the FC head's own predictions; present are the classes that it predicts for some sample."""
    predicted = F.one_hot(logits.argmax(-1), logits.shape[-1])
    return BatchPrototypes(class_means(features, assignments(logits, kind)), predicted.sum(-2) > 0)


def mixed(dataset: Tensor, batch: BatchPrototypes, mix: float | Tensor) -> Tensor:
    """`mix` * dataset prototypes `[..., K, D]` + (1 - mix) * the batch's where a class is present; the dataset's otherwise."""
    together = mix * dataset + (1 - mix) * batch.means
    return torch.where(batch.present.unsqueeze(-1), together, dataset)


def l2_logits(features: Tensor, prototypes: Tensor, temperature: float | Tensor) -> Tensor:
    """`-temperature * |f - P_k|^2` `[..., N, K]`, by one product.

    The product formula loses digits of the distance itself, but what is lost is of the size of
    |f|^2 * 1e-7, far below the differences between classes that decide.
    """
    squared = (
        features.square().sum(-1, keepdim=True)
        - 2 * features @ prototypes.transpose(-1, -2)
        + prototypes.square().sum(-1).unsqueeze(-2)
    )
    return -temperature * squared


def moved(dataset: Tensor, features: Tensor, labels: Tensor, momentum: float | Tensor) -> Tensor:
    """Moving average one batch later: momentum * P + (1 - momentum) * class mean, for classes that occur in labels `[..., N]`."""
    weights = F.one_hot(labels, dataset.shape[-2]).to(features)
    means = class_means(features, weights)
    return torch.where((weights.sum(-2) > 0).unsqueeze(-1), momentum * dataset + (1 - momentum) * means, dataset)
