"""Objectives: plain functions (model, batch, settings) -> Loss. A new objective is one function here."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from isorobust.networks.stack import Stack
from isorobust.objectives import settings
from isorobust.objectives.isometry import stacked_isometric_loss


class Batch(NamedTuple):
    """One batch per seed: pixels `[S, N, C, H, W]` in [0, 1], labels `[S, N]`, one random stream per seed."""

    images: Tensor
    labels: Tensor
    generators: list[torch.Generator]


class Loss(NamedTuple):
    """`total` `[S]` is minimised; `parts` (name -> `[S]`) are its terms, for the record."""

    total: Tensor
    parts: dict[str, Tensor]


def stacked_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy per seed `[S]` of logits `[S, N, K]`."""
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return each.view(labels.shape).mean(dim=1)


def cross_entropy(model: Stack, batch: Batch, options: settings.CrossEntropy) -> Loss:
    ce = stacked_cross_entropy(model(batch.images), batch.labels)
    return Loss(ce, {"cross_entropy": ce})


def isometric(model: Stack, batch: Batch, options: settings.Isometric) -> Loss:
    logits, representations = model.outputs(batch.images)
    ce = stacked_cross_entropy(logits, batch.labels)
    term = stacked_isometric_loss(
        batch.images,
        representations,
        batch.labels,
        scale=options.scale,
        reduction=options.reduction,
        neighbours=options.neighbours,
    )
    return Loss(ce + options.beta * term, {"cross_entropy": ce, "isometric": term})


def adversarial(model: Stack, batch: Batch, options: settings.Adversarial) -> Loss:
    images = pgd_images(model, batch, options)
    ce = stacked_cross_entropy(model(images), batch.labels)
    return Loss(ce, {"cross_entropy": ce})


def pgd_images(model: Stack, batch: Batch, options: settings.Adversarial) -> Tensor:
    """PGD on cross-entropy from a random start in the ball, `[S, N, C, H, W]`; the model keeps its mode.

    Gradients are taken outside `vmap` and never reach the weights.
    """
    clean, eps = batch.images, options.eps
    step = options.step_size * eps / options.steps
    noise = torch.stack([torch.rand(clean.shape[1:], generator=g) for g in batch.generators]).to(clean)
    images = _project(clean + eps * (2 * noise - 1), clean, options.norm, eps)
    for _ in range(options.steps):
        images.requires_grad_()
        loss = stacked_cross_entropy(model(images), batch.labels).sum()
        (gradient,) = torch.autograd.grad(loss, images)
        direction = gradient.sign_() if options.norm == "linf" else gradient / _lengths(gradient).clamp(min=1e-30)
        images = _project(images.detach().add(direction, alpha=step), clean, options.norm, eps)
    return images


def _project(images: Tensor, clean: Tensor, norm: str, eps: float) -> Tensor:
    """Into the ball around `clean`, then into [0, 1]."""
    if norm == "linf":
        return torch.minimum(torch.maximum(images, clean - eps), clean + eps).clamp_(0, 1)
    delta = images - clean
    return (clean + delta * (eps / _lengths(delta).clamp(min=1e-12)).clamp(max=1)).clamp_(0, 1)


def _lengths(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(2), dim=2).view(*x.shape[:2], 1, 1, 1)


OBJECTIVES = {"cross-entropy": cross_entropy, "isometric": isometric, "adversarial": adversarial}
