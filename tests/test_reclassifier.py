"""The l2-reclassifier: prototypes against twins, gradients, degenerate batches, its file, and the Mixed Surrogate Attack."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import NETWORKS
from torch import nn

import isorobust
from isorobust.attacks.perturb import worst_case_parts
from isorobust.common.params import check
from isorobust.errors import UserError
from isorobust.evaluation.units import Store
from isorobust.fine_tuning.ablation import ablate
from isorobust.fine_tuning.settings import ReclassifierSettings
from isorobust.fine_tuning.train import _assigned, train_reclassifier
from isorobust.networks.checkpoint import Checkpoint
from isorobust.objectives.settings import Arm, CrossEntropy
from isorobust.reclassifier import prototypes as hpm
from isorobust.reclassifier.attack import OverBatches, _adaptive, attack_reclassifier
from isorobust.reclassifier.batches import prepare
from isorobust.reclassifier.checkpoint import PLUG_IN, control, plug_in
from isorobust.reclassifier.dependence import _filled_by_class, batch_dependence, sensitivity
from isorobust.reclassifier.network import MODES, HybridPrototypeReclassifier
from isorobust.reclassifier.settings import ReclassifierAttack
from isorobust.reclassifier.whole_batches import attack_surrogate, one_among_clean, whole_batches
from isorobust.training.arm import train_arm
from isorobust.training.settings import TrainingSettings

CPU = torch.device("cpu")
TRAINING = TrainingSettings(epochs=6, batch_size=50, learning_rate=3e-3)
TUNING = {
    "arms": ["reclassifier"],
    "epochs": 1,
    "learning_rate": 1e-3,
    "ablation": {"mix": [0.0, 1.0], "momentum": [0.5], "temperature": [1.0], "seeds": 1, "images": 40, "eps": 0.1, "steps": 2},
}
ATTACK = {
    "eps": {"linf": [0.1]},
    "images": 40,
    "batch": 20,
    "apgd_steps": 10,
    "fab_steps": 10,
    "square_queries": 40,
    "adaptive_steps": 10,
    "adaptive_draws": 2,
    "batch_sizes": [1, 20],
    "shuffles": 3,
}


@pytest.fixture(scope="module")
def base(splits) -> Checkpoint:
    arm = Arm(CrossEntropy(objective="cross-entropy"))
    return train_arm(
        splits.train, splits.val, NETWORKS["tanh-mlp"], arm, TRAINING, [0, 3], CPU, {"arm": "baseline", "data": "x"}
    ).checkpoint


@pytest.fixture(scope="module")
def tuned(base, splits):
    return train_reclassifier(
        base, splits.train, splits.val, check(ReclassifierSettings, TUNING, "x"), TRAINING, CPU, {"arm": "reclassifier"}
    )


@pytest.fixture(scope="module")
def attacked(tuned, splits, tmp_path_factory):
    options = check(ReclassifierAttack, ATTACK, "x")
    return attack_reclassifier(tuned.checkpoint, splits.test, options, Store(tmp_path_factory.mktemp("units")), CPU)


def batch(size=7, dimension=4, classes=3, seed=0):
    stream = torch.Generator().manual_seed(seed)
    features, logits, dataset = (
        torch.randn(*shape, generator=stream, dtype=torch.float64)
        for shape in ((size, dimension), (size, classes), (classes, dimension))
    )
    return features, logits, dataset


@pytest.mark.parametrize("kind", ["hard", "soft", "ste"])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_logits_equal_a_loop_over_classes_and_samples(kind, size):
    features, logits, dataset = batch(size)
    found = hpm.l2_logits(features, hpm.mixed(dataset, hpm.batch_prototypes(features, logits, kind), 0.3), 0.7)
    predicted = logits.argmax(1).tolist()
    for k in range(3):
        weights = [float(F.softmax(logits[n], 0)[k]) if kind == "soft" else float(predicted[n] == k) for n in range(size)]
        prototype = dataset[k]
        if k in predicted:
            mean = sum(w * f for w, f in zip(weights, features)) / sum(weights)
            prototype = 0.3 * dataset[k] + 0.7 * mean
        for n in range(size):
            assert float(found[n, k]) == pytest.approx(-0.7 * float((features[n] - prototype).square().sum()))


def test_leading_dimensions_are_separate_batches():
    parts = [batch(seed=seed) for seed in range(3)]
    features, logits, dataset = (torch.stack(x) for x in zip(*parts))
    together = hpm.l2_logits(features, hpm.mixed(dataset, hpm.batch_prototypes(features, logits, "ste"), 0.4), 1.0)
    for i, (f, z, p) in enumerate(parts):
        assert torch.allclose(together[i], hpm.l2_logits(f, hpm.mixed(p, hpm.batch_prototypes(f, z, "ste"), 0.4), 1.0))


def test_an_absent_class_keeps_its_dataset_prototype():
    features, logits, dataset = batch()
    logits[:, 2] = -50  # never predicted
    found = hpm.batch_prototypes(features, logits, "soft")
    assert found.present.tolist()[2] is False
    assert torch.equal(hpm.mixed(dataset, found, 0.2)[2], dataset[2])
    one_class = torch.zeros(7, 3, dtype=torch.float64)
    one_class[:, 1] = 9.0
    found = hpm.batch_prototypes(features, one_class, "hard")
    assert found.present.tolist() == [False, True, False] and torch.allclose(found.means[1], features.mean(0))
    assert not found.means[0].any()


def test_a_batch_of_one_moves_its_own_prototype_towards_itself():
    features, logits, dataset = batch(1)
    found = hpm.mixed(dataset, hpm.batch_prototypes(features, logits, "ste"), 0.5)
    k = int(logits.argmax())
    assert torch.allclose(found[k], (dataset[k] + features[0]) / 2)


def test_the_straight_through_gradient_is_that_of_soft_weights_at_the_hard_ones():
    """d loss / d logits by the chain rule written out: d loss / d weights at the one-hot weights, times the softmax Jacobian."""
    features, logits, dataset = batch()
    target = torch.tensor([0, 1, 2, 0, 1, 2, 0])

    def loss(weights):
        means = hpm.class_means(features, weights)
        present = F.one_hot(logits.argmax(1), 3).sum(0) > 0
        return F.cross_entropy(hpm.l2_logits(features, hpm.mixed(dataset, hpm.BatchPrototypes(means, present), 0.5), 1.0), target)

    own = logits.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(hpm.assignments(own, "ste")), own)
    hard = hpm.assignments(logits, "hard").requires_grad_()
    (by_weight,) = torch.autograd.grad(loss(hard), hard)
    p = logits.softmax(1)
    assert torch.allclose(found, p * (by_weight - (p * by_weight).sum(1, keepdim=True)))


def test_the_straight_through_gradient_meets_the_soft_one_where_assignments_are_certain():
    features, logits, dataset = batch()
    logits = logits + 4 * F.one_hot(logits.argmax(1), 3)  # certain, yet with a gradient
    gradients = []
    for kind in ("ste", "soft"):
        own = features.clone().requires_grad_()
        prototypes = hpm.mixed(dataset, hpm.batch_prototypes(own, logits + own @ dataset.T * 0.01, kind), 0.5)
        gradients.append(torch.autograd.grad(hpm.l2_logits(own, prototypes, 1.0)[:, 0].sum(), own)[0])
    assert torch.nn.functional.cosine_similarity(gradients[0].flatten(), gradients[1].flatten(), 0) > 0.99


def test_the_gradient_at_the_prototype_itself_is_zero():
    prototype = torch.randn(2, 4)
    features = prototype[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(hpm.l2_logits(features, prototype, 1.0)[0, 0], features)
    assert gradient.abs().max() < 1e-5


def test_the_moving_average_equals_its_loop():
    features, _, dataset = batch()
    labels = torch.tensor([0, 0, 1, 1, 1, 0, 0])
    found = hpm.moved(dataset, features, labels, 0.8)
    for k in (0, 1):
        assert torch.allclose(found[k], 0.8 * dataset[k] + 0.2 * features[labels == k].mean(0))
    assert torch.equal(found[2], dataset[2])


class Foreign(nn.Module):
    """Somebody else's classifier: features and a last linear layer."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(64, 6), nn.Linear(6, 5)

    def features(self, x):
        return torch.relu(self.body(x.flatten(1)))

    def forward(self, x):
        return self.head(self.features(x))


def test_the_plug_in_takes_any_classifier_that_has_features(splits):
    images = torch.from_numpy(splits.train.images[:50]).float() / 255
    labels = torch.from_numpy(splits.train.labels[:50])
    foreign = Foreign()
    model = isorobust.HybridPrototypeReclassifier(foreign, 5, mix=0.5, temperature=0.5).eval()
    model.observe(images, labels)
    first = model.prototypes.clone()
    assert torch.allclose(first[2], foreign.features(images)[labels == 2].mean(0), atol=1e-6)
    model.observe(images[:10], labels[:10])
    assert not torch.equal(model.prototypes, first)
    assert model(images).shape == (50, 5)
    model.mode = "fc"
    assert torch.equal(model(images), foreign(images))
    model.mode = "ema"
    assert torch.allclose(model(images)[:3], model(images[:3]), atol=1e-5)
    assert set(MODES) == {"fc", "ema", "soft", "ste"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mix": 1.5}, "mix must be in"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"temperature": float("nan")}, "temperature must be above 0"),
        ({"num_classes": 4}, "num_classes must be that of the base's 5 logits, found 4"),
        ({"num_classes": 5.0}, "num_classes must be a whole number, found 5.0"),
        ({"prototypes": torch.zeros(1, 6)}, r"prototypes must be \[5, D\], found \[1, 6\]"),
        ({"mode": "hard"}, "mode must be one"),
    ],
    ids=[
        "mix above 1",
        "temperature 0",
        "temperature NaN",
        "another number of classes",
        "no whole number of classes",
        "prototypes of one class",
        "unknown mode",
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        HybridPrototypeReclassifier(**{"base": Foreign(), "num_classes": 5, **change})


def test_a_base_without_features_and_a_use_before_prototypes_are_named():
    with pytest.raises(ValueError, match="base must have `features`, found a Flatten without it"):
        HybridPrototypeReclassifier(torch.nn.Flatten(), 5)
    with pytest.raises(RuntimeError, match="no prototypes yet: call `observe`"):
        HybridPrototypeReclassifier(Foreign(), 5)(torch.rand(2, 1, 8, 8))


class Renamed(torch.nn.Module):
    """A classifier whose last layer has another name."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(64, 5)

    def features(self, x):
        return x.flatten(1)


def test_the_last_layer_may_have_any_name_and_a_state_brings_its_prototypes():
    images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 5
    model = HybridPrototypeReclassifier(Renamed(), 5, head="fc", mode="fc")
    assert torch.equal(model(images), model.base.fc(images.flatten(1)))
    model.observe(images, labels)
    again = HybridPrototypeReclassifier(Renamed(), 5, head="fc")
    again.load_state_dict(model.state_dict())
    model.mode = "ste"
    assert torch.equal(again(images), model(images))


def test_one_class_batches_hold_one_class():
    labels = np.repeat([0, 1, 2], [7, 3, 5])
    batches = _filled_by_class(np.bincount(labels), 3)
    assert [len(set(labels[part])) for part in batches] == [1] * len(batches)
    assert sorted(i for part in batches for i in range(part.start, part.stop)) == list(range(15))


def test_the_first_batch_must_hold_every_class():
    with pytest.raises(ValueError, match="all 5 classes, found 1"):
        HybridPrototypeReclassifier(Foreign(), 5).observe(torch.rand(3, 1, 8, 8), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize(
    ("labels", "fill", "message"),
    [
        ([0, 1], 0.5, r"labels must be whole numbers \[3\]"),
        ([0.0, 1.0, 2.0], 0.5, "labels must be whole numbers"),
        ([0, 1, 5], 0.5, "labels must be from 0 to 4, found 0 to 5"),
        ([0, 1, -1], 0.5, "labels must be from 0 to 4, found -1 to 1"),
        ([0, 1, 2], float("nan"), "features must be finite"),
    ],
    ids=["too few", "no whole numbers", "too large", "negative", "images of NaN"],
)
def test_what_cannot_be_observed_is_told_and_changes_nothing(labels, fill, message):
    model = HybridPrototypeReclassifier(Foreign(), 5, prototypes=torch.ones(5, 6))
    with pytest.raises(ValueError, match=message):
        model.observe(torch.full((3, 1, 8, 8), fill), torch.tensor(labels))
    assert torch.equal(model.prototypes, torch.ones(5, 6))


def test_whole_numbers_of_any_kind_are_classes():
    base, images, labels = Foreign(), torch.rand(10, 1, 8, 8), torch.arange(10) % 5
    plain, other = HybridPrototypeReclassifier(base, 5), HybridPrototypeReclassifier(base, np.int64(5))
    plain.observe(images, labels)
    other.observe(images, labels.to(torch.uint8))
    assert torch.equal(plain.prototypes, other.prototypes)


def test_its_file_gives_the_same_model_back(tuned, splits, tmp_path):
    tuned.checkpoint.save(tmp_path / "r.safetensors")
    images = torch.from_numpy(splits.test.images[:20]).float() / 255
    loaded = isorobust.load_model(tmp_path / "r.safetensors", seed=3)
    assert isinstance(loaded, HybridPrototypeReclassifier) and loaded.mode == "ste" and not loaded.training
    assert torch.equal(loaded(images), plug_in(tuned.checkpoint, 3)(images))
    assert loaded.features(images).shape[0] == 20
    with pytest.raises(UserError, match="seed: found 9; allowed: 0, 3"):
        isorobust.load_model(tmp_path / "r.safetensors", seed=9)


def test_held_prototypes_are_those_of_the_batch(tuned, splits):
    images = torch.from_numpy(splits.test.images[:20]).float() / 255
    for mode in ("ste", "soft"):
        model = plug_in(tuned.checkpoint, 0)
        model.mode = mode
        held = model.held(images)
        assert torch.allclose(held(images), model(images), atol=1e-5)
        assert torch.allclose(held(images[:2]), held(images)[:2], atol=1e-5)
    model.mode = "ema"
    with pytest.raises(ValueError, match="mode must be ste or soft to hold a batch's prototypes, found 'ema'"):
        model.held(images)


def test_fine_tuning_moves_both_networks_and_only_one_learns_the_prototypes_task(tuned, base, splits):
    assert set(tuned.metrics) >= {"val_accuracy", "val_accuracy_fc", "val_accuracy_control", "temperature", "seeds", "epochs"}
    before, plain, plugged = (
        m.head.weight for m in (base.network(0), control(tuned.checkpoint, 0), plug_in(tuned.checkpoint, 0).base)
    )
    assert not torch.equal(before, plain) and not torch.equal(plain, plugged)
    assert tuned.metrics["val_accuracy"]["value"] > 0.6
    assert tuned.header[0] == "epoch" and "val_accuracy" in tuned.header and "train_l2_cross_entropy" in tuned.header


def test_seeds_do_not_depend_on_who_is_tuned_beside_them(base, splits, tuned):
    alone = Checkpoint({**base.spec, "seeds": [3]}, {name: t[1:] for name, t in base.tensors.items()})
    again = train_reclassifier(
        alone, splits.train, splits.val, check(ReclassifierSettings, TUNING, "x"), TRAINING, CPU, {"arm": "reclassifier"}
    )
    for name, tensor in again.checkpoint.tensors.items():
        assert torch.allclose(tensor[0], tuned.checkpoint.tensors[name][1], atol=1e-5), name


def test_a_fixed_temperature_stays_where_it_is_under_weight_decay(base, splits):
    options = check(ReclassifierSettings, {**TUNING, "learn_temperature": False, "temperature": 0.3}, "x")
    decaying = TRAINING.model_copy(update={"weight_decay": 0.01})
    made = train_reclassifier(base, splits.train, splits.val, options, decaying, CPU, {"arm": "reclassifier"})
    assert made.metrics["temperature"]["value"] == pytest.approx(0.3, abs=1e-6)


def test_the_ablation_has_a_row_for_every_change(base, splits):
    header, rows = ablate(base, splits.train, splits.val, check(ReclassifierSettings, TUNING, "x"), TRAINING, CPU)
    changed = [(row[0], row[1]) for row in rows]
    assert changed == [
        ("nothing", ""),
        ("assignment", "soft, only where it is judged"),
        ("assignment", "soft, in fine-tuning too"),
        ("prototypes", "dataset-level alone, only where it is judged"),
        ("mix", "0.0"),
        ("mix", "1.0"),
        ("momentum", "0.5"),
        ("temperature", "1.0, fixed"),
    ]
    none = check(ReclassifierSettings, {key: value for key, value in TUNING.items() if key != "ablation"}, "x")
    assert ablate(base, splits.train, splits.val, none, TRAINING, CPU) == (header, [])
    at = {name: i for i, name in enumerate(header)}
    for row in rows:
        assert row[at["clean_lo"]] <= row[at["clean"]] <= row[at["clean_hi"]] and row[at["pgd"]] <= row[at["clean"]]


@pytest.mark.parametrize("soft", [0.0, 1.0, torch.tensor([0.0, 1.0])], ids=["hard", "soft", "one of each in a stack"])
def test_each_network_is_fine_tuned_with_its_own_assignments(soft):
    generator = torch.Generator().manual_seed(0)
    features, logits = torch.randn(2, 12, 6, generator=generator), torch.randn(2, 12, 4, generator=generator)
    logits.requires_grad_()
    weights = torch.randn(2, 4, 6, generator=generator)
    means = _assigned(features, logits, soft).means
    gradient = torch.autograd.grad((means * weights).sum(), logits, retain_graph=True)[0]
    for i, one in enumerate(torch.as_tensor(soft).expand(2)):
        twin = hpm.batch_prototypes(features, logits, "soft" if one else "ste").means
        assert torch.equal(means[i], twin[i])
        torch.testing.assert_close(gradient[i], torch.autograd.grad((twin * weights).sum(), logits, retain_graph=True)[0][i])


def test_one_among_clean_equals_a_batch_with_one_image_replaced(tuned, splits):
    model = plug_in(tuned.checkpoint, 0)
    images = torch.from_numpy(splits.test.images[:8]).float() / 255
    other = (images + 0.2 * torch.rand(images.shape)).clamp(0, 1)
    with torch.no_grad():
        found = one_among_clean(model, model.both(other), model.both(images))
        for i in range(8):
            mixed = images.clone()
            mixed[i] = other[i]
            assert torch.allclose(found[i], model(mixed)[i], atol=1e-4)


def test_no_image_leaves_the_batch_and_all_stay_in_ball_and_box(tuned, splits):
    options = check(ReclassifierAttack, ATTACK, "x")
    setup = prepare(splits.test, 5, options, CPU)
    seen = []

    class Watched(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            seen.append(len(x))
            return self.model(x)

    model = plug_in(tuned.checkpoint, 0)
    problem = setup.problem(Watched(model), slice(0, 20), "linf", 0.1, "test")
    made = list(whole_batches(problem, worst_case_parts(options, 5), model.held(problem.images)))
    assert len(made) == 2 + 2 * 4 + 4 + 1  # APGD twice, per target twice; FAB per target; Square
    assert set(seen) == {20}
    for one in made:
        assert one.images.shape == problem.images.shape and one.excess <= 1e-6
        assert (one.images - problem.images).abs().max() <= 0.1 + 1e-6 and one.images.min() >= 0 and one.images.max() <= 1


def test_a_surrogate_that_is_the_model_is_judged_as_the_model(tuned, splits):
    options = check(ReclassifierAttack, ATTACK, "x")
    problem = prepare(splits.test, 5, options, CPU).problem(None, slice(0, 20), "linf", 0.1, "test")
    found = attack_surrogate(plug_in(tuned.checkpoint, 0), "ste", problem, worst_case_parts(options, 5))
    model = plug_in(tuned.checkpoint, 0)
    right = (model(problem.images).argmax(1) == problem.labels).numpy()
    assert np.array_equal(found["own"], found["real"] & right)


def test_the_mixed_attack_is_the_worst_over_surrogates_and_adaptive_only_lowers_it(attacked, tuned, splits):
    numbers, arrays = attacked
    worst = arrays["correct/worst-case/linf/0.1"]
    assert worst.shape == (2, 40) and arrays["correct/clean"].shape == (2, 80)
    assert not (worst & ~arrays["correct/clean"][:, :40]).any()
    assert not (worst & ~arrays["correct/surrogate-ste/linf/0.1"]).any()
    assert not (arrays["correct/adaptive/linf/0.1"] & ~worst).any()
    assert numbers["msa"]["linf"]["0.1"]["value"] == pytest.approx(worst.mean())
    assert set(numbers["surrogates"]) == set(MODES)
    for node in (*numbers["surrogates"].values(), numbers["msa"], numbers["base"]):
        assert set(node["linf"]["0.1"]) == {"value", "lo", "hi", "n"}
    assert numbers["checks"]["kept-ball-and-box"]["passed"]
    assert not numbers["checks"]["outputs-not-batch-dependent"]["passed"]
    assert numbers["checks"]["outputs-not-random"]["passed"] and numbers["checks"]["radius-0-changes-nothing"]["passed"]


def test_an_undefended_base_falls_under_a_large_radius(tuned, splits, tmp_path):
    options = check(ReclassifierAttack, {**ATTACK, "eps": {"linf": [0.6]}, "seeds": 1}, "x")
    numbers, _ = attack_reclassifier(tuned.checkpoint, splits.test, options, Store(tmp_path), CPU)
    assert numbers["msa"]["linf"]["0.6"]["value"] == 0 and numbers["base"]["linf"]["0.6"]["value"] == 0


def test_verdicts_stand_in_the_order_of_the_file(attacked, tuned, splits):
    """Clean verdicts recomputed image by image from the fixed batches."""
    _, arrays = attacked
    setup = prepare(splits.test, 5, check(ReclassifierAttack, ATTACK, "x"), CPU)
    assert sorted(setup.place[:40]) == list(range(40)) and sorted(setup.place) == list(range(80))
    model = plug_in(tuned.checkpoint, 3)
    for start in range(0, 80, 20):
        place = setup.place[start : start + 20]
        images = torch.from_numpy(splits.test.images[place]).float() / 255
        assert np.array_equal(model(images).argmax(1).numpy(), arrays["predicted/clean"][1, place])


def test_a_finished_unit_is_not_computed_again(tuned, splits, tmp_path, monkeypatch):
    options = check(ReclassifierAttack, {**ATTACK, "seeds": 1}, "x")
    first = attack_reclassifier(tuned.checkpoint, splits.test, options, Store(tmp_path), CPU)
    monkeypatch.setattr("isorobust.reclassifier.attack.attack_surrogate", None)
    again = attack_reclassifier(tuned.checkpoint, splits.test, options, Store(tmp_path), CPU)
    assert first[0] == again[0] and all(np.array_equal(first[1][key], again[1][key]) for key in first[1])


def test_no_number_depends_on_how_many_processes_there_are(tuned, splits, tmp_path, threads):
    """Of what stands beside the units: the adaptive attack, dependence on the batch, checks."""
    told = []
    for count in (2, 1):
        threads(count)
        options = check(ReclassifierAttack, {**ATTACK, "seeds": 2}, "x")
        told.append(attack_reclassifier(tuned.checkpoint, splits.test, options, Store(tmp_path), CPU))
    (numbers, arrays), (again, others) = told
    assert numbers == again and all(np.array_equal(arrays[key], others[key]) for key in arrays)


def test_expectation_over_batches_of_a_batch_free_model_is_that_model(tuned, splits):
    images = torch.from_numpy(splits.test.images[:30]).float() / 255
    model = plug_in(tuned.checkpoint, 0)
    frozen = copy.deepcopy(model)
    frozen.mode = "ema"
    assert torch.allclose(OverBatches(frozen, 7, 3)(images), frozen(images).log_softmax(1), atol=1e-5)
    assert not torch.allclose(OverBatches(model, 7, 3)(images), model(images).log_softmax(1), atol=1e-5)


@pytest.mark.parametrize("mix", [0.5, 0.0], ids="mix {}".format)
def test_batch_dependence_equals_loops_and_the_frozen_mode_has_none(tuned, splits, mix):
    setup = prepare(splits.test, 5, check(ReclassifierAttack, ATTACK, "x"), CPU)
    model, labels = plug_in(tuned.checkpoint, 0), setup.labels
    model.base.head.weight.data *= -1  # assignments that are wrong, so that batches do matter
    model.mix = mix
    told = batch_dependence([model], [0], setup)
    assert set(told["size"]) == {"1", "20"} and set(told["mix"]) == {"one-class", "balanced"}

    def right(places):
        return [bool(r) for r in model(setup.images[places]).argmax(1) == labels[places]]

    by_class = [i for k in range(5) for i in (labels == k).nonzero().flatten().tolist()]
    starts = [i for i, place in enumerate(by_class) if i == 0 or labels[place] != labels[by_class[i - 1]]]
    one_class = [by_class[a:b] for a, b in zip(starts, [*starts[1:], len(by_class)])]
    one_class = [part[i : i + 20] for part in one_class for i in range(0, len(part), 20)]
    every = list(range(len(labels)))
    for kind, batches in (
        (told["size"]["1"], [[i] for i in every]),
        (told["size"]["20"], [every[i : i + 20] for i in range(0, len(every), 20)]),
        (told["mix"]["one-class"], one_class),
    ):
        assert kind["clean"]["value"] == pytest.approx(np.mean([r for part in batches for r in right(part)]))
        assert kind["pgd"]["value"] <= kind["clean"]["value"]
    assert told["flips"]["value"] > 0
    model.mode = "ema"
    assert told["frozen"]["clean"]["value"] == pytest.approx(np.mean(right(every[::-1])))
    assert batch_dependence([model], [0], setup)["flips"]["value"] == 0


def test_claims_are_differences_of_the_numbers_they_are_about(attacked):
    numbers, _ = attacked
    claims, heads = numbers["claims"], numbers["sensitivity"]
    for measure in ("worst", "per-margin"):
        expected = heads["fc"][measure]["value"] - heads["l2"][measure]["value"]
        assert claims["fc-more-sensitive"][measure]["value"] == pytest.approx(expected)
    for claim, first, second in (("improves-base", "msa", "base"), ("direct-attack-overstates", "ste", "msa")):
        first, second = (numbers.get(name) or numbers["surrogates"][name] for name in (first, second))
        expected = first["linf"]["0.1"]["value"] - second["linf"]["0.1"]["value"]
        assert claims[claim]["linf"]["0.1"]["value"] == pytest.approx(expected)
    for head in heads.values():
        assert head["per-margin"]["value"] == pytest.approx(head["worst"]["value"] / head["margin"]["value"], rel=0.05)


def test_the_adaptive_attack_is_judged_on_the_images_it_makes(tuned, splits, monkeypatch):
    setup = prepare(splits.test, 5, check(ReclassifierAttack, ATTACK, "x"), CPU).attacked()
    model = plug_in(tuned.checkpoint, 0)
    made = setup.images.flip(0)  # as if it had made them
    monkeypatch.setattr("isorobust.reclassifier.attack.perturb", lambda *_: SimpleNamespace(images=made))
    arrays = {"correct/worst-case/linf/0.1": np.ones((1, 40), bool)}
    _adaptive(arrays, [model], [0], setup)
    guess = torch.cat([model(made[part]).argmax(1) for part in setup.batches()])
    expected = np.empty(40, bool)
    expected[setup.place] = (guess == setup.labels).numpy()
    assert np.array_equal(arrays["correct/adaptive/linf/0.1"][0], expected) and not expected.all()


@pytest.mark.parametrize("momentum", [1.0, 0.5], ids=["kept as they start", "moved"])
def test_prototypes_start_as_class_means_of_training_features(base, splits, momentum):
    options = check(ReclassifierSettings, {**TUNING, "learning_rate": 1e-12, "momentum": momentum}, "x")
    made = train_reclassifier(base, splits.train, splits.val, options, TRAINING, CPU, {"arm": "reclassifier"})
    network, images = base.network(3), torch.from_numpy(splits.train.images).float() / 255
    for k in range(5):
        with torch.no_grad():
            mean = network.features(images[splits.train.labels == k]).mean(0)
        found = made.checkpoint.tensors[f"{PLUG_IN}/prototypes"][1, k]
        assert torch.allclose(found, mean, atol=1e-4) == (momentum == 1.0)
        assert torch.allclose(found, mean, atol=0.5)


def test_the_code_that_decides_a_unit_of_a_plug_in_is_all_named():
    from closure import closure

    from isorobust.reclassifier.batches import CODE

    # The settings' values stand in the unit's key; of verdicts.py only a type's name is used.
    settled = {f"{name}/settings.py" for name in ("attacks", "networks", "reclassifier")} | {"common/params.py", "verdicts.py"}
    modules = ("attacks.judge", "networks.zoo", "reclassifier.network", "reclassifier.whole_batches")
    needed = {f.removeprefix("src/isorobust/") for m in modules for f in closure(f"isorobust.{m}", whole=())}
    assert needed - settled == set(CODE)


def test_sensitivity_is_the_change_of_centred_logits_per_unit_of_features(tuned, splits):
    setup = prepare(splits.test, 5, check(ReclassifierAttack, ATTACK, "x"), CPU)
    model = plug_in(tuned.checkpoint, 0)
    found = sensitivity([model], setup)
    features, logits = (x.detach().double() for x in model.both(setup.images))
    exact = copy.deepcopy(model).double()
    for head, classify in (
        ("fc", lambda f: exact.base.head(f)),
        ("l2", lambda f: hpm.l2_logits(f, exact.prototypes, exact.log_temperature.exp())),
    ):
        steps = torch.nn.functional.normalize(torch.randn(400, features.shape[1], dtype=torch.float64), dim=1)
        with torch.no_grad():
            change = classify(features[:1] + steps) - classify(features[:1].expand_as(steps))
        size = (change - change.mean(1, keepdim=True)).norm(dim=1)
        assert size.max() <= found[head]["worst"][0] * (1 + 1e-5)
        assert float(size.square().mean().sqrt()) == pytest.approx(found[head]["random"][0], rel=0.15)


def test_a_head_that_gets_nothing_right_has_no_margin(tuned, splits):
    setup = prepare(splits.test, 5, check(ReclassifierAttack, ATTACK, "x"), CPU)
    model = plug_in(tuned.checkpoint, 0)
    wrong = (model.both(setup.images)[1].argmax(1) + 1) % 5
    with pytest.raises(UserError, match="reclassifier-attack.images: found none of 80 that the fc head gets right"):
        sensitivity([model], setup._replace(labels=wrong))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 30}, "images that fill two batches of 20 or more"),
        ({"images": 20}, "two batches of 20 or more"),
        ({"images": 400}, "at most 80"),
    ],
    ids=["unfilled batch", "a single batch", "too many images"],
)
def test_counts_that_do_not_fit_are_named(splits, change, message):
    with pytest.raises(UserError, match=message):
        prepare(splits.test, 5, check(ReclassifierAttack, {**ATTACK, **change}, "x"), CPU)
