"""Paths between inputs, the loss along them, and ways around what stands in between.

Source: Vrabel, Shem-Ur, Oz, Krueger, "Input space mode connectivity in deep neural networks",
arXiv 2409.05800. All functions work on P pairs of inputs `[P, ...]` at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]  # inputs [N, ...] and the pairs they belong to, int64 [N], to losses [N]
# 1,020 inputs of 28 x 28, 260 of 3 x 32 x 32. A convolution makes ten times as many; memory in pieces above 32 MB the
# C library hands back to the system after every layer, which took longer than the layers did.
VALUES_AT_ONCE = 800_000


class Barrier(NamedTuple):
    """Per path: the highest loss, by how much it is above the higher of the ends, and where it is, from 0 to 1."""

    height: Tensor
    gap: Tensor
    position: Tensor


def linear_path(a: Tensor, c: Tensor, points: int = 250) -> Tensor:
    """Points `[P, T, ...]` of (1 - t) a + t c at T equal steps of t from 0 to 1; both ends are exact.

    a, c `[P, ...]`, floats. Errors: ValueError for shapes or types that differ, for other numbers and fewer than two points.
    """
    _check_ends(a, c)
    if points < 2:
        raise ValueError(f"points must be at least 2, found {points}")
    t = torch.linspace(0, 1, points, dtype=a.dtype, device=a.device).view(1, points, *[1] * (a.ndim - 1))
    return torch.lerp(a.unsqueeze(1), c.unsqueeze(1), t)


def _check_ends(a: Tensor, c: Tensor) -> None:
    if a.shape != c.shape:
        raise ValueError(f"both ends must share their shape, found {list(a.shape)} and {list(c.shape)}")
    if a.dtype != c.dtype or not a.is_floating_point():
        raise ValueError(f"both ends must be floats of one type, found {a.dtype} and {c.dtype}")


def barrier(losses: Tensor) -> Barrier:
    """Of losses `[..., T]` along paths, the ends first and last; the first of several highest points."""
    height, where = losses.max(-1)
    ends = torch.maximum(losses[..., 0], losses[..., -1])
    return Barrier(height, height - ends, where / max(losses.shape[-1] - 1, 1))


def curve_features(losses: Tensor) -> dict[str, Tensor]:
    """Of losses `[..., T]` along paths, each `[...]`: the barrier's height, gap and position, local maxima inside, mean, end."""
    found = barrier(losses)
    inside = (losses[..., 1:-1] > losses[..., :-2]) & (losses[..., 1:-1] >= losses[..., 2:])
    return {
        **found._asdict(),
        "maxima": inside.sum(-1).to(losses.dtype),
        "area": losses.mean(-1),
        "endpoint-loss": losses[..., -1],
    }


def at_once(x: Tensor, points: int, batch: int | None = None) -> int:
    """How many inputs x `[N, ...]`, of `points` points each, to evaluate together: at least one, about `batch` points in all.

    Without `batch` as many points as hold `VALUES_AT_ONCE`.
    """
    if batch is None:
        batch = VALUES_AT_ONCE // max(1, math.prod(x.shape[1:]))
    return max(1, batch // points)


def in_parts(function: Callable[..., Tensor], columns: tuple[Tensor, ...], size: int) -> Tensor:
    """`function` of `size` rows of the columns at a time, its rows in one tensor that is there from the first part on.

    Results that were kept apart would lie between the large pieces of memory that each part frees, and hinder the C
    library (glibc before 2.38) from using those again: by gigabytes on convolutions.
    """
    whole = None
    for start in range(0, max(1, len(columns[0])), size):
        part = function(*(column[start : start + size] for column in columns))
        if whole is None:
            whole = part.new_empty(len(columns[0]), *part.shape[1:])
        whole[start : start + size] = part
    return whole


@torch.no_grad()
def path_losses(loss: Loss, a: Tensor, c: Tensor, pair: Tensor, points: int = 250, batch: int | None = None) -> Tensor:
    """Losses `[P, T]` along the linear paths from a to c `[P, ...]`, `at_once`; `loss` is told `pair` `[P]`."""

    def of_some(a: Tensor, c: Tensor, pair: Tensor) -> Tensor:
        return loss(linear_path(a, c, points).flatten(0, 1), pair.repeat_interleave(points)).view(len(a), points)

    return in_parts(of_some, (a, c, pair), at_once(a, points, batch))


class Path(NamedTuple):
    """Polylines of all pairs as a flat list of segments, pair by pair and in order from a to c.

    start, end `[S, ...]`, pair `[S]` (whose path a segment belongs to), losses `[S, T]`.
    """

    start: Tensor
    end: Tensor
    pair: Tensor
    losses: Tensor

    def barrier(self, pairs: int) -> Tensor:
        """Highest loss of each pair's path, `[pairs]`."""
        highest = self.losses.new_full((pairs,), -torch.inf)
        return highest.scatter_reduce(0, self.pair, self.losses.amax(1), "amax")

    def segments(self, pairs: int) -> Tensor:
        """Number of segments of each pair's path, `[pairs]`."""
        return torch.bincount(self.pair, minlength=pairs)


class Bypassed(NamedTuple):
    """path: after the last round; heights `[R + 1, P]`: the barrier before the first round and after each."""

    path: Path
    heights: Tensor


def bypass(
    loss: Loss,
    a: Tensor,
    c: Tensor,
    *,
    threshold: float | Tensor,
    rounds: int = 3,
    points: int = 250,
    steps: int = 1000,
    learning_rate: float = 0.005,
    closeness: float = 0.1,
    smoothness: float = 1e-8,
    batch: int | None = None,
) -> Bypassed:
    """Lead the paths from a to c `[P, ...]` around their barriers.

    `loss(x, pair)` gives the losses `[N]` of inputs `[N, ...]`, told by `pair` `[N]` to which of the P paths each belongs.
    In every round each segment whose loss is anywhere above `threshold` (a loss, one for all or `[P]`; to allow a rise
    above the ends, add it to theirs) is broken at its highest point B, which moves to B' so that

        loss(x) + closeness * mean((x - B)^2) + smoothness * TV(x - B)

    falls (Adam, `steps` steps), its gradient projected onto the hyperplane that stands on the segment;
    the path then runs over B' if that lowers its highest loss, and stays as it was otherwise (our choice: Adam may end
    higher than it began). Rounds end when no segment is above the threshold. Inputs may leave [0, 1]. Losses along
    paths are taken of about `batch` inputs at a time (None: of 3 MB of them), on which no more than their last bits depend.
    Errors: ValueError for ends as of `linear_path`, a threshold that is NaN, and rounds or steps below 0.
    """
    _check_ends(a, c)
    if rounds < 0 or steps < 0:
        raise ValueError(f"rounds and steps must be at least 0, found {rounds} and {steps}")
    if torch.as_tensor(threshold).isnan().any():
        raise ValueError("threshold must be a number, found NaN")
    a, c = a.detach(), c.detach()
    pair = torch.arange(len(a), device=a.device)
    path = Path(a, c, pair, path_losses(loss, a, c, pair, points, batch))
    limit = torch.as_tensor(threshold, dtype=path.losses.dtype, device=path.losses.device).expand(len(a))
    heights = [path.barrier(len(a))]
    for _ in range(rounds):
        above = path.losses.amax(1) > limit[path.pair]
        if above.any():
            path = _around(loss, path, above, points, steps, learning_rate, closeness, smoothness, batch)
        heights.append(path.barrier(len(a)))
    return Bypassed(path, torch.stack(heights))


def _around(loss: Loss, path: Path, above: Tensor, points: int, steps: int, learning_rate, closeness, smoothness, batch) -> Path:
    start, end, pair = path.start[above], path.end[above], path.pair[above]
    position = barrier(path.losses[above]).position.to(start).view(-1, *[1] * (start.ndim - 1))
    moved = lower(loss, torch.lerp(start, end, position), end - start, pair, steps, learning_rate, closeness, smoothness)
    halves = [(start, moved), (moved, end)]
    losses = [path_losses(loss, first, last, pair, points, batch) for first, last in halves]
    lower_now = torch.stack(losses).amax((0, 2)) < path.losses[above].amax(1)
    halves = [(first[lower_now], last[lower_now]) for first, last in halves]
    losses, pair = [part[lower_now] for part in losses], pair[lower_now]
    above = above.clone()
    above[above.nonzero().flatten()[~lower_now]] = False
    order = torch.arange(len(path.pair), device=pair.device).double()
    kept = ~above
    places = torch.cat([order[kept], order[above], order[above] + 0.5]).argsort()
    return Path(
        torch.cat([path.start[kept], halves[0][0], halves[1][0]])[places],
        torch.cat([path.end[kept], halves[0][1], halves[1][1]])[places],
        torch.cat([path.pair[kept], pair, pair])[places],
        torch.cat([path.losses[kept], *losses])[places],
    )


def lower(
    loss: Loss,
    points: Tensor,
    direction: Tensor,
    pair: Tensor,
    steps: int,
    learning_rate: float,
    closeness: float,
    smoothness: float,
) -> Tensor:
    """Points `[S, ...]` moved to lower loss within the hyperplanes through them that stand on `direction` `[S, ...]`.

    Adam scales coordinates one by one, which turns a projected gradient out of the hyperplane; so each
    point is projected back after every step.
    """
    flat = direction.flatten(1)
    length = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    unit = torch.where(length > 0, flat / length.clamp(min=1e-30), 0)

    def without(x: Tensor) -> Tensor:
        rows = x.flatten(1)
        return (rows - (rows * unit).sum(1, keepdim=True) * unit).view_as(x)

    moved = points.clone().requires_grad_()
    adam = torch.optim.Adam([moved], lr=learning_rate)
    for _ in range(steps):
        change = moved - points
        total = loss(moved, pair) + closeness * change.flatten(1).square().mean(1) + smoothness * total_variation(change)
        (gradient,) = torch.autograd.grad(total.sum(), moved)
        moved.grad = without(gradient)
        adam.step()
        with torch.no_grad():
            moved.copy_(points + without(moved - points))
    return moved.detach()


def total_variation(x: Tensor) -> Tensor:
    """Sum of absolute differences between neighbouring pixels of x `[N, C, H, W]`, `[N]`; 0 for inputs of another form."""
    if x.ndim != 4:
        return x.new_zeros(len(x))
    return sum(torch.diff(x, dim=dim).abs().flatten(1).sum(1) for dim in (2, 3))
