"""The isometric term against its loop-written twin, and at the points where distances have no gradient."""

from __future__ import annotations

import pytest
import torch

from isorobust import isometric_loss
from isorobust.objectives.isometry import isometric_term, same_class_pairs


def naive(inputs, representations, labels, scale, reduction, neighbours):
    """Two loops over all entries of the matrices, as the paper writes it."""
    n = len(labels)

    def distance(a, b):
        return torch.zeros((), dtype=a.dtype) if torch.equal(a, b) else (a - b).square().sum().sqrt()

    def nearest(i):
        same = [j for j in range(n) if j != i and labels[j] == labels[i]]
        return sorted(same, key=lambda j: (float(distance(inputs[i], inputs[j])), j))[:neighbours]

    total, kept = torch.zeros((), dtype=representations.dtype), 0
    for i in range(n):
        for j in range(n):
            if i == j or labels[i] != labels[j]:
                continue
            if neighbours is not None and j not in nearest(i) and i not in nearest(j):
                continue
            total = total + (scale * distance(representations[i], representations[j]) - distance(inputs[i], inputs[j])) ** 2
            kept += 1
    return total / (n * n if reduction == "paper" else max(kept, 1))


@pytest.mark.parametrize("neighbours", [None, 1, 2, 50], ids=lambda k: f"k={k}")
@pytest.mark.parametrize("reduction", ["paper", "pairs"])
@pytest.mark.parametrize("scale", [1.0, 10.0], ids=lambda s: f"scale={s}")
def test_value_and_gradient_equal_the_naive_twin(scale, reduction, neighbours):
    torch.manual_seed(1)
    inputs = torch.rand(17, 2, 3, dtype=torch.float64)
    representations = torch.randn(17, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (17,))
    inputs[5], labels[5] = inputs[4], labels[4]  # identical inputs with different representations are a pair
    ours = isometric_loss(inputs, representations, labels, scale=scale, reduction=reduction, neighbours=neighbours)
    twin = naive(inputs, representations, labels, scale, reduction, neighbours)
    torch.testing.assert_close(ours, twin, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(ours, representations)
    (expected,) = torch.autograd.grad(twin, representations)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)


def test_ties_among_neighbours_go_to_the_lower_index():
    inputs = torch.tensor([[0.0], [1.0], [-1.0], [10.0]])  # 1 and 2 are equally far from 0
    representations = torch.tensor([[0.0], [3.0], [5.0], [0.0]])
    loss = isometric_loss(inputs, representations, torch.zeros(4, dtype=torch.long), reduction="pairs", neighbours=1)
    # kept: 0-1 (nearest of both), 2-0 (nearest of 2), 3-1 (nearest of 3)
    assert loss.item() == pytest.approx(((3 - 1) ** 2 + (5 - 1) ** 2 + (3 - 9) ** 2) / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_zero_where_all_representations_coincide(dtype):
    representations = torch.zeros(4, 3, dtype=dtype, requires_grad=True)
    loss = isometric_loss(torch.rand(4, 5, dtype=dtype), representations, torch.zeros(4, dtype=torch.long))
    loss.backward()
    assert loss > 0
    assert torch.equal(representations.grad, torch.zeros_like(representations))


@pytest.mark.parametrize("labels", [torch.arange(4), torch.tensor([7])], ids=["all classes differ", "one image"])
@pytest.mark.parametrize("reduction", ["paper", "pairs"])
@pytest.mark.parametrize("neighbours", [None, 1])
def test_without_a_pair_loss_and_gradient_are_exactly_zero(labels, reduction, neighbours):
    representations = torch.rand(len(labels), 3, requires_grad=True)
    loss = isometric_loss(torch.rand(len(labels), 5), representations, labels, reduction=reduction, neighbours=neighbours)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(representations.grad, torch.zeros_like(representations))


def test_an_isometry_has_loss_zero_and_its_scale_is_the_inverse():
    torch.manual_seed(0)
    inputs = torch.randn(12, 6, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    labels = torch.arange(12) % 2
    assert isometric_loss(inputs, inputs @ rotation, labels).item() < 1e-25
    assert isometric_loss(inputs, inputs @ rotation / 10, labels, scale=10).item() < 1e-25


def test_identical_float32_rows_are_exactly_0_apart():
    row = torch.rand(784)
    loss = isometric_loss(
        torch.stack([row, row]), torch.tensor([[0.0], [2.0]]), torch.zeros(2, dtype=torch.long), reduction="pairs"
    )
    assert loss.item() == 4.0


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_and_autocast_leave_distances_in_float32(kind):
    torch.manual_seed(0)
    inputs, representations = torch.rand(20, 784), torch.randn(20, 8)
    labels = torch.arange(20) % 2
    inputs[2] = inputs[0]  # so close that their distance is taken by differences
    with torch.autocast("cpu", torch.bfloat16):
        under = isometric_loss(inputs, representations, labels)
    assert torch.equal(under, isometric_loss(inputs, representations, labels))
    raised = isometric_loss(inputs.to(kind).float(), representations.to(kind).float(), labels)
    assert torch.equal(isometric_loss(inputs.to(kind), representations.to(kind), labels), raised)


def test_a_stack_equals_its_batches_bit_for_bit():
    torch.manual_seed(0)
    inputs, representations = torch.rand(3, 20, 30), torch.randn(3, 20, 8)
    labels = torch.randint(0, 3, (3, 20))
    for options in ({}, {"neighbours": 2, "reduction": "pairs"}):
        stacked = isometric_term(inputs, inputs, [representations], labels, **options)
        alone = [isometric_loss(inputs[s], representations[s], labels[s], **options) for s in range(3)]
        assert torch.equal(stacked, torch.stack(alone))


def test_same_class_pairs_are_all_and_only_those():
    labels = torch.tensor([[0, 1, 0, 0]])
    assert [p.tolist() for p in same_class_pairs(labels)] == [[0, 0, 0], [0, 0, 2], [2, 3, 3]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 0.0}, "scale"),
        ({"neighbours": 0}, "neighbours"),
        ({"reduction": "mean"}, "reduction"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, "share their first length"),
        ({"inputs": torch.zeros(4, 2, dtype=torch.uint8)}, "floating point, found torch.uint8"),
        ({"representations": torch.zeros(4, 2, dtype=torch.long)}, "floating point, found torch.int64"),
    ],
    ids=["scale 0", "k 0", "unknown reduction", "lengths differ", "bytes as pixels", "whole numbers as representations"],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"inputs": torch.rand(4, 2), "representations": torch.rand(4, 2), "labels": torch.zeros(4, dtype=torch.long)}
    with pytest.raises(ValueError, match=message):
        isometric_loss(**(arguments | change))
