"""Measures of isometry against loop-written twins, closed forms, degenerate points and planted maps."""

from __future__ import annotations

import copy
import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import NETWORKS
from scipy.stats import spearmanr
from torch import nn

from isorobust.attacks.perturb import nearest
from isorobust.common import artifacts
from isorobust.common.params import check
from isorobust.common.splits import Split
from isorobust.common.statistics import difference, mean_over_seeds
from isorobust.errors import UserError
from isorobust.geometry import arm, measure
from isorobust.geometry.settings import GeometrySettings
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.zoo import Network, build

OPTIONS = {"images": 40, "neighbours": 3, "jacobian_images": 4, "boundary_images": 30, "fab_steps": 15, "bins": 3}


@pytest.fixture
def points(rng):
    """(x `[14, 2, 3]`, r `[14, 4]`, labels) with two identical inputs and a class of a single image."""
    x, r = torch.from_numpy(rng.random((14, 2, 3))), torch.from_numpy(rng.standard_normal((14, 4)))
    labels = np.array([0, 1, 0, 1, 2, 0, 1, 0, 1, 0, 0, 1, 1, 0])
    x[2] = x[0]
    return x, r, labels


def of_class(labels, i):
    return [j for j in range(len(labels)) if j != i and labels[j] == labels[i]]


def matrices(x, r):
    return measure.distance_matrix(x), measure.distance_matrix(r)


def test_distances_and_pairs_equal_the_naive_twin(points):
    x, _, labels = points
    d = measure.distance_matrix(x.float())
    within, between = measure.pairs(labels)
    for i in range(len(x)):
        for j in range(len(x)):
            assert d[i, j] == pytest.approx(float(((x[i] - x[j]) ** 2).sum()) ** 0.5, rel=1e-6)
            assert within[i, j] == (i < j and labels[i] == labels[j])
            assert between[i, j] == (i < j and labels[i] != labels[j])
    assert d[0, 2] == 0


def test_fit_equals_the_naive_twin(points):
    x, r, labels = points
    d_x, d_r = (d[measure.pairs(labels)[0]] for d in matrices(x, r))
    got = measure.fit(d_x, d_r)
    grid = np.linspace(0.5 * got.scale, 1.5 * got.scale, 2001)
    losses = [sum((s * b - a) ** 2 for a, b in zip(d_x, d_r)) for s in grid]
    assert got.scale == pytest.approx(grid[int(np.argmin(losses))])
    assert got.stress == pytest.approx((min(losses) / sum(a * a for a in d_x)) ** 0.5)
    assert got.correlation == pytest.approx(np.corrcoef(d_x, d_r)[0, 1])


def test_lipschitz_constants_equal_the_naive_twin(points):
    x, r, labels = points
    d_x, d_r = matrices(x, r)
    for mask in measure.pairs(labels):
        ratios = [d_r[i, j] / d_x[i, j] for i, j in zip(*mask.nonzero()) if d_x[i, j] > 0]
        largest, tail = measure.lipschitz(d_x[mask], d_r[mask])
        assert largest == pytest.approx(max(ratios))
        assert tail == pytest.approx(np.percentile(ratios, 99))


@pytest.mark.parametrize("k", [1, 3, 50])
def test_neighbours_overlap_and_local_distortion_equal_the_naive_twin(points, k):
    x, r, labels = points
    d_x, d_r = matrices(x, r)
    near_x, near_r = (measure.nearest_of_class(d, labels, k) for d in (d_x, d_r))
    overlap, local = measure.overlap(near_x, near_r), measure.local_distortion(d_x, d_r, near_x, scale=0.7)
    for i in range(len(x)):
        by_x, by_r = (sorted(of_class(labels, i), key=lambda j, d=d: (d[i, j], j))[:k] for d in (d_x, d_r))
        assert near_x[i].nonzero()[0].tolist() == sorted(by_x)
        assert overlap[i] == pytest.approx(len({*by_x} & {*by_r}) / len(by_x) if by_x else np.nan, nan_ok=True)
        apart = [abs(0.7 * d_r[i, j] / d_x[i, j] - 1) for j in by_x if d_x[i, j] > 0]
        assert local[i] == pytest.approx(np.mean(apart) if apart else np.nan, nan_ok=True)
    assert np.isnan(overlap[4]) and np.isnan(local[4])  # alone in its class
    if k == 1:
        assert np.isnan(local[0])  # its only neighbour is its twin


def test_spearman_and_its_pseudo_values_equal_the_twins(rng):
    from scipy import stats

    a, b = rng.integers(0, 6, 25).astype(float), rng.standard_normal(25)
    a[3] = np.inf
    assert measure.spearman(a, b) == pytest.approx(stats.spearmanr(stats.rankdata(a), b).statistic)
    parts = measure.spearman_pseudo_values(a, b)
    for i in (0, 3, 24):
        rest = [j for j in range(25) if j != i]
        assert parts[i] == pytest.approx(25 * measure.spearman(a, b) - 24 * measure.spearman(a[rest], b[rest]))
    assert measure.spearman(np.ones(5), np.arange(5)) == 0


def test_bins_hold_equal_counts_in_order_of_distance():
    distance, distortion = np.array([5.0, 1, 4, 2, 3, 6]), np.array([50.0, 10, 40, 20, 30, 60])
    middles, means = measure.by_distance(distance, distortion, 3)
    assert middles.tolist() == [1.5, 3.5, 5.5] and means.tolist() == [15, 35, 55]


@pytest.mark.parametrize("name", NETWORKS)
def test_jacobian_equals_autograds_image_by_image(name):
    channels = 3 if name == "resnet18" else 1
    network = build(NETWORKS[name], (channels, 8, 8), 4, seed=1).double().eval()
    images = torch.rand(3, channels, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def features(x):  # of ResNet-18 the first few, to be quick
        return network.features(x)[:, :16]

    got = measure.input_jacobian(features, images)
    for i in range(3):
        twin = torch.autograd.functional.jacobian(features, images[i : i + 1])[0].flatten(1)
        torch.testing.assert_close(got[i], twin, rtol=1e-9, atol=1e-12)
    assert all(w.grad is None for w in network.parameters())


def rotation(n, rng):
    return torch.from_numpy(np.linalg.qr(rng.standard_normal((n, n)))[0])


@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_a_rotation_is_an_isometry_up_to_its_factor(factor, rng):
    x, labels = torch.from_numpy(rng.random((30, 1, 3, 4))), np.arange(30) % 3
    turn = factor * rotation(12, rng)
    d_x, d_r = matrices(x, x.flatten(1) @ turn.T)
    within, between = measure.pairs(labels)
    fit = measure.fit(d_x[within], d_r[within])
    assert fit == pytest.approx((1, 0, 1 / factor), abs=1e-9)
    near = measure.nearest_of_class(d_x, labels, 4)
    assert (measure.overlap(near, measure.nearest_of_class(d_r, labels, 4)) == 1).all()
    np.testing.assert_allclose(measure.local_distortion(d_x, d_r, near, fit.scale), 0, atol=1e-9)
    for mask in (within, between):
        assert measure.lipschitz(d_x[mask], d_r[mask]) == pytest.approx((factor, factor))
    spectrum = measure.spectrum(measure.input_jacobian(lambda images: images.flatten(1) @ turn.T, x[:5]))
    for values, expected in zip(spectrum, (factor, factor, factor, 1)):
        np.testing.assert_allclose(values, expected)


def test_degenerate_points_have_defined_values():
    zero, d = np.zeros(3), np.array([1.0, 2.0, 3.0])
    assert measure.fit(d, zero) == (0, 1, 0)  # constant representation: no scale fits
    assert measure.fit(zero, zero) == (0, 0, 0)
    assert measure.fit(zero, d) == (0, 1, 0)
    assert measure.fit(np.ones(3), d).correlation == 0
    assert measure.lipschitz(zero, d) == (0, 0)
    assert [v.tolist() for v in measure.spectrum(torch.zeros(1, 2, 5))] == [[0], [0], [0], [0]]
    alone = measure.nearest_of_class(np.zeros((2, 2)), np.array([0, 1]), 1)
    assert not alone.any() and np.isnan(measure.local_distortion(np.zeros((2, 2)), np.zeros((2, 2)), alone, 1)).all()


class Linear(nn.Module):
    def __init__(self, weight, bias):
        super().__init__()
        self.layer = nn.Linear(weight.shape[1], len(weight))
        self.layer.weight.data, self.layer.bias.data = weight, bias

    def forward(self, x):
        return self.layer(x.flatten(1))


def test_boundary_distance_of_a_linear_model_is_its_margin_over_its_weights(rng):
    """min_k |margin_k| / |w_y - w_k|, for images so near the boundary that the box [0, 1] does not matter."""
    weight = torch.from_numpy(rng.standard_normal((3, 16))).float()
    images = torch.from_numpy(0.4 + 0.2 * rng.random((40, 1, 4, 4))).float()
    model = Linear(weight, -weight.sum(1) / 2)
    model.train()
    labels = model(images).argmax(1)
    labels[5] = (labels[5] + 1) % 3
    logits = model(images).detach()
    margin = logits.gather(1, labels[:, None]) - logits
    apart = torch.linalg.vector_norm(weight[labels][:, None] - weight[None], dim=2)
    closed = (margin / apart).masked_fill(apart == 0, torch.inf).amin(dim=1).clamp(min=0)
    state = torch.get_rng_state()
    got = nearest(model, images, labels, steps=20)
    torch.testing.assert_close(got.distances, closed, rtol=0.01, atol=1e-6)
    assert got.distances[5] == 0 and (model(got.images).argmax(1) != labels).all()
    assert torch.equal(torch.get_rng_state(), state) and model.training and model.layer.weight.requires_grad
    again = nearest(model, images, labels, steps=20)
    assert torch.equal(got.images, again.images)


def test_no_boundary_is_infinitely_far():
    constant = Linear(torch.zeros(3, 16), torch.tensor([1.0, 0.0, 0.0]))
    got = nearest(constant, torch.rand(4, 1, 4, 4), torch.tensor([0, 0, 1, 0]), steps=3)
    assert got.distances.tolist() == [np.inf, np.inf, 0, np.inf]


class Planted(Network):
    """Two pixels, boundary where the first is 1/2; representations are the pixels, the second shaken by shake(distance to it)."""

    def __init__(self, shake):
        super().__init__()
        self.head, self.shake = nn.Linear(2, 2), shake
        self.head.weight.data = torch.tensor([[-1.0, 0], [1.0, 0]])
        self.head.bias.data = torch.tensor([0.5, -0.5])
        self.normalise = nn.Identity()

    def body(self, x):
        x = x.flatten(1)
        shaken = x[:, 1] + self.shake((x[:, 0] - 0.5).abs()) * torch.sin(300 * x[:, 1])
        return [torch.stack([x[:, 0], shaken], dim=1)], x


def planted(shake, seeds=3, constant=False):
    """(checkpoint-like, split of 200 images of two pixels)."""
    images = (np.random.default_rng(1).random((200, 1, 1, 2)) * 255).astype(np.uint8)
    network = Planted(shake)
    if constant:
        network.body = lambda x: ([0 * x.flatten(1)], x.flatten(1))
    checkpoint = SimpleNamespace(seeds=list(range(seeds)), network=lambda seed, device: copy.deepcopy(network).eval())
    return checkpoint, Split(images, (images[:, 0, 0, 0] > 127).astype(np.int64))


PLANTED = check(GeometrySettings, {**OPTIONS, "images": 200, "boundary_images": 150}, "here")


@pytest.mark.parametrize(
    ("shake", "expected"),
    [(lambda d: 0.2 * torch.exp(-10 * d), "holds"), (lambda d: 0.2 * (2 * d) ** 3, "does not hold")],
    ids=["near", "far"],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_map_distorted_near_the_boundary_holds_and_one_distorted_far_from_it_does_not(shake, expected, seeds):
    numbers, arrays = arm.measure_arm(*planted(shake, seeds), PLANTED, torch.device("cpu"))
    assert numbers["boundary"]["verdict"] == expected
    assert (numbers["boundary"]["correlation"]["value"] < 0) == (expected == "holds")
    bins = [one["distortion"]["value"] for one in numbers["boundary"]["bins"].values()]
    assert (bins[0] > bins[-1]) == (expected == "holds")
    assert arrays["boundary/distance"].shape == arrays["boundary/distortion"].shape == (seeds, 150)
    side = np.abs(planted(shake)[1].images[:150, 0, 0, 0] / 255 - 0.5)
    np.testing.assert_allclose(arrays["boundary/distance"][0], side, rtol=0.02, atol=1e-4)


def leaves(tree):
    return [leaf for child in tree.values() for leaf in leaves(child)] if isinstance(tree, dict) else [tree]


def test_a_constant_representation_gives_finite_numbers():
    numbers, arrays = arm.measure_arm(*planted(None, constant=True), PLANTED, torch.device("cpu"))
    artifacts.json_bytes(numbers)  # refuses what JSON lacks
    assert numbers["distances"]["scale"]["value"] == 0 and numbers["distances"]["stress"]["value"] == 1
    assert numbers["jacobian"]["largest"]["value"] == 0 and numbers["boundary"]["found"]["value"] < 1
    assert (arrays["boundary/distance"].max(), numbers["boundary"]["verdict"]) == (2**0.5, "undecided")  # the box's diagonal


def test_a_trained_arm_gives_finite_numbers_in_their_ranges(splits, trained):
    spec = {"network": NETWORKS["tanh-mlp"].model_dump(), "shape": [1, 8, 8], "classes": 5, "seeds": [7, 9]}
    other = build(NETWORKS["tanh-mlp"], (1, 8, 8), 5, seed=2).state_dict()
    tensors = {name: torch.stack([t, other[name]]) for name, t in trained.state_dict().items()}
    options = check(GeometrySettings, OPTIONS, "here")
    test = Split(splits.test.images.copy(), splits.test.labels.copy())
    test.images[1], test.labels[1] = test.images[0], test.labels[0]  # identical images
    numbers, arrays = arm.measure_arm(Checkpoint(spec, tensors), test, options, torch.device("cpu"))
    artifacts.json_bytes(numbers)
    assert all(np.isfinite(leaf) for leaf in leaves(numbers) if not isinstance(leaf, str))
    assert numbers["seeds"] == 2 and arrays["seeds"].tolist() == [7, 9]
    for path, low, high in (
        ("distances correlation", -1, 1),
        ("distances stress", 0, 1),
        ("distances scale", 0, np.inf),
        ("neighbours overlap", 0, 1),
        ("lipschitz between max", 0, np.inf),
        ("jacobian median", 0, np.inf),
        ("jacobian inverse_condition", 0, 1),
        ("boundary found", 0, 1),
        ("boundary bins 2 distance", 0, np.inf),
        ("boundary distortion", 0, np.inf),
    ):
        one = functools.reduce(dict.__getitem__, path.split(), numbers)
        assert low <= one["lo"] <= one["value"] <= one["hi"] <= high, path
    assert numbers["lipschitz"]["within"]["p99"]["value"] <= numbers["lipschitz"]["within"]["max"]["value"]
    assert 0 < numbers["neighbours"]["chance"] <= 1 and set(numbers["boundary"]["bins"]) == {"1", "2", "3"}
    again, _ = arm.measure_arm(Checkpoint(spec, tensors), test, options, torch.device("cpu"))
    assert artifacts.json_bytes(again) == artifacts.json_bytes(numbers)


def test_settings_and_splits_that_do_not_fit_are_refused(splits):
    for change, words in (
        ({"boundary_images": 41}, "boundary_images of at most images, 40"),
        ({"jacobian_images": 41}, "jacobian_images of at most images, 40"),
        ({"bins": 31}, "bins of at most boundary_images, 30"),
        ({"neighbours": 0}, "neighbours"),
    ):
        with pytest.raises(UserError, match=words):
            check(GeometrySettings, {**OPTIONS, **change}, "here")
    checkpoint = SimpleNamespace(seeds=[0], network=None)
    options = check(GeometrySettings, OPTIONS, "here")
    with pytest.raises(UserError, match="geometry.images: found 40; allowed: at most 10"):
        arm.measure_arm(checkpoint, splits.test.first(10), options, torch.device("cpu"))
    wide = check(GeometrySettings, {**OPTIONS, "neighbours": 30}, "here")
    with pytest.raises(UserError, match=r"geometry.neighbours: found 30; allowed: below \d+, the images of the largest class"):
        arm.measure_arm(checkpoint, splits.test, wide, torch.device("cpu"))
    alone = Split(splits.test.images[:40], np.arange(40))
    with pytest.raises(UserError, match="so many that two are of one class"):
        arm.measure_arm(checkpoint, alone, options, torch.device("cpu"))


def test_the_figure_is_the_same_for_the_same_numbers():
    from isorobust.compare import plots
    from isorobust.drawing import png

    numbers, _ = arm.measure_arm(*planted(lambda d: d), PLANTED, torch.device("cpu"))
    made = [png(plots.geometry("digits", [(f"arm {i}", numbers) for i in range(count)])) for count in (1, 1, 12)]
    assert made[0] == made[1] != made[2]


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.0, 0.7, 0.95], ids="images-share-{}".format)
@pytest.mark.parametrize("spread", [0.0, 0.3], ids="seeds-spread-{}".format)
def test_the_interval_of_distortion_against_distance_covers_new_seeds_and_new_images(spread, shared):
    """Normal pairs of correlation r: their Spearman correlation is 6 / pi asin(r / 2). `shared`: how alike seeds see images."""
    generator, own = np.random.default_rng(0), np.sqrt(1 - shared**2)
    seeds, images, runs = 5, 60, 200

    def correlations(count):
        return np.clip(0.3 + spread * generator.standard_normal(count), -0.95, 0.95)

    truth = np.mean(6 / np.pi * np.arcsin(correlations(100_000) / 2))
    crossed, over_seeds = [], []
    for _ in range(runs):
        noise = shared * generator.standard_normal((2, 1, images)) + own * generator.standard_normal((2, seeds, images))
        r = correlations(seeds)[:, None]
        distance, distortion = noise[0], r * noise[0] + np.sqrt(1 - r**2) * noise[1]
        parts = np.stack([measure.spearman_pseudo_values(*rows) for rows in zip(distance, distortion)])
        found = difference(parts, np.zeros_like(parts))
        _, lo, hi = mean_over_seeds([spearmanr(*rows).statistic for rows in zip(distance, distortion)])
        crossed.append(found.lo <= truth <= found.hi)
        over_seeds.append(lo <= truth <= hi)
    assert 0.9 <= np.mean(crossed) <= 0.98
    if shared == 0.95 and not spread:
        assert np.mean(over_seeds) < 0.5, "what an interval over seeds alone would promise"
