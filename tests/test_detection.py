"""The detector against naive twins, planted results for its verdicts, and attacks with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import NETWORKS

import isorobust
from isorobust.attacks.minimal import carlini_wagner, deep_fool
from isorobust.common import artifacts
from isorobust.common.params import check
from isorobust.common.splits import Split
from isorobust.common.statistics import mean
from isorobust.compare import detection
from isorobust.connectivity.inputs import cross_entropy
from isorobust.connectivity.paths import curve_features
from isorobust.detection.adaptive import adaptive, barrier_score, fitted_score
from isorobust.detection.detector import FLOOR, BarrierDetector, Seen, features
from isorobust.detection.inputs import attacked, references
from isorobust.detection.measure import Verdicts, measure, summarise
from isorobust.detection.scores import ADAPTIVE, SCORES, UNSEEN
from isorobust.detection.settings import DetectionSettings
from isorobust.errors import UserError
from isorobust.networks.zoo import build
from isorobust.ranking import auroc, auroc_by_image, contrasts, share_by_image

SMALL = {
    "arms": ["baseline"],
    "references": 4,
    "points": 9,
    "images": 40,
    "eps": 0.2,
    "fitting": {"images": 150, "eps": [0.1, 0.2, 0.4]},
    "attacks": {
        "pgd": {"steps": 10},
        "apgd-ce": {"steps": 10},
        "square": {"queries": 50},
        "fab": {"steps": 10},
        "cw": {"images": 20, "weight": 5.0, "steps": 60, "learning_rate": 0.05},
        "deepfool": {"images": 10, "steps": 20},
        "matched": {"steps": 200, "learning_rate": 0.02, "distortion": 1.0, "tolerance": 0.3},
    },
    "adaptive": {"images": 20, "steps": 15},
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def options():
    return check(DetectionSettings, SMALL, "detection")


def held_out(splits):
    return torch.from_numpy(splits.val.images).float() / 255, torch.from_numpy(splits.val.labels)


@pytest.fixture
def detector(trained, splits):
    images = torch.from_numpy(splits.train.images).float() / 255
    place = references(trained, images, torch.from_numpy(splits.train.labels), 5, 4, np.random.default_rng(0))
    return BarrierDetector(trained, images[place], points=9)


# Ranking


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "tied"])
def test_auroc_equals_counting_pairs(rng, ties):
    negative, positive = rng.normal(size=30), rng.normal(0.7, size=20)
    if ties:
        negative, positive = negative.round(), positive.round()
    wins = np.mean([(p > q) + 0.5 * (p == q) for p in positive for q in negative])
    assert auroc(negative, positive) == pytest.approx(wins)
    assert auroc(np.zeros(4), np.ones(3)) == 1 and auroc(np.ones(4), np.ones(3)) == 0.5


def test_values_by_image_average_to_the_auroc_of_those_that_count(rng):
    negative, positive = rng.normal(size=50), rng.normal(1, size=50)
    clean, fooled = rng.random(50) < 0.9, rng.random(50) < 0.4
    positive[~fooled] = np.nan
    values = auroc_by_image(negative, positive, clean, fooled)
    assert values.mean() == pytest.approx(auroc(negative[clean], positive[fooled]))
    assert np.isfinite(values).all() and len(set(values[~clean & ~fooled])) <= 1


def test_their_variance_is_delongs_for_independent_samples(rng):
    """Clean and attacked scores of different images: sum of both sides' variances over their counts."""
    scores = np.concatenate([rng.normal(size=200), rng.normal(1, size=300)])
    fooled = np.arange(500) >= 200
    low, high = scores[~fooled], scores[fooled]
    v10 = np.array([np.mean(x > low) for x in high])
    v01 = np.array([np.mean(high > x) for x in low])
    delong = v10.var(ddof=1) / 300 + v01.var(ddof=1) / 200
    values = auroc_by_image(scores, scores, ~fooled, fooled)
    assert values.var(ddof=1) / 500 == pytest.approx(delong, rel=0.01)


def test_intervals_of_the_auroc_cover_it():
    """Three seeds that share their images; the truth is the AUROC of two normals one apart."""
    truth, covered = 0.5 * (1 + math.erf(1 / 2)), 0
    for run in range(300):
        stream = np.random.default_rng(run)
        image, clean, fooled = stream.normal(size=(2, 80)), np.ones(80, bool), np.ones(80, bool)
        rest = stream.normal(size=(3, 2, 80))
        scores = (image + rest) / np.sqrt(2) + np.array([0, 1])[:, None]
        values = np.stack([auroc_by_image(*pair, clean, fooled) for pair in scores])
        interval = mean(values, 0, 1)
        covered += interval.lo <= truth <= interval.hi
    assert 0.91 <= covered / 300 <= 0.99


def test_shares_by_image_average_to_the_share_of_the_counted(rng):
    flags, counted = rng.random(40) < 0.3, rng.random(40) < 0.5
    assert share_by_image(flags, counted).mean() == pytest.approx(flags[counted].mean())
    assert share_by_image(flags, np.ones(40, bool)).tolist() == flags.astype(float).tolist()


def test_contrasts_equal_written_out_formulas(rng):
    seeds = [({"gap": rng.normal(size=9)}, {"gap": rng.normal(1, size=7)}) for _ in range(3)]
    row = contrasts(seeds, {"gap": (0.0, np.inf)})["gap"]
    shifts = [b["gap"].mean() - a["gap"].mean() for a, b in seeds]
    pooled = [np.sqrt((a["gap"].var(ddof=1) + b["gap"].var(ddof=1)) / 2) for a, b in seeds]
    assert row["difference"]["value"] == pytest.approx(np.mean(shifts))
    assert row["effect"]["value"] == pytest.approx(np.mean(np.array(shifts) / pooled))
    assert row["auroc"]["lo"] < row["auroc"]["value"] < row["auroc"]["hi"]


# Minimum-norm attacks


class Linear(torch.nn.Module):
    """Two classes on either side of a plane; `offset` is added to both logits."""

    def __init__(self, offset=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 16))
        self.offset = offset

    def forward(self, x):
        side = (x.flatten(1) - 0.5) @ self.weight
        return torch.stack([side, -side], dim=1) + self.offset


@pytest.mark.parametrize("offset", [0.0, -50.0], ids=["logits around zero", "all logits negative"])
@pytest.mark.parametrize("attack", ["cw", "deepfool"])
def test_minimum_norm_attacks_cross_a_plane_at_its_distance(attack, offset):
    model = Linear(offset)
    images = 0.3 + 0.4 * torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = model(images).argmax(1)
    if attack == "cw":
        made = carlini_wagner(model, images, labels, weight=20.0, steps=400, learning_rate=0.01)
    else:
        made = deep_fool(model, images, labels, steps=20, overshoot=0.02)
    away = ((images.flatten(1) - 0.5) @ model.weight).abs() / model.weight.norm()
    moved = (made - images).flatten(1).norm(dim=1)
    assert (model(made).argmax(1) != labels).all()
    assert (moved >= away - 1e-4).all() and (moved <= 1.15 * away + 0.02).all()
    assert model.weight.requires_grad and model.weight.grad is None


def test_deepfool_crosses_the_boundaries_of_a_network(trained, test_tensors):
    """Judged alone and with others: its images may not stop on the boundary, where rounding decides."""
    images, labels = test_tensors
    right = trained(images).argmax(1) == labels
    made = deep_fool(trained, images[right], labels[right], steps=30, overshoot=0.02)
    together = trained(made).argmax(1) != labels[right]
    alone = torch.cat([trained(one[None]).argmax(1) for one in made]) != labels[right]
    assert together.float().mean() > 0.95 and torch.equal(together, alone)


def test_carlini_wagner_moves_pixels_at_the_ends_of_the_range():
    model = Linear()
    images = (torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    labels = model(images).argmax(1)
    made = carlini_wagner(model, images, labels, weight=50.0, steps=600, learning_rate=0.05)
    assert (model(made).argmax(1) != labels).all() and made.min() >= 0 and made.max() <= 1


# The detector


def test_what_is_seen_equals_loops_over_references_and_points(detector, splits):
    x = torch.from_numpy(splits.test.images[:6]).float() / 255
    seen = detector.see(x, batch=50)
    with torch.no_grad():
        for i in range(6):
            k = int(detector.model(x[i : i + 1]).argmax())
            probability = detector.model(x[i : i + 1]).double().softmax(1)[0, k]
            curves = [
                [
                    -detector.model(((1 - t) * start + t * x[i])[None]).double().log_softmax(1)[0, k].item()
                    for t in np.linspace(0, 1, 9)
                ]
                for start in detector.references[k]
            ]
            assert seen.classes[i] == k and seen.softmax[i] == pytest.approx(float(probability), abs=1e-6)
            assert seen.loss[i] == pytest.approx(-math.log(probability), rel=1e-3, abs=1e-9)
            assert seen.barrier[i] == pytest.approx(np.mean([max(curve) for curve in curves]), rel=1e-3, abs=1e-7)
            assert seen.ends[i] == pytest.approx(np.mean([max(c[0], c[-1]) for c in curves]), rel=1e-3, abs=1e-7)
            assert seen.features[i, 5] == pytest.approx(math.log(seen.loss[i] + FLOOR), abs=1e-2)
            gaps = [max(curve) - max(curve[0], curve[-1]) for curve in curves]
            assert seen.features[i, 1] == pytest.approx(np.mean(np.log(np.array(gaps) + FLOOR)), abs=1e-2)
            peaks = [sum(c[j] > c[j - 1] and c[j] >= c[j + 1] for j in range(1, 8)) for c in curves]
            assert seen.features[i, 3] == pytest.approx(np.mean(peaks))


def test_losses_of_confident_networks_stay_apart():
    logits = torch.tensor([[40.0, 0.0], [60.0, 0.0]])
    found = cross_entropy(torch.nn.Identity(), logits, torch.zeros(2, dtype=torch.long))
    assert found[0] >= found[1] >= 0 and found.dtype == torch.float64
    assert cross_entropy(torch.nn.Identity(), torch.tensor([[25.0, 0.0]]), torch.tensor([0])) > 0


def test_references_are_right_distinct_and_of_their_class(trained, splits):
    images, labels = torch.from_numpy(splits.train.images).float() / 255, torch.from_numpy(splits.train.labels)
    place = references(trained, images, labels, 5, 8, np.random.default_rng(1))
    for k, own in enumerate(place.tolist()):
        assert len(set(own)) == 8 and (labels[own] == k).all() and (trained(images[own]).argmax(1) == k).all()


def test_a_class_that_a_network_never_gives_is_filled_with_its_lowest_losses():
    def model(x):
        score = x.flatten(1).sum(1)
        return torch.stack([torch.ones_like(score) * 100, score], dim=1)

    images = torch.arange(6.0).view(6, 1, 1, 1)
    place = references(model, images, torch.zeros(6, dtype=torch.long), 2, 3, np.random.default_rng(0))
    assert place[1].tolist() == [5, 4, 3]
    with pytest.raises(ValueError, match="need as many images, found 6"):
        references(model, images, torch.zeros(6, dtype=torch.long), 2, 7, np.random.default_rng(0))


def planted(stream, count, shift):
    """What a detector would see of `count` inputs whose barriers are `shift` higher."""
    curves = stream.normal(size=(count, 6)) + shift * np.array([1, 1, 0, 0, 1, 0])
    loss = np.exp(curves[:, 5])
    return Seen(np.zeros(count, int), loss, np.exp(-loss), np.exp(curves[:, 0]), loss, curves)


def test_fitted_scores_separate_what_curves_separate_and_no_more(rng):
    detector = BarrierDetector(torch.nn.Identity(), torch.zeros(2, 3, 1, 2, 2))
    assert set(detector.scores(planted(rng, 5, 0))) == {"barrier", "ends", "endpoint-loss", "max-softmax"}
    with pytest.raises(RuntimeError, match="call `fit` first"):
        detector.linear("cpu")
    detector.fit(planted(rng, 300, 0), planted(rng, 100, 2))
    detector.set_thresholds(planted(rng, 2000, 0))
    clean, moved = (detector.scores(planted(rng, 1000, shift)) for shift in (0, 2))
    assert tuple(clean) == SCORES
    assert auroc(clean["fitted"], moved["fitted"]) > 0.9 > 0.6 > auroc(clean["fitted-loss"], moved["fitted-loss"]) > 0.4
    for name, limit in detector.thresholds.items():
        assert (clean[name] > limit).mean() == pytest.approx(0.05, abs=0.02)
    weights, offset = detector.linear("cpu")
    sample = planted(rng, 7, 1)
    assert np.allclose(sample.features @ weights.numpy() + offset, detector.scores(sample)["fitted"])
    detector.fit(planted(rng, 100, 2), planted(rng, 300, 0))
    assert not detector.thresholds  # they were of the fit before


@pytest.mark.parametrize(("references", "points"), [((2, 0, 1, 2, 2), 20), ((2, 3), 20), ((2, 3, 1, 2, 2), 1)])
def test_a_detector_needs_references_and_points(references, points):
    with pytest.raises(ValueError, match="needs at least 2 points and references"):
        BarrierDetector(torch.nn.Identity(), torch.zeros(references), points)


def test_a_loss_is_unusual_on_either_side_of_that_of_clean_inputs(rng):
    detector = BarrierDetector(torch.nn.Identity(), torch.zeros(2, 3, 1, 2, 2))
    with pytest.raises(ValueError, match="need clean inputs"):
        detector.set_thresholds(planted(rng, 0, 0))
    detector.set_thresholds(planted(rng, 500, 0))
    clean = planted(rng, 500, 0)
    for factor in (1e-3, 1e3):
        moved = clean._replace(loss=factor * planted(rng, 500, 0).loss)
        both = detector.scores(clean), detector.scores(moved)
        assert auroc(*(one["unusual-loss"] for one in both)) > 0.99
        assert (auroc(*(one["endpoint-loss"] for one in both)) > 0.5) == (factor > 1)


def test_fitting_needs_both_kinds(rng):
    detector = BarrierDetector(torch.nn.Identity(), torch.zeros(2, 3, 1, 2, 2))
    with pytest.raises(ValueError, match="found 4 clean and 0 adversarial"):
        detector.fit(planted(rng, 4, 0), planted(rng, 0, 0))


def test_references_of_another_form_are_named(detector):
    image = detector.references[0, :1]
    with pytest.raises(ValueError, match=r"references must be \[K, m, \*\[1, 8, 8\]\] for inputs .*, found \[4, 1, 8, 8\]"):
        BarrierDetector(detector.model, detector.references[0]).see(image)
    with pytest.raises(ValueError, match="found references of 3 classes and 5 logits"):
        BarrierDetector(detector.model, detector.references[:3]).see(image)


def test_the_detector_is_public():
    assert isorobust.BarrierDetector is BarrierDetector


# Adaptive attacks


@pytest.mark.parametrize("score", [barrier_score, fitted_score], ids=["barrier", "fitted"])
def test_gradients_of_the_scores_are_finite_differences(score, splits, rng):
    network = build(NETWORKS["tanh-mlp"], (1, 8, 8), 5, seed=0).double().eval()
    images = torch.from_numpy(splits.train.images[:20]).double() / 255
    detector = BarrierDetector(network, images.view(5, 4, 1, 8, 8), points=7)
    detector.fit(planted(rng, 50, 0), planted(rng, 50, 1))
    x, classes = torch.from_numpy(splits.test.images[:3]).double() / 255, torch.tensor([0, 3, 1])
    there = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(detector)(there, classes).sum(), there)
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    h = 1e-6
    with torch.no_grad():
        ahead, behind = (score(detector)(x + sign * h * direction, classes) for sign in (1, -1))
    assert torch.allclose((gradient * direction).flatten(1).sum(1), (ahead - behind) / (2 * h), rtol=1e-4, atol=1e-7)


def test_the_barrier_under_attack_is_the_one_that_is_judged(detector, splits):
    x = torch.from_numpy(splits.test.images[:10]).float() / 255
    seen = detector.see(x)
    assert np.allclose(barrier_score(detector)(x, torch.from_numpy(seen.classes)).detach(), seen.barrier, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_attacks_fool_with_lower_scores_than_attacks_on_the_network(detector, splits, options, name, trained):
    images, labels = torch.from_numpy(splits.test.images[:20]).float() / 255, torch.from_numpy(splits.test.labels[:20])
    train = torch.from_numpy(splits.train.images[:100]).float() / 255
    noisy = (train + 0.3 * torch.randn(train.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    detector.fit(detector.see(train), detector.see(noisy))
    score = {"adaptive-barrier": barrier_score, "adaptive-fitted": fitted_score}[name](detector)
    plain = dict(attacked(detector, images, labels, held_out(splits), options, 0))["pgd"].images
    made = adaptive(detector, score, images, labels, plain, 0.2, 30, batch=200)
    assert (made - images).abs().max() <= 0.2 + 1e-6 and made.min() >= 0 and made.max() <= 1
    both = (trained(made).argmax(1) != labels) & (trained(plain).argmax(1) != labels)
    assert both.float().mean() > 0.5
    kind = name.removeprefix("adaptive-")
    scores = [detector.scores(detector.see(x[both]))[kind].mean() for x in (made, plain)]
    assert scores[0] < scores[1] - 0.2 * abs(scores[1])


def test_matched_images_have_the_losses_of_their_partners_and_not_of_references(detector, splits, options, trained):
    images, labels = torch.from_numpy(splits.test.images[:20]).float() / 255, torch.from_numpy(splits.test.labels[:20])
    others, classes = held_out(splits)
    loss = cross_entropy(trained, others, classes)
    partner = loss.argsort(descending=True)[:5]  # a single one of each of some classes, of high loss
    all_made = attacked(detector, images, labels, (others[partner], classes[partner]), options, 0)
    made = next(made for name, made in all_made if name == "matched").images
    moved = (made != images).flatten(1).any(1)
    found = trained(made[moved]).argmax(1)
    assert moved.any() and set(found.tolist()) <= set(classes[partner].tolist())
    for image, k in zip(made[moved], found):
        off = cross_entropy(trained, image[None], k[None]).log() - loss[partner[classes[partner] == k]].log()
        assert off.abs().min() <= 0.3 + 1e-6


def test_adaptive_attacks_are_tried_on_what_pgd_fools(detector, splits, options, trained):
    images, labels = torch.from_numpy(splits.test.images).float() / 255, torch.from_numpy(splits.test.labels)
    train = torch.from_numpy(splits.train.images[:100]).float() / 255
    detector.fit(detector.see(train), detector.see((train + 0.3 * torch.randn_like(train)).clamp(0, 1)))
    weak = check(DetectionSettings, {**SMALL, "eps": 0.06}, "detection")
    made = dict(attacked(detector, images, labels, held_out(splits), weak, 0))
    fooled = trained(made["pgd"].images).argmax(1) != labels
    places = made["adaptive-barrier"].places
    count = min(int(fooled.sum()), len(places))
    assert 0 < count < len(images) and places[:count].tolist() == fooled.nonzero().flatten()[:count].tolist()


def test_fitting_sees_no_reference_and_thresholds_only_right_validation_images(trained, splits, options, monkeypatch):
    looked, fitted, limited = {}, [], []
    see, fit, limit = BarrierDetector.see, BarrierDetector.fit, BarrierDetector.set_thresholds

    def watched(self, x, *rest):
        seen = see(self, x, *rest)
        looked[id(seen)] = seen, x
        return seen

    monkeypatch.setattr(BarrierDetector, "see", watched)
    monkeypatch.setattr(BarrierDetector, "fit", lambda self, a, b: fitted.append((self.references, a)) or fit(self, a, b))
    monkeypatch.setattr(BarrierDetector, "set_thresholds", lambda self, a: limited.append(a) or limit(self, a))
    measure([(0, trained)], splits.train, splits.val, splits.test, options, CPU, trained=True)
    ((chosen, clean),) = fitted
    apart = torch.cdist(looked[id(clean)][1].flatten(1), chosen.flatten(0, 1).flatten(1))
    assert len(apart) > 100 and apart.min() > 0.01
    images, labels = held_out(splits)
    assert torch.equal(looked[id(limited[0])][1], images[trained(images).argmax(1) == labels])


def test_fitting_sees_every_class_where_training_images_stand_class_by_class(trained, splits, options, monkeypatch):
    """As images from folders do: the first of them would all be of one class."""
    order = splits.train.labels.argsort(kind="stable")
    fitted, fit = [], BarrierDetector.fit
    monkeypatch.setattr(BarrierDetector, "fit", lambda self, a, b: fitted.append(a.classes) or fit(self, a, b))
    ordered = type(splits.train)(splits.train.images[order], splits.train.labels[order])
    few = options.model_copy(update={"fitting": options.fitting.model_copy(update={"images": 60})})
    measure([(0, trained)], ordered, splits.val, splits.test, few, CPU, trained=True)
    assert set(fitted[0].tolist()) == {0, 1, 2, 3, 4}


def test_references_are_drawn(trained, splits):
    images, labels = torch.from_numpy(splits.train.images).float() / 255, torch.from_numpy(splits.train.labels)
    drawn = [references(trained, images, labels, 5, 4, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


# A stage's numbers


@pytest.fixture(scope="module")
def measured(trained, splits, options):
    return measure([(0, trained), (4, trained)], splits.train, splits.val, splits.test, options, CPU, trained=True)


def test_numbers_and_arrays_agree(measured):
    numbers, arrays = measured
    assert set(numbers["fooled"]) == {*UNSEEN, *ADAPTIVE} and numbers["seeds"] == 2
    for attack, scores in numbers["auroc"].items():
        assert set(scores) == set(numbers["tpr_at_5fpr"][attack]) == set(SCORES)
        for name, one in scores.items():
            fooled, clean = arrays[f"fooled/{attack}"], arrays[f"score/clean/{name}"]
            there = arrays[f"score/{attack}/{name}"]
            each = [auroc(clean[s][arrays["right"][s]], there[s][fooled[s]]) for s in range(2)]
            assert one["value"] == pytest.approx(np.mean(each)) and 0 <= one["lo"] <= one["value"] <= one["hi"] <= 1
            found = [np.mean(there[s][fooled[s]] > arrays[f"threshold/{name}"][s]) for s in range(2)]
            assert numbers["tpr_at_5fpr"][attack][name]["value"] == pytest.approx(np.mean(found))
            assert one["n"] == fooled.any(0).sum()
    for norm, limit in (("l2", 0.2 * 8), ("linf", 0.2)):  # radius and size of the images
        assert 0 < numbers["change"]["pgd"][norm]["value"] <= limit + 1e-6
    assert np.isnan(arrays["score/cw/barrier"][:, 20:]).all() and not arrays["fooled/cw"][:, 20:].any()
    assert set(numbers["curves"]["pgd"]) == {"height", "gap", "position", "maxima", "area", "endpoint-loss"}


def test_curves_are_compared_image_by_image(measured):
    numbers, arrays = measured
    row = numbers["curves"]["pgd"]["endpoint-loss"]
    right, fooled = arrays["right"], arrays["fooled/pgd"]
    before, after = (np.log(arrays[f"score/{kind}/endpoint-loss"] + FLOOR) for kind in ("clean", "pgd"))
    means = [(after[s][fooled[s]].mean(), before[s][right[s]].mean()) for s in range(2)]
    assert row["difference"]["value"] == pytest.approx(np.mean([a - b for a, b in means]), abs=0.02)
    assert row["difference"]["lo"] < row["difference"]["value"] < row["difference"]["hi"]
    assert row["auroc"]["value"] == pytest.approx(numbers["auroc"]["pgd"]["endpoint-loss"]["value"], abs=0.02)


def test_measuring_again_gives_the_same(trained, splits, options, measured):
    again, _ = measure([(0, trained), (4, trained)], splits.train, splits.val, splits.test, options, CPU, trained=True)
    assert again == measured[0]


def test_untrained_networks_are_asked_about_their_own_classes(splits, options):
    network = build(NETWORKS["tanh-mlp"], (1, 8, 8), 5, seed=1).eval()
    _, arrays = measure([(1, network)], splits.train, splits.val, splits.test, options, CPU, trained=False)
    assert arrays["right"].all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 81}, "detection.images: found 81; allowed: at most 80"),
        ({"fitting": {"images": 390, "eps": [0.1]}}, "detection.fitting.images: found 390; allowed: at most 380"),
        ({"references": 80}, "detection.references: found 80; allowed: at most 79"),
        ({"fitting": {"images": 5, "eps": [0.0001]}}, "at which no image fools seed 0"),
    ],
    ids=["images", "training images", "references", "radii that fool nobody"],
)
def test_numbers_that_the_data_cannot_serve_are_named(trained, splits, change, message):
    with pytest.raises(UserError, match=message):
        measure(
            [(0, trained)], splits.train, splits.val, splits.test, check(DetectionSettings, {**SMALL, **change}, "x"), CPU, True
        )


@pytest.mark.parametrize(("name", "key"), [("pgd", "images"), ("apgd-ce", "seeds"), ("square", "batch"), ("pgd", "eps")])
def test_what_detection_has_of_its_own_is_refused_in_its_attacks(name, key):
    value = {"linf": [0.3]} if key == "eps" else 1
    asked = {**SMALL, "attacks": {**SMALL["attacks"], name: {**SMALL["attacks"][name], key: value}}}
    with pytest.raises(UserError, match=f"{name} without {key}"):
        check(DetectionSettings, asked, "detection")


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_network_that_gets_none_of_a_part_right_is_told(trained, splits, options, part):
    wrong = {name: getattr(splits, name) for name in ("train", "val", "test")}
    images = torch.from_numpy(wrong[part].images).float() / 255
    wrong[part] = Split(wrong[part].images, ((trained(images).argmax(1) + 1) % 5).numpy())
    told = {"train": "clean images to fit to", "val": "validation images", "test": "test images"}[part]
    with pytest.raises(UserError, match=f"detection: found no {told} that seed 0 gets right"):
        measure([(0, trained)], *wrong.values(), options, CPU, trained=True)


def test_an_attack_tried_on_wrong_images_alone_is_left_out(trained, splits):
    images = torch.from_numpy(splits.test.images).float() / 255
    right = trained(images).argmax(1).numpy() == splits.test.labels
    labels = splits.test.labels.copy()
    labels[0] = (labels[0] + 1) % 5 if right[0] else labels[0]  # the one that DeepFool gets
    few = {**SMALL, "attacks": {**SMALL["attacks"], "deepfool": {"images": 1, "steps": 5}}}
    test = Split(splits.test.images, labels)
    numbers, _ = measure([(0, trained)], splits.train, splits.val, test, check(DetectionSettings, few, "x"), CPU, True)
    assert "deepfool" not in numbers["fooled"] and "pgd" in numbers["fooled"]
    artifacts.json_bytes(numbers)  # refuses what JSON lacks


def test_a_robust_network_leaves_attacks_out(trained, splits, options):
    seen = Verdicts(
        np.ones(40, bool),
        {"pgd": np.zeros(40, bool)},
        {kind: {"barrier": np.zeros(40)} for kind in ("clean", "pgd")},
        {"barrier": 0.5},
        {"clean": np.zeros((40, 6)), "pgd": np.zeros((40, 6))},
        {"pgd": np.zeros((40, 2))},
    )
    numbers, _ = summarise([0], [seen])
    assert numbers["fooled"]["pgd"]["value"] == 0 and numbers["auroc"] == {}


# Verdicts of the comparison


def results(stream, shifts, seeds=5, count=150):
    """Results of an arm whose scores rise by `shifts[score]` under pgd and square."""
    seen = []
    for _ in range(seeds):
        scores = {
            kind: {name: stream.normal(size=count) + (0 if kind == "clean" else shifts.get(name, 0)) for name in SCORES}
            for kind in ("clean", "pgd", "square")
        }
        fooled = {attack: stream.random(count) < 0.8 for attack in ("pgd", "square")}
        features = {kind: stream.normal(size=(count, 6)) for kind in scores}
        change = {attack: stream.random((count, 2)) for attack in fooled}
        seen.append(Verdicts(stream.random(count) < 0.95, fooled, scores, dict.fromkeys(SCORES, 1.6), features, change))
    numbers, arrays = summarise(list(range(seeds)), seen)
    return {"numbers": numbers, "arrays": arrays}


@pytest.mark.parametrize(
    ("shifts", "beyond_loss", "beyond_unusual", "beyond_ends", "fitted"),
    [
        ({"barrier": 1.5, "fitted": 1.5}, "holds", "holds", "holds", "holds"),
        ({}, "undecided", "undecided", "undecided", "undecided"),
        ({"barrier": 1.0, "endpoint-loss": 2.0}, "does not hold", "holds", "holds", "undecided"),
        ({"barrier": 1.0, "endpoint-loss": -2.0, "unusual-loss": 2.0}, "holds", "does not hold", "holds", "undecided"),
        ({"barrier": 1.0, "ends": 2.0}, "holds", "holds", "does not hold", "undecided"),
        ({"fitted": 0.5, "fitted-loss": 2.0}, "undecided", "undecided", "undecided", "does not hold"),
    ],
    ids=[
        "paths tell more",
        "nothing tells anything",
        "the loss tells more",
        "a lower loss tells more",
        "the ends tell more",
        "the fitted loss tells more",
    ],
)
def test_verdicts_on_planted_scores(shifts, beyond_loss, beyond_unusual, beyond_ends, fitted):
    told = detection.judged(results(np.random.default_rng(5), shifts))
    assert told["barrier-beyond-loss"]["verdict"] == beyond_loss and told["barrier-beyond-loss"]["attacks"] == 2
    assert told["barrier-beyond-unusual-loss"]["verdict"] == beyond_unusual
    assert told["barrier-beyond-ends"]["verdict"] == beyond_ends
    assert told["fitted-beyond-loss"]["verdict"] == fitted and "equal-loss" not in told


def test_arms_are_held_against_the_reference_pair_by_pair():
    stream = np.random.default_rng(6)
    found = {"baseline": results(stream, {}), "isometric": results(stream, {"barrier": 1.5}), "untrained": results(stream, {})}
    tree = detection.tree(found, "baseline")
    assert set(tree["differences"]) == {"isometric-vs-baseline"}
    assert tree["differences"]["isometric-vs-baseline"]["barrier"]["verdict"] == "holds"
    gain = [tree["arms"][arm]["auroc"]["pgd"]["barrier"]["value"] for arm in ("isometric", "baseline")]
    more = [tree["arms"][arm]["auroc"]["square"]["barrier"]["value"] for arm in ("isometric", "baseline")]
    change = tree["differences"]["isometric-vs-baseline"]["barrier"]["value"]
    assert change == pytest.approx((gain[0] - gain[1] + more[0] - more[1]) / 2)
    assert detection.table(tree).count("\n") == 3 * 3 + 1 and "higher" in detection.differences_table(tree)


def test_features_are_averages_over_references(rng):
    curves = torch.from_numpy(rng.random((4, 3, 6)))
    found = curve_features(curves)
    assert features(curves)[:, 0].tolist() == pytest.approx((found["height"] + FLOOR).log().mean(1).tolist())
    assert features(curves)[:, 2].tolist() == pytest.approx(found["position"].double().mean(1).tolist())
