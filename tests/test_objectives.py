"""Objectives against their formulas written out; arms, twins and grids."""

from __future__ import annotations

import re
import shutil
import sys

import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import NETWORKS, ROOT, Project
from test_isometry import naive

from isorobust.errors import UserError
from isorobust.networks.stack import Stack
from isorobust.networks.zoo import build
from isorobust.objectives import losses, settings
from isorobust.objectives.isometry import isometric_term
from isorobust.objectives.losses import Batch, squared_jacobian, training_loss

SHAPE = (1, 4, 4)
PLAIN = settings.CrossEntropy(objective="cross-entropy")


def stack_of(count=2, name="tanh-mlp"):
    return Stack([build(NETWORKS[name], SHAPE, 3, seed=s).double() for s in range(count)])


def batch_for(count=2, size=6):
    torch.manual_seed(3)
    images = torch.rand(count, size, *SHAPE, dtype=torch.float64)
    return Batch(images, torch.arange(size).expand(count, -1) % 3, [torch.Generator().manual_seed(s) for s in range(count)])


def jacobians(network, images):
    """d logits / d pixels `[N, K, P]` by torch's own function."""
    one = torch.func.jacrev(lambda x: network(x[None])[0])
    return torch.stack([one(x).flatten(1) for x in images])


def single(stack, s):
    network = build(NETWORKS["tanh-mlp"], SHAPE, 3, seed=s).double()
    network.load_state_dict({name: tensor[s] for name, tensor in stack.state().items()})
    return network


def squared(stack, batch, projections):
    images = batch.images.clone().requires_grad_()
    hidden = stack.activations(images).hidden[-1]
    return squared_jacobian(hidden, stack.weights["head.weight"], images, batch.generators, projections)


def test_the_exact_jacobian_norm_is_that_of_torch():
    stack, batch = stack_of(), batch_for()
    expected = [jacobians(single(stack, s), batch.images[s]).square().sum((1, 2)).mean() for s in range(2)]
    torch.testing.assert_close(squared(stack, batch, "exact").detach(), torch.stack(expected).detach())


def test_random_projections_are_unbiased():
    stack, batch = stack_of(), batch_for()
    torch.testing.assert_close(squared(stack, batch, 4000), squared(stack, batch, "exact"), rtol=0.03, atol=0)


def test_the_jacobian_of_a_linear_map_is_its_weight():
    """|J|_F^2 of x -> W x is |W|_F^2, and its gradient is 2 W."""
    head = torch.randn(1, 3, 5, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(1, 4, 5, dtype=torch.float64, requires_grad=True)
    norm = squared_jacobian(inputs * 1.0, head, inputs, [torch.Generator()], "exact")
    torch.testing.assert_close(norm, head.square().sum((1, 2)))
    torch.testing.assert_close(torch.autograd.grad(norm.sum(), head)[0], 2 * head)


def test_the_jacobian_arm_adds_half_its_weight_times_the_norm():
    stack, batch = stack_of(), batch_for()
    arm = settings.Arm(settings.Jacobian(objective="jacobian", weight=0.3, projections="exact"))
    loss = training_loss(stack, batch, arm)
    torch.testing.assert_close(loss.total, loss.parts["cross_entropy"] + 0.15 * squared(stack, batch, "exact"))
    assert all(w.grad is None for w in stack.parameters())


def test_noise_has_its_standard_deviation_and_is_each_seeds_own():
    stack, batch = stack_of(), batch_for(size=300)
    loss = training_loss(stack, batch, settings.Arm(settings.Noise(objective="noise", sigma=0.2)))
    added = loss.inputs - batch.images
    assert added.std().item() == pytest.approx(0.2, rel=0.05) and abs(added.mean().item()) < 0.01
    assert not torch.equal(added[0], added[1])
    logits = stack(loss.inputs)
    torch.testing.assert_close(loss.total[0], F.cross_entropy(logits[0], batch.labels[0]))


def test_the_divergence_from_a_certain_network_has_a_gradient():
    logits = torch.tensor([[[120.0, 0, 0]]], requires_grad=True)  # two probabilities are 0 in float32
    divergence = losses._divergence(logits, logits.softmax(2))
    (gradient,) = torch.autograd.grad(divergence.sum(), logits)
    assert divergence.item() == pytest.approx(0, abs=1e-6) and gradient.abs().max() < 1e-6


def test_trades_is_cross_entropy_and_a_divergence_inside_the_ball():
    stack, batch = stack_of(), batch_for()
    arm = settings.Arm(settings.Trades(objective="trades", weight=6.0, norm="linf", eps=0.2, steps=5))
    loss = training_loss(stack, batch, arm)
    torch.testing.assert_close(loss.parts["cross_entropy"][1], F.cross_entropy(stack(batch.images)[1], batch.labels[1]))
    torch.testing.assert_close(loss.total, loss.parts["cross_entropy"] + 6 * loss.parts["divergence"])
    noise = batch.images + 0.2 * torch.randn_like(batch.images).sign()
    logp, logq = stack(batch.images).log_softmax(2), stack(noise.clamp(0, 1)).log_softmax(2)
    random = (logp.exp() * (logp - logq)).sum(2).mean(1)
    assert (loss.parts["divergence"] > random).all(), "ascent must beat random corners"


def test_the_term_joins_any_objective_on_the_images_it_was_trained_on():
    stack, batch = stack_of(), batch_for()
    attack = settings.Adversarial(objective="adversarial", norm="linf", eps=0.1, steps=2)
    loss = training_loss(stack, batch, settings.Arm(attack, settings.Isometry(beta=0.7, reduction="pairs")))
    assert not torch.equal(loss.inputs, batch.images)
    hidden = stack.activations(loss.inputs).hidden[-1]
    twin = naive(loss.inputs[0], hidden[0], batch.labels[0], 1.0, "pairs", None)
    torch.testing.assert_close(loss.parts["isometric"][0], twin)
    torch.testing.assert_close(loss.total, loss.parts["cross_entropy"] + 0.7 * loss.parts["isometric"])


@pytest.mark.parametrize("name", ["tanh-mlp", "conv-features", "small-cnn"])
@pytest.mark.parametrize("distances", ["pixels", "features"])
@pytest.mark.parametrize("pairs", ["same-class", "all"])
@pytest.mark.parametrize("layers", ["last", "all"])
def test_the_terms_options_equal_the_naive_twin(name, distances, pairs, layers):
    network = build(NETWORKS[name], SHAPE, 3, seed=0).double()
    images, labels = torch.rand(7, *SHAPE, dtype=torch.float64), torch.arange(7) % 3
    _, hidden, stem = network.activations(images)
    ours = isometric_term(
        images[None], stem[None], [h[None] for h in hidden], labels[None], layers=layers, pairs=pairs, distances=distances
    )
    inputs = stem.detach() if distances == "features" else images
    groups = torch.zeros_like(labels) if pairs == "all" else labels
    chosen = hidden if layers == "all" else hidden[-1:]
    twin = sum(naive(inputs.flatten(1), layer, groups, 1.0, "paper", None) for layer in chosen)
    torch.testing.assert_close(ours[0], twin)


def test_weights_of_a_stack_may_differ_by_network():
    stack, batch = stack_of(), batch_for()
    arms = [settings.Arm(PLAIN, settings.Isometry(beta=b, scale=s)) for b, s in ((0.25, 0.5), (2.0, 3.0))]
    both = settings.Arm(PLAIN, settings.side_by_side([arm.isometry for arm in arms]))
    together = training_loss(stack, batch, both).total
    for s, arm in enumerate(arms):
        assert torch.equal(together[s], training_loss(stack, batch, arm).total[s])
    with pytest.raises(UserError, match="differ in layers"):
        settings.side_by_side([settings.Isometry(beta=1.0), settings.Isometry(beta=1.0, layers="all")])
    with pytest.raises(UserError, match="differ in sigma"):
        settings.side_by_side([settings.Noise(objective="noise", sigma=s) for s in (0.1, 0.2)])
    assert settings.side_by_side([arm.isometry for arm in arms], "meta").beta.device.type == "meta"


def named(*path):
    return ".".join(("arms", *path))


BLOCKS = {
    "baseline": {"objective": "cross-entropy"},
    "jacobian": {"objective": "jacobian", "weight": 0.1},
    "trades": "skip",
    "twin": {"twin_of": "jacobian", "isometry": {"beta": 1.0}},
    "tuned": {
        "twin_of": "jacobian",
        "grid": {"weight": [0.1, 0.3]},
        "isometry_grid": {"beta": [1.0, 2.0], "layers": ["last", "all"]},
    },
}


def test_a_twin_has_its_bases_numbers_and_the_term():
    arm = settings.resolve("twin", BLOCKS, named)
    assert arm.objective == settings.resolve("jacobian", BLOCKS, named).objective and arm.isometry.beta == 1.0
    assert settings.resolve("baseline", BLOCKS, named).term() is None and arm.term()["layers"] == "last"


def test_a_grid_holds_every_combination():
    cells = settings.cells(settings.Tuned(**BLOCKS["tuned"]))
    assert len(cells) == 8 and cells[0] == {"objective": {"weight": 0.1}, "isometry": {"beta": 1.0, "layers": "last"}}
    assert cells[1]["isometry"]["layers"] == "all" and cells[-1]["objective"]["weight"] == 0.3
    arm = settings.resolve("tuned", BLOCKS, named, cells[-1])
    assert (arm.objective.weight, arm.isometry.beta, arm.isometry.layers) == (0.3, 2.0, "all")
    with pytest.raises(UserError, match="chosen by the stage sweep"):
        settings.resolve("tuned", BLOCKS, named)


def test_the_documented_example_of_a_new_objective_works():
    """The code block of docs/extending.md, run as it stands, with its twin."""
    from typing import Annotated, Literal

    from pydantic import Field

    from isorobust.objectives import losses

    text = (ROOT / "docs/extending.md").read_text().split("<!-- example: objective -->\n```python\n")[1].split("```")[0]
    names = {**vars(losses), **vars(settings), "Annotated": Annotated, "Literal": Literal, "Field": Field}
    exec(compile(text, "docs/extending.md", "exec", dont_inherit=True), names)
    options = names["Smoothing"](objective="smoothing", share=0.1)
    stack, batch = stack_of(), batch_for()
    losses.OBJECTIVES["smoothing"] = names["smoothing"]
    try:
        loss = training_loss(stack, batch, settings.Arm(options, settings.Isometry(beta=0.5)))
    finally:
        del losses.OBJECTIVES["smoothing"]
    expected = F.cross_entropy(stack(batch.images)[1], batch.labels[1], label_smoothing=0.1)
    torch.testing.assert_close(loss.parts["smoothed"][1], expected)
    torch.testing.assert_close(loss.total, loss.parts["smoothed"] + 0.5 * loss.parts["isometric"])


@pytest.mark.slow
def test_the_documented_example_of_a_new_arm_is_all_it_takes(tmp_path):
    """docs/extending.md followed in a copy of the project; its own checks of params.yaml and dvc.yaml must pass there."""
    text = (ROOT / "docs/extending.md").read_text()
    shown = dict(re.findall(r"<!-- example: (\w+) -->\n```\w+\n(.*?)```", text, re.DOTALL))
    for folder in ("src", "stages", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml", "pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / name)

    def change(name, *replaced):
        old = (tmp_path / name).read_text()
        for before, after in replaced:
            assert old.count(before) == 1, f"{name}: {before}"
            old = old.replace(before, after)
        (tmp_path / name).write_text(old)

    kind, function = shown["objective"].split("\n\n\n")
    file = "src/isorobust/objectives/settings.py"
    change(file, ("Objective = ", f"{kind}\n\n\nObjective = "), ("| Adversarial, F", "| Adversarial | Smoothing, F"))
    entry = 'OBJECTIVES = {\n    "smoothing": smoothing,'
    change("src/isorobust/objectives/losses.py", ("OBJECTIVES = {", f"{function}\n\n{entry}"))

    def add(params):
        blocks = yaml.safe_load(shown["blocks"])["arms"]
        params["arms"] += blocks
        params["defaults"]["arms"].update(blocks)
        for recipe in params["recipes"].values():
            recipe["arms"].update({arm: {} for arm in blocks})

    Project(tmp_path).edit_params(add)
    stanzas = re.search(r"  train-noise:.*?(?=  train-adversarial:)", (ROOT / "dvc.yaml").read_text(), re.DOTALL)[0]
    following = "  train-adversarial:\n", "      reclassifier: {stage:", "    - results/${data.name}/train/baseline.json\n    -"
    added = stanzas.replace("noise", "smoothing"), shown["attack"], shown["compare"]
    change("dvc.yaml", *((before, new + before) for before, new in zip(following, added)))
    checks = ["tests/test_wiring.py", "tests/test_params.py::test_the_committed_file_is_valid"]
    done = Project(tmp_path).run(sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-rA", *checks)
    for arm in ("smoothing", "smoothing-isometric"):
        assert f"PASSED tests/test_wiring.py::test_declared_params_are_those_read[train-{arm}]" in done.stdout
