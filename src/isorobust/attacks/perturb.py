"""Making adversarial images, on torchattacks where it has the attack.

Every attack inside a ball runs through `perturb`: whatever an attack does to the model, to the random
state or outside the ball, callers see an unchanged model and images inside the ball and the box. The
searches for the nearest image (`nearest`, attacks/minimal.py) have no ball; they leave the model as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchattacks
from torch import Tensor, nn

from isorobust.attacks import settings
from isorobust.errors import UserError, choose
from isorobust.objectives.isometry import isometric_term

logging.getLogger("torchattacks").setLevel(logging.WARNING)
TORCHATTACKS_NORMS = {"linf": "Linf", "l2": "L2"}


class Problem(NamedTuple):
    """What an attack is given: model (pixels to logits), images `[N, C, H, W]` in [0, 1], labels `[N]`, ball and seed.

    `term` holds the isometric term of the model's training loss (beta and the options of
    `isometric_term`) or None; only paper-fgsm reads it, and asks the model for its `activations`.
    `surrogate` is the model on which transfer images are made.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    norm: str
    eps: float
    seed: int
    classes: int
    term: dict[str, Any] | None = None
    surrogate: nn.Module | None = None


class Perturbed(NamedTuple):
    """images `[N, C, H, W]` inside ball and box; `excess`: by how much the attack itself had left them, at most."""

    images: Tensor
    excess: float


def perturb(name: str, problem: Problem, options: Any) -> Perturbed:
    """Run one attack and keep its images inside the ball and [0, 1].

    All model state (mode of every module, gradients, requires_grad flags, buffers) is restored and
    the global random state is left alone, also when the attack fails. Images that are not finite
    are taken back to the clean ones and counted as an infinite excess.
    Errors: UserError for an unknown attack or norm, or too few classes for a margin loss.
    """
    attack = choose(ATTACKS, name, "attack")
    choose(TORCHATTACKS_NORMS, problem.norm, "norm")
    models = [m for m in (problem.model, problem.surrogate) if m is not None]
    cuda = [problem.images.device] if problem.images.is_cuda else []
    with untouched(*models), torch.random.fork_rng(devices=cuda), torch.enable_grad():
        torch.manual_seed(problem.seed)
        raw = attack(problem, options).detach()
    raw, finite = _finite(raw, problem.images)
    images = into_ball_and_box(raw, problem.images, problem.norm, problem.eps)
    excess = float((raw - images).abs().max()) if finite else float("inf")
    return Perturbed(images, excess)


def into_ball_and_box(adversarial: Tensor, clean: Tensor, norm: str, eps: float) -> Tensor:
    """The nearest point per pixel (linf) or along the ray (l2) inside the ball around `clean`, then inside [0, 1]."""
    if norm == "linf":
        adversarial = torch.minimum(torch.maximum(adversarial, clean - eps), clean + eps)
    else:
        delta = adversarial - clean
        adversarial = clean + delta * (eps / _lengths(delta).clamp(min=1e-12)).clamp(max=1)
    return adversarial.clamp(0, 1)


@contextmanager
def untouched(*models: nn.Module) -> Iterator[None]:
    """Models in eval mode with frozen weights inside; every flag, gradient and buffer as before afterwards."""
    modules = [(module, module.training) for model in models for module in model.modules()]
    weights = [(w, w.requires_grad, w.grad) for model in models for w in model.parameters()]
    buffers = [(b, b.clone()) for model in models for b in model.buffers()]
    try:
        for model in models:
            model.eval()
        for weight, _, _ in weights:
            weight.requires_grad_(False)
            weight.grad = None
        yield
    finally:
        for module, training in modules:
            module.training = training
        for weight, flag, gradient in weights:
            weight.requires_grad_(flag)
            weight.grad = gradient
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _lengths(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1).view(-1, 1, 1, 1)


def _one_step(problem: Problem, gradient: Tensor) -> Tensor:
    """From the clean image to the ball's edge: along the sign (linf) or the direction (l2) of the gradient."""
    if problem.norm == "linf":
        return (problem.images + problem.eps * gradient.sign()).clamp(0, 1)
    # Scaled first, because gradients of confident models underflow when squared.
    peak = gradient.flatten(1).abs().amax(dim=1).clamp(min=1e-38).view(-1, 1, 1, 1)
    gradient = gradient / peak
    return (problem.images + problem.eps * gradient / _lengths(gradient).clamp(min=1e-12)).clamp(0, 1)


def paper_fgsm(problem: Problem, options: settings.PaperFGSM) -> Tensor:
    """FGSM on cross-entropy and the isometric term, `gradient_batch` images at a time in order (arXiv 2211.01236).

    The isometric term compares a batch's representations with the distances of the clean batch,
    which are constants. Without such a term this is FGSM.
    """
    parts = zip(problem.images.split(options.gradient_batch), problem.labels.split(options.gradient_batch))
    gradients = [_training_loss_gradient(problem.model, clean, labels, problem.term) for clean, labels in parts]
    return _one_step(problem, torch.cat(gradients))


def _training_loss_gradient(model: nn.Module, clean: Tensor, labels: Tensor, term: dict[str, Any] | None) -> Tensor:
    images = clean.clone().requires_grad_()
    if term is None:
        loss = F.cross_entropy(model(images), labels)
    else:
        logits, hidden, stem = model.activations(images)
        options = {key: value for key, value in term.items() if key != "beta"}
        layers = [layer.unsqueeze(0) for layer in hidden]
        isometric = isometric_term(clean.unsqueeze(0), stem.unsqueeze(0), layers, labels.unsqueeze(0), **options)
        loss = F.cross_entropy(logits, labels) + term["beta"] * isometric.squeeze(0)
    return torch.autograd.grad(loss, images)[0]


def fgsm(problem: Problem, options: settings.FGSM) -> Tensor:
    """Goodfellow et al., arXiv 1412.6572; the L2 form takes the gradient's direction."""
    if problem.norm == "linf":
        return torchattacks.FGSM(problem.model, eps=problem.eps)(problem.images, problem.labels)
    images = problem.images.clone().requires_grad_()
    loss = F.cross_entropy(problem.model(images), problem.labels, reduction="sum")
    return _one_step(problem, torch.autograd.grad(loss, images)[0])


def pgd(problem: Problem, options: settings.PGD) -> Tensor:
    """Madry et al., arXiv 1706.06083; per sample the last restart that fools the model."""
    return _pgd_on(problem.model, problem, options)


def transfer(problem: Problem, options: settings.Transfer) -> Tensor:
    """PGD against the surrogate; with several restarts, the one that fools the surrogate."""
    if problem.surrogate is None:
        raise UserError("attack transfer: found no surrogate model; allowed: a trained baseline")
    return _pgd_on(problem.surrogate, problem, options)


def _pgd_on(model: nn.Module, problem: Problem, options: settings.PGD) -> Tensor:
    size = {"eps": problem.eps, "alpha": options.step_size * problem.eps / options.steps, "steps": options.steps}
    if problem.norm == "linf":
        attack = torchattacks.PGD(model, **size, random_start=True)
    else:
        # The default divisor of 1e-10 stops the attack on confident samples.
        attack = torchattacks.PGDL2(model, **size, random_start=True, eps_for_division=1e-30)
    best = attack(problem.images, problem.labels)
    for _ in range(options.restarts - 1):
        other = attack(problem.images, problem.labels)
        with torch.no_grad():
            fooled = model(other).argmax(1) != problem.labels
        best = torch.where(fooled.view(-1, 1, 1, 1), other, best)
    return best


def noise(problem: Problem, options: settings.Noise) -> Tensor:
    """Random corners of the box around the image (linf) or random directions at radius eps (l2)."""
    best = None
    for _ in range(options.draws):
        draw = torch.randn(problem.images.shape).to(problem.images)
        other = _one_step(problem, draw)
        with torch.no_grad():
            fooled = problem.model(other).argmax(1) != problem.labels
        best = other if best is None else torch.where(fooled.view(-1, 1, 1, 1), other, best)
    return best


def apgd_ce(problem: Problem, options: settings.APGD) -> Tensor:
    attack = torchattacks.APGD(problem.model, **_common(problem), steps=options.steps, n_restarts=options.restarts, loss="ce")
    return _without_graph(attack, problem)


def _without_graph(attack: torchattacks.attack.Attack, problem: Problem) -> Tensor:
    """APGD switches gradients on where it needs them; elsewhere its best images would chain the graphs of all steps."""
    with torch.no_grad():
        return attack(problem.images, problem.labels)


def apgd_t(problem: Problem, options: settings.APGD) -> Tensor:
    if problem.classes < 4:
        raise UserError(f"attack apgd-t: found {problem.classes} classes; allowed: 4 or more (its margin loss needs them)")
    attack = torchattacks.APGDT(
        problem.model, **_common(problem), steps=options.steps, n_restarts=options.restarts, n_classes=problem.classes
    )
    return _without_graph(attack, problem)


def fab_t(problem: Problem, options: settings.FAB) -> Tensor:
    attack = torchattacks.FAB(
        problem.model,
        **_common(problem),
        steps=options.steps,
        n_restarts=options.restarts,
        multi_targeted=True,
        n_classes=problem.classes,
    )
    return attack(problem.images, problem.labels)


def square(problem: Problem, options: settings.Square) -> Tensor:
    return torchattacks.Square(problem.model, **_common(problem), n_queries=options.queries)(problem.images, problem.labels)


def _common(problem: Problem) -> dict[str, Any]:
    return {"norm": TORCHATTACKS_NORMS[problem.norm], "eps": problem.eps, "seed": problem.seed % 2**31}


ATTACKS = {
    "paper-fgsm": paper_fgsm,
    "fgsm": fgsm,
    "pgd": pgd,
    "apgd-ce": apgd_ce,
    "apgd-t": apgd_t,
    "fab-t": fab_t,
    "square": square,
    "noise": noise,
    "transfer": transfer,
}


class Composed(NamedTuple):
    """fallen int64 `[E, N]`, radii by images: 0 still standing, k felled by part k (from 1), -1 not standing at the start."""

    fallen: Tensor
    excess: float


def worst_case_parts(options: settings.WorstCase, classes: int) -> dict[str, Any]:
    """The parts of the AutoAttack composition in order; targeted APGD needs four classes."""
    parts = {"apgd-ce": settings.APGD(steps=options.apgd_steps)}
    if classes >= 4:
        parts["apgd-t"] = settings.APGD(steps=options.apgd_steps)
    parts["fab-t"] = settings.FAB(steps=options.fab_steps)
    parts["square"] = settings.Square(queries=options.square_queries)
    return parts


def compose(problems: list[Problem], parts: dict[str, Any], standing: Tensor) -> Composed:
    """Run the parts in turn, each on the images that all before it left standing.

    `problems` are one model and batch at rising radii of one norm, `standing` bool `[E, N]` at the
    start. What fells an image in a small ball lies in every larger one too and counts there.
    """
    fallen = torch.where(standing, 0, -1)
    excess = 0.0
    for number, (name, options) in enumerate(parts.items(), start=1):
        if name == "fab-t":
            excess = max(excess, _fab_t_at_all_radii(problems, options, fallen, number))
            continue
        for row, problem in enumerate(problems):
            index = (fallen[row] == 0).nonzero().flatten()
            if len(index):
                part = problem._replace(images=problem.images[index], labels=problem.labels[index])
                adversarial = perturb(name, part, options)
                excess = max(excess, adversarial.excess)
                _fell(fallen[row:], index, _fooled(part, adversarial.images), number)
    return Composed(fallen, excess)


def _fab_t_at_all_radii(problems: list[Problem], options: settings.FAB, fallen: Tensor, number: int) -> float:
    """One search for all radii: without restarts FAB looks for the nearest adversarial image, whatever eps is.

    Changes `fallen` in place; gives by how much an image had left the box, at most.
    """
    first = problems[0]
    attack = torchattacks.FAB(
        first.model, **_common(first), steps=options.steps, n_restarts=1, multi_targeted=True, n_classes=first.classes
    )
    excess = 0.0
    for target in range(2, first.classes + 1):  # the class with the target-th largest logit
        index = (fallen == 0).any(dim=0).nonzero().flatten()
        if not len(index):
            break
        part = first._replace(images=first.images[index], labels=first.labels[index])
        attack.target_class = target
        with untouched(part.model), torch.random.fork_rng(devices=[part.images.device] if part.images.is_cuda else []):
            raw = attack.attack_single_run_targeted(part.images, part.labels).detach()
        raw, finite = _finite(raw, part.images)
        excess = max(excess, float((raw - raw.clamp(0, 1)).abs().max()) if finite else float("inf"))
        for row, problem in enumerate(problems):
            images = into_ball_and_box(raw, part.images, problem.norm, problem.eps)
            _fell(fallen[row:], index, _fooled(part, images), number)
    return excess


class Nearest(NamedTuple):
    """L2 distances `[N]` (0 for an image that is wrong as it is, inf where none was found), adversarial images `[N, C, H, W]`."""

    distances: Tensor
    images: Tensor


def nearest(model: nn.Module, images: Tensor, labels: Tensor, steps: int) -> Nearest:
    """The nearest adversarial image in [0, 1] that untargeted FAB (arXiv 1907.02044) finds: an upper bound of the L2
    distance to the decision boundary.

    It starts at the image itself, so nothing is drawn; the radius of an attack plays no part. The
    model is left as in `perturb`.
    """
    attack = torchattacks.FAB(model, norm="L2", steps=steps, n_restarts=1)
    with untouched(model), torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        raw, _ = _finite(attack.attack_single_run(images, labels).detach(), images)
        with torch.no_grad():
            fooled = model(raw).argmax(1) != labels
    lengths = _lengths(raw - images).flatten()
    return Nearest(torch.where(fooled, lengths, torch.inf), raw)


def _fooled(problem: Problem, images: Tensor) -> Tensor:
    with torch.no_grad(), untouched(problem.model):
        return problem.model(images).argmax(1) != problem.labels


def _fell(fallen: Tensor, index: Tensor, fooled: Tensor, number: int) -> None:
    """In all rows of `fallen`, those of `index` that were fooled and stood so far fell to part `number`."""
    now = torch.zeros_like(fallen, dtype=torch.bool)
    now[:, index[fooled]] = True
    fallen[now & (fallen == 0)] = number


def _finite(images: Tensor, clean: Tensor) -> tuple[Tensor, bool]:
    """(images, those with a number that is not finite taken back to the clean ones; whether none had)."""
    finite = images.isfinite().flatten(1).all(dim=1)
    return torch.where(finite.view(-1, 1, 1, 1), images, clean), bool(finite.all())
