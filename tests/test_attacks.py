"""Every attack through the one wrapper; planted failures raise the checks; units resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import NETWORKS, ROOT
from torch import nn

from isorobust.attacks import perturb as perturb_module
from isorobust.attacks import settings
from isorobust.attacks.perturb import ATTACKS, Problem, compose, perturb, worst_case_parts
from isorobust.common.params import check
from isorobust.common.splits import Split
from isorobust.errors import UserError
from isorobust.evaluation import evaluate as evaluate_module
from isorobust.evaluation.arm import attack_arm
from isorobust.evaluation.checks import _of_flags, run_checks
from isorobust.evaluation.evaluate import Bench, Victim, _standing, evaluate
from isorobust.evaluation.units import Store, Unit
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.zoo import build
from isorobust.verdicts import points_of, ran_at

OPTIONS = {
    "paper-fgsm": settings.PaperFGSM(),
    "fgsm": settings.FGSM(),
    "pgd": settings.PGD(steps=10, restarts=2),
    "apgd-ce": settings.APGD(steps=10),
    "apgd-t": settings.APGD(steps=10),
    "fab-t": settings.FAB(steps=10),
    "square": settings.Square(queries=100),
    "noise": settings.Noise(draws=3),
    "transfer": settings.Transfer(steps=10),
}
RADII = {"linf": 0.15, "l2": 1.5}
each_attack = pytest.mark.parametrize("name", ATTACKS)
each_norm = pytest.mark.parametrize("norm", RADII)
TERM = {"beta": 0.5, "scale": 1.0, "reduction": "paper", "neighbours": None}


def problem_for(model, tensors, norm="linf", eps=None, **more):
    images, labels = tensors
    return Problem(model, images, labels, norm, RADII[norm] if eps is None else eps, seed=7, classes=5, surrogate=model, **more)


def accuracy(model, images, labels):
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


@each_attack
@each_norm
def test_ball_box_and_effect(name, norm, trained, test_tensors):
    problem = problem_for(trained, test_tensors, norm)
    result = perturb(name, problem, OPTIONS[name])
    delta = (result.images - problem.images).flatten(1)
    length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert length.max() <= problem.eps + 1e-6
    assert result.images.min() >= 0 and result.images.max() <= 1 and result.images.isfinite().all()
    assert result.excess < 1e-5, "the attack itself left the ball or the box"
    assert not result.images.requires_grad
    clean, attacked = (accuracy(trained, x, problem.labels) for x in (problem.images, result.images))
    assert clean > 0.9 and attacked <= clean - (0.0 if name == "noise" else 0.1), "did nothing"


@each_attack
@each_norm
@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "tanh-mlp"])
def test_every_attack_takes_every_network(name, norm, network):
    """Of colour images: attacks take `view`s of gradients, so the layout a network leaves them in matters."""
    torch.manual_seed(0)
    model = build(NETWORKS[network], (3, 16, 16), 5, seed=0).eval()
    images = torch.rand(4, 3, 16, 16)
    problem = problem_for(model, (images, model(images).argmax(1)), norm)
    result = perturb(name, problem, OPTIONS[name])
    assert result.excess < 1e-5
    assert name == "square" or not torch.equal(result.images, images)  # a search gives back what it did not fool


@each_attack
def test_same_seed_same_bytes_and_the_global_stream_is_left_alone(name, trained, test_tensors):
    problem = problem_for(trained, test_tensors)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = perturb(name, problem, OPTIONS[name]).images
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, perturb(name, problem, OPTIONS[name]).images)


class Spied(nn.Module):
    """A network with batch norm and dropout, part of it frozen, with a gradient on file."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 5))
        self.body[1].weight.requires_grad_(False)
        self.body[4].weight.grad = torch.ones_like(self.body[4].weight)

    def forward(self, x):
        return self.body(x)


def snapshot(model):
    modes = [module.training for module in model.modules()]
    weights = [(w.requires_grad, None if w.grad is None else w.grad.clone(), w.detach().clone()) for w in model.parameters()]
    return modes, weights, [b.clone() for b in model.buffers()]


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return len(a) == len(b) and all(map(equal, a, b)) if isinstance(a, (list, tuple)) else a == b


@each_attack
@pytest.mark.parametrize("training", [True, False], ids=["train mode", "eval mode"])
def test_all_model_state_is_restored(name, training, test_tensors):
    torch.manual_seed(0)
    model = Spied().train(training)
    model.body[2].eval()  # a frozen batch norm inside a network in training
    before = snapshot(model)
    perturb(name, problem_for(model, test_tensors), OPTIONS[name])
    assert equal(snapshot(model), before)


def test_model_state_is_restored_when_the_attack_fails(test_tensors, monkeypatch):
    model = Spied().train()
    before = snapshot(model)
    monkeypatch.setitem(perturb_module.ATTACKS, "fgsm", lambda problem, options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        perturb("fgsm", problem_for(model, test_tensors), OPTIONS["fgsm"])
    assert equal(snapshot(model), before)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 7.0], ids=["NaN", "infinite", "outside"])
def test_images_outside_are_brought_back_and_told(wrong, trained, test_tensors, monkeypatch):
    monkeypatch.setitem(perturb_module.ATTACKS, "fgsm", lambda problem, options: torch.full_like(problem.images, wrong))
    problem = problem_for(trained, test_tensors)
    result = perturb("fgsm", problem, OPTIONS["fgsm"])
    assert (result.images - problem.images).abs().max() <= problem.eps + 1e-6
    assert result.excess > 1e-5


@each_norm
def test_radius_0_changes_nothing(norm, trained, test_tensors):
    problem = problem_for(trained, test_tensors, norm, eps=0.0)
    assert torch.equal(perturb("pgd", problem, OPTIONS["pgd"]).images, problem.images)


@each_norm
def test_paper_fgsm_without_a_term_is_fgsm(norm, trained, test_tensors):
    problem = problem_for(trained, test_tensors, norm)
    torch.testing.assert_close(
        perturb("paper-fgsm", problem, OPTIONS["paper-fgsm"]).images, perturb("fgsm", problem, OPTIONS["fgsm"]).images
    )


def test_paper_fgsm_follows_the_gradient_of_the_whole_training_loss(trained, test_tensors):
    """Against the loss written out: distances of the clean batch are constants."""
    images, labels = test_tensors[0][:20], test_tensors[1][:20]
    own = images.clone().requires_grad_()
    logits, hidden, _ = trained.activations(own)
    r = hidden[-1]
    loss = nn.functional.cross_entropy(logits, labels)
    for i in range(20):
        for j in range(20):
            if i != j and labels[i] == labels[j]:
                loss = loss + TERM["beta"] * ((r[i] - r[j]).norm() - (images[i] - images[j]).norm()) ** 2 / 400
    (gradient,) = torch.autograd.grad(loss, own)
    result = perturb("paper-fgsm", problem_for(trained, (images, labels), term=TERM), OPTIONS["paper-fgsm"]).images
    expected = (images + 0.15 * gradient.sign()).clamp(0, 1)
    agree = (result - expected).abs() < 1e-6
    assert agree.float().mean() > 0.999  # a gradient of rounding size may change its sign
    plain = perturb("paper-fgsm", problem_for(trained, (images, labels)), OPTIONS["paper-fgsm"]).images
    assert not torch.equal(plain, result)


def test_paper_fgsm_goes_by_batches_in_order(trained, test_tensors):
    """In one call over 40 images the same as in two calls over 20."""
    options = settings.PaperFGSM(gradient_batch=20)
    images, labels = test_tensors
    whole = perturb("paper-fgsm", problem_for(trained, (images[:40], labels[:40]), term=TERM), options).images
    halves = [
        perturb("paper-fgsm", problem_for(trained, (images[i : i + 20], labels[i : i + 20]), term=TERM), options) for i in (0, 20)
    ]
    assert torch.equal(whole, torch.cat([half.images for half in halves]))


def test_unknown_attack_norm_and_too_few_classes_are_refused(trained, test_tensors):
    problem = problem_for(trained, test_tensors)
    with pytest.raises(UserError, match="found 'pgx'; allowed: apgd-ce, apgd-t"):
        perturb("pgx", problem, None)
    with pytest.raises(UserError, match="found 'l1'; allowed: l2, linf"):
        perturb("pgd", problem._replace(norm="l1"), OPTIONS["pgd"])
    with pytest.raises(UserError, match="found 3 classes; allowed: 4 or more"):
        perturb("apgd-t", problem._replace(classes=3), OPTIONS["apgd-t"])
    assert "apgd-t" not in worst_case_parts(
        check(settings.WorstCase, {"eps": {"linf": 0.1}, "images": 1, "batch": 1}, "x"), classes=3
    )


COMPOSITION = {name: OPTIONS[name] for name in ("apgd-ce", "apgd-t", "fab-t", "square")}


@each_norm
def test_composition_attacks_only_what_stands_and_keeps_what_fell_in_smaller_balls(norm, trained, test_tensors):
    problems = [problem_for(trained, test_tensors, norm, eps=share * RADII[norm]) for share in (0.2, 0.4)]
    standing = torch.arange(80).expand(2, 80) % 2 == 0
    fallen = compose(problems, COMPOSITION, standing).fallen
    assert (fallen[~standing] == -1).all() and (fallen[standing] >= 0).all()
    assert 0 < (fallen[0] > 0).sum() < (fallen[1] > 0).sum()
    assert (fallen[1][fallen[0] > 0] > 0).all(), "fell in the small ball, stands in the large one"


@each_norm
def test_one_fab_search_for_all_radii_fells_all_that_a_search_for_each_fells(norm, trained, test_tensors):
    problems = [problem_for(trained, test_tensors, norm, eps=share * RADII[norm]) for share in (0.15, 0.3, 0.6)]
    with torch.no_grad():
        right = trained(test_tensors[0]).argmax(1) == test_tensors[1]
    together = compose(problems, {"fab-t": OPTIONS["fab-t"]}, right.expand(3, -1)).fallen
    felled = 0
    for problem, fallen in zip(problems, together):
        alone = trained(perturb("fab-t", problem, OPTIONS["fab-t"]).images).argmax(1) != problem.labels
        assert (fallen[alone & right] == 1).all()
        felled += int((alone & right).sum())
    assert 0 < felled < 3 * int(right.sum())


SETTINGS = {
    "batch": 40,
    "eps": {"linf": [0.05, 0.1, 0.3], "l2": [1.0]},
    "attacks": {
        "paper-fgsm": {"gradient_batch": 20},
        "fgsm": {},
        "pgd": {"steps": 40, "restarts": 2},
        "noise": {"draws": 2},
        "transfer": {"steps": 10, "eps": {"linf": [0.1]}},
    },
    "worst-case": {"eps": {"linf": [0.1]}, "images": 30, "batch": 15, "apgd_steps": 20, "fab_steps": 10, "square_queries": 200},
    "check_images": 40,
}


def evaluated(models, splits, folder, options=None, surrogates=None, terms=None):
    options = check(settings.AttackSettings, options or SETTINGS, "attack")
    victims = [Victim(s, m, f"model {s} {id(m)}", (terms or {}).get(s)) for s, m in enumerate(models)]
    bench = Bench(splits.test, 5, options)
    evaluation = evaluate(victims, surrogates or [victims[0]] * len(victims), bench, Store(folder))
    return evaluation, run_checks(victims, bench, evaluation)


def test_images_are_attacked_towards_classes_that_none_of_them_has(trained, splits, tmp_path):
    few = Split(*(part[splits.test.labels < 3] for part in splits.test))
    spec = {"network": NETWORKS["tanh-mlp"].model_dump(), "shape": [1, 8, 8], "classes": 5, "seeds": [0], "isometric": None}
    checkpoint = Checkpoint(spec, {name: tensor[None] for name, tensor in trained.state_dict().items()})
    budget = {"batch": 10, "images": 10, "attacks": {"pgd": {"steps": 5}}, "worst-case": SETTINGS["worst-case"] | {"images": 10}}
    options = check(settings.AttackSettings, {**SETTINGS, **budget, "check_images": 10}, "attack")
    numbers, arrays = attack_arm(checkpoint, checkpoint, few, options, Store(tmp_path), torch.device("cpu"), True)
    assert arrays["parts/worst-case"].tolist() == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert numbers["checks"]["unbounded-reaches-chance"]["limit"] == 1 / 5


def test_an_undefended_model_falls_to_0_and_passes_every_check(trained, splits, tmp_path):
    evaluation, checks = evaluated([trained], splits, tmp_path)
    arrays = evaluation.arrays
    assert arrays["correct/clean"].mean() > 0.9
    assert arrays["correct/pgd/linf/0.3"].mean() <= 0.02
    assert arrays["correct/worst-case/linf/0.1"].mean() <= arrays["correct/pgd/linf/0.1"][:, :30].mean()
    assert {name: c for name, c in checks.items() if not c["passed"]} == {}


def test_derived_verdicts_are_per_sample_worst_cases(trained, splits, tmp_path):
    arrays = evaluated([trained], splits, tmp_path)[0].arrays
    assert points_of(arrays) == [("linf", "0.05"), ("linf", "0.1"), ("linf", "0.3"), ("l2", "1")]
    for norm, eps in points_of(arrays):
        ran = ran_at(arrays, norm, eps)
        singles = [f for n, f in ran.items() if n not in ("strongest", "worst-case")]
        assert np.array_equal(ran["strongest"], np.logical_and.reduce([arrays["correct/clean"], *singles]))
    worst = arrays["correct/worst-case/linf/0.1"]
    assert worst.shape == (1, 30) and not (worst & ~arrays["correct/strongest/linf/0.1"][:, :30]).any()
    for key in [k for k in arrays if k.startswith("predicted/") and k.count("/") == 3]:
        assert np.array_equal(arrays[key.replace("predicted", "correct", 1)], arrays[key] == arrays["labels"])


def test_an_attack_on_fewer_images_gives_no_strongest_verdict(trained, splits, tmp_path):
    """Or clean accuracy would stand as that under attack."""
    few = {**SETTINGS, "eps": {"linf": [0.1]}, "attacks": {"pgd": {"steps": 10, "images": 20}}}
    del few["worst-case"]
    arrays = evaluated([trained], splits, tmp_path, few)[0].arrays
    assert "correct/pgd/linf/0.1" in arrays and not [name for name in arrays if name.startswith("correct/strongest")]


def test_the_worst_case_counts_what_fell_at_any_smaller_radius():
    clean, fallen = np.ones((1, 3), bool), np.array([[True, False, True]])
    arrays = {"correct/clean": clean, "correct/fgsm/linf/0.05": fallen, "correct/pgd/linf/0.1": np.array([[False, True, True]])}
    arrays |= {"correct/pgd/l2/0.01": np.zeros((1, 3), bool)}
    assert _standing(arrays, "linf", [0.08, 0.1], 1, 3)[:, 0].tolist() == [[True, False, True], [False, False, True]]


def test_one_image_on_the_boundary_is_no_other_verdict_and_two_are(trained, splits, tmp_path):
    options = check(settings.AttackSettings, SETTINGS, "attack")
    victims, bench = [Victim(0, trained, "m")], Bench(splits.test, 5, options)
    evaluation = evaluate(victims, victims, bench, Store(tmp_path))
    for image, passed in ((0, True), (1, False)):
        evaluation.arrays["correct/pgd/linf/0.1"][0, image] ^= True
        assert run_checks(victims, bench, evaluation)["verdicts-agree"]["passed"] == passed


def test_accuracy_that_rises_with_the_radius_is_noticed(trained, splits, tmp_path):
    evaluation, checks = evaluated([trained], splits, tmp_path)
    arrays = evaluation.arrays
    assert checks["falls-with-eps"]["passed"] and checks["cross-entropy-not-masked"]["passed"]
    swapped = {"correct/pgd/linf/0.05": arrays["correct/pgd/linf/0.3"], "correct/pgd/linf/0.3": arrays["correct/pgd/linf/0.05"]}
    told = _of_flags(evaluation._replace(arrays={**arrays, **swapped}))
    assert told["falls-with-eps"].value > 0.01 == told["falls-with-eps"].limit


class Wrapped(nn.Module):
    """A planted failure around a good network."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def activations(self, x):
        return self.inner.activations(x)._replace(logits=self(x))


class HugeLogits(Wrapped):
    def forward(self, x):
        return 1e4 * self.inner(x)


class ZeroGradient(Wrapped):
    def forward(self, x):
        return self.inner((x * 8).round() / 8)


class RandomOutput(Wrapped):
    def forward(self, x):
        return self.inner((x + 0.2 * torch.randn_like(x)).clamp(0, 1))


class BatchDependent(Wrapped):
    def forward(self, x):
        return self.inner((x - x.mean(0, keepdim=True) + 0.5).clamp(0, 1))


class Probabilities(Wrapped):
    def forward(self, x):
        return self.inner(x).softmax(1)


PLANTED = {
    "logits times 1e4": (HugeLogits, {"gradients-not-zero", "attack-moves-images"}),
    "zero-gradient layer": (ZeroGradient, {"gradients-not-zero", "unbounded-reaches-chance", "white-box-beats-black-box"}),
    "random output": (RandomOutput, {"outputs-not-random"}),
    "batch-dependent output": (BatchDependent, {"outputs-not-batch-dependent"}),
    "probabilities as logits": (Probabilities, {"outputs-are-logits"}),
}


@pytest.mark.parametrize(("kind", "expected"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_failure_raises_its_checks(kind, expected, trained, splits, tmp_path):
    surrogate = Victim(9, trained, "surrogate")
    _, checks = evaluated([kind(trained)], splits, tmp_path, surrogates=[surrogate])
    failed = {name for name, c in checks.items() if not c["passed"]}
    assert expected <= failed, f"raised only {failed}"


def test_logits_too_large_for_cross_entropy_fall_to_the_margin_alone(trained, splits, tmp_path):
    """Where no other attack has felled them before."""
    alone = {
        "attacks": {"pgd": SETTINGS["attacks"]["pgd"]},
        "worst-case": {**SETTINGS["worst-case"], "eps": {"linf": [0.1, 0.3]}},
    }
    for model, passed in ((trained, True), (HugeLogits(trained), False)):
        check_of = evaluated([model], splits, tmp_path, {**SETTINGS, **alone})[1]["cross-entropy-not-masked"]
        assert check_of["passed"] == passed, check_of


def test_a_do_nothing_attack_is_noticed(trained, splits, tmp_path, monkeypatch):
    monkeypatch.setitem(perturb_module.ATTACKS, "pgd", lambda problem, options: problem.images.clone())
    _, checks = evaluated([trained], splits, tmp_path)
    failed = {name for name, c in checks.items() if not c["passed"]}
    assert {"attack-moves-images", "iterated-beats-single-step", "unbounded-reaches-chance"} <= failed


def test_an_attack_that_leaves_the_ball_is_noticed(trained, splits, tmp_path, monkeypatch):
    monkeypatch.setitem(perturb_module.ATTACKS, "fgsm", lambda problem, options: 1 - problem.images)
    _, checks = evaluated([trained], splits, tmp_path)
    assert not checks["kept-ball-and-box"]["passed"]


def test_verdicts_that_the_networks_do_not_give_are_noticed(trained, splits, tmp_path):
    options = check(settings.AttackSettings, SETTINGS, "attack")
    victims, bench = [Victim(0, trained, "model")], Bench(splits.test, 5, options)
    evaluation = evaluate(victims, victims, bench, Store(tmp_path))
    evaluation.arrays["correct/clean"][0, 3] ^= True
    checks = run_checks(victims, bench, evaluation)
    assert checks["clean-accuracy-agrees"]["value"] == 1 / 40 and not checks["clean-accuracy-agrees"]["passed"]


def test_results_kept_from_other_code_are_noticed(trained, splits, tmp_path, monkeypatch):
    with monkeypatch.context() as before:
        before.setitem(perturb_module.ATTACKS, "pgd", lambda problem, options: problem.images.clone())
        evaluated([trained], splits, tmp_path)
    _, checks = evaluated([trained], splits, tmp_path)
    assert not checks["verdicts-agree"]["passed"]


def test_a_check_that_is_not_a_number_has_failed():
    from isorobust.evaluation.checks import Check

    told = Check(float("nan"), 1.0).as_dict()
    assert not told["passed"] and json.dumps(told, allow_nan=False)


def test_a_second_evaluation_reads_every_unit_and_gives_the_same_bytes(trained, splits, tmp_path, monkeypatch, threads):
    threads(1)
    first, _ = evaluated([trained], splits, tmp_path)
    calls = []
    for module in ("evaluation.evaluate", "attacks.judge"):
        monkeypatch.setattr(f"isorobust.{module}.perturb", lambda *a: calls.append(a[0]) or perturb(*a))
    monkeypatch.setattr("isorobust.attacks.judge.compose", lambda *a: calls.append("worst-case") or compose(*a))
    second, _ = evaluated([trained], splits, tmp_path)
    assert calls == ["pgd"], "only the examples for the figures are made anew"
    assert first.arrays.keys() == second.arrays.keys()
    assert all(np.array_equal(first.arrays[k], second.arrays[k]) for k in first.arrays)


def test_a_killed_evaluation_goes_on_where_it_was(trained, splits, tmp_path, monkeypatch, threads):
    threads(1)
    whole, _ = evaluated([trained], splits, tmp_path / "a")
    judge, made = evaluate_module.judge, []

    def stop_after_three(*problem):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(problem)
        return judge(*problem)

    monkeypatch.setattr(evaluate_module, "judge", stop_after_three)
    options = check(settings.AttackSettings, SETTINGS, "attack")
    victim = Victim(0, trained, f"model 0 {id(trained)}")
    with pytest.raises(KeyboardInterrupt):
        evaluate([victim], [victim], Bench(splits.test, 5, options), Store(tmp_path / "b"))
    monkeypatch.undo()
    assert len(list((tmp_path / "b").rglob("*.npz"))) == 3
    rest, _ = evaluated([trained], splits, tmp_path / "b")
    assert all(np.array_equal(whole.arrays[k], rest.arrays[k]) for k in whole.arrays)


def test_units_are_named_by_content_and_a_damaged_one_is_made_again(tmp_path):
    log = tmp_path / "made"
    log.touch()

    def unit(key):
        return Unit({"key": key}, lambda: log.open("a").write(key) and {"x": np.arange(3)})

    store = Store(tmp_path / "units")
    store.run({1: unit("a"), 2: unit("b")}, "t")
    assert sorted(log.read_text()) == ["a", "b"]
    store.run({"first": unit("b"), "second": unit("a")}, "t")
    assert len(log.read_text()) == 2
    path = store.path(unit("a"))
    path.write_bytes(path.read_bytes()[:20])
    assert store.run({"again": unit("a")}, "t")["again"]["x"].tolist() == [0, 1, 2]
    assert log.read_text()[2:] == "a"


MANY_UNITS = """
import sys, torch
from isorobust.attacks.judge import judge
from isorobust.attacks.perturb import Problem
from isorobust.attacks.settings import PGD
from isorobust.evaluation.units import Store, Unit
from isorobust.networks.settings import TanhMLP
from isorobust.networks.zoo import build

torch.set_num_threads(1)
network = build(TanhMLP(name="tanh-mlp", width=100, hidden_layers=5), (1, 28, 28), 10, seed=0).eval()
sizes = []
images, labels = torch.rand(1000, 1, 28, 28), torch.arange(1000) % 10

def compute(seed):
    if seed in (50, 299):
        sizes.append(int(open("/proc/self/statm").read().split()[1]) * 4 // 1024)
    return judge("pgd", Problem(network, images, labels, "linf", 0.1, seed, 10), PGD(steps=2))

Store(sys.argv[1]).run({seed: Unit({"seed": seed}, lambda seed=seed: compute(seed)) for seed in range(300)}, "many")
print(sizes[1] - sizes[0])
"""


def test_memory_does_not_grow_with_the_number_of_units(tmp_path):
    """Small results kept between large images cost 1 MB per unit, and full MNIST has thousands of them."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", MANY_UNITS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert int(done.stdout) < 100, f"{done.stdout.strip()} MB more after 250 units"


def test_the_code_that_decides_a_unit_is_all_named():
    from closure import closure

    from isorobust.evaluation.evaluate import UNIT_CODE

    settled = {"attacks/settings.py", "networks/settings.py", "common/params.py"}  # their values stand in the unit's key
    needed = {
        f.removeprefix("src/isorobust/") for m in ("attacks.judge", "networks.zoo") for f in closure(f"isorobust.{m}", whole=())
    }
    assert needed - settled == set(UNIT_CODE)


def test_a_worst_case_on_more_images_than_are_attacked_is_refused(splits):
    with pytest.raises(UserError, match=r"attack.worst-case.images: found 30; allowed: at most 20"):
        Bench(splits.test, 5, check(settings.AttackSettings, SETTINGS | {"images": 20}, "attack"))


def test_more_images_than_there_are_is_refused(splits):
    with pytest.raises(UserError, match=r"attack.images: found 1000; allowed: at most 80"):
        Bench(splits.test, 5, check(settings.AttackSettings, SETTINGS | {"images": 1000}, "attack"))
