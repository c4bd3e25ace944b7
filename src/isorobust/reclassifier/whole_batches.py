"""The parts of the AutoAttack composition on whole batches, for models whose predictions depend on the batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torchattacks
from torch import Tensor, nn

from isorobust.attacks import settings
from isorobust.attacks.perturb import TORCHATTACKS_NORMS, Perturbed, Problem, into_ball_and_box, untouched
from isorobust.reclassifier.network import HybridPrototypeReclassifier
from isorobust.verdicts import Arrays


def attack_surrogate(model: HybridPrototypeReclassifier, mode: str, problem: Problem, parts: dict[str, Any]) -> Arrays:
    """The composition on one surrogate of `model` and one whole batch: bool `[B]` of who stands, and the excess.

    own: the surrogate is right on its clean images and on all batches made against it. real: `model`
    is right on all these batches. alone: `model` is right on each of the adversarial images among the
    clean images of the others.
    """
    surrogate = copy.deepcopy(model)
    surrogate.mode = mode
    held = surrogate if mode in ("fc", "ema") else surrogate.held(problem.images)
    labels = problem.labels
    with torch.no_grad():
        own = surrogate(problem.images).argmax(1) == labels
        clean = model.both(problem.images)
    real, alone, excess = torch.ones_like(own), torch.ones_like(own), 0.0
    for made in whole_batches(problem._replace(model=surrogate), parts, held):
        with torch.no_grad():
            own &= surrogate(made.images).argmax(1) == labels
            adversarial = model.both(made.images)
            real &= model.classify(*adversarial).argmax(1) == labels
            alone &= one_among_clean(model, adversarial, clean).argmax(1) == labels
        excess = max(excess, made.excess)
    return {
        **{name: flags.cpu().numpy() for name, flags in (("own", own), ("real", real), ("alone", alone))},
        "excess": np.float64(excess),
    }


def one_among_clean(
    model: HybridPrototypeReclassifier, adversarial: tuple[Tensor, Tensor], clean: tuple[Tensor, Tensor]
) -> Tensor:
    """Logits `[B, K]` of each adversarial image in the batch of the others' clean ones; both as (features, FC logits)."""
    size = len(clean[0])
    rows = torch.arange(size, device=clean[0].device)
    batches = [x.expand(size, *x.shape).clone() for x in clean]
    for batch, own in zip(batches, adversarial):
        batch[rows, rows] = own
    return model.classify(*batches)[rows, rows]


def whole_batches(problem: Problem, parts: dict[str, Any], held: nn.Module) -> Iterator[Perturbed]:
    """What the parts of the composition make of the whole batch, one batch of images after another.

    For models that classify a batch as a whole: no image is left out when it has fallen, so that every
    prediction is made among the images that were attacked with it. APGD gives its images of highest loss
    and those that fooled the model on the way, once per target. FAB and Square look at images by
    themselves; they attack `held`, the model with everything that depends on the batch fixed.
    """
    for name, options in parts.items():
        problem = problem._replace(model=problem.model if name.startswith("apgd") else held)
        cuda = [problem.images.device] if problem.images.is_cuda else []
        with untouched(problem.model), torch.random.fork_rng(devices=cuda):
            torch.manual_seed(problem.seed)
            for raw in ATTACKS[name](problem, options):
                finite = raw.isfinite()
                raw = torch.where(finite, raw, problem.images).detach()
                images = into_ball_and_box(raw, problem.images, problem.norm, problem.eps)
                # FAB looks for the nearest adversarial image whatever eps is; only the box binds it.
                bound = raw.clamp(0, 1) if name == "fab-t" else images
                yield Perturbed(images, float((raw - bound).abs().max()) if finite.all() else float("inf"))


def _ball(problem: Problem) -> dict[str, Any]:
    return {"norm": TORCHATTACKS_NORMS[problem.norm], "eps": problem.eps, "seed": problem.seed % 2**31}


def _apgd_ce(problem: Problem, options: settings.APGD) -> Iterator[Tensor]:
    attack = torchattacks.APGD(problem.model, **_ball(problem), steps=options.steps, loss="ce")
    yield from _both_of(attack, problem)


def _apgd_t(problem: Problem, options: settings.APGD) -> Iterator[Tensor]:
    attack = torchattacks.APGDT(problem.model, **_ball(problem), steps=options.steps, n_classes=problem.classes)
    for target in range(2, problem.classes + 1):  # the class with the target-th largest logit
        attack.target_class = target
        yield from _both_of(attack, problem)


def _both_of(attack: torchattacks.attack.Attack, problem: Problem) -> Iterator[Tensor]:
    with torch.no_grad():
        highest, _, _, fooling = attack.attack_single_run(problem.images, problem.labels)
    yield highest
    yield fooling


def _fab_t(problem: Problem, options: settings.FAB) -> Iterator[Tensor]:
    attack = torchattacks.FAB(
        problem.model,
        **_ball(problem),
        steps=options.steps,
        n_restarts=1,
        multi_targeted=True,
        n_classes=problem.classes,
    )
    for target in range(2, problem.classes + 1):
        attack.target_class = target
        yield attack.attack_single_run_targeted(problem.images, problem.labels)


def _square(problem: Problem, options: settings.Square) -> Iterator[Tensor]:
    attack = torchattacks.Square(problem.model, **_ball(problem), n_queries=options.queries)
    attack.init_hyperparam(problem.images)
    yield attack.attack_single_run(problem.images, problem.labels)[1]


ATTACKS = {"apgd-ce": _apgd_ce, "apgd-t": _apgd_t, "fab-t": _fab_t, "square": _square}
