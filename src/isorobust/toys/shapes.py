"""Points of the toys: float32 inputs `[N, 3]`, no box; labels int64 `[N]`; the angles `[N, 2]` in [0, 2 pi) that made them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from isorobust.common.runtime import derive_seed
from isorobust.common.splits import Split
from isorobust.toys.settings import Rings, Torus

TURN = 2 * np.pi


class Points(NamedTuple):
    inputs: np.ndarray
    labels: np.ndarray
    angles: np.ndarray

    def split(self) -> Split:
        return Split(self.inputs, self.labels)


def ring_points(angle: np.ndarray, label: np.ndarray, options: Rings) -> np.ndarray:
    """Places `[N, 3]` on ring 0 (z = 0, about the origin) or ring 1 (y = 0, about x = offset)."""
    along, across = options.radius * np.cos(angle), options.radius * np.sin(angle)
    first = np.stack([along, across, 0 * angle], axis=1)
    second = np.stack([options.offset + along, 0 * angle, across], axis=1)
    return np.where(label[:, None] == 0, first, second)


def torus_points(angles: np.ndarray, options: Torus) -> np.ndarray:
    """Places `[N, 3]` of angles `[N, 2]`: the long way round, then the short way."""
    long, short = angles.T
    out = options.major + options.minor * np.cos(short)
    return np.stack([out * np.cos(long), out * np.sin(long), options.minor * np.sin(short)], axis=1)


def sector(long: np.ndarray, classes: int) -> np.ndarray:
    """The class of angles in [0, 2 pi): `classes` equal sectors."""
    return np.minimum((long / TURN * classes).astype(np.int64), classes - 1)


def rings(options: Rings, part: str) -> Points:
    """`part`: train, val or test, each with a stream of its own; angles are uniform."""
    random = np.random.default_rng(derive_seed(options.seed, "rings", part))
    count = options.points if part == "train" else -(-options.test_points // 2)
    labels = np.repeat(np.arange(2), count)
    angles = random.uniform(0, TURN, (2 * count, 1))
    return _noisy(ring_points(angles[:, 0], labels, options), labels, np.repeat(angles, 2, axis=1), options.noise, random)


def torus(options: Torus, classes: int, part: str) -> Points:
    """`part`: train is a grid of side x side angles, shifted off the sectors' edges; val and test angles are uniform."""
    random = np.random.default_rng(derive_seed(options.seed, "torus", part))
    if part == "train":
        steps = (np.arange(options.side) + 0.5) * TURN / options.side
        angles = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    else:
        angles = random.uniform(0, TURN, (options.test_points, 2))
    return _noisy(torus_points(angles, options), sector(angles[:, 0], classes), angles, options.noise, random)


def _noisy(places: np.ndarray, labels: np.ndarray, angles: np.ndarray, noise: float, random: np.random.Generator) -> Points:
    return Points((places + noise * random.standard_normal(places.shape)).astype(np.float32), labels, angles)
