"""Split files: `images` uint8 `[N, C, H, W]` and `labels` int64 `[N]` in `data/<name>/{train,val,test}.npz`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from isorobust.common import artifacts
from isorobust.errors import UserError


class Split(NamedTuple):
    """images uint8 `[N, C, H, W]`, labels int64 `[N]` in 0..classes-1."""

    images: np.ndarray
    labels: np.ndarray

    def first(self, count: int) -> Split:
        return Split(self.images[:count], self.labels[:count])

    def class_counts(self) -> list[int]:
        return np.bincount(self.labels).tolist()


def write_split(path: Path | str, split: Split) -> None:
    artifacts.write_npz(path, {"images": split.images, "labels": split.labels})


def read_split(path: Path | str) -> Split:
    """Errors: UserError when the file is missing, damaged, of another shape or type, or has labels below 0."""
    arrays = artifacts.read_npz(path)
    if set(arrays) != {"images", "labels"}:
        raise UserError(f"{path}: found arrays {sorted(arrays)}; allowed: images, labels; delete it and run `dvc repro`")
    images, labels = arrays["images"], arrays["labels"]
    if images.dtype != np.uint8 or images.ndim != 4 or labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise UserError(
            f"{path}: found images {images.dtype} {list(images.shape)}, labels {labels.dtype} {list(labels.shape)}; "
            "allowed: images uint8 [N, C, H, W], labels int64 [N]; delete it and run `dvc repro`"
        )
    if not len(labels):
        raise UserError(f"{path}: holds no images; delete it and run `dvc repro`")
    if labels.min() < 0:
        raise UserError(f"{path}: found label {labels.min()}; allowed: 0 and above; delete it and run `dvc repro`")
    return Split(images, labels)


def check_alike(split: Split, train: Split, what: str) -> None:
    """Errors: UserError where `split`, called `what`, has images of another shape than `train` or labels beyond its classes."""
    shapes, most = [list(one.images.shape[1:]) for one in (split, train)], [int(one.labels.max()) for one in (split, train)]
    if shapes[0] != shapes[1] or most[0] > most[1]:
        raise UserError(
            f"{what}: found images {shapes[0]} and labels up to {most[0]}; allowed: images {shapes[1]} and labels up to "
            f"{most[1]}, as in the training split; delete the odd file and run `dvc repro`"
        )


def stratified(labels: np.ndarray, sizes: list[int], seed: int, what: str) -> list[np.ndarray]:
    """Disjoint index sets of the given sizes, each with every class in its share of the whole.

    Shares that are no whole numbers go to the classes with the largest remainders (lower class first).
    Images keep a random order inside each set. Errors: UserError when the sizes do not fit.
    """
    counts = np.bincount(labels)
    if sum(sizes) > len(labels):
        raise UserError(f"{what}: found sizes {sizes}, together {sum(sizes)}; allowed: at most {len(labels)} images")
    random = np.random.default_rng(seed)
    queues = [random.permutation(np.flatnonzero(labels == k)) for k in range(len(counts))]
    remaining, sets = counts.copy(), []
    for size in sizes:
        share = size * counts / len(labels)
        quota = np.minimum(np.floor(share).astype(int), remaining)
        order = np.lexsort((np.arange(len(counts)), -(share - quota)))
        while quota.sum() < size:
            for k in order:
                if quota.sum() < size and quota[k] < remaining[k]:
                    quota[k] += 1
        taken = [queues[k][:n] for k, n in enumerate(quota)]
        queues = [queues[k][n:] for k, n in enumerate(quota)]
        remaining -= quota
        sets.append(random.permutation(np.concatenate(taken)))
    return sets
