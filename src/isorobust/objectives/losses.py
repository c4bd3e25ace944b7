"""Objectives: plain functions (model, batch, settings) -> Loss. A new objective is one function here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from isorobust.networks.stack import Stack
from isorobust.networks.zoo import Activations
from isorobust.objectives import settings
from isorobust.objectives.isometry import isometric_term


class Batch(NamedTuple):
    """One batch per seed: pixels `[S, N, C, H, W]` in [0, 1], labels `[S, N]`, one random stream per seed."""

    images: Tensor
    labels: Tensor
    generators: list[torch.Generator]


class Loss(NamedTuple):
    """`total` `[S]` is minimised; `parts` (name -> `[S]`) are its terms, for the record.

    `inputs` are the images on which cross-entropy was taken and `activations` what the model made of
    them: the isometric term compares the two.
    """

    total: Tensor
    parts: dict[str, Tensor]
    inputs: Tensor
    activations: Activations


def training_loss(model: Stack, batch: Batch, arm: settings.Arm) -> Loss:
    """The arm's objective, plus beta times the isometric term where the arm has one."""
    loss = OBJECTIVES[arm.objective.objective](model, batch, arm.objective)
    if arm.isometry is None:
        return loss
    options = {name: getattr(arm.isometry, name) for name in type(arm.isometry).model_fields if name != "beta"}
    term = isometric_term(loss.inputs, loss.activations.stem, loss.activations.hidden, batch.labels, **options)
    return loss._replace(total=loss.total + arm.isometry.beta * term, parts={**loss.parts, "isometric": term})


def stacked_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy per seed `[S]` of logits `[S, N, K]`."""
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return each.view(labels.shape).mean(dim=1)


def _on(images: Tensor, model: Stack, batch: Batch) -> Loss:
    """Cross-entropy on these images."""
    activations = model.activations(images)
    ce = stacked_cross_entropy(activations.logits, batch.labels)
    return Loss(ce, {"cross_entropy": ce}, images, activations)


def cross_entropy(model: Stack, batch: Batch, options: settings.CrossEntropy) -> Loss:
    return _on(batch.images, model, batch)


def noise(model: Stack, batch: Batch, options: settings.Noise) -> Loss:
    return _on(batch.images + options.sigma * _draw(torch.randn, batch), model, batch)


def jacobian(model: Stack, batch: Batch, options: settings.Jacobian) -> Loss:
    images = batch.images.detach().requires_grad_()
    loss = _on(images, model, batch)
    head = model.weights["head.weight"]
    norm = squared_jacobian(loss.activations.hidden[-1], head, images, batch.generators, options.projections)
    total = loss.total + 0.5 * options.weight * norm
    return Loss(total, {**loss.parts, "jacobian": norm}, batch.images, loss.activations)


def squared_jacobian(
    representations: Tensor, head: Tensor, images: Tensor, generators: list[torch.Generator], projections: int | str
) -> Tensor:
    """Mean over the batch of the squared Frobenius norm of d logits / d images, `[S]`, differentiable.

    Logits are head `[S, K, D]` times representations `[S, N, D]`, a function of images `[S, N, ...]`.
    With n random projections v, uniform on the unit sphere of the K logits, it is estimated by
    K / n * sum |d (v . logits) / d images|^2 (Hoffman, Roberts, Yaida, arXiv 1908.02729, eq. 9);
    "exact" takes every logit in turn.
    """
    size, count = representations.shape[:2]
    classes = head.shape[1]

    def squares(along: Tensor) -> Tensor:
        # In this order of factors the gradient of `head` has the same bits in a stack of one and of many.
        weights = torch.bmm(head.transpose(1, 2), along.transpose(1, 2)).transpose(1, 2)
        (gradient,) = torch.autograd.grad(representations, images, weights, create_graph=True)
        return gradient.flatten(2).square().sum(2).mean(1)

    if projections == "exact":
        axes = torch.eye(classes, dtype=head.dtype, device=head.device)
        return sum(squares(axis.expand(size, count, classes)) for axis in axes)
    total = representations.new_zeros(size)
    for _ in range(projections):
        draw = torch.stack([torch.randn(count, classes, generator=g) for g in generators]).to(representations)
        total = total + squares(F.normalize(draw, dim=2))
    return classes / projections * total


def trades(model: Stack, batch: Batch, options: settings.Trades) -> Loss:
    loss = _on(batch.images, model, batch)
    clean = loss.activations.logits.softmax(2)
    fixed = (model(batch.images) if model.mixed else loss.activations.logits).detach().softmax(2)  # as exact as the attack
    start = batch.images + 0.001 * _draw(torch.randn, batch)
    images = _ascend(model, batch, options, start, lambda logits: _divergence(logits, fixed))
    divergence = _divergence(model(images), clean)
    total = loss.total + options.weight * divergence
    return Loss(total, {**loss.parts, "divergence": divergence}, batch.images, loss.activations)


def _divergence(logits: Tensor, clean: Tensor) -> Tensor:
    """KL(clean || softmax(logits)), mean over the batch, `[S]`."""
    clean = clean.clamp(min=torch.finfo(clean.dtype).tiny)  # the gradient in a probability of 0 would be not a number
    return F.kl_div(logits.log_softmax(2), clean, reduction="none").sum(2).mean(1)


def adversarial(model: Stack, batch: Batch, options: settings.Adversarial) -> Loss:
    return _on(pgd_images(model, batch, options), model, batch)


def pgd_images(model: Stack, batch: Batch, options: settings.Adversarial) -> Tensor:
    """PGD on cross-entropy from a random start in the ball, `[S, N, C, H, W]`; the model keeps its mode."""
    start = batch.images + options.eps * (2 * _draw(torch.rand, batch) - 1)
    return _ascend(model, batch, options, start, lambda logits: stacked_cross_entropy(logits, batch.labels))


def _ascend(model: Stack, batch: Batch, ball: settings._InBall, start: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Projected gradient ascent on `loss` of the logits. Gradients are taken outside `vmap` and never reach the weights."""
    clean, eps = batch.images, ball.eps
    step = ball.step_size * eps / ball.steps
    images = _project(start, clean, ball.norm, eps)
    for _ in range(ball.steps):
        images.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(model(images)).sum(), images)
        direction = gradient.sign_() if ball.norm == "linf" else gradient / _lengths(gradient).clamp(min=1e-30)
        images = _project(images.detach().add(direction, alpha=step), clean, ball.norm, eps)
    return images


def _draw(kind: Callable[..., Tensor], batch: Batch) -> Tensor:
    """Random numbers of the images' shape, each seed's from its own stream."""
    return torch.stack([kind(batch.images.shape[1:], generator=g) for g in batch.generators]).to(batch.images)


def _project(images: Tensor, clean: Tensor, norm: str, eps: float) -> Tensor:
    """Into the ball around `clean`, then into [0, 1]."""
    if norm == "linf":
        return torch.minimum(torch.maximum(images, clean - eps), clean + eps).clamp_(0, 1)
    delta = images - clean
    return (clean + delta * (eps / _lengths(delta).clamp(min=1e-12)).clamp(max=1)).clamp_(0, 1)


def _lengths(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(2), dim=2).view(*x.shape[:2], 1, 1, 1)


OBJECTIVES = {
    "cross-entropy": cross_entropy,
    "noise": noise,
    "jacobian": jacobian,
    "trades": trades,
    "adversarial": adversarial,
}
