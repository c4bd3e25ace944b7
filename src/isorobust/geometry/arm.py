"""Measuring one arm: its checkpoint in, numbers with intervals and per-image arrays out."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from isorobust.attacks.perturb import nearest
from isorobust.claims import verdict
from isorobust.common.splits import Split
from isorobust.common.statistics import difference, over_seeds
from isorobust.common.workers import spread
from isorobust.errors import found
from isorobust.geometry import measure
from isorobust.geometry.settings import GeometrySettings
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.zoo import Network, predict
from isorobust.progress import say

BATCH = 1000  # images per forward pass
POSITIVE = (0.0, np.inf)
RANGES = {  # to which intervals are clipped; of all others: POSITIVE
    ("distances", "correlation"): (-1.0, 1.0),
    ("distances", "stress"): (0.0, 1.0),
    ("neighbours", "overlap"): (0.0, 1.0),
    ("jacobian", "inverse_condition"): (0.0, 1.0),
    ("boundary", "found"): (0.0, 1.0),
}


class Sample(NamedTuple):
    """What all seeds share: images `[N, C, H, W]` on the device, labels `[N]`, and the geometry of the inputs."""

    images: Tensor
    labels: np.ndarray
    d_x: np.ndarray
    within: np.ndarray
    between: np.ndarray
    near: np.ndarray


class Measured(NamedTuple):
    """One seed: `numbers` by path of keys; boundary distance and local distortion of the first images `[n]`."""

    numbers: dict[tuple[str, ...], float]
    distance: np.ndarray
    distortion: np.ndarray


def measure_arm(
    checkpoint: Checkpoint, test: Split, options: GeometrySettings, device: torch.device
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(numbers as `{value, lo, hi, n}`, arrays) of the last hidden layer of all seeds of an arm; docs/results.md lists both.

    Numbers are means over seeds with Student's t intervals, which speak of new seeds on these
    images. The correlation of distortion with boundary distance, on which the verdict rests, has an
    interval for new seeds and new images. An image for which no boundary was found counts as the
    diagonal of the pixels' box away from it: no image is further.
    Errors: UserError when `options` asks for more images than there are, or for so few that no pair is left.
    """
    sample = _sample(test, options, device)
    seeds = list(spread(lambda seed: _measure(checkpoint.network(seed, device), sample, options), checkpoint.seeds, device))
    counts = {"jacobian": options.jacobian_images, "boundary": options.boundary_images}
    numbers: dict[str, Any] = {"seeds": len(seeds)}
    for path in seeds[0].numbers:
        node = numbers
        for key in path[:-1]:
            node = node.setdefault(key, {})
        values = [seed.numbers[path] for seed in seeds]
        node[path[-1]] = over_seeds(values, *RANGES.get(path, POSITIVE), counts.get(path[0], options.images))
    distance, distortion = np.stack([seed.distance for seed in seeds]), np.stack([seed.distortion for seed in seeds])
    others = (sample.labels[:, None] == sample.labels).sum(axis=1) - 1
    numbers["neighbours"]["chance"] = float((sample.near.sum(axis=1)[others > 0] / others[others > 0]).mean())
    numbers["boundary"] |= _against_distance(distance, distortion, options)
    arrays = {"seeds": np.array(checkpoint.seeds), "boundary/distance": distance, "boundary/distortion": distortion}
    return numbers, arrays


def _sample(test: Split, options: GeometrySettings, device: torch.device) -> Sample:
    if options.images > len(test.labels):
        raise found("geometry.images", options.images, f"at most {len(test.labels)} (the test images)")
    split = test.first(options.images)
    within, between = measure.pairs(split.labels)
    if not within.any() or not between.any():
        raise found("geometry.images", options.images, "so many that two are of one class and two are not")
    if options.neighbours >= (largest := max(split.class_counts())):
        raise found("geometry.neighbours", options.neighbours, f"below {largest}, the images of the largest class")
    images = torch.from_numpy(split.images).to(device).float().div_(255)
    d_x = measure.distance_matrix(images)
    near = measure.nearest_of_class(d_x, split.labels, options.neighbours)
    say(f"{len(split.labels)} test images, per class: {split.class_counts()}; {within.sum()} pairs within classes")
    return Sample(images, split.labels, d_x, within, between, near)


def _measure(network: Network, sample: Sample, options: GeometrySettings) -> Measured:
    with torch.no_grad():
        d_r = measure.distance_matrix(torch.cat([network.features(part) for part in sample.images.split(BATCH)]))
    numbers: dict[tuple[str, ...], float] = {}
    fit = measure.fit(sample.d_x[sample.within], d_r[sample.within])
    for name, value in fit._asdict().items():
        numbers["distances", name] = value
    near_r = measure.nearest_of_class(d_r, sample.labels, options.neighbours)
    numbers["neighbours", "overlap"] = float(np.nanmean(measure.overlap(sample.near, near_r)))
    for name, mask in (("within", sample.within), ("between", sample.between)):
        numbers["lipschitz", name, "max"], numbers["lipschitz", name, "p99"] = measure.lipschitz(sample.d_x[mask], d_r[mask])
    # In float64, because the smallest singular values are below the rounding of float32.
    exact = copy.deepcopy(network).double()
    jacobian = measure.input_jacobian(exact.features, sample.images[: options.jacobian_images].double())
    for name, values in measure.spectrum(jacobian)._asdict().items():
        numbers["jacobian", name] = float(np.median(values))  # over images: small singular values differ by decades
    count = options.boundary_images
    first = sample.images[:count]
    # Of the class that the network gives: a wrong image lies on the wrong side of a boundary, not on it.
    distance = nearest(network, first, predict(network, first), options.fab_steps).distances.double().cpu().numpy()
    reached = np.isfinite(distance)
    distance = np.where(reached, distance, np.sqrt(sample.images[0].numel()))
    numbers["boundary", "found"] = float(reached.mean())
    numbers["boundary", "distance"] = float(np.median(distance))
    distortion = measure.local_distortion(sample.d_x, d_r, sample.near, fit.scale)[:count]
    return Measured(numbers, distance, distortion)


def _against_distance(distance: np.ndarray, distortion: np.ndarray, options: GeometrySettings) -> dict[str, Any]:
    """Of matrices `[S, n]`: whether images nearer to the boundary are more distorted, and by how much, bin by bin."""
    known = np.isfinite(distortion[0])  # the neighbours are those of the inputs, so an image has some on all seeds or on none
    distance, distortion = distance[:, known], distortion[:, known]
    needed = max(options.bins, 2)
    if distance.shape[1] < needed:
        raise found("geometry.boundary_images", options.boundary_images, f"so many that {needed} have neighbours")
    parts = np.stack([measure.spearman_pseudo_values(*rows) for rows in zip(distance, distortion)])
    correlation = difference(parts, np.zeros_like(parts))  # of 0: the mean of the parts, with the crossed design's interval
    binned = np.array([measure.by_distance(*rows, options.bins) for rows in zip(distance, distortion)])  # [S, 2, bins]
    sizes = [len(part) for part in np.array_split(np.arange(distance.shape[1]), options.bins)]
    bins = {
        str(i + 1): {name: over_seeds(binned[:, j, i], *POSITIVE, size) for j, name in enumerate(("distance", "distortion"))}
        for i, size in enumerate(sizes)
    }
    whole = over_seeds(distortion.mean(axis=1), *POSITIVE, distance.shape[1])
    return {
        "distortion": whole,
        "correlation": correlation.as_dict(),
        "verdict": verdict(-correlation.hi, -correlation.lo),
        "bins": bins,
    }
