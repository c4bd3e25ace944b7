"""Toys: where the points lie, the measures against twins and closed forms, the same bytes for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ROOT

from isorobust.common.params import Params, check
from isorobust.errors import UserError
from isorobust.toys import shapes
from isorobust.toys.plots import figures
from isorobust.toys.settings import Rings, Torus
from isorobust.toys.study import MEASURES, boundary_distance, kept, measures, study

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


def test_a_torus_whose_training_points_miss_a_sector_is_refused():
    with pytest.raises(UserError, match="a side of at least 8, so that each of the levels' sectors holds training points"):
        small(Torus, "torus", side=7)


def test_boundary_distance_equals_its_naive_twin():
    random = np.random.default_rng(0)
    inputs, labels = random.normal(size=(12, 3)), random.integers(0, 2, 12)
    for i, value in enumerate(boundary_distance(inputs, labels)):
        assert value == pytest.approx(min(np.linalg.norm(inputs[i] - inputs[j]) for j in range(12) if labels[j] != labels[i]))


def test_a_network_that_only_turns_and_shrinks_keeps_everything():
    done = study("torus", small(Torus, "torus", seeds=[0]), torch.device("cpu"))
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    shrunk = done.seen["isometric"][0][1]._replace(representations=done.test.inputs @ turn / 10)
    done = done._replace(seen={"isometric": [[shrunk] * 3]})
    one = kept(done, "isometric", 0, 1)
    assert one.fit == pytest.approx((1, 0, 10), abs=1e-5)
    assert one.distortion == pytest.approx(np.zeros(120), abs=1e-4)
    labels = done.truth[1]
    assert len(one.d_x) == sum(labels[i] == labels[j] for i in range(120) for j in range(i))


@pytest.mark.parametrize(("name", "kind"), [("rings", Rings), ("torus", Torus)])
def test_a_study_gives_numbers_and_pictures_and_the_same_bytes_again(name, kind):
    done, again = (study(name, small(kind, name), torch.device("cpu")) for _ in range(2))
    told = measures(done)
    assert told == measures(again)
    assert list(told["levels"]) == (["level-1"] if name == "rings" else ["level-1", "level-2", "level-3"])
    for level in told["levels"].values():
        assert set(level["isometric"]) == {"accuracy", *MEASURES}
        assert all({"value", "lo", "hi", "verdict"} == set(claim) for claim in level["claims"].values())
        ours, plain = ({key: level[arm][key]["value"] for key in MEASURES} for arm in ("isometric", "cross-entropy"))
        claimed = {
            "correlation is higher than under cross-entropy": ours["correlation"] - plain["correlation"],
            "stress is lower than under cross-entropy": plain["stress"] - ours["stress"],
            "isometric distortion is higher near boundaries": -ours["boundary_rank_correlation"],
        }
        assert {name: claim["value"] for name, claim in level["claims"].items()} == pytest.approx(claimed)
    drawn = figures(done)
    assert set(drawn) == {"input.png", "representation.png", "distances.png", "distortion.png"}
    if name == "rings":
        assert drawn == figures(again)
    assert all(content.startswith(b"\x89PNG") and b"Software" not in content for content in drawn.values())


def test_too_few_points_to_measure_are_told():
    done = study("rings", small(Rings, "rings", test_points=2), torch.device("cpu"))
    with pytest.raises(UserError, match="toys: test_points: found 2; allowed: so many that three"):
        measures(done)


def test_both_arms_start_from_the_same_weights_and_differ_by_the_term_alone():
    options = small(Rings, "rings", isometry={"beta": 0.0})
    done = study("rings", options, torch.device("cpu"))
    first, second = (done.networks[arm][0].state_dict() for arm in ("isometric", "cross-entropy"))
    assert all(torch.equal(first[key], second[key]) for key in first)
