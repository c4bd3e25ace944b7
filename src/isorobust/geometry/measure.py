"""Measures of isometry: functions of inputs `[N, ...]`, representations `[N, D]` and labels `[N]`, each given as its distances.

D_x and D_r are the matrices `[N, N]` of Euclidean distances between inputs and between
representations, d_x and d_r `[P]` their entries over some pairs of images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TAIL = 0.99  # the quantile beside the maximum, which hangs on a single pair


def distance_matrix(x: Tensor) -> np.ndarray:
    """Euclidean distances `[N, N]` between rows of x `[N, ...]`, float64, by differences: identical rows are exactly 0 apart."""
    flat = x.flatten(1).double()
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").cpu().numpy()


def pairs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(within, between): which i < j are of one class and of two, bool `[N, N]` each."""
    same = labels[:, None] == labels
    return np.triu(same, 1), np.triu(~same, 1)


class Fit(NamedTuple):
    """correlation in [-1, 1], stress in [0, 1], scale at least 0; see `fit`."""

    correlation: float
    stress: float
    scale: float


def fit(d_x: np.ndarray, d_r: np.ndarray) -> Fit:
    """How well one scale turns distances d_r `[P]` into d_x `[P]`:

        correlation  Pearson's, of d_r and d_x
        scale        s = argmin_s sum (s d_r - d_x)^2 = sum d_r d_x / sum d_r^2
        stress       sqrt(sum (s d_r - d_x)^2 / sum d_x^2)      (Kruskal's stress 1, Psychometrika 29, 1964)

    The correlation is 0 where either kind of distance does not vary. Representations that are all
    equal fit no scale: it is 0 and the stress 1. Inputs that are all equal have stress 0 if their
    representations are too, else 1 and scale 0.
    """
    squares = float((d_r**2).sum())
    scale = float((d_r * d_x).sum()) / squares if squares > 0 else 0.0
    total = float((d_x**2).sum())
    stress = np.sqrt(float(((scale * d_r - d_x) ** 2).sum()) / total) if total > 0 else float(squares > 0)
    return Fit(_pearson(d_r, d_x), float(stress), scale)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    if not len(a) or np.ptp(a) == 0 or np.ptp(b) == 0:  # asked of the numbers: their mean may be off in the last digit
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()), -1, 1))


def lipschitz(d_x: np.ndarray, d_r: np.ndarray) -> tuple[float, float]:
    """(largest, `TAIL` quantile) of d_r / d_x over pairs `[P]`: empirical Lipschitz constants of the map, below the true one.

    Pairs of identical inputs are left out; (0, 0) if no others are there.
    """
    apart = d_x > 0
    if not apart.any():
        return 0.0, 0.0
    ratios = d_r[apart] / d_x[apart]
    return float(ratios.max()), float(np.quantile(ratios, TAIL))


def nearest_of_class(distances: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether j is among the k nearest of i's class, bool `[N, N]`; ties go to the lower index, smaller classes count whole."""
    others = labels[:, None] == labels
    np.fill_diagonal(others, False)
    order = np.where(others, distances, np.inf).argsort(axis=1, kind="stable")
    near = np.zeros_like(others)
    np.put_along_axis(near, order[:, :k], True, axis=1)
    return near & others


def overlap(near_x: np.ndarray, near_r: np.ndarray) -> np.ndarray:
    """Per image the share of its near_x that are near_r too (both from `nearest_of_class`), `[N]`; NaN for one without any."""
    return _mean_where(near_r, near_x)


def local_distortion(d_x: np.ndarray, d_r: np.ndarray, near: np.ndarray, scale: float) -> np.ndarray:
    """Per image the mean of |scale D_r / D_x - 1| over its neighbours `near` by input, `[N]`; matrices `[N, N]`.

    0 for an image around which distances are kept up to the scale. Neighbours identical to the
    image are left out; NaN for an image without others.
    """
    near = near & (d_x > 0)
    return _mean_where(np.abs(scale * d_r / np.where(near, d_x, 1) - 1), near)


def _mean_where(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Means of rows over the entries in `mask`, NaN for a row without any."""
    count = mask.sum(axis=1)
    return np.where(count > 0, np.where(mask, values, 0).sum(axis=1) / count.clip(min=1), np.nan)


def input_jacobian(features: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """dr/dx `[N, D, P]` of representations `[N, D]` at images `[N, ...]` with P pixels; `features` takes each image by itself.

    One backward pass per output for all images together.
    """
    inputs = images.clone().requires_grad_()
    with torch.enable_grad():
        outputs = features(inputs).sum(dim=0)
        rows = [torch.autograd.grad(output, inputs, retain_graph=True)[0].flatten(1) for output in outputs]
    return torch.stack(rows, dim=1)


class Spectrum(NamedTuple):
    """Per image `[N]`: the largest, median and smallest of the min(D, P) singular values, and smallest / largest in [0, 1]."""

    largest: np.ndarray
    median: np.ndarray
    smallest: np.ndarray
    inverse_condition: np.ndarray


def spectrum(jacobian: Tensor) -> Spectrum:
    """Of Jacobians `[N, D, P]`. An isometry has 1 throughout; a Jacobian of zeros has inverse condition 0."""
    values = torch.linalg.svdvals(jacobian).double().cpu().numpy()
    largest, smallest = values[:, 0], values[:, -1]
    return Spectrum(largest, np.median(values, axis=1), smallest, smallest / np.where(largest > 0, largest, 1))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of a and b `[N]`, ties with their mean rank; 0 where either does not vary."""
    return _pearson(_ranks(a), _ranks(b))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, which, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count + 1) / 2)[which]


def spearman_pseudo_values(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Each image's part in `spearman`, `[N]`: N rho - (N - 1) rho_without_it, whose spread is the jackknife's (Tukey 1958)."""
    count, whole = len(a), spearman(a, b)
    return np.array([count * whole - (count - 1) * spearman(np.delete(a, i), np.delete(b, i)) for i in range(count)])


def by_distance(distance: np.ndarray, distortion: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """(median distance, mean distortion), `[bins]` each, of images `[N]` in order of distance, cut into bins of equal counts."""
    parts = np.array_split(distance.argsort(kind="stable"), bins)
    return np.array([np.median(distance[part]) for part in parts]), np.array([distortion[part].mean() for part in parts])
