"""Networks, their stacks over seeds, and their files."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import NETWORKS

import isorobust
from isorobust.errors import UserError
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.stack import Stack
from isorobust.networks.zoo import build

SHAPES = {"grey 28": (1, 28, 28), "colour 32": (3, 32, 32), "odd 9": (1, 9, 9)}
names = pytest.mark.parametrize("name", NETWORKS)


@names
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_pixels_to_logits_with_features(name, shape):
    network = build(NETWORKS[name], shape, 7, seed=0).eval()
    images = torch.rand(3, *shape)
    logits, hidden, stem = network.activations(images)
    features = hidden[-1]
    assert logits.shape == (3, 7) and all(h.ndim == 2 and len(h) == 3 for h in (*hidden, stem))
    assert torch.equal(network(images), logits)
    assert torch.equal(network.features(images), features)
    assert torch.equal(network.head(features), logits)


@names
def test_gradients_in_the_images_have_their_layout(name):
    """Published attacks take `view`s of them, as `autograd.grad` gives them: `backward` would lay `images.grad` out anew."""
    images = torch.rand(3, 3, 32, 32, requires_grad=True)
    logits = build(NETWORKS[name], (3, 32, 32), 7, seed=0).eval()(images)
    assert torch.autograd.grad(logits.sum(), images)[0].is_contiguous()


def test_the_tanh_network_is_the_published_one():
    options = NETWORKS["tanh-mlp"].model_copy(update={"width": 100, "hidden_layers": 5})
    network = build(options, (1, 28, 28), 10, seed=0)
    shapes = [tuple(layer.weight.shape) for layer in network.hidden] + [tuple(network.head.weight.shape)]
    assert shapes == [(100, 784), (100, 100), (100, 100), (100, 100), (100, 100), (10, 100)]
    for layer in network.hidden[1:]:
        torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(100), atol=1e-5, rtol=0)
    assert network.features(torch.rand(2, 1, 28, 28)).abs().max() < 1


def test_the_convolutional_network_is_its_formula_whatever_its_layout_in_memory():
    """Its twin as the paper writes it, ReLU before pooling: outputs, and gradients in the images, past units that are 0."""
    network = build(NETWORKS["conv-features"], (3, 12, 12), 7, seed=0).double()
    images = torch.rand(4, 3, 12, 12, dtype=torch.float64, requires_grad=True)

    def as_written(x):
        x = network.normalise(x)
        for convolution in network.convolutions:
            x = torch.nn.functional.max_pool2d(torch.relu(convolution(x)), 2)
        x = x.flatten(1)
        for layer in network.hidden:
            x = torch.tanh(layer(x))
        return network.head(x)

    theirs, ours = as_written(images), network(images)
    torch.testing.assert_close(ours, theirs)
    change = torch.randn_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad(logits, images, change, retain_graph=True)[0] for logits in (ours, theirs)))


def test_normalisation_is_a_layer():
    plain = NETWORKS["small-cnn"]
    network = build(plain.model_copy(update={"mean": [0.5], "std": [0.25]}), (1, 8, 8), 3, seed=0)
    same = build(plain, (1, 8, 8), 3, seed=0)
    images = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(network(images), same((images - 0.5) / 0.25))


def test_normalisation_for_other_channels_is_refused():
    with pytest.raises(UserError, match=r"found 2 values; allowed: 1 or 3"):
        build(NETWORKS["small-cnn"].model_copy(update={"mean": [0.0, 0.5], "std": [1.0, 1.0]}), (3, 8, 8), 3)


@names
def test_a_seed_fixes_the_weights_and_leaves_the_global_stream_alone(name):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (build(NETWORKS[name], (1, 8, 8), 3, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


@names
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_stack_gives_each_networks_own_outputs(name, mode):
    networks = [build(NETWORKS[name], (1, 8, 8), 3, seed=s).double() for s in range(3)]
    images = torch.rand(3, 6, 1, 8, 8, dtype=torch.float64)
    stack = Stack(networks)
    getattr(stack, mode)()
    stacked = stack.activations(images)
    for s, network in enumerate(networks):
        getattr(network, mode)()
        own = network.activations(images[s])
        assert len(own.hidden) == len(stacked.hidden)
        for mine, theirs in zip((own.logits, own.stem, *own.hidden), (stacked.logits, stacked.stem, *stacked.hidden)):
            torch.testing.assert_close(theirs[s], mine, rtol=1e-10, atol=1e-10)


def save(tmp_path, name="tanh-mlp", seeds=(3, 7)):
    networks = [build(NETWORKS[name], (1, 8, 8), 3, seed=s) for s in seeds]
    spec = {"network": NETWORKS[name].model_dump(), "shape": [1, 8, 8], "classes": 3, "seeds": list(seeds), "isometric": None}
    path = tmp_path / "arm.safetensors"
    Checkpoint(spec, Stack(networks).state()).save(path)
    return path, networks


@names
def test_a_saved_network_computes_what_it_did(tmp_path, name):
    path, networks = save(tmp_path, name)
    images = torch.rand(5, 1, 8, 8)
    loaded = isorobust.load_model(path, seed=7)
    assert isinstance(loaded, torch.nn.Module) and not loaded.training
    assert torch.equal(loaded(images), networks[1].eval()(images))


def test_the_same_weights_give_the_same_bytes(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    assert save(tmp_path / "a")[0].read_bytes() == save(tmp_path / "b")[0].read_bytes()


def test_the_hash_names_weights_and_term(tmp_path):
    checkpoint = Checkpoint.read(save(tmp_path)[0])
    first = checkpoint.model_hash(3)
    assert first == checkpoint.model_hash(3) != checkpoint.model_hash(7)
    checkpoint.tensors["head.bias"][0, 0] += 1e-3
    assert checkpoint.model_hash(3) != first
    checkpoint = Checkpoint.read(save(tmp_path)[0])
    checkpoint.spec["isometric"] = {"beta": 1.0}
    assert checkpoint.model_hash(3) != first


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def foreign(path):
    path.write_bytes(b"not a checkpoint at all")


def other_spec(path):
    Checkpoint({"network": {}}, Checkpoint.read(path).tensors).save(path)


def hierarchies(path):
    checkpoint = Checkpoint.read(path)
    checkpoint.spec["trees"] = {"two-level": []}
    checkpoint.save(path)


def other_architecture(path):
    checkpoint = Checkpoint.read(path)
    checkpoint.spec["network"]["width"] = 99
    checkpoint.save(path)


def respecified(**values):
    def damage(path):
        checkpoint = Checkpoint.read(path)
        checkpoint.spec.update(values)
        checkpoint.save(path)

    return damage


def not_finite(path):
    checkpoint = Checkpoint.read(path)
    next(iter(checkpoint.tensors.values()))[0] = torch.nan
    checkpoint.save(path)


def unknown_network(path):
    checkpoint = Checkpoint.read(path)
    checkpoint.spec["network"] = {"name": "vgg"}
    checkpoint.save(path)


@pytest.mark.parametrize(
    ("damage", "seed", "message"),
    [
        (truncate, 3, "damaged or foreign checkpoint"),
        (foreign, 3, "damaged or foreign checkpoint"),
        (other_spec, 3, "foreign checkpoint .*without network, shape"),
        (hierarchies, 3, "found 'hierarchies two-level'; allowed: an arm"),
        (other_architecture, 3, r"another architecture: \S+ is \[\d+.*\], tanh-mlp needs"),
        (not_finite, 3, r"damaged or foreign checkpoint \(\S+ is not finite"),
        (respecified(seeds=[3]), 3, r"foreign checkpoint \(.* for 1 seeds"),
        (respecified(seeds=[]), 3, "foreign checkpoint .*seeds"),
        (respecified(classes="5"), 3, "foreign checkpoint .*classes '5'"),
        (respecified(shape="x"), 3, "foreign checkpoint .*shape 'x'"),
        (respecified(shape=[1, -8, 8]), 3, "foreign checkpoint .*shape \\[1, -8, 8\\]"),
        (respecified(shape=[64]), 3, "foreign checkpoint .*shape \\[64\\]"),
        (respecified(classes=0), 3, "foreign checkpoint .*classes 0"),
        (respecified(seeds=[3, -7]), 3, "foreign checkpoint .*seeds \\[3, -7\\]"),
        (unknown_network, 3, "found 'vgg'; allowed: tanh-mlp"),
        (lambda path: path.unlink(), 3, "no such file"),
        (lambda path: None, 0, "seed: found 0; allowed: 3, 7"),
    ],
    ids=[
        "truncated",
        "foreign",
        "other spec",
        "hierarchies",
        "other architecture",
        "not finite",
        "fewer seeds",
        "no seeds",
        "classes as text",
        "shape as text",
        "a negative side",
        "shape of one number",
        "no classes",
        "a negative seed",
        "unknown network",
        "missing",
        "unknown seed",
    ],
)
def test_a_bad_checkpoint_is_told(tmp_path, damage, seed, message):
    path, _ = save(tmp_path)
    damage(path)
    with pytest.raises(UserError, match=message):
        isorobust.load_model(path, seed=seed)


def test_the_spec_is_readable_without_this_project(tmp_path):
    from safetensors import safe_open

    with safe_open(save(tmp_path)[0], "pt") as file:
        assert json.loads(file.metadata()["spec"])["seeds"] == [3, 7]
