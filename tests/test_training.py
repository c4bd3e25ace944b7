"""Training: together or in turn, seeds independent of each other, stopping at NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import NETWORKS

from isorobust.common.splits import Split
from isorobust.errors import UserError
from isorobust.networks.stack import Stack
from isorobust.networks.zoo import build
from isorobust.objectives import settings as arms
from isorobust.objectives.losses import OBJECTIVES, Batch, pgd_images, training_loss
from isorobust.training.arm import train_arm
from isorobust.training.fit import fit, is_mixed
from isorobust.training.settings import TrainingSettings

PLAIN = arms.CrossEntropy(objective="cross-entropy")
JACOBIAN = arms.Jacobian(objective="jacobian", weight=0.1)
TERM = arms.Isometry(beta=0.5)
ARMS = {
    "cross-entropy": arms.Arm(PLAIN),
    "isometric": arms.Arm(PLAIN, TERM),
    "isometric pairs k=2": arms.Arm(PLAIN, arms.Isometry(beta=0.5, reduction="pairs", neighbours=2)),
    "isometric all layers": arms.Arm(PLAIN, arms.Isometry(beta=0.5, layers="all")),
    "isometric all pairs of features": arms.Arm(PLAIN, arms.Isometry(beta=0.5, pairs="all", distances="features")),
    "adversarial linf": arms.Arm(arms.Adversarial(objective="adversarial", norm="linf", eps=0.1, steps=2)),
    "adversarial l2": arms.Arm(arms.Adversarial(objective="adversarial", norm="l2", eps=0.5, steps=2)),
    "noise": arms.Arm(arms.Noise(objective="noise", sigma=0.1)),
    "jacobian": arms.Arm(JACOBIAN),
    "jacobian-isometric": arms.Arm(JACOBIAN, TERM),
    "trades-isometric": arms.Arm(arms.Trades(objective="trades", weight=6.0, norm="linf", eps=0.1, steps=2), TERM),
}
every_arm = pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS.keys())


def train(splits, arm, seeds=(0, 1, 2), mode="auto", network="tanh-mlp", dtype=torch.float32, epochs=2, count=None, **more):
    options = TrainingSettings(epochs=epochs, batch_size=50, learning_rate=3e-3, seeds=mode, **more)
    networks = [build(NETWORKS[network], splits.train.images.shape[1:], 5, seed=s).to(dtype) for s in seeds]
    return fit(networks, list(seeds), splits.train.first(count or 400), splits.val, arm, options)


@every_arm
def test_mlp_seeds_stacked_equal_seeds_in_turn_bit_for_bit(splits, arm):
    stacked, loop = (train(splits, arm, mode=mode) for mode in ("stacked", "loop"))
    assert stacked.state.keys() == loop.state.keys()
    for name in stacked.state:
        assert torch.equal(stacked.state[name], loop.state[name]), name
    for name in stacked.history:
        assert np.array_equal(stacked.history[name], loop.history[name]), name


@pytest.mark.parametrize("network", ["small-cnn", "conv-features", "resnet18"])
@pytest.mark.parametrize(
    "arm", ["cross-entropy", "isometric all layers", "adversarial linf", "jacobian-isometric", "trades-isometric"]
)
def test_other_networks_stacked_equal_in_turn_in_float64(splits, network, arm):
    """Batch-norm statistics included; a few steps, because rounding grows."""
    steps = {"seeds": (0, 1), "network": network, "dtype": torch.float64, "epochs": 1, "count": 150}
    stacked, loop = (train(splits, ARMS[arm], mode=mode, **steps) for mode in ("stacked", "loop"))
    for name in stacked.state:
        torch.testing.assert_close(stacked.state[name], loop.state[name], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["tanh-mlp", "conv-features"])
def test_weights_do_not_depend_on_the_number_of_threads(splits, threads, name):
    """Nor on the process that they come from, nor on which networks share a stack there; first weights included."""
    wide = {**NETWORKS[name].model_dump(), "width": 128}  # more threads find other orthogonal weights only where there are many
    network, options = type(NETWORKS[name])(**wide), TrainingSettings(epochs=1, batch_size=50, learning_rate=3e-3)
    found = []
    for count in (1, 2, 4):
        threads(count)
        args = splits.train.first(200), splits.val, network, ARMS["jacobian-isometric"], options, [0, 1, 2]
        found.append(train_arm(*args, torch.device("cpu"), {}))
    for other in found[1:]:
        assert all(torch.equal(tensor, other.checkpoint.tensors[key]) for key, tensor in found[0].checkpoint.tensors.items())
        assert other.rows == found[0].rows and other.metrics == found[0].metrics


@every_arm
def test_a_seed_does_not_depend_on_the_others(splits, arm):
    alone, among = train(splits, arm, seeds=(2,)), train(splits, arm, seeds=(0, 1, 2))
    assert all(torch.equal(alone.state[name][0], among.state[name][2]) for name in alone.state)


def test_seeds_differ_in_weights_and_order(splits):
    state = train(splits, ARMS["cross-entropy"]).state
    assert not torch.equal(state["head.weight"][0], state["head.weight"][1])


def test_the_same_call_gives_the_same_bytes_and_leaves_the_global_stream_alone(splits):
    torch.manual_seed(9)
    expected = torch.rand(4)
    torch.manual_seed(9)
    first = train(splits, ARMS["adversarial linf"])
    assert torch.equal(torch.rand(4), expected)
    torch.manual_seed(1)
    second = train(splits, ARMS["adversarial linf"])
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)


def test_it_learns(splits):
    trained = train(splits, ARMS["cross-entropy"], epochs=15)
    assert trained.history["val_accuracy"][-1].mean() > 0.9
    assert np.array_equal(trained.val_correct.mean(axis=1), trained.history["val_accuracy"][-1])


def test_the_isometric_term_falls_when_it_is_weighted(splits):
    weighted = train(splits, arms.Arm(PLAIN, arms.Isometry(beta=10.0)), epochs=6)
    watched = train(splits, arms.Arm(PLAIN, arms.Isometry(beta=0.0)), epochs=6)
    assert weighted.history["train_isometric"][-1].mean() < 0.5 * watched.history["train_isometric"][-1].mean()
    plain = train(splits, ARMS["cross-entropy"], epochs=6)
    assert torch.equal(watched.state["head.weight"], plain.state["head.weight"])  # beta 0 is the baseline


@pytest.mark.parametrize("mode", ["stacked", "loop"])
def test_a_loss_that_is_not_finite_stops_and_says_where(splits, mode):
    with pytest.raises(UserError, match=r"training diverged: loss is nan at epoch 1, step 1, seed 1"):
        options = TrainingSettings(epochs=1, batch_size=50, learning_rate=1e-3, seeds=mode)
        networks = [build(NETWORKS["tanh-mlp"], (1, 8, 8), 5, seed=s) for s in (0, 1)]
        with torch.no_grad():
            networks[1].head.bias.fill_(float("nan"))
        fit(networks, [0, 1], splits.train, splits.val, ARMS["cross-entropy"], options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": np.zeros((4, 1, 9, 9), np.uint8)},
            r"val: found images \[1, 9, 9\] and labels up to 3; allowed: images \[1, 8, 8\]",
        ),
        ({"labels": np.array([0, 1, 2, 7])}, "labels up to 7; allowed: .* labels up to 4"),
    ],
    ids=["another size", "another class"],
)
def test_a_val_split_unlike_the_training_split_is_told(splits, change, message):
    val = Split(np.zeros((4, 1, 8, 8), np.uint8), np.arange(4))._replace(**change)
    with pytest.raises(UserError, match=message):
        train(splits._replace(val=val), arms.Arm(PLAIN))


def test_a_last_step_that_diverges_is_told_too(splits):
    def steep(stack, batch, arm):
        """A loss that is finite, with a gradient that is not a number."""
        loss = training_loss(stack, batch, arm)
        return loss._replace(total=loss.total + (0 * stack.weights["head.bias"]).abs().sum(1).sqrt())

    networks = [build(NETWORKS["tanh-mlp"], (1, 8, 8), 5, seed=0)]
    options = TrainingSettings(epochs=1, batch_size=len(splits.train.labels), learning_rate=1e-3)
    with pytest.raises(UserError, match="training diverged: val loss is nan after epoch 1, seed 0"):
        fit(networks, [0], splits.train, splits.val, ARMS["cross-entropy"], options, loss=steep)


def batch_of(splits, size=3, count=20):
    images = torch.from_numpy(splits.train.images[:count]).float().div(255).expand(size, -1, -1, -1, -1)
    labels = torch.from_numpy(splits.train.labels[:count]).expand(size, -1)
    return Batch(images, labels, [torch.Generator().manual_seed(s) for s in range(size)])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_training_pgd_keeps_ball_and_box_and_raises_the_loss(splits, trained, norm):
    eps = {"linf": 0.1, "l2": 1.0}[norm]
    stack, batch = Stack([trained]), batch_of(splits, 1)
    options = arms.Adversarial(objective="adversarial", norm=norm, eps=eps, steps=5)
    images = pgd_images(stack, batch, options)
    delta = (images - batch.images).flatten(2)
    length = delta.abs().amax(2) if norm == "linf" else delta.norm(dim=2)
    assert length.max() <= eps + 1e-6 and images.min() >= 0 and images.max() <= 1
    plain = OBJECTIVES["cross-entropy"](stack, batch, None).total
    attacked = OBJECTIVES["adversarial"](stack, batch_of(splits, 1), options).total
    assert attacked > 2 * plain
    assert not images.requires_grad and all(w.grad is None for w in stack.parameters())


def test_partial_batches_and_prime_sizes_train(splits):
    trained = train(splits, ARMS["isometric"], count=101, epochs=1)
    assert np.isfinite(trained.history["train_loss"]).all()


@pytest.mark.parametrize(
    ("precision", "network", "device", "mixed"),
    [
        ("auto", "tanh-mlp", "cpu", False),
        ("auto", "tanh-mlp", "cuda", False),
        ("auto", "resnet18", "cpu", False),
        ("auto", "resnet18", "cuda", True),
        ("float32", "resnet18", "cuda", False),
        ("mixed", "conv-features", "cpu", True),
        ("mixed", "tanh-mlp", "cuda", False),
    ],
)
def test_precision_is_mixed_by_itself_for_convolutions_on_a_gpu(precision, network, device, mixed, monkeypatch):
    monkeypatch.setattr("isorobust.training.fit.has_bfloat16", lambda: True)
    built = build(NETWORKS[network], (1, 8, 8), 5, seed=0)
    assert is_mixed(precision, built, torch.device(device)) is mixed


def test_a_gpu_without_bfloat16_trains_in_float32_and_refuses_mixed(monkeypatch):
    monkeypatch.setattr("isorobust.training.fit.has_bfloat16", lambda: False)
    built = build(NETWORKS["resnet18"], (1, 8, 8), 5, seed=0)
    assert not is_mixed("auto", built, torch.device("cuda"))
    with pytest.raises(UserError, match="training.precision: found 'mixed'; allowed: auto or float32"):
        is_mixed("mixed", built, torch.device("cuda"))


@pytest.mark.parametrize("network", ["conv-features", "small-cnn", "resnet18"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_mixed_precision_rounds_products_while_training_and_nothing_else(splits, network, seeds):
    networks = [build(NETWORKS[network], splits.train.images.shape[1:], 5, seed=s) for s in range(seeds)]
    plain, mixed = Stack(networks).to("cpu"), Stack(networks, mixed=True).to("cpu")
    pixels = torch.from_numpy(splits.train.images[:20]).float().div(255).expand(seeds, -1, -1, -1, -1)
    assert torch.allclose(mixed(pixels), plain(pixels), atol=1e-5)  # a plain call, for attacks inside training and for val
    ours, theirs = ([a.logits, *a.hidden, a.stem] for a in (stack.activations(pixels) for stack in (mixed, plain)))
    for one, other in zip(ours, theirs):
        assert one.dtype == other.dtype == torch.float32 and one.shape == other.shape
        assert (one - other).norm() <= 0.05 * other.norm()  # bfloat16 has 8 bits
    assert not torch.equal(ours[0], theirs[0])
    for name, weight in mixed.weights.items():
        assert weight.dtype == torch.float32 and torch.equal(weight, plain.weights[name])
        if weight.dim() == 5:
            assert weight[0].is_contiguous(memory_format=torch.channels_last), name


@pytest.mark.parametrize("arm", ["isometric", "jacobian-isometric", "adversarial linf", "trades-isometric"])
def test_mixed_precision_learns_as_float32_does(splits, arm):
    steps = {"seeds": (0,), "network": "conv-features", "epochs": 6}
    plain, mixed = (train(splits, ARMS[arm], precision=p, **steps) for p in ("float32", "mixed"))
    assert all(tensor.dtype == torch.float32 for tensor in mixed.state.values())
    assert any(not torch.equal(plain.state[name], mixed.state[name]) for name in plain.state)
    assert mixed.history["train_loss"][-1] < mixed.history["train_loss"][0] * (0.8 if "isometric" in arm else 1)
    for name in set(plain.history) - {"val_accuracy"}:  # 60 images: too coarse to tell
        np.testing.assert_allclose(mixed.history[name], plain.history[name], rtol=0.02, atol=0.001, err_msg=name)


def test_on_a_cpu_auto_is_float32_bit_for_bit(splits):
    steps = {"seeds": (0,), "network": "conv-features", "epochs": 1}
    plain, auto = (train(splits, ARMS["isometric"], precision=p, **steps) for p in ("float32", "auto"))
    assert all(torch.equal(plain.state[name], auto.state[name]) for name in plain.state)
