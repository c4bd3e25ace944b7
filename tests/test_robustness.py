"""The worst case of any classifier, on networks whose robust images are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn

import isorobust
from isorobust.errors import UserError

FEW = {"apgd_steps": 20, "fab_steps": 20, "square_queries": 100}


@pytest.fixture(scope="module")
def points():
    """Images far from the box's walls, and labels that a linear network is right on, but for the first."""
    generator = torch.Generator().manual_seed(0)
    images = 0.35 + 0.3 * torch.rand(40, 1, 8, 8, generator=generator)
    labels = linear()(images).argmax(1)
    labels[0] = 1 - labels[0]
    return images, labels


def linear(classes=2):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        weight = torch.randn(classes, 64, generator=generator)
        model[1].weight.copy_(weight)
        model[1].bias.copy_(-weight @ torch.full((64,), 0.5))
    return model


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_of_a_linear_network_it_is_the_margin_against_the_dual_norm(points, norm, dual):
    images, labels = points
    model = linear()
    logits = model(images)
    margin = (logits[:, 1] - logits[:, 0]).detach() * torch.where(labels == 1, 1, -1)
    distance = margin / (model[1].weight[1] - model[1].weight[0]).norm(p=dual).item()
    eps = float(f"{distance[margin > 0].median():.4g}")
    sure = (distance - eps).abs() > 1e-4  # but for rounding
    right = isorobust.worst_case(model, images, labels, norm, eps, **FEW)
    assert right.dtype == torch.bool and 5 < right.sum() < 35
    assert torch.equal(right[sure], (distance > eps)[sure])


def test_batches_change_nothing_for_a_linear_network(points):
    whole = isorobust.worst_case(linear(), *points, eps=0.02, **FEW)
    assert torch.equal(isorobust.worst_case(linear(), *points, eps=0.02, batch=7, **FEW), whole)


def test_a_radius_of_numpy_is_a_number(points):
    whole = isorobust.worst_case(linear(), *points, eps=0.02, **FEW)
    assert torch.equal(isorobust.worst_case(linear(), *points, eps=np.float32(0.02), **FEW), whole)


class Steps(nn.Module):
    """Rounded logits of a linear network: no gradient anywhere."""

    def __init__(self):
        super().__init__()
        self.inner = linear()

    def forward(self, x):
        return (self.inner(x) * 5).round() + 0 * x.flatten(1).sum(1, keepdim=True)


def test_a_network_without_gradients_falls_to_square(points):
    images, labels = points
    masked = isorobust.worst_case(Steps(), images, labels, eps=0.3, **{**FEW, "square_queries": 500})
    assert masked.sum() <= 2


def test_the_model_is_left_as_it_was(points):
    model = nn.Sequential(linear(), nn.Dropout(0.9)).train()
    isorobust.worst_case(model, *points, eps=0.01, **FEW)
    assert model.training and all(w.requires_grad and w.grad is None for w in model.parameters())


def test_a_network_whose_answers_hang_on_the_batch_is_told_and_frozen_it_is_attacked(points):
    images, labels = points
    model = isorobust.HybridPrototypeReclassifier(Featured(), num_classes=2)
    model.observe(images, labels)
    with pytest.raises(UserError, match="differ with the rest of its batch.* mode `ema`"):
        isorobust.worst_case(model, images, labels, eps=0.01, **FEW)
    isorobust.worst_case(model, images[:3], labels[:3], eps=0.01, batch=1, **FEW)  # judged as it was looked at
    model.mode = "ema"
    assert 0 < isorobust.worst_case(model, images, labels, eps=0.01, **FEW).sum()


class Featured(nn.Module):
    """Pixels as features, with a linear head."""

    def __init__(self):
        super().__init__()
        self.head = linear()[1]

    def features(self, x):
        return x.flatten(1)

    def forward(self, x):
        return self.head(self.features(x))


def test_the_example_of_the_docs_runs(points):
    text = (ROOT / "docs/extending.md").read_text().split("<!-- example: worst case -->\n```python\n")[1].split("```")[0]
    told = {}
    exec(text, told)
    assert told["gain"](linear(), linear(), *points, eps=0.01) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "l1"}, "norm: found 'l1'; allowed: l2, linf"),
        ({"eps": -1.0}, "worst_case.eps"),
        ({"eps": [0.1, 0.2]}, r"eps: found \[0.1, 0.2\]; allowed: a number, as 8 / 255"),
        ({"eps": "8/255"}, "eps: found '8/255'; allowed: a number, as 8 / 255"),
        ({"batch": 0}, "worst_case.batch"),
        ({"apgd_steps": 0}, "worst_case.apgd_steps"),
        ({"images": torch.zeros(40, 64)}, r"images: found 'torch.float32 \[40, 64\]'; allowed: floats"),
        ({"images": torch.zeros(0, 1, 8, 8), "labels": torch.zeros(0)}, "at least one"),
        ({"images": torch.full((40, 1, 8, 8), 255.0)}, "images: found '255 to 255'; allowed: pixels from 0 to 1"),
        ({"images": torch.full((40, 1, 8, 8), float("nan"))}, "images: found 'nan to nan'"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.Threshold(9.0, float("nan")))}, "model: found logits that"),
        ({"labels": torch.zeros(39, dtype=torch.long)}, r"labels: .* allowed: whole numbers \[40\], from 0 to 1"),
        ({"labels": torch.full((40,), 2)}, "labels: "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_attacked_is_told(points, change, message):
    given = {"model": linear(), "images": points[0], "labels": points[1], "eps": 0.1, **change}
    with pytest.raises(UserError, match=message):
        isorobust.worst_case(**given)
