"""Attacks on network and detector at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isorobust.connectivity.inputs import cross_entropy
from isorobust.connectivity.paths import at_once, in_parts
from isorobust.detection.detector import BarrierDetector, features

Score = Callable[[Tensor, Tensor], Tensor]  # inputs [N, ...] and their classes [N] to scores [N], with gradients


def barrier_score(detector: BarrierDetector) -> Score:
    """The detector's score `barrier`. Only the highest point of each path carries a gradient, so only that is differentiated."""

    def score(x: Tensor, classes: Tensor) -> Tensor:
        top = detector.curves(x.detach(), classes).argmax(2) / (detector.points - 1)  # [N, m]
        start = detector.references[classes]
        inputs = torch.lerp(start, x.unsqueeze(1).expand_as(start), top.to(x).view(*top.shape, 1, 1, 1))
        losses = cross_entropy(detector.model, inputs.flatten(0, 1), classes.repeat_interleave(top.shape[1]))
        return losses.view(top.shape).mean(1)

    return score


def fitted_score(detector: BarrierDetector) -> Score:
    """The detector's score `fitted`; position and number of maxima, which are steps, carry no gradient."""

    def score(x: Tensor, classes: Tensor) -> Tensor:
        weights, offset = detector.linear(x.device)
        return features(detector.differentiable_curves(x, classes)) @ weights + offset

    return score


def adaptive(
    detector: BarrierDetector,
    score: Score,
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    eps: float,
    steps: int,
    classes: int = 2,
    batch: int | None = None,
) -> Tensor:
    """Images `[N, C, H, W]` in [0, 1] within L-infinity `eps` that fool the model with as low a score as was found.

    `start` `[N, C, H, W]`: images of another attack in the same ball. From there each image moves to its `classes`
    likeliest wrong classes, one after the other. A step goes down the loss of that class while the
    model is not fooled and down the score once it is (Bryniarski et al., arXiv 2106.15023, call this selective
    descent), by 2.5 eps / steps in the sign's direction, a quarter of that in the second half. Where `start`
    fools the model, no image scores above it. About `batch` points of paths are evaluated at a time (None: 3 MB).
    """
    per_batch = at_once(images, detector.references.shape[1] * detector.points, batch)

    def of_some(images: Tensor, labels: Tensor, start: Tensor) -> Tensor:
        return _to_several(detector, score, images, labels, start, eps, steps, classes)

    return in_parts(of_some, (images, labels, start), per_batch)


def _to_several(
    detector: BarrierDetector, score: Score, images: Tensor, labels: Tensor, start: Tensor, eps, steps, classes
) -> Tensor:
    with torch.no_grad():
        wrong = detector.model(start).scatter(1, labels[:, None], -torch.inf)
    targets = wrong.topk(min(classes, wrong.shape[1] - 1), dim=1).indices.T
    best, lowest = images.clone(), torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)
    for target in targets:
        found, scores = _towards(detector, score, images, target, start, eps, steps)
        better = scores < lowest
        best[better], lowest[better] = found[better], scores[better]
    return best


def _towards(detector: BarrierDetector, score: Score, images: Tensor, target: Tensor, start: Tensor, eps: float, steps: int):
    """(images given class `target` with the lowest score on the way, that score; inf where none was)."""
    best, lowest = images.clone(), torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)
    x = start.clone()
    for step in range(steps + 1):
        x.requires_grad_()
        scores = score(x, target)
        losses = cross_entropy(detector.model, x, target)
        with torch.no_grad():
            fooled = detector.model(x).argmax(1) == target
        better = fooled & (scores.detach() < lowest)
        best[better], lowest[better] = x.detach()[better], scores.detach()[better].double()
        if step == steps:
            break
        (gradient,) = torch.autograd.grad(torch.where(fooled, scores, losses).sum(), x)
        size = 2.5 * eps / steps * (1 if 2 * step < steps else 0.25)
        with torch.no_grad():
            moved = x - size * gradient.sign()
            x = torch.minimum(torch.maximum(moved, images - eps), images + eps).clamp(0, 1)
    return best, lowest
