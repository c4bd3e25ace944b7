"""The inputs that a detector sees: reference images, and images that fool the network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from isorobust.attacks.minimal import carlini_wagner, deep_fool
from isorobust.attacks.perturb import Problem, nearest, perturb
from isorobust.attacks.settings import FGSM
from isorobust.connectivity.inputs import match_loss
from isorobust.detection.adaptive import adaptive, barrier_score, fitted_score
from isorobust.detection.detector import BarrierDetector, class_losses
from isorobust.detection.scores import ADAPTIVE
from isorobust.detection.settings import DetectionSettings
from isorobust.runtime import derive_seed

LOWERED = dict(zip(ADAPTIVE, (barrier_score, fitted_score)))
NORM = "linf"


@torch.no_grad()
def references(model: nn.Module, images: Tensor, labels: Tensor, classes: int, count: int, stream: np.random.Generator) -> Tensor:
    """Positions `[K, count]` of training images per class: drawn among those that the model gets right.

    Where these are too few, the images with the lowest loss of that class fill up. Errors: ValueError for
    fewer images than `count`.
    """
    if len(images) < count:
        raise ValueError(f"{count} references of each class need as many images, found {len(images)}")
    logits = torch.cat([model(part) for part in images.split(1000)])
    right = logits.argmax(1) == labels
    chosen = []
    for k in range(classes):
        own = (right & (labels == k)).nonzero().flatten().cpu().numpy()
        own = stream.permutation(own)[:count].tolist()
        if len(own) < count:
            losses = torch.nn.functional.cross_entropy(logits, torch.full_like(labels, k), reduction="none")
            own += [i for i in losses.argsort(stable=True).tolist() if i not in own][: count - len(own)]
        chosen.append(own)
    return torch.tensor(chosen)


def for_fitting(model: nn.Module, images: Tensor, labels: Tensor, classes: int, eps: list[float], seed: int) -> Tensor:
    """FGSM images of all radii that fool the model."""
    made = []
    for radius in eps:
        problem = Problem(model, images, labels, NORM, radius, derive_seed(seed, "fitting"), classes)
        found = perturb("fgsm", problem, FGSM()).images
        with torch.no_grad():
            made.append(found[model(found).argmax(1) != labels])
    return torch.cat(made)


def attacked(
    detector: BarrierDetector, images: Tensor, labels: Tensor, options: DetectionSettings, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """(attack, images `[n, C, H, W]`) for the unseen and the adaptive attacks; n is smaller for the slow ones."""
    model, chosen = detector.model, options.attacks
    classes = len(detector.references)
    problem = Problem(model, images, labels, NORM, options.eps, 0, classes)
    start = images
    for name in ("pgd", "apgd-ce", "square"):
        stream = derive_seed(seed, "detection", name)
        made = perturb(name, problem._replace(seed=stream), getattr(chosen, name.replace("-", "_"))).images
        start = made if name == "pgd" else start
        yield name, made
    yield "fab", nearest(model, images, labels, chosen.fab.steps).images.clamp(0, 1)
    cw, fool = chosen.cw, chosen.deepfool
    yield "cw", carlini_wagner(model, images[: cw.images], labels[: cw.images], cw.weight, cw.steps, cw.learning_rate)
    yield "deepfool", deep_fool(model, images[: fool.images], labels[: fool.images], fool.steps, fool.overshoot)
    yield "matched", _matched(detector, images, labels, options, np.random.default_rng(derive_seed(seed, "detection", "matched")))
    few = slice(options.adaptive.images)
    for name, score in LOWERED.items():
        ball = options.eps, options.adaptive.steps, options.adaptive.classes
        yield name, adaptive(detector, score(detector), images[few], labels[few], start[few], *ball)


def _matched(detector: BarrierDetector, images: Tensor, labels: Tensor, options: DetectionSettings, stream) -> Tensor:
    """Images moved to another class until its loss is that of a reference image; those that missed it stay clean."""
    classes, each = detector.references.shape[:2]
    shift = torch.from_numpy(stream.integers(1, classes, size=len(labels))).to(labels.device)
    other = (labels + shift) % classes
    partner = detector.references[other, torch.from_numpy(stream.integers(each, size=len(labels))).to(labels.device)]
    with torch.no_grad():
        target = class_losses(detector.model, partner, other).float()
    made, matched = match_loss(detector.model, images, other, target, options.attacks.matched)
    return torch.where(matched.view(-1, 1, 1, 1), made, images)
