"""Toys: where the points lie, the measures against twins and closed forms, the same bytes for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ROOT

from isorobust.errors import UserError
from isorobust.params import Params, check
from isorobust.toys import shapes
from isorobust.toys.plots import figures
from isorobust.toys.settings import Rings, Torus
from isorobust.toys.study import boundary_distance, correlation, local_distortion, measures, same_class_distances, stress, study

TREE = Params.read(ROOT / "params.yaml").tree["toys"]


def small(kind, name, **changes):
    training = {**TREE[name]["training"], "epochs": 3}
    return check(kind, {**TREE[name], "seeds": [0, 1], "test_points": 120, "training": training, **changes}, name)


@pytest.mark.parametrize("part", ["train", "test"])
def test_points_lie_on_the_rings_and_the_torus(part):
    rings, torus = small(Rings, "rings", noise=0.0), small(Torus, "torus", noise=0.0)
    made = shapes.rings(rings, part)
    assert made.inputs.dtype == np.float32 and made.labels.dtype == np.int64
    assert len(made.labels) == (1000 if part == "train" else 120)
    first, second = made.inputs[made.labels == 0], made.inputs[made.labels == 1]
    assert np.allclose(np.hypot(first[:, 0], first[:, 1]), rings.radius) and not first[:, 2].any()
    assert np.allclose(np.hypot(second[:, 0] - rings.offset, second[:, 2]), rings.radius) and not second[:, 1].any()
    made = shapes.torus(torus, 8, part)
    assert len(made.labels) == (1600 if part == "train" else 120)
    x, y, z = made.inputs.T
    assert np.allclose((np.hypot(x, y) - torus.major) ** 2 + z**2, torus.minor**2, atol=1e-6)
    assert np.array_equal(made.labels, (np.arctan2(y, x) % shapes.TURN / shapes.TURN * 8).astype(int))
    if part == "train":
        assert np.bincount(made.labels).tolist() == [200] * 8


def test_noise_has_its_size_and_parts_are_drawn_apart():
    noisy, clean = (shapes.torus(small(Torus, "torus", noise=noise), 8, "train").inputs for noise in (0.01, 0.0))
    assert (noisy - clean).std() == pytest.approx(0.01, rel=0.05)
    options = small(Rings, "rings")
    assert np.array_equal(shapes.rings(options, "test").inputs, shapes.rings(options, "test").inputs)
    assert not np.array_equal(shapes.rings(options, "test").inputs, shapes.rings(options, "val").inputs)


def test_rings_that_are_not_linked_are_refused():
    with pytest.raises(UserError, match="an offset below twice the radius, 1, so that the rings are linked"):
        small(Rings, "rings", offset=1.0)


def test_measures_equal_their_naive_twins():
    random = np.random.default_rng(0)
    inputs, found, labels = random.normal(size=(12, 3)), random.normal(size=(12, 5)), random.integers(0, 2, 12)
    pairs = [(i, j) for i in range(12) for j in range(i + 1, 12) if labels[i] == labels[j]]
    before = np.array([np.linalg.norm(inputs[i] - inputs[j]) for i, j in pairs])
    after = np.array([np.linalg.norm(found[i] - found[j]) for i, j in pairs])
    ours = same_class_distances(inputs, found, labels)
    assert np.allclose(ours[0], before) and np.allclose(ours[1], after)
    assert correlation(before, after) == pytest.approx(np.corrcoef(before, after)[0, 1])
    assert stress(before, after, 2.0) == pytest.approx(np.sqrt(sum((2 * after - before) ** 2) / sum(before**2)))
    for i, value in enumerate(local_distortion(inputs, found, labels, 2.0, 2)):
        others = [j for j in range(12) if j != i and labels[j] == labels[i]]
        near = sorted(others, key=lambda j: np.linalg.norm(inputs[i] - inputs[j]))[:2]
        ratios = [2 * np.linalg.norm(found[i] - found[j]) / np.linalg.norm(inputs[i] - inputs[j]) for j in near]
        assert value == pytest.approx(np.abs(np.log2(ratios)).mean())
    for i, value in enumerate(boundary_distance(inputs, labels)):
        assert value == pytest.approx(min(np.linalg.norm(inputs[i] - inputs[j]) for j in range(12) if labels[j] != labels[i]))


def test_closed_forms():
    inputs = np.random.default_rng(1).normal(size=(20, 3))
    labels = np.arange(20) % 2
    turned = inputs @ np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    pairs = same_class_distances(inputs, turned, labels)
    assert stress(*pairs, 1.0) == pytest.approx(0, abs=1e-9) and correlation(*pairs) == pytest.approx(1)
    assert np.allclose(local_distortion(inputs, turned, labels, 1.0, 3), 0, atol=1e-9)
    assert np.allclose(local_distortion(inputs, turned / 2, labels, 1.0, 3), 1)  # half as far: one power of 2
    assert np.allclose(local_distortion(inputs, turned / 10, labels, 10.0, 3), 0, atol=1e-9)
    assert correlation(np.ones(4), np.arange(4.0)) == 0


@pytest.mark.parametrize(("name", "kind"), [("rings", Rings), ("torus", Torus)])
def test_a_study_gives_numbers_and_pictures_and_the_same_bytes_again(name, kind):
    done, again = (study(name, small(kind, name), torch.device("cpu")) for _ in range(2))
    told = measures(done)
    assert told == measures(again)
    assert list(told["levels"]) == (["level-1"] if name == "rings" else ["level-1", "level-2", "level-3"])
    for level in told["levels"].values():
        assert {"accuracy", "correlation", "stress", "distortion", "boundary_rank_correlation"} == set(level["isometric"])
        assert all({"value", "lo", "hi", "verdict"} == set(claim) for claim in level["claims"].values())
    drawn = figures(done)
    assert set(drawn) == {"input.png", "representation.png", "distances.png", "distortion.png"}
    if name == "rings":
        assert drawn == figures(again)
    assert all(content.startswith(b"\x89PNG") and b"Software" not in content for content in drawn.values())


def test_both_arms_start_from_the_same_weights_and_differ_by_the_term_alone():
    options = small(Rings, "rings", isometry={"beta": 0.0})
    done = study("rings", options, torch.device("cpu"))
    first, second = (done.networks[arm][0].state_dict() for arm in ("isometric", "cross-entropy"))
    assert all(torch.equal(first[key], second[key]) for key in first)
