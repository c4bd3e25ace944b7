"""Paths, barriers and bypasses on functions whose barriers are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import NETWORKS

import isorobust
from isorobust.common.params import check
from isorobust.common.splits import Split
from isorobust.common.statistics import rate_of_own
from isorobust.compare import connectivity as compared
from isorobust.compare import percolation as compared_sizes
from isorobust.connectivity.inputs import Pairs, chosen_tuples, cross_entropy, match_loss, synthesise
from isorobust.connectivity.measure import _apart, _components, _drawn, _matched_pairs, _pairs, _shares, measure
from isorobust.connectivity.paths import (
    at_once,
    barrier,
    bypass,
    curve_features,
    in_parts,
    linear_path,
    lower,
    path_losses,
    total_variation,
)
from isorobust.connectivity.settings import ConnectivitySettings, Matched, Synthesis
from isorobust.errors import UserError
from isorobust.networks.zoo import build
from isorobust.percolation.measure import percolation, resized
from isorobust.percolation.settings import PercolationSettings
from isorobust.training.settings import TrainingSettings


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
    for size in (20, 50, 10_000, None):
        assert torch.allclose(path_losses(bump(0.3), a, c, torch.arange(7), 20, batch=size), torch.cat(each))


@pytest.mark.parametrize(
    "shape, points, batch, count",
    [
        pytest.param((9, 1, 28, 28), 50, None, 20, id="digits"),
        pytest.param((9, 3, 32, 32), 50, None, 5, id="colour"),
        pytest.param((9, 3, 224, 224), 50, None, 1, id="a path above the limit"),
        pytest.param((0, 2), 50, None, 8000, id="no inputs"),
        pytest.param((9, 1, 28, 28), 50, 120, 2, id="asked for"),
        pytest.param((9, 1, 28, 28), 50, 20, 1, id="less than a path"),
    ],
)
def test_how_many_paths_are_evaluated_together(shape, points, batch, count):
    assert at_once(torch.empty(shape), points, batch) == count


@pytest.mark.parametrize("rows", [0, 1, 6, 7])
def test_rows_in_parts_are_those_of_all_at_once(rows):
    x, y = torch.randn(rows, 4), torch.randn(rows)
    sizes = []

    def outer(x, y):
        sizes.append(len(x))
        return x.double() * y[:, None]

    found = in_parts(outer, (x, y), 3)
    assert found.dtype == torch.float64 and torch.equal(found, x.double() * y[:, None])
    assert sizes == {0: [0], 1: [1], 6: [3, 3], 7: [3, 3, 1]}[rows]


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


def test_every_pair_may_have_a_threshold_of_its_own():
    a, c = pairs(4, 3)
    limits = torch.tensor([2.0, 0.1, 2.0, 0.1])
    found = bypass(bump(0.2), a, c, threshold=limits, rounds=1, points=30, steps=50, learning_rate=0.02)
    assert found.path.segments(4).tolist() == [1, 2, 1, 2]


def test_where_nothing_is_in_the_way_the_path_stays_straight():
    a, c = torch.randn(6, 3), torch.randn(6, 3)
    found = bypass(lambda x, pair: x.square().sum(1), a, c, threshold=1e9, rounds=3, points=20)
    assert len(found.path.pair) == 6 and (found.heights == found.heights[0]).all()


def test_points_move_within_the_hyperplane_on_the_segment():
    points, direction = (torch.randn(8, 1, 5, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    moved = lower(bump(4.0), points, direction, torch.arange(8), 40, 0.05, 0.1, 1e-3)
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


@pytest.mark.parametrize("classes", ["ss", "so", "sso", "ssss"])
def test_tuples_are_of_the_classes_asked_for_and_of_right_samples(classes):
    labels, right = np.arange(60) % 3, np.arange(60) % 7 > 0
    drawn = chosen_tuples(labels, right, classes, 30, np.random.default_rng(0))
    assert drawn.shape == (30, len(classes)) and right[drawn].all() and set(labels[drawn[:, 0]]) == {0, 1, 2}
    for place, kind in enumerate(classes[1:], start=1):
        assert ((labels[drawn[:, place]] == labels[drawn[:, 0]]) == (kind == "s")).all()
    same = drawn[:, [i for i, kind in enumerate(classes) if kind == "s"]]
    assert all(len(set(row)) == len(row) for row in same.tolist())


def test_classes_of_too_few_samples_are_left_out_and_too_few_tuples_are_said():
    labels = np.array([0, 1, 0, 1, 2, 0, 1])
    drawn = chosen_tuples(labels, np.ones(7, bool), "ss", 6, np.random.default_rng(0))
    assert set(labels[drawn].flatten()) == {0, 1}
    with pytest.raises(ValueError, match="5 different tuples of right samples needed, there are 0"):
        chosen_tuples(labels, labels == 2, "ss", 5, np.random.default_rng(0))


@pytest.mark.parametrize(("classes", "there"), [("ss", 6), ("so", 18), ("sso", 18)])
def test_more_tuples_than_there_are_would_only_repeat_themselves(classes, there):
    labels = np.array([0, 0, 0, 1, 1, 1])
    chosen_tuples(labels, np.ones(6, bool), classes, there, np.random.default_rng(0))
    with pytest.raises(ValueError, match=f"{there + 1} different tuples of right samples needed, there are {there}"):
        chosen_tuples(labels, np.ones(6, bool), classes, there + 1, np.random.default_rng(0))


def test_networks_that_are_right_on_much_the_same_are_given_much_the_same_pairs(rng):
    labels = np.arange(200) % 10
    first, second = rng.random((2, 200)) < 0.9
    drawn = [set(map(tuple, chosen_tuples(labels, right, "ss", 50, np.random.default_rng(3)))) for right in (first, second)]
    assert len(drawn[0] & drawn[1]) > 25


def test_the_loss_of_a_confident_network_is_a_smooth_curve():
    """In float32 log(1 + exp(-m)) is 0 or a few roundings for margins m beyond 16, and its curve full of maxima."""

    class Confident(torch.nn.Module):
        def forward(self, x):
            margin = 17 + 2 * (x[:, :1] - 0.3) ** 2
            return torch.cat([margin, torch.zeros_like(margin)], dim=1)

    a, c = torch.zeros(1, 1), torch.ones(1, 1)
    losses = path_losses(lambda x, pair: cross_entropy(Confident(), x, 0 * pair), a, c, torch.tensor([0]), 12)
    assert losses.dtype == torch.float64 and curve_features(losses)["maxima"].item() <= 2
    assert (losses > 0).all() and losses.argmax() == 3


def test_a_bypass_that_ends_higher_is_not_taken():
    """A narrow dip in a plateau: any step leaves the plateau's lowest place."""

    def loss(x, pair):
        return 1 + x[:, 1].abs()

    a, c = torch.tensor([[-1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    found = bypass(loss, a, c, threshold=0.5, rounds=2, points=10, steps=5, learning_rate=0.3, closeness=0.0)
    assert found.heights.flatten().tolist() == [1, 1, 1] and found.path.segments(1).tolist() == [1]


def test_synthetic_inputs_reach_their_class_and_finished_ones_rest(trained):
    labels = torch.arange(5).repeat(2)
    options = check(Synthesis, {"steps": 400, "loss": 0.05}, "x")
    made = synthesise(trained, labels, (1, 8, 8), options, torch.Generator().manual_seed(0))
    assert made.shape == (10, 1, 8, 8) and (cross_entropy(trained, made, labels) < 0.05).all()
    alone = synthesise(trained, labels[:1], (1, 8, 8), options, torch.Generator().manual_seed(0))
    assert cross_entropy(trained, alone, labels[:1]).item() < 0.05


def test_adversarial_images_match_the_loss_they_are_to_match(trained, test_tensors):
    images, labels = test_tensors
    target = torch.full((10,), 0.05)
    options = check(Matched, {"steps": 300, "learning_rate": 0.01, "distortion": 1.0, "tolerance": 0.1}, "x")
    other = (labels[:10] + 1) % 5
    made, matched = match_loss(trained, images[:10], other, target, options)
    assert matched.all() and made.min() >= 0 and made.max() <= 1
    assert (cross_entropy(trained, made, other).log() - target.log()).abs().max() <= 0.1 + 1e-4
    free, _ = match_loss(trained, images[:10], other, target, check(Matched, {**options.model_dump(), "distortion": 0.0}, "x"))
    held, _ = match_loss(trained, images[:10], other, target, check(Matched, {**options.model_dump(), "distortion": 30.0}, "x"))
    assert (held - images[:10]).flatten(1).norm(dim=1).mean() < (free - images[:10]).flatten(1).norm(dim=1).mean()
    _, never = match_loss(trained, images[:10], other, target, check(Matched, {**options.model_dump(), "steps": 1}, "x"))
    assert not never.all()


def test_curve_features_of_a_written_out_curve():
    found = curve_features(torch.tensor([[1.0, 3.0, 2.0, 5.0, 4.0], [1.0, 1.0, 1.0, 1.0, 1.0]]))
    assert found["height"].tolist() == [5, 1] and found["gap"].tolist() == [1, 0] and found["position"].tolist() == [0.75, 0]
    assert found["maxima"].tolist() == [2, 0] and found["area"].tolist() == [3, 1] and found["endpoint-loss"].tolist() == [4, 1]


SMALL = {
    "arms": ["baseline", "untrained"],
    "pairs": 20,
    "points": 12,
    "thresholds": [0.1, 1.0],
    "threshold": 0.1,
    "connected": 0.9,
    "distinct": 0.1,
    "graph_images": 6,
    "bypass": {"rounds": 2, "steps": 20, "learning_rate": 0.02},
    "synthesis": {"steps": 300},
    "matched": {"steps": 200, "learning_rate": 0.01, "distortion": 1.0, "tolerance": 0.3},
}


def test_a_trained_networks_numbers_and_arrays_agree(trained, splits):
    options = check(ConnectivitySettings, SMALL, "x")
    numbers, arrays = measure([(0, trained)], splits.test, options, torch.device("cpu"), trained=True)
    assert set(numbers["kinds"]) == {"real", "interpolated", "synthetic", "between-classes"}
    for kind, one in numbers["kinds"].items():
        gaps, heights, straight = (arrays[f"{name}/{kind}"] for name in ("gaps", "heights", "straight"))
        assert gaps.shape == heights.shape == (1, 3, 20) and straight.shape == (20, 12)
        assert not (np.diff(heights, axis=1) > 0).any(), "a round of bypassing never makes a path worse"
        assert np.allclose(heights[0, 0], straight.max(1)) and np.allclose(gaps, heights - straight[:, [0, -1]].max(1), atol=1e-6)
        apart = arrays[f"apart/{kind}"][0] >= 0.1
        assert one["distinct"]["value"] == pytest.approx(apart.mean()) and one["apart"]["value"] <= 2
        for criterion, values, counted in (("low", heights, apart | True), ("level", gaps, apart)):
            for key, by_round in one[criterion].items():
                for done, share in by_round.items():
                    assert share["value"] == pytest.approx((values[0, int(done)] <= float(key))[counted].mean())
        ends = arrays[f"ends/{kind}"][0]
        assert np.allclose(ends, straight[:, [0, -1]].max(1))
        assert set(one["joined"]) == {key for key in one["low"] if (apart & (ends <= float(key))).any()}
        for key, by_round in one["joined"].items():
            counted = apart & (ends <= float(key))
            for done, share in by_round.items():
                assert share["n"] == counted.sum()
                assert share["value"] == pytest.approx((heights[0, int(done)][counted] <= float(key)).mean())
    images, labels = torch.from_numpy(splits.test.images).float() / 255, splits.test.labels
    right = trained(images).argmax(1).numpy() == labels
    for kind, same in (("real", True), ("between-classes", False)):
        first, second = arrays[f"pairs/{kind}"][0].T
        assert ((labels[first] == labels[second]) == same).all() and right[first].all() and right[second].all()
    assert numbers["kinds"]["between-classes"]["height"]["value"] > numbers["kinds"]["real"]["height"]["value"]
    assert 0 < numbers["component"]["low"]["value"] <= numbers["component"]["level"]["value"] <= 1
    assert len(arrays["shown/around"]) in (12, 24) and arrays["shown/images"].shape == (4, 1, 8, 8)
    assert numbers["against"]["change"]["l2"]["value"] > 0
    assert set(numbers["against"]["features"]["gap"]) == {"real", "adversarial", "difference", "effect", "auroc"}
    again, _ = measure([(0, trained)], splits.test, options, torch.device("cpu"), trained=True)
    assert again == numbers


def test_the_component_is_the_largest_set_that_paths_join(trained, splits, monkeypatch):
    """Of six images of a class those with a low path are 0-1, 1-2 and 3-4, with a level one 0-1 alone."""
    images, labels = torch.from_numpy(splits.test.images).float() / 255, torch.from_numpy(splits.test.labels)
    pairs = [tuple(pair) for pair in torch.triu_indices(6, 6, 1).T.tolist()]
    height = torch.tensor([0.0 if pair in {(0, 1), (1, 2), (3, 4)} else 9.0 for pair in pairs])
    gap = torch.tensor([0.0 if pair == (0, 1) else 9.0 for pair in pairs])
    monkeypatch.setattr("isorobust.connectivity.measure.barrier", lambda _: SimpleNamespace(height=height, gap=gap))
    shares = _components(trained, images, labels, np.ones(len(labels), bool), check(ConnectivitySettings, SMALL, "x"))
    assert shares["low"].tolist() == [3 / 6] * 5 and shares["level"].tolist() == [2 / 6] * 5


def test_paths_from_a_real_image_end_at_a_real_one_and_at_one_made_to_match_its_loss(trained, splits):
    images, labels = torch.from_numpy(splits.test.images).float() / 255, torch.from_numpy(splits.test.labels)
    right = (trained(images).argmax(1) == labels).numpy()
    options = check(ConnectivitySettings, SMALL, "x")
    found = _matched_pairs(trained, 0, images, labels, right, options)
    a, c, _ = torch.from_numpy(_drawn(labels, right, "sso", options.pairs, 0, "matched", "connectivity").T)
    with torch.no_grad():
        start, end = (cross_entropy(trained, images[place], labels[place]).numpy() for place in (a, c))
    for curves in (found.real, found.adversarial):
        assert np.allclose(curves[:, 0], start, atol=1e-6)
    assert np.allclose(found.real[:, -1], end, atol=1e-6) and found.matched.any()
    missed = np.abs(np.log(found.adversarial[:, -1]) - np.log(end))[found.matched]
    assert missed.max() <= 0.3 + 1e-4 and missed.max() > 1e-4


def test_untrained_networks_are_measured_on_synthetic_inputs(splits):
    network = build(NETWORKS["tanh-mlp"], splits.test.images.shape[1:], 5, seed=1)
    numbers, arrays = measure(
        [(1, network)], splits.test, check(ConnectivitySettings, SMALL, "x"), torch.device("cpu"), trained=False
    )
    assert set(numbers["kinds"]) == {"synthetic", "between-classes"} and "against" not in numbers
    assert arrays["shown/images"].shape == (4, 1, 8, 8)


@pytest.mark.parametrize("count", [2, 4, 5, 6, 7, 11])
def test_untrained_partners_between_classes_are_of_another_class(splits, count):
    """Whether or not the classes' round closes at the last pair; a partner is one of those that lie within classes."""
    images, labels = torch.from_numpy(splits.test.images).float() / 255, torch.from_numpy(splits.test.labels)
    network = build(NETWORKS["tanh-mlp"], images.shape[1:], 5, seed=1)
    options = check(ConnectivitySettings, {**SMALL, "pairs": count, "synthesis": {"steps": 1}}, "x")
    kinds, _ = _pairs(network, 1, images, labels, np.zeros(len(labels), bool), options, False, "x")
    within, between = kinds["synthetic"], kinds["between-classes"]
    assert (within.class_a == within.class_c).all() and (between.class_a != between.class_c).all()
    partner = (between.c[:, None] == within.c[None]).flatten(2).all(2).long().argmax(1)
    assert torch.equal(between.c, within.c[partner]) and torch.equal(between.class_c, within.class_c[partner])
    assert len(partner[:-1].unique()) == count - 1


def test_a_network_that_is_never_right_is_named(splits):
    class Wrong(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(torch.full((len(x),), 7), 9).float() + 0 * x.flatten(1).sum(1, keepdim=True)

    with pytest.raises(UserError, match="connectivity.pairs: seed 0 gets too few test images right"):
        measure([(0, Wrong())], splits.test, check(ConnectivitySettings, SMALL, "x"), torch.device("cpu"), trained=True)


def told_of(heights, ends, thresholds=(0.1, 1.0), distinct=None):
    """What `measure` tells of pairs `[S, P]` by these barriers, straight and after one round."""
    distinct = np.ones(ends.shape, bool) if distinct is None else distinct
    options = check(ConnectivitySettings, {**SMALL, "thresholds": list(thresholds), "threshold": 0.1}, "x")
    options = options.model_copy(update={"bypass": options.bypass.model_copy(update={"rounds": 1})})
    values = np.stack([heights, heights], axis=1)
    kind = {"low": _shares(values, options), "level": _shares(values - ends[:, None], options, distinct)}
    kind |= {"joined": _shares(values, options, distinct, ends), "distinct": rate_of_own(distinct).as_dict()}
    return compared.shares_judged(kind, "real", options)


def test_a_flat_path_from_an_end_of_high_loss_does_not_speak_against_joining():
    """The claim is on inputs of low loss: no path can mend an end. A barrier between low ends does speak against it."""
    ends = np.where(np.arange(60) < 20, 0.5, 0.01)[None].repeat(3, 0)
    claims = told_of(heights=ends, ends=ends)
    assert claims["joined-straight"]["verdict"] == "holds" and claims["joined-straight"]["n"] == 3 * 40
    walled = told_of(heights=np.where(np.arange(60) % 2, 0.7, ends), ends=ends)
    assert walled["joined-straight"]["verdict"] == "does not hold" and walled["level-straight"]["verdict"] == "does not hold"


def test_without_low_ends_the_claim_says_nothing():
    claims = told_of(heights=np.full((2, 9), 2.2), ends=np.full((2, 9), 2.2))
    assert claims["joined-bypassed"] == {"n": 0, "kind": "real", "why": "no pair has ends of such loss"}
    assert claims["level-straight"]["verdict"] == "undecided"


def test_that_a_path_joins_an_input_with_itself_says_nothing():
    low = np.full((3, 30), 0.01)
    claims = told_of(heights=low, ends=low, distinct=np.zeros((3, 30), bool))
    assert {(one["n"], one["why"]) for one in claims.values()} == {(0, "no pair has distinct ends")}
    half = np.arange(30)[None].repeat(3, 0) < 15
    claims = told_of(heights=np.where(half, 0.01, 5.0), ends=low, distinct=half)
    assert claims["level-straight"]["n"] == 45 and claims["level-straight"]["value"] == 1 and claims["joined-straight"]["n"] == 45


def test_ends_are_apart_by_the_larger_norm():
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]).view(4, 1, 1, 2)
    c = torch.tensor([[3.0, 4.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]).view(4, 1, 1, 2)
    labels = torch.zeros(4, dtype=torch.long)
    assert _apart(Pairs(a, c, labels, labels)).tolist() == pytest.approx([0, 2, 0, 0.5**0.5])


def test_an_untrained_tanh_network_is_shown_one_input_twice():
    """Feature visualisation from small noise ends at the same point whichever noise: what the claim must not rest on."""
    images = Split(np.zeros((20, 1, 8, 8), np.uint8), np.arange(20) % 5)
    options = check(ConnectivitySettings, {**SMALL, "synthesis": {"steps": 1000}}, "x")
    network = build(NETWORKS["tanh-mlp"], (1, 8, 8), 5, seed=0)
    numbers, _ = measure([(0, network)], images, options, torch.device("cpu"), trained=False)
    claims = compared.judged(numbers, options)
    assert numbers["kinds"]["synthetic"]["apart"]["value"] < 0.1 < numbers["kinds"]["between-classes"]["apart"]["value"]
    assert claims["level-straight"]["n"] < 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": torch.zeros(1, 4)}, "both ends must share their shape"),
        ({"a": torch.zeros(2, 4).double()}, "floats of one type, found torch.float64 and torch.float32"),
        ({"a": torch.zeros(2, 4, dtype=torch.uint8)}, "floats of one type"),
        ({"threshold": float("nan")}, "threshold must be a number"),
        ({"steps": -1}, "rounds and steps must be at least 0, found 1 and -1"),
        ({"rounds": -1}, "rounds and steps must be at least 0, found -1 and 5"),
    ],
    ids=["other shapes", "other types", "whole numbers", "threshold NaN", "steps below 0", "rounds below 0"],
)
def test_what_cannot_be_bypassed_is_told(change, message):
    given = {"a": torch.zeros(2, 4), "c": torch.ones(2, 4), "threshold": 9.0, "rounds": 1, "points": 5, "steps": 5, **change}
    with pytest.raises(ValueError, match=message):
        bypass(bump(0.2), **given)


def test_ends_may_want_gradients():
    a, c = (x.requires_grad_() for x in pairs(2, 4))
    assert not bypass(bump(0.3), a, c, threshold=0.3, rounds=1, points=9, steps=2).heights.requires_grad


def test_a_threshold_must_be_among_those_judged():
    with pytest.raises(UserError, match="threshold that is one of thresholds"):
        check(ConnectivitySettings, {**SMALL, "threshold": 0.2}, "connectivity")


def test_arms_are_held_against_the_reference_by_seed(rng):
    options = check(ConnectivitySettings, SMALL, "x")
    limit, ids = options.threshold, np.stack([np.arange(20), np.arange(20) + 50], axis=1)
    base = {"seeds": np.array([0, 1, 2]), "pairs/real": np.stack([ids] * 3)}
    base |= {f"{name}/real": rng.random((3, 3, 20)) * 2 * limit for name in ("gaps", "heights")}
    # The arm was given the last 15 of these pairs, in another order, and five of its own, on which it is bad.
    own = np.concatenate([ids[5:][::-1], ids[:5] + 100])
    arm = {"seeds": np.array([1, 2, 5]), "pairs/real": np.stack([own] * 3)}
    arm |= {
        f"{name}/real": np.concatenate([np.zeros((3, 3, 15)), np.full((3, 3, 5), 9.0)], axis=2) for name in ("gaps", "heights")
    }
    told = compared._difference(arm, base, options)
    shares = [(base["heights/real"][s, 0, 5:] <= limit).mean() for s in (1, 2)]
    assert told["low-straight"]["value"] == pytest.approx(np.mean([1 - share for share in shares])) and told["gap"]["n"] == 15
    assert told["gap"]["value"] == pytest.approx(-base["gaps/real"][1:, 0, 5:].mean()) and told["gap"]["hi"] > told["gap"]["lo"]


@pytest.mark.parametrize("round_trip", [4, 8], ids=["halved", "as it is"])
def test_images_are_scaled_down_by_averaging_blocks(splits, round_trip):
    small = resized(splits.test, round_trip)
    block = 8 // round_trip
    naive = splits.test.images.reshape(80, 1, round_trip, block, round_trip, block).mean((3, 5))
    assert small.images.dtype == np.uint8 and np.abs(small.images - naive).max() <= 0.5
    assert np.array_equal(small.labels, splits.test.labels)


@pytest.fixture(scope="module")
def by_size(splits):
    asked = {"sizes": [8, 4], "seeds": 2, "pairs": 10}
    kinds = [NETWORKS[name].model_dump() for name in ("small-cnn", "resnet18")]
    asked["random"] = {"networks": kinds, "seeds": 1, "pairs": 2}
    quick = {**SMALL, "threshold": 1.0, "bypass": {"rounds": 1, "steps": 2, "learning_rate": 0.02}, "synthesis": {"steps": 3}}
    training = TrainingSettings(epochs=6, batch_size=50, learning_rate=3e-3)
    return percolation(
        *splits,
        NETWORKS["tanh-mlp"],
        training,
        [3, 4, 5],
        check(PercolationSettings, asked, "percolation"),
        check(ConnectivitySettings, quick, "connectivity"),
        torch.device("cpu"),
    )


def test_percolation_goes_from_the_smallest_size_up_and_over_random_networks(by_size):
    assert list(by_size["sizes"]) == ["4", "8"] and set(by_size["random"]) == {"small-cnn", "resnet18"}
    assert [here["dimension"] for here in by_size["sizes"].values()] == [16, 64] and by_size["seeds"] == 2
    assert by_size["sizes"]["8"]["accuracy"]["value"] > 0.6
    for state, kind in (("trained", "real"), ("untrained", "synthetic")):
        assert set(by_size["rise"][state]) == {"low", "level", "joined"}
        for criterion in ("low", "level"):
            first, last = (by_size["sizes"][size][state][kind][criterion]["1"] for size in ("4", "8"))
            for done, rise in by_size["rise"][state][criterion].items():
                assert rise["value"] == pytest.approx(last[done]["value"] - first[done]["value"])
    assert by_size["rise"]["trained"]["low"]["0"]["value"] > 0, "or the sign would not be tested"


def test_its_table_has_a_row_per_size_state_and_random_network(by_size):
    told = compared_sizes.tree(by_size, check(ConnectivitySettings, {**SMALL, "bypass": {**SMALL["bypass"], "rounds": 1}}, "x"))
    lines = compared_sizes.table(told).split("\n")
    assert len(lines) == 2 * 2 + 2 + 2 and {line.count(" | ") for line in lines} == {lines[0].count(" | ")}
    assert "8 x 8 than at 4 x 4" in compared_sizes.sentences(told)
    assert set(told["random"]["small-cnn"]["claims"]) == {
        f"{c}-{how}" for c in ("joined", "level") for how in ("straight", "bypassed")
    }
    assert compared_sizes.tree({"skipped": True}, None) == {}


def test_random_networks_are_told_apart_by_name():
    kind = NETWORKS["small-cnn"].model_dump()
    with pytest.raises(UserError, match="networks of different names"):
        check(
            PercolationSettings,
            {
                "sizes": [4, 8],
                "seeds": 1,
                "pairs": 4,
                "random": {"networks": [kind, {**kind, "width": 9}], "seeds": 1, "pairs": 2},
            },
            "percolation",
        )


def test_without_rounds_of_bypassing_tables_have_no_column_of_them(trained, splits):
    options = check(ConnectivitySettings, {**SMALL, "bypass": {**SMALL["bypass"], "rounds": 0}}, "x")
    numbers, arrays = measure([(0, trained)], splits.test, options, torch.device("cpu"), trained=True)
    told = compared.tree({"baseline": {"numbers": numbers, "arrays": arrays}}, options, "baseline")
    lines = compared.table(told).split("\n")
    assert "after" not in lines[0] and {line.count(" | ") for line in lines} == {lines[0].count(" | ")}


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ((8, 8, 8), "percolation.sizes: found 9; allowed: at most 8"),
        ((6, 6, 6), "percolation: found 'images of 8 x 6'; allowed: square ones"),
        ((8, 6, 8), "val: found images"),
        ((8, 8, 6), "test: found images"),
    ],
    ids=["sizes above the images' own", "images that are not square", "val of another shape", "test of another shape"],
)
def test_what_cannot_be_scaled_down_is_refused(splits, cut, message):
    asked = check(PercolationSettings, {"sizes": [4, 9], "seeds": 1, "pairs": 4}, "percolation")
    training = TrainingSettings(epochs=1, batch_size=50, learning_rate=3e-3)
    narrow = [split._replace(images=split.images[..., :width]) for split, width in zip(splits, cut)]
    with pytest.raises(UserError, match=message):
        percolation(
            *narrow, NETWORKS["tanh-mlp"], training, [0], asked, check(ConnectivitySettings, SMALL, "x"), torch.device("cpu")
        )
