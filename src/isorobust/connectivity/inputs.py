"""Pairs of inputs that a network assigns to a class with low loss: real, between real ones, synthetic, adversarial."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isorobust.connectivity.settings import Matched, Synthesis


class Pairs(NamedTuple):
    """Ends a, c `[P, C, H, W]`, and the class of each end, `[P]`; the same for both within a class."""

    a: Tensor
    c: Tensor
    class_a: Tensor
    class_c: Tensor


def cross_entropy(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Per sample `[N]`."""
    return F.cross_entropy(model(x), labels, reduction="none")


def within_classes(labels: np.ndarray, count: int, stream: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions of `count` pairs of different samples of one class, classes in turn; without classes of fewer than two."""
    groups = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    groups = [group for group in groups if len(group) > 1]
    chosen = [stream.choice(groups[i % len(groups)], 2, replace=False) for i in range(count)]
    return tuple(np.array(chosen).T)


def between_classes(labels: np.ndarray, count: int, stream: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions of `count` pairs of samples of two classes."""
    first = stream.integers(len(labels), size=count)
    second = np.array([stream.choice(np.flatnonzero(labels != labels[i])) for i in first])
    return first, second


def synthesise(model: nn.Module, labels: Tensor, shape: tuple[int, ...], options: Synthesis, stream: torch.Generator) -> Tensor:
    """Inputs `[N, *shape]` of the classes `labels` `[N]` by feature visualisation (arXiv 2409.05800), not bound to [0, 1].

    An input whose loss is below `options.loss` stays as it is.
    """
    start = options.noise * torch.randn(len(labels), *shape, generator=stream)
    x = start.to(labels.device).requires_grad_()
    adam = torch.optim.Adam([x], lr=options.learning_rate, weight_decay=options.weight_decay)
    for _ in range(options.steps):
        loss = cross_entropy(model, x, labels)
        unfinished = loss.detach() >= options.loss
        if not unfinished.any():
            break
        (x.grad,) = torch.autograd.grad(loss.sum(), x)
        before = x.detach().clone()
        adam.step()
        with torch.no_grad():
            x.copy_(torch.where(unfinished.view(-1, *[1] * len(shape)), x, before))
    return x.detach()


def match_loss(model: nn.Module, images: Tensor, labels: Tensor, target: Tensor, options: Matched) -> tuple[Tensor, Tensor]:
    """(images `[N, C, H, W]` in [0, 1] changed until their cross-entropy of class `labels` is `target` `[N]`; whether it is).

    Minimises (log loss - log target)^2 + distortion * mean squared change, so that neither loss nor
    size of the change gives the image away. An image that is matched, and given the class `labels`, stays as it is.
    """
    x = images.clone().requires_grad_()
    goal = target.clamp(min=1e-12).log()
    adam = torch.optim.Adam([x], lr=options.learning_rate)
    matched = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    best = images.clone()
    for _ in range(options.steps):
        logits = model(x)
        off = F.cross_entropy(logits, labels, reduction="none").clamp(min=1e-12).log() - goal
        fresh = (off.detach().abs() <= options.tolerance) & (logits.argmax(1) == labels) & ~matched
        best[fresh] = x.detach()[fresh]
        matched |= fresh
        if matched.all():
            break
        total = off.square() + options.distortion * (x - images).flatten(1).square().mean(1)
        (x.grad,) = torch.autograd.grad(total.sum(), x)
        adam.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    best[~matched] = x.detach()[~matched]
    return best, matched
