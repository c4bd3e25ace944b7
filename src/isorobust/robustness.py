"""The AutoAttack composition on any classifier, image by image: the largest part of the stage `attack`'s worst case, which
also counts what falls to single attacks and at smaller radii."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor, nn

from isorobust.attacks.perturb import TORCHATTACKS_NORMS, Problem, compose, untouched, worst_case_parts
from isorobust.attacks.settings import WorstCase
from isorobust.common.params import check
from isorobust.errors import UserError, choose, found
from isorobust.networks.zoo import predict

LOOKED_AT_ALONE = 32  # images


def worst_case(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    batch: int = 250,
    seed: int = 0,
    apgd_steps: int = 100,
    fab_steps: int = 100,
    square_queries: int = 5000,
) -> Tensor:
    """Which images a classifier gets right under the AutoAttack composition, and clean: bool `[N]`.

    APGD-CE, targeted APGD (from four classes on), targeted FAB and Square (arXiv 2003.01690, 1907.02044, 1912.00049),
    each on the images still standing, with the reference's budgets unless said otherwise. White-box, untargeted.

    `model`: float images `[N, C, H, W]` in [0, 1], normalised inside it, to logits `[N, K]` that do not depend on the
    rest of the batch; attacked in eval mode and left as it was. `labels`: int64 `[N]`. `norm`: `linf` or `l2`, in which
    `eps` is the radius, taken to four significant digits. `batch` images are attacked at once; verdicts may depend on
    it, and on `seed`. Errors: UserError for another norm, a radius, number or label out of range, images that are not such, and
    logits that are not finite, or that differ when an image is alone: such a network is attacked in whole batches, as the stage
    of the l2-reclassifier does, or in the plug-in's mode `ema`.
    """
    choose(TORCHATTACKS_NORMS, norm, "norm")
    if not isinstance(eps, Real):
        raise found("eps", eps, "a number, as 8 / 255")
    if images.ndim != 4 or not images.is_floating_point() or not len(images):
        raise found("images", f"{images.dtype} {list(images.shape)}", "floats [N, C, H, W], at least one")
    if not (images.min() >= 0 and images.max() <= 1):  # true of NaN too
        raise found("images", f"{images.min():g} to {images.max():g}", "pixels from 0 to 1")
    numbers = {"images": len(images), "batch": batch, "apgd_steps": apgd_steps, "fab_steps": fab_steps}
    options = check(WorstCase, {**numbers, "eps": {norm: float(eps)}, "square_queries": square_queries}, "worst_case")
    with untouched(model), torch.no_grad():
        parts = [model(some) for some in images.split(batch)]
    classes = parts[0].shape[1]
    if not all(some.isfinite().all() for some in parts):  # NaN has an argmax that no attack changes
        raise UserError("model: found logits that are not finite on the clean images; allowed: numbers")
    _check_single(model, images[:LOOKED_AT_ALONE], torch.cat(parts)[:LOOKED_AT_ALONE])
    if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.min() < 0 or labels.max() >= classes:
        raise found("labels", f"{labels.dtype} {list(labels.shape)}", f"whole numbers [{len(images)}], from 0 to {classes - 1}")
    ((_, radius),) = options.eps.points()
    attacks, right = worst_case_parts(options, classes), []
    for x, y in zip(images.detach().split(batch), labels.long().split(batch)):
        with untouched(model), torch.no_grad():
            standing = (predict(model, x) == y)[None]
        problem = Problem(model, x, y, norm, radius, seed, classes)
        right.append(compose([problem], attacks, standing).fallen[0] == 0)
    return torch.cat(right)


def _check_single(model: nn.Module, images: Tensor, together: Tensor) -> None:
    with untouched(model), torch.no_grad():
        alone = torch.cat([model(image) for image in images.split(1)])
    differ = (alone - together).abs().amax(1) > 1e-3 * together.abs().amax(1).clamp(min=1)
    if differ.float().mean() > 0.1:  # one or two may differ by a rounding step of a quantised network
        raise UserError(
            "model: found logits of an image that differ with the rest of its batch, or by chance; "
            "allowed: those of the image alone (of the l2-reclassifier: mode `ema`)"
        )
