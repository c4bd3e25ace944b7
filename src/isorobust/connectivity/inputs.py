"""Pairs of inputs that a network assigns to a class with low loss: real, between real ones, synthetic, adversarial."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isorobust.connectivity.settings import Matched, Synthesis

TRIES = 200  # draws for each tuple of right samples that is needed


class Pairs(NamedTuple):
    """Ends a, c `[P, C, H, W]`, and the class of each end, `[P]`; the same for both within a class."""

    a: Tensor
    c: Tensor
    class_a: Tensor
    class_c: Tensor


def cross_entropy(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Per sample `[N]`, in float64: in float32 the loss of a confident network is rounding, and its curve full of maxima."""
    return F.cross_entropy(model(x).double(), labels, reduction="none")


def chosen_tuples(labels: np.ndarray, right: np.ndarray, classes: str, count: int, stream: np.random.Generator) -> np.ndarray:
    """Positions `[count, len(classes)]` of different samples, drawn class by class, that a network gets right.

    classes: "s" for a sample of the same class as the first, "o" for one of another class, as in "ss", "so", "sso".
    Tuples are drawn from all samples and those with a sample that is not `right` `[N]` are passed over, so that
    from the same `stream` networks that get much the same right are given much the same tuples. A tuple may be
    drawn twice. Errors: ValueError for more than there are, and where `TRIES` times `count` draws do not give enough.
    """
    groups = {k: np.flatnonzero(labels == k) for k in np.unique(labels)}
    alike, whole = classes.count("s"), int(right.sum())
    sizes = [int(right[group].sum()) for group in groups.values()]
    there = sum(math.comb(size, alike) * (whole - size) ** (len(classes) - alike) for size in sizes)
    if there < count:
        raise ValueError(f"{count} different tuples of right samples needed, there are {there}")
    others = {k: np.flatnonzero(labels != k) for k in groups}
    large = [k for k, group in groups.items() if len(group) >= classes.count("s")]
    found: list[np.ndarray] = []
    for i in range(TRIES * count if large else 0):
        k = large[i % len(large)]
        same = iter(stream.choice(groups[k], classes.count("s"), replace=False))
        drawn = np.array([next(same) if c == "s" else stream.choice(others[k]) for c in classes])
        if right[drawn].all():
            found.append(drawn)
            if len(found) == count:
                return np.array(found)
    raise ValueError(f"{count} tuples of right samples needed, found {len(found)} among {TRIES * count}")


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

    Minimises (log loss - log target)^2 + distortion * mean squared change (Adam, `steps` steps), and gives of the
    images on the way that have the class `labels` and a loss within `tolerance` the one changed least.
    An image that never has comes back as it is.
    """
    x = images.clone().requires_grad_()
    goal = target.double().clamp(min=1e-12).log()
    adam = torch.optim.Adam([x], lr=options.learning_rate)
    least = torch.full((len(images),), torch.inf, device=images.device)
    best = images.clone()
    for step in range(options.steps + 1):
        logits = model(x).double()
        off = F.cross_entropy(logits, labels, reduction="none").clamp(min=1e-12).log() - goal
        change = (x - images).flatten(1).square().mean(1)
        better = (off.detach().abs() <= options.tolerance) & (logits.argmax(1) == labels) & (change.detach() < least)
        best[better], least[better] = x.detach()[better], change.detach()[better]
        if step == options.steps:
            break
        (x.grad,) = torch.autograd.grad((off.square() + options.distortion * change).sum(), x)
        adam.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    return best, least.isfinite()
