"""The isometric term: distances between representations against distances between inputs, inside each class.

Source: Beshkov, Verhellen, Lepperoed, "Isometric representations in neural networks improve
robustness", arXiv 2211.01236, the loss of its locally isometric layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["paper", "pairs"]
Layers = Literal["last", "all"]
Pairs = Literal["same-class", "all"]
Distances = Literal["pixels", "features"]


def isometric_loss(
    inputs: Tensor,
    representations: Tensor,
    labels: Tensor,
    *,
    scale: float = 1.0,
    reduction: Reduction = "paper",
    neighbours: int | None = None,
) -> Tensor:
    """Mean squared difference of same-class distances, a scalar:

        mean_ij (scale * Y_ij * |r_i - r_j| - Y_ij * |x_i - x_j|)^2,   Y_ij = [y_i == y_j]

    inputs `[N, ...]` and representations `[N, ...]` (flattened), labels `[N]`. `reduction="paper"`
    divides by N^2, zeros of other classes and the diagonal included, as the published code does;
    `"pairs"` divides by the ordered same-class pairs i != j that are kept. `neighbours=k` keeps a
    pair if either is among the other's k nearest of its class by input distance (ties: lower
    index); None keeps all. Small distances are taken by differences, so identical rows are exactly 0
    apart; the gradient there is 0. Without any pair the loss is 0 with zero gradient. Distances are
    taken in float32 or float64, whatever `torch.autocast` says: half types are raised to float32.
    Errors: ValueError for shapes that do not fit, numbers that are not floating point (pixels as
    uint8), a scale or k not above 0, an unknown reduction.
    """
    if not len(inputs) == len(representations) == len(labels) or labels.ndim != 1:
        raise ValueError(
            f"inputs {list(inputs.shape)}, representations {list(representations.shape)} and labels {list(labels.shape)} "
            "must share their first length, labels one-dimensional"
        )
    return _losses(inputs[None], (representations[None],), labels[None], scale, reduction, neighbours)[0]


def isometric_term(
    inputs: Tensor,
    stem: Tensor,
    hidden: Sequence[Tensor],
    labels: Tensor,
    *,
    scale: float | Tensor = 1.0,
    reduction: Reduction = "paper",
    neighbours: int | None = None,
    layers: Layers = "last",
    pairs: Pairs = "same-class",
    distances: Distances = "pixels",
) -> Tensor:
    """`isometric_loss` of S networks at once, `[S]`, with the options that take whole networks (docs/methods.md).

    inputs `[S, N, ...]`, stem `[S, N, F]` and hidden `[S, N, D_l]` as in `Activations`, labels
    `[S, N]`, scale maybe `[S]`. `layers="all"` adds the losses of all hidden layers; `pairs="all"` keeps distances
    across classes too; `distances="features"` takes the input distances in the stem, as constants.
    """
    target = stem.detach() if distances == "features" else inputs
    chosen = hidden if layers == "all" else hidden[-1:]
    groups = torch.zeros_like(labels) if pairs == "all" else labels
    return _losses(target, chosen, groups, scale, reduction, neighbours)


def _losses(
    inputs: Tensor, layers: Sequence[Tensor], labels: Tensor, scale: float | Tensor, reduction: Reduction, neighbours: int | None
) -> Tensor:
    if not bool(torch.as_tensor(scale > 0).all()):
        raise ValueError(f"scale must be above 0, found {scale}")
    if neighbours is not None and neighbours < 1:
        raise ValueError(f"neighbours must be at least 1 or None, found {neighbours}")
    if reduction not in ("paper", "pairs"):
        raise ValueError(f"reduction must be 'paper' or 'pairs', found {reduction!r}")
    with torch.autocast(inputs.device.type, enabled=False):
        return _in_full(_exact(inputs), [_exact(layer) for layer in layers], labels, scale, reduction, neighbours)


def _exact(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise ValueError(f"inputs and representations must be floating point, found {x.dtype}")
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _in_full(
    inputs: Tensor, layers: Sequence[Tensor], labels: Tensor, scale: float | Tensor, reduction: Reduction, neighbours: int | None
) -> Tensor:
    stacks, count = labels.shape
    stack, first, second = same_class_pairs(labels)
    rows_a, rows_b = stack * count + first, stack * count + second
    if inputs.requires_grad:
        target = _distances(inputs, rows_a, rows_b)
    else:
        target = _constant_distances(inputs, stack, first, second)
    if neighbours is not None and len(stack):
        keep = _near(target, stack, first, second, stacks, count, neighbours)
        stack, rows_a, rows_b, target = stack[keep], rows_a[keep], rows_b[keep], target[keep]
    factor = scale[stack] if isinstance(scale, Tensor) else scale
    total = None
    for representations in layers:
        actual = _distances(representations, rows_a, rows_b)
        squares = (factor * actual - target.to(actual.dtype)).square()
        # Each unordered pair stands for two entries of the symmetric matrix.
        sums = 2.0 * actual.new_zeros(stacks).index_add(0, stack, squares)
        total = sums if total is None else total + sums
    if reduction == "paper":
        return total / count**2
    pairs = 2 * torch.bincount(stack, minlength=stacks)
    return total / pairs.clamp(min=1).to(total.dtype)


def same_class_pairs(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs i < j of one class in labels `[S, N]`: (stack, i, j), each `[P]`, in rising order."""
    same = labels.unsqueeze(2) == labels.unsqueeze(1)  # [S, N, N]
    return torch.triu(same, diagonal=1).nonzero(as_tuple=True)


def _distances(x: Tensor, rows_a: Tensor, rows_b: Tensor) -> Tensor:
    """Euclidean distances `[P]` between rows of x `[S, N, ...]`, numbered through all stacks.

    By differences: the matrix-product formula puts identical float32 rows 0.009 apart on MNIST.
    `vector_norm` has gradient 0 where the distance is 0.
    """
    flat = x.reshape(x.shape[0] * x.shape[1], -1)
    return torch.linalg.vector_norm(flat.index_select(0, rows_a) - flat.index_select(0, rows_b), dim=1)


def _constant_distances(x: Tensor, stack: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The same distances without gradient, through one product per stack: half the time of the differences.

    The product formula loses digits where rows are close, so those distances, a hundredth of the
    rows' squared lengths and less, are taken by differences after all.
    """
    flat = x.flatten(2)
    products = torch.bmm(flat, flat.transpose(1, 2))
    squares = products.diagonal(dim1=1, dim2=2)
    lengths = squares[stack, first] + squares[stack, second]
    squared = lengths - 2 * products[stack, first, second]
    close = (squared < 0.01 * lengths).nonzero().flatten()
    distances = squared.clamp(min=0).sqrt()
    if len(close):
        count = x.shape[1]
        distances[close] = _distances(x, (stack * count + first)[close], (stack * count + second)[close])
    return distances


def _near(distance: Tensor, stack: Tensor, first: Tensor, second: Tensor, stacks: int, count: int, k: int) -> Tensor:
    """Which pairs have one point among the other's k nearest of the class; ties go to the lower index."""
    matrix = distance.new_full((stacks, count, count), torch.inf)
    matrix[stack, first, second] = matrix[stack, second, first] = distance.detach()
    rank = matrix.argsort(dim=2, stable=True).argsort(dim=2)
    return (rank[stack, first, second] < k) | (rank[stack, second, first] < k)
