"""How well the detector tells adversarial images of one arm's networks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from isorobust.common.runtime import derive_seed
from isorobust.common.splits import Split
from isorobust.common.statistics import Estimate, mean, share
from isorobust.common.workers import spread
from isorobust.detection.detector import FEATURES, BarrierDetector, Seen
from isorobust.detection.inputs import attacked, for_fitting, references
from isorobust.detection.scores import auroc_values
from isorobust.detection.settings import DetectionSettings
from isorobust.errors import UserError, found
from isorobust.networks.zoo import predict
from isorobust.progress import progress, say
from isorobust.ranking import auroc_by_image, share_by_image


class Verdicts(NamedTuple):
    """One seed on N test images: which it gets right; per attack which fooled it; scores of `clean` and of each attack.

    What an attack was not tried on has fooled false and scores of NaN; likewise features of the curves, `[N, 6]`, and
    change, by how much each attack moved an image in L2 and L-infinity, `[N, 2]`.
    """

    right: np.ndarray
    fooled: dict[str, np.ndarray]
    scores: dict[str, dict[str, np.ndarray]]
    thresholds: dict[str, float]
    features: dict[str, np.ndarray]
    change: dict[str, np.ndarray]


def measure(
    models: list[tuple[int, nn.Module]],
    train: Split,
    val: Split,
    test: Split,
    options: DetectionSettings,
    device: torch.device,
    trained: bool,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(numbers, arrays) of the models (seed, network) of one arm; docs/results.md lists both.

    An untrained network gives no image its class, so it is asked about the class that it gives the clean
    image. Errors: UserError where images are too few.
    """
    if options.images > len(test.labels):
        raise found("detection.images", options.images, f"at most {len(test.labels)} (the test images)")
    classes, count = int(train.labels.max()) + 1, len(train.labels)
    if options.references * classes >= count:
        allowed = f"at most {(count - 1) // classes} ({count} training images of {classes} classes, some left for fitting)"
        raise found("detection.references", options.references, allowed)
    if options.fitting.images > (left := count - options.references * classes):
        allowed = f"at most {left} (the training images less the references)"
        raise found("detection.fitting.images", options.fitting.images, allowed)
    splits = train, val, test.first(options.images)

    def look(i: int) -> Verdicts:
        seed, model = models[i]
        return _look(model.to(device).eval(), seed, splits, options, device, trained)

    seen = []
    with progress(len(models), "detect", "seed") as bar:
        for one in spread(look, range(len(models)), device):
            seen.append(one)
            bar.update()
    return summarise([seed for seed, _ in models], seen)


def _look(model: nn.Module, seed: int, splits, options: DetectionSettings, device: torch.device, trained: bool) -> Verdicts:
    for weight in model.parameters():
        weight.requires_grad_(False)
    classes = int(splits[0].labels.max()) + 1
    (train, train_y), (val, val_y), (test, test_y) = (_tensors(split, model, device, trained) for split in splits)
    stream = np.random.default_rng(derive_seed(seed, "references"))
    place = references(model, train, train_y, classes, options.references, stream).to(device)
    detector = BarrierDetector(model, train[place], options.points)
    rest = torch.ones(len(train), dtype=torch.bool, device=device)
    rest[place.flatten()] = False
    # Drawn, because a data set's training images may be in the order of their classes.
    chosen = stream.choice(np.flatnonzero(rest.cpu().numpy()), options.fitting.images, replace=False)
    chosen = torch.from_numpy(np.sort(chosen)).to(device)
    train, train_y = _right(model, train[chosen], train_y[chosen])
    _some(train_y, seed, "clean images to fit to", "larger detection.fitting.images")
    fooling = for_fitting(model, train, train_y, classes, options.fitting.eps, seed)
    if not len(fooling):
        eps = ", ".join(map(str, options.fitting.eps))
        raise UserError(f"detection.fitting.eps: found {eps}, at which no image fools seed {seed}; allowed: larger radii")
    detector.fit(detector.see(train), detector.see(fooling))
    held_out = _right(model, val, val_y)
    _some(held_out[1], seed, "validation images", "a network that gets some right")
    detector.set_thresholds(detector.see(held_out[0]))
    return _judge(detector, test, test_y, held_out, options, seed)


def _some(labels: Tensor, seed: int, what: str, allowed: str) -> None:
    if not len(labels):
        raise UserError(f"detection: found no {what} that seed {seed} gets right; allowed: {allowed}")


def _tensors(split: Split, model: nn.Module, device: torch.device, trained: bool) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(split.images).to(device).float().div_(255)
    return images, torch.from_numpy(split.labels).to(device) if trained else predict(model, images)


def _right(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    kept = predict(model, images) == labels
    return images[kept], labels[kept]


def _judge(detector: BarrierDetector, images: Tensor, labels: Tensor, partners, options, seed: int) -> Verdicts:
    clean = detector.see(images)
    right = clean.classes == labels.cpu().numpy()
    if not right.any():
        raise UserError(f"detection: found no test images that seed {seed} gets right; allowed: larger detection.images")
    fooled, scores, features, change = {}, {"clean": detector.scores(clean)}, {"clean": clean.features}, {}
    for attack, made in attacked(detector, images, labels, partners, options, seed):
        there: Seen = detector.see(made.images)
        places = made.places.cpu().numpy()
        fooled[attack] = np.zeros(len(images), dtype=bool)
        fooled[attack][places] = right[places] & (there.classes != labels[made.places].cpu().numpy())
        scores[attack] = {name: _padded(values, places, len(images)) for name, values in detector.scores(there).items()}
        features[attack] = _padded(there.features, places, len(images))
        moved = (made.images - images[made.places]).flatten(1)
        both = torch.stack([moved.norm(dim=1), moved.abs().amax(1)], dim=1)
        change[attack] = _padded(both.cpu().numpy(), places, len(images))
    return Verdicts(right, fooled, scores, detector.thresholds, features, change)


def _padded(values: np.ndarray, places: np.ndarray, length: int) -> np.ndarray:
    """Values `[n, ...]` at their places, NaN elsewhere, `[length, ...]`."""
    result = np.full((length, *values.shape[1:]), np.nan)
    result[places] = values
    return result


def summarise(seeds: list[int], seen: list[Verdicts]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The numbers and arrays of all seeds of an arm."""
    right = np.stack([one.right for one in seen])
    arrays: dict[str, np.ndarray] = {"seeds": np.array(seeds), "right": right}
    numbers: dict[str, Any] = {"seeds": len(seeds), "images": right.shape[1], "fpr": {}, "fooled": {}}
    numbers |= {"change": {}, "auroc": {}, "tpr_at_5fpr": {}, "curves": {}}
    for name in seen[0].scores["clean"]:
        arrays[f"threshold/{name}"] = limits = np.array([one.thresholds[name] for one in seen])
        arrays[f"score/clean/{name}"] = clean = np.stack([one.scores["clean"][name] for one in seen])
        numbers["fpr"][name] = _shares(clean > limits[:, None], right).as_dict()
    for attack in seen[0].fooled:
        for measure, told in _of_attack(attack, seen, arrays).items():
            numbers[measure][attack] = told
    return numbers, arrays


def _of_attack(attack: str, seen: list[Verdicts], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Measure -> an attack's numbers: how many it fools, and where these are enough how they differ and are detected.

    Adds its verdicts and scores to `arrays`, which hold those on clean images.
    """
    right, names = arrays["right"], list(seen[0].scores[attack])
    arrays[f"fooled/{attack}"] = fooled = np.stack([one.fooled[attack] for one in seen])
    tried = np.stack([~np.isnan(one.scores[attack][names[0]]) for one in seen])
    if not (right & tried).any(1).all():
        say(f"detect: {attack} was tried on no image that some network gets right; it is left out")
        return {}
    told: dict[str, Any] = {"fooled": _shares(fooled, right & tried).as_dict()}
    for name in names:
        arrays[f"score/{attack}/{name}"] = np.stack([one.scores[attack][name] for one in seen])
    if fooled.sum(1).min() < 2:
        say(f"detect: {attack} fools a network on fewer than two images; its detection is left out")
        return told
    change = np.stack([one.change[attack] for one in seen])
    told["change"] = {norm: _means(change[..., k], fooled).as_dict() for k, norm in enumerate(("l2", "linf"))}
    told |= {"auroc": {}, "tpr_at_5fpr": {}}
    for name in names:
        values = auroc_values(arrays, attack, name)
        told["auroc"][name] = mean(values, 0.0, 1.0, int(fooled.any(0).sum())).as_dict()
        above = arrays[f"score/{attack}/{name}"] > arrays[f"threshold/{name}"][:, None]
        told["tpr_at_5fpr"][name] = _shares(above, fooled).as_dict()
    before, after = (np.stack([one.features[kind] for one in seen]) for kind in ("clean", attack))
    told["curves"] = {name: _contrast(before[..., k], after[..., k], right, fooled) for k, name in enumerate(FEATURES)}
    return told


def _contrast(clean: np.ndarray, adversarial: np.ndarray, right: np.ndarray, fooled: np.ndarray) -> dict[str, dict[str, float]]:
    """Of a feature `[S, N]`: means of clean and attacked images that count, difference, effect size (Cohen's d), AUROC."""
    count = int(fooled.any(0).sum())
    real, moved = (
        np.stack([share_by_image(*row) for row in zip(*side)]) for side in ((clean, right), (np.nan_to_num(adversarial), fooled))
    )
    sides = [(a[r], b[f]) for a, b, r, f in zip(clean, adversarial, right, fooled)]
    spread = np.array([np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2) for a, b in sides])[:, None]
    change = moved - real
    effect = np.divide(change, spread, out=np.zeros_like(change), where=spread > 0)
    told = {"real": real, "adversarial": moved, "difference": change, "effect": effect}
    found = {name: mean(values, -np.inf, np.inf, count) for name, values in told.items()}
    ranked = np.stack([auroc_by_image(*row) for row in zip(clean, adversarial, right, fooled)])
    return {name: one.as_dict() for name, one in (found | {"auroc": mean(ranked, 0.0, 1.0, count)}).items()}


def _shares(flags: np.ndarray, counted: np.ndarray) -> Estimate:
    """Share of the flags `[S, N]` that count; n: the images that count in any seed."""
    return share(_by_image(flags, counted), int(counted.sum()))


def _means(values: np.ndarray, counted: np.ndarray) -> Estimate:
    """Mean of the values `[S, N]`, 0 or more, that count; n as in `_shares`."""
    return mean(_by_image(values, counted), 0.0, np.inf)


def _by_image(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    known = counted.any(axis=0)
    return np.stack([share_by_image(*row) for row in zip(values[:, known], counted[:, known])])
