"""The parts of the AutoAttack composition on whole batches, for models whose predictions depend on the batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn

from isorobust.attacks import settings
from isorobust.attacks.perturb import TORCHATTACKS_NORMS, Perturbed, Problem, into_ball_and_box, untouched


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
