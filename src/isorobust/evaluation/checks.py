"""Checks of an evaluation on itself: signs that robustness is an artefact of the attack or of the model.

Sources: Carlini et al. 2019 (arXiv 1902.06705), AutoAttack's flags, Pintor et al. 2021 (arXiv
2106.09947), Zimmermann et al. 2022 (arXiv 2206.13991). Every check gives {passed, value, limit};
`value` passes when it is at most `limit`. It is a share or a difference of shares, in `kept-ball-and-box`
by how much a pixel had to be put back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isorobust.attacks import settings
from isorobust.attacks.perturb import perturb, untouched
from isorobust.common.params import eps_key
from isorobust.common.workers import spread
from isorobust.evaluation.evaluate import Bench, Evaluation, Victim, radius_of_interest
from isorobust.networks.zoo import predict
from isorobust.verdicts import points_of, ran_at

BLACK_BOX = ("noise", "transfer", "square")
GRADIENT = ("paper-fgsm", "fgsm", "pgd")
UNBOUNDED = {"linf": 1.0, "l2": 100.0}  # from any image, every other image is inside


class Check(NamedTuple):
    value: float
    limit: float

    def as_dict(self) -> dict:
        # Not-a-number fails: a check that could not be computed has not passed. JSON knows neither it nor infinity.
        value = 1e9 if np.isnan(self.value) else min(float(self.value), 1e9)
        return {"passed": bool(value <= self.limit), "value": value, "limit": float(self.limit)}


def run_checks(victims: list[Victim], bench: Bench, evaluation: Evaluation) -> dict[str, dict]:
    """All checks that apply, by name; the meaning of each stands beside its code and in docs/methods.md."""
    count = bench.options.check_images
    checks = {
        **_of_flags(evaluation),
        **of_models([victim.model for victim in victims], bench.images[:count], bench.labels[:count]),
        "clean-accuracy-agrees": _clean_again(victims, bench, evaluation),
    }
    if bench.options.attacks.pgd is not None:
        checks |= _of_pgd(victims, bench, bench.options.attacks.pgd)
        checks["verdicts-agree"] = _pgd_again(victims, bench, evaluation)
    return {name: check.as_dict() for name, check in checks.items()}


def _of_flags(evaluation: Evaluation) -> dict[str, Check]:
    """What the recorded verdicts alone show."""
    arrays = evaluation.arrays
    clean = arrays["correct/clean"]
    checks = {"kept-ball-and-box": Check(max(evaluation.excess.values(), default=0.0), 1e-5)}
    unchanged = [
        (flags & clean[: flags.shape[0], : flags.shape[1]]).mean()
        for name in (*GRADIENT, "noise", "transfer")
        for norm, eps in points_of(arrays)
        for flags in [arrays.get(f"unchanged/{name}/{norm}/{eps}")]
        if flags is not None
    ]
    # Share of images, right when clean, that an attack handed back as they were: it did nothing.
    checks["attack-moves-images"] = Check(max(unchanged, default=0.0), 0.01)
    stronger, black, masked, rising, last = [], [0.0], [0.0], [0.0], {}
    for norm, eps in points_of(arrays):
        ran = ran_at(arrays, norm, eps)
        if "pgd" in ran:
            for name in ("fgsm", "paper-fgsm"):
                if name in ran and ran[name].shape == ran["pgd"].shape:
                    stronger.append(float(ran["pgd"].mean() - ran[name].mean()))
            if norm in last:
                rising.append(float(ran["pgd"].mean() - last[norm]))
            last[norm] = float(ran["pgd"].mean())
            white = np.logical_and.reduce([f for n, f in ran.items() if n in GRADIENT and f.shape == ran["pgd"].shape])
            black += [float((white & ~ran[n]).mean()) for n in BLACK_BOX if n in ran and ran[n].shape == white.shape]
        if f"fallen/worst-case/{norm}/{eps}" in arrays:
            fallen, parts = arrays[f"fallen/worst-case/{norm}/{eps}"], arrays["parts/worst-case"].tolist()
            black.append(float((fallen == parts.index("square") + 1).mean()))
            if "apgd-t" in parts:
                masked.append(float((fallen == parts.index("apgd-t") + 1).mean()))
    # A single step must not beat the iterated attack.
    checks["iterated-beats-single-step"] = Check(max(stronger, default=0.0), 0.01)
    # Per sample: felled by noise, transfer or Square although the gradient attacks failed.
    checks["white-box-beats-black-box"] = Check(max(black), 0.01)
    # Felled by the margin loss only: cross-entropy's gradient is masked (logits too large).
    checks["cross-entropy-not-masked"] = Check(max(masked), 0.05)
    # Robust accuracy must not rise with the radius.
    checks["falls-with-eps"] = Check(max(rising), 0.01)
    return checks


def of_models(models: list[nn.Module], images: Tensor, labels: Tensor) -> dict[str, Check]:
    """What the networks themselves show on these images `[N, C, H, W]` with labels `[N]`."""
    zero, random, batch, probabilities = [], [], [], []
    for model in models:
        with untouched(model):
            with torch.no_grad():
                once, again = model(images), model(images)
                mixed = torch.cat([model(part) for part in images.flip(0).split(7)]).flip(0)
            own = images.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(own), labels, reduction="sum"), own, allow_unused=True)
        right = once.argmax(1) == labels
        flat = torch.zeros_like(images) if gradient is None else gradient
        zero.append(_share((flat == 0).flatten(1).all(1) & right))
        random.append(_share((once != again).any(1)))
        batch.append(_share((once - mixed).abs().amax(1) > 1e-3 * once.abs().amax(1).clamp(min=1)))
        simplex = (once >= 0).all(1) & ((once.sum(1) - 1).abs() < 1e-3)
        probabilities.append(_share(simplex))
    return {
        # Share of images, right when clean, whose cross-entropy gradient is exactly zero.
        "gradients-not-zero": Check(max(zero), 0.01),
        # Share of images whose logits differ between two calls.
        "outputs-not-random": Check(max(random), 0.0),
        # Share of images whose logits depend, beyond rounding, on the batch they are in.
        "outputs-not-batch-dependent": Check(max(batch), 0.0),
        # Share of outputs that look like probabilities: losses expect logits.
        "outputs-are-logits": Check(max(probabilities), 0.5),
    }


def _clean_again(victims: list[Victim], bench: Bench, evaluation: Evaluation) -> Check:
    """Share of the recorded clean verdicts that come out otherwise image by image."""
    count = min(bench.options.check_images, len(bench.labels))
    recorded = evaluation.arrays["correct/clean"]

    def differ(row: int) -> float:
        again = predict(victims[row].model, bench.images[:count], batch=1) == bench.labels[:count]
        return float((again.cpu().numpy() != recorded[row, :count]).mean())

    return Check(max(spread(differ, range(len(victims)), bench.device)), 0.0)


def _pgd_again(victims: list[Victim], bench: Bench, evaluation: Evaluation) -> Check:
    """Share of the recorded verdicts under PGD that come out otherwise when its first batch is attacked and judged again.

    Anew and in smaller batches, so that results kept from other code or another machine show too.
    """
    options = bench.options.attacks.pgd
    norm, eps = radius_of_interest(bench.options)
    if f"correct/pgd/{norm}/{eps_key(eps)}" not in evaluation.arrays:
        norm, eps = (options.eps or bench.options.eps).points()[0]
    recorded = evaluation.arrays[f"correct/pgd/{norm}/{eps_key(eps)}"]
    batch = bench.batches(options.images, options.batch)[0]

    def differ(row: int) -> float:
        made = perturb("pgd", bench.problem(victims[row], "pgd", norm, eps, batch), options).images
        again = predict(victims[row].model, made, batch=50) == bench.labels[batch]
        return float((again.cpu().numpy() != recorded[row, batch]).mean())

    # An image on the boundary may fall to either side by rounding.
    return Check(max(spread(differ, range(len(recorded)), bench.device)), max(0.001, 1 / (batch.stop - batch.start)))


def _of_pgd(victims: list[Victim], bench: Bench, options: settings.PGD) -> dict[str, Check]:
    """What PGD does at radius 0, at an unbounded radius, and with twice the effort."""
    norm, eps = radius_of_interest(bench.options)
    batch = slice(0, min(bench.options.check_images, len(bench.labels)))
    labels = bench.labels[batch]
    twice = options.model_copy(update={"steps": 2 * options.steps, "restarts": 2 * options.restarts})

    def of_victim(row: int) -> tuple[float, float, float]:
        victim = victims[row]
        problem = bench.problem(victim, "checks", norm, eps, batch)
        right = predict(victim.model, problem.images) == labels
        still = perturb("pgd", problem._replace(eps=0.0), options).images
        far = perturb("pgd", problem._replace(eps=UNBOUNDED[norm]), options).images
        first = perturb("pgd", problem, options).images
        second = perturb("pgd", problem, twice).images
        stands = predict(victim.model, first) == labels
        gain = _share(stands & right) - _share(stands & right & (predict(victim.model, second) == labels))
        moved = _share((still != problem.images).flatten(1).any(1))
        return moved, _share(predict(victim.model, far) == labels), gain

    moved, unbounded, gain = zip(*spread(of_victim, range(len(victims)), bench.device))
    return {
        # Share of images that an attack of radius 0 changes.
        "radius-0-changes-nothing": Check(max(moved), 0.0),
        # Accuracy when every image is within reach: above chance, the attack cannot find what is there.
        "unbounded-reaches-chance": Check(max(unbounded), 1 / bench.classes),
        # Mean share that falls only to twice the steps and restarts.
        "twice-the-effort-adds-little": Check(float(np.mean(gain)), 0.02),
    }


def _share(flags: torch.Tensor) -> float:
    return float(flags.double().mean())
