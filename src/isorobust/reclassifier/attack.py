"""The Mixed Surrogate Attack (arXiv 2606.01746) on a reclassifier, and what its predictions owe to the batch.

The model classifies whole batches, so it is attacked and judged in fixed whole batches: all images of
a batch come from the same surrogate and the same part of the composition, and none leaves the batch
when it has fallen. A sample counts as robust if the real model is right on the clean batch and on
every one of these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isorobust.attacks.judge import judge_worst_case
from isorobust.attacks.perturb import perturb, worst_case_parts
from isorobust.attacks.settings import PGD
from isorobust.common import artifacts
from isorobust.common.params import eps_key
from isorobust.common.splits import Split
from isorobust.common.statistics import interval_over_seeds, mean, rate
from isorobust.common.workers import spread
from isorobust.evaluation.checks import UNBOUNDED, Check, of_models
from isorobust.evaluation.units import Store, Unit
from isorobust.networks.checkpoint import Checkpoint
from isorobust.progress import say
from isorobust.reclassifier.batches import Setup, by_batch, prepare
from isorobust.reclassifier.checkpoint import control, plug_in
from isorobust.reclassifier.dependence import batch_dependence, sensitivity
from isorobust.reclassifier.network import MODES, HybridPrototypeReclassifier
from isorobust.reclassifier.settings import ReclassifierAttack
from isorobust.reclassifier.whole_batches import attack_surrogate
from isorobust.verdicts import Arrays

PAIRS = {  # claim -> (who stands under the first, more often than under the second)
    "improves-base": ("worst-case", "base"),
    "direct-attack-overstates": ("surrogate-ste", "worst-case"),
}
LEAST = {"direct-attack-overstates": 0.0}  # that a claim's number can be, where not -1: that attack is one of the mixed


def attack_reclassifier(
    checkpoint: Checkpoint, test: Split, options: ReclassifierAttack, store: Store, device: torch.device
) -> tuple[dict[str, Any], Arrays]:
    """(numbers as in docs/results.md, per-sample verdicts in the file's order) of all seeds of a reclassifier."""
    whole = prepare(test, checkpoint.spec["classes"], options, device)
    say(f"{len(whole.labels)} test images, of which {options.images} are attacked, in batches of {options.batch}")
    models = [plug_in(checkpoint, seed, device) for seed in checkpoint.seeds]
    controls = [control(checkpoint, seed, device) for seed in checkpoint.seeds]
    clean, base_clean = (
        np.stack([_in_file_order(whole, by_batch(model, whole.images, whole.batches())) for model in group])
        for group in (models, controls)
    )
    arrays: Arrays = {
        "labels": test.labels,
        "seeds": np.array(checkpoint.seeds),
        "predicted/clean": clean,
        "correct/clean": clean == test.labels,
        "correct/base-clean": base_clean == test.labels,
    }
    setup, seeds = whole.attacked(), checkpoint.seeds[: options.seeds]
    excess = _mixed_surrogates(arrays, checkpoint, models[: len(seeds)], seeds, setup, store)
    _base(arrays, checkpoint, controls[: len(seeds)], seeds, setup, store)
    _adaptive(arrays, models[: len(seeds)], seeds, setup)
    numbers = _numbers(arrays, options)
    numbers["batch"] = batch_dependence(models, checkpoint.seeds, whole)
    by_seed = sensitivity(models, whole)
    numbers["sensitivity"] = {head: {key: interval_over_seeds(x) for key, x in found.items()} for head, found in by_seed.items()}
    numbers["claims"] = _claims(arrays, by_seed, options)
    checks = {"kept-ball-and-box": Check(excess, 1e-5), **of_models(models, setup.images, setup.labels)}
    checks |= _of_pgd(models[: len(seeds)], setup)
    numbers["checks"] = {name: check.as_dict() for name, check in checks.items()}
    return numbers, arrays


def _of_pgd(models, setup: Setup) -> dict[str, Check]:
    """Checks by PGD through the soft assignments, on whole batches."""
    norm, eps = setup.options.eps.points()[-1]
    attack = PGD(steps=setup.options.adaptive_steps)
    twice = attack.model_copy(update={"steps": 2 * attack.steps, "restarts": 2})

    def of_batch(piece: tuple[int, slice]) -> np.ndarray:
        row, part = piece
        problem = setup.problem(models[row], part, norm, eps, "checks")
        balls = (problem._replace(eps=UNBOUNDED[norm]), attack), (problem, attack), (problem, twice)
        made = [perturb("pgd", *ball).images for ball in balls]
        with torch.no_grad():
            far, stands, more = (models[row](images).argmax(1) == problem.labels for images in made)
        moved = (perturb("pgd", problem._replace(eps=0.0), attack).images != problem.images).flatten(1).any(1)
        return torch.stack([moved, far, stands & ~more]).cpu().numpy()

    pieces = [(row, part) for row in range(len(models)) for part in setup.batches()]
    moved, far, gain = np.concatenate(list(spread(of_batch, pieces, setup.images.device)), axis=1).mean(axis=1).tolist()
    return {
        "radius-0-changes-nothing": Check(moved, 0.0),
        "unbounded-reaches-chance": Check(far, 1 / setup.classes),
        "twice-the-effort-adds-little": Check(gain, 0.02),
    }


def _in_file_order(setup: Setup, values: np.ndarray) -> np.ndarray:
    """Values `[..., n]` by place in the batches to values by place in the file, whose first n images fill them."""
    result = np.empty_like(values)
    result[..., setup.place] = values
    return result


def _mixed_surrogates(arrays: Arrays, checkpoint: Checkpoint, models, seeds, setup: Setup, store: Store) -> float:
    """Adds per surrogate who stands under its own attack, and per radius who stands for the real model; gives the excess.

    `surrogate-<mode>`: the surrogate itself is right under its own attack. `worst-case`: the real model
    is right on the clean batch and on all batches of all surrogates. `alone`: the same with one
    adversarial image at a time among the others' clean ones.
    """
    points = setup.options.eps.points()
    units = {
        (norm, eps, mode, seed, part.start): _unit(checkpoint, model, seed, mode, setup, part, norm, eps)
        for norm, eps in points
        for mode in MODES
        for model, seed in zip(models, seeds)
        for part in setup.batches()
    }
    results, excess = store.run(units, "surrogates"), 0.0
    for norm, eps in points:
        where = f"{norm}/{eps_key(eps)}"
        right = arrays["correct/clean"][: len(seeds), : len(setup.labels)]
        stands = {name: right.copy() for name in ("worst-case", "alone")}
        for mode in MODES:
            rows = [[results[norm, eps, mode, seed, part.start] for part in setup.batches()] for seed in seeds]
            excess = max([excess, *(float(unit["excess"]) for row in rows for unit in row)])
            flags = {
                kind: _in_file_order(setup, np.stack([np.concatenate([unit[kind] for unit in row]) for row in rows]))
                for kind in ("own", "real", "alone")
            }
            arrays[f"correct/surrogate-{mode}/{where}"] = flags["own"]
            stands["worst-case"] &= flags["real"]
            stands["alone"] &= flags["alone"]
        for name, correct in stands.items():
            arrays[f"correct/{name}/{where}"] = correct
    return excess


def _unit(checkpoint: Checkpoint, model, seed: int, mode: str, setup: Setup, part: slice, norm: str, eps: float) -> Unit:
    problem = setup.problem(model, part, norm, eps, "surrogate", seed, mode)
    parts = worst_case_parts(setup.options, setup.classes)

    def compute() -> Arrays:
        return attack_surrogate(model, mode, problem, parts)

    key = {
        **setup.context,
        "attack": f"surrogate {mode}",
        "options": {name: options.model_dump() for name, options in parts.items()},
        "ball": [norm, eps_key(eps)],
        "seed": str(problem.seed),
        "model": [checkpoint.model_hash(seed), checkpoint.spec["reclassifier"]],
        "images": artifacts.digest(problem.images.cpu().numpy().tobytes(), problem.labels.cpu().numpy().tobytes()),
    }
    return Unit(key, compute)


def _base(arrays: Arrays, checkpoint: Checkpoint, networks, seeds, setup: Setup, store: Store) -> None:
    """Adds `base`: the worst case of the base after the same fine-tuning without prototypes."""
    parts, points = worst_case_parts(setup.options, setup.classes), setup.options.eps.points()
    right = arrays["correct/base-clean"][:, setup.place]  # in the order of the batches
    units = {
        (norm, eps, seed, part.start): _base_unit(checkpoint, network, seed, setup, part, norm, eps, flags[part], parts)
        for norm, eps in points
        for network, seed, flags in zip(networks, seeds, right)
        for part in setup.batches()
    }
    results = store.run(units, "base")
    for norm, eps in points:
        rows = [[results[norm, eps, seed, part.start]["fallen"][0] == 0 for part in setup.batches()] for seed in seeds]
        arrays[f"correct/base/{norm}/{eps_key(eps)}"] = _in_file_order(setup, np.stack([np.concatenate(row) for row in rows]))


def _base_unit(checkpoint, network, seed, setup: Setup, part: slice, norm: str, eps: float, right: np.ndarray, parts) -> Unit:
    problem = setup.problem(network, part, norm, eps, "base", seed)
    key = {
        **setup.context,
        "attack": "worst case of the base",
        "options": {name: options.model_dump() for name, options in parts.items()},
        "ball": [norm, eps_key(eps)],
        "seed": str(problem.seed),
        "model": checkpoint.model_hash(seed),
        "images": artifacts.digest(problem.images.cpu().numpy().tobytes(), problem.labels.cpu().numpy().tobytes()),
    }
    return Unit(key, lambda: judge_worst_case([problem], parts, right[None]))


class OverBatches(nn.Module):
    """Pixels `[n, C, H, W]` to the mean log-probabilities `[n, K]` over `draws` random ways to fill batches with them."""

    def __init__(self, model: HybridPrototypeReclassifier, batch: int, draws: int):
        super().__init__()
        self.model, self.batch, self.draws = model, batch, draws

    def forward(self, x: Tensor) -> Tensor:
        features, logits = self.model.both(x)
        total = 0
        for _ in range(self.draws):
            order = torch.randperm(len(x)).to(x.device)
            parts = [self.model.classify(features[index], logits[index]).log_softmax(1) for index in order.split(self.batch)]
            total = total + torch.cat(parts)[order.argsort()]
        return total / self.draws


def _adaptive(arrays: Arrays, models, seeds, setup: Setup) -> None:
    """Adds `adaptive`: right under the mixed surrogates and under PGD on the real model with expectation over batches."""
    options = setup.options
    everything, labels = slice(0, len(setup.labels)), setup.labels.cpu().numpy()

    def stands(piece: tuple[str, float, int]) -> np.ndarray:
        norm, eps, row = piece
        model = OverBatches(models[row], options.batch, options.adaptive_draws)
        problem = setup.problem(model, everything, norm, eps, "adaptive", seeds[row])
        images = perturb("pgd", problem, PGD(steps=options.adaptive_steps)).images
        return by_batch(models[row], images, setup.batches()) == labels

    pieces = [(norm, eps, row) for norm, eps in options.eps.points() for row in range(len(models))]
    found = dict(zip(pieces, spread(stands, pieces, setup.images.device)))
    for norm, eps in options.eps.points():
        where = f"{norm}/{eps_key(eps)}"
        rows = np.stack([found[norm, eps, row] for row in range(len(models))])
        arrays[f"correct/adaptive/{where}"] = arrays[f"correct/worst-case/{where}"] & _in_file_order(setup, rows)


def _numbers(arrays: Arrays, options: ReclassifierAttack) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "clean": rate(arrays["correct/clean"]).as_dict(),
        "base-clean": rate(arrays["correct/base-clean"]).as_dict(),
    }
    named = {("surrogates", mode): f"surrogate-{mode}" for mode in MODES}
    named |= {("msa",): "worst-case", ("alone",): "alone", ("adaptive",): "adaptive", ("base",): "base"}
    for path, array in named.items():
        node = numbers
        for key in path:
            node = node.setdefault(key, {})
        for norm, eps in options.eps.points():
            node.setdefault(norm, {})[eps_key(eps)] = rate(arrays[f"correct/{array}/{norm}/{eps_key(eps)}"]).as_dict()
    return numbers


def _claims(arrays: Arrays, sensitivity: dict[str, Any], options: ReclassifierAttack) -> dict[str, Any]:
    """Per claim `{value, lo, hi}`, positive where it is right; those on accuracy per norm and radius."""
    claims: dict[str, Any] = {}
    for norm, eps in options.eps.points():
        where = f"{norm}/{eps_key(eps)}"
        for claim, (first, second) in PAIRS.items():
            flags = (arrays[f"correct/{name}/{where}"].astype(float) for name in (first, second))
            change = mean(np.subtract(*flags), LEAST.get(claim, -1.0), 1.0)
            claims.setdefault(claim, {}).setdefault(norm, {})[eps_key(eps)] = change.as_dict()
    claims["fc-more-sensitive"] = {
        measure: interval_over_seeds(sensitivity["fc"][measure] - sensitivity["l2"][measure])
        for measure in ("worst", "per-margin")
    }
    return claims
