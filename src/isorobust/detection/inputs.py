"""The inputs that a detector sees: reference images, and images that fool the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from isorobust.attacks.minimal import carlini_wagner, deep_fool
from isorobust.attacks.perturb import Problem, nearest, perturb
from isorobust.attacks.settings import FGSM
from isorobust.common.runtime import derive_seed
from isorobust.connectivity.inputs import cross_entropy, match_loss
from isorobust.detection.adaptive import adaptive, barrier_score, fitted_score
from isorobust.detection.detector import BarrierDetector
from isorobust.detection.scores import ADAPTIVE
from isorobust.detection.settings import DetectionSettings
from isorobust.networks.zoo import predict

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


class Made(NamedTuple):
    """What an attack made of the test images at `places` `[n]`: images `[n, C, H, W]`."""

    places: Tensor
    images: Tensor


def attacked(
    detector: BarrierDetector,
    images: Tensor,
    labels: Tensor,
    partners: tuple[Tensor, Tensor],
    options: DetectionSettings,
    seed: int,
) -> Iterator[tuple[str, Made]]:
    """Every unseen and adaptive attack, the slow ones on fewer images.

    partners: images that nothing was fitted to and their classes, whose losses `matched` aims at. The adaptive
    attacks get the first images that the network gets wrong under PGD (wrong as they are, they do not count later),
    because what cannot be fooled says nothing of detection, and where those are too few the first of the others.
    """
    model, chosen = detector.model, options.attacks
    everyone = torch.arange(len(images), device=images.device)
    problem = Problem(model, images, labels, NORM, options.eps, 0, len(detector.references))
    start = images
    for name in ("pgd", "apgd-ce", "square"):
        stream = derive_seed(seed, "detection", name)
        made = perturb(name, problem._replace(seed=stream), getattr(chosen, name.replace("-", "_"))).images
        start = made if name == "pgd" else start
        yield name, Made(everyone, made)
    yield "fab", Made(everyone, nearest(model, images, labels, chosen.fab.steps).images.clamp(0, 1))
    cw, fool = chosen.cw, chosen.deepfool
    made = carlini_wagner(model, images[: cw.images], labels[: cw.images], cw.weight, cw.steps, cw.learning_rate)
    yield "cw", Made(everyone[: cw.images], made)
    made = deep_fool(model, images[: fool.images], labels[: fool.images], fool.steps, fool.overshoot)
    yield "deepfool", Made(everyone[: fool.images], made)
    stream = np.random.default_rng(derive_seed(seed, "detection", "matched"))
    yield "matched", Made(everyone, _matched(detector, images, labels, partners, options, stream))
    standing = predict(model, start) == labels
    few = standing.to(torch.uint8).argsort(stable=True)[: options.adaptive.images]
    for name, score in LOWERED.items():
        ball = options.eps, options.adaptive.steps, options.adaptive.classes
        yield name, Made(few, adaptive(detector, score(detector), images[few], labels[few], start[few], *ball))


def _matched(detector: BarrierDetector, images: Tensor, labels: Tensor, partners, options: DetectionSettings, stream) -> Tensor:
    """Images moved to another class until its loss is that of a partner of this class; those that missed it stay clean."""
    others, classes = partners
    count = len(detector.references)
    shift = torch.from_numpy(stream.integers(1, count, size=len(labels))).to(labels.device)
    wanted = (labels + shift) % count
    known = [(classes == k).nonzero().flatten().cpu().numpy() for k in range(count)]
    draw = stream.random(len(labels))
    place = [int(known[k][int(u * len(known[k]))]) if len(known[k]) else -1 for k, u in zip(wanted.tolist(), draw)]
    usable = torch.tensor([i >= 0 for i in place], device=labels.device)
    partner = others[torch.tensor(place, device=labels.device).clamp(min=0)]
    with torch.no_grad():
        target = cross_entropy(detector.model, partner, wanted)
    made, matched = match_loss(detector.model, images, wanted, target, options.attacks.matched)
    return torch.where((matched & usable).view(-1, *[1] * (images.ndim - 1)), made, images)
