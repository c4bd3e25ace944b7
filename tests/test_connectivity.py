"""Paths, barriers and bypasses on functions whose barriers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import isorobust
from isorobust.connectivity.paths import barrier, bypass, linear_path, lower, path_losses, total_variation


def bump(width):
    """A Gaussian bump of height 1 at the origin."""
    return lambda x, pair: torch.exp(-x.flatten(1).square().sum(1) / (2 * width**2))


def pairs(count, dimension, seed=0):
    """Pairs [P, D] whose segments all run through the origin, between points of length 1 to 2."""
    stream = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(count, dimension, generator=stream), dim=1)
    return -directions * (1 + torch.rand(count, 1, generator=stream)), directions * (1 + torch.rand(count, 1, generator=stream))


def test_a_path_runs_from_end_to_end_in_equal_steps():
    a, c = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    path = isorobust.linear_path(a, c, 11)
    assert path.shape == (3, 11, 1, 4, 4) and torch.equal(path[:, 0], a) and torch.equal(path[:, -1], c)
    for i, t in enumerate(np.linspace(0, 1, 11)):
        assert torch.allclose(path[:, i], (1 - t) * a + t * c, atol=1e-6)


@pytest.mark.parametrize(
    ("a", "c", "points", "message"),
    [(torch.rand(2, 3), torch.rand(2, 4), 5, "share their shape"), (torch.rand(2, 3), torch.rand(2, 3), 1, "at least 2")],
    ids=["other shape", "one point"],
)
def test_paths_that_cannot_be_are_refused(a, c, points, message):
    with pytest.raises(ValueError, match=message):
        linear_path(a, c, points)


def test_barrier_of_written_out_losses():
    height, gap, position = isorobust.barrier(torch.tensor([[1.0, 5.0, 2.0], [4.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert height.tolist() == [5, 4, 0] and gap.tolist() == [3, 0, 0] and position.tolist() == [0.5, 0, 0]


def test_a_quadratic_has_no_barrier():
    a, c = torch.randn(20, 6), torch.randn(20, 6)
    losses = path_losses(lambda x, pair: x.square().sum(1), a, c, torch.arange(20))
    assert barrier(losses).gap.abs().max() == 0


def test_a_bump_in_the_way_has_its_height_and_place():
    a, c = pairs(30, 5)
    losses = path_losses(bump(0.2), a, c, torch.arange(30), points=501)
    found = barrier(losses)
    lengths = [x.norm(dim=1) for x in (a, c)]
    assert torch.allclose(found.height, torch.ones(30), atol=1e-3)
    assert torch.allclose(found.position, lengths[0] / (lengths[0] + lengths[1]), atol=2e-3)


def test_losses_do_not_depend_on_how_they_are_batched():
    a, c = pairs(7, 3)
    each = [path_losses(bump(0.3), a[i : i + 1], c[i : i + 1], torch.tensor([0]), 20) for i in range(7)]
    for size in (20, 50, 10_000):
        assert torch.allclose(path_losses(bump(0.3), a, c, torch.arange(7), 20, batch=size), torch.cat(each))


def test_the_pair_tells_the_loss_whose_path_it_is():
    a, c = torch.zeros(3, 2), torch.ones(3, 2)
    losses = path_losses(lambda x, pair: x.sum(1) * (pair + 1), a, c, torch.arange(3), 5)
    assert torch.allclose(losses[:, -1], torch.tensor([2.0, 4.0, 6.0]))


def test_a_bypass_leads_around_the_bump_in_all_pairs_at_once():
    a, c = pairs(200, 4)
    found = isorobust.bypass(bump(0.2), a, c, threshold=0.3, rounds=3, points=50, steps=300, learning_rate=0.01, closeness=0.0)
    assert found.heights.shape == (4, 200)
    assert (found.heights[0] > 0.9).all() and (found.heights[-1] < 0.3).all()
    assert not (found.heights.diff(dim=0) > 1e-6).any()
    path = found.path
    for p in range(0, 200, 40):
        mine = (path.pair == p).nonzero().flatten()
        assert torch.equal(path.start[mine[0]], a[p]) and torch.equal(path.end[mine[-1]], c[p])
        assert torch.equal(path.end[mine[:-1]], path.start[mine[1:]])
    assert path.segments(200).tolist() == [int((path.pair == p).sum()) for p in range(200)]


def test_a_batch_of_pairs_goes_the_ways_of_each_pair_alone():
    a, c = pairs(5, 4)
    options = {"threshold": 0.2, "rounds": 2, "points": 30, "steps": 50, "learning_rate": 0.02}
    together = bypass(bump(0.3), a, c, **options)
    for p in range(5):
        alone = bypass(bump(0.3), a[p : p + 1], c[p : p + 1], **options)
        assert torch.allclose(together.heights[:, p], alone.heights[:, 0], atol=1e-5)


def test_where_nothing_is_in_the_way_the_path_stays_straight():
    a, c = torch.randn(6, 3), torch.randn(6, 3)
    found = bypass(lambda x, pair: x.square().sum(1), a, c, threshold=1e9, rounds=3, points=20)
    assert len(found.path.pair) == 6 and (found.heights == found.heights[0]).all()


def test_points_move_within_the_hyperplane_on_the_segment():
    points, direction = torch.randn(8, 1, 5, 5), torch.randn(8, 1, 5, 5)
    moved = lower(bump(1.0), points, direction, torch.arange(8), 40, 0.05, 0.1, 1e-3)
    change = (moved - points).flatten(1)
    assert (change.norm(dim=1) > 0.1).all()
    assert ((change * direction.flatten(1)).sum(1).abs() < 1e-4 * change.norm(dim=1) * direction.flatten(1).norm(dim=1)).all()


def test_identical_ends_give_a_segment_of_no_direction():
    point = torch.full((1, 3), 0.1)
    found = bypass(bump(0.2), point, point, threshold=0.1, rounds=1, points=5, steps=20)
    assert torch.isfinite(found.heights).all() and torch.isfinite(found.path.start).all()


def test_total_variation_equals_its_loop():
    x = torch.randn(2, 2, 3, 4)
    for n in range(2):
        total = 0.0
        for k in range(2):
            for i in range(3):
                for j in range(4):
                    total += abs(float(x[n, k, i, j] - x[n, k, i - 1, j])) if i else 0
                    total += abs(float(x[n, k, i, j] - x[n, k, i, j - 1])) if j else 0
        assert float(total_variation(x)[n]) == pytest.approx(total, rel=1e-5)
    assert total_variation(torch.randn(3, 7)).tolist() == [0, 0, 0]
